"""P17 for `async def`: `task.cancel()` at every await of every operation reaches the caller and leaves everything whole.

An await is counted by stepping every task's coroutine (`Awaits` in tests/faults/test_cancellation.py, which has the promises
to leaders and followers); here each operation is cancelled at each await there is, with everything that a call can have.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from memover import Cache
from tests.faults.test_cancellation import Awaits

LONG = 120.0
GUARD = 15.0
AT_MOST = 400
"""Awaits of one operation; more means that it never ends."""


class Bench:
    """The asynchronous twin of `bench.Bench`."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.source: dict[int, int] = {}
        self.loads = 0
        self.keys = itertools.count(1000, 16)

        @cache.versioned(namespace="plain")
        async def plain(x: int) -> Any:
            return await self.load(x)

        @cache.versioned(namespace="tagged", tags=("x:{x}",))
        async def tagged(x: int) -> Any:
            return await self.load(x)

        @cache.versioned(namespace="late", tags=(lambda call, result: [f"x:{result['x']}"],))
        async def late(x: int) -> Any:
            return await self.load(x)

        @cache.versioned(namespace="parent")
        async def parent(x: int) -> Any:
            return dict(await plain(x))

        @cache.versioned(namespace="bulky")
        async def bulky(x: int) -> Any:
            return await self.load(x)

        @bulky.batch_load
        async def many(calls: Any) -> Any:
            return [await self.load(call.arguments["x"]) for call in calls]

        self.plain, self.tagged, self.late, self.parent, self.bulky = plain, tagged, late, parent, bulky

    async def load(self, x: int) -> Any:
        value = self.value(x)
        self.loads += 1
        await asyncio.sleep(0)
        return value

    def value(self, x: int) -> Any:
        return {"x": x, "v": self.source.get(x, 0)}

    def change(self, x: int) -> None:
        self.source[x] = self.source.get(x, 0) + 1

    async def whole(self, f: Any, x: int, allowed: tuple[int, ...]) -> None:
        """The next calls are right and do not wait; entries are kept, and invalidations hold."""
        right = [{"x": x, "v": v} for v in allowed]
        assert await asyncio.wait_for(f(x), GUARD) in right
        for _ in range(200):
            before = self.loads
            assert await asyncio.wait_for(f(x), GUARD) in right
            if self.loads == before:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("calls are answered by the function for good: nothing is kept any more")
        self.change(x)
        await asyncio.wait_for(f.invalidate(x), GUARD)
        if f is self.parent:
            await asyncio.wait_for(self.plain.invalidate(x), GUARD)
        assert await asyncio.wait_for(f(x), GUARD) == self.value(x)


async def _nothing(b: Bench, x: int) -> None:
    pass


async def _stored(b: Bench, x: int) -> None:
    for f in (b.plain, b.tagged, b.parent, b.bulky):
        await f(x)
    await b.cache.aset(f"k{x}", 5)


async def _changed(b: Bench, x: int) -> None:
    await _stored(b, x)
    b.change(x)


OPERATIONS: dict[str, tuple[Any, Any, str]] = {
    # What is arranged, what is cancelled, and which function must be whole afterwards ("" for key-value calls).
    "hit": (_stored, lambda b, x: b.plain(x), "plain"),
    "miss": (_nothing, lambda b, x: b.plain(x), "plain"),
    "invalidate": (_changed, lambda b, x: b.plain.invalidate(x), "plain"),
    "invalidate_all": (_changed, lambda b, x: b.plain.invalidate_all(), "plain"),
    "set": (_changed, lambda b, x: b.plain.set(b.value(x), x), "plain"),
    "refresh": (_changed, lambda b, x: b.plain.refresh(x), "plain"),
    "peek": (_stored, lambda b, x: b.plain.peek(x), "plain"),
    "max_age": (_stored, lambda b, x: b.plain.max_age(60)(x), "plain"),
    "map": (_stored, lambda b, x: b.plain.map([x, x + 1, x + 2]), "plain"),
    "bulk map": (_stored, lambda b, x: b.bulky.map([x, x + 1, x + 2]), "bulky"),
    "tagged miss": (_nothing, lambda b, x: b.tagged(x), "tagged"),
    "late tags": (_nothing, lambda b, x: b.late(x), "late"),
    "invalidate_tags": (_changed, lambda b, x: b.cache.ainvalidate_tags(f"x:{x}"), "tagged"),
    "invalidate_namespace": (_changed, lambda b, x: b.cache.ainvalidate_namespace("plain"), "plain"),
    "dependent miss": (_nothing, lambda b, x: b.parent(x), "parent"),
    "dependent hit": (_stored, lambda b, x: b.parent(x), "parent"),
    "get": (_stored, lambda b, x: b.cache.aget(f"k{x}"), ""),
    "kv set": (_stored, lambda b, x: b.cache.aset(f"k{x}", 6), ""),
    "add": (_nothing, lambda b, x: b.cache.aadd(f"k{x}", 6), ""),
    "incr": (_stored, lambda b, x: b.cache.aincr(f"k{x}"), ""),
    "delete": (_stored, lambda b, x: b.cache.adelete(f"k{x}"), ""),
    "get_or_set": (_nothing, lambda b, x: b.cache.aget_or_set(f"k{x}", 6), ""),
    "get_many": (_stored, lambda b, x: b.cache.aget_many([f"k{x}", f"k{x}b"]), ""),
    "set_many": (_stored, lambda b, x: b.cache.aset_many({f"k{x}": 1, f"k{x}b": 2}), ""),
}


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    return url


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_task_cancelled_at_any_await_leaves_everything_whole(
    name: str, url: str, prefix: str, redis_client: Any
) -> None:
    """Each await in turn, until one round has no such await."""
    arrange, act, checked = OPERATIONS[name]

    async def whole() -> int:
        awaits = Awaits()
        cache = Cache(
            url,
            prefix=prefix,
            lease_ttl=LONG,
            wait_timeout=LONG,
            socket_timeout=20.0,
            socket_connect_timeout=20.0,
            max_connections=6,
        )
        bench = Bench(cache)
        x = next(bench.keys)
        await arrange(bench, x)
        await act(bench, x)
        awaits.install()
        store_errors = bench.plain.cache_info().store_errors
        rounds = struck = 0
        for at in range(1, AT_MOST):
            rounds = at
            x = next(bench.keys)
            await arrange(bench, x)
            before = bench.source.get(x, 0)
            task = asyncio.ensure_future(act(bench, x))
            accepted: list[bool] = []
            awaits.arm(at, lambda task=task, accepted=accepted: accepted.append(task.cancel()))  # type: ignore[misc]
            cancelled = False
            try:
                await task
            except asyncio.CancelledError:
                cancelled = True
            reached = awaits.then is None
            awaits.disarm()
            where = f"{name}, cancelled at await {at}"
            assert cancelled or accepted != [True], f"{where}: the cancellation was swallowed"
            struck += cancelled
            try:
                if checked:
                    f = getattr(bench, checked)
                    old = before - 1 if arrange is _changed and cancelled else before
                    await bench.whole(f, x, (old, before))
                else:
                    key = f"k{x}"
                    await asyncio.wait_for(cache.aset(key, 41), GUARD)
                    assert await asyncio.wait_for(cache.aincr(key), GUARD) == 42
                    assert await asyncio.wait_for(cache.aget(key), GUARD) == 42
                    assert await asyncio.wait_for(cache.adelete(key), GUARD) is True
                    assert await asyncio.wait_for(cache.aadd(key, 1), GUARD) is True
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            except (TimeoutError, asyncio.TimeoutError) as error:
                raise AssertionError(f"{where}: the next call hangs") from error
            if not reached:
                break
        asyncio.get_running_loop().set_task_factory(None)
        for _ in range(300):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            held = [key for key in redis_client.scan_iter(f"{{{prefix}:*:lease") if redis_client.get(key)[:2] == b"L "]
            if not others and not held:
                break
            await asyncio.sleep(0.01)
        assert held == [], "leases stay"
        # Which tasks stand by for a connection is the store's business; that there are more with every call is not.
        assert len(others) < 5, f"tasks stay: {others}"
        assert bench.plain.cache_info().store_errors == store_errors
        assert struck or url == "memory://", "nothing was cancelled"
        await cache.aclose()
        return rounds

    assert asyncio.run(whole()) < AT_MOST - 1
