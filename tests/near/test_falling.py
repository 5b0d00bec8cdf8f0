"""When the fence falls: nothing old is served for longer than the bound, and calls return to the tier by themselves."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from memover import Cache, InvalidationFailed, StoreError
from memover.clocks import boottime
from memover.stores.redis.resp import pack
from tests.near.actors import SILENT, Source, comes_near, is_near, near_function, open_cache, tier_of
from tests.promises.actors import change
from tests.promises.actors import source as shared_source
from tests.servers import FaultyProxy, SentinelGroup, hear, say, start_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisCluster, RedisServer

BRIEF = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2}


def events(cache: Cache, name: str) -> list[str]:
    """The falls and rises of the fence, as they come."""
    seen: list[str] = []
    cache._state.observers._observers = (
        lambda event: seen.append(event.name) if event.name.startswith(name) else None,
    )
    cache._state.observers.busy = True
    return seen


def stale_until(f: Any, old: Any, since: float, bound: float) -> float:
    """Call until the answer is not `old`; the age in seconds of the last old answer, counted from `since` to its call."""
    last = 0.0
    while True:
        began = boottime()
        if f(1) != old:
            return last
        last = began - since
        assert last <= bound, f"an answer was {last:.3f} s old, and {bound} s are promised"
        time.sleep(0.002)


@pytest.mark.parametrize("fault", ["half_open", "partition", "blackhole", "strand", "cut", "refuse"])
@pytest.mark.parametrize("how", ["key", "namespace", "tag"])
def test_no_answer_is_older_than_the_bound(
    fault: str, how: str, start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """The network fails, and then another process's invalidation returns."""
    server, source, bound = start_redis(), Source(), 1.0
    other = cache_of(server.url)
    with FaultyProxy(server) as proxy:
        f = near_function(cache_of(proxy.url, **BRIEF), source, tags=("x:{x}",), near=bound, namespace="far")
        f(1)
        comes_near(f, 1)
        getattr(proxy, fault)()
        source.value = 2
        if how == "key":
            twin = Cache.versioned(other, namespace="far", tags=("x:{x}",))(f.__wrapped__)
            _as_another_process(lambda: twin.invalidate(1), f)
        elif how == "tag":
            _as_another_process(lambda: other.invalidate_tags("x:1"), f)
        else:
            _as_another_process(lambda: other.invalidate_namespace("far"), f)
        stale_until(f, [1, 1], boottime(), bound)
        proxy.restore()
        comes_near(f, 1)
        assert f(1) == [1, 2]


def _as_another_process(invalidation: Callable[[], object], f: Any) -> None:
    # What is of one process here stands for two: the tier is not told.
    tier = tier_of(f.cache)
    tier.moved = lambda names: None
    try:
        invalidation()
    finally:
        del tier.moved


def test_a_late_answer_does_not_raise_the_fence_to_when_it_came(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """The fence is when the question was sent: the answer is from before the invalidation, and is held up."""
    server, source, bound = start_redis(**SILENT), Source(), 3.0
    other = cache_of(server.url)
    with FaultyProxy(server) as proxy:
        f = near_function(cache_of(proxy.url, **BRIEF), source, near=bound)
        f(1)
        comes_near(f, 1)
        tier = tier_of(f.cache)
        fence = tier.fence
        wait_until(lambda: f(1) and tier.fence > fence, "a beat")
        proxy.half_open()
        held = proxy.bytes_held
        wait_until(lambda: f(1) and proxy.bytes_held > held, "the next answer, to the proxy")
        source.value = 2
        _as_another_process(lambda: other.invalidate_namespace("near"), f)
        returned = boottime()
        while boottime() < returned + 0.6 * bound:
            assert f(1)[0] == 1
            time.sleep(0.02)
        fence = tier.fence
        proxy.restore()
        wait_until(lambda: tier.fence > fence, "the answer", interval=0.0005)
        proxy.partition()
        stale_until(f, [1, 1], returned, bound)


def test_it_falls_once_and_rises_once(start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]) -> None:
    """One event each, not one a call."""
    server = start_redis()
    cache = cache_of(server.url, **BRIEF)
    f = near_function(cache, Source(), near=0.5)
    f(1)
    comes_near(f, 1)
    seen = events(cache, "near-")
    server.freeze()
    wait_until(lambda: f(1) and seen, "the fall")
    for _ in range(100):
        f(1)
        assert not is_near(f, 1)
    time.sleep(1.0)
    assert seen == ["near-fall"]
    server.thaw()
    comes_near(f, 1)
    assert seen == ["near-fall", "near-stand"]


def test_a_flush_is_a_fall(start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]) -> None:
    """The server says that everything has gone: one event, and one when the fence stands again."""
    server = start_redis()
    cache = cache_of(server.url)
    f = near_function(cache, Source())
    f(1)
    comes_near(f, 1)
    seen = events(cache, "near-")
    server.run("FLUSHALL")
    wait_until(lambda: len(seen) >= 2, "the fall and the rise")
    comes_near(f, 1)
    assert seen == ["near-fall", "near-stand"]


def test_a_server_that_lost_everything_is_noticed(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """FLUSHALL, eviction of one token, and a restart: nothing near stands under a token that is not there."""
    server = start_redis()
    source = Source()
    f = near_function(cache_of(server.url, **BRIEF), source)
    for loss in (
        lambda: server.run("FLUSHALL"),
        lambda: server.run("DEL", f"{f.cache.prefix}:gen:near", f.key(1)),
        lambda: server.run("DEL", f"{f.cache.prefix}:gen:@all", f.key(1), f"{f.cache.prefix}:gen:near"),
        lambda: server.restart(empty=True),
    ):
        f(1)
        comes_near(f, 1)
        source.value += 1
        loss()
        wait_until(lambda: f(1) == [1, source.value], "the loss to be noticed")
    comes_near(f, 1)


def test_clients_that_are_killed_come_back(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    server = start_redis()
    f = near_function(cache_of(server.url), Source())
    f(1)
    for _ in range(3):
        comes_near(f, 1)
        server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    comes_near(f, 1)


def test_a_process_that_was_stopped_does_not_go_on_with_what_is_old(
    redis_url: str, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """SIGSTOP of the client for longer than the bound, and an invalidation meanwhile."""
    with start_python(stopped_reader, redis_url, prefix) as worker:
        worker.wait_for("near")
        os.kill(worker.pid, signal.SIGSTOP)
        changed = change(redis_url, prefix)
        with open_cache(redis_url, prefix) as cache:
            cache.invalidate_namespace("near")
        time.sleep(0.8)
        worker.tell("value", changed)
        os.kill(worker.pid, signal.SIGCONT)
        old, new = worker.result()
        assert old == [], "answers that began after it went on, and are older than the bound"
        assert new == changed


def stopped_reader(url: str, prefix: str) -> Any:
    """Reads all the time. After a gap longer than the bound, every answer must be new."""
    with open_cache(url, prefix) as cache:
        f = near_function(cache, shared_source(url, prefix), near=0.5)
        f(1)
        comes_near(f, 1)
        last = boottime()
        say("near")
        while True:
            began = boottime()
            if began - last > 0.6:  # it was stopped, with the invalidation in the gap
                values = [f(1) for _ in range(200)]
                comes_near(f, 1)
                new = hear("value")
                return [[value for value in values if value != new], f(1)]
            last = began
            f(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_begins_anew(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """The child asks the store first and then has a thread and a connection of its own; the parent goes on."""
    cache = cache_of(redis_url)
    f = near_function(cache, Source(), near=60)
    f(1)
    comes_near(f, 1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"?"
        try:
            first = is_near(f, 1)
            comes_near(f, 1)
            said = b"near at once" if first else b"anew"
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        assert told.read() == b"anew"
    os.waitpid(child, 0)
    assert is_near(f, 1)
    f.invalidate(1)
    comes_near(f, 1)


# -- several servers ------------------------------------------------------------------------------------------------------------


def test_a_failover_of_sentinel(cache_of: Callable[..., Cache]) -> None:
    """The primary dies. What is invalidated at the new one is not served for longer than the bound, and the tier follows.

    (While sentinels demote a primary that lives, there are two for a second or so, and no promise is about that.)"""
    source, bound = Source(), 1.0
    with SentinelGroup() as group:
        f = near_function(cache_of(group.url, **BRIEF), source, near=bound)
        f(1)
        comes_near(f, 1)
        dead = group.kill_primary()
        group.wait_primary(other_than=dead)
        other = cache_of(group.url)
        source.value = 2
        _as_another_process(
            lambda: wait_until(
                lambda: other.invalidate_namespace("near"), "the new primary to take it", passing=(InvalidationFailed,)
            ),
            f,
        )
        stale_until(f, [1, 1], boottime(), bound)
        comes_near(f, 1)
        assert f(1) == [1, 2]


def test_the_tier_follows_a_primary_that_is_demoted(
    sentinel_group: SentinelGroup, cache_of: Callable[..., Cache]
) -> None:
    f = near_function(cache_of(sentinel_group.url, **BRIEF), Source())
    f(1)
    comes_near(f, 1)
    sentinel_group.failover()
    wait_until(
        lambda: f(1) and f.cache._state.heart._runs[0].feed._socket.getpeername()[1] == sentinel_group.primary.port,
        "the heartbeat to be at the new primary",
        passing=(OSError, AttributeError, LookupError),
    )
    comes_near(f, 1)


def test_a_heartbeat_does_not_believe_a_replica(sentinel_group: SentinelGroup, cache_of: Callable[..., Cache]) -> None:
    """A connection may outlive the demotion of its server: under Sentinel every beat asks for the role as well."""
    sentinel_group.wait_settled()
    store = cache_of(sentinel_group.replicas[0].url)._state.store
    feed = store.feed(b"x:gen:@all", (b"x:gen:",), 1.0)
    assert feed.pulse() is None
    feed._sentinel, feed.commands = True, 2
    feed._pulse = pack((b"MGET", b"x:gen:@all")) + pack((b"ROLE",))
    with pytest.raises(StoreError, match="primary"):
        feed.pulse()
    feed.close()


@pytest.mark.parametrize("how", ["key", "namespace", "tag"])
def test_an_invalidation_in_a_cluster_is_heard(
    how: str, redis_cluster: RedisCluster, cache_of: Callable[..., Cache]
) -> None:
    """Wherever its tokens live: one token on one node moves with all of them."""
    source, bound = Source(), 1.0
    other = cache_of(redis_cluster.url)
    for number in range(4):
        namespace = f"spread{number}"
        f = near_function(cache_of(redis_cluster.url), source, near=bound, namespace=namespace, tags=("x:{x}",))
        f(1)
        comes_near(f, 1)
        old = f(1)
        source.value += 1
        if how == "key":
            same = Cache.versioned(other, namespace=namespace, tags=("x:{x}",))(f.__wrapped__)
            _as_another_process(partial(same.invalidate, 1), f)
        elif how == "tag":
            _as_another_process(lambda: other.invalidate_tags("x:1"), f)
        else:
            _as_another_process(partial(other.invalidate_namespace, namespace), f)
        stale_until(f, old, boottime(), bound)
        comes_near(f, 1)
        assert f(1) == [1, source.value]


def test_a_slot_that_moves_in_a_cluster(redis_cluster: RedisCluster, cache_of: Callable[..., Cache]) -> None:
    """The heartbeat's token goes to another node, by way of a migration: the tier is left, followed, and returned to."""
    source, bound = Source(), 1.0
    cache = cache_of(redis_cluster.url)
    f = near_function(cache, source, near=bound)
    f(1)
    comes_near(f, 1)
    name = f"{cache.prefix}:gen:@all"
    slot = key_slot(name.encode())
    owner = redis_cluster.owner(slot)
    target = next(node for node in redis_cluster.primaries() if node is not owner)
    other = cache_of(redis_cluster.url)
    with redis_cluster.migrating(slot, target):
        source.value = 2
        _as_another_process(lambda: other.invalidate_namespace("near"), f)
        stale_until(f, [1, 1], boottime(), bound)
    comes_near(f, 1)
    source.value = 3
    _as_another_process(lambda: other.invalidate_namespace("near"), f)
    stale_until(f, [1, 2], boottime(), bound)
    comes_near(f, 1)
    redis_cluster.migrate_slot(slot, owner)
    comes_near(f, 1)
