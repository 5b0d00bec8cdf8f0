"""P2 and P8 with `on_store_error="stale"`: what this process last knew is never what it has itself invalidated."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer


@pytest.mark.parametrize("how", ["key", "namespace", "tag", "namespace by name"])
def test_a_hit_that_is_being_decoded_while_it_is_invalidated_is_not_known_afterwards(
    how: str, start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """The reader may have the old value; whoever calls later may not, even when the store is down by then."""
    server = start_redis()
    inside, go = threading.Event(), threading.Event()
    reading = threading.local()

    class SlowJson:
        """A codec that is still decoding when the invalidation comes: a large model, or a thread that has lost the GIL."""

        name = "slowjson"

        def encode(self, value: Any) -> bytes:
            return json.dumps(value).encode()

        def decode(self, data: Any) -> Any:
            if getattr(reading, "slow", False):
                inside.set()
                assert go.wait(30)
            return json.loads(bytes(data))

    cache = Cache(server.url, prefix=prefix, socket_timeout=5, socket_connect_timeout=5)
    source = ["old"]

    @cache.versioned(namespace="f", on_store_error="stale", codec=SlowJson(), tags=("t:{x}",))
    def f(x: int) -> str:
        return source[0]

    f(1)
    seen: list[str] = []

    def reader() -> None:
        reading.slow = True
        seen.append(f(1))

    thread = threading.Thread(target=reader)
    thread.start()
    assert inside.wait(30)
    source[0] = "new"
    {
        "key": lambda: f.invalidate(1),
        "namespace": f.invalidate_all,
        "tag": lambda: cache.invalidate_tags("t:1"),
        "namespace by name": lambda: cache.invalidate_namespace("f"),
    }[how]()
    go.set()
    thread.join(30)
    assert seen in (["old"], ["new"])
    server.kill()
    answer = f(1)
    cache.close()
    assert answer == "new"


def test_what_was_known_is_served_during_an_outage(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """Without an invalidation the option does what it is for."""
    server = start_redis()
    cache = Cache(server.url, prefix=prefix, socket_timeout=5, socket_connect_timeout=5)
    source = ["old"]

    @cache.versioned(namespace="f", on_store_error="stale")
    def f(x: int) -> str:
        return source[0]

    assert f(1) == f(1) == "old"
    source[0] = "new"
    server.kill()
    answer = f(1)
    cache.close()
    assert answer == "old"
