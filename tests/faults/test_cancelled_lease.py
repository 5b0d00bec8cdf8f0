"""A call is cancelled while its request for a lease is on its way: the release does not overtake the request."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisError

from memover import Cache
from memover.errors import StoreError
from tests.faults.test_one_odd_reply import OneOdd
from tests.servers import RedisServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LEASE_TTL = 60.0


class Holding(OneOdd):
    """Holds the first request for a lease up until `go`; whether it has come is `come`."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server)
        self.come, self.go = threading.Event(), threading.Event()
        self.releases = 0
        self.before = self._hold

    def _hold(self, words: list[bytes]) -> None:
        if words[0].startswith(b"EVAL") and any(word.endswith(b":lease") for word in words):
            if self.come.is_set():
                self.releases += 1
                return
            self.come.set()
            self.go.wait(20)


@pytest.fixture
def between(redis_server: RedisServer) -> Iterator[Holding]:
    with Holding(redis_server) as between:
        yield between


def functions(between: Holding, prefix: str) -> Any:
    patient: dict[str, Any] = {"socket_timeout": 20.0, "socket_connect_timeout": 20.0}
    cache = Cache(between.url, prefix=prefix, lease_ttl=LEASE_TTL, **patient)

    @cache.versioned(namespace="f")
    async def f(x: int) -> int:
        return x

    return cache, f


def leases(server: RedisServer, prefix: str) -> list[bytes]:
    with server.client() as client:
        return [key for key in client.scan_iter(match=f"*{prefix}*") if key.endswith(b":lease")]


def test_on_its_loop(between: Holding, redis_server: RedisServer, prefix: str) -> None:
    """Request and release take one connection, in order: no lease stays when both have arrived."""

    async def whole() -> None:
        cache, f = functions(between, prefix)
        task = asyncio.create_task(f(1))
        assert await asyncio.to_thread(between.come.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.5)  # room for a release that overtakes
        between.go.set()
        began = time.monotonic()
        assert await f(1) == 1
        assert time.monotonic() - began < LEASE_TTL / 2, "the call waited for a lease that is nobody's"
        await cache.aclose()

    asyncio.run(whole())
    wait_until(lambda: leases(redis_server, prefix) == [], "every lease to be given back", timeout=LEASE_TTL / 2)


@pytest.mark.parametrize("how", ["asyncio.run", "closed plainly"])
def test_when_its_loop_has_ended(how: str, between: Holding, redis_server: RedisServer, prefix: str) -> None:
    """The request arrives when its connection and its loop are closed: its lease does not stay either."""

    async def leave() -> Any:
        cache, f = functions(between, prefix)
        task = asyncio.create_task(f(1))
        assert await asyncio.to_thread(between.come.wait, 20)
        if how == "closed plainly":
            task.cancel()
            await asyncio.sleep(0)
        return cache

    if how == "asyncio.run":
        cache = asyncio.run(leave())
    else:
        loop = asyncio.new_event_loop()
        cache = loop.run_until_complete(leave())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    wait_until(lambda: between.releases >= 1, "the release to overtake the request", timeout=LEASE_TTL / 2)
    wait_until(lambda: len(cache._state.leases) == 0, "its answer", timeout=20)
    between.go.set()
    with redis_server.client() as client:
        wait_until(lambda: client.exists(f"{prefix}:gen:f"), "the request to arrive", timeout=20, interval=0.01)
    wait_until(lambda: leases(redis_server, prefix) == [], "it to be released again", timeout=LEASE_TTL / 2)
    cache.close()


def test_a_server_that_stood_still(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the request when it goes on, long after the caller gave up and first tried to release: the lease does not stay."""
    with RedisServer(unix_socket=True) as server, Cache(server.url, prefix=prefix, lease_ttl=LEASE_TTL) as cache:

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            return x

        assert f(0) == 0
        store: Any = cache._state.store
        asking = store.asking

        def asking_a_frozen_server(*args: Any, **kwargs: Any) -> Any:
            server.freeze()
            return asking(*args, **kwargs)

        tried: list[bool] = []
        release = store.release_many

        def count(*args: Any, **kwargs: Any) -> Any:
            try:
                return (yield from release(*args, **kwargs))
            except StoreError:
                tried.append(False)
                raise

        monkeypatch.setattr(store, "asking", asking_a_frozen_server)
        monkeypatch.setattr(store, "release_many", count)
        try:
            assert f(1) == 1
            monkeypatch.setattr(store, "asking", asking)
            wait_until(lambda: len(tried) >= 4, "the release to fail some times")
        finally:
            server.thaw()
        with server.client() as client:
            wait_until(lambda: client.exists(f"{prefix}:gen:f"), "the server to go on", passing=(RedisError,))
        wait_until(lambda: len(cache._state.leases) == 0, "the release to be acknowledged", timeout=LEASE_TTL / 3)
        wait_until(lambda: leases(server, prefix) == [], "the lease to be given back", timeout=LEASE_TTL / 3)
