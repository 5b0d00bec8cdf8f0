"""Whole processes on one SQLite file, in the explorer's world: `explorer.whole` with the real store on a real file.

Every process has the real `SqliteStore` with connections of its own. A statement is one step of the schedule: it is atomic,
and no transaction is open between two of them, so nothing of one process can come between but there. (`tests/sqlite` has what
SQLite itself does: its locks, real processes, `kill -9`.) The clock of the file stands still, which is the worst clock: only
numbers and nonces keep generations apart. The file is given back what it held at first before each schedule.
"""

from __future__ import annotations

import math
import os
import random
import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import memover.cache
import memover.stores.near
import memover.stores.sqlite.connections
import memover.stores.sqlite.direct
import memover.stores.sqlite.marks
import memover.stores.sqlite.moments
import memover.stores.sqlite.store
import memover.stores.sqlite.writing
from memover.clocks import monotonic
from memover.stores.sqlite import statements
from memover.stores.sqlite.file import File
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.store import SqliteStore
from tests.explorer import whole
from tests.explorer.whole import WALL, Actor, Choice, Process, Request, Run, Violated, Whole

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from memover.stores.sqlite.marks import MarkPage, Row

__all__ = ["FileProcess", "FileRun", "OnFile", "file_world"]

LONG_SHIFT = 50_000
"""The truth is shifted by so many bits where entries are long: they take more than one piece then."""
_PIECE_BYTES, _INLINE_BYTES = 1536, 1024

TABLES = {
    "entries": "key, expires, used, size, parts, raw",
    "leases": "key, holder, under, ends",
    "tokens": "name, number, nonce, token, expires",
    "pieces": "id, bytes",
    "doomed": "parts, after",
}
"""What is held, in an order in which no trigger undoes what was put back."""
_HELD = {table: f"SELECT {columns} FROM {table} ORDER BY 1" for table, columns in TABLES.items()}
_PUT = {
    table: f"INSERT INTO {table} ({columns}) VALUES ({','.join('?' * (columns.count(',') + 1))})"
    for table, columns in TABLES.items()
}


@dataclass(frozen=True)
class OnFile(Whole):
    """A scenario on a file. Further `faults`: "locked:<place>" (a stranger has the file locked when this actor writes), "death:<process>",
    "expiry" (of every lease), "gone" (the file is removed, and begun anew), "replaced" (what was
    there at first is put in its place, which undoes what was invalidated before). `loads` bounds the loads of the whole schedule. Entries are in pieces where they are `long`."""

    seconds: int = 0
    near: bool = False
    warm: bool = False
    slow: bool = True
    loads: int | None = None
    long: bool = False
    stored: bool = False
    """Whether the entry of the first truth is there when it begins."""
    counts: int = 0
    """What the key-value entry `n` is at the end, which is 0 at first."""
    presumed: bool = False
    """Whether the processes have read in vain so often that they ask for leases without a read, under the generation read last."""

    def process(self, at: int) -> Process:
        return FileProcess(self, at)

    def run(self, processes: Sequence[Any]) -> Run:
        return FileRun(self, processes)


class Answer(NamedTuple):
    """What a statement answered: a cursor that is at its end."""

    rows: list[Any]
    rowcount: int

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None


_NAMES = {getattr(statements, name): name for name in dir(statements) if name.isupper()}


class Statement(NamedTuple):
    """A statement that is to be performed on a connection."""

    connection: FileConnection
    sql: str
    parameters: Sequence[Any]

    @property
    def args(self) -> list[bytes]:
        """As one reads it: the words of a command."""
        name = _NAMES.get(self.sql) or " ".join(self.sql.split()[:3])
        return [name.encode(), *(word.encode() for word in self.parameters if isinstance(word, str))]


class FileConnection(memover.stores.sqlite.connections.Connection):
    """A connection whose statements are performed when the schedule says so."""

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        run: Any = whole._run[0] if whole._run else None
        if run is None or run.current is None or run.opening:
            return super().execute(sql, parameters)
        (answer,) = run.wait(Request([Statement(self, sql, parameters)]))  # type: ignore[list-item]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def perform(self, sql: str, parameters: Any) -> Answer:
        cursor = super().execute(sql, parameters)
        return Answer(cursor.fetchall(), cursor.rowcount)


class FileProcess(Process):
    """One process, with its own connections to the file."""

    def store(self, scenario: Whole) -> Any:
        # A write that finds the file locked does not try again.
        patience = 0.0 if any(fault.startswith("locked") for fault in scenario.faults) else 60.0
        store = SqliteStore(_directory[0] + "/store.db", Limits(lock_timeout=patience, breaker_first_seconds=0.0))
        self.ground = File(store.path)
        """For what is none of the schedule's."""
        self.file: File = store._file
        self.file.behind = None  # no thread of its own
        self.sqlite = store
        self.count = len(scenario.actors) + 2
        self.connections: list[Any] = []
        self.identity: Any = None
        return store

    def begin(self, run: Run) -> None:
        super().begin(run)
        self.file.moment = 0
        self.file.look(NOW_MS)  # the file of the schedule before may have gone
        if not self.connections or self.file._identity != self.identity:
            self.file.leave()
            self.connections = [self.file.open(monotonic() + 60.0)[1] for _ in range(self.count)]
            self.identity = self.file._identity
        self.file.idle[:] = self.connections
        assert self.file.page is not None, "rows are kept"
        self.file.page.forget()
        self.file.era = object()  # what calls keep is of another schedule
        self.sqlite._absences.clear()
        if run.scenario.presumed:  # type: ignore[attr-defined]
            self.sqlite._absences[self.f._self_definition.now().function.generation_name] = 8
        self.file.moment, self.file.recent, self.file.recent_before = NOW_MS, {}, {}
        tidier = self.sqlite._tidier
        tidier._writes = tidier._bytes = tidier._pages = tidier._hand = 0
        tidier._leases_hand = ""
        for breaker in (self.sqlite._reads, self.sqlite._writes):
            breaker.tripped = False


class FileRun(Run):
    """A schedule on the file: what is held is what the tables hold."""

    opening = False
    scenario: OnFile
    processes: Sequence[FileProcess]

    def __init__(self, scenario: OnFile, processes: Sequence[Any]) -> None:
        self.loaded = 0
        self.ground = processes[0].ground
        self.left_behind: set[Any] = set()
        """Connections to a file that is not at the path any more."""
        super().__init__(scenario, processes)
        words = processes[0].file.page.words
        words[_FIRST_MARK:] = memoryview(bytes(8 * (len(words) - _FIRST_MARK))).cast("Q")
        if scenario.stored:
            processes[0].f(1)
            processes[0].begin(self)
        if scenario.counts:
            processes[0].cache.set("n", 0)
            processes[0].begin(self)
        self.first, self.loaded = self.held, 0

    def table(self, sql: str, row: Sequence[Any] = ()) -> list[Any]:
        """What a statement answers that is none of the schedule's."""
        self.ground.moment = 0
        self.ground.look(NOW_MS)
        if not self.ground.idle:
            pool, opened = self.ground.open(monotonic() + 60.0)
            pool.append(opened)
        connection: Any = self.ground.idle[0]
        rows: list[Any] = connection.perform(sql, row).rows
        return rows

    def new_server(self) -> Any:
        return SimpleNamespace(keys=(), get=self._lease_in)

    @property
    def held(self) -> Any:
        return tuple(tuple(self.table(sql)) for sql in _HELD.values())

    @held.setter
    def held(self, rows: Any) -> None:
        self.table("BEGIN")
        for table in TABLES:
            self.table(f"DELETE FROM {table}")
        for sql, some in zip(_PUT.values(), rows):
            for row in some or ():
                self.table(sql, row)
        self.table("COMMIT")

    def _lease_in(self, held: Any, key: bytes) -> bytes | None:
        entry = self.entry.decode()
        for name, holder, under, _ in held[1]:
            if name == entry:
                return b"F" if under is None else b"L " + holder.encode()
        return None

    def expire(self) -> None:
        self.table("DELETE FROM leases")

    def perform(self, statement: Any) -> Any:
        try:
            return statement.connection.perform(statement.sql, statement.parameters)
        except sqlite3.Error as error:
            return error

    def value_of(self, truth: int) -> int:
        self.loaded += 1
        return truth << LONG_SHIFT if self.scenario.long else truth

    def truth_in(self, value: int) -> int:
        return value >> LONG_SHIFT if self.scenario.long else value

    # -- choices ------------------------------------------------------------------------------------------------------------

    def _serve(self, actor: Actor, waits: Request, at: int) -> None:
        super()._serve(actor, waits, at)
        process, statement = actor.process, waits.commands[at]
        if statement.connection in self.left_behind:  # type: ignore[attr-defined]
            actor.saw = None  # it was not this file: there is something new to see
        others = any(each.process is process and each is not actor and not each.ended for each in self.actors)
        if not others and f"interrupt:{actor.place}" not in self.faults and not process.background.tasks:
            self._answer(actor, waits)  # nobody could see that it has not gone on

    def _faults(self) -> Iterator[Choice]:
        yield from super()._faults()
        for fault in dict.fromkeys(self.faults):
            kind, _, which = fault.partition(":")
            if kind == "death":
                process = self.processes[int(which)]
                yield Choice(
                    ("kill -9 of", process.letter),
                    lambda process=process, fault=fault: self._die(process, fault),
                )
            elif kind == "expiry" and self.server.get(self.held, self.lease) is not None:
                yield Choice(("the lease ends",), lambda fault=fault: self._expiry(fault))
            elif kind in ("gone", "replaced"):
                yield Choice(("the file is", kind), lambda fault=fault: self._replace(fault))
            elif kind == "locked":
                for actor in self.actors:
                    if str(actor.place) == which and isinstance(actor.waits, Request) and _writes(actor.waits):
                        yield Choice(
                            (actor.name, "finds the file locked"),
                            lambda actor=actor, fault=fault: self._locked(actor, fault),
                        )

    def _die(self, process: Any, fault: str) -> None:
        self.faults.remove(fault)
        self.excused = True
        for actor in [each for each in self.actors if each.process is process]:
            self.actors.remove(actor)
            self.gone.append(actor)
        for settled in self.settled:
            settled.everywhere = settled.everywhere or settled.process != process.at
        process.begin(self)

    def _expiry(self, fault: str) -> None:
        self.faults.remove(fault)
        self.expire()

    def _replace(self, fault: str) -> None:
        self.faults.remove(fault)
        self.excused = True
        for ending in ("", "-wal", "-shm"):
            os.unlink(self.ground.path + ending)
        self.held = self.first if fault == "replaced" else ()
        if fault == "replaced":
            self.settled.clear()
        for actor in self.actors:
            actor.saw = None
        for process in self.processes:
            process.file.moment = 0  # a millisecond has passed
            self.left_behind.update(process.connections)

    def _locked(self, actor: Actor, fault: str) -> None:
        self.faults.remove(fault)
        self.resume(actor, [sqlite3.OperationalError("database is locked")])

    def _leave_behind(self, actor: Actor, waits: Any) -> None:
        pass  # what was not performed is not

    def _evict(self, name: bytes, fault: str) -> None:
        self.faults.remove(fault)
        self.table("DELETE FROM tokens WHERE name = ?", (name.decode(),))

    # -- what must hold ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        super().check()
        if self.scenario.loads is not None and self.loaded > self.scenario.loads:
            raise Violated("P6", f"this is load number {self.loaded}, where {self.scenario.loads} would do")

    def afterwards(self) -> None:
        super().afterwards()
        if self.scenario.counts and (found := self.processes[0].cache.get("n")) != self.scenario.counts:
            raise Violated("atomic", f"the counter is {found} where {self.scenario.counts} were counted")

    def digest(self) -> Hashable:
        kept = tuple(
            tuple(sorted((text, str(row[0])) for text, row in page.rows.items() if _stands(page, row)))
            for process in self.processes
            if (page := process.file.page) is not None
        )
        page = self.processes[0].file.page
        odd = (
            ()
            if page is None
            else tuple((at, word) for at, word in enumerate(page.words) if word & 1 and at >= _FIRST_MARK)
        )
        return super().digest(), self.loaded, kept, odd


def _stands(page: MarkPage, row: Row) -> bool:
    return all(page.words[at] == word for at, word in (row[3:5], row[5:7], *row[7]))


def _writes(waits: Request) -> bool:
    statement: Any = waits.commands[0]
    return not waits.answers and not statement.sql.lstrip().startswith("SELECT")


# -- the world --------------------------------------------------------------------------------------------------------------

_directory: list[str] = []
_FIRST_MARK = 8
_words = count(1 << 63, 2)


def _new_word() -> int:
    """A word that was never there: the same in each run of a schedule."""
    run: Any = whole._run[0] if whole._run else None
    if run is None or run.current is None:
        return next(_words)
    return int.from_bytes(run.random(8), "big") << 1


NOW_MS = int(WALL * 1000)


class _Chance(random.Random):
    """Names of pieces: the same in each run of a schedule."""

    def getrandbits(self, count: int) -> int:
        run: Any = whole._run[0]
        return int.from_bytes(run.random(8), "big") >> (64 - count)


def _inside(real: Callable[..., Any]) -> Callable[..., Any]:
    """What is done in one step: nobody else's statement comes between its own."""

    def whole_step(*args: Any) -> Any:
        run: Any = whole._run[0] if whole._run else SimpleNamespace()
        before, run.opening = getattr(run, "opening", False), True
        try:
            return real(*args)
        finally:
            run.opening = before

    return whole_step


@contextmanager
def file_world(directory: str) -> Iterator[None]:
    """`whole.world` with the clock, the chance and the connections of SQLite stores too, for files in this directory."""
    moments, sqlite = memover.stores.sqlite.moments, memover.stores.sqlite
    replaced: list[tuple[Any, str, Any]] = [
        (moments.time_ms, "__defaults__", (lambda: NOW_MS * 1_000_000,)),
        (moments.time_us, "__defaults__", (lambda: NOW_MS * 1_000_000,)),
        (SqliteStore.fetch, "__kwdefaults__", {"waits": True, "_clock": lambda: NOW_MS * 1_000_000}),
        (sqlite.store, "file_at", File),
        (sqlite.connections, "Connection", FileConnection),
        (sqlite.writing, "random", _Chance()),
        (sqlite.marks, "_new_word", _new_word),
        (sqlite.marks, "_NOTICED_MS", -1),  # the clock stands still
        (sqlite.marks, "_LEFT_SECONDS", math.inf),
        (sqlite.writing, "INLINE_BYTES", _INLINE_BYTES),
        (sqlite.writing, "PIECE_BYTES", _PIECE_BYTES),
        (sqlite.direct, "INLINE_BYTES", _INLINE_BYTES),
        (File, "_open", _inside(File._open)),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in replaced]
    _directory[:] = [directory]
    with whole.world():
        for where, name, what in replaced:
            setattr(where, name, what)
        try:
            yield
        finally:
            for where, name, what in before:
                setattr(where, name, what)
            with suppress(IndexError):
                whole._run.pop()
