"""Connections that are scarce: fewer than are wanted, fewer than the server allows, all of them busy."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.servers import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
GENEROUS = 8


@pytest.mark.parametrize("unix_socket", [False, True], ids=["tcp", "unix"])
def test_a_server_that_allows_fewer_connections_than_the_pool_wants_serves_hits(
    start_redis: Callable[..., RedisServer], prefix: str, unix_socket: bool
) -> None:
    """`maxclients 20` and 64 connections by default: the pool makes do with what it is given, and the circuit stays closed."""
    server = start_redis(config={"maxclients": 20}, unix_socket=unix_socket)
    cache = Cache(server.url, prefix=prefix)
    runs: list[int] = []

    @cache.versioned(namespace="f")
    def f(x: int) -> int:
        runs.append(x)
        return x

    f(1)
    barrier = threading.Barrier(40)
    wrong: list[Any] = []

    def work() -> None:
        barrier.wait(30)
        for _ in range(50):
            if f(1) != 1:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(runs) <= 40, f"{len(runs)} of 2,000 hits ran the function"
    f.invalidate(1)
    cache.close()


def test_several_processes_share_what_the_server_allows(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """Two caches with pools of their own: neither fails because the other has taken most of it."""
    server = start_redis(config={"maxclients": 20})
    caches = [Cache(server.url, prefix=prefix) for _ in range(2)]
    runs: list[int] = []

    def load(x: int) -> int:
        runs.append(x)
        return x

    functions = [cache.versioned(namespace="f")(load) for cache in caches]
    for f in functions:
        f(1)  # each has a connection before the others are asked for

    def work(f: Any) -> None:
        for _ in range(50):
            f(1)

    threads = [threading.Thread(target=work, args=(functions[number % 2],)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(runs) <= 40, f"{len(runs)} of 2,000 hits ran the function"
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_tasks_at_once_have_all_their_results_stored(count: int, redis_url: str, prefix: str) -> None:
    """Thousands of tasks on as many keys: what is to be stored waits for its turn and is not dropped."""

    async def whole() -> int:
        cache = Cache(redis_url, prefix=prefix, **PATIENT)

        @cache.versioned(namespace="f")
        async def f(x: int) -> int:
            await asyncio.sleep(0)
            return x

        assert await asyncio.gather(*(f(x) for x in range(count))) == list(range(count))
        info = f.cache_info()
        assert info.refused_stores == 0
        assert info.store_errors == 0
        loads = info.loads
        assert await asyncio.gather(*(f(x) for x in range(count))) == list(range(count))
        again = f.cache_info().loads - loads
        await cache.aclose()
        return again

    assert asyncio.run(whole()) == 0, "results were not stored"


def test_many_threads_at_once_have_all_their_results_stored(redis_url: str, prefix: str) -> None:
    """More threads than connections."""
    cache = Cache(redis_url, prefix=prefix, max_connections=4, **PATIENT)

    @cache.versioned(namespace="f")
    def f(x: int) -> int:
        return x

    threads = [threading.Thread(target=lambda n=n: [f(n * 20 + x) for x in range(20)]) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    loads = f.cache_info().loads
    assert loads == 600
    assert [f(x) for x in range(600)] == list(range(600))
    assert f.cache_info().loads == loads, "results were not stored"
    cache.close()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_call_that_queues_for_a_connection_adds_no_more_than_its_budget(
    flavour: str, start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """P7: one connection, and a server that takes most of a budget for each answer. Whoever is far back in the queue runs
    the function."""
    server = start_redis()
    budget = 0.3
    with FaultyProxy(server) as proxy:
        cache = Cache(proxy.url, prefix=prefix, max_connections=1, socket_timeout=budget, socket_connect_timeout=budget)
        times: list[float] = []
        values: list[int] = []

        if flavour == "sync":

            @cache.versioned(namespace="f")
            def f(x: int) -> int:
                return x

            f(1)

            def call() -> None:
                began = time.monotonic()
                values.append(f(1))
                times.append(time.monotonic() - began)

            proxy.delay(0.2)
            threads = [threading.Thread(target=call) for _ in range(30)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        else:

            @cache.versioned(namespace="f")
            async def g(x: int) -> int:
                return x

            async def whole() -> None:
                await g(1)
                proxy.delay(0.2)

                async def acall() -> None:
                    began = time.monotonic()
                    values.append(await g(1))
                    times.append(time.monotonic() - began)

                await asyncio.gather(*(acall() for _ in range(30)))
                await cache.aclose()

            asyncio.run(whole())
        proxy.restore()
        cache.close()
    assert values == [1] * 30
    assert max(times) < budget * GENEROUS, f"a call took {max(times):.1f} s, with a budget of {budget} s"
