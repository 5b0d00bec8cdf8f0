"""Rows that a process has kept (`stores.sqlite.marks`): served without SQLite, and never after a change that has returned.

The reader is this process, who changes something is another one. `known` is what a read of the file itself says."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import threading
import time
import weakref
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, InvalidationFailed, versioned_cache
from memover.engine.store import Again, Kept, Request, StoredEntry
from memover.errors import StoreUnavailable
from memover.runtime.run import run
from memover.stores.sqlite import marks
from memover.stores.sqlite.marks import MarkPage, beside
from memover.stores.sqlite.schema import USER_VERSION
from tests.interrupts.striking import places, strike
from tests.servers import wait_until
from tests.sqlite.conftest import GENERATION, Child, check, entry_bytes, header_of, keep, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Seen
    from memover.stores.sqlite.store import SqliteStore

TAG = b"p:tag:t"
KEY = key_of("a")

WRITER = """
import os, signal, sys
from memover.engine.store import Parcel, Request, Stamp, StoredEntry
from memover.model import Key
from memover.runtime.run import run
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.marks import MarkPage
from memover.stores.sqlite.store import SqliteStore
from memover.stores.sqlite.survey import SqliteSurvey
from memover.codec.envelope import KIND_KEY_VALUE
from tests.sqlite.conftest import GENERATION, entry_bytes, header_of, key_of, nonce

store = SqliteStore(sys.argv[1], Limits(lock_timeout=10.0))
key, tagged, tag = key_of("a"), key_of("a", b"p:tag:t"), b"p:tag:t"


def bump(*names):
    run(store.bump(names, nonce(), (0,) * len(names), ()))


def refresh():
    token = nonce()
    granted = run(store.acquire(Request(key, token, 10_000, (), (0,)), force=True))
    raw = entry_bytes(key, b"refreshed", granted.seen.tokens[0])
    assert run(store.store(StoredEntry(key, token, raw, 0, header_of(raw, key))))


def refresh_many():
    more = [key, *(key_of(str(number)) for number in range(9))]
    tokens = [nonce() for _ in more]
    run(store.remove_many(more[1:]))
    entries = []
    for each, token in zip(more, tokens):
        granted = run(store.acquire(Request(each, token, 10_000, (), (0,)), force=True))
        raw = entry_bytes(each, b"refreshed", granted.seen.tokens[0])
        entries.append(StoredEntry(each, token, raw, 0, header_of(raw, each)))
    assert all(run(store.store_many(entries)))


def put():
    stamp = Stamp(GENERATION, b"", 0, nonce())
    run(store.put([Parcel(key, entry_bytes(key, b"put", b"", KIND_KEY_VALUE), 0, None)], stamp))


def heal():
    # A token that another store has seen later than this one has it.
    run(store.ensure((GENERATION,), (1 << 60,), nonce()))


def locked():
    import sqlite3
    held = sqlite3.connect(sys.argv[1], isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    store.limits = Limits(lock_timeout=0.01)
    try:
        bump(GENERATION)
    except Exception as error:
        print(type(error).__name__, flush=True)
    finally:
        held.execute("ROLLBACK")
        held.close()


def killed_before():
    real = MarkPage.begin
    MarkPage.begin = lambda self, places: (real(self, places), os.kill(os.getpid(), signal.SIGKILL))
    bump(GENERATION)


def killed_after():
    MarkPage.end = lambda self, places, begun=0: os.kill(os.getpid(), signal.SIGKILL)
    bump(GENERATION)


def unlooked():
    # Nothing is looked at until the change is made.
    store._file.moment = 1 << 60
    real = store._file.look
    store._file.look = lambda moment: None
    try:
        bump(GENERATION)
    finally:
        store._file.look = real


WORK = {
    "all": lambda: bump(GENERATION),
    "tag": lambda: bump(tag),
    "along": lambda: run(store.bump((b"p:gen:other",), nonce(), (0,), (tag,))),
    "one": lambda: run(store.drop(key.entry, key.lease, nonce(), ())),
    "one with a tag along": lambda: run(store.drop(b"p:1:ns:other", b"{p:1:ns:other}:lease", nonce(), (tag,))),
    "remove": lambda: run(store.remove(key)),
    "remove many": lambda: run(store.remove_many([key, key_of("b")])),
    "refresh": refresh,
    "refresh many": refresh_many,
    "put": put,
    "heal": heal,
    "gc": lambda: SqliteSurvey(store).unlink([key.entry]),
    "locked": locked,
    "killed before": killed_before,
    "killed after": killed_after,
    "unlooked": unlooked,
}
print("ready", flush=True)
for line in sys.stdin:
    WORK[line.strip()]()
    print("done", flush=True)
"""


@pytest.fixture
def writer(store: SqliteStore, path: str, child: Callable[..., Child]) -> Child:
    """Another process that has the file open."""
    keep(store, KEY, b"x")
    other = child(WRITER, path)
    assert other.hear() == "ready"
    return other


class Counted:
    """How many statements a store's connection performs."""

    def __init__(self, store: SqliteStore) -> None:
        self.count = 0
        for connection in store._file.idle:
            connection.set_trace_callback(self._add)

    def _add(self, statement: str) -> None:
        self.count += 1


def known(store: SqliteStore, key: Any = KEY) -> Seen:
    """What a read of the file says."""
    return store._reader.read(key, time.monotonic() + 10)


def is_kept(store: SqliteStore, key: Any = KEY) -> bool:
    """Whether the next read of a row is answered without a statement; it has been read just now."""
    store.fetch(key)
    counted = Counted(store)
    store.fetch(key)
    return not counted.count


def test_a_row_is_read_once(writer: Child, store: SqliteStore) -> None:
    """The second read performs no statement and says what the first one said."""
    first = store.fetch(KEY)
    counted = Counted(store)
    assert store.fetch(KEY) == first == known(store)
    assert counted.count == 1, "that of `known`"
    assert run(store.read(KEY)) == first
    assert counted.count == 1


@pytest.mark.parametrize(
    "work", ["all", "one", "remove", "remove many", "refresh", "refresh many", "put", "heal", "gc", "unlooked"]
)
def test_a_change_is_seen_when_it_has_returned(writer: Child, store: SqliteStore, work: str) -> None:
    """Whatever another process changes of what was kept."""
    assert is_kept(store)
    before = store.fetch(KEY)
    assert writer.say(work) == "done"
    assert store.fetch(KEY) == known(store) != before
    if store.fetch(KEY).raw is not None:
        assert is_kept(store), "and what there is now is kept"


@pytest.mark.parametrize("work", ["tag", "along", "one with a tag along"])
def test_a_tag_that_moves_is_seen_when_it_has_moved(writer: Child, store: SqliteStore, work: str) -> None:
    """Rows that were read with tokens besides the generation stand under all of them."""
    run(store.ensure((TAG,), (0,), nonce()))
    tagged = key_of("a", TAG)
    assert is_kept(store, tagged)
    before = store.fetch(tagged)
    assert writer.say(work) == "done"
    assert store.fetch(tagged) == known(store, tagged) != before


def test_a_change_of_this_process_is_seen(store: SqliteStore) -> None:
    """By its own threads, too."""
    keep(store, KEY, b"x")
    assert is_kept(store)
    (moved,) = run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert store.fetch(KEY).tokens == [moved]


def test_a_plain_miss_of_others_leaves_what_is_kept(writer: Child, store: SqliteStore) -> None:
    """An entry that is stored where none was changes nothing that anybody has kept."""
    assert is_kept(store)
    plain_miss(store)
    counted = Counted(store)
    store.fetch(KEY)
    assert counted.count == 0


def plain_miss(store: SqliteStore) -> None:
    """An entry is stored where none was, as a miss without tags stores it."""
    token = nonce()
    call: Any = type("Call", (), {"function": _Function(), "key": key_of("new"), "token": ""})()
    direct = store.direct()
    assert direct.take(call, token, store.fetch(key_of("new"))) is not None
    raw = entry_bytes(key_of("new"), b"y", known(store).tokens[0] or b"")
    sealed: Any = type("Sealed", (), {"raw": raw, "expire_ms": 0})()
    assert direct.put(call, token, sealed)


class _Function:
    lease_ms = 10_000

    def share(self, call: Any, token: str) -> None: ...
    def hold(self, call: Any, token: str, *_: Any) -> None: ...


def test_an_entry_is_not_served_past_its_end(store: SqliteStore) -> None:
    """By the clock of the machine, as in the file; nobody marks that."""
    keep(store, KEY, b"x", expire_ms=200)
    assert is_kept(store)
    wait_until(lambda: store.fetch(KEY).raw is None, "the entry to end")
    assert known(store).raw is None


def test_long_entries_and_missing_ones_are_not_kept(store: SqliteStore) -> None:
    """What is in pieces is read piece by piece; an entry that is not there may come without a mark."""
    keep(store, KEY, bytes(200_000))
    assert not is_kept(store)
    assert not is_kept(store, key_of("missing"))


def test_what_is_kept_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows and by bytes; what is asked for stays."""
    monkeypatch.setattr(marks, "_KEPT_ROWS", 10)
    keep(store, KEY, b"x")
    page = store._file.page
    assert page is not None
    for number in range(50):
        keep(store, key_of(str(number)), b"y")
        store.fetch(key_of(str(number)))
        counted = Counted(store)
        assert valid(store, KEY) is not None
        assert number == 0 or counted.count == 0
        assert len(page.rows) + len(page.older) <= 22
    monkeypatch.setattr(marks, "_KEPT_BYTES", 2000 + 5 * marks._ROW_BYTES)
    for number in range(50):
        keep(store, key_of(str(number)), bytes(300))
        store.fetch(key_of(str(number)))
        assert sum(len(row[0].raw or b"") for rows in (page.rows, page.older) for row in rows.values()) < 6000


def test_a_store_that_is_closed_keeps_nothing(store: SqliteStore) -> None:
    """Neither rows nor the marks' file, and the collector is not needed for that."""
    keep(store, KEY, b"x")
    assert is_kept(store)
    page = store._file.page
    assert page is not None and page.rows
    left = weakref.ref(page)
    del page
    gc.disable()
    try:
        store.close()
        assert left() is None
    finally:
        gc.enable()
    store.fetch(KEY)  # opens the file
    assert is_kept(store)


# -- reads that need not be done again ------------------------------------------------------------------------------------------


class Reread:
    """What calls that are generated ask of one row (`SqliteStore.rereads`)."""

    def __init__(self, store: SqliteStore, key: Any = KEY) -> None:
        self.rereads = store.rereads()
        self.key = key
        source = f"lambda item: {self.rereads.stands}".replace("{p}", "")
        self.stands: Callable[[Again], bool] = eval(source, dict(self.rereads.names))  # as the compiler of calls does
        seen: Any = store.fetch(key)
        self.item = Again((b"", b""), b"", 0.0, None, ())
        if isinstance(seen, Kept):
            seen.decoded = self.item

    def found(self) -> bool:
        """Whether the store says that the row is kept, and how to ask that again."""
        kept = self.rereads.find(self.key)
        return kept is not None and kept.decoded is self.item

    def __call__(self) -> bool:
        """Whether that which was found before stands."""
        return self.stands(self.item)


def test_what_is_kept_stands_without_a_statement(store: SqliteStore) -> None:
    """From when it was found to be kept; a plain miss leaves it. Its use is noted."""
    keep(store, KEY, b"x")
    row = Reread(store)
    assert not row(), "nothing was asked"
    counted = Counted(store)
    assert row.found() and row()
    store._file.recent.clear()
    assert row()
    assert list(store._file.recent) == [row.item.row]
    assert counted.count == 0
    plain_miss(store)
    assert row()


@pytest.mark.parametrize(
    "work", ["all", "one", "remove", "remove many", "refresh", "refresh many", "put", "heal", "gc", "unlooked"]
)
def test_it_stands_until_a_change_has_returned(writer: Child, store: SqliteStore, work: str) -> None:
    """Whatever another process changes."""
    row = Reread(store)
    assert row.found() and row()
    assert writer.say(work) == "done"
    assert not row()
    assert not row.found(), "the change was one of this row"
    assert not row()


def test_a_change_of_another_row_has_it_asked_for_anew(writer: Child, store: SqliteStore) -> None:
    """Of one that was read under another token, too."""
    run(store.ensure((TAG,), (0,), nonce()))
    row, tagged = Reread(store), Reread(store, key_of("a", TAG))
    assert not tagged.found(), "rows with tags are read by fetch alone"
    row = Reread(store)
    assert row.found() and row()
    assert writer.say("tag") == "done"
    assert not row()
    assert row.found() and row()


def test_it_ends_with_its_entry_and_its_store(store: SqliteStore) -> None:
    """By the clock of the machine; and the value that readers kept beside it goes."""
    keep(store, KEY, b"x", expire_ms=200)
    row = Reread(store)
    assert row.found() and row()
    wait_until(lambda: not row(), "the entry to end")
    keep(store, KEY, b"x")
    row = Reread(store)
    row.item.make = list
    assert row.found() and row()
    store.close()
    assert not row()
    assert row.item.make is None
    store.fetch(KEY)
    assert not row(), "it was of what was open then"


def test_it_stands_in_no_other_file(store: SqliteStore, make: Callable[..., SqliteStore], path: str) -> None:
    """A database that takes the place of this one, whose marks stay."""
    keep(store, KEY, b"x")
    row = Reread(store)
    assert row.found() and row()
    other = make(path + ".other")
    keep(other, KEY, b"theirs")
    other.close()
    for ending in ("-wal", "-shm"):
        os.unlink(path + ending)
    os.replace(path + ".other", path)
    wait_until(lambda: not row(), "the other file to be noticed")
    store.fetch(KEY)
    assert not row()


def test_it_does_not_stand_while_a_writer_is_in_the_middle(
    writer: Child, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was killed there holds it up for a while."""
    row = Reread(store)
    assert row.found() and row()
    assert writer.say("killed before") == ""
    assert not row()
    assert not row.found()
    monkeypatch.setattr(marks, "_LEFT_SECONDS", 0.0)
    wait_until(lambda: Reread(store).found(), "the words to be settled")


def test_nothing_is_found_while_any_change_is_under_way(store: SqliteStore) -> None:
    """A processor may show the word of all before the others that were written with it."""
    keep(store, KEY, b"x")
    row, page = Reread(store), store._file.page
    assert page is not None
    other = marks.entry_place(b"another")
    begun = page.begin((other,))
    assert not row.found()
    page.end((other,), begun)
    assert row.found() and row()


def test_what_is_found_while_a_file_is_left_stands_nowhere(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that still has the page reads the era when the leaving has begun."""
    keep(store, KEY, b"x")
    row, real = Reread(store), MarkPage.forget
    page, eras = store._file.page, []
    assert page is not None

    def stopped(self: MarkPage) -> None:
        eras.append(store._file.era)
        real(self)

    monkeypatch.setattr(MarkPage, "forget", stopped)
    store._file.leave()
    row.item.era, row.item.word, row.item.expires = eras[0], page.words[marks.ALL], 1 << 62
    store.fetch(KEY)  # opens the file, with the same marks
    assert not row()


def test_what_readers_keep_goes_with_the_row(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it makes room, and when the row is read anew: nobody who refers to it has the value any more."""
    monkeypatch.setattr(marks, "_KEPT_ROWS", 10)
    keep(store, KEY, b"x")
    row = Reread(store)
    row.item.make = list
    for number in range(30):
        keep(store, key_of(str(number)), b"y")
        store.fetch(key_of(str(number)))
    assert row.item.make is None
    again = Reread(store)
    again.item.make = list
    run(store.bump((GENERATION,), nonce(), (0,), ()))
    store.fetch(KEY)
    assert again.item.make is None


def test_the_word_of_all_changes_with_every_other() -> None:
    """Whatever the order of two writers, of one word or of two: what was found to stand does not when the change of it has
    returned."""
    words = memoryview(bytearray(8 * 16)).cast("Q")
    orders = [
        order
        for order in permutations(["b1", "c1", "e1", "b2", "c2", "e2"])
        if all(order.index(a) < order.index(b) for a, b in (("b1", "c1"), ("c1", "e1"), ("b2", "c2"), ("c2", "e2")))
    ]
    stood = 0
    for writes in ({"1": 9, "2": 9}, {"1": 9, "2": 10}):
        for order in orders:
            for asked_at in range(len(order) + 1):
                page = MarkPage(words, (0, 0))
                words[9] = words[10] = words[marks.ALL] = 0
                begun: dict[str, int] = {}
                changed: set[str] = set()
                returned: set[str] = set()
                found: tuple[int, frozenset[str]] | None = None
                for at, step in enumerate((*order, "")):
                    if at == asked_at and not words[marks.ALL] & 1 and not words[9] & 1:
                        found = words[marks.ALL], frozenset(changed)
                    if found is not None and words[marks.ALL] == found[0]:
                        stood += 1
                        assert returned <= found[1], (order, asked_at, step)
                    kind, who = step[:1], step[1:]
                    if kind == "b":
                        begun[who] = page.begin((writes[who],))
                    elif kind == "c" and writes[who] == 9:
                        changed.add(who)
                    elif kind == "e":
                        page.end((writes[who],), begun[who])
                        returned |= {who} if writes[who] == 9 else set()
                assert not words[marks.ALL] & 1, "all is over"
    assert stood > 100


# -- in between -----------------------------------------------------------------------------------------------------------------


def test_a_change_between_marks_and_row(writer: Child, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stopped after it has read the marks keeps nothing that it would serve."""
    real = MarkPage.marks

    def stopped(self: MarkPage, names: Any, entry: bytes) -> Any:
        found = real(self, names, entry)
        assert writer.say("all") == "done"
        return found

    with monkeypatch.context() as patched:
        patched.setattr(MarkPage, "marks", stopped)
        store.fetch(KEY)
    assert writer.say("all") == "done"
    assert store.fetch(KEY) == known(store)


def test_a_change_between_row_and_keeping(writer: Child, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stopped with the row in its hands keeps it under marks that are not those any more."""
    real = MarkPage.keep

    def stopped(self: MarkPage, *arguments: Any) -> None:
        assert writer.say("all") == "done"
        real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(MarkPage, "keep", stopped)
        before = store.fetch(KEY)
    assert store.fetch(KEY) == known(store) != before


@pytest.mark.parametrize("work", ["killed before", "killed after"])
def test_a_writer_is_killed_in_the_middle(
    writer: Child, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """Before its statement, or after the COMMIT: reads ask the file, and after a while rows are kept again."""
    assert is_kept(store)
    before = store.fetch(KEY)
    assert writer.say(work) == ""
    assert writer.process.wait() == -signal.SIGKILL
    assert store.fetch(KEY) == known(store)
    assert (known(store) == before) == (work == "killed before")
    assert not is_kept(store)
    monkeypatch.setattr(marks, "_LEFT_SECONDS", 0.0)
    wait_until(lambda: is_kept(store), "rows to be kept again")
    assert store.fetch(KEY) == known(store)


def test_a_change_that_gets_no_lock_leaves_everything_as_it_was(writer: Child, store: SqliteStore) -> None:
    """It raises, and what the file says is kept again."""
    assert is_kept(store)
    before = store.fetch(KEY)
    assert writer.say("locked") == "StoreTimeout"
    assert writer.hear() == "done"
    assert store.fetch(KEY) == before
    assert is_kept(store)


def test_two_writers_of_one_word() -> None:
    """Whatever their order, a word that was read before a change is not there any more when the change has returned."""
    words = memoryview(bytearray(8 * 16)).cast("Q")
    orders = [
        order
        for order in permutations(["b1", "c1", "e1", "b2", "c2", "e2"])
        if all(order.index(a) < order.index(b) for a, b in (("b1", "c1"), ("c1", "e1"), ("b2", "c2"), ("c2", "e2")))
    ]
    for order in orders:
        for read_at in range(len(order) + 1):
            page = MarkPage(words, (0, 0))
            words[9] = 0
            begun: dict[str, int] = {}
            state, kept = frozenset[str](), None
            done: set[str] = set()
            for at, step in enumerate((*order, "")):
                if at == read_at and not words[9] & 1:
                    kept = words[9], state
                if kept is not None and words[9] == kept[0]:
                    assert done <= kept[1], (order, read_at, step)
                kind, who = step[:1], step[1:]
                if kind == "b":
                    begun[who] = page.begin((9,))
                elif kind == "c":
                    state |= {who}
                elif kind == "e":
                    page.end((9,), begun[who])
                    done.add(who)
            assert not words[9] & 1, "all is over"


class Interrupt(BaseException):
    """From outside."""


# An open file that a strike has lost is closed by the collector, which warns of it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_every_bytecode_of_an_invalidation(store: SqliteStore) -> None:
    """Either it has happened or not: what is read afterwards is what the file says, and nobody else's mark is left odd for ever."""
    keep(store, KEY, b"x")

    def work() -> None:
        run(store.bump((GENERATION,), nonce(), (0,), ()))

    def interrupt() -> None:
        raise Interrupt

    work()
    ours = [
        place.nth
        for place in places(work)
        if place.file.endswith(("sqlite/changing.py", "sqlite/file.py", "sqlite/marks.py"))
    ]
    assert len(ours) > 100
    for at in ours:
        store.fetch(KEY)
        with pytest.raises(Interrupt):
            strike(work, at, interrupt)
        assert store.fetch(KEY) == known(store), at
    work()
    assert store.fetch(KEY) == known(store)
    assert is_kept(store)


def test_threads_that_read_while_one_changes(store: SqliteStore) -> None:
    """What a thread reads after a change had returned is not from before it."""
    keep(store, KEY, b"x")
    settled = [0]
    over = threading.Event()
    wrong: list[tuple[int, int]] = []

    def read() -> None:
        while not over.is_set():
            least = settled[0]
            token = store.fetch(KEY).tokens[0]
            assert token is not None
            number = int(token.partition(b"-")[0])
            if number < least:
                wrong.append((number, least))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            (moved,) = run(store.bump((GENERATION,), nonce(), (0,), ()))
            settled[0] = int(moved.partition(b"-")[0])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []


# -- the marks file -------------------------------------------------------------------------------------------------------------


def removed(path: str) -> None:
    os.unlink(beside(path))


def replaced(path: str) -> None:
    other = path + ".other"
    Path(other).write_bytes(bytes(marks._BYTES))
    os.replace(other, beside(path))


def replaced_by_a_short_one(path: str) -> None:
    other = path + ".other"
    Path(other).write_bytes(b"short")
    os.replace(other, beside(path))


@pytest.mark.parametrize("happens", [removed, replaced, replaced_by_a_short_one])
@pytest.mark.parametrize("work", ["all", "unlooked"])
def test_the_marks_are_lost(
    writer: Child, store: SqliteStore, path: str, happens: Callable[[str], None], work: str
) -> None:
    """A change that returns afterwards is seen, whether the writer has noticed before or not, and rows are kept again."""
    assert is_kept(store)
    happens(path)
    assert writer.say(work) == "done"
    assert store.fetch(KEY) == known(store)
    assert os.path.getsize(beside(path)) == marks._BYTES
    wait_until(lambda: is_kept(store), "rows to be kept again")


def test_the_database_is_replaced_and_the_marks_stay(
    writer: Child, store: SqliteStore, make: Callable[..., SqliteStore], path: str
) -> None:
    """What was kept of the one is not served of the other, as soon as reads look at the file again."""
    assert is_kept(store)
    other = make(path + ".other")
    raw = keep(other, KEY, b"theirs")
    other.close()
    for ending in ("-wal", "-shm"):
        os.unlink(path + ending)
    os.replace(path + ".other", path)
    wait_until(lambda: store.fetch(KEY).raw == raw, "the other file to be read")


def test_marks_that_cannot_be_mapped(store: SqliteStore, path: str) -> None:
    """Reads ask the file; an invalidation is not acknowledged, because others may serve what they have kept."""
    keep(store, KEY, b"x")
    os.unlink(beside(path))
    os.mkdir(beside(path))
    wait_until(lambda: not is_kept(store), "the marks to be missed")
    assert store.fetch(KEY).raw is not None
    with pytest.raises(StoreUnavailable, match="-marks cannot be mapped"):
        run(store.bump((GENERATION,), nonce(), (0,), ()))
    with Cache(f"sqlite:///{path}", prefix="p") as cache:

        @versioned_cache(namespace="ns", cache=cache)
        def number(x: int) -> int:
            return x

        assert number(1) == number(1) == 1
        with pytest.raises(InvalidationFailed):
            number.invalidate_all()
        os.rmdir(beside(path))  # what is still to be done is done when the cache is closed
    run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert valid(store, KEY) is None
    keep(store, KEY, b"y")
    wait_until(lambda: is_kept(store), "rows to be kept again")


def test_the_marks_have_the_rights_of_the_file(store: SqliteStore, path: str) -> None:
    """Who may write the file may mark what is changed."""
    Path(path).touch()
    os.chmod(path, 0o664)
    keep(store, KEY, b"x")
    assert os.stat(beside(path)).st_mode & 0o777 == 0o664


# -- files of the format before ---------------------------------------------------------------------------------------------------


@pytest.fixture
def older(make: Callable[..., SqliteStore], path: str) -> tuple[bytes, Seen]:
    """A file of format 1, which has an entry: its bytes, and what is read."""
    store = make()
    raw = keep(store, KEY, b"x")
    seen = known(store)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    os.unlink(beside(path))
    assert Path(path).read_bytes()[60:64] == b"\0\0\0\1"
    return raw, seen


def test_a_file_of_format_1_becomes_one_of_format_2(
    make: Callable[..., SqliteStore], path: str, older: tuple[bytes, Seen]
) -> None:
    """Nothing of it is lost."""
    store = make()
    assert store.fetch(KEY) == older[1]
    assert is_kept(store)
    assert int.from_bytes(Path(path).read_bytes()[60:64], "big") == USER_VERSION == 2
    store.close()
    assert check(path) == "ok"


def test_a_file_of_format_1_that_is_open_elsewhere_stays_so(
    make: Callable[..., SqliteStore], path: str, older: tuple[bytes, Seen], child: Callable[..., Child]
) -> None:
    """An older memover would change it without marks: nothing is kept, and everything works, until it is closed there."""
    other = child(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("SELECT * FROM tokens").fetchall()
        print("open", flush=True)
        for line in sys.stdin:
            connection.execute("UPDATE tokens SET token = CAST('9-moved' AS BLOB), number = 9 WHERE name = 'p:gen:ns'")
            print("moved", flush=True)
        """,
        path,
    )
    assert other.hear() == "open"
    store = make()
    assert store.fetch(KEY) == older[1]
    assert not is_kept(store)
    assert other.say("move") == "moved"
    assert store.fetch(KEY).tokens == [b"9-moved"]
    (moved,) = run(store.bump((GENERATION,), nonce(), (0,), ()))
    assert store.fetch(KEY).tokens == [moved]
    assert not os.path.exists(beside(path))
    store.close()
    other.close()
    again = make()

    def is_current() -> bool:
        again.close()  # the thread that tidies may have it open at that very moment
        return again.fetch(KEY).tokens == [moved] and is_kept(again)

    wait_until(is_current, "the file to be of the current format")


# -- whole caches -----------------------------------------------------------------------------------------------------------------


def test_a_function_is_answered_without_sqlite(store: SqliteStore, path: str) -> None:
    """Hits of a function, and of the key-value side; a fork has nothing of its parent's."""
    with Cache(f"sqlite:///{path}", prefix="p") as cache:

        @versioned_cache(namespace="ns", cache=cache)
        def number(x: int) -> int:
            return x

        cache.set("k", 5)
        assert number(1) == number(1) == 1
        assert cache.get("k") == 5
        counted = Counted(store)
        assert number(1) == 1
        assert cache.get("k") == 5
        assert counted.count == 0
        assert number.cache_info().hits == 2
        number.invalidate_all()
        number(1)
        assert number.cache_info().loads == 2


def test_misses_in_a_row_are_not_read_before_the_lease_is_asked_for(store: SqliteStore, path: str) -> None:
    """After eight that found nothing: two statements each. One that finds an entry all the same is a hit, and reads begin again."""
    with Cache(f"sqlite:///{path}", prefix="p") as cache, Cache(f"sqlite:///{path}", prefix="p") as another:
        runs: list[int] = []

        def number(x: int) -> int:
            runs.append(x)
            return x

        mine, theirs = (versioned_cache(namespace="ns", cache=each)(number) for each in (cache, another))
        for x in range(9):
            mine(x)
        said: dict[str, None] = {}  # triggers say the statement that they belong to
        for connection in store._file.idle:
            connection.set_trace_callback(lambda statement: said.update({statement: None}))
        assert [mine(x) for x in range(9, 12)] == [9, 10, 11]
        assert len(said) == 6
        assert theirs(12) == 12
        runs.clear()
        said.clear()
        before = mine.cache_info()
        assert mine(12) == 12
        assert runs == []
        after = mine.cache_info()
        assert (after.hits - before.hits, after.misses - before.misses) == (1, 0)
        assert len(said) == 2, "a lease that was not given, and a read"
        said.clear()
        assert mine(13) == 13
        assert len(said) == 3
        theirs.invalidate_all()
        for x in range(20, 32):
            assert mine(x) == x
        runs.clear()
        theirs.invalidate_all()
        assert mine(40) == mine(40) == 40
        assert runs == [40], "it is stored under the generation that there is now"


@pytest.mark.parametrize("mutable", [False, True])
def test_generated_hits_end_with_an_invalidation_that_is_owed(path: str, mutable: bool) -> None:
    """No lock, no acknowledgement: what this process had read is not served, though the file has not changed."""
    with Cache(f"sqlite:///{path}", prefix="p", socket_timeout=0.1) as cache:
        runs: list[int] = []

        @versioned_cache(namespace="ns", cache=cache)
        def number(x: int) -> Any:
            runs.append(x)
            return [x] if mutable else x

        for _ in range(6):
            number(1)
        assert runs == [1]
        counters = number._self_definition.now().function.counters
        before = counters.own_hits
        number(1)
        assert counters.own_hits == before, "it is generated code that counts"
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InvalidationFailed):
            number.invalidate_all()
        number(1)
        assert runs == [1, 1]
        other.execute("ROLLBACK")
        other.close()
        wait_until(lambda: (number(1), number.cache_info().hits)[1] > before + 2, "hits to come back")
        assert len(runs) < 100


def test_a_refresh_of_another_lease_is_marked(store: SqliteStore) -> None:
    """A store under a lease that was forced replaces what is there."""
    keep(store, KEY, b"x")
    assert is_kept(store)
    token = nonce()
    granted = run(store.acquire(Request(KEY, token, 10_000, (), (0,)), force=True))
    raw = entry_bytes(KEY, b"y", granted.seen.tokens[0] or b"")
    assert run(store.store(StoredEntry(KEY, token, raw, 0, header_of(raw, KEY))))
    assert store.fetch(KEY).raw == raw
