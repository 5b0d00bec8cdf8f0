"""P10: the first hit of a call that this process has itself loaded is one read, dependencies or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.servers.processes import as_another_process

if TYPE_CHECKING:
    from tests.face.ways import Way
    from tests.servers import RedisServer


def _parent(way: Way) -> Any:
    child = way.cached("child", tags=("c:{x}",))(lambda x: x)
    if not way.is_async:
        return way.cached("parent")(lambda x: child(x))  # noqa: PLW0108 - a cached function is decorated once

    async def load(x: int) -> int:
        return int(await child(x))

    return way.cache.versioned(namespace="parent")(load)


def test_the_first_hit_of_what_this_process_has_loaded_is_one_read(redis_server: RedisServer, redis_way: Way) -> None:
    """What each call's load depended on is remembered with that call, and not only of the call last made."""
    parent = _parent(redis_way)
    for x in range(10):
        redis_way.run(parent(x))
    with redis_server.recording() as calls:
        for x in range(10):
            assert redis_way.run(parent(x)) == x
    assert calls == ["MGET"] * 10


def test_the_first_hit_in_another_process_is_two_reads_at_most(redis_server: RedisServer, redis_way: Way) -> None:
    """The entry names what it depends on; from then on one."""
    redis_way.run(_parent(redis_way)(1))
    as_another_process()
    other = type(redis_way)(redis_way.url, is_async=redis_way.is_async, prefix=redis_way.prefix)
    try:
        parent = _parent(other)
        other.run(parent(2))
        with redis_server.recording() as calls:
            other.run(parent(1))
        assert set(calls) == {"MGET"}
        assert len(calls) <= 2
        with redis_server.recording() as calls:
            for _ in range(5):
                other.run(parent(1))
        assert calls == ["MGET"] * 5
    finally:
        other.close()
