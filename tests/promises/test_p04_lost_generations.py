"""P4: losing a generation or tag key can only cause misses, never bring old entries back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer


@pytest.mark.parametrize("witness", ["the process that invalidated", "a new process"])
@pytest.mark.parametrize("loss", ["DEL", "FLUSHALL", "restart", "another type"])
@pytest.mark.parametrize("what", ["generation", "tag"])
def test_an_old_entry_stays_dead(
    what: str, loss: str, witness: str, start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """An entry of a former generation, still there after the generation is lost, is not served."""
    server = start_redis()
    way = way_of(server.url)
    loads: list[int] = []

    def load(x: int) -> int:
        loads.append(x)
        return len(loads)

    f = way.cached(namespace="lost", tags=("t",))(load)
    assert way.run(f(1)) == 1
    old = server.run("GET", f.key(1))
    if what == "generation":
        way.run(f.invalidate_all())
    else:
        way.run(way.cache.ainvalidate_tags("t")) if way.is_async else way.cache.invalidate_tags("t")
    name = f"{way.prefix}:gen:lost" if what == "generation" else f"{way.prefix}:tag:t"
    assert server.run("EXISTS", name)
    if loss == "restart":
        server.restart(empty=True)
    elif loss == "FLUSHALL":
        server.run("FLUSHALL")
    else:
        server.run("DEL", name)
    if loss == "another type":
        server.run("RPUSH", name, "x")
    server.run("SET", f.key(1), old)
    if witness == "a new process":
        way.cache = way.new_cache()
        f = way.cached(namespace="lost", tags=("t",))(load)
    assert way.run(f.peek(1)) is None
    assert way.run(f(1)) == 2
    server.run("SET", f.key(1), old)
    assert way.run(f(1)) == 3
    assert way.run(f(1)) == 3


def test_a_lost_generation_costs_one_load_per_call(redis_way: Way, redis_client: Any) -> None:
    """Two processes agree on the new generation at once: the first reader creates it, the others find it."""
    loads: list[int] = []

    def load(x: int) -> int:
        loads.append(x)
        return x

    f = redis_way.cached(namespace="agreed")(load)
    redis_way.run(f(1))
    redis_client.delete(f"{redis_way.prefix}:gen:agreed")
    redis_way.run(f(1))
    redis_way.cache = redis_way.new_cache()
    g = redis_way.cached(namespace="agreed")(load)
    redis_way.run(g(1))
    redis_way.run(f(1))
    assert loads == [1, 1]
