"""The connections of threads: bounded, shared, and whole after whatever interrupts them."""

from __future__ import annotations

import gc
import math
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import memover
from memover.engine.steps import POSTED
from memover.errors import StoreError, StoreTimeout, StoreUnavailable
from memover.runtime.run import run
from memover.stores.redis import link
from tests.redis_store.conftest import BUDGET, OddServer, a_key, entry_for, filled, lasted, request_for
from tests.servers import FaultyProxy, RedisServer, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.model import Key
    from memover.stores.redis import RedisStore
    from memover.stores.redis.pool import Pool


_MEMOVER = str(Path(memover.__file__).parent)


class Strike(BaseException):
    """An exception from outside: of no kind that anybody could take for the store's."""


def pool_of(store: RedisStore) -> Pool:
    pool = store.link.servers.pools[None]
    assert pool is not None
    return pool


def in_threads(number: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def one(at: int) -> None:
        try:
            work(at)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_many_threads_share_few_connections(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """Beyond max_connections threads queue; each gets the answer to what it asked, and no more connections are opened."""
    store = open_store(redis_server.url, max_connections=4, socket_timeout=5.0)
    keys = filled(store, prefix, 20)

    def work(at: int) -> None:
        for n in range(50):
            key = keys[(at + n) % len(keys)]
            assert store.fetch(key).raw == key.entry
            assert run(store.read(key)).raw == key.entry

    in_threads(24, work)
    assert len(pool_of(store)._open) <= 4
    assert len(pool_of(store).idle) == len(pool_of(store)._open)


def test_a_connection_that_is_being_handed_over_is_not_opened_twice(
    open_store: Any, redis_server: RedisServer, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that opened it may be held up before it is in the pool: who waits for it goes on waiting."""
    from memover.stores.redis.pool import Pool

    handing_over, go_on = threading.Event(), threading.Event()
    opened = Pool._opened

    def held_up(self: Pool, *args: Any) -> None:
        handing_over.set()
        assert go_on.wait(60)
        opened(self, *args)

    monkeypatch.setattr(Pool, "_opened", held_up)
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=30.0, socket_connect_timeout=30.0)
        caller = threading.Thread(target=store.fetch, args=(key,))
        caller.start()
        assert handing_over.wait(60)
        # Several looks of the waiting caller, which has nothing else to show for them.
        caller.join(0.3)
        go_on.set()
        caller.join(60)
        assert not caller.is_alive()
        assert len(pool_of(store)._open) == proxy.connections == 1


def test_a_store_in_a_cycle_closes_its_connections(redis_server: RedisServer, key: Key) -> None:
    """Collected as garbage without having been closed: no socket is left to warn of itself as unclosed."""
    from memover.stores.redis import RedisStore
    from memover.stores.redis.url import parse_url
    from tests.redis_store.conftest import limits

    with FaultyProxy(redis_server) as proxy, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(10):
            store = RedisStore(parse_url(proxy.url), limits(socket_timeout=30.0, socket_connect_timeout=30.0))
            store.fetch(key)
            cycle: list[Any] = [store]
            cycle.append(cycle)
            del store, cycle
        gc.collect()
        wait_until(lambda: proxy.open == 0, "its connections to be closed")
    assert [str(each.message) for each in warned if "unclosed" in str(each.message)] == []


def test_threads_that_end_leave_their_connections_to_others(
    open_store: Any, redis_server: RedisServer, key: Key
) -> None:
    """A thousand threads, one after another, need one connection."""
    store = open_store(redis_server.url)
    for _ in range(100):
        in_threads(1, lambda _: store.fetch(key))
    assert len(pool_of(store)._open) == 1


def test_a_busy_pool_costs_one_budget(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """P7: with all connections waiting for a silent server, who comes next gives up in time, and blames no healthy store."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, max_connections=1, socket_timeout=2.0)
        store.fetch(key)
        connection = pool_of(store).idle.pop()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="max_connections"):
            store.fetch(key)
        assert lasted(began) < 10
        assert not store.breaker.tripped
        pool_of(store).give(connection)
        store.fetch(key)


def test_a_server_with_few_places_is_shared(open_store: Any, start_redis: Any, prefix: str) -> None:
    """With maxclients far below max_connections the pool is as large as the server lets it be, and every hit is served."""
    server = start_redis(config={"maxclients": 12})
    store = open_store(server.url, socket_timeout=5.0)
    keys = filled(store, prefix, 10)

    def work(at: int) -> None:
        for n in range(100):
            key = keys[(at + n) % len(keys)]
            assert store.fetch(key).raw == key.entry

    in_threads(40, work)
    assert not store.breaker.tripped


def test_a_place_that_is_given_back_is_used(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """Whoever waits for a connection is woken when one comes back, or when one is closed."""
    store = open_store(redis_server.url, max_connections=1, socket_timeout=20.0)
    store.fetch(key)
    for end in ("give", "discard"):
        connection = pool_of(store).idle.pop()
        thread = threading.Thread(target=store.fetch, args=(key,))
        thread.start()
        wait_until(lambda: pool_of(store).waiting, "the thread to queue")
        getattr(pool_of(store), end)(connection)
        thread.join(10)
        assert not thread.is_alive()
        del connection


# -- exceptions from outside ----------------------------------------------------------------------------------------------


def strikes(work: Callable[[], Any], limit: int, keeping: bool = False) -> Any:
    """Run `work` with an exception raised at each of its bytecodes in turn; yields after each. `keeping`: while it is kept as a
    REPL would keep it, with its traceback."""
    for at in range(limit):
        struck, kept = False, list[Strike]()
        seen = 0

        def trace(frame: Any, event: str, arg: Any, at: int = at) -> Any:
            nonlocal seen
            # What is raised in a finalizer reaches nobody, whoever wrote it.
            if frame.f_code.co_name == "__del__" or not frame.f_code.co_filename.startswith(_MEMOVER):
                return None
            if frame.f_back is not None and frame.f_back.f_code.co_name == "__del__":
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                seen += 1
                if seen > at:
                    sys.settrace(None)
                    raise Strike
            return trace

        sys.settrace(trace)
        try:
            work()
        except Strike as strike:
            struck = True
            if keeping:
                kept.append(strike)
        finally:
            sys.settrace(None)
        yield at
        if not struck:
            return
    raise AssertionError(f"more than {limit} bytecodes")


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 may crash after a trace function has raised between two bytecodes"
)
@pytest.mark.parametrize("kind", ["hit", "lease", "leases", "new connection", "busy", "posted"])
def test_an_exception_at_any_bytecode_leaves_everything_whole(
    open_store: Any,
    redis_server: RedisServer,
    prefix: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """P17: it goes on as it is; no later call gets another's answer, no place is lost, no circuit opens, nothing hangs."""
    store = open_store(redis_server.url, max_connections=2, socket_timeout=20.0)
    one, two = filled(store, prefix, 2)
    monkeypatch.setattr(link, "_MANY_IN_A_ROW", -1)
    monkeypatch.setattr(link, "_QUICK_SECONDS", math.inf)
    three = request_for(a_key(prefix, "three"))

    def work() -> None:
        if kind == "new connection":
            pool_of(store).close()
        if kind == "posted":
            step: Any = store.store(entry_for(three, b"three"))
            step.posted = answers.append
            assert store.link.exchange(step) is POSTED
        if kind == "lease":
            run(store.acquire(request_for(one)))
            return
        if kind == "leases":
            run(store.acquire_many([request_for(each) for each in (one, two)]))
            return
        held = [pool_of(store).idle.pop()] if kind == "busy" and pool_of(store).idle else []
        try:
            assert store.fetch(one).raw == one.entry
        finally:
            for connection in held:
                pool_of(store).give(connection)

    answers: list[Any] = []
    # A collector that comes in another thread, and closes there a flow that was left in the middle, crashes Python 3.12.
    gc.disable()
    request.addfinalizer(gc.enable)
    # Nowhere in an exchange of several commands is a connection left in a variable; in that of a hit, at one bytecode where no signal
    # handler is run.
    for at in strikes(work, 20_000, keeping=kind == "leases"):
        for key in (two, one):
            assert store.fetch(key).raw == key.entry, at
            assert run(store.read(key)).raw == key.entry, at
        assert not store.breaker.tripped, at
        wait_until(lambda: len(pool_of(store)._open) == len(pool_of(store).idle) <= 2, f"no place to be lost at {at}")
        assert all(answer == [0] or isinstance(answer[0], RedisConnectionError) for answer in answers), answers


def test_signals_come_through_as_they_are(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """A job's time limit strikes while a call waits for the server: it is raised, the store is not blamed."""

    def ring(*_: Any) -> None:
        raise Strike

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with FaultyProxy(redis_server) as proxy:
            store = open_store(proxy.url, socket_timeout=20.0)
            store.fetch(key)
            for call in (lambda: store.fetch(key), lambda: run(store.acquire(request_for(key)))):
                proxy.partition()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(Strike):
                    call()
                proxy.restore()
                assert not store.breaker.tripped
                assert store.fetch(key).raw is None
            fresh = open_store(proxy.url, socket_timeout=20.0, socket_connect_timeout=20.0)
            proxy.partition()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Strike):
                fresh.fetch(key)
            proxy.restore()
            assert not fresh.breaker.tripped
            assert fresh.fetch(key).raw is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("drips", [False, True])
def test_signals_do_not_prolong_a_time_limit(open_store: Any, redis_server: RedisServer, key: Key, drips: bool) -> None:
    """A signal every few milliseconds, whose handler returns: a silent server still costs one budget (P7)."""
    answer = b"*2\r\n$-1\r\n$40\r\n" + b"x" * 40 + b"\r\n"
    with OddServer(lambda words: answer, pause=0.1) if drips else FaultyProxy(redis_server) as server:
        store = open_store(server.url, socket_timeout=0.4)
        if isinstance(server, FaultyProxy):
            store.fetch(key)
            server.partition()
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        threading.Timer(20, lambda: signal.setitimer(signal.ITIMER_REAL, 0)).start()
        began = time.monotonic()
        try:
            with pytest.raises(StoreTimeout):
                store.fetch(key)
            assert time.monotonic() - began < 10, "it ended with the signals"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_use_the_store(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """A handler that runs in the middle of a call makes calls of its own; both get what they asked for."""
    store = open_store(redis_server.url, max_connections=2, socket_timeout=20.0)
    one, two = filled(store, prefix, 2)
    count = 0
    inside = False

    def ring(*_: Any) -> None:
        nonlocal count, inside
        if inside:
            return
        inside = True
        assert store.fetch(two).raw == two.entry
        count += 1
        inside = False

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        while count < 100:
            assert store.fetch(one).raw == one.entry
            assert run(store.read(one)).raw == one.entry
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not store.breaker.tripped


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # those that hit a finalizer
def test_interrupted_threads_mix_no_answers(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """A storm of exceptions set in threads from outside, at whatever they are doing."""
    import ctypes

    store = open_store(redis_server.url, max_connections=4, socket_timeout=20.0)
    keys = filled(store, prefix, 8)
    wrong: list[Any] = []
    ending = threading.Event()

    def work(at: int) -> None:
        n = at
        while not ending.is_set():
            try:
                n += 1
                key = keys[n % len(keys)]
                raw = store.fetch(key).raw if n % 3 else run(store.read(key)).raw
                if raw != key.entry:
                    wrong.append((key, raw))
            except Strike:
                pass
            except StoreError as error:
                wrong.append(error)

    def whole(at: int, depth: int = 50) -> None:
        # A strike may hit the handler of the one before it: each level catches those of the levels below.
        while not ending.is_set():
            try:
                whole(at, depth - 1) if depth else work(at)
            except Strike:
                pass

    threads = [threading.Thread(target=whole, args=(at,), daemon=True) for at in range(6)]
    for thread in threads:
        thread.start()
    set_async = ctypes.pythonapi.PyThreadState_SetAsyncExc
    for n in range(1500):
        set_async(ctypes.c_ulong(threads[n % 6].ident or 0), ctypes.py_object(Strike))
        time.sleep(0.0005)
    ending.set()
    for thread in threads:
        thread.join(30)
    gc.collect()
    assert not wrong
    for key in keys:
        assert store.fetch(key).raw == key.entry
    in_threads(4, lambda at: [store.fetch(key) for key in keys] and None)
    assert len(pool_of(store)._open) <= 4


# -- processes ------------------------------------------------------------------------------------------------------------

_FORKED = """
import os
from memover.runtime.run import run
from memover.model import Key
from memover.stores.redis import RedisStore
from memover.stores.redis.url import parse_url
from memover.stores.redis.limits import Limits
store = RedisStore(parse_url(args[0]), Limits(5.0, 5.0, 4, 0.25, 2.0))
key = Key("t:1:f:a", (b"t:gen:f",))
store.fetch(key)
wrong = 0
for _ in range(5):
    child = os.fork()
    if not child:
        store.after_fork()
        ok = all(store.fetch(key).raw is None for _ in range(20))
        os._exit(0 if ok else 1)
    for _ in range(20):
        store.fetch(key)
    wrong += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
result = wrong
"""


def test_a_forked_child_opens_connections_of_its_own(redis_server: RedisServer) -> None:
    """Parent and child go on at the same time, and neither gets the other's answers."""
    assert run_python(_FORKED, redis_server.url) == [0]


def test_no_thread_for_opening(
    open_store: Any, redis_server: RedisServer, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives no thread, the connection is opened in the caller's."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("memover.stores.redis.opening.start_new_thread", refuse)
    assert open_store(redis_server.url).fetch(key).raw is None


def test_slow_answers_within_the_budget_are_no_failure(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """An answer that takes half the budget is waited for."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=4 * BUDGET, socket_connect_timeout=8 * BUDGET)
        proxy.delay(BUDGET)
        assert store.fetch(key).raw is None
        assert store.fetch(key).raw is None
        assert not store.breaker.tripped


def test_answers_in_many_pieces(open_store: Any, prefix: str) -> None:
    """However an answer is cut up on its way, it is read whole."""
    key = a_key(prefix)
    with OddServer(lambda words: b"*2\r\n$-1\r\n$5\r\nhello\r\n", pause=0.001) as server:
        store = open_store(server.url, socket_timeout=5.0)
        for _ in range(3):
            assert store.fetch(key).raw == b"hello"


LAST_LOOK = """
import atexit, sys
atexit.register(lambda: print(sum(len(pool.idle) for pool in cache._state.store.link.servers.pools.values()), cache.get("a")))
from memover import Cache
cache = Cache(sys.argv[1], prefix=sys.argv[2])
cache.set("a", 1)
print(sum(len(pool.idle) for pool in cache._state.store.link.servers.pools.values()), cache.get("a"))
"""


def test_idle_connections_are_closed_at_exit(redis_url: str, prefix: str) -> None:
    """The interpreter would find them open and may warn. Whoever calls even later, in a hook from before, is answered."""
    ended = subprocess.run(
        [sys.executable, "-c", LAST_LOOK, redis_url, prefix], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["1", "1", "0", "1"], ended.stderr
