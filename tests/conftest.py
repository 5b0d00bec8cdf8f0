"""Fixtures every test may use. One Redis serves the whole run; a test's keys are under a prefix of its own."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import hypothesis  # noqa: F401 - before the freeze: it asks the collector what refers to its generators
import pytest

from tests.servers import RedisCluster, RedisServer, SentinelGroup, be_patient
from tests.servers.recording import own_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis


be_patient()


def pytest_collection_finish() -> None:
    """What the collected tests themselves hold lives to the end: no later collection goes through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _collect_garbage() -> Iterator[None]:
    """A socket or a file that a test forgot to close is an error of its own file, and of no later one. What is left then is
    there to stay, and no later collection goes through it again."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis that tests share: read it, record it, but kill, freeze, flush or configure only one of your own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client of the shared Redis, answers as bytes."""
    with redis_server.client() as client:
        yield client


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster of three primaries that tests share, on the same terms as `redis_server`."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sentinel_group() -> Iterator[SentinelGroup]:
    """A primary, two replicas and three sentinels that tests share, on the same terms as `redis_server`."""
    with SentinelGroup() as group:
        yield group


@pytest.fixture
def prefix() -> Iterator[str]:
    """A key prefix that no other test has."""
    with own_prefix() as prefix:
        yield prefix


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """`start_redis(config={...})`: a Redis of the test's own, to be treated as badly as the test likes."""
    with ExitStack() as stack:

        def start(*args: Any, **options: Any) -> RedisServer:
            return stack.enter_context(RedisServer(*args, **options))

        yield start
