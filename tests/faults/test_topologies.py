"""Several servers: a primary that changes (Sentinel, REPLICAOF), replicas that are waited for, slots that move (Cluster)."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from redis.exceptions import MovedError

from memover import Cache, InvalidationFailed, StoreError
from memover.errors import ConfigurationError
from memover.stores.redis.cluster import Topology
from memover.stores.redis.opening import Opener
from tests.face.ways import Way, counted
from tests.servers import FaultyProxy, RedisCluster, RedisServer, SentinelGroup, primary_with_replicas, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLAVOURS = pytest.mark.parametrize("flavour", ["sync", "async"])


@contextmanager
def way_to(url: str, flavour: str, prefix: str, **options: Any) -> Iterator[Way]:
    way = Way(url, is_async=flavour == "async", prefix=prefix)
    way.cache = way.new_cache(**{"socket_timeout": 1.0, "socket_connect_timeout": 1.0, **options})
    try:
        yield way
    finally:
        way.close()


def acknowledged(way: Way, helper: Callable[[], Any]) -> Any:
    """What the helper gives once the store takes it."""
    return wait_until(lambda: (way.run(helper()), True), "the store to acknowledge", passing=(InvalidationFailed,))[0]


def hit_again(way: Way, f: Any, *args: Any) -> None:
    def hit() -> bool:
        before = f.cache_info().hits
        way.run(f(*args))
        return bool(f.cache_info().hits == before + 1)

    wait_until(hit, "a hit")


# -- replicas -------------------------------------------------------------------------------------------------------------


@FLAVOURS
def test_wait_replicas_reports_how_many_had_it(flavour: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """P5: an invalidation waits for n replicas within its budget and says how many it got; too few is logged once."""
    caplog.set_level(logging.WARNING, "memover")
    with (
        primary_with_replicas(2) as (primary, replicas),
        way_to(primary.url, flavour, prefix, wait_replicas=2, socket_timeout=0.5) as way,
    ):
        f, loads = counted(way)
        way.run(f(1))
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 2, "both replicas to be there")
        caplog.clear()
        generation = way.run(f.invalidate_all())
        assert generation.replicas == 2
        name = f"{prefix}:gen:{f.namespace}"
        assert [one.run("GET", name).decode() for one in replicas] == [str(generation)] * 2
        replicas[1].freeze()
        assert way.run(f.invalidate_all()).replicas == 1
        by_name = way.cache.ainvalidate_namespace if way.is_async else way.cache.invalidate_namespace
        assert way.run(by_name(f.namespace)).replicas == 1
        way.run(f(1))
        way.run(f.invalidate(1))
        assert way.run(f.peek(1)) is None
        assert [record.getMessage().count("not the 2 asked for") for record in caplog.records] == [1]
        replicas[1].thaw()
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 2, "the replica to catch up")
        assert way.run(f(1)) == [1, len(loads)]


def test_without_wait_replicas_nothing_is_waited_for(way: Way) -> None:
    """The generation says None, on every store, and no WAIT is sent."""
    f, _ = counted(way)
    assert way.run(f.invalidate_all()).replicas is None


def test_wait_replicas_is_refused_where_there_are_none() -> None:
    """It is never silently ignored: a memory store has no replicas."""
    with pytest.raises(ConfigurationError, match="wait_replicas"):
        Cache(wait_replicas=1)
    for wrong in (-1, True, 1.5):
        with pytest.raises(ConfigurationError, match="wait_replicas"):
            Cache("redis://localhost", wait_replicas=wrong)  # type: ignore[arg-type]


@FLAVOURS
def test_wait_replicas_is_right_when_the_answer_was_lost(flavour: str, prefix: str) -> None:
    """A bump repeated on another connection waits for the replicas again, and not for nothing."""
    with (
        primary_with_replicas(1) as (primary, (replica,)),
        FaultyProxy(primary) as proxy,
        way_to(proxy.url, flavour, prefix, wait_replicas=1) as way,
    ):
        f, _ = counted(way)
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 1, "the replica to be there")
        replica.freeze()
        proxy.cut_mid_reply(0)
        assert way.run(f.invalidate_all()).replicas == 0
        replica.thaw()


@FLAVOURS
def test_a_generation_lost_in_a_failover_is_put_back_by_who_had_seen_it(flavour: str, prefix: str) -> None:
    """P5: asynchronous replication lost the bump; the first reader that knew of it heals it before it trusts anything."""
    with (
        primary_with_replicas(1) as (primary, (replica,)),
        FaultyProxy(primary) as proxy,
        way_to(proxy.url, flavour, prefix, breaker_first=0.05, breaker_last=0.05) as way,
    ):
        f, loads = counted(way, namespace="lost")
        assert way.run(f(1)) == [1, 1]
        primary.run("WAIT", 1, 5000)
        wait_until(lambda: replica.run("EXISTS", f.key(1)), "the entry to reach the replica")
        replica.replicate(None)
        bumped = way.run(f.invalidate_all())
        primary.kill()
        old = replica.run("GET", f"{prefix}:gen:lost")
        assert old != str(bumped).encode(), "the bump was to be lost"
        assert replica.run("EXISTS", f.key(1)), "the old entry was to be there"
        proxy._server = replica
        proxy.cut()
        hit_again(way, f, 1)
        assert len(loads) >= 2, "the entry of the lost generation was served"
        assert way.run(f(1)) == [1, len(loads)]
        number = int(replica.run("GET", f"{prefix}:gen:lost").partition(b"-")[0])
        assert number > bumped.number


@FLAVOURS
def test_a_primary_turned_replica_refuses_invalidations_loudly(
    flavour: str, prefix: str, start_redis: Callable[..., RedisServer]
) -> None:
    """After a REPLICAOF switch: functions go on, an invalidation raises, and is taken when it is a primary again."""
    server, other = start_redis(), start_redis()
    with way_to(server.url, flavour, prefix, breaker_first=0.05, breaker_last=0.05) as way:
        f, loads = counted(way)
        way.run(f(1))
        server.replicate(other)
        assert way.run(f(2)) == [2, len(loads)]
        with pytest.raises(InvalidationFailed) as caught:
            way.run(f.invalidate_all())
        assert "read-only replica" in str(caught.value.__cause__)
        at = len(loads)
        assert way.run(f(1)) == [1, at + 1], "a hit under an invalidation that is owed"
        server.replicate(None)
        wait_until(lambda: not way.cache._state.witness.owed, "the invalidation to be acknowledged")
        hit_again(way, f, 1)


# -- Sentinel -------------------------------------------------------------------------------------------------------------


@FLAVOURS
def test_sentinels_that_do_not_answer_use_up_no_connections(flavour: str, prefix: str) -> None:
    """Failing to find the primary, however often, leaves the pool as it was."""
    with SentinelGroup(replicas=1, sentinels=1) as group:
        limits = {"max_connections": 2, "breaker_first": 0.001, "breaker_last": 0.001, "socket_timeout": 0.3}
        with way_to(group.url, flavour, prefix, **limits) as way:
            f, loads = counted(way, namespace=f"sentinel-{flavour}")
            for sentinel in group.sentinels:
                sentinel.freeze()
            for n in range(6):
                way.run(f(n))
            for sentinel in group.sentinels:
                sentinel.thaw()
            assert f.cache_info().store_errors >= 6
            hit_again(way, f, 1)
            assert len(loads) >= 6


@pytest.mark.slow
@FLAVOURS
def test_a_sentinel_failover_costs_misses_and_no_more(flavour: str, prefix: str) -> None:
    """The primary dies: calls go on, unacknowledged invalidations raise, and the new primary is found by itself."""
    with (
        SentinelGroup() as group,
        way_to(group.url, flavour, prefix, wait_replicas=1, breaker_first=0.05, breaker_last=0.2) as way,
    ):
        f, loads = counted(way)
        way.run(f(1))
        bumped = way.run(f.invalidate_all())
        assert bumped.replicas is not None
        assert bumped.replicas >= 1
        way.run(f(1))
        dead = group.kill_primary()
        at = len(loads)
        assert way.run(f(1)) == [1, at + 1]
        with pytest.raises(InvalidationFailed):
            way.run(f.invalidate_all())
        group.wait_primary(other_than=dead)
        wait_until(lambda: not way.cache._state.witness.owed, "the invalidation to be acknowledged")
        hit_again(way, f, 1)
        name = f"{prefix}:gen:{f.namespace}"
        assert int(group.primary.run("GET", name).partition(b"-")[0]) > bumped.number


def test_a_replica_that_sentinels_still_name_is_not_asked(
    sentinel_group: SentinelGroup, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is asked for its role before it is believed to be the primary: a replica would answer reads."""
    replica = sentinel_group.replicas[0]
    with way_to(sentinel_group.url, "sync", prefix, breaker_first=0.01, breaker_last=0.01) as way:
        f, loads = counted(way)
        way.run(f(1))
        store: Any = way.cache._state.store
        store.close()
        real = Opener.discover
        monkeypatch.setattr(Opener, "discover", lambda self, seconds: ("127.0.0.1", replica.port))
        with replica.recording() as calls:
            way.run(f(1))
        assert "MGET" not in calls
        assert len(loads) == 2
        monkeypatch.setattr(Opener, "discover", real)
        hit_again(way, f, 1)


# -- Cluster --------------------------------------------------------------------------------------------------------------


@FLAVOURS
def test_a_slot_on_its_way_keeps_every_promise(flavour: str, prefix: str, redis_cluster: RedisCluster) -> None:
    """While a slot moves: calls are answered, its invalidations are acknowledged, and afterwards there are hits."""
    with way_to(redis_cluster.url, flavour, prefix) as way:
        f, loads = counted(way)
        way.run(f(1))
        for name in (f.key(1), f"{prefix}:gen:{f.namespace}"):
            slot = key_slot(name.encode())
            source = redis_cluster.owner(slot)
            target = next(node for node in redis_cluster.primaries() if node is not source)
            way.run(f(1))
            with redis_cluster.migrating(slot, target):
                assert way.run(f(1)) == [1, len(loads)]
                at = len(loads)
                way.run(f.invalidate(1))
                assert way.run(f(1)) == [1, at + 1], "the entry that was invalidated"
                at = len(loads)
                way.run(f.invalidate_all())
                assert way.run(f(1)) == [1, at + 1], "an entry of the former generation"
            hit_again(way, f, 1)
            at = len(loads)
            way.run(f.invalidate(1))
            assert way.run(f(1)) == [1, at + 1]
            redis_cluster.migrate_slot(slot, source)
            hit_again(way, f, 1)


@FLAVOURS
def test_wait_replicas_follows_a_moved_slot(flavour: str, prefix: str) -> None:
    """In Cluster the WAIT goes to the node that took the bump, wherever that turned out to be."""
    with RedisCluster(3, 1) as cluster, way_to(cluster.url, flavour, prefix, wait_replicas=1) as way:
        f, _ = counted(way)
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 1, "the replica to be there")
        slot = key_slot(f"{prefix}:gen:{f.namespace}".encode())
        source = cluster.owner(slot)
        target = next(node for node in cluster.primaries() if node is not source)
        follower = next(
            node
            for node in cluster.nodes
            if node.info("replication").get("master_port") == target.port and node is not target
        )
        cluster.migrate_slot(slot, target)
        follower.freeze()
        assert way.run(f.invalidate_all()).replicas == 0, "another node's replica was counted"
        follower.thaw()
        wait_until(lambda: way.run(f.invalidate_all()).replicas == 1, "the replica to catch up")


@pytest.mark.slow
@FLAVOURS
def test_a_cluster_node_dies_and_its_replica_takes_over(flavour: str, prefix: str) -> None:
    """Calls go on uncached for its slots, invalidations there raise until the replica serves them."""
    with (
        RedisCluster(3, 1) as cluster,
        way_to(cluster.url, flavour, prefix, breaker_first=0.05, breaker_last=0.2) as way,
    ):
        f, loads = counted(way)
        way.run(f(1))
        cluster.kill_node(cluster.owner_of(f"{prefix}:gen:{f.namespace}"))
        at = len(loads)
        assert way.run(f(1)) == [1, at + 1]
        with pytest.raises(InvalidationFailed):
            way.run(f.invalidate_all())
        cluster.wait_ok()
        wait_until(lambda: not way.cache._state.witness.owed, "the invalidation to be acknowledged")
        hit_again(way, f, 1)
        assert way.run(f(1)) == [1, len(loads)]


@FLAVOURS
def test_a_silent_cluster_costs_a_call_one_budget_and_not_one_per_node(
    flavour: str, prefix: str, redis_cluster: RedisCluster
) -> None:
    """When no node answers, a call asks one of them and gives up; the next call asks another."""
    with way_to(redis_cluster.url, flavour, prefix, socket_timeout=0.2, breaker_first=60, breaker_last=60) as way:
        f, loads = counted(way)
        stalled: list[StoreError] = []
        way.cache._state.observers._observers = (lambda event: stalled.append(event.error) if event.error else None,)
        way.cache._state.observers.busy = True
        for node in redis_cluster.nodes:
            node.freeze()
        try:
            assert way.run(f(1)) == [1, 1]
            assert len(stalled) == 1
            assert sum(breaker.tripped for breaker in _breakers(way)) == 1
            assert way.run(f(1)) == [1, 2]
            assert sum(breaker.tripped for breaker in _breakers(way)) == 2
        finally:
            for node in redis_cluster.nodes:
                node.thaw()
        redis_cluster.wait_ok()
        assert len(loads) == 2


def _breakers(way: Way) -> list[Any]:
    store: Any = way.cache._state.store
    return list(store.link.servers.breakers.values())


def test_a_map_forgotten_on_the_way_harms_nobody() -> None:
    """A node that fails makes the map stale for the next call; the call under way goes on with the one it has."""
    topology = Topology((("here", 1),), "here")
    hops = topology.routed([(b"k", (b"GET", b"k"))])
    ((node, _),) = next(hops)
    assert node == ("here", 1)
    slots = [[0, 16383, [b"here", 1, b""]]]
    ((node, _),) = hops.send([[slots]])
    topology.forget()
    ((node, _),) = hops.send([[MovedError("7629 there:2")]])
    assert node == ("there", 2)
    topology.forget()
    with pytest.raises(StopIteration) as stop:
        hops.send([[b"v"]])
    assert stop.value.value == [b"v"]


def test_threads_in_a_cluster_survive_a_node_that_comes_and_goes(prefix: str, redis_cluster: RedisCluster) -> None:
    """Many threads while a node freezes and thaws: every call returns what its function returns."""
    with way_to(redis_cluster.url, "sync", prefix, socket_timeout=0.05, breaker_first=0.02, breaker_last=0.05) as way:
        f, _ = counted(way)
        wrong: list[Any] = []
        stop = threading.Event()

        def call(n: int) -> None:
            at = n
            while not stop.is_set():
                at += 1
                try:
                    value = f(at % 50)
                except BaseException as error:
                    wrong.append(error)
                else:
                    if value[0] != at % 50:
                        wrong.append(value)

        threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                node = redis_cluster.nodes[1]
                hits = f.cache_info().hits
                wait_until(lambda hits=hits: f.cache_info().hits > hits + 50, "hits")
                errors = f.cache_info().store_errors
                node.freeze()
                try:
                    wait_until(lambda errors=errors: f.cache_info().store_errors > errors + 20, "failures")
                finally:
                    node.thaw()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        redis_cluster.wait_ok()
        assert wrong == []
