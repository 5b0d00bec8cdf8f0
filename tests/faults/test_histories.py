"""Histories under faults: while processes read and invalidate, everything that can happen to a Redis happens to it.

Whatever it is, no call that began after an invalidation was acknowledged is answered with something older, no process
serves what it was told it failed to invalidate, and no read raises.
"""

from __future__ import annotations

import itertools
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis

from memover.testing import HistoryRun, Report, start_history
from tests.servers import FaultyProxy, RedisCluster, RedisServer, SentinelGroup, primary_with_replicas, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RULES = ("fresh", "closed", "no-future", "error")
QUICK: dict[str, Any] = {
    # Budgets and leases short enough for a fault and its end to fit into a second.
    "socket_timeout": 0.1,
    "breaker_first": 0.02,
    "breaker_last": 0.1,
    "lease_ttl": 1.0,
    "wait_timeout": 2.0,
}


@contextmanager
def history(url: Any, **options: Any) -> Iterator[HistoryRun]:
    own = {**QUICK, **options.pop("options", {})}
    with start_history(url, options=own, keys=4, changes=0.15, **options) as run:
        yield run


def concluded(run: HistoryRun, rules: tuple[str, ...] = RULES) -> Report:
    report = run.stop(rules=rules)
    assert report.ok, str(report)
    return report


def served(server: RedisServer, more: int = 150) -> None:
    """Return when callers have been answered some more."""
    stores = _count(server)
    wait_until(lambda: _count(server) > stores + more, "callers to be served", passing=(redis.RedisError, OSError))


def _count(server: RedisServer) -> int:
    count: int = server.info("stats")["keyspace_hits"]
    return count


def generations(server: RedisServer, run: HistoryRun) -> dict[bytes, bytes]:
    names = [f"{run.prefix}:gen:{name}".encode() for name in ("threads", "tasks")]
    return dict(zip(names, server.run("MGET", *names)))


# -- what is lost ---------------------------------------------------------------------------------------------------------


def test_redis_is_killed_and_comes_back_empty(start_redis: Callable[..., RedisServer]) -> None:
    """SIGKILL and restart without data: misses, invalidations that raise, and nothing old afterwards."""
    server = start_redis()
    with history(server.url) as run:
        for _ in range(12):  # so many that some invalidation meets an outage
            served(server)
            server.restart(empty=True)
        served(server)
        report = concluded(run)
    assert report.unacknowledged > 0


def test_redis_comes_back_from_an_older_snapshot(start_redis: Callable[..., RedisServer]) -> None:
    """P5: the first process that has seen a newer generation puts it back before anything is trusted.

    Invalidations of single calls leave no trace that a snapshot could be compared with, so there are none in this run."""
    server = start_redis()
    with history(server.url, kinds=(20, 0, 40, 20, 20), through=0.0) as run:
        for _ in range(2):
            served(server)
            server.save()
            saved = generations(server, run)
            # Every process is to have seen a newer one.
            wait_until(lambda saved=saved: not set(generations(server, run).values()) & set(saved.values()), "bumps")
            served(server, 300)
            for index in range(2):
                run.freeze(index)
            newest = generations(server, run)
            server.restart(empty=False)
            older = generations(server, run)
            assert not set(older.values()) & set(newest.values()), "the older generations were to be back"
            run.thaw(0)
            wait_until(
                lambda older=older: not set(generations(server, run).values()) & set(older.values()),
                "the witness to put the generations back",
            )
            run.thaw(1)
        served(server)
        concluded(run)


def test_keys_scripts_and_connections_are_lost(start_redis: Callable[..., RedisServer]) -> None:
    """FLUSHALL, DEL of the generations, SCRIPT FLUSH, CLIENT KILL, CLIENT PAUSE: over and over, in any order."""
    server = start_redis()
    rng = random.Random(5)
    with history(server.url) as run:
        served(server)
        deeds: list[tuple[Any, ...]] = [
            ("FLUSHALL",),
            ("SCRIPT", "FLUSH"),
            ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
            ("CLIENT", "PAUSE", "150", "ALL"),
            ("DEL", f"{run.prefix}:gen:threads"),
            ("DEL", f"{run.prefix}:gen:tasks"),
        ]
        for _ in range(2):
            for deed in rng.sample(deeds, len(deeds)):
                server.run(*deed)
                served(server, 40)
        concluded(run)


def test_redis_evicts_whatever_it_likes(start_redis: Callable[..., RedisServer]) -> None:
    """P4: under allkeys-random and a memory that others fill, generations, leases and entries go at any moment."""
    server = start_redis(config={"maxmemory": "3mb", "maxmemory_policy": "allkeys-random"})
    with history(server.url) as run, server.client() as filler:
        evicted = server.info("stats")["evicted_keys"]
        for n in itertools.count():
            filler.set(f"filler:{n}", b"x" * 2000)
            if n % 500 == 0 and server.info("stats")["evicted_keys"] > evicted + 5_000:
                break
        concluded(run)


def test_redis_runs_out_of_memory(start_redis: Callable[..., RedisServer]) -> None:
    """noeviction: nothing can be stored, functions run, and invalidations work all the same, by removing."""
    server = start_redis(config={"maxmemory_policy": "noeviction"})
    with history(server.url) as run:
        for _ in range(3):
            served(server)
            server.run("CONFIG", "SET", "maxmemory", "1mb")
            refused = _errors(server)
            wait_until(lambda refused=refused: _errors(server) > refused + 30, "stores to be refused")
            server.run("CONFIG", "SET", "maxmemory", "0")
        served(server)
        report = concluded(run)
    assert report.unacknowledged == 0, str(report)


def _errors(server: RedisServer) -> int:
    count: int = server.info("errorstats").get("errorstat_OOM", {}).get("count", 0)
    return count


# -- what is silent -------------------------------------------------------------------------------------------------------


def test_redis_freezes_and_thaws(start_redis: Callable[..., RedisServer]) -> None:
    """SIGSTOP and SIGCONT: what was sent meanwhile is carried out late, invalidations included."""
    server = start_redis()
    with history(server.url) as run:
        for _ in range(12):  # so many that some invalidation meets a silence
            served(server)
            server.freeze()
            time.sleep(0.3)
            server.thaw()
        served(server)
        report = concluded(run)
    assert report.unacknowledged > 0


def test_the_network_breaks_in_every_way(start_redis: Callable[..., RedisServer]) -> None:
    """One process behind a proxy that delays, swallows, holds, cuts and refuses; the other is well all the while."""
    server = start_redis()
    with FaultyProxy(server) as proxy, history([proxy.url, server.url]) as run:
        for fault in ("blackhole", "half_open", "partition", "refuse", "delay", "strand", "cut"):
            served(server, 60)
            getattr(proxy, fault)(*([0.5] if fault == "delay" else []))
            if fault not in ("cut", "strand"):
                time.sleep(0.25)
                proxy.restore()
            for after_bytes in range(0, 40, 8):
                proxy.cut_mid_reply(after_bytes)
                served(server, 5)
        served(server)
        report = concluded(run)
    assert report.unacknowledged > 0


# -- processes ------------------------------------------------------------------------------------------------------------


def test_processes_die_and_freeze_with_leases_in_hand(start_redis: Callable[..., RedisServer]) -> None:
    """SIGKILL of one process, SIGSTOP of another for longer than its leases: others take over after the lease."""
    server = start_redis()
    with history(server.url, processes=3, slowest_load=0.1) as run:
        served(server)
        run.freeze(1)
        time.sleep(QUICK["lease_ttl"] * 1.2)
        run.thaw(1)
        served(server)
        run.kill(2)
        served(server)
        time.sleep(QUICK["lease_ttl"])
        served(server)
        concluded(run)


@pytest.mark.parametrize("setup", ["clock_that_steps", "observers_that_misbehave", "tiny_pools"])
def test_the_processes_are_no_better_than_the_store(setup: str, redis_server: RedisServer) -> None:
    """A clock that jumps back and forth, observers that are slow or raise, pools of two: all promises hold."""
    with history(
        redis_server.url, setup=f"tests.faults.setups:{setup}", loops=2, options={"socket_timeout": 0.5}
    ) as run:
        time.sleep(1.5)
        report = concluded(run)
    assert report.unacknowledged == 0


# -- several servers --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sentinel_failover_under_way(prefix: str) -> None:
    """The primary is killed, twice; invalidations wait for both replicas, so that none that was acknowledged is lost."""
    with SentinelGroup() as group, history(group.url, options={"wait_replicas": 2, "socket_timeout": 0.5}) as run:
        served(group.primary)
        dead = group.kill_primary()
        group.wait_primary(other_than=dead)
        served(group.primary, 60)
        dead.start()
        group.wait_settled()
        served(group.primary, 60)
        group.failover()
        served(group.primary, 60)
        report = concluded(run)
    assert report.unacknowledged > 0


@pytest.mark.slow
def test_a_replica_is_promoted_by_hand() -> None:
    """The address moves to a promoted replica, and the former primary is gone: a virtual address, as operators do it."""
    with (
        primary_with_replicas(1) as (primary, (replica,)),
        FaultyProxy(primary) as proxy,
        history(proxy.url, options={"wait_replicas": 1, "socket_timeout": 0.5}) as run,
    ):
        served(primary)
        proxy.refuse()
        primary.freeze()
        replica.replicate(None)
        proxy._server = replica
        proxy.restore()
        served(replica)
        concluded(run)
        primary.thaw()


@pytest.mark.slow
def test_slots_of_a_cluster_move_and_a_node_dies() -> None:
    """Slots migrate to and fro with callers in them; then a primary dies and its replica takes over."""
    with (
        RedisCluster(3, 1) as cluster,
        history(cluster.url, options={"wait_replicas": 1, "socket_timeout": 0.5}) as run,
    ):
        from redis.crc import key_slot

        for name in (f"{run.prefix}:gen:threads", f"{run.prefix}:gen:tasks"):
            slot = key_slot(name.encode())
            for _ in range(2):
                source = cluster.owner(slot)
                served(source, 60)
                target = next(node for node in cluster.primaries() if node is not source)
                with cluster.migrating(slot, target):
                    time.sleep(0.3)
        victim = cluster.owner_of(f"{run.prefix}:gen:threads")
        cluster.kill_node(victim)
        cluster.wait_ok()
        served(cluster.owner_of(f"{run.prefix}:gen:threads"), 60)
        report = concluded(run)
    assert report.invalidations["namespace"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [4])
def test_a_long_history_without_faults(processes: int, redis_server: RedisServer) -> None:
    """All rules, for a while, with many callers."""
    patient = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}  # the machine may be busy
    with start_history(redis_server.url, processes=processes, threads=4, loops=2, options=patient) as run:
        time.sleep(15)
        report = run.stop()
    assert report.ok, str(report)
    assert report.store_errors == 0
