"""When the store cannot be asked: reads find nothing, writes raise, removals raise and are repeated until they are taken."""

from __future__ import annotations

import asyncio
import os
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from memover import InvalidationFailed, StoreError, StoreTimeout
from memover.stores.memory.entries import immediate
from tests.servers import FaultyProxy, SentinelGroup, primary_with_replicas, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from memover import Cache
    from tests.servers import RedisServer

QUICK = {"breaker_first": 0.01, "breaker_last": 0.05}
"""The store is asked again at once after a failure."""
SHORT = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, **QUICK}
"""For a store that says nothing: so that a test is not about waiting."""


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(redis_server) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", ["refuse", "blackhole"])
@pytest.mark.parametrize("awaited", [False, True])
def test_reads_fail_open_and_writes_fail_loud(
    fault: str, awaited: bool, make: Callable[..., Cache], proxy: FaultyProxy
) -> None:
    """Absence for who reads, an error for who was promised something, and everything works again afterwards."""
    cache = make(proxy.url, **(SHORT if fault == "blackhole" else QUICK))

    def do(method: str, *args: Any) -> Any:
        if awaited:
            return asyncio.run(getattr(cache, f"a{method}")(*args))
        return getattr(cache, method)(*args)

    wait_until(lambda: do("set", "k", 1) is None, "a first write", passing=(StoreError,))
    getattr(proxy, fault)()
    assert do("get", "k", "absent") == "absent"
    assert do("get_many", ["k"]) == {}
    assert do("has_key", "k") is False
    assert do("get_or_set", "k", lambda: "computed") == "computed"
    for method, args in (
        ("set", ("k", 2)),
        ("set_many", ({"k": 2},)),
        ("add", ("k", 2)),
        ("touch", ("k",)),
        ("incr", ("k",)),
        ("decr", ("k",)),
        ("incr_version", ("k",)),
    ):
        with pytest.raises(StoreError):
            do(method, *args)
    proxy.restore()
    # What a silent store was asked may have been applied, except what the open circuit kept back.
    wait_until(lambda: do("set", "k", 3) is None, "the store to be asked again", passing=(StoreError,))
    wait_until(lambda: do("get", "k") == 3, "the value to be read")


@pytest.mark.parametrize("removal", ["delete", "delete_many", "clear"])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_removal_that_was_not_acknowledged_is_repeated(
    removal: str, awaited: bool, make: Callable[..., Cache], redis_url: str, proxy: FaultyProxy
) -> None:
    """It raises `InvalidationFailed`, this process serves nothing under it, and others neither as soon as the store is back."""
    cache, other = make(proxy.url, **QUICK), make(redis_url)
    other.set("k", "old")
    wait_until(lambda: cache.get("k") == "old", "a first read")
    proxy.refuse()
    args: tuple[Any, ...] = {"delete": ("k",), "delete_many": (["k"],), "clear": ()}[removal]

    def remove() -> None:
        if awaited:
            asyncio.run(getattr(cache, f"a{removal}")(*args))
        else:
            getattr(cache, removal)(*args)

    with pytest.raises(InvalidationFailed) as caught:
        remove()
    assert caught.value.what == (f"{cache.prefix}:gen:~kv" if removal == "clear" else f"{cache.prefix}:1:k",)
    assert other.get("k") == "old"
    assert cache.get("k") is None
    proxy.restore()
    wait_until(lambda: other.get("k") is None, "the repeat")
    wait_until(lambda: not cache._state.witness.owed, "its acknowledgement")
    cache.set("k", "new")
    assert other.get("k") == "new"


def test_what_is_set_after_a_failed_removal_stays(
    make: Callable[..., Cache], redis_url: str, proxy: FaultyProxy
) -> None:
    """A new value replaces what a repeat would have removed: the repeat is not owed any more."""
    cache, other = make(proxy.url, **QUICK), make(redis_url)
    wait_until(lambda: cache.set_many({"a": 1, "b": 1, "c": 1}) == [], "a first write", passing=(StoreError,))
    proxy.refuse()
    for key in ("a", "b"):
        with pytest.raises(InvalidationFailed):
            cache.delete(key)
    with pytest.raises(InvalidationFailed):
        cache.clear()
    proxy.restore()
    wait_until(lambda: cache.set("a", 2) is None, "the store to be asked again", passing=(StoreError,))
    assert cache.add("b", 2) is True
    wait_until(lambda: not cache._state.witness.owed, "all that is owed")
    assert other.get_many(["a", "b", "c"]) == {"a": 2, "b": 2}


def test_an_increment_is_never_sent_twice(
    make: Callable[..., Cache], redis_client: redis.Redis, proxy: FaultyProxy
) -> None:
    """An answer that is lost with its connection is an error, and the counter was counted once."""
    cache = make(proxy.url)
    cache.set("n", 0)
    cache.incr("n")
    proxy.cut_mid_reply()
    with pytest.raises(StoreError):
        cache.incr("n")
    assert bytes(redis_client.get(f"{cache.prefix}:1:n") or b"").endswith(b"2")
    assert wait_until(lambda: cache.get("n"), "the store to be asked again") == 2
    assert cache.incr("n") == 3


@pytest.mark.parametrize("awaited", [False, True])
def test_a_connection_that_the_server_hung_up_is_noticed_before_an_increment(
    awaited: bool, make: Callable[..., Cache], start_redis: Callable[..., RedisServer]
) -> None:
    """After CLIENT KILL the next incr and add go through on a new connection, in the same event loop too."""
    server = start_redis()
    cache = make(server.url)

    def hang_up() -> None:
        server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def whole() -> None:
        await cache.aset("n", 1)
        hang_up()
        assert await cache.aincr("n") == 2
        hang_up()
        assert await cache.aadd("m", 1) is True

    if awaited:
        asyncio.run(whole())
        return
    cache.set("n", 1)
    hang_up()
    assert cache.incr("n") == 2
    hang_up()
    assert cache.add("m", 1) is True


@pytest.mark.skipif(not hasattr(select, "poll"), reason="select takes no more than 1,024 descriptors")
@pytest.mark.parametrize("tls", [False, True])
def test_increments_in_a_process_with_thousands_of_descriptors(
    tls: bool, make: Callable[..., Cache], start_redis: Callable[..., RedisServer]
) -> None:
    """By threads and by loops; what is never sent twice goes over the connection that is there, as it does with few."""
    server = start_redis(tls=tls)
    cache = make(server.url)

    def connections() -> int:
        received: int = server.info("stats")["total_connections_received"]
        return received

    async def awaited() -> int:
        await cache.aset("n", 0)
        before = connections()
        assert [await cache.aincr("n") for _ in range(5)] == [1, 2, 3, 4, 5]
        return connections() - before

    with beyond_select():
        cache.set("n", 0)
        before = connections()
        assert [cache.incr("n") for _ in range(5)] == [1, 2, 3, 4, 5]
        assert connections() - before == 1  # the one that asked for this number
        assert asyncio.run(awaited()) == 1


@contextmanager
def beyond_select() -> Iterator[None]:
    """What is opened in the block has a descriptor of 1,024 or more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 2048
    if 0 <= hard < enough:
        pytest.skip("a process of this user may not open so many files")
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        if 0 <= soft < enough:
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
        while held[-1] < 1024:
            held.append(os.dup(held[0]))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_float_that_others_keep_changing_is_given_up(make: Callable[..., Cache], redis_url: str) -> None:
    """Compare-and-set ends with an error that says what to do, not never."""
    cache = make(redis_url, wait_timeout=0)
    cache.set("x", 0.5)
    store = cache._state.store
    swap, store.swap = store.swap, immediate(lambda *_: False)  # type: ignore[method-assign]
    try:
        with pytest.raises(StoreTimeout, match="plain int"):
            cache.incr("x")
    finally:
        store.swap = swap  # type: ignore[attr-defined]
    assert cache.incr("x") == 1.5


def test_losing_the_generation_only_loses(
    make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis
) -> None:
    """Eviction of the generation is a clear, and an older one that comes back revives nothing."""
    cache, fresh = make(redis_url), make(redis_url)
    name = f"{cache.prefix}:gen:~kv"
    cache.set("k", "old")
    before: Any = redis_client.get(name)
    cache.clear()
    redis_client.delete(name)
    assert cache.get("k") is None
    redis_client.set(name, before)  # a replica that missed the clear was promoted
    assert cache.get("k") is None
    assert cache.add("k", "new") is True
    assert cache.get("k") == fresh.get("k") == "new"
    assert redis_client.get(name) != before


def test_a_cluster_that_lost_a_clear_is_told_by_the_entries(make: Callable[..., Cache], cluster: Any) -> None:
    """A process that never saw the later generation learns of it from an entry, and puts it back beyond it."""
    cache = make(cluster.url)
    name = f"{cache.prefix}:gen:~kv"
    cache.set("k", 1)
    with cluster.client() as client:
        before = client.get(name)
        cache.clear()
        cache.set("k", 2)
        client.set(name, before)
        fresh = make(cluster.url)
        for store in (lambda: fresh.add("k", 3), lambda: fresh.set("k", 3)):
            store()
        assert fresh.get("k") == 3
        assert client.get(name) > before
    assert cache.get("k") == 3


def test_a_full_server_refuses_loudly(make: Callable[..., Cache], start_redis: Callable[..., RedisServer]) -> None:
    """OOM is a StoreError for who writes, while deleting and clearing go on."""
    server = start_redis()
    cache = make(server.url)
    cache.set("k", "old")
    server.run("CONFIG", "SET", "maxmemory", "1")
    for write in (lambda: cache.set("k", "new"), lambda: cache.add("m", 1), lambda: make(server.url).set("k", 1)):
        with pytest.raises(StoreError, match=r"OOM|memory"):
            write()
    assert cache.get("k") == "old"
    cache.clear()
    assert cache.get("k") is None
    server.run("CONFIG", "SET", "maxmemory", "0")
    cache.set("k", "new")
    assert cache.delete("k") is True


def test_sentinel_serves_keys_and_values(make: Callable[..., Cache]) -> None:
    """Through a failover the API goes on at the new primary."""
    with SentinelGroup(replicas=1) as group:
        cache = make(group.url)
        cache.set("n", 1)
        assert cache.incr("n") == 2 and cache.incr_version("n") == 2
        assert cache.get("n", version=2) == 2
        group.failover()
        wait_until(lambda: cache.set("m", 1) is None, "the new primary", passing=(StoreError,))
        assert cache.incr("m") == 2


def test_a_write_to_a_replica_raises(make: Callable[..., Cache]) -> None:
    """What a read-only server cannot take is not pretended."""
    with primary_with_replicas() as (_, (replica,)):
        cache = make(replica.url)
        with pytest.raises(StoreError, match="replica"):
            cache.set("k", 1)
        with pytest.raises(InvalidationFailed):
            cache.clear()
        replica.replicate(None)
        cache.clear()


@pytest.mark.parametrize("awaited", [False, True])
def test_a_forgotten_set_leaves_no_old_value(
    awaited: bool, make: Callable[..., Cache], redis_url: str, proxy: FaultyProxy
) -> None:
    """With `on_set_error="forget"` a set in an outage returns, and what was there before is removed when it is over."""
    cache, other = make(proxy.url, on_set_error="forget", **QUICK), make(redis_url)
    other.set_many({"k": "old", "l": "old", "m": "kept"})
    wait_until(lambda: cache.get("k") == "old", "a first read")
    proxy.refuse()
    if awaited:
        asyncio.run(cache.aset("k", "new"))
        assert asyncio.run(cache.aset_many({"l": "new"})) == []
    else:
        cache.set("k", "new")
        assert cache.set_many({"l": "new"}) == []
    assert cache.get("k") is None
    proxy.restore()
    wait_until(lambda: other.get_many(["k", "l", "m"]) == {"m": "kept"}, "the removals")
    wait_until(lambda: not cache._state.witness.owed, "their acknowledgement")
    cache.set("k", "new")
    assert other.get("k") == "new"


def test_very_many_failed_removals_become_one_clear(
    make: Callable[..., Cache], redis_url: str, proxy: FaultyProxy
) -> None:
    """An outage does not pile up removals without bound: beyond a thousand one step removes all."""
    cache, other = make(proxy.url, **QUICK), make(redis_url)
    other.set("k", "old")
    wait_until(lambda: cache.get("k") == "old", "a first read")
    proxy.refuse()
    for part in range(3):
        with pytest.raises(InvalidationFailed):
            cache.delete_many([f"x{part}-{number}" for number in range(600)])
    assert len(cache._state.witness.owed) <= 1001
    proxy.restore()
    wait_until(lambda: other.get("k") is None, "the clear")
    wait_until(lambda: not cache._state.witness.owed, "the acknowledgement of all")
