"""The key-value API on every store, called and awaited: one face for the tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.face.ways import url_of
from tests.servers import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Awaited:
    """A cache whose methods are the awaited ones, each run in a loop that goes on."""

    def __init__(self, cache: Cache, loop: asyncio.AbstractEventLoop) -> None:
        self.cache = cache
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.cache, f"a{name}")
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))

    def __contains__(self, key: str) -> bool:
        return bool(self.has_key(key))


class Called:
    """The same for the synchronous methods."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.cache, name)  # type: ignore[no-any-return]

    def __contains__(self, key: str) -> bool:
        return key in self.cache


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as servers:
        yield servers


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Every kind of store."""
    if request.param in ("memory", "sqlite"):
        return url_of(request, request.param)
    found: str = request.getfixturevalue({"redis": "redis_server", "cluster": "cluster"}[request.param]).url
    return found


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """Every kind of store that processes share."""
    if request.param == "sqlite":
        return url_of(request, "sqlite")
    found: str = request.getfixturevalue({"redis": "redis_server", "cluster": "cluster"}[request.param]).url
    return found


@pytest.fixture
def make(prefix: str) -> Iterator[Callable[..., Cache]]:
    """`make(url, **options)`: a `Cache` with the test's prefix and time enough for a slow machine."""
    made: list[Cache] = []

    def make(url: str, **options: Any) -> Cache:
        made.append(Cache(url, **{"prefix": prefix, "socket_timeout": 10.0, "socket_connect_timeout": 10.0, **options}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture(params=["called", "awaited"])
def kv(request: pytest.FixtureRequest, url: str, make: Callable[..., Cache]) -> Iterator[Any]:
    """A cache of each kind, its methods called or awaited; `kv.cache` is the `Cache`."""
    cache = make(url)
    if request.param == "called":
        yield Called(cache)
        return
    loop = asyncio.new_event_loop()
    try:
        yield Awaited(cache, loop)
        loop.run_until_complete(cache.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
