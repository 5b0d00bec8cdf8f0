"""What may happen to the file: foreign, newer, damaged, deleted, replaced, read-only, full."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import ConfigurationError, StoreTimeout, StoreUnavailable
from memover.runtime.run import run
from memover.stores.sqlite import guards
from memover.stores.sqlite.schema import APPLICATION_ID, USER_VERSION
from memover.stores.sqlite.store import SqliteStore
from tests.servers import wait_until
from tests.sqlite.conftest import GENERATION, Child, check, keep, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_format_is_in_the_file(store: SqliteStore, path: str) -> None:
    """application_id and user_version, with every table, in a file that `PRAGMA integrity_check` accepts."""
    keep(store, key_of("a"), b"x")
    store.close()
    head = Path(path).read_bytes()[:100]
    assert int.from_bytes(head[68:72], "big") == APPLICATION_ID
    assert int.from_bytes(head[60:64], "big") == USER_VERSION
    assert check(path) == "ok"
    assert sorted(os.listdir(os.path.dirname(path))) == ["store.db", "store.db-lock", "store.db-marks"], (
        "the log goes with the last user"
    )


# -- what is no store ---------------------------------------------------------------------------------------------------------


def foreign_text(path: str) -> None:
    Path(path).write_text("user,amount\n1,2\n" * 500)


def foreign_database(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE entries (id)")
        connection.execute("INSERT INTO entries VALUES (1)")
    connection.close()


def newer_store(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={USER_VERSION + 1}")
        connection.execute("CREATE TABLE other (id)")
    connection.close()


def half_a_header(path: str) -> None:
    Path(path).write_bytes(b"SQLite format 3\0" + bytes(20))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list descriptors there")
def test_stores_that_are_gone_leave_one_descriptor_of_their_file(path: str) -> None:
    """It is never closed, because of the locks; a process that opens the file again and again has one of it all the same."""

    def descriptors() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{each}") == path for each in os.listdir("/proc/self/fd"))

    for _ in range(5):
        store = SqliteStore(path)
        keep(store, key_of("a"), b"x")
        store.close()
        del store
        gc.collect()
        assert descriptors() == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list descriptors there")
def test_the_descriptor_of_a_file_that_is_gone_is_closed_when_nobody_may_read_it(path: str, tmp_path: Path) -> None:
    """By whoever opens another file next; a store of this process may be about to read it, and keeps it open."""

    def left() -> bool:
        return any(
            os.path.realpath(f"/proc/self/fd/{each}") == f"{path} (deleted)" for each in os.listdir("/proc/self/fd")
        )

    def open_another(name: str) -> None:
        another = SqliteStore(str(tmp_path / name))
        keep(another, key_of("a"), b"x")
        another.close()

    store = SqliteStore(path)
    keep(store, key_of("a"), b"x")
    store.close()
    for ending in ("", "-lock", "-marks"):
        os.unlink(path + ending)
    open_another("second.db")
    assert left()
    del store
    gc.collect()
    open_another("third.db")
    assert not left()


@pytest.mark.parametrize(
    ("make_file", "words"),
    [
        (foreign_text, "not a memover store"),
        (foreign_database, "another application"),
        (newer_store, f"format {USER_VERSION + 1}"),
        (half_a_header, "another application"),
    ],
)
def test_a_file_of_others_is_refused_and_not_touched(
    store: SqliteStore, path: str, make_file: Callable[[str], None], words: str
) -> None:
    """ConfigurationError that names it; not a byte changes, and nothing appears beside it."""
    make_file(path)
    before, state = Path(path).read_bytes(), os.stat(path)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=words) as caught:
            store.fetch(key_of("a"))
        assert path in str(caught.value)
    with pytest.raises(ConfigurationError, match=words):
        run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert Path(path).read_bytes() == before
    assert os.stat(path).st_mtime_ns == state.st_mtime_ns
    assert os.listdir(os.path.dirname(path)) == ["store.db"]


@pytest.mark.parametrize("kind", [ConfigurationError, StoreUnavailable, KeyboardInterrupt])
@pytest.mark.parametrize("first", ["fetch", "bump"])
def test_what_is_raised_while_the_file_is_opened_has_nothing_of_the_stores_own_before_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], first: str
) -> None:
    """Its traceback begins with the mistake, or with Ctrl-C, and not with a search for an open connection that found none."""

    def connect(*_: object) -> None:
        raise kind("raised while the file is opened")

    monkeypatch.setattr("memover.stores.sqlite.opening.FileOpener.connect", connect)
    ways: dict[str, Callable[[], object]] = {
        "fetch": lambda: store.fetch(key_of("a")),
        "bump": lambda: run(store.bump((GENERATION,), nonce(), (0,), ())),
    }
    with pytest.raises(kind, match="raised while") as caught:
        ways[first]()
    assert caught.value.__context__ is None


def test_what_is_raised_while_a_read_is_done_again_has_nothing_of_the_stores_own_before_it(
    store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that failed is done again, and may wait for a lock then: Ctrl-C has no error of SQLite's before it."""
    keep(store, key_of("a"), b"x" * 100_000)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DROP TABLE entries")
    other.execute("COMMIT")
    other.close()

    def read(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memover.stores.sqlite.reading.Reader.read", read)
    with pytest.raises(KeyboardInterrupt) as caught:
        store.fetch(key_of("a"))
    assert caught.value.__context__ is None


def test_a_look_at_a_foreign_file_drops_none_of_its_locks(
    store: SqliteStore, path: str, child: Callable[..., Child]
) -> None:
    """A process that has the file open as its own database, and gives it to a cache by mistake, keeps its locks."""
    foreign_database(path)
    own = sqlite3.connect(path, isolation_level=None)
    own.execute("PRAGMA journal_mode=DELETE")
    own.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfigurationError):
        store.fetch(key_of("a"))
    other = child(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            print(error)
        else:
            print("not locked any more")
        """,
        path,
    )
    assert other.hear() == "database is locked"
    own.close()


def test_a_directory_that_came_to_be_there_is_refused(store: SqliteStore, path: str) -> None:
    os.mkdir(path)
    with pytest.raises(ConfigurationError, match="not a file"):
        store.fetch(key_of("a"))


def test_an_empty_file_is_begun_as_a_store(store: SqliteStore, path: str) -> None:
    """As `tempfile` makes them; it keeps its mode."""
    Path(path).touch()
    os.chmod(path, 0o640)
    raw = keep(store, key_of("a"), b"x")
    assert valid(store, key_of("a")) == raw
    assert os.stat(path).st_mode & 0o777 == 0o640


# -- damage -------------------------------------------------------------------------------------------------------------------


def filled(make: Callable[..., SqliteStore], path: str) -> int:
    """A closed store of some dozens of pages; how many."""
    store = make()
    for number in range(60):
        keep(store, key_of(str(number)), bytes(2000), names=())
    store.close()
    return os.stat(path).st_size // 4096


def test_truncated_at_every_page_boundary(make: Callable[..., SqliteStore], path: str, tmp_path: Path) -> None:
    """Moved aside, reported, and begun anew; an empty file is simply begun. No call raises."""
    pages = filled(make, path)
    whole = Path(path).read_bytes()
    assert pages > 30
    for page in range(pages):
        directory = tmp_path / str(page)
        directory.mkdir()
        (directory / "store.db").write_bytes(whole[: page * 4096])
        store = make(str(directory / "store.db"))
        for number in range(60):
            assert valid(store, key_of(str(number))) is None
        raw = keep(store, key_of("new"), b"x")
        assert valid(store, key_of("new")) == raw
        store.close()
        assert check(str(directory / "store.db")) == "ok"
        aside = [name for name in os.listdir(directory) if ".damaged-" in name and not name.endswith(("-wal", "-shm"))]
        assert len(aside) == (page > 0), page


def test_damage_is_moved_aside_and_reported(
    make: Callable[..., SqliteStore], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The bytes are kept under another name, logger `memover` names both, and generations go on where they were."""
    filled(make, path)
    store = make()
    before = store.fetch(key_of("1")).tokens[0]
    assert before is not None
    store.close()
    damaged = bytearray(Path(path).read_bytes())
    for at in range(4096, len(damaged) - 4096, 4096):
        damaged[at : at + 2000] = os.urandom(2000)
    Path(path).write_bytes(damaged)
    with caplog.at_level(logging.ERROR, "memover"):
        raw = keep(store, key_of("new"), b"x")
    assert valid(store, key_of("new")) == raw
    aside = [name for name in os.listdir(os.path.dirname(path)) if ".damaged-" in name]
    aside = [name for name in aside if not name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1
    assert Path(path).with_name(aside[0]).read_bytes() == damaged
    assert path in caplog.text and aside[0] in caplog.text
    after = store.fetch(key_of("1")).tokens[0]
    assert after is not None and int(after.split(b"-")[0]) > int(before.split(b"-")[0])


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_gives_a_wrong_answer(make: Callable[..., SqliteStore], path: str, seed: int) -> None:
    """Whatever bytes are overwritten in the middle of use: an entry comes back as it was stored or not at all."""
    import random

    store = make()
    chance = random.Random(seed)
    stored = {name: keep(store, key_of(name), chance.randbytes(900)) for name in map(str, range(40))}
    store.close()
    damaged = bytearray(Path(path).read_bytes())
    for _ in range(chance.choice((1, 5, 50))):
        at = chance.randrange(100, len(damaged) - 64)
        damaged[at : at + 16] = chance.randbytes(16)
    Path(path).write_bytes(damaged)
    for name, raw in stored.items():
        try:
            seen = store.fetch(key_of(name))
        except StoreUnavailable:
            continue
        if seen.raw == raw or seen.raw is None:
            continue
        from memover.codec.envelope import payload_of, read_header
        from memover.errors import DamagedEntry

        with pytest.raises(DamagedEntry):
            payload_of(seen.raw, read_header(seen.raw, key_of(name).entry))
    new = key_of("after")
    keep(store, new, b"y")
    assert valid(store, new) is not None


# -- deleted, replaced --------------------------------------------------------------------------------------------------------


def pause() -> None:
    """Until reads look at the file again."""
    time.sleep(0.002)


def test_a_deleted_file_is_noticed_and_begun_anew(store: SqliteStore, path: str) -> None:
    """By reads within a millisecond; with higher generations, and no trace of the old log."""
    keep(store, key_of("a"), b"x")
    before = store.fetch(key_of("a")).tokens[0]
    assert before is not None
    for ending in ("", "-wal", "-shm"):
        os.unlink(path + ending)
    pause()
    seen = store.fetch(key_of("a"))
    assert (*seen.tokens, seen.raw) == (None, None)
    keep(store, key_of("a"), b"y")
    after = store.fetch(key_of("a")).tokens[0]
    assert after is not None and int(after.split(b"-")[0]) > int(before.split(b"-")[0])
    store.close()
    assert check(path) == "ok"


def test_only_the_file_deleted(store: SqliteStore, path: str) -> None:
    """The log that stays behind is not read into the new file."""
    keep(store, key_of("a"), b"x")
    os.unlink(path)
    pause()
    assert valid(store, key_of("a")) is None
    store.close()
    assert check(path) == "ok"


def test_an_invalidation_is_of_the_file_that_is_there(
    store: SqliteStore, make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has begun a new file: an invalidation right after that reaches it, although no read has noticed."""
    keep(store, key_of("a"), b"x")
    store._file.look(store._file.moment)
    elsewhere = path + ".other"
    other = make(elsewhere)
    raw = keep(other, key_of("a"), b"theirs")
    other.close()
    monkeypatch.setattr(store._file, "look", lambda moment: None)  # all within one millisecond
    for ending in ("-wal", "-shm"):
        os.unlink(path + ending)
    os.replace(elsewhere, path)
    (moved,) = run(store.bump((GENERATION,), nonce(), (0,), ()))
    third = make()
    seen = third.fetch(key_of("a"))
    assert seen.tokens[0] == moved
    assert seen.raw == raw
    assert valid(third, key_of("a")) is None


def test_a_file_truncated_under_a_process_is_moved_aside_and_begun_anew(store: SqliteStore, path: str) -> None:
    """Cut to half, with its log gone: no wrong answer, and the store works again."""
    for number in range(50):
        keep(store, key_of(str(number)), bytes(3000))
    run(store.bump((b"p:gen:other",), nonce(), (0,), ()))
    store.close()
    size = os.path.getsize(path)
    assert valid(store, key_of("1")) is not None
    os.truncate(path, size // 2)

    def works_again() -> bool:
        pause()
        try:
            return keep(store, key_of("a"), b"y") == valid(store, key_of("a"))
        except StoreUnavailable:
            return False

    wait_until(works_again, "the store to work again")
    store.close()
    assert check(path) == "ok"


@pytest.mark.parametrize("left", [1, 40, 59])
@pytest.mark.parametrize("zeros", [0, 8192])
def test_a_header_that_is_cut_off_is_damage(store: SqliteStore, path: str, left: int, zeros: int) -> None:
    """Under a process that uses the store, and with what a writer made of it since: the file grows again, by zeros."""
    keep(store, key_of("a"), b"x")
    store.close()
    whole = Path(path).read_bytes()
    os.truncate(path, left)
    if zeros:
        os.truncate(path, zeros)
    pause()
    assert valid(store, key_of("a")) is None
    raw = keep(store, key_of("a"), b"y")
    assert valid(store, key_of("a")) == raw
    (aside,) = (name for name in os.listdir(os.path.dirname(path)) if ".damaged-" in name)
    assert Path(os.path.dirname(path), aside).read_bytes() == whole[:left] + bytes(max(0, zeros - left))
    store.close()
    assert check(path) == "ok"


@pytest.mark.parametrize("head", [b"SQLite format 3\0", bytes(8192)])
def test_a_header_that_is_cut_off_is_nobodys_without_a_lock_file(
    make: Callable[..., SqliteStore], path: str, head: bytes
) -> None:
    """No store was ever there, so what is there is not touched."""
    Path(path).write_bytes(head)
    with pytest.raises(ConfigurationError, match="not touched"):
        make().fetch(key_of("a"))
    assert Path(path).read_bytes() == head
    assert os.listdir(os.path.dirname(path)) == ["store.db"]


def test_a_foreign_file_put_in_its_place_is_refused_and_not_touched(store: SqliteStore, path: str) -> None:
    """Under a process that uses the store; with the store's own file back, it goes on."""
    raw = keep(store, key_of("a"), b"x")
    store.close()
    os.replace(path, path + ".ours")
    Path(path).write_bytes(b"somebody else's notes")
    pause()
    with pytest.raises(ConfigurationError, match="not a memover store"):
        store.fetch(key_of("a"))
    with pytest.raises(ConfigurationError, match="not a memover store"):
        run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert Path(path).read_bytes() == b"somebody else's notes"
    os.replace(path + ".ours", path)
    pause()
    assert valid(store, key_of("a")) == raw


def test_an_older_copy_put_back_is_healed_by_the_floor(store: SqliteStore, path: str, tmp_path: Path) -> None:
    """A process that has seen a later generation puts it back, beyond what it has seen, before it trusts anything."""
    from memover.engine.store import Request

    keep(store, key_of("a"), b"old")
    store.close()
    shutil.copy(path, tmp_path / "copy")
    (seen,) = run(store.bump((GENERATION,), nonce(), (0,), ()))
    floor = int(seen.split(b"-")[0])
    store.close()
    os.replace(tmp_path / "copy", path)
    pause()
    assert valid(store, key_of("a")) is not None, "the old state: this is what the floor is for"
    granted = run(store.acquire(Request(key_of("a"), nonce(), 1000, (), (floor,))))
    assert int(granted.seen.tokens[0].split(b"-")[0]) > floor
    assert valid(store, key_of("a")) is None


def test_processes_that_use_the_file_follow_to_the_new_one(
    store: SqliteStore, path: str, child: Callable[..., Child]
) -> None:
    """Deleted under two processes: both go on with the same new file, and see each other's invalidations."""
    other = child(_FOLLOWER, path)
    keep(store, key_of("a"), b"x")
    assert other.say("keep") == "kept"
    assert valid(store, key_of("b")) is not None
    for ending in ("", "-wal", "-shm"):
        os.unlink(path + ending)
    assert other.say("keep") == "kept"
    pause()
    assert valid(store, key_of("b")) is not None
    run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert other.say("valid") == "False"
    assert other.say("keep") == "kept"
    assert other.say("bump") == "bumped"
    assert valid(store, key_of("b")) is None


_FOLLOWER = """
import sys
import time
from memover.runtime.run import run
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import GENERATION, keep, key_of, nonce, valid

store = SqliteStore(sys.argv[1])
for line in sys.stdin:
    time.sleep(0.002)  # until reads look at the file again: a lease taken in the old one is of no use in the new one
    if line.strip() == "keep":
        keep(store, key_of("b"), b"x")
        print("kept", flush=True)
    elif line.strip() == "valid":
        print(valid(store, key_of("b")) is not None, flush=True)
    else:
        run(store.bump((GENERATION,), nonce(), (0,), ()))
        print("bumped", flush=True)
"""


# -- no room, no rights ---------------------------------------------------------------------------------------------------------


def test_a_file_that_may_not_be_written_is_read_and_works_again_later(child: Callable[..., Child], path: str) -> None:
    """Reads go on, writes are StoreUnavailable; when it may be written again, this very process writes again."""
    if os.getuid() != 0:
        pytest.skip("needs root, to give the file to another user and take it back")
    os.chmod(os.path.dirname(path), 0o777)
    parent = Path(path).parent
    while parent != Path("/tmp") and parent != parent.parent:
        os.chmod(parent, os.stat(parent).st_mode | 0o111)
        parent = parent.parent
    other = child(_READ_ONLY, path)
    assert other.say("keep") == "kept"
    assert other.say("close") == "closed"
    os.chmod(path, 0o444)
    os.chown(path, 0, 0)
    assert other.say("valid") == "True"
    assert other.say("bump").startswith("StoreUnavailable")
    assert other.say("valid") == "True"
    os.chmod(path, 0o666)
    assert other.say("bump") == "bumped"
    assert other.say("valid") == "False"


_READ_ONLY = """
import os, sys
from memover.errors import StoreError
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import GENERATION, keep, key_of, nonce, valid

os.setgid(65534)
os.setuid(65534)
store = SqliteStore(sys.argv[1], Limits(breaker_first_seconds=0.001, breaker_last_seconds=0.001))
for line in sys.stdin:
    try:
        if line.strip() == "keep":
            keep(store, key_of("b"), b"x")
            print("kept", flush=True)
        elif line.strip() == "valid":
            print(valid(store, key_of("b")) is not None, flush=True)
        elif line.strip() == "close":
            store.close()
            print("closed", flush=True)
        else:
            run(store.bump((GENERATION,), nonce(), (0,), ()))
            print("bumped", flush=True)
    except StoreError as error:
        print(type(error).__name__, str(error).replace("\\n", " "), flush=True)
"""


def test_a_directory_that_may_not_be_written_is_unavailable_until_it_may(
    child: Callable[..., Child], path: str
) -> None:
    """Nothing can be begun there: StoreUnavailable that names the directory; this very process begins the store later."""
    if os.getuid() != 0:
        pytest.skip("needs root, to give the directory to another user and take it back")
    parent = Path(path).parent
    os.chmod(parent, 0o755)
    while parent != Path("/tmp") and parent != parent.parent:
        os.chmod(parent, os.stat(parent).st_mode | 0o111)
        parent = parent.parent
    other = child(_READ_ONLY, path)
    said = other.say("keep")
    assert said.startswith("StoreUnavailable") and "may write to its directory" in said
    assert not Path(path).exists()
    os.chmod(os.path.dirname(path), 0o777)
    wait_until(lambda: other.say("keep") == "kept", "the store to be begun")
    assert other.say("valid") == "True"
    assert other.say("bump") == "bumped"


def test_a_full_disk_is_unavailable_and_loses_nothing(child: Callable[..., Child], path: str) -> None:
    """Entries are not stored, invalidations raise, what is there is served; with room again, everything works."""
    other = child(_FULL, path)
    said = other.say("fill")
    assert said.startswith("StoreUnavailable"), said
    assert other.say("no room") == "no room"
    assert other.say("bump").startswith("StoreUnavailable")
    assert other.say("valid") == "True"
    assert other.say("room") == "room"
    assert other.say("bump") == "bumped"
    assert other.say("valid") == "False"
    other.close()
    assert check(path) == "ok"


_FULL = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from memover.errors import StoreError
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import GENERATION, keep, key_of, nonce, valid

store = SqliteStore(sys.argv[1], Limits(breaker_first_seconds=0.001, breaker_last_seconds=0.001))
keep(store, key_of("b"), b"x")
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
number = 0
for line in sys.stdin:
    try:
        if line.strip() == "fill":
            while True:
                number += 1
                keep(store, key_of(str(number)), os.urandom(20_000))
        elif line.strip() == "valid":
            print(valid(store, key_of("b")) is not None, flush=True)
        elif line.strip() == "no room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            print("no room", flush=True)
        elif line.strip() == "room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print("room", flush=True)
        else:
            run(store.bump((GENERATION,), nonce(), (0,), ()))
            print("bumped", flush=True)
    except StoreError as error:
        print(type(error).__name__, str(error).replace("\\n", " "), flush=True)
"""


# -- a stranger's lock --------------------------------------------------------------------------------------------------------------

_STRANGER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    connection.execute(line.strip())
    print("done", flush=True)
"""


@pytest.mark.parametrize("kind", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_a_strangers_lock_costs_one_budget_and_no_reader(
    make: Callable[..., SqliteStore], path: str, child: Callable[..., Child], kind: str
) -> None:
    """Reads go on; the first write waits for the budget and raises StoreTimeout, further ones do not wait at all, and
    invalidations try each time."""
    store = make(lock_timeout=0.3, breaker_first_seconds=60.0, breaker_last_seconds=60.0)
    raw = keep(store, key_of("a"), b"x")
    stranger = child(_STRANGER, path)
    assert stranger.say(kind) == "done"
    assert valid(store, key_of("a")) == raw
    began = time.monotonic()
    with pytest.raises(StoreTimeout, match="transaction open"):
        run(store.ensure((b"p:gen:new",), (0,), nonce()))
    assert time.monotonic() - began >= 0.3
    for _ in range(100):
        with pytest.raises(StoreUnavailable, match="left alone"):
            run(store.ensure((b"p:gen:new",), (0,), nonce()))
    assert valid(store, key_of("a")) == raw
    with pytest.raises(StoreTimeout):
        run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert valid(store, key_of("a")) == raw
    assert stranger.say("COMMIT") == "done"
    run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert valid(store, key_of("a")) is None
    run(store.ensure((b"p:gen:new",), (0,), nonce()))


def test_the_budget_is_the_whole_calls(
    make: Callable[..., SqliteStore], path: str, child: Callable[..., Child]
) -> None:
    """A call of several statements waits once for its budget, not once for each."""
    store = make(lock_timeout=0.4)
    keys = [key_of(str(number), b"p:tag:%d" % number) for number in range(20)]
    keep(store, key_of("a"), b"x")
    stranger = child(_STRANGER, path)
    assert stranger.say("BEGIN IMMEDIATE") == "done"
    from memover.engine.store import Request

    began = time.monotonic()
    with pytest.raises(StoreTimeout):
        run(store.acquire_many([Request(key, nonce(), 1000, (), (0, 0)) for key in keys]))
    assert time.monotonic() - began < 20 * 0.4


def test_a_lock_that_was_left_at_the_moment_of_its_return_is_unlocked(store: SqliteStore) -> None:
    """An exception from outside there leaves the open file to its traceback alone, which somebody may keep."""

    def strike(frame: Any, event: str, argument: object) -> Any:
        if event == "return" and frame.f_code is guards.lock.__code__:
            raise KeyboardInterrupt
        return strike

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        with pytest.raises(KeyboardInterrupt) as kept:
            store.fetch(key_of("a"))
    finally:
        sys.settrace(before)
    assert store.fetch(key_of("a")).raw is None
    assert kept.value.__traceback__ is not None
