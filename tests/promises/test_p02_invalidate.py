"""P2: the same as P1 for `invalidate(*args)`, lease expiry included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.promises import actors
from tests.promises.test_p01_invalidate_all import slow
from tests.servers import run_python, start_python, wait_until

if TYPE_CHECKING:
    import redis

    from tests.face.ways import Way


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_slow_load_is_overtaken_by_another_process(flavour: str, redis_url: str, prefix: str) -> None:
    """One process loads, another invalidates that call, the load ends: its value is not stored."""
    actors.change(redis_url, prefix)
    with start_python(actors.load_slowly, redis_url, prefix, flavour) as loader:
        loader.wait_for("loading")
        actors.change(redis_url, prefix)
        actors.invalidate(redis_url, prefix, "key")
        loader.tell("finish")
        assert loader.result() == 1
    assert run_python(actors.call, redis_url, prefix) == [2]


def test_a_slow_load_is_overtaken_in_its_own_process(way: Way) -> None:
    """Threads or tasks of one process, on every store; and whoever comes later does not join the load."""
    f, _, _, finish = slow(way)
    way.run(f.invalidate(1))
    assert way.run(f(1)) == 2
    assert finish() == 1
    assert way.run(f(1)) == 2


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_process_that_slept_through_its_lease_stores_nothing(
    flavour: str, redis_url: str, prefix: str, redis_client: redis.Redis
) -> None:
    """Frozen in its load for longer than its lease, invalidated meanwhile and thawed: what it has is not stored."""
    import os
    import signal

    actors.change(redis_url, prefix)
    with start_python(actors.load_slowly, redis_url, prefix, flavour, {"lease_ttl": 0.5}) as loader:
        loader.wait_for("loading")
        os.kill(loader.pid, signal.SIGSTOP)
        wait_until(lambda: not redis_client.keys(f"{{{prefix}:*:lease"), "its lease to end")
        actors.change(redis_url, prefix)
        assert actors.call(redis_url, prefix) == 2
        actors.invalidate(redis_url, prefix, "key")
        os.kill(loader.pid, signal.SIGCONT)
        loader.tell("finish")
        assert loader.result() == 1
    assert actors.call(redis_url, prefix) == 2


def test_only_this_call_is_gone(way: Way) -> None:
    """Other calls of the function keep their entries; so does the same call of another function."""
    loads: list[Any] = []

    @way.cached()
    def f(x: int) -> int:
        loads.append(("f", x))
        return x

    @way.cached()
    def g(x: int) -> int:
        loads.append(("g", x))
        return x

    for _ in range(2):
        assert [way.run(one) for one in (f(1), f(2), g(1))] == [1, 2, 1]
    way.run(f.invalidate(1))
    assert [way.run(one) for one in (f(1), f(2), g(1))] == [1, 2, 1]
    assert loads == [("f", 1), ("f", 2), ("g", 1), ("f", 1)]
