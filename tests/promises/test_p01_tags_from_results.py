"""P1 for tags that are known from the result: wherever the entry came from, invalidating one of them reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, depends_on
from tests.servers import run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way

PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}


@pytest.mark.parametrize("how", ["single", "map", "warm"])
@pytest.mark.parametrize("store", ["redis_server", "redis_cluster"])
def test_tags_from_results_reach_what_a_bulk_loader_has_loaded(
    store: str, how: str, request: pytest.FixtureRequest, way_of: Callable[[str], Way]
) -> None:
    """Standalone and Cluster, one call at a time and in batches."""
    way = way_of(request.getfixturevalue(store).url)
    source = {1: "old 1", 2: "old 2", 3: "old 3"}
    orders = way.cached(tags=(lambda call, result: [f"order:{call.arguments['i']}", "all"],))(lambda i: source[i])
    # (The parameter's name is part of the tags, so the function is a lambda over `i`.)

    def many(calls: Any) -> list[str]:
        return [source[call.arguments["i"]] for call in calls]

    orders.batch_load(way.flavoured(many))

    def ask() -> list[str]:
        if how == "warm":
            way.run(orders.warm([1, 2, 3]))
        if how in ("map", "warm"):
            return list(way.run(orders.map([1, 2, 3])))
        return [way.run(orders(i)) for i in (1, 2, 3)]

    for _ in range(3):  # the first may not have been stored: its tags were new
        assert ask() == ["old 1", "old 2", "old 3"]
    source.update({1: "new 1", 2: "new 2", 3: "new 3"})
    invalidate = way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags
    way.run(invalidate("order:1"))
    assert ask()[0] == "new 1"
    way.run(invalidate("all"))
    assert ask() == ["new 1", "new 2", "new 3"]


def _older(url: str, prefix: str, tagged: bool = False) -> None:
    tags: Any = (lambda call, result: [f"user:{call.arguments['i']}"],) if tagged else ()
    with Cache(url, prefix=prefix, **PATIENT) as cache:

        @cache.versioned(namespace="people", version=1, tags=tags)
        def person(i: int) -> dict[str, Any]:
            return {"name": "old"}

        for _ in range(2):  # tags that were not known before may not have been stored at first
            person(1)
            person(2)


def test_an_upgraded_entry_has_the_tags_of_its_new_version(
    redis_url: str, prefix: str, way_of: Callable[[str], Way]
) -> None:
    """Version 2 adds a tag that is known from the result: nothing that was loaded before its invalidation is served,
    though the entry of version 1 is still there."""
    run_python(_older, redis_url, prefix)
    way = way_of(redis_url)
    source = {"name": "old"}
    person = way.cached("people", version=2, tags=(lambda call, result: [f"user:{call.arguments['i']}"],))(
        lambda i: {**source, "v": 2}
    )
    upgraded: list[Any] = []

    @person.upgrade(from_version=1)
    def upgrade(old: dict[str, Any]) -> dict[str, Any]:
        upgraded.append(old)
        return {**old, "v": 2}

    for _ in range(2):
        assert way.run(person(1)) == {"name": "old", "v": 2}
        assert way.run(person.map([2])) == [{"name": "old", "v": 2}]
    assert upgraded, "nothing was taken over: this test proves nothing"
    source["name"] = "new"
    invalidate = way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags
    way.run(invalidate("user:1", "user:2"))
    assert [way.run(person(1)), *way.run(person.map([2]))] == [{"name": "new", "v": 2}] * 2


def test_an_entry_that_has_the_tags_from_its_result_is_upgraded_with_them(
    redis_url: str, prefix: str, way_of: Callable[[str], Way]
) -> None:
    """Both versions have the tag: the entry is taken over, and goes with its tag."""
    run_python(_older, redis_url, prefix, True)
    way = way_of(redis_url)
    source = {"name": "new"}
    person = way.cached("people", version=2, tags=(lambda call, result: [f"user:{call.arguments['i']}"],))(
        lambda i: {**source, "v": 2}
    )
    person.upgrade(from_version=1)(lambda old: {**old, "v": 2})
    assert way.run(person(1)) == {"name": "old", "v": 2}
    assert way.run(person(1)) == {"name": "old", "v": 2}
    assert person.cache_info().loads == 0
    way.run((way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags)("user:1"))
    assert way.run(person(1)) == {"name": "new", "v": 2}


def test_a_tag_that_an_upgrade_declares_reaches_its_result(
    redis_url: str, prefix: str, way_of: Callable[[str], Way]
) -> None:
    """`depends_on` in an upgrade counts as it does in a load."""
    run_python(_older, redis_url, prefix)
    way = way_of(redis_url)
    source = {"name": "old"}

    def load(i: int) -> dict[str, Any]:
        depends_on(f"user:{i}")
        return {**source, "v": 2}

    person = way.cached("people", version=2)(load)

    @person.upgrade(from_version=1)
    def upgrade(old: dict[str, Any]) -> dict[str, Any]:
        depends_on("user:1")
        return {**old, "v": 2}

    for _ in range(2):
        assert way.run(person(1)) == {"name": "old", "v": 2}
    source["name"] = "new"
    way.run((way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags)("user:1"))
    assert way.run(person(1)) == {"name": "new", "v": 2}


@pytest.mark.parametrize("count", [16, 17, 40])
def test_too_many_tags_from_a_result_do_not_cost_the_caller_its_result(count: int, way: Way, caplog: Any) -> None:
    """More than 16: the result is returned and not stored, and one warning says so."""
    runs: list[int] = []

    def load(x: int) -> int:
        runs.append(x)
        return x

    f = way.cached(tags=(lambda call, result: [f"t:{n}" for n in range(count)],))(load)
    for _ in range(4):
        assert way.run(f(1)) == 1
    if count > 16:
        assert len(runs) == 4, "what was not stored is loaded again"
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    else:
        assert len(runs) <= 2
