"""P16: one value's fault is never the store's. Too long, too slow to send, not encodable: it costs its own callers one
uncached call, and nobody else anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from memover import StoreError
from tests.servers import FaultyProxy, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer

BIG = 3_000_000


class Both:
    """A function with big results and one with small ones, on one cache; each counts its runs."""

    def __init__(self, way: Way, **options: Any) -> None:
        way.cache = way.new_cache(breaker_first=20, breaker_last=20, lease_ttl=30, wait_timeout=30, **options)
        self.way = way
        self.runs = {"big": 0, "small": 0}

        def big(x: int) -> bytes:
            self.runs["big"] += 1
            return os.urandom(BIG)

        def small(x: int) -> int:
            self.runs["small"] += 1
            return x

        self.big, self.small = way.cached("big")(big), way.cached("small")(small)

    def unharmed(self) -> None:
        """The small function is answered from the store, and can be invalidated."""
        before = self.runs["small"]
        for _ in range(5):
            assert self.way.run(self.small(1)) == 1
        assert self.runs["small"] == before, "hits of another function ran it"
        self.way.run(self.small.invalidate(2))
        assert self.small.cache_info().store_errors == 0


@pytest.fixture
def strict_server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """One that takes a megabyte at most."""
    return start_redis(config={"proto-max-bulk-len": "1mb"})


def no_lease(server: RedisServer) -> None:
    """Return when no call has a lease (a mark of a failed load is none): a lease that is kept costs every caller its time."""

    def held() -> list[bytes]:
        return [key for key in server.run("KEYS", "*lease") if (server.run("GET", key) or b"").startswith(b"L ")]

    wait_until(lambda: not held(), "the lease of what could not be stored to be given back", timeout=5)


def test_a_result_that_the_server_refuses_harms_nobody_else(
    strict_server: RedisServer, way_of: Callable[[str], Way]
) -> None:
    """It is returned and not stored; its lease is given back, so that its next caller does not wait for anything."""
    way = way_of(strict_server.url)
    both = Both(way)
    way.run(both.small(1))
    for call in range(1, 4):
        assert len(way.run(both.big(1))) == BIG
        assert both.runs["big"] == call
        no_lease(strict_server)
        both.unharmed()


def test_a_key_value_entry_that_the_server_refuses_harms_nobody_else(
    strict_server: RedisServer, way_of: Callable[[str], Way]
) -> None:
    """`set` says so, and the next call is a hit."""
    way = way_of(strict_server.url)
    both = Both(way)
    way.run(both.small(1))
    put = way.cache.aset if way.is_async else way.cache.set
    with pytest.raises((StoreError, TypeError, ValueError)):
        way.run(put("k", os.urandom(BIG)))
    both.unharmed()
    got = way.cache.aget if way.is_async else way.cache.get
    assert way.run(got("k")) is None


def test_a_batch_with_one_result_that_the_server_refuses_stores_the_others(
    strict_server: RedisServer, way_of: Callable[[str], Way]
) -> None:
    """`map` returns all of them; those that fit are hits afterwards."""
    way = way_of(strict_server.url)
    both = Both(way)
    way.run(both.small(1))
    f = way.cached("mixed")(lambda x: os.urandom(BIG if x == 3 else 10))
    values = way.run(f.map(range(6)))
    assert [len(value) for value in values] == [10, 10, 10, BIG, 10, 10]
    no_lease(strict_server)
    again = way.run(f.map(range(6)))
    assert [one == other for one, other in zip(values, again)] == [True, True, True, False, True, True]
    both.unharmed()


def test_a_result_longer_than_max_entry_bytes_is_returned_and_counted(redis_way: Way, caplog: Any) -> None:
    """`max_entry_bytes` keeps it from being sent at all; one warning per function."""
    both = Both(redis_way, max_entry_bytes=1_000_000)
    redis_way.run(both.small(1))
    for call in range(1, 4):
        assert len(redis_way.run(both.big(1))) == BIG
        assert both.big.cache_info().too_large == call
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    both.unharmed()


def test_a_result_that_takes_longer_to_send_than_an_answer_may_take_is_the_stores_no_fault(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """A link on which a big value takes longer than `socket_timeout`: what is small goes on being served from the store."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = way_of(proxy.url)
        both = Both(way, socket_timeout=0.5)
        way.run(both.small(1))
        proxy.throttle(1_000_000)  # bytes a second: the big one takes three seconds
        for _ in range(2):
            assert len(way.run(both.big(1))) == BIG
            both.unharmed()


def test_a_result_that_cannot_be_encoded_harms_nobody_else(redis_way: Way) -> None:
    """Returned where the cache says so; the lease is given back and the next call runs at once."""
    both = Both(redis_way, on_unencodable="return")
    redis_way.run(both.small(1))
    runs: list[int] = []

    def odd(x: int) -> Any:
        runs.append(x)
        return object()

    f = redis_way.cached("odd")(odd)
    for call in range(1, 4):
        redis_way.run(f(1))
        assert len(runs) == call
    both.unharmed()
