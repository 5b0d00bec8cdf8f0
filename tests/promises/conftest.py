"""Each promise is shown in every way of using memover that it concerns."""

from __future__ import annotations

from tests.face.conftest import async_way, redis_way, sync_way, way, way_of

__all__ = ["async_way", "redis_way", "sync_way", "way", "way_of"]
