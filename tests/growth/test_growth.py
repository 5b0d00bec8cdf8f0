"""P15: what is stored grows with what lives, and not with what has been: keys, tags, namespaces, caches, threads, loops.

Tens to thousands of each in the standing suite, ten times as many or so in the slow one, in processes of their own."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, definition
from memover.runtime import state
from tests.growth import programs
from tests.growth.counting import grown, kinds_of_keys, without_expiry
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

STANDING, SLOW = "standing", "slow"
GUARD = 300.0
"""Seconds that a slow program may take."""
SIZES = [STANDING, pytest.param(SLOW, marks=pytest.mark.slow)]
MINUTE = 60.0


def _size(size: str, standing: int, slow: int) -> int:
    return standing if size == STANDING else slow


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def cache() -> Cache:
    return Cache("memory://")


@pytest.mark.parametrize("size", SIZES)
def test_keys_and_tags_leave_the_server(size: str, server: RedisServer, prefix: str) -> None:
    """Calls that each have a tag and a parent: when their time is over, all that is left are the generations."""
    count = _size(size, 1_500, 30_000)
    ((before, after),) = run_python(
        programs.keys_and_tags, server.url, prefix, count, 2.0, _size(size, 0, 1_000), timeout=GUARD
    )
    with server.client() as client:
        endless = without_expiry(client, prefix)
        assert endless.get("tag", 0) <= 1, f"tag keys without expiry (the clock of late tags may be one): {endless}"
        assert endless.get("call token", 0) == 0, f"call tokens without expiry: {endless}"
        assert sum(endless.values()) <= 6, f"keys without expiry: {endless}"
        wait_until(
            lambda: kinds_of_keys(client, prefix).get("entry", 0) == 0,
            "the entries to expire",
            timeout=60,
            interval=0.2,
        )
        latest = max([client.pttl(key) for key in client.scan_iter(count=5000)], default=0) / 1000
        assert latest <= MINUTE + 1, "something outlives the last entry by more than a minute"
        if size == SLOW:
            left = wait_until(
                lambda: client.dbsize() <= 8 and kinds_of_keys(client, prefix),
                "the tokens to expire",
                timeout=90,
                interval=0.5,
            )
            assert set(left) <= {"gen", "tag", "soft", "coarse", "clock"}, left
    if size == SLOW:
        assert grown(before, after, allowed=2_000) == {}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_keys_and_tags_leave_the_process(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """However many calls have gone by: entries, tokens and keys that were looked up are remembered up to a bound each."""
    url = "memory://" if store == "memory" else server.url
    count, bound = _size(size, 3_000, 30_000), _size(size, 200, 1_000)
    ((before, after),) = run_python(programs.keys_and_tags, url, prefix, count, 3600.0, bound, timeout=GUARD)
    assert grown(before, after, allowed=count // 10 if size == STANDING else 2_000) == {}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_functions_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """Decorated, called, invalidated, dropped: their namespaces are free, and all but a bounded number forgotten."""
    url = "memory://" if store == "memory" else server.url
    count, bound = _size(size, 80, 600), _size(size, 30, 100)
    said: Any = run_python(programs.functions_and_namespaces, url, prefix, count, bound, timeout=GUARD)
    ((before, after, bytes_each),) = said
    leaks = grown(before, after, allowed=count // 5)
    assert leaks == {}, f"{count} functions have gone, and left: {leaks}"
    assert bytes_each < 500, f"{bytes_each:.0f} bytes stay of each function that is gone"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_caches_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """Made, used from threads and loops, closed, dropped."""
    url = "memory://" if store == "memory" else server.url
    count, bound = _size(size, 15, 300), _size(size, 10, 50)
    ((before, after),) = run_python(programs.caches, url, prefix, count, bound, timeout=GUARD)
    leaks = grown(before, after, allowed=count // 5 + 2)
    leaks.pop("objects", None)  # what Python itself remembers of types and code that were made
    assert leaks == {}, f"{count} caches have gone, and left: {leaks}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_threads_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """No connection, no descriptor, no object of theirs stays."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 300, 10_000)
    with server.client() as client:
        ((before, after),) = run_python(programs.threads, url, prefix, count, timeout=GUARD)
        leaks = grown(before, after, allowed=15)
        # A few connections may be kept for whoever comes next.
        assert leaks.pop("objects", 0) < 500, f"{count} threads have gone"
        assert leaks.pop("descriptors", 0) <= 64, f"{count} threads have gone, and their connections stay"
        assert all("onnection" in kind for kind in leaks), f"{count} threads have gone, and left: {leaks}"
        wait_until(lambda: len(client.client_list()) <= 2, "the connections to end with their process")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["run", "plainly", "in flight", "dropped"])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_event_loops_that_are_gone_leave_nothing(
    store: str, how: str, size: str, server: RedisServer, prefix: str
) -> None:
    """`asyncio.run`; `run_until_complete` and `close`, as in Celery tasks; the same with a load in flight,
    or without `close`.

    No loop, task, client or descriptor of theirs stays, and whoever calls next does not wait for a load that is nobody's."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 40, 800) if how != "in flight" else _size(size, 12, 60)
    said: Any = run_python(programs.loops, url, prefix, count, how, timeout=GUARD if size == SLOW else 60)
    ((before, after, alive, value, seconds),) = said
    leaks = grown(before, after, allowed=6)
    objects = leaks.pop("objects", 0)
    assert leaks == {}, f"{count} loops have gone, and left: {leaks}"
    assert objects < 10 * count + 50, f"{objects} objects stay of {count} loops"
    assert alive <= 3, f"{alive} of {count} closed loops are still there"
    assert value == 2
    assert seconds < 20, f"the next call waited {seconds:.0f} s for a load that was abandoned"


def test_a_memory_store_keeps_no_tags_of_entries_that_were_evicted() -> None:
    """Whatever their ttl: as many tokens stay as its entries carry, and a bounded number more. Those of entries stay as they are."""
    cache = Cache("memory://", max_entries=200, ttl=None)

    @cache.versioned(namespace="f", tags=("item:{x}",))
    def f(x: int) -> int:
        return x

    for x in range(5_000):
        f(x)
    store: Any = cache._state.store
    assert len(store.tokens) < 3 * 200 + 512
    kept = [x for x in range(5_000) if f.peek(x) is not None]
    assert len(kept) == 200
    cache.invalidate_tags(f"item:{kept[0]}")
    assert [f.peek(x) is None for x in kept] == [True] + 199 * [False]


@pytest.mark.parametrize("lease_ttl", [10, 100])
@pytest.mark.parametrize("loaded_before", [False, True])
def test_tags_of_a_load_under_way_stay(lease_ttl: int, loaded_before: bool) -> None:
    """Tags of evicted entries go while it runs, and may be its own: its result counts, and nobody loads it beside it."""
    cache = Cache("memory://", max_entries=10, lease_ttl=lease_ttl)
    began, release = threading.Event(), threading.Event()
    release.set()

    @cache.versioned(namespace="slow", ttl="1h", tags=("slow:{x}",))
    def slow(x: int) -> int:
        began.set()
        assert release.wait(60)
        return x

    @cache.versioned(namespace="f", ttl="1h", tags=("item:{x}",))
    def f(x: int) -> int:
        return x

    if loaded_before:
        slow(1)
        for x in range(50):
            f(x)
        assert slow.peek(1) is None, "it was evicted"
        began.clear()
    release.clear()
    caller = threading.Thread(target=slow, args=(1,))
    caller.start()
    assert began.wait(60)
    for x in range(10_000, 13_000):
        f(x)
    release.set()
    caller.join()
    assert slow.peek(1) is not None


def test_what_a_function_captured_is_not_remembered_whole(cache: Cache) -> None:
    """The last namespaces whose functions are gone are remembered with digests of what these captured."""
    long = "x" * 1_000_000

    def make(name: str) -> None:
        def function(x: int, extra: str = long) -> str:
            return f"{text}{x}"

        text = long
        cache.versioned(namespace=name, key="{x}", ignore=())(function).key(1)

    make("first")
    tracemalloc.start()
    for number in range(20):
        make(f"big{number}")
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 5_000_000, f"{left} bytes stay of 20 functions that captured a million each"


@pytest.mark.parametrize("follow_code", [False, True])
def test_versions_of_functions_that_are_gone_are_forgotten(follow_code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are still there keep theirs."""
    monkeypatch.setattr(definition, "VERSIONS_LIMIT", 20)
    monkeypatch.setattr(state, "VERSIONS_LIMIT", 20)
    cache = Cache("memory://")

    @cache.versioned(namespace="stays", version=7)
    def stays(x: int) -> int:
        return x

    def make(number: int) -> None:
        @cache.versioned(namespace=f"gone{number}", follow_code=follow_code)
        def function(x: int) -> int:
            return x

        function.key(1)

    stays(1)
    for number in range(100):
        make(number)
        if number % 10 == 0:
            gc.collect()
    versions = cache._state.witness.versions
    assert len(versions) <= 60
    assert b"7" in versions.values()
