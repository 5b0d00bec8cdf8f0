"""Fixtures of the tests of what goes beyond a plain call: the ways of the interface's tests, on a Cluster too."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.face.conftest import async_way, redis_way, sync_way, way, way_of  # noqa: F401
from tests.face.ways import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisCluster


@pytest.fixture(params=["cluster-sync", "cluster-async"])
def cluster_way(request: pytest.FixtureRequest, redis_cluster: RedisCluster, prefix: str) -> Iterator[Way]:
    way = Way(redis_cluster.url, is_async=request.param == "cluster-async", prefix=prefix)
    yield way
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
