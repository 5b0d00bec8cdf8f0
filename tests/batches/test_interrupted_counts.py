"""What is counted of calls whose caller was interrupted: what happened, so a load that ran is a miss."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memover.model import CacheInfo
    from tests.face.ways import Way

HELPERS = ["map", "warm"]


class Interrupted(BaseException):
    """As KeyboardInterrupt, which an event loop lets through."""


@contextmanager
def interrupts() -> Iterator[None]:
    """Inside, SIGUSR1 is what Ctrl-C is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt_the_caller() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def answers(info: CacheInfo) -> tuple[int, int, int]:
    return info.hits, info.misses, info.loads


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("helper", HELPERS)
def test_what_an_interrupted_batch_has_loaded_is_missed(helper: str, concurrency: int, sync_way: Way) -> None:
    """Hits, loads that had ended, and those under way: one at a time, and in threads that end after the batch."""
    go_on, loads, threads = threading.Event(), list[int](), set[int]()

    @sync_way.cached()
    def f(x: int) -> int:
        loads.append(x)
        if x >= 10:
            threads.add(threading.get_ident())
            if concurrency == 1:
                raise KeyboardInterrupt
            if len([each for each in loads if each >= 10]) == concurrency:
                interrupt_the_caller()
            assert go_on.wait(30)
        return x

    f.map([0, 1], concurrency=1)
    with interrupts(), pytest.raises(KeyboardInterrupt):
        getattr(f, helper)(range(40) if concurrency == 1 else [0, 1, *range(5, 40)], concurrency=concurrency)
    go_on.set()
    wait_until(lambda: not (threads - {threading.get_ident()}) & sys._current_frames().keys(), "the loads to end")
    assert len(loads) == (11 if concurrency == 1 else 10)
    assert answers(f.cache_info()) == (2, len(loads), len(loads))


@pytest.mark.parametrize("helper", HELPERS)
@pytest.mark.parametrize("loads_some", [False, True])
def test_what_an_interrupted_bulk_loader_did_not_load_is_no_miss(helper: str, loads_some: bool, sync_way: Way) -> None:
    """Those it was asked for are; calls that were still to come are not."""

    @sync_way.cached()
    def f(x: int) -> int:
        if x == 2:
            raise KeyboardInterrupt
        return x

    @f.batch_load
    def loader(calls: Any) -> Any:
        if not loads_some:
            raise KeyboardInterrupt
        return {0: 0, 1: 1}

    with pytest.raises(KeyboardInterrupt):
        getattr(f, helper)(range(9), concurrency=1)
    loaded = 3 if loads_some else 9
    assert answers(f.cache_info()) == (0, loaded, loaded)


@pytest.mark.parametrize("helper", HELPERS)
def test_what_a_cancelled_batch_has_loaded_is_missed(helper: str, async_way: Way) -> None:
    """Hits, loads that had ended, and those that were cancelled; not those that had not begun."""
    loads: list[int] = []

    async def whole() -> None:
        blocked = asyncio.Event()

        @async_way.cached()
        async def f(x: int) -> int:
            loads.append(x)
            if x >= 10:
                blocked.set()
                await asyncio.Event().wait()
            return x

        await f.map([0, 1], concurrency=1)
        task = asyncio.ensure_future(getattr(f, helper)(range(40), concurrency=1))
        await blocked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(loads) == [*range(11)]
        assert answers(f.cache_info()) == (2, 11, 11)

    async_way.run(whole())


@pytest.mark.parametrize("followed", [False, True])
def test_a_cancelled_call_whose_load_ran_is_missed(followed: bool, async_way: Way) -> None:
    """Whether the load is cancelled with it, or goes on because another waits for it."""

    async def whole() -> None:
        began, go_on = asyncio.Event(), asyncio.Event()

        @async_way.cached(wait_timeout=30)
        async def f(x: int) -> int:
            began.set()
            await go_on.wait()
            return x

        task = asyncio.ensure_future(f(1))
        await began.wait()
        other = asyncio.ensure_future(f(1)) if followed else None
        while other is not None and not any(flight.callers > 1 for flight in flights(async_way)):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        if other is not None:
            assert await other == 1
        info = f.cache_info()
        assert (*answers(info), info.waits) == (0, 1 + followed, 1, int(followed))

    async_way.run(whole())


def flights(way: Way) -> list[Any]:
    """The loads under way on the way's cache."""
    return list(way.cache._state.flights.values())


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("observed", [False, True])
def test_a_call_that_is_interrupted_while_it_stores_is_missed(
    inside: bool, observed: bool, sync_way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its load ran. The observers hear of the lookup, too."""
    heard: list[str] = []
    observers = [lambda event: heard.append(event.name)] if observed else []
    cache = sync_way.new_cache(observers=observers)

    @cache.versioned(namespace="f")
    def f(x: int) -> int:
        return x

    @cache.versioned(namespace="g")
    def g(x: int) -> int:
        return int(f(x))

    resident = f._self_definition.now().function

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resident, "seal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        (g if inside else f)(1)
    assert answers(f.cache_info()) == (0, 1, 1)
    assert answers(g.cache_info()) == ((0, 1, 1) if inside else (0, 0, 0))
    assert heard.count("lookup") == observed * (1 + inside)


def test_an_interrupted_refresh_is_no_lookup(way: Way) -> None:
    """As one that is not interrupted."""

    @way.cached()
    def f(x: int) -> int:
        raise Interrupted

    with pytest.raises(Interrupted):
        way.run(f.refresh(1))
    assert answers(f.cache_info()) == (0, 0, 1)
