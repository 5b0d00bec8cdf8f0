"""P6: at most one load per (key, generation) per lease across processes; exactly one per process. A dead leader costs
one more after its lease."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.promises import actors
from tests.servers import run_python, start_python, wait_until

if TYPE_CHECKING:
    import redis

    from tests.face.ways import Way


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_two_hundred_callers_in_four_processes_load_once(
    flavour: str, redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """A cold key and 200 callers at once, in threads or tasks of four processes: the function runs once."""
    results = run_python(actors.crowd, redis_url, prefix, flavour, 50, f"{prefix}-loads", n=4)
    assert results == [[1] * 50] * 4
    assert int(redis_client.get(f"{prefix}-loads") or 0) == 1


def test_callers_of_one_process_load_once(way: Way) -> None:
    """The same within one process, on every store: 50 threads or 500 tasks, one load."""
    cache = way.cache
    loads: list[int] = []
    if way.is_async:

        @cache.versioned(namespace="crowd")
        async def f(x: int) -> int:
            loads.append(x)
            await asyncio.sleep(0.05)
            return x

        async def crowd() -> list[int]:
            return list(await asyncio.gather(*(f(1) for _ in range(500))))

        assert way.run(crowd()) == [1] * 500
    else:

        @cache.versioned(namespace="crowd")
        def g(x: int) -> int:
            loads.append(x)
            time.sleep(0.05)
            return x

        threads = [threading.Thread(target=g, args=(1,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert loads == [1]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_dead_leader_costs_one_more_load_after_its_lease(
    flavour: str, redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """SIGKILL of the process that holds the lease: those who wait load once more when the lease has ended."""
    actors.change(redis_url, prefix)
    with start_python(actors.load_slowly, redis_url, prefix, flavour, {"lease_ttl": 3.0}) as leader:
        leader.wait_for("loading")
        lease = redis_client.keys(f"{{{prefix}:*:lease")
        assert len(lease) == 1
        leader.kill()
        assert redis_client.pttl(lease[0]) > 0
        results = run_python(actors.crowd, redis_url, prefix, flavour, 5, f"{prefix}-loads", n=2)
    assert results == [[1] * 5] * 2
    assert int(redis_client.get(f"{prefix}-loads") or 0) == 1


def test_a_load_longer_than_its_lease_keeps_it(redis_way: Way, redis_client: redis.Redis) -> None:
    """The lease is renewed while the load runs, so nobody else loads; when it is over there is no lease."""
    loads: list[int] = []

    @redis_way.cached(lease_ttl=2.0)
    async def slow(x: int) -> int:
        loads.append(x)
        await asyncio.sleep(3.0)
        return x

    def slow_sync(x: int) -> int:
        loads.append(x)
        time.sleep(3.0)
        return x

    if redis_way.is_async:
        other = Cache(redis_way.url, prefix=redis_way.prefix)

        async def both() -> list[int]:
            return list(await asyncio.gather(slow(1), slow(1)))

        assert redis_way.run(both()) == [1, 1]
        redis_way.run(other.aclose())
        key = slow.key(1)
    else:
        f = redis_way.cached(lease_ttl=2.0)(slow_sync)
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(f(1))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [1, 1]
        key = f.key(1)
    assert loads == [1]
    assert redis_client.exists(key) == 1
    assert redis_client.exists(f"{{{key}}}:lease") == 0


def test_a_function_that_calls_itself_does_not_wait_for_itself(way: Way) -> None:
    """A load that asks for the very call it is about is let through."""

    @way.cached(wait_timeout=60)
    def plain(x: int, deep: int = 0) -> int:
        return x

    calls: list[int] = []
    if way.is_async:

        @way.cached(wait_timeout=60)
        async def f(x: int) -> int:
            calls.append(x)
            return x if len(calls) > 1 else await f(x)

        assert way.run(f(1)) == 1
    else:

        @way.cached(wait_timeout=60)
        def g(x: int) -> int:
            calls.append(x)
            return x if len(calls) > 1 else int(g(x))

        assert way.run(g(1)) == 1
    assert calls == [1, 1]
    assert way.run(plain(1)) == 1


def test_those_who_waited_for_a_load_that_failed_do_not_fail_one_after_another(
    redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """The leader raises: whoever waited on it loads at once, side by side, and not each after the other's failure."""
    code = """
import threading, redis
from memover import Cache
url, prefix = args
client = redis.Redis.from_url(url)
cache = Cache(url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10)

@cache.versioned(namespace="failing")
def f(x):
    client.incr(prefix + "-loads")
    threading.Event().wait(0.3)
    raise ValueError("origin")

errors = []
def call():
    try:
        f(1)
    except ValueError as error:
        errors.append(str(error))

threads = [threading.Thread(target=call) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = errors
"""
    assert run_python(code, redis_url, prefix, n=3) == [["origin"] * 10] * 3
    # One leader, and then at most one load in each process that had waited.
    assert int(redis_client.get(f"{prefix}-loads") or 0) <= 6
    left: Any = redis_client.keys(f"{{{prefix}:*:lease")
    wait_until(lambda: not redis_client.keys(f"{{{prefix}:*:lease"), f"{left} to end")
