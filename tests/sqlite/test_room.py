"""What is stored grows with what lives: expired rows, the least recently used, tokens, leases, long entries, the log."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.engine.store import TOKEN_MARGIN_MS, Request, StoredEntry
from memover.errors import StoreError
from memover.runtime.run import run
from memover.stores.sqlite import direct, file, keyvalue, moments, reading, tidy, writing
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite import store as stores
from memover.stores.sqlite.schema import PIECE_BYTES
from tests.servers import wait_until
from tests.sqlite.conftest import GENERATION, entry_bytes, header_of, keep, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.stores.sqlite.store import SqliteStore
    from tests.sqlite.conftest import Child


def count(store: SqliteStore, table: str) -> int:
    ((rows,),) = store._file.rows(f"SELECT count(*) FROM {table}", (), None)
    return int(rows)


def pages(store: SqliteStore) -> tuple[int, int]:
    """The length that the file has, or gets when the log is copied into it; and how much of it is taken."""
    ((number, free),) = store._file.rows(
        "SELECT (SELECT page_count FROM pragma_page_count), (SELECT freelist_count FROM pragma_freelist_count)",
        (),
        None,
    )
    return number * 4096, (number - free) * 4096


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The machine's clock, as the store sees it, is ahead from now on."""
    real = moments.time_ms

    def ahead() -> int:
        return real() + int(seconds * 1000)

    for module in (direct, file, keyvalue, reading, stores, tidy, writing):
        monkeypatch.setattr(module, "time_ms", ahead)


def test_the_file_stays_within_max_bytes(make: Callable[..., SqliteStore], path: str) -> None:
    """Ten times as much as fits is written; at no moment is the file longer than the limit."""
    store = make(max_bytes=1_000_000)
    longest = 0
    for number in range(2000):
        keep(store, key_of(str(number)), os.urandom(5000))
        longest = max(longest, os.stat(path).st_size)
    assert 500_000 < longest <= 1_000_000
    assert valid(store, key_of("1999")) is not None
    assert valid(store, key_of("0")) is None
    assert store.tidy(10)
    assert os.stat(path).st_size + os.stat(path + "-wal").st_size < 1_000_000 + (24 << 20)


def test_a_small_file_stays_within_max_bytes(make: Callable[..., SqliteStore]) -> None:
    """Of 29 pages: what rounding to whole pages takes is counted, too."""
    store, sizes, longest = make(max_bytes=120_000), random.Random(0), 0
    for number in range(1500):
        keep(store, key_of(str(number)), os.urandom(sizes.randrange(2000)))
        longest = max(longest, pages(store)[0])
    assert 80_000 < longest <= 120_000


def test_processes_that_write_little_stay_within_max_bytes(make: Callable[..., SqliteStore]) -> None:
    """Scripts that store an entry or two, and end, however they do: what others left is seen to by each."""
    for number in range(400):
        store = make(max_bytes=120_000)
        keep(store, key_of(str(number)), os.urandom(1000))
    assert pages(store)[0] <= 120_000
    assert valid(store, key_of("399")) is not None
    assert 20 < count(store, "entries") < 100


def test_expired_entries_of_processes_that_write_little_leave(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of what nobody can read any more, far from the limit."""
    store = make()
    for number in range(200):
        keep(store, key_of(f"old{number}"), b"x", 1000)
    later(monkeypatch, 2)
    for number in range(10):
        keep(make(), key_of(f"new{number}"), b"x", 3_600_000)
    assert count(store, "entries") == 10


def test_a_step_that_found_the_file_locked_is_made_with_the_next_write(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when as much has been written again."""
    store = make(max_bytes=1_000_000)
    keep(store, key_of("first"), b"x")
    steps: list[bool] = []
    real = store._tidier.step

    def step(*arguments: Any) -> bool:
        steps.append(len(steps) < 3)
        if steps[-1]:
            raise file.Busy
        return real(*arguments)

    monkeypatch.setattr(store._tidier, "step", step)
    keep(store, key_of("much"), os.urandom(60_000))
    for number in range(5):
        keep(store, key_of(str(number)), b"x")
    assert steps == [True, True, True, False]


def test_a_file_that_several_filled_too_far_shrinks_to_max_bytes(make: Callable[..., SqliteStore]) -> None:
    """Each writes a thirty-second of the limit before it sees to the room: together that may be too much, for a moment."""
    stores = [make(max_bytes=2_000_000, lock_timeout=30.0) for _ in range(12)]
    for number, store in enumerate(stores):
        keep(store, key_of(f"first{number}"), b"x")
    longest, number = 0, 0
    for _ in range(30):
        for _ in range(10):
            for store in stores:
                number += 1
                keep(store, key_of(str(number)), os.urandom(5000))
                longest = max(longest, pages(store)[0])
    assert longest < 2_000_000 + 12 * (2_000_000 // 32 + 5000 + 4096)
    wait_until(lambda: stores[0].tidy(10) and pages(stores[0])[0] <= 2_000_000, "a file of that length")
    assert pages(stores[0])[1] > 1_000_000


def test_tokens_of_tags_leave_room_for_entries(make: Callable[..., SqliteStore]) -> None:
    """Entries without ttl need theirs for ever: of very many the older ones go, and what stands under them is a miss."""
    store, longest = make(max_bytes=1_000_000), 0
    for number in range(8000):
        tag = f"p:tag:{number}".encode()
        keep(store, key_of(str(number), tag), os.urandom(500), 0, names=(tag,))
        longest = max(longest, pages(store)[0])
    assert longest <= 1_000_000
    assert 1000 < count(store, "tokens") < 7000
    assert count(store, "entries") > 100
    assert store.fetch(key_of("7999", b"p:tag:7999")).tokens.count(None) == 0
    generations = store._file.rows("SELECT name FROM tokens WHERE name NOT LIKE 'p:tag:%'", (), None)
    assert generations == [(GENERATION.decode(),)]


def test_tokens_leave_room_for_entries_of_processes_that_write_little(make: Callable[..., SqliteStore]) -> None:
    """The same of scripts, each with a few tags of its own."""
    store = make(max_bytes=200_000)
    for number in range(3000):
        if not number % 4:
            store = make(max_bytes=200_000)
        tag = f"p:tag:{number}".encode()
        keep(store, key_of(str(number), tag), os.urandom(500), 0, names=(tag,))
    assert pages(store)[0] <= 200_000
    assert count(store, "entries") > 10


def test_a_token_that_made_room_can_only_cause_misses(path: str) -> None:
    """What a process has kept under it goes with the next invalidation all the same, and nothing older comes back."""
    value = [1]
    with Cache(f"sqlite:///{path}", ttl=None) as cache, Cache(f"sqlite:///{path}", ttl=None) as other:

        @cache.versioned(namespace="child", tags="t:{x}")
        def child(x: int) -> int:
            return value[0]

        @cache.versioned(namespace="parent")
        def parent(x: int) -> int:
            return child(x)

        def evict() -> None:
            names = [f"{cache.prefix}:tag:t:{x}" for x in range(2)]
            assert cache._state.store._file.count(sql.among(sql.EVICT_TOKENS, 2), (1 << 60, *names), None) == 2  # type: ignore[attr-defined]

        for x in range(2):
            assert [child(x), parent(x), child(x), parent(x)] == [1] * 4
        evict()
        value[0] = 2
        other.invalidate_tags("t:0")
        assert child(0) == parent(0) == 2
        assert child(1) in (1, 2)
        other.invalidate_tags("t:1")
        assert child(1) == parent(1) == 2


def test_long_and_short_entries_together_stay_within_max_bytes(make: Callable[..., SqliteStore], path: str) -> None:
    """A long entry leaves the room that the short ones after it take before room is made again."""
    store = make(max_bytes=4 << 20)
    sizes = random.Random(0)
    longest = 0
    for number in range(1500):
        keep(store, key_of(str(number)), os.urandom(sizes.choice([200, 2000, 20_000, 150_000])))
        longest = max(longest, os.stat(path).st_size)
    assert 2 << 20 < longest <= 4 << 20


def test_writers_copy_a_log_that_nobody_else_copies(
    make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started, and four threads write 120 MB: the log never gets much longer than what they leave to it."""

    def refused(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(tidy, "start_new_thread", refused)
    store = make(max_bytes=4_000_000)
    lengths: list[int] = []

    def write(writer: int) -> None:
        for number in range(300):
            keep(store, key_of(f"{writer}-{number}"), os.urandom(100_000))
            lengths.append(os.stat(path + "-wal").st_size)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, writer) for writer in range(4)]:
            done.result()
    assert len(lengths) == 1200
    # The mark, and what the four add until each has come by.
    assert 8 << 20 < max(lengths) < (16 << 20) + 4 * (2 << 20)


def test_the_writers_of_several_processes_bound_the_log(
    make: Callable[..., SqliteStore], path: str, child: Callable[..., Child]
) -> None:
    """The same of three processes, none of which can start a thread: each sees what the others added, too."""
    make().fetch(key_of("first"))
    children = [child(WRITER, path, str(number)) for number in range(3)]
    for each in children:
        assert each.hear() == "ready"
    for each in children:
        assert each.process.stdin is not None
        each.process.stdin.write("go\n")
        each.process.stdin.flush()
    longest = [int(each.hear()) for each in children]
    assert 8 << 20 < max(longest) < (16 << 20) + 3 * (2 << 20)


WRITER = """
import os, sys

from memover.stores.sqlite import tidy
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.sqlite.conftest import keep, key_of

def refused(*_):
    raise RuntimeError("can't start new thread")

tidy.start_new_thread = refused
path, number = sys.argv[1:]
store = SqliteStore(path, Limits(max_bytes=4_000_000, lock_timeout=30.0))
print("ready", flush=True)
sys.stdin.readline()
longest = 0
for at in range(300):
    keep(store, key_of(f"{number}-{at}"), os.urandom(100_000))
    longest = max(longest, os.stat(path + "-wal").st_size)
print(longest, flush=True)
sys.stdin.readline()
"""


def test_one_long_entry_and_long_tidying_bound_the_log(
    make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one write or one call of `tidy` adds is bounded as what many add is: 50 MB are written, expire, and leave."""
    monkeypatch.setattr(tidy, "start_new_thread", lambda *_: 0)
    store = make(max_bytes=200_000_000)
    lengths: list[int] = []
    real = store._file._perform

    def perform(*arguments: Any) -> Any:
        answer = real(*arguments)
        lengths.append(os.stat(path + "-wal").st_size)
        return answer

    monkeypatch.setattr(store._file, "_perform", perform)
    keep(store, key_of("a"), os.urandom(50_000_000), 1000)
    for number in range(500):
        keep(store, key_of(str(number)), os.urandom(50_000), 1000)
    later(monkeypatch, 2)
    assert store.tidy(30)
    assert count(store, "entries") == 0
    assert 8 << 20 < max(lengths) < (16 << 20) + (8 << 20)


def test_a_reader_in_the_log_does_not_hold_writers_up(
    make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a stranger reads, the log cannot begin anew: it grows, it is copied seldom, and shrinks when the reader is gone."""
    store = make(max_bytes=4_000_000)
    keep(store, key_of("first"), b"x")
    checkpoints: list[str] = []
    real = store._file.rows

    def rows(sql: str, parameters: Sequence[object], deadline: float | None) -> list[tuple[object, ...]]:
        if "RESTART" in sql:
            checkpoints.append(sql)
            times[0] += 1.0  # the writer's patience ends at once
        return real(sql, parameters, deadline)

    times = [0.0]
    monkeypatch.setattr(store._file, "rows", rows)
    monkeypatch.setattr(tidy, "monotonic", lambda: time.monotonic() + times[0])
    monkeypatch.setattr(store._tidier, "begin_behind", lambda: None)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    for number in range(600):
        keep(store, key_of(str(number)), os.urandom(100_000))
    assert os.stat(path + "-wal").st_size > 40 << 20
    assert 0 < len(checkpoints) < 10
    reader.close()
    for number in range(400):
        keep(store, key_of(str(number)), os.urandom(100_000))
    assert os.stat(path + "-wal").st_size < (16 << 20) + (2 << 20)


def test_what_is_used_stays_and_what_is_not_goes(make: Callable[..., SqliteStore]) -> None:
    """Least recently used out first: entries that are read survive those that are only written, in this process and, once
    noted, for every other."""
    store = make(max_bytes=2_000_000)
    for number in range(100):
        keep(store, key_of(f"hot{number}"), os.urandom(2000))
    for number in range(1000):
        keep(store, key_of(f"cold{number}"), os.urandom(5000))
        store.fetch(key_of(f"hot{number % 100}"))
    kept = sum(valid(store, key_of(f"hot{number}")) is not None for number in range(100))
    assert kept >= 85  # a busy machine notes late what was read
    assert sum(valid(store, key_of(f"cold{number}")) is not None for number in range(500)) < 50


def test_expired_entries_go_first(make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave by themselves behind writes, with what they took; others stay."""
    store = make(max_bytes=4_000_000)
    for number in range(300):
        keep(store, key_of(f"brief{number}"), os.urandom(3000), 1000)
    for number in range(100):
        keep(store, key_of(f"long{number}"), os.urandom(3000), 3_600_000)
    later(monkeypatch, 2)
    for number in range(400):
        keep(store, key_of(f"new{number}"), os.urandom(3000))
    assert store.tidy(10)
    assert count(store, "entries") == 500
    assert all(valid(store, key_of(f"long{number}")) is not None for number in range(100))


def test_the_file_shrinks_again(make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything expires: the file is given back to the disk, step by step."""
    store = make()
    for number in range(1500):
        keep(store, key_of(str(number)), os.urandom(8000), 600_000)
    # The last connection to be closed copies the log into the file: it may be that of the thread that tidies.
    store.close()
    wait_until(lambda: os.stat(path).st_size > 10_000_000, "the log in the file")
    later(monkeypatch, 601)
    assert store.tidy(30)
    store.close()
    wait_until(lambda: os.stat(path).st_size < 3_000_000, "a short file")


def test_tokens_live_as_long_as_what_needs_them(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P15: of a thousand tags, those whose entries have expired go; generations and tags of living entries stay."""
    store = make()
    tags = [f"p:tag:{number}".encode() for number in range(300)]
    for number, tag in enumerate(tags):
        key = key_of(str(number), tag)
        keep(store, key, b"x", 3_600_000 if number < 10 else 1000, names=(tag,))
    assert count(store, "tokens") == 301
    run(store.bump((b"p:tag:moved",), nonce(), (0,), ()))
    later(monkeypatch, 2 * TOKEN_MARGIN_MS / 1000 + 60)
    assert store.tidy(10)
    names = {name for (name,) in store._file.rows("SELECT name FROM tokens", (), None)}
    assert names == {GENERATION.decode(), *(tag.decode() for tag in tags[:10])}


def test_an_entry_without_limit_keeps_its_tokens_for_ever(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tag is permanent, until it is moved."""
    store = make()
    key = key_of("a", b"p:tag:x")
    keep(store, key, b"x", 0, names=(b"p:tag:x",))
    later(monkeypatch, 10**9)
    assert store.tidy(10)
    assert all(store.fetch(key).tokens)


def test_leases_of_dead_loaders_leave(make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """And marks of failure: nothing stays of loads that ended without a word; leases that are held stay."""
    store = make()
    for number in range(500):
        run(store.acquire(Request(key_of(str(number)), nonce(), 1000, (), (0,))))
    for number in range(3):
        run(store.acquire(Request(key_of(f"held{number}"), nonce(), 3_600_000, (), (0,))))
    later(monkeypatch, 2)
    for _ in range(20):
        assert store.tidy(10)
    assert count(store, "leases") == 3


# -- long entries -----------------------------------------------------------------------------------------------------------------


def test_long_entries_are_kept_in_pieces(make: Callable[..., SqliteStore]) -> None:
    """50 MB come back as they were; replaced, moved or removed, no piece of them stays."""
    store = make()
    raw = keep(store, key_of("a"), os.urandom(50_000_000))
    assert store.fetch(key_of("a")).raw == raw
    assert count(store, "pieces") == -(-len(raw) // PIECE_BYTES)
    raw = keep(store, key_of("a"), os.urandom(1_000_000))
    assert store.fetch(key_of("a")).raw == raw
    assert store.tidy(30)
    assert count(store, "pieces") == 4
    run(store.drop(key_of("a").entry, key_of("a").lease, nonce(), ()))
    assert store.tidy(30)
    assert (count(store, "pieces"), count(store, "doomed")) == (0, 0)


def test_a_long_entry_that_is_refused_leaves_nothing(make: Callable[..., SqliteStore]) -> None:
    """Its lease was lost while it was written."""
    store = make()
    key, token = key_of("a"), nonce()
    granted = run(store.acquire(Request(key, token, 10_000, (), (0,))))
    assert granted.ours
    run(store.drop(key.entry, key.lease, nonce(), ()))
    raw = entry_bytes(key, os.urandom(1_000_000), granted.seen.tokens[0] or b"")
    assert not run(store.store(StoredEntry(key, token, raw, 0, header_of(raw, key))))
    assert store.tidy(30)
    assert (count(store, "pieces"), count(store, "doomed"), count(store, "entries")) == (0, 0, 0)


def test_a_long_entry_makes_room_for_itself(make: Callable[..., SqliteStore], path: str) -> None:
    """Within the limit at any moment; one that could never fit is not stored, and what was there stays."""
    store = make(max_bytes=8_000_000)
    longest = 0
    for number in range(12):
        keep(store, key_of(str(number)), os.urandom(2_500_000))
        longest = max(longest, os.stat(path).st_size)
    assert longest < 10_000_000
    assert valid(store, key_of("11")) is not None
    key, token = key_of("huge"), nonce()
    granted = run(store.acquire(Request(key, token, 10_000, (), (0,))))
    raw = entry_bytes(key, os.urandom(7_900_000), granted.seen.tokens[0] or b"")
    assert not run(store.store(StoredEntry(key, token, raw, 0, header_of(raw, key))))
    assert run(store.look(key)).lease is None
    assert valid(store, key_of("11")) is not None


def test_readers_of_a_long_entry_that_is_replaced(make: Callable[..., SqliteStore]) -> None:
    """Whoever reads while others replace it gets one of the whole entries."""
    import threading

    store = make()
    key = key_of("a")
    keep(store, key, bytes([0]) * 700_000)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            raw = store.fetch(key).raw
            if raw is not None and len(set(raw[-690_000:])) != 1:
                wrong.append(raw[:100])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(30):
        keep(store, key, bytes([number]) * 700_000)
        store.tidy(1)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


# -- the log ------------------------------------------------------------------------------------------------------------------------


def test_the_log_does_not_grow_without_end(make: Callable[..., SqliteStore], path: str) -> None:
    """A writer that never rests: the log is copied into the file and begins anew."""
    store = make()
    longest = 0
    end = time.monotonic() + 20
    number = 0
    while number < 6000 and time.monotonic() < end:
        keep(store, key_of(str(number % 500)), os.urandom(4000))
        number += 1
        longest = max(longest, os.stat(path + "-wal").st_size)
    written = number * 5 * 4096
    assert written > 60_000_000
    assert longest < 48 << 20


def test_a_log_that_begins_anew_is_written_over(store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it mostly gets, it is not cut down only to be made longer again: that takes a commit more time."""
    monkeypatch.setattr(store._tidier, "begin_behind", lambda: None)  # it would do so in between
    log = path + "-wal"
    number = 0
    while not os.path.exists(log) or os.stat(log).st_size < 13 << 20:
        keep(store, key_of(str(number)), os.urandom(40_000))
        number += 1
    before = os.stat(log).st_size
    assert store._tidier._checkpoint(), "it begins anew with the next write"
    keep(store, key_of("next"), b"x")
    assert os.stat(log).st_size == before <= 16 << 20


def test_an_entry_is_stored_without_a_temporary_table(store: SqliteStore) -> None:
    """Which SQLite would make first for `INSERT ... SELECT` into a table with triggers."""
    keep(store, key_of("a"), b"x")
    program = store._file.rows(f"EXPLAIN {sql.STORE}", ("k", "t", 1, b"", 0, None, 1), None)
    own = program[: next(at for at, row in enumerate(program) if at and row[0] == 0)]
    names = [row[1] for row in own]
    assert "OpenWrite" in names
    assert "OpenEphemeral" not in names


def test_noting_what_was_read_writes_few_pages(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are noted in the order that they have in the file, whatever the order in which they were read."""

    def refused(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(tidy, "start_new_thread", refused)  # or it would be done behind the reads
    store = make()
    keys = [key_of(str(number)) for number in range(2000)]
    for key in keys:
        keep(store, key, bytes(200))
    assert store.tidy(10)
    later(monkeypatch, 60)
    random.Random(1).shuffle(keys)
    for key in keys:
        assert valid(store, key) is not None
    store._file.rows("PRAGMA wal_checkpoint(TRUNCATE)", (), time.monotonic() + 5)
    store._tidier._note_recent()
    ((noted,),) = store._file.rows("SELECT count(*) FROM entries WHERE used > ?", (moments.time_ms() + 30_000,), None)
    assert noted == len(keys)
    assert store._file.log_bytes() < len(keys) // 4 * 4096


@pytest.mark.parametrize(
    ("option", "options", "result"),
    [
        ("max_entry_bytes", {"max_entry_bytes": 1000}, os.urandom(2000)),
        ("expanded_limit", {"expanded_limit": 1000}, os.urandom(2000)),
        ("expanded_limit", {"expanded_limit": 10_000}, bytes(20_000)),  # short when it is compressed
        ("max_bytes", {"max_bytes": 200_000}, os.urandom(150_000)),
    ],
)
def test_a_result_that_is_too_long_is_said_with_the_option_that_keeps_it_out(
    path: str, caplog: pytest.LogCaptureFixture, option: str, options: dict[str, Any], result: bytes
) -> None:
    """It is returned and counted as too large; the one warning names the option to raise, and a `set` invalidates."""
    with Cache(f"sqlite:///{path}", ttl=None, compress_from=4096, **options) as cache:
        f: Any = cache.versioned(namespace="long")(lambda x: result if x else b"")
        assert f.map([1, 0]) == [result, b""]
        assert f(1) == f.refresh(1) == result
        info = f.cache_info()
        assert (info.hits, info.too_large, info.refused_stores, info.stores) == (0, 3, 0, 1)
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f"that {option}= allows" in warning and f"Raise {option}=," in warning
        f.set(b"", 1)
        f.set(result, 1)
        assert f.peek(1) is None


def stored(store: SqliteStore, name: str, payload: bytes) -> bool:
    """Takes the lease and stores the entry; whether it was stored. Raises `StoreError`."""
    key, token = key_of(name), nonce()
    granted = run(store.acquire(Request(key, token, 60_000, (), (0,))))
    raw = entry_bytes(key, payload, granted.seen.tokens[0] or b"")
    return run(store.store(StoredEntry(key, token, raw, 0, header_of(raw, key))))


def test_the_row_of_a_long_entry_may_wait_for_the_lock_as_long_as_any_write(
    make: Callable[..., SqliteStore], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its pieces took is the entry's own time, and no part of the budget for the lock."""
    store = make(lock_timeout=0.3)
    assert stored(store, "short", b"x")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    timers: list[threading.Timer] = []

    def relieve(_: object) -> None:
        if not timers:  # behind the only piece: its row comes next
            time.sleep(0.35)
            other.execute("BEGIN IMMEDIATE")
            timers.append(threading.Timer(0.1, other.execute, ("COMMIT",)))
            timers[0].start()

    monkeypatch.setattr(tidy.Tidier, "relieve", relieve)
    assert stored(store, "long", bytes(PIECE_BYTES))
    assert timers
    timers[0].join()
    other.close()
    assert valid(store, key_of("long")) is not None


def test_threads_write_their_long_entries_one_after_the_other(
    make: Callable[..., SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So their pieces do not contend for SQLite's lock, which does not come to who has waited for the longest time."""
    store = make()
    assert stored(store, "short", b"x")
    pieces: list[int] = []
    count_of = file.File.count

    def count(self: file.File, statement: str, parameters: Sequence[Any], deadline: float | None) -> int:
        if statement == sql.ADD_PIECE:
            pieces.append(parameters[0] // 65536)
            time.sleep(0.001)
        return count_of(self, statement, parameters, deadline)

    monkeypatch.setattr(file.File, "count", count)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: stored(store, f"{number}", os.urandom(8 * PIECE_BYTES)), range(8)))
    changes = sum(one != other for one, other in pairwise(pieces))
    assert len(set(pieces)) == 8 and changes < 16  # two may see in one moment that nobody writes


def test_threads_with_long_entries_wait_for_a_strangers_lock_once(make: Callable[..., SqliteStore], path: str) -> None:
    """Once for their turn, at most, and once for it: the time is not multiplied by the number of threads."""
    store = make(lock_timeout=0.5)
    names = [f"{number}" for number in range(8)]
    tokens = {name: nonce() for name in names}
    for name in names:
        assert run(store.acquire(Request(key_of(name), tokens[name], 60_000, (), (0,)))).ours
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def fails(name: str) -> float:
        raw = entry_bytes(key_of(name), os.urandom(2 * PIECE_BYTES))
        began = time.monotonic()
        with pytest.raises(StoreError):
            run(store.store(StoredEntry(key_of(name), tokens[name], raw, 0, header_of(raw, key_of(name)))))
        return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(fails, names)) < 1.5
    other.execute("COMMIT")
    other.close()
