"""P10: `invalidate_all` is one command on one key at any size; a hit is one round trip. Counted, exactly."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.face.ways import Way
    from tests.servers import RedisServer

SCRIPT = {"EVAL", "EVALSHA"}


@contextmanager
def counted(server: RedisServer) -> Iterator[list[str]]:
    """The commands sent inside, scripts by one name."""
    calls: list[str] = []
    with server.recording() as recording:
        yield calls
    calls += ["script" if name in SCRIPT else name for name in recording]


@pytest.fixture
def f(redis_way: Way) -> Any:
    return redis_way.cached()(lambda x: {"x": x})


def test_a_hit_is_one_mget_and_nothing_else(redis_server: RedisServer, redis_way: Way, f: Any) -> None:
    """A hundred hits are a hundred times MGET of two keys."""
    redis_way.run(f(1))
    with redis_server.recording() as calls:
        for _ in range(100):
            redis_way.run(f(1))
    assert calls == ["MGET"] * 100
    names = {args for _, args, _, _ in calls.commands}
    assert names == {(f"{redis_way.prefix}:gen:{f.namespace}".encode(), f.key(1).encode())}


def test_a_miss_is_three_commands(redis_server: RedisServer, redis_way: Way, f: Any) -> None:
    """Read, lease, store."""
    redis_way.run(f(1))
    with counted(redis_server) as calls:
        redis_way.run(f(2))
    assert calls == ["MGET", "script", "script"]


def test_tasks_that_miss_together_do_not_each_ask_for_the_lease(
    redis_server: RedisServer, redis_url: str, prefix: str
) -> None:
    """Of 100 tasks that find no entry, those that come before the first of them asks for the lease wait for it."""
    loads: list[int] = []

    async def crowd() -> list[str]:
        cache = Cache(redis_url, prefix=prefix)

        @cache.versioned(namespace="crowd")
        async def f(x: int) -> int:
            loads.append(x)
            await asyncio.sleep(0.05)
            return x

        await f(0)
        with counted(redis_server) as calls:
            assert await asyncio.gather(*(f(1) for _ in range(100))) == [1] * 100
        assert f.cache_info().waits == 99
        await cache.aclose()
        return calls

    calls = asyncio.run(crowd())
    assert loads == [0, 1]
    assert calls.count("script") < 100, "as many requests as callers"


@pytest.mark.parametrize("entries", [0, 1, 5000])
def test_invalidate_all_is_one_command_at_any_size(
    entries: int, redis_server: RedisServer, redis_way: Way, f: Any, redis_client: Any
) -> None:
    """One script on one key, however many entries there are, and it touches none of them."""
    redis_way.run(f(0))
    raw = redis_client.get(f.key(0))
    with redis_client.pipeline() as pipeline:
        for n in range(entries):
            pipeline.set(f"{f.key(0)}{n}", raw)
        pipeline.execute()
    with redis_server.recording() as calls:
        redis_way.run(f.invalidate_all())
    assert [name in SCRIPT for name in calls] == [True]
    written = {command.args[0] for command in calls.inner if command.name in ("SET", "DEL", "EXPIRE", "UNLINK")}
    assert written == {f"{redis_way.prefix}:gen:{f.namespace}".encode()}
    assert redis_client.exists(f.key(0))


def test_invalidate_is_one_command(redis_server: RedisServer, redis_way: Way, f: Any) -> None:
    """One call's entry and lease go together."""
    redis_way.run(f(1))
    with counted(redis_server) as calls:
        redis_way.run(f.invalidate(1))
    assert calls == ["script"]


def test_what_the_helpers_cost(redis_server: RedisServer, redis_way: Way, f: Any) -> None:
    """peek one; set and refresh two; key, cache_info and cache_parameters none."""
    redis_way.run(f(1))
    with counted(redis_server) as calls:
        redis_way.run(f.peek(1))
    assert calls == ["MGET"]
    with counted(redis_server) as calls:
        redis_way.run(f.set({"x": 1}, 1))
    assert calls == ["script"] * 2
    with counted(redis_server) as calls:
        redis_way.run(f.refresh(1))
    assert calls == ["script"] * 2
    with counted(redis_server) as calls:
        f.key(1), f.cache_info(), f.cache_parameters(), f.bypass
    assert calls == []


def test_a_process_that_is_idle_sends_nothing(redis_server: RedisServer, redis_way: Way, f: Any) -> None:
    """No pings, no renewals, no refreshes when nobody calls."""
    import time

    redis_way.run(f(1))
    mine = f"{redis_way.prefix}:".encode()
    with redis_server.recording() as calls:
        time.sleep(1.0)
    assert [command for command in calls.commands if any(mine in arg for arg in command.args)] == []


def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(
    redis_way: Way, start_redis: Any, way_of: Any
) -> None:
    """SCRIPT FLUSH costs one more command per script, once, and nothing fails."""
    server = start_redis()
    way = way_of(server.url)
    f = way.cached()(lambda x: x)
    way.run(f(1))
    way.run(f.invalidate_all())
    server.run("SCRIPT", "FLUSH")
    with server.recording() as calls:
        way.run(f.invalidate_all())
    assert calls == ["EVALSHA", "EVAL"]
    with server.recording() as calls:
        way.run(f.invalidate_all())
    assert calls == ["EVALSHA"]
    assert f.cache_info().store_errors == 0
