"""The same fixtures as those of the tags' tests."""

from tests.tags.conftest import (  # noqa: F401
    async_way,
    clock,
    cluster_way,
    redis_way,
    settle,
    start,
    sync_way,
    way,
    way_of,
)
