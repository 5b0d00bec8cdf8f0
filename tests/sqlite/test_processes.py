"""Several processes on one file: kill -9, forks, histories, event loops."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from memover import Cache
from memover.engine.store import Request
from memover.runtime.run import arun, run
from memover.stores.sqlite.file import File
from memover.stores.sqlite.forks import file_at
from memover.testing import start_history
from tests.servers import wait_until
from tests.sqlite.conftest import GENERATION, Child, check, keep, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from memover.stores.sqlite.store import SqliteStore

OPTIONS = {"lease_ttl": 1.0, "wait_timeout": 2.0, "socket_timeout": 5.0}
LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
"""


# -- histories ------------------------------------------------------------------------------------------------------------------


def test_four_processes_read_nothing_old(path: str) -> None:
    """A history without faults: nothing stale, nothing out of order, one load at a time."""
    with start_history(f"sqlite:///{path}", processes=4, keys=4, changes=0.15, options=OPTIONS) as history:
        time.sleep(4)
        report = history.stop()
    assert report.ok, str(report)
    assert check(path) == "ok"


@pytest.mark.slow
def test_histories_with_kill_9(path: str) -> None:
    """Three of four processes are killed in the middle: no stale read, no lost invalidation, an intact file."""
    rules = ("fresh", "closed", "no-future", "error")
    with start_history(f"sqlite:///{path}", processes=4, keys=4, changes=0.15, options=OPTIONS) as history:
        for index in range(3):
            time.sleep(2)
            history.kill(index)
        time.sleep(1)
        report = history.stop(rules=rules)
    assert report.ok, str(report)
    assert check(path) == "ok"


@pytest.mark.slow
def test_histories_in_which_the_file_is_deleted(path: str) -> None:
    """Deleted with its log, again and again, under four processes that use it.

    An invalidation that returned is of the file that was there when it returned. What another process answers within the
    millisecond after a deletion may still be of the file that is gone, so only an older value than that is a violation."""
    with start_history(f"sqlite:///{path}", processes=4, keys=4, changes=0.15, options=OPTIONS) as history:
        for _ in range(8):
            time.sleep(0.5)
            for ending in ("", "-wal", "-shm"):
                try:
                    os.unlink(path + ending)
                except FileNotFoundError:
                    pass
        time.sleep(0.5)
        report = history.stop(rules=("fresh", "no-future"), max_staleness=0.05)
    assert report.ok, str(report)
    assert check(path) == "ok"


_WRITER = """
import os, sys
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import keep, key_of, nonce

store = SqliteStore(sys.argv[1], Limits(lock_timeout=30.0, max_bytes=2_000_000))
mine = f"p:gen:{sys.argv[2]}".encode()
number = 0
print("ready", flush=True)
while True:
    number += 1
    (token,) = run(store.bump((mine,), nonce(), (0,), ()))
    print(token.decode(), flush=True)
    keep(store, key_of(f"{sys.argv[2]}-{number}"), os.urandom(number % 200_000 if number % 20 == 0 else 500), 60_000)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_no_acknowledged_invalidation(path: str, make: Callable[..., SqliteStore]) -> None:
    """A storm: four writers, killed and replaced all the time. Every token that was said to have moved has moved, and the
    file is intact after each."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, name], stdout=subprocess.PIPE, text=True, env=environment
        )

    writers = {name: start(name) for name in "abcd"}
    try:
        for round_number in range(12):
            name = "abcd"[round_number % 4]
            writer = writers[name]
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(20 + round_number)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
            writer.wait()
            writer.stdout.close()
            acknowledged = [line.strip().encode() for line in said if line.endswith("\n") and line != "ready\n"]
            store = make(max_bytes=2_000_000)
            (now,) = run(store.ensure((f"p:gen:{name}".encode(),), (0,), nonce()))
            assert int(now.split(b"-")[0]) >= int(acknowledged[-1].split(b"-")[0])
            writers[name] = start(name)
    finally:
        for writer in writers.values():
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    assert check(path) == "ok"


# -- forks ----------------------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], Any]) -> int:
    """The exit status of a forked child that does this: 0 if it returned True."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_starts_clean(store: SqliteStore, path: str) -> None:
    """The child has connections and locks of its own, and its invalidations reach the parent, and the other way round."""
    raw = keep(store, key_of("a"), b"x")

    def in_child() -> bool:
        assert not store._file.idle, "no connection came along"
        assert valid(store, key_of("a")) == raw
        run(store.bump((GENERATION,), nonce(), (0,), ()))
        return valid(store, key_of("a")) is None

    assert forked(in_child) == 0
    assert valid(store, key_of("a")) is None
    keep(store, key_of("a"), b"y")
    assert valid(store, key_of("a")) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_holds_its_own_locks(store: SqliteStore, path: str, child: Callable[..., Child]) -> None:
    """The parent closes its store, and a stranger opens and closes the file: the child's log is still the file's log, so
    that what it wrote is there for others. (With locks that it only believed to have, it would be gone.)"""
    keep(store, key_of("a"), b"x")
    ours, theirs = multiprocessing.Pipe()

    def in_child() -> bool:
        raw = keep(store, key_of("b"), b"first")
        theirs.send(raw)
        assert theirs.recv() == "closed by others"
        theirs.send(keep(store, key_of("c"), b"second"))
        return theirs.recv() == "read"

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if in_child() else 2
        finally:
            os._exit(status)
    raw = ours.recv()
    store.close()
    stranger = child(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1])
        print(connection.execute("SELECT count(*) FROM entries").fetchone()[0], flush=True)
        connection.close()
        sys.stdin.readline()
        """,
        path,
    )
    assert stranger.hear() == "2"
    stranger.close()
    ours.send("closed by others")
    second = ours.recv()
    assert valid(store, key_of("b")) == raw
    assert valid(store, key_of("c")) == second
    ours.send("read")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_while_threads_write(store: SqliteStore) -> None:
    """Threads write all the while: each child can read and write."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(name: str) -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                keep(store, key_of(f"{name}{number}"), b"x" * 2000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()

    def in_child() -> bool:
        keep(store, key_of(f"child{os.getpid()}"), b"x")
        return valid(store, key_of(f"child{os.getpid()}")) is not None

    try:
        assert [forked(in_child) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


# -- event loops ------------------------------------------------------------------------------------------------------------------


def test_a_loop_goes_on_while_a_stranger_has_the_lock(
    make: Callable[..., SqliteStore], path: str, child: Callable[..., Child]
) -> None:
    """What waits for the lock waits in a thread; the loop's own timers run."""
    store = make(lock_timeout=1.0)
    keep(store, key_of("a"), b"x")
    stranger = child(LOCKER, path)
    assert stranger.hear() == "locked"

    async def whole() -> tuple[int, Any]:
        writing = asyncio.ensure_future(arun(store.bump((GENERATION,), nonce(), (0,), ())))
        turns = 0
        while turns < 20:
            await asyncio.sleep(0.001)
            assert (await store.afetch(key_of("a"))).raw is not None
            turns += 1
        assert not writing.done()
        assert stranger.say("") == "free"
        return turns, await writing

    turns, moved = asyncio.run(whole())
    assert turns == 20
    assert store.fetch(key_of("a")).tokens == moved


def test_a_cancelled_write_leaves_no_lease(
    make: Callable[..., SqliteStore], path: str, child: Callable[..., Child]
) -> None:
    """A task that is cancelled while it asks for the lease: when the cancellation is through, no thread takes it any more."""
    store = make(lock_timeout=5.0)
    keep(store, key_of("a"), b"x")
    key = key_of("b")

    async def whole() -> None:
        for wait in (0.0, 0.0001, 0.001):
            token = nonce()

            async def attempt(token: str = token) -> None:
                try:
                    await arun(store.acquire(Request(key, token, 60_000, (), (0,))))
                finally:
                    await arun(store.release(key, token, False))

            task = asyncio.ensure_future(attempt())
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.wait({task})
            assert (await arun(store.look(key))).lease is None

    for _ in range(10):
        asyncio.run(whole())


# -- whole caches -----------------------------------------------------------------------------------------------------------------


def test_a_second_process_remembers(path: str, tmp_path: Any) -> None:
    """A script that is started again finds the results of the first time in the file."""
    script = tmp_path / "report.py"
    script.write_text(
        "from memover import Cache, versioned_cache\n"
        f"cache = Cache('sqlite:///{path}')\n"
        "@versioned_cache(namespace='slow', cache=cache)\n"
        "def slow(x):\n"
        "    print('computed', x)\n"
        "    return {'x': x}\n"
        "print(slow(1), slow(2))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    said = [
        subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert said == [["computed 1", "computed 2", "{'x': 1} {'x': 2}"], ["{'x': 1} {'x': 2}"]]


def test_invalidations_made_while_locked_are_loud_and_repeated(
    path: str, child: Callable[..., Child], prefix: str
) -> None:
    """P8 on a file: InvalidationFailed, nothing served meanwhile, and taken when the lock is free."""
    from memover.errors import InvalidationFailed

    with Cache(f"sqlite:///{path}", prefix=prefix, socket_timeout=0.1) as cache:
        value = 1

        @cache.versioned(namespace="loud")
        def f() -> int:
            return value

        assert f() == 1
        stranger = child(LOCKER, path)
        assert stranger.hear() == "locked"
        value = 2
        with pytest.raises(InvalidationFailed):
            f.invalidate_all()
        assert f() == 2
        value = 3
        assert f() == 3, "nothing is served under it until the invalidation is through"
        assert stranger.say("") == "free"
        wait_until(lambda: f() == f() and f.cache_info().hits > 0, "the invalidation to be acknowledged")
        assert f() == 3


def test_one_file_is_one_pool(path: str, make: Callable[..., SqliteStore]) -> None:
    """Two stores of one process on one path share its connections, so that they can be closed together."""
    assert make()._file is make()._file
    assert file_at(path) is make()._file


FOLLOWED = """
import sys
from memover import Cache, versioned_cache

cache = Cache("sqlite:///" + sys.argv[1], ttl=None)

def rate(x):
    return x * 2

@versioned_cache(namespace="followed", follow_code=True, cache=cache)
def price(x):
    print("computed", x)
    return rate(x) + 1

print(price(1), price.map([1, 2]))
"""


def test_an_edited_function_is_computed_anew_and_an_unchanged_one_remembered(path: str, tmp_path: Path) -> None:
    """`follow_code` over fresh processes on one file: the body, and the functions it calls, decide; comments and layout do
    not; what is put back finds its earlier results."""
    script = tmp_path / "prices.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}

    def said(source: str) -> list[str]:
        script.write_text(source)
        return subprocess.run(
            [sys.executable, str(script), path], capture_output=True, text=True, env=environment, check=True
        ).stdout.splitlines()

    assert said(FOLLOWED) == ["computed 1", "computed 2", "3 [3, 5]"]
    assert said(FOLLOWED) == ["3 [3, 5]"]
    assert said(FOLLOWED.replace("def rate(x):", "def rate(x):  # of 2024\n")) == ["3 [3, 5]"]
    assert said(FOLLOWED.replace("rate(x) + 1", "rate(x) + 10")) == ["computed 1", "computed 2", "12 [12, 14]"]
    assert said(FOLLOWED.replace("x * 2", "x * 3")) == ["computed 1", "computed 2", "4 [4, 7]"]
    assert said(FOLLOWED) == ["3 [3, 5]"]


_COMMITTER = """
import os, sys
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import keep, key_of, nonce

store = SqliteStore(sys.argv[1], Limits(lock_timeout=30.0))
number = 0
while True:
    number += 1
    keep(store, key_of(f"{os.getpid()}-{number}"), os.urandom(500), 60_000)
    if number == 1:
        print("ready", flush=True)
"""


def test_nothing_that_may_wait_is_done_on_an_event_loop(
    path: str, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """While four processes write: in the loop's thread statements are performed that never wait for a lock, and no others,
    so that its timers are late by one statement at most. (How late they are, `benchmarks/bench_sqlite.py` measures.)"""
    writers = [child(_COMMITTER, path) for _ in range(4)]
    for writer in writers:
        assert writer.hear() == "ready"
    performed: list[tuple[bool, bool]] = []
    real = File._perform

    def perform(file: File, how: Any, sql: str, parameters: Any, deadline: float | None) -> Any:
        performed.append((threading.current_thread() is threading.main_thread(), deadline is not None))
        return real(file, how, sql, parameters, deadline)

    monkeypatch.setattr(File, "_perform", perform)

    async def whole() -> None:
        async with Cache(f"sqlite:///{path}", prefix=prefix, socket_timeout=30.0) as cache:

            @cache.versioned(namespace="looped")
            async def number(x: int) -> int:
                return x

            for x in range(50):
                assert await number(x) == x
                assert await number(x) == x
            assert await number.map(range(60)) == list(range(60))
            await number.invalidate(3)
            await number.invalidate_all()
            await cache.aset("k", 1)
            assert await cache.aget("k") == 1
            assert await cache.aincr("k") == 2

    asyncio.run(whole())
    assert (True, False) in performed and (False, True) in performed, "reads in the loop's thread, writes in others"
    assert (True, True) not in performed
