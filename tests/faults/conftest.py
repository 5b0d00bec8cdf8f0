"""Faults meet every way of using memover that they concern.

The ways are patient here: a machine that is busy for a second is no fault of the store. What is about budgets sets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.face.ways import Way, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover import Cache


class PatientWay(Way):
    """A way whose caches wait for the store for as long as a test may take."""

    def new_cache(self, **options: Any) -> Cache:
        if self.is_shared:
            options = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0, **options}
        return super().new_cache(**options)


def _way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    store, flavour = request.param.split("-")
    url = url_of(request, store)
    way = PatientWay(url, is_async=flavour == "async", prefix=prefix)
    yield way
    way.close()


@pytest.fixture(params=["memory-sync", "memory-async", "sqlite-sync", "sqlite-async", "redis-sync", "redis-async"])
def way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    """All of them."""
    yield from _way(request, prefix)


@pytest.fixture(params=["redis-sync", "redis-async"])
def redis_way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    yield from _way(request, prefix)


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
