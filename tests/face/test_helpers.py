"""The helpers beside the call: peek, refresh, set, invalidate, invalidate_all, max_age, at, bypass, cache_*."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from memover import CacheInfo, ConfigurationError, Entry, Generation, MemoverWarning, UnencodableValue

if TYPE_CHECKING:
    from tests.face.ways import Way


@pytest.fixture
def runs() -> list[Any]:
    return []


def counted(way: Way, runs: list[Any], namespace: str = "counted", **options: Any) -> Any:
    @way.cached(namespace, **options)
    def f(x: int, y: int = 0) -> list[int]:
        runs.append(x)
        return [x, y, len(runs)]

    return f


def test_the_key_is_the_stored_one(redis_way: Way, redis_client: Any, runs: list[Any]) -> None:
    """prefix:version:namespace:digest, exactly as Redis holds it."""
    f = counted(redis_way, runs, "a/b.c-d_e", version=12)
    assert redis_way.run(f(1)) == [1, 0, 1]
    key = f.key(1)
    assert key.startswith(f"{redis_way.prefix}:12:a/b.c-d_e:")
    assert len(key.rpartition(":")[2]) == 32
    assert redis_client.exists(key) == 1
    found = set(redis_client.scan_iter(f"{redis_way.prefix}:*"))
    assert found == {key.encode(), f"{redis_way.prefix}:gen:a/b.c-d_e".encode()}


def test_peek_gives_the_entry_and_runs_nothing(way: Way, runs: list[Any]) -> None:
    """What a call would be answered from, with its header; None when it would run."""
    f = counted(way, runs, "peeked", version=3, ttl=60)
    assert way.run(f.peek(1)) is None
    assert runs == []
    before = time.time()
    way.run(f(1))
    entry = way.run(f.peek(x=1))
    assert isinstance(entry, Entry)
    assert entry.value == [1, 0, 1]
    assert (entry.key, entry.namespace, entry.version) == (f.key(1), "peeked", 3)
    assert isinstance(entry.generation, Generation)
    assert before - 1 <= entry.created_at <= time.time() + 1
    assert entry.fresh_until == pytest.approx(entry.created_at + 60)
    assert entry.tags == ()
    assert entry.size > 10
    entry.value.append("mine")
    assert way.run(f.peek(1)).value == [1, 0, 1]
    assert f.cache_info().hits == 0, "a peek is no lookup"
    way.run(f.invalidate_all())
    assert way.run(f.peek(1)) is None
    assert runs == [1]


def test_refresh_runs_and_stores(way: Way, runs: list[Any]) -> None:
    """Whatever is stored, the function runs now, and later calls get what it returned."""
    f = counted(way, runs)
    assert way.run(f.refresh(1)) == [1, 0, 1]
    assert way.run(f(1)) == [1, 0, 1]
    assert way.run(f.refresh(1)) == [1, 0, 2]
    assert way.run(f(1)) == [1, 0, 2]
    assert runs == [1, 1]


def test_refresh_that_fails_raises_and_keeps_the_entry(way: Way) -> None:
    """An error of the function is the caller's; what was stored stays."""
    fail = False

    @way.cached()
    def f() -> int:
        if fail:
            raise LookupError("now it fails")
        return 1

    way.run(f())
    fail = True
    with pytest.raises(LookupError, match="now it fails"):
        way.run(f.refresh())
    assert way.run(f()) == 1


def test_set_stores_a_value_known_from_elsewhere(way: Way, runs: list[Any]) -> None:
    """As this call's result, with the function's ttl; refused when it cannot be kept."""
    f = counted(way, runs, ttl=60)
    assert way.run(f.set([9], 1, y=2)) is None
    assert way.run(f(1, 2)) == [9]
    assert way.run(f(1)) == [1, 0, 1]
    entry = way.run(f.peek(1, 2))
    assert entry.fresh_until - entry.created_at == pytest.approx(60)
    with pytest.raises(UnencodableValue):
        way.run(f.set(object(), 1))
    assert way.run(f(1)) == [1, 0, 1]


def test_set_obeys_cache_if(way: Way) -> None:
    """What would not be stored after a load is not stored by hand either."""

    @way.cached(cache_if=lambda value, call: value is not None)
    def f(x: int) -> int | None:
        return x

    way.run(f.set(None, 1))
    assert way.run(f.peek(1)) is None
    way.run(f.set(5, 1))
    assert way.run(f(1)) == 5


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cache_if": ({"cache_if": lambda result, call: len(result) < 4}, {}),
    "a ttl of 0": ({"ttl": lambda result, call: 0 if len(result) > 3 else 60}, {}),
    "too many tags": ({"tags": lambda call, result: [f"tag:{n}" for n in range(len(result))]}, {}),
    "max_entry_bytes": ({}, {"max_entry_bytes": 50}),
    "on_unencodable": ({}, {"on_unencodable": "return"}),
}


@pytest.mark.parametrize("near", [False, True], ids=["", "near"])
@pytest.mark.parametrize("why", REFUSED)
def test_a_set_that_is_not_to_be_stored_ends_the_entry_before_it(why: str, near: bool, way: Way) -> None:
    """The value before it is not the result any more: no later call is answered with it."""
    options, of_cache = REFUSED[why]
    cache = way.new_cache(**of_cache)
    f = way.cached(cache=cache, near=near or None, **options)(lambda key: ["loaded"])
    way.run(f(1))
    way.run(f.set(["set"], 1))
    assert way.run(f(1)) == ["set"]
    way.run(f.set([object()] if why == "on_unencodable" else ["x" * 5] * 100, 1))
    assert way.run(f.peek(1)) is None
    assert way.run(f(1)) == ["loaded"]


def test_invalidate_removes_one_call(way: Way, runs: list[Any], redis_client: Any) -> None:
    """This call's entry, however it is written, and no other; on an absent one it is no error."""
    f = counted(way, runs)
    way.run(f(1))
    way.run(f(2))
    assert way.run(f.invalidate(y=0, x=1)) is None
    assert way.run(f.peek(1)) is None
    assert way.run(f(2)) == [2, 0, 2]
    assert way.run(f(1)) == [1, 0, 3]
    way.run(f.invalidate(77))
    if way.is_redis:
        way.run(f.invalidate(1))
        assert redis_client.exists(f.key(1)) == 0
        assert redis_client.exists(f.key(2)) == 1


def test_invalidate_all_moves_the_namespace(way: Way, runs: list[Any]) -> None:
    """Every entry of every version is gone when it returns; it returns the new generation, which only grows."""
    f = counted(way, runs, "moved", version=1)
    for x in range(5):
        way.run(f(x))
    first = way.run(f.invalidate_all())
    assert isinstance(first, Generation)
    assert str(first) == f"{first.number}-{first.nonce}"
    for x in range(5):
        assert way.run(f.peek(x)) is None
    assert way.run(f(1)) == [1, 0, 6]
    assert way.run(f.peek(1)).generation == first
    second = way.run(f.invalidate_all())
    assert second.number > first.number
    assert way.run(f.cache_clear()) is None
    assert way.run(f(1)) == [1, 0, 7]
    assert way.run(f.peek(1)).generation.number > second.number


def test_a_cache_invalidates_a_namespace_by_name(way: Way, runs: list[Any]) -> None:
    """invalidate_namespace(name): whoever decorates with it, here or elsewhere; names are checked."""
    f = counted(way, runs, "by/name")
    way.run(f(1))
    if way.is_async:
        moved = way.run(way.cache.ainvalidate_namespace("by/name"))
    else:
        moved = way.cache.invalidate_namespace("by/name")
    assert isinstance(moved, Generation)
    assert way.run(f(1)) == [1, 0, 2]
    assert way.run(f.peek(1)).generation == moved
    with pytest.warns(MemoverWarning, match="nobody/has/this"):
        assert isinstance(way.cache.invalidate_namespace("nobody/has/this"), Generation)
    with pytest.raises(ConfigurationError):
        way.cache.invalidate_namespace("not a name")


def test_max_age_accepts_only_younger_entries(way: Way, runs: list[Any]) -> None:
    """f.max_age(s)(...): a call that loads when the entry is older, and stores for everybody; 0 is allowed."""
    f = counted(way, runs, ttl=None)
    assert way.run(f.max_age(60)(1)) == [1, 0, 1]
    assert way.run(f.max_age(60)(1)) == [1, 0, 1]
    assert way.run(f.max_age(timedelta(hours=1))(1)) == [1, 0, 1]
    assert way.run(f.max_age("1h")(x=1)) == [1, 0, 1]
    assert way.run(f.max_age(None)(1)) == [1, 0, 1]
    assert way.run(f.max_age(0)(1)) == [1, 0, 2]
    assert way.run(f(1)) == [1, 0, 2]
    for wrong in (-1, "soon", True, float("nan")):
        with pytest.raises(ConfigurationError, match="max_age"):
            f.max_age(wrong)


def test_at_looks_at_another_version(way: Way, runs: list[Any]) -> None:
    """f.at(v): key, peek and invalidate under that version; the function's own entries are untouched."""
    old = counted(way, runs, "versions", version=1)
    way.run(old(1))
    # The same function under another version, as the next release declares it.
    new = counted(way, runs, "versions", version=2)
    assert way.run(new.peek(1)) is None
    entry = way.run(new.at(1).peek(1))
    assert (entry.value, entry.version, entry.key) == ([1, 0, 1], 1, old.key(1))
    assert new.at(1).key(1) == old.key(1)
    assert new.at(2).key(1) == new.key(1)
    assert way.run(new(1)) == [1, 0, 2]
    assert way.run(old(1)) == [1, 0, 1], "side by side"
    way.run(new.at(1).invalidate(1))
    assert way.run(old.peek(1)) is None
    assert way.run(new(1)) == [1, 0, 2]
    way.run(old(1))
    way.run(new.invalidate_all())
    assert way.run(old.peek(1)) is None, "one generation for all versions"
    for wrong in (0, -1, "1", True, None):
        with pytest.raises(ConfigurationError, match="version"):
            new.at(wrong)


def test_bypass_is_the_function_itself(way: Way, runs: list[Any]) -> None:
    """Nothing is read, stored or counted; __wrapped__ likewise."""
    f = counted(way, runs)
    assert way.run(f.bypass(1)) == [1, 0, 1]
    assert way.run(f.__wrapped__(1)) == [1, 0, 2]
    assert way.run(f.peek(1)) is None
    assert f.cache_info()[:2] == (0, 0)
    way.run(f(1))
    assert way.run(f.bypass(1)) == [1, 0, 4]
    assert way.run(f(1)) == [1, 0, 3]


def test_cache_info_counts_what_this_process_did(way: Way, runs: list[Any]) -> None:
    """A named tuple that begins as lru_cache's: hits, misses, maxsize, currsize."""
    f = counted(way, runs, cache_if=lambda result, call: result[0] != 3)
    assert isinstance(f.cache_info(), CacheInfo)
    for x in (1, 1, 2, 3, 3):
        way.run(f(x))
    way.run(f.invalidate(1))
    way.run(f.invalidate_all())
    info = f.cache_info()
    assert info[:2] == (info.hits, info.misses) == (1, 4)
    assert info.loads == 4
    assert info.stores == 2
    assert info.refused_stores == 2
    assert info.invalidations == 2
    assert info.store_errors == info.damaged == info.unencodable == info.load_errors == info.waits == 0
    if way.is_shared:
        assert info.maxsize is None
    else:
        assert info.maxsize == 10_000

    @way.cached()
    def failing() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        way.run(failing())
    assert failing.cache_info().load_errors == 1


def test_what_the_function_raises_is_raised_and_not_cached(way: Way) -> None:
    """The very same exception object, its traceback reaching into the function; the next call runs again."""
    raised: list[LookupError] = []

    @way.cached()
    def f(x: int) -> int:
        raised.append(LookupError("absent", x))
        raise raised[-1]

    for n in (1, 2):
        with pytest.raises(LookupError, match="absent") as caught:
            way.run(f(5))
        assert caught.value is raised[-1]
        assert any(entry.name == "f" for entry in caught.traceback)
        assert len(raised) == n


def test_one_round_trip_for_a_hit_and_three_for_a_miss(redis_way: Way, redis_server: Any, runs: list[Any]) -> None:
    """Counted by the server: MGET for a hit, read + lease + store for a miss, one command to invalidate."""
    way = redis_way
    f = counted(way, runs)
    way.run(f(0))  # opens the connection, loads the scripts
    way.run(f.invalidate(0))
    way.run(f.invalidate_all())
    with redis_server.recording() as calls:
        way.run(f(1))
    mine = [command for command in calls.commands if any(way.prefix.encode() in arg for arg in command.args)]
    assert [command.name for command in mine] == ["MGET", "EVALSHA", "EVALSHA"]
    for what, names in (
        (lambda: f(1), ["MGET"]),
        (lambda: f.peek(1), ["MGET"]),
        (lambda: f.max_age(60)(1), ["MGET"]),
        (lambda: f.at(1).peek(1), ["MGET"]),
        (lambda: f.refresh(1), ["EVALSHA", "EVALSHA"]),
        (lambda: f.set([1], 1), ["EVALSHA", "EVALSHA"]),
        (f.invalidate_all, ["EVALSHA"]),
    ):
        with redis_server.recording() as calls:
            way.run(what())
        mine = [command for command in calls.commands if any(way.prefix.encode() in arg for arg in command.args)]
        assert [command.name for command in mine] == names
    with redis_server.recording() as calls:
        way.run(f.invalidate(1))
    mine = [command for command in calls.commands if any(way.prefix.encode() in arg for arg in command.args)]
    assert len(mine) == 1
