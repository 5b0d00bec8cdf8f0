"""asyncio cancellation at every await: of whoever loads, of whoever waits, of whoever invalidates."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 120.0
"""Seconds that a lease and a wait may last: whoever had to wait for their end would be seen to hang."""
SOON = 20.0


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its awaits."""

    def __init__(self, inner: Any, awaited: Callable[[], None]) -> None:
        self._inner = inner
        self._awaited = awaited

    def send(self, value: Any) -> Any:
        answer = self._inner.send(value)
        self._awaited()
        return answer

    def throw(self, *error: Any) -> Any:
        answer = self._inner.throw(*error)
        self._awaited()
        return answer

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


class Awaits:
    """Every await of every task, counted; the `at`-th calls `then`."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self.then: Callable[[], object] | None = None

    def install(self) -> None:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coro, **options: asyncio.Task(Counted(coro, self._tick), loop=loop, **options)
        )

    def arm(self, at: int, then: Callable[[], object]) -> None:
        self.count, self.at, self.then = 0, at, then

    def disarm(self) -> None:
        self.then = None

    def _tick(self) -> None:
        self.count += 1
        if self.then is not None and self.count == self.at:
            then, self.then = self.then, None
            asyncio.get_running_loop().call_soon(then)


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    return url


def run(url: str, prefix: str, scenario: Callable[[Any, list[int], Awaits, int], Any]) -> int:
    """Run the scenario once for every await there is in it, until one more finds none; the number of rounds."""

    async def whole() -> int:
        awaits = Awaits()
        cache = Cache(url, prefix=prefix, lease_ttl=LONG, wait_timeout=LONG, socket_timeout=10.0)
        loads: list[int] = []

        @cache.versioned(namespace="cancelled")
        async def f(x: int) -> int:
            loads.append(x)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return x

        await f(-1)
        awaits.install()
        for at in range(1, 200):
            if not await scenario(f, loads, awaits, at):
                break
        asyncio.get_running_loop().set_task_factory(None)
        assert len(cache._state.flights) == 0
        assert len(cache._state.unleased) == 0
        await cache.aclose()
        return at

    return asyncio.run(whole())


async def cancelled(task: asyncio.Task[Any]) -> bool:
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def test_a_cancelled_load_holds_nobody_up(url: str, prefix: str) -> None:
    """Wherever the only caller is cancelled, the next one is answered at once and not when a lease ends."""

    async def scenario(f: Any, loads: list[int], awaits: Awaits, at: int) -> bool:
        task = asyncio.ensure_future(f(at))
        awaits.arm(at, task.cancel)
        was = await cancelled(task)
        awaits.disarm()
        assert await asyncio.wait_for(f(at), SOON) == at
        hits = f.cache_info().hits
        assert await f(at) == at
        assert f.cache_info().hits == hits + 1
        return was

    rounds = run(url, prefix, scenario)
    assert rounds > (3 if url.startswith("memory") else 6)


def test_a_cancelled_leader_does_not_take_its_followers_down(url: str, prefix: str) -> None:
    """Whoever waits for the load of a caller that is cancelled gets its result, from the one load."""

    async def scenario(f: Any, loads: list[int], awaits: Awaits, at: int) -> bool:
        leader = asyncio.ensure_future(f(at))
        followers = [asyncio.ensure_future(f(at)) for _ in range(3)]
        awaits.arm(at, leader.cancel)
        was = await cancelled(leader)
        awaits.disarm()
        assert await asyncio.wait_for(asyncio.gather(*followers), SOON) == [at] * 3
        # Cancelled before it had told anybody of its load, it has left them one of their own.
        assert loads.count(at) <= 2
        return was

    assert run(url, prefix, scenario) > 4


def test_a_cancelled_follower_leaves_the_load_alone(url: str, prefix: str) -> None:
    """Whoever gives up waiting takes nobody along: the leader and the others have their result from one load."""

    async def scenario(f: Any, loads: list[int], awaits: Awaits, at: int) -> bool:
        leader = asyncio.ensure_future(f(at))
        follower, other = asyncio.ensure_future(f(at)), asyncio.ensure_future(f(at))
        awaits.arm(at, follower.cancel)
        was = await cancelled(follower)
        awaits.disarm()
        assert await asyncio.wait_for(asyncio.gather(leader, other), SOON) == [at] * 2
        assert loads.count(at) == 1
        return was

    assert run(url, prefix, scenario) > 4


def test_when_everybody_is_cancelled_so_is_the_load(redis_url: str, prefix: str) -> None:
    """A load that nobody waits for any more is cancelled, and its lease given back."""

    async def whole() -> None:
        cache = Cache(redis_url, prefix=prefix, lease_ttl=LONG, wait_timeout=LONG, socket_timeout=10.0)
        began, ended = asyncio.Event(), asyncio.Event()

        @cache.versioned(namespace="all")
        async def f(x: int) -> int:
            began.set()
            try:
                await asyncio.sleep(LONG if x == 1 and not ended.is_set() else 0)
            finally:
                ended.set()
            return x

        callers = [asyncio.ensure_future(f(1)) for _ in range(3)]
        await began.wait()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.wait_for(ended.wait(), SOON)
        assert await asyncio.wait_for(f(1), SOON) == 1
        await cache.aclose()

    asyncio.run(whole())


@pytest.mark.parametrize("what", ["key", "namespace"])
def test_a_cancelled_invalidation_leaves_everything_in_order(what: str, url: str, prefix: str) -> None:
    """It may or may not have happened; calls and later invalidations work as ever."""

    async def scenario(f: Any, loads: list[int], awaits: Awaits, at: int) -> bool:
        await f(at)
        task = asyncio.ensure_future(f.invalidate(at) if what == "key" else f.invalidate_all())
        awaits.arm(at, task.cancel)
        was = await cancelled(task)
        awaits.disarm()
        assert await asyncio.wait_for(f(at), SOON) == at
        count = loads.count(at)
        await (f.invalidate(at) if what == "key" else f.invalidate_all())
        assert await f(at) == at
        assert loads.count(at) == count + 1
        return was

    assert run(url, prefix, scenario) >= 1


def test_a_timeout_around_a_call_is_the_callers_own(redis_url: str, prefix: str) -> None:
    """`wait_for` around a cached call: the caller gets its timeout, the others their value."""

    async def whole() -> None:
        cache = Cache(redis_url, prefix=prefix, lease_ttl=LONG, wait_timeout=LONG, socket_timeout=10.0)
        go = asyncio.Event()
        loads: list[int] = []

        @cache.versioned(namespace="impatient")
        async def f(x: int) -> int:
            loads.append(x)
            await go.wait()
            return x

        async def impatient() -> bool:
            try:
                await asyncio.wait_for(f(1), 0.05)
            except (TimeoutError, asyncio.TimeoutError):
                return True
            return False

        patient = asyncio.ensure_future(f(1))
        assert await asyncio.gather(*(impatient() for _ in range(5))) == [True] * 5
        go.set()
        assert await asyncio.wait_for(patient, SOON) == 1
        assert loads == [1]
        await cache.aclose()

    asyncio.run(whole())
