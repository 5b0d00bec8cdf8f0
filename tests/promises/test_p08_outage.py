"""P8: reads fail open, invalidations fail loud: a store failure never changes what a function returns; an invalidation is
acknowledged or raises, and is re-applied when the store is back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, InvalidationFailed
from tests.promises import actors
from tests.servers import run_python, start_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer

INVALIDATIONS = ["invalidate", "invalidate_all", "cache_clear", "invalidate_namespace", "invalidate_tags"]


def invalidation(way: Way, f: Any, how: str) -> Any:
    """The invalidation, begun; `way.run` has its result."""
    if how in ("invalidate_namespace", "invalidate_tags"):
        helper = getattr(way.cache, f"a{how}" if way.is_async else how)
        return helper(f.namespace if how == "invalidate_namespace" else "x:1")
    return getattr(f, how)(*([1] if how == "invalidate" else []))


@pytest.mark.parametrize("how", INVALIDATIONS)
def test_an_unacknowledged_invalidation_raises_closes_and_is_repeated(
    how: str, start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """With Redis frozen: it raises; this process has no hit and stores nothing; when Redis is back it is applied."""
    server = start_redis()
    way = way_of(server.url)
    way.cache = way.new_cache(socket_timeout=0.1, breaker_first=0.05, breaker_last=0.1)
    loads: list[int] = []

    def load(x: int) -> int:
        loads.append(x)
        return len(loads)

    f = way.cached(namespace="frozen", tags=("x:{x}",))(load)

    def stored() -> int | None:
        # The time limit is short, so that on a busy machine an answer may be missed.
        value: int = way.run(f(1))
        return value if way.run(f(1)) == value else None

    old = wait_until(stored, "a result to be stored")
    assert old is not None
    server.freeze()
    with pytest.raises(InvalidationFailed) as failed:
        way.run(invalidation(way, f, how))
    assert all(name.startswith(f"{way.prefix}:") for name in failed.value.what)
    results = [way.run(f(1)) for _ in range(3)]
    assert results == [old + 1, old + 2, old + 3], "the function's own results, one call after another"
    server.thaw()
    wait_until(lambda: not way.cache._state.witness.owed, "the repeat to be acknowledged")
    new = wait_until(stored, "a result to be stored again")
    assert new is not None and new > old + 3
    # And so for everybody.
    way.cache = way.new_cache()
    assert way.run(way.cached(namespace="frozen", tags=("x:{x}",))(load)(1)) == new


def test_the_old_entry_is_dead_for_other_processes_after_the_repeat(
    start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """The invalidating process could not reach the store; another process has hits until the repeat, never after."""
    server = start_redis()
    from tests.servers import FaultyProxy

    with FaultyProxy(server) as proxy:
        actors.change(server.url, prefix)
        assert run_python(actors.call, server.url, prefix) == [1]
        actors.change(server.url, prefix)
        with Cache(proxy.url, prefix=prefix) as cache:
            answer = actors.function(cache, actors.source(server.url, prefix))
            proxy.blackhole()
            with pytest.raises(InvalidationFailed):
                answer.invalidate_all()
            assert answer(1) == 2, "this process knows better"
            assert run_python(actors.call, server.url, prefix) == [1], "the others cannot know"
            proxy.restore()
            wait_until(lambda: not cache._state.witness.owed, "the repeat")
            assert run_python(actors.call, server.url, prefix) == [2]


def test_redis_that_is_killed_changes_no_result(start_redis: Callable[..., RedisServer], way_of: Any) -> None:
    """SIGKILL in the middle of calls, and a restart without data: values and errors are the function's own."""
    server = start_redis()
    way = way_of(server.url)
    way.cache = way.new_cache(breaker_first=0.02, breaker_last=0.05)

    def load(x: int) -> int:
        if x % 7 == 0:
            raise LookupError(x)
        return x * x

    f = way.cached()(load)

    def sweep() -> None:
        for x in range(1, 30):
            if x % 7 == 0:
                with pytest.raises(LookupError):
                    way.run(f(x))
            else:
                assert way.run(f(x)) == x * x

    sweep()
    server.kill()
    sweep()
    sweep()
    server.start()
    wait_until(lambda: way.run(f(1)) and way.run(f.peek(1)) is not None, "a hit")
    sweep()
    sweep()
    assert f.cache_info().hits > 0


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_load_under_way_when_the_store_dies_is_returned(
    flavour: str, start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """The store vanishes during a load: the caller has the value all the same."""
    server, truth = start_redis(), start_redis()
    actors.change(truth.url, prefix)
    code = f"""
import asyncio
from memover import Cache
from tests.promises.actors import source
from tests.servers import hear, say
url, truth, prefix = args
cache = Cache(url, prefix=prefix)
read = source(truth, prefix)
def load(x):
    say("loading")
    hear("finish")
    return read(x)
if {flavour!r} == "sync":
    result = cache.versioned(namespace="dying")(load)(1)
else:
    async def awaited(x):
        return load(x)
    result = asyncio.run(cache.versioned(namespace="dying")(awaited)(1))
"""
    with start_python(code, server.url, truth.url, prefix) as worker:
        worker.wait_for("loading")
        server.kill()
        worker.tell("finish")
        assert worker.result() == 1
