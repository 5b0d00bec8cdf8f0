"""A cache's end: close, aclose, with, async with, and use after that."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, versioned_cache
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer


def decorated(cache: Cache, namespace: str = "closing") -> Any:
    @versioned_cache(namespace=namespace, cache=cache)
    def f(x: int) -> list[int]:
        return [x]

    return f


def adecorated(cache: Cache, namespace: str = "aclosing") -> Any:
    @versioned_cache(namespace=namespace, cache=cache)
    async def f(x: int) -> list[int]:
        return [x]

    return f


def connections(server: RedisServer) -> int:
    """Clients of the server. Its operator is not counted: the server may not have noticed yet that one has gone."""
    return sum(b" user=default " in line for line in server.run("CLIENT", "LIST").splitlines())


def test_with_closes_the_connections(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """One is open after a call, none after the block."""
    server = start_redis()
    with Cache(server.url, prefix=prefix) as cache:
        assert connections(server) == 0, "nothing is opened before the first call"
        decorated(cache)(1)
        assert connections(server) == 1
    wait_until(lambda: connections(server) == 0, "the connection to be gone")


def test_async_with_closes_both_kinds_of_connections(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """Those of the threads and those of the loop."""
    server = start_redis()

    async def whole() -> None:
        async with Cache(server.url, prefix=prefix) as cache:
            assert cache.address.startswith("redis://")
            await adecorated(cache)(1)
            decorated(cache)(1)
            assert connections(server) >= 2

    asyncio.run(whole())
    wait_until(lambda: connections(server) == 0, "the connections to be gone")


def test_a_closed_cache_may_be_used_again(redis_url: str, prefix: str) -> None:
    """close() is no farewell: the next call opens what it needs, and close() may be repeated."""
    cache = Cache(redis_url, prefix=prefix)
    f = decorated(cache)
    f(1)
    cache.close()
    cache.close()
    assert f(1) == [1]
    assert f.cache_info()[:2] == (1, 1)
    cache.close()


def test_a_closed_cache_may_be_used_again_by_the_same_loop(redis_url: str, prefix: str) -> None:
    """aclose() likewise."""
    cache = Cache(redis_url, prefix=prefix)
    f = adecorated(cache)

    async def whole() -> None:
        for _ in range(2):
            assert await f(1) == [1]
            await cache.aclose()
            await cache.aclose()

    asyncio.run(whole())
    assert f.cache_info()[:2] == (1, 1)


def test_a_memory_cache_keeps_its_entries_when_closed() -> None:
    """Nothing is open, so nothing is lost."""
    with Cache() as cache:
        f = decorated(cache)
        f(1)
    f(1)
    assert f.cache_info()[:2] == (1, 1)

    async def whole() -> None:
        async with Cache() as cache:
            g = adecorated(cache)
            await g(1)
        assert await g(1) == [1]
        assert g.cache_info()[:2] == (1, 1)

    asyncio.run(whole())


def test_an_event_loop_that_ends_without_closing_leaves_no_trouble(redis_url: str, prefix: str) -> None:
    """asyncio.run, three times over, with one cache: no error, no "loop is closed", no leaked connection."""
    cache = Cache(redis_url, prefix=prefix)
    f = adecorated(cache)
    for _ in range(3):
        assert asyncio.run(f(1)) == [1]
        gc.collect()
    assert f.cache_info()[:2] == (2, 1)

    async def last() -> None:
        assert await f(1) == [1]
        await cache.aclose()

    asyncio.run(last())


def test_connections_over_tls_end_with_their_loop(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """A loop that ends right after aclose() leaves no half-closed TLS connection (a ResourceWarning is an error here)."""
    server = start_redis(tls=True)
    cache = Cache(server.url, prefix=prefix)
    f = adecorated(cache)

    async def whole() -> None:
        assert await f(1) == [1]
        await cache.aclose()

    for _ in range(5):
        asyncio.run(whole())
        gc.collect()
    cache.close()
    wait_until(lambda: connections(server) == 0, "the connections to be gone")


def test_an_exception_in_the_block_comes_through(redis_url: str, prefix: str) -> None:
    """with and async with close and let it pass."""

    def plain() -> None:
        with Cache(redis_url, prefix=prefix) as cache:
            decorated(cache)(1)
            raise LookupError

    with pytest.raises(LookupError):
        plain()

    async def whole() -> None:
        async with Cache(redis_url, prefix=prefix) as cache:
            await adecorated(cache)(1)
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(whole())


def test_a_cache_says_what_it_is(redis_url: str, prefix: str) -> None:
    """repr and address, for logs."""
    cache = Cache(redis_url, prefix=prefix)
    assert repr(cache) == f"<Cache {cache.address} prefix={prefix!r}>"
    assert cache.address == redis_url.rstrip("/")


def test_versioned_is_versioned_cache_on_this_cache(redis_url: str, prefix: str) -> None:
    """Cache.versioned(...): the same options, the same result."""
    with Cache(redis_url, prefix=prefix, ttl=7) as cache:

        @cache.versioned(namespace="mine", version=4, key="{x}")
        def f(x: int) -> int:
            return x

        assert f(1) == f(1) == 1
        assert f.key(1) == f"{prefix}:4:mine:1"
        assert f.cache is cache
        assert f.cache_parameters()["ttl"] == 7
        with pytest.raises(TypeError):
            cache.versioned(version=4)  # type: ignore[call-arg]
