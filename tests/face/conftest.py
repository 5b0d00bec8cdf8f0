"""Fixtures of the interface's tests: each test runs in every way of using memover that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import default as config
from tests.face.ways import Way, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _way(request: pytest.FixtureRequest, prefix: str, store: str, flavour: str) -> Way:
    url = url_of(request, store)
    return Way(url, is_async=flavour == "async", prefix=prefix)


@pytest.fixture(params=["memory-sync", "memory-async", "sqlite-sync", "sqlite-async", "redis-sync", "redis-async"])
def way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    """All of them."""
    way = _way(request, prefix, *request.param.split("-"))
    yield way
    way.close()


@pytest.fixture(params=["redis-sync", "redis-async"])
def redis_way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    way = _way(request, prefix, *request.param.split("-"))
    yield way
    way.close()


@pytest.fixture(params=["memory-sync", "sqlite-sync", "redis-sync"])
def sync_way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    way = _way(request, prefix, *request.param.split("-"))
    yield way
    way.close()


@pytest.fixture(params=["memory-async", "sqlite-async", "redis-async"])
def async_way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
    way = _way(request, prefix, *request.param.split("-"))
    yield way
    way.close()


@pytest.fixture(params=["sync", "async"])
def way_of(request: pytest.FixtureRequest, prefix: str) -> Iterator[Callable[[str], Way]]:
    """`way_of(url)`: a way in both flavours on a store of the test's own."""
    made: list[Way] = []

    def make(url: str) -> Way:
        made.append(Way(url, is_async=request.param == "async", prefix=prefix))
        return made[-1]

    yield make
    for way in made:
        way.close()


@pytest.fixture
def no_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A process in which nobody has configured a default cache yet; what a test configures is closed after it."""
    for name in ("URL", "PREFIX", "VERSION", "TTL", "DISABLED"):
        monkeypatch.delenv(f"MEMOVER_{name}", raising=False)
    monkeypatch.setattr(config, "_default", None)
    config._changed()
    yield config
    if config._default is not None:
        config._default.close()
    monkeypatch.undo()
    config._changed()
