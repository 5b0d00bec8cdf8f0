"""`f.set` stores, or says that it has not: also when its lease is lost between its two steps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, StoreError
from tests.servers import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "again and again"])
def test_a_set_whose_lease_was_lost_is_repeated_or_raises(
    times: int, start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """Evicted or expired before the value came: it is stored in the end, or the caller is told."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = way_of(proxy.url)
        f = way.cached()(lambda x: ["loaded"])
        way.run(f(1))
        lease = f"{{{f.key(1)}}}:lease"
        stop = threading.Event()
        lost = 0

        def lose() -> None:
            nonlocal lost
            with server.client() as client:
                while not stop.is_set() and lost < times:
                    lost += client.delete(lease)

        thread = threading.Thread(target=lose)
        thread.start()
        proxy.delay(0.05)  # an answer takes longer than it takes to see the lease
        raised: list[BaseException] = []
        try:
            way.run(f.set(["set"], 1))
        except StoreError as error:
            raised.append(error)
        finally:
            stop.set()
            thread.join(30)
            proxy.restore()
        if lost == 0:
            return  # its two steps are one: nothing can come between
        entry: Any = way.run(f.peek(1))
        stored = entry is not None and entry.value == ["set"]
        assert stored or raised, "set() returned as if it had stored"


def test_a_set_that_loses_to_an_invalidation_returns(redis_url: str, prefix: str) -> None:
    """Whoever invalidates while a value is being set comes after it: that is no failure to store."""
    with Cache(redis_url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10) as cache:

        @cache.versioned(namespace="f")
        def f(x: int) -> list[str]:
            return ["loaded"]

        wrong: list[Any] = []
        done = threading.Event()

        def invalidate() -> None:
            while not done.is_set():
                f.invalidate(1)

        thread = threading.Thread(target=invalidate)
        thread.start()
        for _ in range(100):
            try:
                f.set(["set"], 1)
            except StoreError as error:
                wrong.append(error)
        done.set()
        thread.join(30)
        # The two cannot always be told apart: a set that gives up after many attempts may say so.
        assert len(wrong) < 50
        f.set(["set"], 1)
        assert f(1) == ["set"]
