"""At run time: an entry of another shape under one version is a miss, and older versions can be upgraded from."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import logging
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from memover import Cache, ConfigurationError, InvalidationFailed, Source
from memover.codec.envelope import NO_FINGERPRINT, read_header
from memover.runtime.run import run
from tests.servers import FaultyProxy, as_another_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.servers import RedisServer


class Deployed(NamedTuple):
    """A function as one release has it: decorated, its class, and the arguments it was run with."""

    f: Any
    kind: Any
    loads: list[Any]


class Releases:
    """Releases of one function on one cache, as rolling processes would have them."""

    def __init__(self, cache: Cache, *, is_async: bool = False) -> None:
        self.cache = cache
        self.is_async = is_async

    def deploy(self, version: int, *fields: tuple[str, Any], ttl: Any = 60, **options: Any) -> Deployed:
        """`make(n)` of a version whose result has these fields, each filled with `n`."""
        as_another_process()
        kind = dataclasses.make_dataclass("Made", [*fields])
        kind.__module__ = __name__
        globals()["Made"] = kind
        loads: list[Any] = []

        def make(n):  # type: ignore[no-untyped-def]
            loads.append(n)
            return kind(*[n] * len(dataclasses.fields(kind)))

        async def amake(n):  # type: ignore[no-untyped-def]
            return make(n)

        function = amake if self.is_async else make
        function.__qualname__ = function.__name__ = "make"
        function.__annotations__["return"] = kind
        return Deployed(
            self.cache.versioned(namespace="made", version=version, ttl=ttl, **options)(function), kind, loads
        )

    def run(self, answer: Any) -> Any:
        return asyncio.run(_awaited(answer)) if self.is_async else answer


async def _awaited(answer: Any) -> Any:
    return await answer


A, B, C = ("a", int), ("b", int), ("c", str)


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, redis_url: str, prefix: str) -> Iterator[Cache]:
    with Cache("memory://" if request.param == "memory" else redis_url, prefix=prefix) as made:
        yield made


@pytest.fixture
def releases(cache: Cache) -> Releases:
    return Releases(cache)


@pytest.fixture(params=["def", "async def"])
def both(request: pytest.FixtureRequest, cache: Cache) -> Releases:
    return Releases(cache, is_async=request.param == "async def")


# Another shape under one version


def test_an_entry_of_another_shape_is_a_miss(both: Releases, caplog: pytest.LogCaptureFixture) -> None:
    """The reader loads, and one warning names the function, the field and what was forgotten."""
    old, new = both.deploy(1, A), None
    both.run(old.f(7))
    both.run(old.f(8))
    new = both.deploy(1, A, B)
    with caplog.at_level(logging.WARNING, "memover"):
        assert both.run(new.f(7)) == new.kind(7, 7)
        assert both.run(new.f(8)) == new.kind(8, 8)
    assert new.loads == [7, 8]
    (record,) = caplog.records
    for words in ("make", "'made'", "Made.b (int) is not in it", "memover bump made"):
        assert words in record.getMessage()
    info = new.f.cache_info()
    assert (info.other_shape, info.damaged, info.loads) == (2, 0, 2)
    assert both.run(new.f(7)) == new.kind(7, 7)
    assert new.loads == [7, 8]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([A, B], [A], "Made.b is in it, and no longer in Made"),
        ([A], [("a", str)], "Made.a is int in it, and str now"),
        ([A], [("a", "int | None")], "which field it is, the entry does not show"),
        ([("a", "list[int]")], [("a", "list[str]")], "Made.a is int in it, and list[str] now"),
    ],
)
def test_the_warning_names_the_field_as_far_as_the_bytes_show_it(
    releases: Releases, caplog: pytest.LogCaptureFixture, before: Any, after: Any, told: str
) -> None:
    """Gone, of another type; and an honest word where nothing can be seen."""
    releases.deploy(1, *before).f(7)
    with caplog.at_level(logging.WARNING, "memover"):
        new = releases.deploy(1, *after)
        new.f(7)
    assert new.loads == [7]
    assert told in caplog.text


def test_observers_are_told_once_for_each_entry(prefix: str) -> None:
    """The event is "other-shape"."""
    events: list[Any] = []
    releases = Releases(Cache("memory://", prefix=prefix, observers=[events.append]))
    releases.deploy(1, A).f(7)
    releases.deploy(1, A, B).f(7)
    assert [each.name for each in events].count("other-shape") == 1


def test_another_version_is_read_in_its_own_shape(releases: Releases) -> None:
    """`f.at(1).peek` is no mistake of anybody."""
    releases.deploy(1, A).f(7)
    new = releases.deploy(2, A)
    entry = new.f.at(1).peek(7)
    assert entry is not None
    assert entry.value == new.kind(7)
    assert new.f.cache_info().other_shape == 0


def test_a_function_without_annotation_reads_what_there_is(cache: Cache) -> None:
    """Of the unknown nothing is said; its entries carry zeros."""

    def plain(n):  # type: ignore[no-untyped-def]
        return [n]

    f: Any = cache.versioned(namespace="plain", version=1)(plain)
    f(1)
    raw = cache._state.store.fetch(f._self_definition.now().lookup(1)).raw
    assert raw is not None
    assert read_header(raw, f.key(1).encode()).fingerprint == NO_FINGERPRINT
    plain.__annotations__["return"] = list[int]
    g: Any = cache.versioned(namespace="plain", version=1)(plain)
    assert g(1) == [1]
    assert g.cache_info().hits == 1


@pytest.mark.parametrize(("annotation", "known"), [("Silent | list", True), ("'Later | list'", False)])
def test_entries_made_while_a_module_is_imported_have_a_shape(
    annotation: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a name is missing, which may be there later; an attribute without an annotation is no such name."""
    name = f"imported_{secrets.token_hex(4)}"
    (tmp_path / f"{name}.py").write_text(
        "from memover import Cache, versioned_cache\n"
        "class Silent:\n    def __init__(self, name: str):\n        self.name = name\n        self.made = 1\n"
        "@versioned_cache(namespace='imported', cache=Cache())\n"
        f"def f(n) -> {annotation}:\n    return [n]\n"
        "f(1)\n"
        "fingerprint = f._self_definition.now().function.fingerprint\n"
        "class Later: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    assert bool(module.fingerprint) is known
    module.f(2)
    assert module.f._self_definition.now().function.fingerprint not in (b"", NO_FINGERPRINT)


def test_a_hit_is_still_one_command(redis_server: RedisServer, redis_url: str, prefix: str) -> None:
    """The comparison is of bytes that were read anyway."""
    releases = Releases(Cache(redis_url, prefix=prefix))
    made = releases.deploy(1, A)
    made.f(7)
    with redis_server.recording() as calls:
        made.f(7)
    assert calls == ["MGET"]


# Upgrades


def test_an_older_entry_is_upgraded_instead_of_loaded(both: Releases) -> None:
    """The function does not run; the old result came as a dict; the next call is a hit."""
    both.run(both.deploy(1, A).f(7))
    new = both.deploy(2, A, C)
    given: list[Any] = []

    @new.f.upgrade(from_version=1)
    def upgrade(old: dict[str, Any]) -> Any:
        given.append(old)
        return new.kind(**old, c="new")

    with both.cache.detect() as lookups:
        assert both.run(new.f(7)) == new.kind(7, "new")
        assert both.run(new.f(7)) == new.kind(7, "new")
    assert given == [{"a": 7}]
    assert new.loads == []
    assert [each.source for each in lookups] == [Source.UPGRADED, Source.FRESH]
    info = new.f.cache_info()
    assert (info.upgrades, info.loads, info.misses, info.hits) == (1, 0, 1, 1)


def test_versions_are_upgraded_one_after_another(both: Releases) -> None:
    """1 → 2 → 3, and each step is given plain builtins, whatever the one before it returned."""
    both.run(both.deploy(1, A).f(7))
    both.run(both.deploy(2, A, C).f(8))
    new = both.deploy(3, A, B, C)
    given: list[Any] = []

    @new.f.upgrade(from_version=1)
    def one(old: dict[str, Any]) -> Any:
        given.append((1, old))
        return {**old, "c": "one"}

    @new.f.upgrade(from_version=2)
    def two(old: dict[str, Any]) -> Any:
        given.append((2, old))
        return new.kind(old["a"], 0, old["c"])

    assert both.run(new.f(7)) == new.kind(7, 0, "one")
    assert both.run(new.f(8)) == new.kind(8, 0, 8)
    assert given == [(1, {"a": 7}), (2, {"a": 7, "c": "one"}), (2, {"a": 8, "c": 8})]
    assert new.loads == []


def test_an_async_function_may_have_an_async_upgrade(cache: Cache) -> None:
    """It is awaited; a def function's cannot be one."""
    releases = Releases(cache, is_async=True)
    releases.run(releases.deploy(1, A).f(7))
    new = releases.deploy(2, A, C)

    @new.f.upgrade(from_version=1)
    async def upgrade(old: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        return new.kind(**old, c="new")

    assert releases.run(new.f(7)) == new.kind(7, "new")
    with pytest.raises(ConfigurationError, match="coroutine"):
        Releases(cache).deploy(2, A).f.upgrade(from_version=1)(upgrade)


@pytest.mark.parametrize("wrong", ["raises", "another type", "unencodable"])
def test_a_failing_upgrade_is_a_counted_miss_and_a_load(
    both: Releases, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in it never reaches the caller; the first time it is told."""
    both.run(both.deploy(1, A).f(7))
    new = both.deploy(2, A, C)

    @new.f.upgrade(from_version=1)
    def upgrade(old: dict[str, Any]) -> Any:
        if wrong == "raises":
            raise LookupError("no such field")
        return old if wrong == "another type" else new.kind(object(), "")

    with caplog.at_level(logging.WARNING, "memover"):
        assert both.run(new.f(7)) == new.kind(7, 7)
    assert new.loads == [7]
    info = new.f.cache_info()
    assert (info.upgrade_errors, info.upgrades, info.loads, info.misses) == (1, 0, 1, 1)
    assert "upgrade from version 1 failed" in caplog.text


def test_what_was_upgraded_lives_as_long_as_the_old_entry_would_have(
    redis_url: str, redis_client: redis.Redis, prefix: str
) -> None:
    """The remaining ttl, in the header and in Redis; a shorter ttl of the new version counts from the load."""
    releases = Releases(Cache(redis_url, prefix=prefix))
    old = releases.deploy(1, A, ttl=1000)
    old.f(7)
    before = old.f.peek(7)
    for version, ttl, lives in ((2, 5000, 1000), (3, 500, 500)):
        new = releases.deploy(version, A, ttl=ttl)
        new.f.upgrade(from_version=1)(lambda old, kind=new.kind: kind(**old))
        new.f(7)
        after = new.f.peek(7)
        assert after.created_at == before.created_at
        assert after.fresh_until == pytest.approx(before.created_at + lives)
        assert redis_client.pttl(new.f.key(7)) <= lives * 1000
        assert after.generation == before.generation


@pytest.mark.parametrize("how", ["all, by the old version", "all, by the new version", "the call, by the new version"])
def test_an_invalidated_entry_is_not_upgraded(both: Releases, how: str) -> None:
    """A generation is one for all versions, and a call is invalidated with what it could be upgraded from."""
    old = both.deploy(1, A)
    both.run(old.f(7))
    new = both.deploy(2, A, C)
    new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
    releases = old if "old" in how else new
    both.run(releases.f.invalidate(7) if "call" in how else releases.f.invalidate_all())
    assert both.run(new.f(7)) == new.kind(7, 7)
    assert new.loads == [7]


def test_an_upgrade_under_way_cannot_outlive_an_invalidation(both: Releases) -> None:
    """It holds the lease like a load: an invalidation in its midst keeps its result from being stored."""
    old = both.deploy(1, A)
    both.run(old.f(7))
    new = both.deploy(2, A, C)

    async def later() -> None:
        await new.f.invalidate(7)

    @new.f.upgrade(from_version=1)
    def upgrade(value: dict[str, Any]) -> Any:
        if not both.is_async:
            new.f.invalidate(7)
        return new.kind(**value, c="old")

    if both.is_async:

        async def upgrade_and_invalidate(value: dict[str, Any]) -> Any:
            await later()
            return upgrade(value)

        new.f._self_definition.upgrades[1] = upgrade_and_invalidate
    both.run(new.f(7))
    assert both.run(new.f(7)) == new.kind(7, 7)
    assert new.loads == [7]


@pytest.mark.parametrize("write", ["set", "refresh"])
def test_what_was_replaced_does_not_come_back(both: Releases, write: str) -> None:
    """set and refresh replace the older versions' entries too: when theirs is gone, the old one is not upgraded."""
    both.run(both.deploy(1, A).f(7))
    new = both.deploy(2, A, C)
    new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
    both.run(new.f.set(new.kind(1, "set"), 7) if write == "set" else new.f.refresh(7))
    key = new.f.key(7).encode()
    run(both.cache._state.store.drop(key, b"{%b}:lease" % key, "0" * 16, ()))
    new.loads.clear()
    assert both.run(new.f(7)) == new.kind(7, 7)
    assert new.loads == [7]


def test_max_age_holds_for_upgrades(releases: Releases) -> None:
    """An older entry is as old as its load."""
    releases.deploy(1, A).f(7)
    new = releases.deploy(2, A, C)
    new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
    assert new.f.max_age(0)(7) == new.kind(7, 7)


def test_an_invalidation_that_fails_goes_on_for_every_version(start_redis: Any, prefix: str) -> None:
    """What is owed covers the entries an upgrade could be made from."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        releases = Releases(Cache(proxy.url, prefix=prefix, socket_timeout=0.2))
        releases.deploy(1, A).f(7)
        new = releases.deploy(2, A, C)
        new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
        proxy.refuse()
        with pytest.raises(InvalidationFailed):
            new.f.invalidate(7)
        proxy.restore()
        new.f.cache.close()
        assert new.f(7) == new.kind(7, 7)


def test_methods_are_upgraded_with_their_instance_in_the_key(cache: Cache) -> None:
    """`self` is part of the key as always; the upgrade is given the result alone."""

    def release(decorate: Any) -> Any:
        class Shop:
            def __init__(self, name: str) -> None:
                self.name = name

            def __memover_key__(self) -> str:
                return self.name

            @decorate
            def price(self, item: int) -> list[Any]:
                return [self.name, item]

        return Shop

    old, new = (release(cache.versioned(namespace="shop", version=version)) for version in (1, 2))
    old("x").price(1)
    new.price.upgrade(from_version=1)(lambda value: [*value, "upgraded"])
    assert new("x").price(1) == ["x", 1, "upgraded"]
    assert new("y").price(1) == ["y", 1]


@pytest.mark.parametrize("version", [2, 3, 0, True])
def test_an_upgrade_is_from_an_older_version(releases: Releases, version: Any) -> None:
    """Anything else is a mistake that is told at once."""
    with pytest.raises(ConfigurationError):
        releases.deploy(2, A).f.upgrade(from_version=version)(lambda old: old)


def test_a_version_has_one_upgrade(releases: Releases) -> None:
    """A second one is refused, the same one again is not."""
    new = releases.deploy(2, A).f

    def upgrade(old: Any) -> Any:
        return old

    def other(old: Any) -> Any:
        return old

    assert new.upgrade(from_version=1)(upgrade) is upgrade
    new.upgrade(from_version=1)(upgrade)
    with pytest.raises(ConfigurationError, match="already"):
        new.upgrade(from_version=1)(other)


# Together with what else there is


def test_a_batch_is_upgraded_too(both: Releases) -> None:
    """`map` upgrades what it can and loads the rest, singly or in bulk."""
    old = both.deploy(1, A)
    for n in (1, 2):
        both.run(old.f(n))
    new = both.deploy(2, A, C)
    new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
    assert both.run(new.f.map([1, 3])) == [new.kind(1, "old"), new.kind(3, 3)]
    assert new.loads == [3]
    asked: list[Any] = []

    @new.f.batch_load
    def load(calls: Any) -> Any:
        asked.extend(call.arguments["n"] for call in calls)
        return {call: new.kind(0, "bulk") for call in calls}

    assert both.run(new.f.map([2, 4, 1])) == [new.kind(2, "old"), new.kind(0, "bulk"), new.kind(1, "old")]
    assert asked == [4]
    assert both.run(new.f.map([2, 4])) == [new.kind(2, "old"), new.kind(0, "bulk")]
    assert new.f.cache_info().upgrades == 2


def test_a_batch_finds_entries_of_another_shape(both: Releases) -> None:
    """The short way of a batch compares fingerprints as well."""
    old = both.deploy(1, A)
    both.run(old.f(1))
    new = both.deploy(1, A, C)
    both.run(new.f(5))
    assert both.run(new.f.map([1, 5])) == [new.kind(1, 1), new.kind(5, 5)]
    assert new.loads == [5, 1]
    assert new.f.cache_info().other_shape == 1


def test_tags_of_the_older_entry_still_count(both: Releases) -> None:
    """An entry whose tag was invalidated is not upgraded, and one that was upgraded goes with its tag."""
    tags = ("made:{n}",)
    for n in (1, 2):
        old = both.deploy(1, A, tags=tags)
        both.run(old.f(n))
    both.cache.invalidate_tags("made:2")
    new = both.deploy(2, A, C, tags=tags)
    new.f.upgrade(from_version=1)(lambda old: new.kind(**old, c="old"))
    assert [both.run(new.f(n)) for n in (1, 2)] == [new.kind(1, "old"), new.kind(2, 2)]
    both.cache.invalidate_tags("made:1")
    assert both.run(new.f(1)) == new.kind(1, 1)


def test_what_the_older_load_used_still_counts(cache: Cache) -> None:
    """An upgraded entry goes when something goes that its older load, or the upgrade itself, depended on."""
    values = {"rate": 1, "bonus": 10}

    @cache.versioned(namespace="rate")
    def rate() -> int:
        return values["rate"]

    @cache.versioned(namespace="bonus")
    def bonus() -> int:
        return values["bonus"]

    def release(version: int) -> Any:
        source = {"version": version}

        @cache.versioned(namespace="price", version=version)
        def price(n: int) -> int:
            return n * rate() + (bonus() if source["version"] > 1 else 0)

        return price

    old, new = release(1), release(2)
    new.upgrade(from_version=1)(lambda value: value + bonus())
    for changed in ("rate", "bonus"):
        old.refresh(5)
        key = new.key(5).encode()
        run(cache._state.store.drop(key, b"{%b}:lease" % key, "0" * 16, ()))
        before = new.cache_info().upgrades
        assert new(5) == 5 * values["rate"] + values["bonus"]
        assert new.cache_info().upgrades == before + 1
        values[changed] += 1
        {"rate": rate, "bonus": bonus}[changed].invalidate_all()
        assert new(5) == 5 * values["rate"] + values["bonus"]
