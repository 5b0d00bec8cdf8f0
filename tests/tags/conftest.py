"""Fixtures of the tests of what goes beyond a plain call: the ways of the interface's tests, on a Cluster too."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.face.ways import Way, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover import Cache
    from tests.servers import RedisCluster


class PatientWay(Way):
    """A way whose store may take its time: a busy machine is no outage here."""

    def new_cache(self, **options: Any) -> Cache:
        return super().new_cache(**{"socket_timeout": 10.0, "socket_connect_timeout": 10.0, **options})


def _ways(*params: str) -> Any:
    @pytest.fixture(params=params)
    def way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
        store, flavour = request.param.split("-")
        url = url_of(request, store)
        way = PatientWay(url, is_async=flavour == "async", prefix=prefix)
        yield way
        way.close()

    return way


way = _ways("memory-sync", "memory-async", "sqlite-sync", "sqlite-async", "redis-sync", "redis-async")
redis_way = _ways("redis-sync", "redis-async")
sync_way = _ways("memory-sync", "sqlite-sync", "redis-sync")
async_way = _ways("memory-async", "sqlite-async", "redis-async")


@pytest.fixture(params=["cluster-sync", "cluster-async"])
def cluster_way(request: pytest.FixtureRequest, redis_cluster: RedisCluster, prefix: str) -> Iterator[Way]:
    way = PatientWay(redis_cluster.url, is_async=request.param == "cluster-async", prefix=prefix)
    yield way
    way.close()


@pytest.fixture(params=["sync", "async"])
def way_of(request: pytest.FixtureRequest, prefix: str) -> Iterator[Callable[[str], Way]]:
    """`way_of(url)`: a way in both flavours on a store of the test's own."""
    made: list[Way] = []

    def make(url: str) -> Way:
        made.append(PatientWay(url, is_async=request.param == "async", prefix=prefix))
        return made[-1]

    yield make
    for way in made:
        way.close()


class Clock:
    """The wall clock of this process, as far ahead as a test likes."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def forward(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, real = Clock(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + clock.ahead)
    return clock


@pytest.fixture
def settle() -> Callable[[Way], None]:
    """`settle(way)`: return when nothing runs behind the callers any more."""

    def settled(way: Way) -> None:
        if way.is_async:
            way.run(way.cache.aclose())
        else:
            way.cache.close()

    return settled


@pytest.fixture
def start() -> Iterator[Callable[..., Future[Any]]]:
    """`start(f, 1)`: the call in a thread of its own (an event loop of its own, if it is awaited)."""

    def whole(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async def awaited() -> Any:
            return await call(*args, **kwargs)

        return asyncio.run(awaited()) if asyncio.iscoroutinefunction(call) else call(*args, **kwargs)

    with ThreadPoolExecutor(16) as pool:
        yield lambda call, *args, **kwargs: pool.submit(whole, call, args, kwargs)
