"""Soak: twenty minutes' worth of operations in seconds leaves nothing behind: tasks, threads, sockets, memory, leases."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis

from memover import Cache, NotCached
from tests.servers import await_until, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts /proc/self/fd")]

OPERATIONS = 40_000
"""Of each flavour; twenty minutes at 33 a second."""
AT_MOST_SECONDS = 20.0
KEYS = 300
"""All of them are met before the first measurement: what is remembered of each, and bounded, is no growth."""


class Soak:
    """Callers of one flavour, and what the process holds between two stretches of their work."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.cache = Cache(url, prefix=prefix, max_entries=100, max_connections=8, socket_timeout=2.0, lease_ttl=5)
        self.rng = random.Random(1)
        self.operations = 0
        self.client = redis.Redis.from_url(url) if not url.startswith("memory") else None

    def loaded(self, x: int) -> Any:
        if x % 11 == 0:
            raise LookupError(x)
        if x % 13 == 0:
            return NotCached([x])
        return [x] * (x % 50)

    def held(self) -> dict[str, int]:
        gc.collect()
        shared = self.cache._state
        current, _ = tracemalloc.get_traced_memory()
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "flights": len(shared.flights),
            "refreshes": len(shared.refreshes),
            "owed": len(shared.witness.owed),
            "leases": 0 if self.client is None else self._leases(),
            "memory": current,
        }

    def _leases(self) -> int:
        assert self.client is not None
        # A mark of failure stays for a second: that is no lease.
        return sum((self.client.get(key) or b"").startswith(b"L ") for key in self.client.scan_iter("{*:lease"))


def sync_soak(url: str, prefix: str, operations: int, seconds: float) -> Any:
    soak = Soak(url, prefix)

    @soak.cache.versioned(namespace="soak", tags=("t{x}",), stale_while_revalidate=1, jitter=0.5, ttl=0.5)
    def f(x: int) -> Any:
        return soak.loaded(x)

    def warm() -> None:
        for x in range(KEYS):
            with suppress(LookupError):
                f(x)
            f.invalidate(x)
            soak.cache.invalidate_tags(f"t{x}")

    def stretch(share: float) -> None:
        stop = time.monotonic() + seconds * share
        left = [int(operations * share / 4)] * 4

        def work(n: int) -> None:
            rng = random.Random(n)
            while left[n] > 0 and time.monotonic() < stop:
                left[n] -= 1
                soak.operations += 1
                x = rng.randrange(KEYS)
                chance = rng.random()
                try:
                    if chance < 0.9:
                        f(x % 30 if chance < 0.6 else x)
                    elif chance < 0.96:
                        f.invalidate(x)
                    elif chance < 0.97:
                        f.invalidate_all()
                    elif chance < 0.98:
                        soak.cache.invalidate_tags(f"t{x}")
                    elif chance < 0.99:
                        f.refresh(x)
                    elif chance < 0.9905 and soak.client is not None:
                        soak.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    else:
                        f.peek(x)
                except (LookupError, redis.RedisError):
                    pass

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        soak.cache._state.refreshes.drain()

    return measured(soak, warm, stretch)


def async_soak(url: str, prefix: str, operations: int, seconds: float) -> Any:
    soak = Soak(url, prefix)

    @soak.cache.versioned(namespace="soak", tags=("t{x}",), stale_while_revalidate=1, jitter=0.5, ttl=0.5)
    async def f(x: int) -> Any:
        await asyncio.sleep(0)
        return soak.loaded(x)

    async def work(n: int, left: int, stop: float) -> None:
        rng = random.Random(n)
        while left > 0 and time.monotonic() < stop:
            left -= 1
            soak.operations += 1
            x = rng.randrange(KEYS)
            chance = rng.random()
            try:
                if chance < 0.85:
                    await f(x % 30 if chance < 0.6 else x)
                elif chance < 0.9:
                    task = asyncio.ensure_future(f(x))
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                elif chance < 0.96:
                    await f.invalidate(x)
                elif chance < 0.97:
                    await f.invalidate_all()
                elif chance < 0.98:
                    await soak.cache.ainvalidate_tags(f"t{x}")
                elif chance < 0.99:
                    await f.refresh(x)
                elif chance < 0.9905 and soak.client is not None:
                    soak.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                else:
                    await f.peek(x)
            except (LookupError, redis.RedisError):
                pass

    loop = asyncio.new_event_loop()

    async def all_of_them(share: float) -> None:
        stop = time.monotonic() + seconds * share
        await asyncio.gather(*(work(n, int(operations * share / 20), stop) for n in range(20)))
        # Cancelled loads give their leases back from another thread, refreshes go on behind.
        await await_until(lambda: len(asyncio.all_tasks()) == 1, "every task to end", interval=0.05)

    async def warm() -> None:
        for x in range(KEYS):
            with suppress(LookupError):
                await f(x)
            await f.invalidate(x)
            await soak.cache.ainvalidate_tags(f"t{x}")

    result = measured(
        soak,
        lambda: loop.run_until_complete(warm()),
        lambda share: loop.run_until_complete(all_of_them(share)),
    )
    loop.run_until_complete(soak.cache.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return result


def measured(soak: Soak, warm: Callable[[], None], stretch: Callable[[float], None]) -> Any:
    tracemalloc.start(1)
    warm()
    stretch(0.3)
    before = settled(soak)
    stretch(0.7)
    after = settled(soak)
    tracemalloc.stop()
    soak.cache.close()
    if soak.client is not None:
        soak.client.close()
    return [before, after, soak.operations]


def settled(soak: Soak) -> dict[str, int]:
    """What is held when what was begun has ended: the leases of the last cancelled calls are on their way back."""
    wait_until(lambda: not ((held := soak.held())["leases"] or held["flights"]), "the last leases and flights to end")
    return soak.held()


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_nothing_is_left_behind(store: str, flavour: str, start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """Between the first third of the work and its end nothing has grown."""
    server = start_redis() if store == "redis" else None
    url = "memory://" if server is None else server.url
    task = sync_soak if flavour == "sync" else async_soak
    ((before, after, operations),) = run_python(task, url, prefix, OPERATIONS, AT_MOST_SECONDS, timeout=200)
    print(f"{store} {flavour}: {operations} operations, {before} -> {after}")
    assert operations > OPERATIONS / 20, "a machine too slow to say anything"
    for nothing in ("flights", "refreshes", "owed", "leases"):
        assert (nothing, after[nothing]) == (nothing, 0)
    assert after["descriptors"] <= max(before["descriptors"], 8 * 2 + 12)
    assert after["threads"] <= before["threads"] + 2, "the keeper and its like come and go"
    assert after["memory"] - before["memory"] < 1_000_000, "bytes"
    if server is not None:
        # Ours were closed; what is left are the test's own.
        left = [line for line in server.run("CLIENT", "LIST").splitlines() if b"name=" in line]
        assert len(left) <= 2
