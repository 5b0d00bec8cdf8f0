"""Stale entries: who may be served one, for how long, and what never brings one back."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, versioned_cache
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


class Origin:
    """What a cached function reads: a number that only grows, or an error."""

    def __init__(self) -> None:
        self.runs = 0
        self.broken: Exception | None = None

    def __memover_key__(self) -> str:
        return "the only one"

    def read(self) -> int:
        self.runs += 1
        if self.broken is not None:
            raise self.broken
        return self.runs


def test_a_stale_entry_is_served_while_it_is_refreshed(way: Way, clock: Any, settle: Any) -> None:
    """stale_while_revalidate: the old value at once, one load behind it, then the new value."""
    origin = Origin()
    f = way.cached(ttl=10, stale_while_revalidate=60)(origin.read)
    assert way.run(f()) == 1
    clock.forward(10.5)
    assert way.run(f()) == 1
    settle(way)
    assert origin.runs == 2
    assert way.run(f()) == 2
    assert f.cache_info().stale == 1
    assert f.cache_info().loads == 2


def test_after_the_window_the_call_loads(way: Way, clock: Any) -> None:
    """Past ttl and window the entry is dead: the caller waits for the new one."""
    origin = Origin()
    f = way.cached(ttl=10, stale_while_revalidate=60)(origin.read)
    way.run(f())
    clock.forward(71)
    assert way.run(f()) == 2
    assert f.cache_info().stale == 0


def test_the_store_keeps_an_entry_as_long_as_its_longest_window(redis_way: Way, redis_client: Any) -> None:
    """PX is ttl plus the longer window, and the header says both instants."""
    f = redis_way.cached(ttl=10, stale_while_revalidate=60, stale_if_error=300)(lambda: 1)
    redis_way.run(f())
    assert 300_000 < redis_client.pttl(f.key()) <= 310_000
    entry = redis_way.run(f.peek())
    assert entry.usable_until - entry.fresh_until == pytest.approx(300)


def test_an_error_is_answered_with_the_stale_entry(way: Way, clock: Any) -> None:
    """stale_if_error: the function raised, so the old value is given, and each call tries again."""
    origin = Origin()
    f = way.cached(ttl=10, stale_if_error=60)(origin.read)
    way.run(f())
    clock.forward(11)
    origin.broken = OSError("down")
    assert [way.run(f()), way.run(f())] == [1, 1]
    assert origin.runs == 3
    with way.cache.detect() as lookups:
        way.run(f())
    assert [str(lookup.source) for lookup in lookups] == ["stale-if-error"]
    origin.broken = None
    assert way.run(f()) == 5
    assert way.run(f()) == 5


def test_an_error_past_the_window_is_the_callers(way: Way, clock: Any) -> None:
    """The stale value is not for ever."""
    origin = Origin()
    f = way.cached(ttl=10, stale_if_error=60)(origin.read)
    way.run(f())
    clock.forward(71)
    origin.broken = OSError("down")
    with pytest.raises(OSError, match="down"):
        way.run(f())


@pytest.mark.parametrize("how", ["all", "call", "namespace", "tag"])
def test_an_invalidation_ends_what_is_stale_too(way: Way, clock: Any, how: str) -> None:
    """No window serves a value across invalidate_all, invalidate, invalidate_namespace or invalidate_tags."""
    origin = Origin()
    f = way.cached("ended", ttl=10, stale_while_revalidate=600, stale_if_error=600, tags="t")(origin.read)
    way.run(f())
    clock.forward(11)
    if how == "all":
        way.run(f.invalidate_all())
    elif how == "call":
        way.run(f.invalidate())
    elif way.is_async:
        way.run(way.cache.ainvalidate_namespace("ended") if how == "namespace" else way.cache.ainvalidate_tags("t"))
    elif how == "namespace":
        way.cache.invalidate_namespace("ended")
    else:
        way.cache.invalidate_tags("t")
    origin.broken = OSError("down")
    with pytest.raises(OSError, match="down"):
        way.run(f())
    origin.broken = None
    assert way.run(f()) == 3


def test_a_soft_invalidation_makes_stale(way: Way, settle: Any) -> None:
    """invalidate_all(soft=True): entries are served while they are refreshed, and then they are new."""
    origin = Origin()
    f = way.cached(ttl=100, stale_while_revalidate=60)(origin.read)
    way.run(f())
    way.run(f.invalidate_all(soft=True))
    assert way.run(f()) == 1
    settle(way)
    assert way.run(f()) == 2
    assert way.run(f.peek()).value == 2


def test_a_soft_invalidation_helps_against_errors(way: Way) -> None:
    """With stale_if_error alone the call loads, and falls back on the old value when that fails."""
    origin = Origin()
    f = way.cached(ttl=100, stale_if_error=60)(origin.read)
    way.run(f())
    way.run(f.invalidate_all(soft=True))
    assert way.run(f.peek()) is None
    origin.broken = OSError("down")
    assert way.run(f()) == 1
    origin.broken = None
    assert way.run(f()) == 3


def test_without_windows_a_soft_invalidation_is_a_hard_one(way: Way) -> None:
    """A function that serves nothing stale is invalidated as ever."""
    origin = Origin()
    f = way.cached(ttl=100)(origin.read)
    way.run(f())
    before = way.run(f.invalidate_all())
    after = way.run(f.invalidate_all(soft=True))
    assert after.number > before.number
    assert way.run(f()) == 2


def test_a_hard_invalidation_after_a_soft_one_wins(way: Way) -> None:
    """What was softly stale is gone."""
    origin = Origin()
    f = way.cached(ttl=100, stale_while_revalidate=60, stale_if_error=60)(origin.read)
    way.run(f())
    way.run(f.invalidate_all(soft=True))
    way.run(f.invalidate_all())
    assert way.run(f()) == 2


def test_a_failed_refresh_is_not_repeated_by_every_call(way: Way, clock: Any, settle: Any) -> None:
    """After a failure behind the callers nobody tries again for a moment; the stale value is served meanwhile."""
    origin = Origin()
    f = way.cached(ttl=10, stale_while_revalidate=60)(origin.read)
    way.run(f())
    clock.forward(11)
    origin.broken = OSError("down")
    assert way.run(f()) == 1
    settle(way)
    for _ in range(20):
        assert way.run(f()) == 1
    settle(way)
    assert origin.runs == 2
    assert f.cache_info().load_errors == 1


def test_max_age_takes_nothing_stale(way: Way, clock: Any) -> None:
    """f.max_age(s): an older entry is loaded anew, whatever windows there are, and an error is the caller's."""
    origin = Origin()
    f = way.cached(ttl=100, stale_while_revalidate=600, stale_if_error=600)(origin.read)
    way.run(f())
    clock.forward(50)
    assert way.run(f.max_age(60)()) == 1
    assert way.run(f.max_age(40)()) == 2
    clock.forward(150)
    origin.broken = OSError("down")
    with pytest.raises(OSError, match="down"):
        way.run(f.max_age(500)())
    origin.broken = None
    assert way.run(f.max_age("1h")()) == 4


def test_a_slow_load_gives_the_stale_value_after_the_soft_timeout(sync_way: Way, clock: Any, settle: Any) -> None:
    """soft_timeout: the caller leaves with the old value; the load goes on and is stored."""
    release, runs = threading.Event(), []

    @sync_way.cached(ttl=10, stale_if_error=60, soft_timeout=0.02)
    def f() -> int:
        runs.append(1)
        if len(runs) == 2:
            assert release.wait(30)
        return len(runs)

    assert f() == 1
    clock.forward(11)
    assert f() == 1
    assert len(runs) == 2
    assert f() == 1, "one load at a time"
    release.set()
    settle(sync_way)
    assert f() == 2


def test_a_quick_load_is_waited_for_within_the_soft_timeout(way: Way, clock: Any) -> None:
    """Who comes back in time brings the new value."""
    origin = Origin()
    f = way.cached(ttl=10, stale_if_error=60, soft_timeout=30)(origin.read)
    way.run(f())
    clock.forward(11)
    assert way.run(f()) == 2
    clock.forward(11)
    origin.broken = OSError("down")
    assert way.run(f()) == 2


def test_refreshes_are_bounded_and_then_inline(sync_way: Way, clock: Any, start: Callable[..., Any]) -> None:
    """With the pool full, a caller of a stale entry loads by itself: nothing is queued without end."""
    release, waiting, threads = threading.Event(), [], []
    cache = sync_way.new_cache(background_workers=1)

    @sync_way.cached(cache=cache, ttl=10, stale_while_revalidate=600)
    def f(x: int) -> int:
        threads.append(threading.current_thread())
        if len(waiting) < 1 and len(threads) > 4:
            waiting.append(x)
            assert release.wait(30)
        return x

    for x in range(4):
        f(x)
    clock.forward(11)
    f(0)
    wait_until(lambda: waiting, "the first refresh to run")
    f(1)
    assert f(2) == 2
    assert threads[-1] is threading.current_thread(), "no room, so it ran here"
    assert len(threads) == 6
    release.set()
    cache.close()
    assert len(threads) == 7, "the one in the queue has run too"
    assert threading.current_thread() not in (threads[4], threads[6])


def test_async_refreshes_are_bounded_and_then_inline(async_way: Way, clock: Any) -> None:
    """The same in one event loop."""
    cache = async_way.new_cache(background_workers=1)
    behind: list[int] = []

    async def whole() -> None:
        release = asyncio.Event()
        blocking = False

        @async_way.cached(cache=cache, ttl=10, stale_while_revalidate=600)
        async def f(x: int) -> int:
            if blocking and x < 2:
                behind.append(x)
                await release.wait()
            return x

        for x in range(4):
            await f(x)
        clock.forward(11)
        blocking = True
        assert await f(0) == 0
        assert await f(1) == 1
        assert f.cache_info().stale == 2
        assert await f(2) == 2
        assert f.cache_info().stale == 2, "the third loaded by itself"
        release.set()
        await cache.aclose()
        assert sorted(behind) == [0, 1]

    async_way.run(whole())


def test_close_waits_for_refreshes(sync_way: Way, clock: Any) -> None:
    """When close() returns, what was being refreshed is stored."""
    release, began = threading.Event(), threading.Event()
    runs: list[int] = []
    cache = sync_way.new_cache() if sync_way.is_redis else sync_way.cache

    @sync_way.cached(cache=cache, ttl=10, stale_while_revalidate=60)
    def f() -> int:
        runs.append(1)
        if len(runs) == 2:
            began.set()
            assert release.wait(30)
        return len(runs)

    f()
    clock.forward(11)
    f()
    assert began.wait(30)
    closing = threading.Thread(target=cache.close)
    closing.start()
    release.set()
    closing.join(30)
    assert f.peek().value == 2
    assert len(runs) == 2


def test_a_loop_that_ends_takes_no_place_with_it(
    redis_url: str, prefix: str, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio.run that ends before its refresh has begun leaves no place taken: later loops refresh as ever."""
    cache = Cache(redis_url, prefix=prefix, background_workers=1)
    runs: list[int] = []

    @versioned_cache(namespace="ended", cache=cache, ttl=100, early_refresh=99, stale_while_revalidate=1000)
    async def f(x: int) -> int:
        runs.append(x)
        return len(runs)

    async def fill() -> None:
        for x in range(8):
            await f(x)

    asyncio.run(fill())
    clock.forward(99)
    monkeypatch.setattr(random, "random", lambda: 0.0)  # elected
    for x in range(8):
        asyncio.run(f(x))  # and the loop is closed at once
    runs.clear()
    clock.forward(10)

    async def refreshed() -> bool:
        await f(0)
        await f(7)
        await cache.aclose()
        return {0, 7} <= set(runs)

    wait_until(lambda: asyncio.run(refreshed()), "a loop that lives long enough to refresh", timeout=8)
    assert f.cache_info().misses == 8, "nobody has waited for a load after the first"


def test_a_child_after_fork_refreshes_by_itself(redis_url: str, prefix: str) -> None:
    """A refresh that was under way in the parent is not under way in the child."""
    code = """
import os, threading, time
from memover import Cache, versioned_cache
url, prefix = args
cache, runs, gate, began = Cache(url, prefix=prefix), [], threading.Event(), threading.Event()
real, ahead = time.time, 0.0
time.time = lambda: real() + ahead

@versioned_cache(namespace="forked", cache=cache, ttl=10, stale_while_revalidate=10_000, lease_ttl=60)
def f():
    runs.append(os.getpid())
    if len(runs) == 2:
        began.set()
        gate.wait(30)
    return len(runs)

f()
ahead = 11.0
f()
assert began.wait(30)
child = os.fork()
if child == 0:
    try:
        f.invalidate_all(soft=True)  # so that the lease of the parent is under other tokens
        f()
        cache.close()
        os._exit(0 if os.getpid() in runs else 1)
    except BaseException:
        os._exit(2)
_, status = os.waitpid(child, 0)
gate.set()
cache.close()
result = os.waitstatus_to_exitcode(status)
"""
    assert run_python(code, redis_url, prefix) == [0]
