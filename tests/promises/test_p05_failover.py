"""P5: a generation lost in a failover is put back by the first client that had seen it; `wait_replicas=n` narrows the
window and reports what it got. (Real failovers: tests/faults/test_topologies.py.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers import primary_with_replicas, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way
    from tests.servers import RedisServer


def test_a_witness_puts_the_generation_back(
    start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """The store is back from before an invalidation, old entries and all: nothing old is served to a witness, and its
    first call invalidates for everybody."""
    server = start_redis()
    way = way_of(server.url)
    loads: list[int] = []

    def load(x: int) -> int:
        loads.append(x)
        return len(loads)

    f = way.cached(namespace="healed")(load)
    assert way.run(f(1)) == 1
    server.save()
    lost = way.run(f.invalidate_all())
    server.restart(empty=False)
    assert server.run("EXISTS", f.key(1)), "the old entry was to be back"
    assert way.run(f.peek(1)) is None

    def loaded() -> bool:
        return bool(way.run(f(1)) != 1 and way.run(f.peek(1)))

    wait_until(loaded, "the store to be asked again")
    way.cache = way.new_cache()
    g = way.cached(namespace="healed")(load)
    entry = way.run(g.peek(1))
    assert entry.value == len(loads)
    assert entry.generation.number > lost.number


def test_replicas_are_waited_for_and_counted(way_of: Callable[[str], Way]) -> None:
    """`wait_replicas=1`: the generation says how many replicas had it when `invalidate_all()` returned."""
    with primary_with_replicas(1) as (primary, (replica,)):
        way = way_of(primary.url)
        way.cache = way.new_cache(wait_replicas=1, socket_timeout=0.5)
        f = way.cached(namespace="replicated")(lambda x: x)
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 1, "the replica to be there")
        generation = way.run(f.invalidate_all())
        assert generation.replicas == 1
        assert replica.run("GET", f"{way.prefix}:gen:replicated").decode() == f"{generation.number}-{generation.nonce}"
        replica.freeze()
        assert way.run(f.invalidate_all()).replicas == 0
        replica.thaw()
