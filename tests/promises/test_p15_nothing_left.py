"""P15: what nobody can read any more leaves by itself, in the store and in the process. (At scale: tests/growth.)"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.servers import wait_until

if TYPE_CHECKING:
    import redis

    from tests.face.ways import Way

MINUTE = 60.0


def lifetimes(client: redis.Redis, pattern: str) -> dict[str, float]:
    """Seconds that each key has left; infinity for one without expiry."""
    found = {}
    for key in client.scan_iter(pattern, count=1000):
        left = client.pttl(key)
        if left != -2:
            found[key.decode()] = left / 1000 if left >= 0 else float("inf")
    return found


def test_a_tag_lives_a_minute_longer_than_what_carries_it_at_most(redis_way: Way, redis_client: redis.Redis) -> None:
    """Whoever stamps a tag into an entry prolongs its key past that entry, and no further."""
    f = redis_way.cached(ttl=5, tags=("user:{x}",))(lambda x: x)
    for x in range(20):
        redis_way.run(f(x))
    tags = lifetimes(redis_client, f"{redis_way.prefix}:tag:user*")
    assert len(tags) == 20
    entries = lifetimes(redis_client, f"{redis_way.prefix}:1:*")
    latest = max(entries.values())
    for tag, left in tags.items():
        assert left <= latest + MINUTE, f"{tag} outlives every entry"
        assert left >= min(entries.values()) - 1, f"{tag} leaves before its entry"


def test_a_tag_of_an_entry_without_expiry_stays(redis_way: Way, redis_client: redis.Redis) -> None:
    """An entry that never expires needs its tag for ever; a shorter one does not shorten it."""
    forever = redis_way.cached(ttl=None, tags=("shared",))(lambda x: x)
    brief = redis_way.cached(ttl=2, tags=("shared",))(lambda x: x)
    redis_way.run(forever(1))
    redis_way.run(brief(1))
    (left,) = lifetimes(redis_client, f"{redis_way.prefix}:tag:shared").values()
    assert left == float("inf")


def test_a_tag_that_was_only_invalidated_leaves(redis_way: Way, redis_client: redis.Redis) -> None:
    """An invalidation of a tag that nothing carries, a mistyped id say, leaves no key for ever."""
    for x in range(5):
        invalidate = redis_way.cache.ainvalidate_tags if redis_way.is_async else redis_way.cache.invalidate_tags
        redis_way.run(invalidate(f"nobody:{x}"))
    left = lifetimes(redis_client, f"{redis_way.prefix}:tag:nobody*")
    assert [tag for tag, seconds in left.items() if seconds == float("inf")] == []


def test_call_tokens_leave_with_what_depends_on_them(redis_way: Way, redis_client: redis.Redis) -> None:
    """The tokens of single calls that parents carry have a ttl too."""
    child = redis_way.cached("child", ttl=5)(lambda x: x)
    if redis_way.is_async:

        async def load(x: int) -> int:
            return int(await child(x))

        parent = redis_way.cache.versioned(namespace="parent", ttl=5)(load)
    else:
        parent = redis_way.cache.versioned(namespace="parent", ttl=5)(lambda x: child(x))  # noqa: PLW0108 - a cached function is decorated once
    for x in range(30):
        redis_way.run(parent(x))
    tokens = lifetimes(redis_client, f"{redis_way.prefix}:gen:child@*")
    assert tokens, "this test looks for the wrong keys"
    endless = [token for token, left in tokens.items() if left > 5 + MINUTE]
    assert endless == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts /proc/self/fd")
def test_a_loop_that_is_closed_plainly_leaves_nothing(redis_url: str, prefix: str) -> None:
    """`run_until_complete` and `close`, again and again, as Celery tasks do: no socket and no loop stays."""
    import weakref

    cache = Cache(redis_url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10)

    @cache.versioned(namespace="loops")
    async def f(x: int) -> int:
        return x

    loops: list[weakref.ref[Any]] = []

    def once() -> None:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(f(1)) == 1
        loop.close()
        loops.append(weakref.ref(loop))

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    once()
    before = descriptors()
    for _ in range(30):
        once()
    wait_until(lambda: descriptors() <= before + 2, "the sockets of the loops that are gone")
    assert sum(loop() is not None for loop in loops) <= 2
    cache.close()


def test_a_loop_that_has_loaded_goes_with_its_last_reference(redis_url: str, prefix: str) -> None:
    """What loaded on it keeps it in no cycle: it is gone without the collector."""
    import weakref

    cache = Cache(redis_url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10)

    @cache.versioned(namespace="loops")
    async def f(x: int) -> int:
        return x

    loops: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        for x in range(10):
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(f(x)) == x
            loop.close()
            loops.append(weakref.ref(loop))
            del loop
        assert sum(each() is not None for each in loops) <= 2
    finally:
        gc.enable()
    assert f.cache_info().loads == 10
    cache.close()
