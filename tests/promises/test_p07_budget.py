"""P7: a cached call adds at most a configured budget to the function: store frozen, blackholed, slow.

(Every fault of the network: tests/faults/test_outage.py.)"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer

GENEROUS = 8


@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_a_frozen_store_costs_one_budget_and_then_next_to_nothing(
    budget: float, start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """SIGSTOP of Redis: the first call waits for its budget, those after it do not; after SIGCONT there are hits."""
    server = start_redis()
    way = way_of(server.url)
    way.cache = way.new_cache(socket_timeout=budget, breaker_first=30, breaker_last=30)
    f = way.cached()(lambda x: x)
    way.run(f(1))
    way.run(f(1))
    server.freeze()
    began = time.monotonic()
    assert way.run(f(1)) == 1
    assert budget <= time.monotonic() - began < budget * GENEROUS
    times = []
    for _ in range(101):
        began = time.monotonic()
        assert way.run(f(1)) == 1
        times.append(time.monotonic() - began)
    assert statistics.median(times) < budget / 10, "calls waited for a store that had been found silent"
    server.thaw()


def test_the_first_calls_after_the_outage_are_hits(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """A store that was only silent has lost nothing: the call that finds it well again is answered from it."""
    server = start_redis()
    way = way_of(server.url)
    way.cache = way.new_cache(socket_timeout=0.1, breaker_first=0.05, breaker_last=0.2)
    loads: list[int] = []

    def load(x: int) -> int:
        loads.append(x)
        return len(loads)

    f = way.cached()(load)
    assert way.run(f(1)) == 1
    server.freeze()
    assert way.run(f(1)) == 2
    server.thaw()
    wait_until(lambda: way.run(f(1)) == 1, "the entry from before the outage")
    count = len(loads)
    assert [way.run(f(1)) for _ in range(20)] == [1] * 20
    assert len(loads) == count


def test_waiting_for_anothers_load_has_a_limit_of_its_own(
    redis_url: str, way_of: Callable[[str], Way], redis_client: Any
) -> None:
    """`wait_timeout`: whoever has waited that long for another process's load runs the function."""
    way = way_of(redis_url)
    f = way.cached(wait_timeout=0.2, lease_ttl=60)(lambda x: x)
    way.run(f(1))
    way.run(f.invalidate(1))
    token = redis_client.get(f"{way.prefix}:gen:{f.namespace}")
    redis_client.set(f"{{{f.key(1)}}}:lease", b"L 0123456789abcdef " + token, px=60_000)
    began = time.monotonic()
    assert way.run(f(1)) == 1
    assert 0.2 <= time.monotonic() - began < 0.2 * GENEROUS * 2
    assert f.cache_info().loads == 2
