"""P1: after `invalidate_all()` or `invalidate_tags()` returns, no call started later, in any process, returns a value
whose load began before it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.promises import actors
from tests.servers import await_until, start_python

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.face.ways import Way

HOW = ["namespace", "namespace by name", "tag"]
FLAVOURS = ["sync", "async"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("how", HOW)
def test_a_slow_load_is_overtaken_by_another_process(how: str, flavour: str, redis_url: str, prefix: str) -> None:
    """One process loads, another invalidates, the load ends: its value is never served to a later call."""
    actors.change(redis_url, prefix)
    with start_python(actors.load_slowly, redis_url, prefix, flavour) as loader:
        assert loader.wait_for("loading") == 1
        assert actors.change(redis_url, prefix) == 2
        actors.invalidate(redis_url, prefix, how)
        while_it_loads = actors.call(redis_url, prefix)
        loader.tell("finish")
        loader.result()
    assert while_it_loads == 2
    assert actors.call(redis_url, prefix) == 2


def slow(way: Way, **options: Any) -> tuple[Any, Any, Any, Callable[[], Any]]:
    """A function whose first load waits, and a way to begin it, to let it end and to have its result."""
    began, go, values = threading.Event(), threading.Event(), iter([1, 2, 3, 4])

    if way.is_async:
        loop = way.loop
        assert loop is not None
        released = asyncio.Event()

        @way.cached(**options)
        async def f(x: int) -> int:
            value = next(values)
            if value == 1:
                began.set()
                await released.wait()
            return value

        async def begin() -> Any:
            task = asyncio.ensure_future(f(1))
            await await_until(began.is_set, "the load")
            return task

        task = loop.run_until_complete(begin())

        def finish() -> Any:
            released.set()
            return loop.run_until_complete(task)

        return f, began, go, finish

    @way.cached(**options)
    def g(x: int) -> int:
        value = next(values)
        if value == 1:
            began.set()
            go.wait(30)
        return value

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(g(1)))
    thread.start()
    began.wait(30)

    def finish() -> Any:
        go.set()
        thread.join(30)
        return results[0]

    return g, began, go, finish


def test_a_slow_load_is_overtaken_in_its_own_process(way: Way) -> None:
    """The same with one process's threads or tasks, on every store; and whoever comes later does not join the load."""
    f, _, _, finish = slow(way)
    way.run(f.invalidate_all())
    assert way.run(f(1)) == 2, "a caller joined a load begun before the invalidation"
    assert finish() == 1, "whoever called before may have what was true then"
    assert way.run(f(1)) == 2


@pytest.mark.parametrize("loss", ["DEL", "FLUSHALL"])
def test_losing_the_generation_during_a_load_does_not_help_it(loss: str, start_redis: Any, way_of: Any) -> None:
    """The generation is invalidated and then lost while a load is under way: its value is not served either."""
    server = start_redis()
    way = way_of(server.url)
    f, _, _, finish = slow(way)
    way.run(f.invalidate_all())
    server.run(*((loss, f"{way.prefix}:gen:{f.namespace}") if loss == "DEL" else (loss,)))
    finish()
    assert way.run(f(1)) == 2


def test_the_invalidating_process_may_die_right_after(redis_url: str, prefix: str) -> None:
    """Nothing of an invalidation is left to be done once it has returned."""
    actors.change(redis_url, prefix)
    assert actors.call(redis_url, prefix) == 1
    actors.change(redis_url, prefix)
    die = "import os, signal; from tests.promises import actors; actors.invalidate(*args); os.kill(os.getpid(), signal.SIGKILL)"
    with start_python(die, redis_url, prefix, "namespace") as worker, pytest.raises(Exception, match="died"):
        worker.result()
    assert actors.call(redis_url, prefix) == 2


def test_clocks_do_not_matter(redis_way: Way, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invalidating process's clock is an hour behind, the reader's an hour ahead, and the other way round."""
    import time

    values = iter(range(10))
    real = time.time

    @redis_way.cached(ttl=10_000)
    def f(x: int) -> int:
        return next(values)

    for ahead, behind in ((3600, -3600), (-3600, 3600)):
        monkeypatch.setattr(time, "time", lambda by=ahead: real() + by)
        before = redis_way.run(f(1))
        assert redis_way.run(f(1)) == before
        monkeypatch.setattr(time, "time", lambda by=behind: real() + by)
        redis_way.run(f.invalidate_all())
        monkeypatch.setattr(time, "time", lambda by=ahead: real() + by)
        assert redis_way.run(f(1)) > before
