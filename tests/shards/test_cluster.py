"""`generation_shards` on a real Cluster: what was invalidated is served by nobody, whatever the settings and faults."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from memover import InvalidationFailed
from memover.keys.shards import GRAINS, registry_key, shard_of, shards
from tests.face.ways import Way
from tests.servers import RedisCluster, RedisServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = range(40)


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest, redis_cluster: RedisCluster, prefix: str) -> Iterator[Way]:
    way = Way(redis_cluster.url, is_async=request.param == "async", prefix=prefix)
    yield way
    way.close()


class Source:
    """A truth that only counts up, and functions of it in processes of different settings."""

    def __init__(self, way: Way, *, namespace: str = "numbers") -> None:
        self.way = way
        self.namespace = namespace
        self.truth = 0
        self.generation = f"{way.prefix}:gen:{namespace}".encode()

    def function(self, count: int, **options: Any) -> Any:
        """The function as a process with so many shards has it."""
        limits = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "breaker_first": 0.05, "breaker_last": 0.2}
        cache = self.way.new_cache(generation_shards=count, **limits)

        @self.way.cached(self.namespace, cache=cache, **options)
        def numbers(x: int) -> list[int]:
            return [x, self.truth]

        return numbers

    def answers(self, function: Any) -> set[int]:
        """The truths that a process answers with."""
        return {self.way.run(function(x))[1] for x in CALLS}

    def change(self) -> int:
        self.truth += 1
        return self.truth


def keys_in(cluster: RedisCluster, pattern: str) -> set[bytes]:
    return {key for node in cluster.primaries() for key in node.run("KEYS", pattern)}


def test_hits_read_the_shards_alone(way: Way, redis_cluster: RedisCluster) -> None:
    """Without the namespace's own key every entry is served: the key is read by nobody, and its node by no more than others."""
    source = Source(way)
    f = source.function(6)
    assert source.answers(f) == {0}
    with redis_cluster.client() as client:
        client.delete(source.generation.decode())
        there = {name: client.get(name) for name in shards(source.generation, 6)}
    assert None not in there.values()
    source.truth = 1  # and nobody is told
    assert source.answers(f) == {0}
    assert f.cache_info().hits == len(CALLS)
    owners = Counter(redis_cluster.owner_of(name).port for name in there)
    assert sorted(owners.values()) == [2, 2, 2]


@pytest.mark.parametrize(("reads", "invalidates"), [(6, 6), (1, 6), (6, 1), (6, 2), (2, 6), (3, 5)])
def test_an_invalidation_reaches_readers_of_every_setting(way: Way, reads: int, invalidates: int) -> None:
    """P1: when it has returned, nobody is answered with what was loaded before, whoever has how many shards."""
    source = Source(way)
    f, g = source.function(reads), source.function(invalidates)
    for _ in range(3):
        source.answers(f)
        truth = source.change()
        way.run(g.invalidate_all())
        assert source.answers(f) == {truth}
        assert source.answers(f) == {truth}
        assert source.answers(g) == {truth}


def test_the_namespace_is_invalidated_by_name(way: Way) -> None:
    """A service that does not have the function, and knows nothing of shards, invalidates it all the same."""
    source = Source(way)
    f = source.function(6)
    source.answers(f)
    truth = source.change()
    other = way.new_cache()
    way.run(other.ainvalidate_namespace("numbers") if way.is_async else other.invalidate_namespace("numbers"))
    assert source.answers(f) == {truth}


@pytest.mark.parametrize("invalidates", [2, 6])
def test_a_lost_registry_hides_no_shard(way: Way, redis_cluster: RedisCluster, invalidates: int) -> None:
    """Without the list of settings every key that may be a shard is looked at; the list comes back with the next load."""
    source = Source(way)
    f, g = source.function(5), source.function(invalidates)
    source.answers(f)
    way.run(g.invalidate_all())  # the list is settled
    source.answers(f)
    with redis_cluster.client() as client:
        registry = registry_key(source.generation)
        assert client.get(registry) == b"5"
        client.delete(registry)
        truth = source.change()
        way.run(g.invalidate_all())
        assert source.answers(f) == {truth}
        assert client.get(registry).startswith(b"5,?")
        # A new list made by one setting does not hide those of another.
        client.delete(registry)
        way.run(g(1000))
        assert client.get(registry).startswith(b"%d,?" % invalidates)
        truth = source.change()
        way.run(g.invalidate_all())
        assert source.answers(f) == {truth}


def test_a_process_without_shards_remembers_those_it_has_seen(way: Way, redis_cluster: RedisCluster) -> None:
    """The list is lost, and a process whose own setting is 1 invalidates what it knows of."""
    source = Source(way)
    f, g = source.function(5), source.function(1)
    source.answers(f)
    way.run(g.invalidate_all())
    source.answers(f)
    with redis_cluster.client() as client:
        client.delete(registry_key(source.generation))
    truth = source.change()
    way.run(g.invalidate_all())
    assert source.answers(f) == {truth}


def test_lost_shards_are_misses(way: Way, redis_cluster: RedisCluster) -> None:
    """P4: a shard that is evicted brings nothing back and costs its own calls one load."""
    source = Source(way)
    f = source.function(4)
    source.answers(f)
    lost = shards(source.generation, 4)[1]
    with redis_cluster.client() as client:
        client.delete(lost)
    truth = source.change()
    answers = {x: way.run(f(x))[1] for x in CALLS}
    for x, answer in answers.items():
        text = f.key(x).split(":", 3)[3]
        assert answer == (truth if shard_of(source.generation, 4, text) == lost else 0)
    assert set(answers.values()) == {0, truth}


def test_a_soft_invalidation_reaches_every_shard(way: Way) -> None:
    """Everything is stale at once, and served while it is refreshed."""
    source = Source(way)
    f, g = source.function(6, stale_if_error=60), source.function(2, stale_if_error=60)
    source.answers(f)
    for invalidates in (f, g):
        truth = source.change()
        way.run(invalidates.invalidate_all(soft=True))
        assert source.answers(f) == {truth}
    entry = way.run(f.peek(1))
    assert entry.dependencies == ()
    assert entry.fresh_until < entry.usable_until


def test_single_calls_tags_and_batches(way: Way, redis_cluster: RedisCluster) -> None:
    """What does not concern the whole namespace is as it is without shards; a batch is answered in order."""
    source = Source(way)
    f = source.function(6, tags=("x:{x}",))
    assert way.run(f.map(CALLS)) == [[x, 0] for x in CALLS]
    source.change()
    assert way.run(f.map(CALLS)) == [[x, 0] for x in CALLS]
    way.run(f.invalidate(3))
    cache = f.cache
    way.run(cache.ainvalidate_tags("x:5") if way.is_async else cache.invalidate_tags("x:5"))
    assert way.run(f.map(CALLS)) == [[x, 1 if x in (3, 5) else 0] for x in CALLS]
    truth = source.change()
    way.run(f.invalidate_all())
    assert way.run(f.map(CALLS)) == [[x, truth] for x in CALLS]


def test_what_used_a_shard_goes_with_it(way: Way) -> None:
    """P11: a result made of others is invalidated with their namespace."""
    inner = Source(way, namespace="inner")
    f = inner.function(6)
    if way.is_async:

        async def together(x: int) -> list[int]:
            return list((await asyncio.gather(f(x), f(x + 1)))[1])

    else:

        def together(x: int) -> list[int]:  # type: ignore[misc]
            return [f(x), f(x + 1)][1]  # type: ignore[no-any-return]

    outer = way.new_cache(generation_shards=6).versioned(namespace="outer")(together)
    assert {way.run(outer(x))[1] for x in CALLS} == {0}
    truth = inner.change()
    assert {way.run(outer(x))[1] for x in CALLS} == {0}
    way.run(inner.function(1).invalidate_all())
    assert {way.run(outer(x))[1] for x in CALLS} == {truth}


def test_an_older_version_is_upgraded(way: Way) -> None:
    """A call has the same shard in every version, so an older entry can be taken over; not when it was invalidated."""
    source = Source(way)
    old = source.function(6)
    source.answers(old)
    new = source.function(6, version=2)
    upgraded: list[Any] = []

    @new.upgrade(from_version=1)
    def _(value: Any) -> Any:
        upgraded.append(value)
        return value

    source.change()
    assert source.answers(new) == {0}
    assert len(upgraded) == len(CALLS)
    way.run(new.invalidate_all())
    assert source.answers(new) == {1}
    assert source.answers(old) == {1}


def test_the_near_tier_knows_the_shards(way: Way) -> None:
    """P3: at once in the invalidating process, within the bound in another; hits that cost no round trip."""
    source = Source(way)
    f, g = source.function(6, near=0.2), source.function(6, near=0.2)

    def near_hits(function: Any) -> bool:
        before = function.cache_info().near_hits
        source.answers(function)
        return bool(function.cache_info().near_hits - before == len(CALLS))

    for function in (f, g):
        wait_until(lambda function=function: near_hits(function), "every call to be a near hit")  # type: ignore[misc]
    truth = source.change()
    way.run(g.invalidate_all())
    assert source.answers(g) == {truth}
    wait_until(lambda: source.answers(f) == {truth}, "the other process to hear of it")
    assert source.answers(f) == {truth}


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_node_dies_in_the_middle_of_an_invalidation(flavour: str, prefix: str) -> None:
    """P8: it is not acknowledged before all shards have moved; meanwhile its process serves nothing, and it is repeated
    until the replica in the node's place has taken it. Then nobody is answered with what was loaded before."""
    with RedisCluster(3, 1) as cluster:
        way = Way(cluster.url, is_async=flavour == "async", prefix=prefix)
        source = Source(way)
        f, other = source.function(6), source.function(6)
        source.answers(f)
        base = cluster.owner_of(source.generation)
        victim = next(node for node in cluster.primaries() if node is not base)
        there = {name: _token(cluster, name) for name in shards(source.generation, 6)}
        owners = {name: cluster.owner_of(name) for name in there}
        store: Any = f.cache._state.store
        for way_out in ("exchange", "aexchange"):
            setattr(store.link, way_out, _dying(getattr(store.link, way_out), victim, set(there)))
        truth = source.change()
        with pytest.raises(InvalidationFailed) as failure:
            way.run(f.invalidate_all())
        assert not victim.alive
        assert failure.value.what == (source.generation.decode(),)
        elsewhere = {name: node for name, node in owners.items() if node is not victim}
        moved = [name for name, node in elsewhere.items() if node.run("GET", name.decode()) != there[name]]
        assert moved == list(elsewhere), "the other nodes had their part of it"
        assert source.answers(f) == {truth}, "served under an invalidation that is pending"
        cluster.wait_ok()
        wait_until(lambda: not f.cache._state.witness.owed, "the invalidation to be acknowledged")
        assert source.answers(other) == {truth}
        assert source.answers(f) == {truth}
        assert all(_token(cluster, name) != token for name, token in there.items())
        way.close()


def _dying(exchange: Any, victim: RedisServer, shards_of_it: set[bytes]) -> Any:
    """An exchange, before which a node dies that is to take part in moving shards."""

    def instead(step: Any) -> Any:
        if victim.alive and len(shards_of_it.intersection(command.route for command in step.commands)) > 1:
            victim.kill()
        return exchange(step)

    return instead


def _token(cluster: RedisCluster, name: bytes) -> Any:
    return cluster.owner_of(name).run("GET", name.decode())


def test_the_command_line_reaches_shards_it_was_not_told_of(
    redis_cluster: RedisCluster, prefix: str, tmp_path: Any
) -> None:
    """`memover invalidate`, which knows no setting, moves every shard, registered or not; `inspect` finds the entry's own."""
    way = Way(redis_cluster.url, is_async=False, prefix=prefix)
    source = Source(way)
    f = source.function(6)
    source.answers(f)

    def memover(*args: str) -> Any:
        command = [sys.executable, "-m", "memover", *args, "--url", redis_cluster.url, "--prefix", prefix]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    assert memover("inspect", f.key(1), "--format", "json")["verdict"] == "fresh"
    (row,) = memover("ls", "--format", "json")["rows"]
    assert (row["namespace"], row["entries"]) == ("numbers", len(CALLS))
    with redis_cluster.client() as client:
        client.delete(registry_key(source.generation))
    truth = source.change()
    said = memover("invalidate", "numbers", "--yes", "--format", "json")
    assert said["entries"] == len(CALLS)
    assert source.answers(f) == {truth}
    way.run(f.invalidate_all())
    assert memover("inspect", f.key(1), "--format", "json")["verdict"] == "invalidated"
    way.close()


def test_nothing_is_left_of_settings_that_nobody_has(way: Way, redis_cluster: RedisCluster) -> None:
    """P15: a namespace has its own key, its shards, and one list, however often it is invalidated."""
    source = Source(way)
    f = source.function(3)
    for _ in range(5):
        source.answers(f)
        way.run(f.invalidate_all())
    found = keys_in(redis_cluster, f"*{way.prefix}*gen*")
    expected = {source.generation, *shards(source.generation, 3), registry_key(source.generation)}
    assert {key for key in found if b"@all" not in key} == expected


def test_without_shards_an_invalidation_costs_no_more_round_trips(prefix: str, redis_cluster: RedisCluster) -> None:
    """P10: with the default setting one token moves, and the list of settings is read from the same node beside it."""
    way = Way(redis_cluster.url, is_async=False, prefix=prefix)
    source = Source(way)
    f = source.function(1)
    source.answers(f)
    sent: list[list[bytes]] = []
    link: Any = f.cache._state.store.link
    exchange = link.exchange

    def noted(step: Any) -> Any:
        sent.append([command.route for command in step.commands])
        return exchange(step)

    link.exchange = noted
    f.invalidate_all()
    assert sent == [
        [source.generation, registry_key(source.generation)],
        [f"{prefix}:gen:@all".encode()],
    ]
    way.close()


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
def test_other_stores_have_one_place(store: str, request: pytest.FixtureRequest, prefix: str, tmp_path: Any) -> None:
    """Where there is one server the setting changes nothing: the keys are the same as without it."""
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/store.db"}.get(store)
    way = Way(url or request.getfixturevalue("redis_url"), is_async=False, prefix=prefix)
    source = Source(way)
    f = source.function(GRAINS)
    assert source.answers(f) == {0}
    truth = source.change()
    assert source.answers(f) == {0}
    f.invalidate_all()
    assert source.answers(f) == {truth}
    if store == "redis":
        with request.getfixturevalue("redis_server").client() as client:
            assert {key for key in client.keys(f"*{prefix}*gen*") if b"@all" not in key} == {source.generation}
    way.close()
