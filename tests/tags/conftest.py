"""Fixtures of the tests of what goes beyond a plain call: the ways of the interface's tests, on a Cluster too."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.face.ways import ASYNC, EVERY, REDIS, SYNC, PatientWay, way_of_fixture, ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.face.ways import Way


way = ways(PatientWay, EVERY)
redis_way = ways(PatientWay, REDIS)
sync_way = ways(PatientWay, SYNC)
async_way = ways(PatientWay, ASYNC)
cluster_way = ways(PatientWay, ("cluster-sync", "cluster-async"))
way_of = way_of_fixture(PatientWay)


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
