"""Forks, event loops and threads: what a process may do to itself after memover has been used in it.

The scenarios run in processes of their own, with warnings as errors: a fork of the test runner proves little."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, InvalidationFailed
from tests.servers import FaultyProxy, await_until, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
STRICT = {"PYTHONWARNINGS": "error::ResourceWarning,error::RuntimeWarning"}


def in_child(work: Callable[[], Any]) -> int:
    """Fork and do the work in the child; the child's exit status, 0 for well, 99 when it did not end in time."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            unraisable: list[Any] = []
            sys.unraisablehook = unraisable.append
            work()
            import gc

            gc.collect()
            status = 0 if not unraisable else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    found: list[int] = []

    def gone() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append(os.waitstatus_to_exitcode(status))
        return bool(done)

    try:
        wait_until(gone, "the child to end", timeout=20)
    except TimeoutError:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return 99
    return found[0]


def equal(one: Any, other: Any) -> None:
    assert one == other, (one, other)


def sync_function(url: str, prefix: str, **options: Any) -> tuple[Cache, Any, list[int]]:
    cache = Cache(url, prefix=prefix, **{"socket_timeout": 10.0, "socket_connect_timeout": 10.0, **options})
    loads: list[int] = []

    @cache.versioned(namespace="forked")
    def f(x: int) -> int:
        loads.append(x)
        return x

    return cache, f, loads


# -- in processes of their own ------------------------------------------------------------------------------------------


def fork_after_use(url: str, prefix: str) -> Any:
    cache, f, loads = sync_function(url, prefix)
    f(1)

    def child() -> None:
        equal([f(1), f(2)], [1, 2])
        f.invalidate(1)
        equal(len(loads), 2)
        cache.close()

    statuses = [in_child(child) for _ in range(3)]
    f(1)
    f(2)
    return [statuses, loads, f.cache_info().store_errors]


def fork_with_threads_alive(url: str, prefix: str) -> Any:
    _cache, f, _ = sync_function(url, prefix, socket_timeout=10.0, socket_connect_timeout=10.0)
    stop = threading.Event()
    wrong: list[Any] = []

    def call(n: int) -> None:
        while not stop.is_set():
            n += 1
            try:
                if f(n % 20) != n % 20:
                    wrong.append(n)
                if n % 5 == 0:
                    f.invalidate(n % 20)
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()

    def child() -> None:
        for x in range(20):
            equal(f(x), x)
        f.invalidate_all()
        others = [threading.Thread(target=lambda: equal(f(1), 1)) for _ in range(3)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join()

    statuses = [in_child(child) for _ in range(6)]
    stop.set()
    for thread in threads:
        thread.join()
    return [statuses, wrong[:3]]


def fork_on_a_loop(url: str, prefix: str) -> Any:
    cache = Cache(url, prefix=prefix, socket_timeout=10.0, socket_connect_timeout=10.0)
    loads: list[int] = []

    @cache.versioned(namespace="forked")
    async def f(x: int) -> int:
        loads.append(x)
        await asyncio.sleep(0)
        return x

    async def parent() -> Any:
        await asyncio.gather(*(f(x) for x in range(10)))
        statuses = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    child_at_work()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            _, status = os.waitpid(pid, 0)
            statuses.append(os.waitstatus_to_exitcode(status))
            # The connections that the children had copies of still work.
            equal(await asyncio.gather(*(f(x) for x in range(10))), list(range(10)))
        return statuses

    def child_at_work() -> None:
        import gc

        unraisable: list[Any] = []
        sys.unraisablehook = unraisable.append

        async def child() -> None:
            equal(await asyncio.gather(*(f(x) for x in range(10))), list(range(10)))
            await f.invalidate(99)
            await cache.aclose()

        # As multiprocessing does: the loop that the child inherited is not its own.
        asyncio.set_event_loop(None)
        threading.Thread(target=lambda: asyncio.run(child())).start()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        gc.collect()
        equal(unraisable, [])
        equal(len(loads), 10)

    statuses = asyncio.run(parent())
    return [statuses, len(loads), f.cache_info().store_errors]


def fork_during_a_load(url: str, prefix: str) -> Any:
    cache = Cache(url, prefix=prefix, wait_timeout=30, socket_timeout=10.0, socket_connect_timeout=10.0)
    began, go = threading.Event(), threading.Event()
    parent = os.getpid()

    @cache.versioned(namespace="forked")
    def f(x: int) -> str:
        if os.getpid() == parent:
            began.set()
            go.wait(30)
            return "parent's"
        return "child's"

    results: list[str] = []
    loader = threading.Thread(target=lambda: results.append(f(1)))
    loader.start()
    began.wait(30)
    timer = threading.Timer(0.3, go.set)
    timer.start()
    got: list[str] = []
    status = in_child(lambda: equal(f(1), "child's" if url.startswith("memory") else "parent's"))
    loader.join()
    timer.join()
    return [status, results, got]


def fork_during_an_import(url: str, prefix: str) -> Any:
    """A module of memover is being imported by a thread when the process forks."""
    import importlib.abc
    import importlib.machinery

    began = threading.Event()

    class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            return importlib.machinery.ModuleSpec(name, self) if name == "memover.slow_to_import" else None

        def exec_module(self, module: Any) -> None:
            began.set()
            threading.Event().wait(0.3)
            module.ready = True

    sys.meta_path.insert(0, Slow())
    thread = threading.Thread(target=lambda: importlib.import_module("memover.slow_to_import"))
    thread.start()
    began.wait(30)
    status = in_child(lambda: equal(importlib.import_module("memover.slow_to_import").ready, True))
    thread.join()
    return status


def loops_one_after_another(url: str, prefix: str) -> Any:
    cache = Cache(url, prefix=prefix, socket_timeout=10.0, socket_connect_timeout=10.0)
    loads: list[int] = []

    @cache.versioned(namespace="loops")
    async def f(x: int) -> int:
        loads.append(x)
        return x

    async def twice() -> list[int]:
        return list(await asyncio.gather(f(1), f(1)))

    results = [asyncio.run(twice()) for _ in range(3)]

    async def ends() -> int:
        await f.invalidate_all()
        value = await f(1)
        await cache.aclose()
        return value

    return [results, asyncio.run(ends()), len(loads), f.cache_info().store_errors]


def loops_side_by_side(url: str, prefix: str) -> Any:
    cache = Cache(url, prefix=prefix, socket_timeout=10.0, socket_connect_timeout=10.0)
    loads: list[int] = []

    @cache.versioned(namespace="loops")
    async def f(x: int) -> int:
        loads.append(x)
        await asyncio.sleep(0.05)
        return x

    wrong: list[Any] = []

    async def many() -> None:
        for x in range(20):
            equal(await asyncio.gather(*(f(x) for _ in range(10))), [x] * 10)

    def loop() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [wrong, sorted(loads), f.cache_info().store_errors]


def a_loop_that_ends_in_the_middle(url: str, prefix: str) -> Any:
    """The leader's loop is gone before its load is over; a follower on another loop takes over."""
    cache = Cache(url, prefix=prefix, lease_ttl=120, wait_timeout=120, socket_timeout=10.0)
    loads: list[int] = []
    began, followed = threading.Event(), threading.Event()

    @cache.versioned(namespace="loops")
    async def f(x: int) -> int:
        loads.append(x)
        if len(loads) == 1:
            began.set()
            await asyncio.sleep(120)
        return x

    async def leader() -> None:
        task = asyncio.ensure_future(f(1))
        await await_until(followed.is_set, "the follower to wait for this load")
        del task  # left to the end of the loop

    async def follower() -> int:
        task = asyncio.ensure_future(f(1))
        flights = cache._state.flights
        await await_until(lambda: any(each.callers == 2 for each in list(flights.values())), "the load to be shared")
        followed.set()
        return int(await asyncio.wait_for(task, 20))

    results: list[int] = []
    first = threading.Thread(target=lambda: asyncio.run(leader()))
    first.start()
    began.wait(20)
    second = threading.Thread(target=lambda: results.append(asyncio.run(follower())))
    second.start()
    first.join()
    second.join()
    return [results, len(loads)]


# -- the tests ------------------------------------------------------------------------------------------------------------


def both(redis_url: str) -> list[str]:
    return ["memory://", redis_url]


def alone(task: Callable[..., Any], url: str, prefix: str) -> Any:
    (result,) = run_python(task, url, prefix, env=STRICT, timeout=90)
    return result


def test_a_child_starts_clean_after_a_fork(redis_url: str, prefix: str) -> None:
    """Parent and child use the cache after a fork: each on connections of its own, each with right answers."""
    statuses, loads, errors = alone(fork_after_use, redis_url, prefix)
    assert statuses == [0, 0, 0]
    assert loads == [1, 1], "the children had invalidated it, and one of them had loaded the other"
    assert errors == 0


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_forking_with_threads_in_the_middle_of_calls(store: str, redis_url: str, prefix: str) -> None:
    """Whatever lock or connection a thread of the parent has at that moment, the child can work."""
    statuses, wrong = alone(fork_with_threads_alive, "memory://" if store == "memory" else redis_url, prefix)
    assert statuses == [0] * 6
    assert wrong == []


def test_forking_on_a_running_loop(redis_url: str, prefix: str) -> None:
    """A fork from a coroutine: the child has a loop and connections of its own, the parent's keep working."""
    statuses, loads, errors = alone(fork_on_a_loop, redis_url, prefix)
    assert statuses == [0, 0, 0]
    assert loads == 10
    assert errors == 0


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_forking_during_a_load(store: str, redis_url: str, prefix: str) -> None:
    """The child does not wait for a thread that it does not have: it waits for the lease, or loads for itself."""
    status, results, _ = alone(fork_during_a_load, "memory://" if store == "memory" else redis_url, prefix)
    assert status == 0
    assert results == ["parent's"]


def test_forking_while_memover_imports_a_part_of_itself(redis_url: str, prefix: str) -> None:
    """A child does not wait for an import that a thread of its parent had begun."""
    assert alone(fork_during_an_import, redis_url, prefix) == 0


def test_a_child_owes_what_its_parent_owed(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """An invalidation that failed before the fork closes the namespace in the child too, until it is acknowledged."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        (result,) = run_python(fork_while_owing, proxy.url, prefix, server.pid, env=STRICT)
    assert result == [0, 0]


def fork_while_owing(url: str, prefix: str, server: int) -> Any:
    import signal

    cache, f, loads = sync_function(url, prefix, breaker_first=0.02, breaker_last=0.05, socket_timeout=0.25)
    f(1)
    os.kill(server, signal.SIGSTOP)
    try:
        f.invalidate_all()
    except InvalidationFailed:
        pass

    def child() -> None:
        before = len(loads)
        equal(f(1), 1)
        equal(len(loads), before + 1)
        os.kill(server, signal.SIGCONT)
        wait_until(lambda: not cache._state.witness.owed, "the child's repeat")
        equal(f(1), 1)
        hits = f.cache_info().hits
        equal(f(1), 1)
        equal(f.cache_info().hits, hits + 1)

    status = in_child(child)
    wait_until(lambda: not cache._state.witness.owed, "the parent's repeat")
    return [status, len(cache._state.witness.owed)]


def test_asyncio_run_may_be_called_any_number_of_times(redis_server: RedisServer, prefix: str) -> None:
    """Each loop has connections of its own, closed with it: three runs leave none behind, and no warning."""
    before = len(redis_server.run("CLIENT", "LIST").splitlines())
    results, value, loads, errors = alone(loops_one_after_another, redis_server.url, prefix)
    assert results == [[1, 1]] * 3
    assert (value, loads, errors) == (1, 2, 0)
    wait_until(lambda: len(redis_server.run("CLIENT", "LIST").splitlines()) <= before, "connections to be closed")


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_several_loops_share_their_loads(store: str, redis_url: str, prefix: str) -> None:
    """Four loops in four threads, ten tasks each, one load per call."""
    wrong, loads, errors = alone(loops_side_by_side, "memory://" if store == "memory" else redis_url, prefix)
    assert wrong == []
    assert loads == list(range(20))
    assert errors == 0


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_loop_that_ends_under_its_load_leaves_nobody_waiting(store: str, redis_url: str, prefix: str) -> None:
    """The loop of the leader is closed: a follower on another loop loads at once, and not after the lease."""
    results, loads = alone(a_loop_that_ends_in_the_middle, "memory://" if store == "memory" else redis_url, prefix)
    assert results == [1]
    assert loads == 2
