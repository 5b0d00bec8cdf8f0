"""P17: an exception from outside reaches the caller as it is, and leaves no wrong reply, lock, lease, connection or waiter.

The headline cases; every bytecode of every operation, and storms of every kind, are in tests/interrupts."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.interrupts.striking import Unraisable
from tests.servers import FaultyProxy, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from tests.servers import RedisServer

LONG = 60.0
"""Seconds of leases, waits and budgets: a call that has to wait for the end of one fails the test."""
GUARD = 10.0
PATIENT: dict[str, Any] = {
    "lease_ttl": LONG,
    "wait_timeout": LONG,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "breaker_first": LONG,
    "breaker_last": LONG,
}


class JobTimeout(Exception):
    """What RQ and Celery raise from SIGALRM when a job's time is over."""


@contextmanager
def alarm_after(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in the main thread, from a signal handler, after `seconds`."""

    def ring(*_: object) -> None:
        raise error("from outside")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def within_guard(call: Callable[[], Any]) -> Any:
    """The result of a call in another thread, which must not have to wait for anything that was left behind."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(GUARD)
    assert results, "the next call waits for what the interrupted one has left behind"
    return results[0]


def leases(client: redis.Redis, prefix: str) -> list[bytes]:
    names = list(client.scan_iter(f"{{{prefix}:*:lease", count=1000))
    return [name for name in names if (client.get(name) or b"").startswith(b"L ")]


@pytest.mark.parametrize("error", [JobTimeout, KeyboardInterrupt])
def test_a_time_limit_that_strikes_while_the_store_is_waited_for_is_the_callers(
    error: type[BaseException], start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """It is no failure of the store: the circuit stays closed and the next calls are hits."""
    server = start_redis()
    with FaultyProxy(server) as proxy, Cache(proxy.url, prefix=prefix, **PATIENT) as cache:
        runs: list[int] = []

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            runs.append(x)
            return x

        f(1)
        f(1)
        runs.clear()
        proxy.half_open()
        with pytest.raises(error), alarm_after(0.2, error):
            f(1)
        proxy.restore()
        assert [f(1) for _ in range(5)] == [1] * 5
        assert runs == [], "the store is well, and yet the function ran"
        assert f.cache_info().store_errors == 0


@pytest.mark.parametrize("error", [JobTimeout, KeyboardInterrupt])
def test_a_time_limit_that_strikes_an_invalidation_is_the_callers(
    error: type[BaseException], start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """Not `InvalidationFailed`; the same invalidation made again holds."""
    server = start_redis()
    with FaultyProxy(server) as proxy, Cache(proxy.url, prefix=prefix, **PATIENT) as cache:
        source = ["old"]

        @cache.versioned(namespace="f")
        def f(x: int) -> str:
            return source[0]

        f(1)
        source[0] = "new"
        for invalidate in (lambda: f.invalidate(1), f.invalidate_all):
            proxy.half_open()
            with pytest.raises(error), alarm_after(0.2, error):
                invalidate()
            proxy.restore()
            invalidate()
            assert f(1) == "new"


@pytest.mark.parametrize("error", [JobTimeout, KeyboardInterrupt])
def test_an_interruption_while_the_lease_is_waited_for_gives_it_back(
    error: type[BaseException], start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """The store grants the lease to a caller that has gone: it is given back, and nobody waits for its end."""
    server = start_redis()
    with FaultyProxy(server) as proxy, Cache(proxy.url, prefix=prefix, **PATIENT) as cache:

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            return x

        f(0)
        proxy.delay(0.3)  # a read takes that long, and so does the lease
        with pytest.raises(error), alarm_after(0.45, error):
            f(1)
        proxy.restore()
        assert within_guard(lambda: f(1)) == 1
        with server.client() as client:
            wait_until(lambda: not leases(client, prefix), "the lease to be given back", timeout=GUARD)


@pytest.mark.parametrize("error", [JobTimeout, KeyboardInterrupt, SystemExit])
def test_an_interruption_in_the_function_gives_the_lease_back(
    error: type[BaseException], redis_client: redis.Redis, redis_url: str, prefix: str
) -> None:
    """A job's time limit strikes where the time is spent: whoever calls next runs the function at once."""
    with Cache(redis_url, prefix=prefix, **PATIENT) as cache:
        slow = threading.Event()

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            slow.wait(LONG)
            return x

        with pytest.raises(error), alarm_after(0.2, error):
            f(1)
        slow.set()
        assert within_guard(lambda: f(1)) == 1
        assert leases(redis_client, prefix) == []


@pytest.mark.parametrize("error", [JobTimeout, KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_bulk_loader_gives_all_leases_back(
    error: type[BaseException], redis_client: redis.Redis, redis_url: str, prefix: str
) -> None:
    """Those of all two hundred calls of the batch."""
    with Cache(redis_url, prefix=prefix, **PATIENT) as cache:
        slow = threading.Event()

        @cache.versioned(namespace="g")
        def g(x: int) -> int:
            return x

        @g.batch_load
        def many(calls: Any) -> list[int]:
            slow.wait(LONG)
            return [call.arguments["x"] for call in calls]

        with pytest.raises(error), alarm_after(0.3, error):
            g.map(range(200))
        slow.set()
        wait_until(lambda: not leases(redis_client, prefix), "the leases to be given back", timeout=GUARD)
        assert within_guard(lambda: g.map(range(200))) == list(range(200))


def test_the_leases_of_an_interrupted_bulk_load_are_given_back_before_its_exception_goes_on(
    redis_client: redis.Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be about to end: nothing is left to the thread in the background, which here does nothing."""
    with Cache(redis_url, prefix=prefix, **PATIENT) as cache:

        @cache.versioned(namespace="h")
        def h(x: int) -> int:
            return x

        @h.batch_load
        def many(calls: Any) -> list[int]:
            assert len(leases(redis_client, prefix)) == 200
            raise KeyboardInterrupt

        with monkeypatch.context() as idle:
            idle.setattr(cache._state.background, "later", lambda seconds, run: None)
            with pytest.raises(KeyboardInterrupt):
                h.map(range(200))
            assert leases(redis_client, prefix) == []


def test_an_interruption_in_a_lock_of_the_standard_library_leaves_it_usable(redis_url: str, prefix: str) -> None:
    """`threading.Condition` and its like are Python: a signal strikes inside their `__enter__` and `__exit__` too.

    In a process of its own, which ends when it hangs."""
    ((struck, values),) = run_python(_struck_in_the_standard_library, redis_url, prefix)
    assert values == [1] * struck * 2


def _struck_in_the_standard_library(url: str, prefix: str) -> Any:
    import faulthandler
    import sys

    class Struck(BaseException):
        pass

    faulthandler.dump_traceback_later(30, exit=True)
    codes = {
        method.__code__
        for name in ("Condition", "Event", "RLock", "Semaphore")
        for method in vars(getattr(threading, name) if isinstance(getattr(threading, name), type) else object).values()
        if hasattr(method, "__code__")
    }
    cache = Cache(url, prefix=prefix, **PATIENT)

    @cache.versioned(namespace="f")
    def f(x: int) -> int:
        return x

    f(1)
    struck = 0
    values = []
    for at in range(40):
        cache.close()  # the pool makes a new connection, under its lock
        count = -1

        def tracer(frame: Any, event: str, arg: Any, at: int = at) -> None:
            nonlocal count
            if event == "call" and frame.f_code in codes:
                count += 1
                if count == at:
                    sys.settrace(None)
                    raise Struck

        sys.settrace(tracer)
        try:
            f(1)
        except Struck:
            pass
        sys.settrace(None)
        if count < at:
            break
        struck += 1
        values.append(f(1))
        thread = threading.Thread(target=lambda: values.append(f(1)), daemon=True)
        thread.start()
        thread.join(20)
    return struck, values


def test_a_thread_that_cannot_be_started_costs_nothing_but_itself(
    start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """`RuntimeError: can't start new thread`, once: the call has its value, and leases are renewed afterwards."""
    server = start_redis()
    with Cache(server.url, prefix=prefix, **{**PATIENT, "lease_ttl": 0.6}) as cache:
        go = threading.Event()

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            if x == 2:
                go.wait(GUARD)
            return x

        real = threading.Thread.start
        failed = 0

        def refused(self: threading.Thread) -> None:
            nonlocal failed
            failed += 1
            raise RuntimeError("can't start new thread")

        threading.Thread.start = refused  # type: ignore[method-assign]
        try:
            assert f(1) == 1
        finally:
            threading.Thread.start = real  # type: ignore[method-assign]
        loader = threading.Thread(target=f, args=(2,), daemon=True)
        loader.start()
        try:
            with server.client() as client:
                name = f"{{{f.key(2)}}}:lease"
                wait_until(lambda: client.exists(name), "the lease", timeout=GUARD)
                held = client.get(name)
                until = time.monotonic() + 2.0  # more than three times lease_ttl
                while time.monotonic() < until:
                    assert client.get(name) == held, "the lease of a load under way has ended: it was not renewed"
                    time.sleep(0.05)
        finally:
            go.set()
            loader.join(GUARD)
        loads = f.cache_info().loads
        assert f(2) == 2
        assert f.cache_info().loads == loads, "the result of a load whose lease was renewed is stored"


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_loop_closed_with_a_load_in_flight_holds_nobody_up(store: str, redis_url: str, prefix: str) -> None:
    """`run_until_complete` and `close` while a load is under way: its lease is not renewed, and ends."""
    url = "memory://" if store == "memory" else redis_url
    cache = Cache(url, prefix=prefix, **{**PATIENT, "lease_ttl": 1.0})
    slow, begun = True, threading.Event()

    @cache.versioned(namespace="f")
    async def f(x: int) -> int:
        if slow:
            begun.set()
            await asyncio.sleep(3600)
        return x

    async def leave_it() -> None:
        task = asyncio.ensure_future(f(1))
        assert await asyncio.to_thread(begun.wait, GUARD)
        assert not task.done()

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_it())
        loop.close()

    with warnings.catch_warnings(), Unraisable() as nobody:
        warnings.simplefilter("ignore")  # asyncio's own about the task that was left
        abandon()
        slow = False
        assert within_guard(lambda: asyncio.run(f(1))) == 1
        gc.collect()
    cache.close()
    assert [repr(error) for error in nobody.errors] == [], "what was left could not be cleared away in silence"


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_loop_closed_with_a_refresh_in_flight_holds_nobody_up(store: str, redis_url: str, prefix: str) -> None:
    """The same for a refresh behind its caller (stale-while-revalidate): the next load does not wait for it."""
    cache = Cache("memory://" if store == "memory" else redis_url, prefix=prefix, **{**PATIENT, "lease_ttl": 1.0})
    begun = 0

    @cache.versioned(namespace="f", ttl=0.2, stale_while_revalidate=3600)
    async def f(x: int) -> int:
        nonlocal begun
        begun += 1
        if begun == 2:
            await asyncio.sleep(3600)
        return begun

    async def until_it_is_begun() -> None:
        while begun < 2:
            assert await f(1) == 1
            await asyncio.sleep(0.01)

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(until_it_is_begun())
        loop.close()

    with warnings.catch_warnings(), Unraisable() as nobody:
        warnings.simplefilter("ignore")  # asyncio's own about the task that was left
        abandon()
        assert within_guard(lambda: asyncio.run(f.max_age(0)(1))) == 3
        wait_until(lambda: not len(cache._state.leases), "the lease of the refresh that nobody runs any more")
        gc.collect()
    cache.close()
    assert [repr(error) for error in nobody.errors] == [], "what was left could not be cleared away in silence"


@pytest.mark.parametrize("kind", [KeyError, TypeError, JobTimeout])
def test_a_handler_that_strikes_a_hit_in_memory_is_heard(kind: type[Exception]) -> None:
    """Also where it raises what the generated call expects of a dictionary."""
    shop = Shop()
    for _ in range(4):  # from the second hit on, the call that was made for the function answers
        assert shop.price(7) == 7

    def ring(*_: object) -> None:
        raise kind("from outside")

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        shop.struck = True
        with pytest.raises(kind, match="from outside"):
            shop.price(7)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert shop.price(7) == 7
    assert shop.price.cache_info().loads == 1


class Shop:
    """Something whose key is asked for in the middle of a hit, which is when the signal comes."""

    cache = Cache("memory://")
    struck = False

    def __memover_key__(self) -> str:
        if self.struck:
            self.struck = False
            signal.raise_signal(signal.SIGUSR1)
        return "shop"

    @cache.versioned(namespace="price")
    def price(self, sku: int) -> int:
        return sku
