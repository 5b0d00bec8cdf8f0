"""P7: one deadline for the whole exchange, connect included, for threads as for event loops. No reply is so slow, and no
address so silent, that a call takes the sum of many budgets."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.face.ways import Way
    from tests.servers import RedisServer

BUDGET = 0.2
GENEROUS = 8


def took(way: Way, call: Callable[[], Any]) -> float:
    began = time.monotonic()
    way.run(call())
    return time.monotonic() - began


def hasty(way: Way, **options: Any) -> Way:
    way.cache = way.new_cache(
        socket_timeout=BUDGET, socket_connect_timeout=BUDGET, breaker_first=30, breaker_last=30, **options
    )
    return way


def test_a_reply_that_drips_is_waited_for_no_longer_than_one_that_does_not_come(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """A byte every tenth of a second: each arrives in time, and the whole does not."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = hasty(way_of(proxy.url))
        f = way.cached()(lambda x: "x" * 200)
        way.run(f(1))
        way.run(f(1))
        proxy.drip(0.1)
        assert took(way, lambda: f(1)) < BUDGET * GENEROUS


def test_a_miss_whose_replies_drip_is_bounded_too(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """Read, lease and store together."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = hasty(way_of(proxy.url))
        f = way.cached()(lambda x: x)
        way.run(f(1))
        proxy.drip(0.15)
        assert took(way, lambda: f(2)) < 2 * BUDGET * GENEROUS


def test_a_handshake_that_drips_is_bounded_too(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """Connecting is part of the exchange."""
    server = start_redis(password="secret")
    with FaultyProxy(server) as proxy:
        proxy.drip(0.1)
        way = hasty(way_of(server.url_at(proxy.port)))
        f = way.cached()(lambda x: x)
        assert took(way, lambda: f(1)) < BUDGET * GENEROUS


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which connecting takes for ever: its backlog is full, on every address of the loopback network."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


def test_many_silent_addresses_cost_one_budget_and_not_one_each(
    silent_port: int, way_of: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a dozen addresses behind which nobody answers."""
    real = socket.getaddrinfo

    def many(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("silent.test", b"silent.test"):
            return real(host, port, *args, **kwargs)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (f"127.0.0.{n}", int(port)))
            for n in range(1, 14)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", many)
    probe = socket.socket()
    probe.settimeout(0.3)
    try:
        probe.connect(("127.0.0.1", silent_port))
    except OSError:
        pass
    else:
        pytest.skip("this system accepts connections past a full backlog")
    finally:
        probe.close()
    way = hasty(way_of(f"redis://silent.test:{silent_port}/0"))
    f = way.cached()(lambda x: x)
    assert took(way, lambda: f(1)) < BUDGET * GENEROUS


def test_a_name_that_takes_long_to_resolve_costs_one_budget(
    redis_server: RedisServer, way_of: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that does not answer."""
    real = socket.getaddrinfo

    def slow(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("slow.test", b"slow.test"):
            time.sleep(4)
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    way = hasty(way_of(f"redis://slow.test:{redis_server.port}/0"))
    f = way.cached()(lambda x: x)
    assert took(way, lambda: f(1)) < BUDGET * GENEROUS


def test_a_batch_whose_replies_drip_is_bounded(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """A long reply is no reason to wait longer than its budget when it comes byte by byte."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = hasty(way_of(proxy.url))
        f = way.cached()(lambda x: x)
        way.run(f.map(range(20)))
        proxy.drip(0.1)
        assert took(way, lambda: f.map(range(20))) < BUDGET * GENEROUS


def test_an_event_loop_goes_on_while_a_store_is_waited_for(
    start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """Nothing of connecting or of a slow answer blocks the loop."""
    from memover import Cache

    server = start_redis()

    async def whole() -> float:
        with FaultyProxy(server) as proxy:
            cache = Cache(proxy.url, prefix=prefix, socket_timeout=1.0, socket_connect_timeout=1.0)

            @cache.versioned(namespace="f")
            async def f(x: int) -> int:
                return x

            await f(1)
            proxy.half_open()
            longest = 0.0
            task = asyncio.ensure_future(f(1))
            while not task.done():
                began = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - began)
            proxy.restore()
            await cache.aclose()
            return longest

    assert asyncio.run(whole()) < 0.8, "the loop stood still for the store's budget"
