"""Stores whose answer nobody waits for: misses in quick succession. The answer is read by whoever uses the connection next, or
by the background thread; what it says is counted, and a lease is given back whatever it says."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.stores.redis import link
from tests.redis_store.test_threads import in_threads, pool_of
from tests.servers import wait_until

if TYPE_CHECKING:
    from tests.servers import RedisServer


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every miss counts as one of many."""
    monkeypatch.setattr(link, "_MANY_IN_A_ROW", -1)
    monkeypatch.setattr(link, "_QUICK_SECONDS", math.inf)


class Posting:
    """A function on a cache, called once so that its scripts are known and a connection is idle."""

    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        # A lease that is not given back outlasts what tests wait for.
        self.cache = Cache(url, prefix=prefix, **{"lease_ttl": 120, **options})
        self.ran: list[int] = []

        @self.cache.versioned(namespace="n", ttl=60)
        def f(x: int) -> list[int]:
            self.ran.append(x)
            return [x]

        self.f = f
        f(0)
        f.cache_info()

    @property
    def waiting(self) -> int:
        """How many connections have an answer that nobody has read."""
        return sum(each.posted is not None for each in list(pool_of(self.cache._state.store).idle))

    @property
    def leases(self) -> int:
        return len(self.cache._state.leases)

    def counted(self, name: str) -> int:
        counters: Any = self.cache._state.functions
        return sum(getattr(each.counters, name) for each in list(counters))


def test_the_next_call_reads_it(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    assert posting.f(1) == [1]
    assert posting.waiting == 1
    assert posting.f(1) == [1]
    assert posting.waiting == 0
    assert (posting.counted("stores"), posting.counted("hits"), posting.ran) == (2, 1, [0, 1])
    assert posting.leases == 0


def test_counters_are_those_of_all_calls(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    for n in range(1, 100):
        assert posting.f(n) == [n]
    info = posting.f.cache_info()
    assert (info.stores, info.misses, info.store_errors, info.refused_stores) == (100, 100, 0, 0)
    assert posting.waiting == posting.leases == 0


def test_the_background_thread_reads_it(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    posting.f(1)
    wait_until(lambda: not posting.waiting and not posting.leases, "the answer is read")
    assert posting.counted("stores") == 2


def test_whoever_closes_the_cache_reads_it(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    posting.f(1)
    posting.cache.close()
    assert posting.counted("stores") == 2
    assert posting.counted("store_errors") == 0


def test_an_invalidation_right_after_it_counts(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    for invalidate in (
        lambda: posting.f.invalidate(1),
        posting.f.invalidate_all,
        lambda: posting.cache.invalidate_namespace("n"),
    ):
        posting.f(1)
        before = len(posting.ran)
        invalidate()
        assert posting.f(1) == [1]
        assert len(posting.ran) == before + 1


def test_threads_read_each_others(redis_url: str, prefix: str) -> None:
    """Every answer is counted once, and nobody gets an answer that is another's."""
    posting = Posting(redis_url, prefix, max_connections=3, socket_timeout=10)

    def work(at: int) -> None:
        for n in range(100):
            assert posting.f(1000 * (at + 1) + n) == [1000 * (at + 1) + n]
            assert posting.f(n + 1) == [n + 1]

    in_threads(6, work)
    info = posting.f.cache_info()
    assert info.stores + info.refused_stores == info.loads
    assert info.store_errors == 0
    assert posting.leases == 0


def test_a_full_server_refuses_it(start_redis: Any, prefix: str) -> None:
    """Counted, and the lease is given back."""
    server: RedisServer = start_redis()
    posting = Posting(server.url, prefix)
    fill = posting.cache.versioned(namespace="full", ttl=60)(lambda: server.run("CONFIG", "SET", "maxmemory", "1"))
    assert fill() is not None
    wait_until(lambda: posting.counted("store_errors"), "the refusal is heard")
    wait_until(
        lambda: not [key for key in server.run("KEYS", "*") if key.endswith(b"lease")], "the lease is given back"
    )


def test_a_server_that_has_lost_its_scripts(start_redis: Any, prefix: str) -> None:
    """Between the lease and the store: the entry is stored by the next load."""
    server: RedisServer = start_redis()
    posting = Posting(server.url, prefix)

    @posting.cache.versioned(namespace="flush", ttl=60)
    def flush(x: int) -> int:
        if not posting.f.cache_info().loads > 1:
            server.run("SCRIPT", "FLUSH")
        posting.ran.append(x)
        return x

    flush(7)
    posting.f(1)
    wait_until(lambda: posting.leases == 0, "the lease is released")
    for _ in range(3):
        assert flush(7) == 7
        flush.cache_info()
    assert posting.ran.count(7) <= 2


def test_a_server_that_is_killed(start_redis: Any, prefix: str) -> None:
    """What it has not answered is counted as lost, once; after the restart everything goes on."""
    server: RedisServer = start_redis()
    posting = Posting(server.url, prefix, breaker_first=0.05, breaker_last=0.05)

    @posting.cache.versioned(namespace="kill", ttl=60)
    def kill() -> None:
        server.kill()

    kill()
    wait_until(lambda: posting.counted("store_errors"), "the loss is heard")
    assert posting.f(1) == [1]
    server.restart()

    def hit() -> bool:
        before = len(posting.ran)
        return posting.f(2) == [2] and len(posting.ran) == before

    wait_until(hit, "a hit after the restart")
    wait_until(lambda: posting.leases == 0, "no lease is left")


def test_a_server_that_falls_silent(start_redis: Any, prefix: str) -> None:
    """The call itself does not wait for it. Nobody need ask again for the silence to be found out."""
    server: RedisServer = start_redis()
    posting = Posting(server.url, prefix, socket_timeout=0.2)

    @posting.cache.versioned(namespace="freeze", ttl=60)
    def freeze() -> None:
        server.freeze()

    try:
        freeze()
        assert posting.waiting == 1
        wait_until(lambda: posting.counted("store_errors"), "the silence is found out")
        assert posting.cache._state.store.breaker.tripped  # type: ignore[attr-defined]
        began = time.monotonic()
        assert posting.f(5) == [5]
        assert time.monotonic() - began < 5
    finally:
        server.thaw()


def test_a_child_of_a_fork_begins_anew(redis_url: str, prefix: str) -> None:
    """The answer is the parent's to read, and is read by it."""
    posting = Posting(redis_url, prefix)
    posting.f(1)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if posting.f(1) == [1] and posting.f(2) == [2] and posting.ran == [0, 1, 2] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert posting.f(2) == [2]
    assert posting.ran == [0, 1]
    info = posting.f.cache_info()
    assert (info.stores, info.store_errors) == (2, 0)


def test_a_single_miss_waits_for_the_answer(redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it stored is there when it returns."""
    monkeypatch.undo()
    posting = Posting(redis_url, prefix)
    posting.f(1)
    assert posting.waiting == 0
    monkeypatch.setattr(link, "_QUICK_SECONDS", math.inf)
    number = 1
    while not posting.waiting:
        number += 1
        posting.f(number)
    assert number > 30


def test_observers_are_told_before_the_call_returns(redis_url: str, prefix: str) -> None:
    events = list[Any]()
    posting = Posting(redis_url, prefix, observers=[events.append])
    events.clear()
    posting.f(1)
    assert [each.name for each in events] == ["load", "store", "lookup"]
    assert posting.waiting == 0


def test_a_thread_that_ends_leaves_it_to_others(redis_url: str, prefix: str) -> None:
    posting = Posting(redis_url, prefix)
    thread = threading.Thread(target=posting.f, args=(1,))
    thread.start()
    thread.join()
    assert posting.f(1) == [1]
    assert posting.ran == [0, 1]
