"""A store to be interrupted on: the memory store, or a Redis of these tests on a unix socket."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.interrupts.bench import Bench, Hung
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# A strike between the making of a socket and the keeping of it leaves it to the collector, which is well: it closes it.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/interrupts" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def interrupted_redis() -> Iterator[RedisServer]:
    """Its connections are counted, so it is not shared with other tests."""
    with RedisServer(unix_socket=True) as server:
        yield server


@pytest.fixture(params=["memory", "redis", "sqlite"])
def make(request: pytest.FixtureRequest, prefix: str) -> Iterator[Callable[..., Bench]]:
    """`make()`: a bench; the collector is at rest, so that nothing but the strike interrupts."""
    benches: list[Bench] = []
    client = None
    url = "memory://"
    if request.param == "redis":
        server = request.getfixturevalue("interrupted_redis")
        url, client = server.url, server.client()
    if request.param == "sqlite":
        url = f"sqlite:///{request.getfixturevalue('tmp_path')}/store.db"

    def one(**options: Any) -> Bench:
        if benches and client is not None:
            # What an earlier bench left open is no fault of this one.
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        benches.append(Bench(url, prefix, client, **options))
        return benches[-1]

    gc.disable()
    try:
        yield one
    finally:
        for bench in benches:
            try:
                bench.close()
            except (Hung, Exception):
                pass  # it has failed, and the test has said so
        if client is not None:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.close()
        benches.clear()
        gc.enable()
        gc.collect()
