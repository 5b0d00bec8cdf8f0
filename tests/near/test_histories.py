"""Histories of processes with near caches: every read is held to the bound, and to nothing but the newest in the process
that invalidated. The rules are those of `memover.testing.rules`; "monotonic" is not promised by a near cache."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from redis.exceptions import OutOfMemoryError

from memover.testing.rules import RULES
from memover.testing.workload import start_history
from tests.servers import FaultyProxy, RedisCluster, SentinelGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.testing.history import Report
    from memover.testing.workload import HistoryRun
    from tests.servers import RedisServer

BOUND = 0.3
SECONDS = 2.5
CHANGES = 0.005
"""Few, so that an answer that is missed is missed for long."""
JUDGED = set(RULES) - {"monotonic"}
PATIENT = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
BRIEF = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3, "breaker_last": 0.3}


def history(url: Any, seconds: float, during: Callable[[Any], None] | None = None, **told: Any) -> Report:
    told = {
        "processes": 3,
        "keys": 4,
        "changes": CHANGES,
        "options": PATIENT,
        "function_options": {"near": BOUND},
        **told,
    }
    with start_history(url, **told) as run:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if during is None:
                time.sleep(0.1)
            else:
                during(run)
        return run.stop(rules=JUDGED, max_staleness=BOUND)


def held(report: Report) -> None:
    assert report.ok, str(report)
    assert report.near_hits > report.reads / 20, str(report)


def test_messages_and_heartbeats(redis_url: str) -> None:
    held(history(redis_url, SECONDS))


def test_every_message_lost(redis_url: str) -> None:
    held(history(redis_url, SECONDS, setup="tests.near.setups:deaf"))


@pytest.mark.parametrize("features", [["late-tags", "soft", "max-age"], ["batches", "refreshes", "peeks", "errors"]])
def test_with_everything_that_callers_do(features: list[str], redis_url: str) -> None:
    options = {"near": BOUND}
    if "soft" in features:
        options["stale_while_revalidate"] = 0.0
    if "errors" in features:
        pytest.importorskip("memover")
    held(history(redis_url, SECONDS, features=features, function_options=options, setup="tests.near.setups:deaf"))


@pytest.mark.parametrize("seconds", [SECONDS, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_network_that_fails_in_every_way(seconds: float, start_redis: Callable[..., RedisServer]) -> None:
    """Two of three processes are behind a proxy that cuts, holds back, swallows and is half open: each at least once, for longer than
    the bound."""
    server = start_redis()
    with FaultyProxy(server) as proxy:

        def trouble(_: Any) -> None:
            for fault in (proxy.cut, proxy.half_open, proxy.partition, proxy.blackhole, proxy.strand, proxy.cut):
                fault()
                time.sleep(0.5)
                proxy.restore()
                time.sleep(0.3)

        report = history([server.url, proxy.url], seconds, trouble, options=BRIEF, setup="tests.near.setups:deaf")
        held(report)


def test_answers_that_come_late(start_redis: Callable[..., RedisServer]) -> None:
    """Every answer through the proxy takes half as long as the bound."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        proxy.delay(0.15)
        held(history([server.url, proxy.url], SECONDS, setup="tests.near.setups:deaf"))


def test_a_server_and_clients_that_are_stopped(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()

    def trouble(run: Any) -> None:
        time.sleep(0.6)
        server.freeze()
        time.sleep(0.8)
        server.thaw()
        time.sleep(0.6)
        run.freeze(1)
        time.sleep(0.9)
        run.thaw(1)

    held(history(server.url, 2 * SECONDS, trouble, options=BRIEF, setup="tests.near.setups:deaf"))


def test_a_server_that_forgets(start_redis: Callable[..., RedisServer]) -> None:
    """Everything, or the one token that the heartbeat asks for; and its clients are killed."""
    server = start_redis()

    def trouble(run: Any) -> None:
        for loss in (
            ("FLUSHALL",),
            ("DEL", f"{run.prefix}:gen:@all"),
            ("SCRIPT", "FLUSH"),
            ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ):
            time.sleep(0.4)
            server.run(*loss)

    told = {"processes": 3, "keys": 4, "changes": CHANGES, "options": PATIENT, "function_options": {"near": BOUND}}
    with start_history(server.url, setup="tests.near.setups:deaf", **told) as run:
        for _ in range(2):
            trouble(run)
        report = run.stop(rules=JUDGED - {"single-load"}, max_staleness=BOUND)
    held(report)


def test_a_server_that_is_too_small(start_redis: Callable[..., RedisServer]) -> None:
    """allkeys-random evicts tokens and entries all the time."""
    server = start_redis(config={"maxmemory": "4mb", "maxmemory-policy": "allkeys-random"})
    told = {"processes": 3, "keys": 4, "changes": CHANGES, "options": PATIENT, "function_options": {"near": BOUND}}
    with start_history(server.url, setup="tests.near.setups:deaf", **told) as run:
        with server.client() as client:
            end = time.monotonic() + SECONDS
            late = end + 60
            while time.monotonic() < end or (server.info("stats")["evicted_keys"] <= 100 and time.monotonic() < late):
                for number in range(50):
                    with suppress(OutOfMemoryError):
                        client.set(f"filler-{time.monotonic_ns()}-{number}", b"x" * 2000)
                time.sleep(0.05)
        assert server.info("stats")["evicted_keys"] > 100
        report = run.stop(rules=JUDGED - {"single-load"}, max_staleness=BOUND)
    assert report.ok, str(report)
    assert report.near_hits, str(report)


def test_sentinel(sentinel_group: SentinelGroup) -> None:
    held(history(sentinel_group.url, SECONDS, setup="tests.near.setups:deaf"))


def test_cluster(redis_cluster: RedisCluster) -> None:
    held(history(redis_cluster.url, SECONDS, setup="tests.near.setups:deaf"))


def going_on(url: str, **options: Any) -> HistoryRun:
    return start_history(
        url,
        processes=3,
        keys=4,
        changes=CHANGES,
        options={**BRIEF, "socket_timeout": 0.5, **options},
        function_options={"near": BOUND},
        setup="tests.near.setups:deaf",
    )


@pytest.mark.slow
@pytest.mark.parametrize("setup", [None, "tests.near.setups:deaf"], ids=["pushes", "heartbeats alone"])
def test_processes_that_rest_between_calls(setup: str | None, redis_url: str) -> None:
    """For seconds nobody looks, and what moves meanwhile is left unread; then calls come again."""
    told: dict[str, Any] = {"processes": 3, "threads": 2, "tasks": 3, "keys": 3, "changes": 0.08, "pause": 2.5}
    with start_history(redis_url, options=PATIENT, function_options={"near": 1.0}, setup=setup, **told) as run:
        time.sleep(15)
        report = run.stop(rules=JUDGED, max_staleness=1.0)
    held(report)
    assert report.invalidations


@pytest.mark.slow
def test_a_primary_that_dies_under_load() -> None:
    """Sentinel puts a replica in its place. Invalidations wait for both replicas, so that none that was acknowledged is lost."""
    with SentinelGroup() as group, going_on(group.url, wait_replicas=2) as run:
        time.sleep(SECONDS)
        dead = group.kill_primary()
        group.wait_primary(other_than=dead)
        time.sleep(SECONDS)
        report = run.stop(rules=JUDGED - {"single-load"}, max_staleness=BOUND)
    held(report)
    assert report.store_errors


@pytest.mark.slow
def test_a_cluster_whose_slots_move_and_whose_node_dies_under_load() -> None:
    """The slot of the heartbeat's token goes to another node and back, each time with callers in it; then its node dies."""
    with RedisCluster(3, 1, node_timeout=1.0) as cluster, going_on(cluster.url, wait_replicas=1) as run:
        slot = key_slot(f"{run.prefix}:gen:@all".encode())
        for _ in range(2):
            time.sleep(1.0)
            owner = cluster.owner(slot)
            with cluster.migrating(slot, next(node for node in cluster.primaries() if node is not owner)):
                time.sleep(2 * BOUND)
        time.sleep(1.0)
        cluster.kill_node(cluster.owner(slot))
        cluster.wait_ok()
        time.sleep(SECONDS)
        report = run.stop(rules=JUDGED - {"single-load"}, max_staleness=BOUND)
    held(report)
    assert report.store_errors


# -- what the checker would see -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mutant", "rule"),
    [
        ("deaf_and_by_message_only", "own"),
        ("deaf_and_blind", "fresh"),
        ("without_the_call_s_token", "own"),
    ],
)
def test_a_history_sees_a_broken_build(mutant: str, rule: str, redis_url: str) -> None:
    for seconds in (1.5, 5, 15):  # a busy machine has fewer chances a second to go wrong
        report = history(redis_url, seconds, setup=f"tests.near.setups:{mutant}")
        if rule in report.violations:
            break
    assert rule in report.violations, str(report)


def held_back(server: RedisServer, setup: str, seconds: float) -> Report:
    """Behind a network that holds answers back for most of the bound, and then for twice as long."""
    with FaultyProxy(server) as proxy:

        def trouble(_: Any) -> None:
            proxy.half_open()
            time.sleep(0.27)
            proxy.restore()
            time.sleep(0.01)
            proxy.half_open()
            time.sleep(0.6)
            proxy.restore()
            time.sleep(0.3)

        urls = [server.url, proxy.url]
        return history(urls, seconds, trouble, setup=f"tests.near.setups:{setup}", changes=0.001)


@pytest.mark.parametrize("seconds", [5.0, pytest.param(12.0, marks=pytest.mark.slow)])
def test_answers_that_are_held_back(seconds: float, start_redis: Callable[..., RedisServer]) -> None:
    held(held_back(start_redis(), "deaf", seconds))


def test_a_history_sees_a_fence_that_never_falls(start_redis: Callable[..., RedisServer]) -> None:
    """(That a late answer raises it is seen by tests/promises/test_p03_near.py: a history meets it by chance alone.)"""
    server = start_redis()
    for seconds in (4, 12, 24):  # a busy machine has fewer chances a second to go wrong
        report = held_back(server, "deaf_and_never_falling", seconds)
        if "fresh" in report.violations:
            break
    assert "fresh" in report.violations, str(report)
