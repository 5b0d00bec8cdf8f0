"""Fixtures of the interface's tests: each test runs in every way of using memover that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import default as config
from tests.face.ways import ASYNC, EVERY, REDIS, SYNC, Way, way_of_fixture, ways

if TYPE_CHECKING:
    from collections.abc import Iterator


way = ways(Way, EVERY)
redis_way = ways(Way, REDIS)
sync_way = ways(Way, SYNC)
async_way = ways(Way, ASYNC)
way_of = way_of_fixture(Way)


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
