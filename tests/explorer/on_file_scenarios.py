"""What whole processes do on one SQLite file in the explorer's world, and the rules that each must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.errors import StoreError
from memover.stores.sqlite import statements, tokens
from memover.stores.sqlite.file import File
from memover.stores.sqlite.marks import MarkPage
from memover.stores.sqlite.tokens import Tokens
from memover.stores.sqlite.writing import Writer
from tests.explorer.on_file import FileProcess, OnFile
from tests.explorer.whole_mutants import Mutant, replaced
from tests.explorer.whole_scenarios import (
    A,
    B,
    reader,
    reader_twice,
    writer_of_all,
    writer_of_one,
    writer_of_the_tag,
    writer_who_refreshes,
    writer_who_sets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.explorer.whole import Process, Run

__all__ = ["LONG", "MUTANTS", "SCENARIOS"]

C = 2


def counter(run: Run, process: Process) -> None:
    """The key-value entry `n` counts up by one."""
    process.cache.incr("n")


def upkeep(run: Run, process: Process) -> None:
    """What is done behind writes, twice."""
    assert isinstance(process, FileProcess), "it has a file"
    for _ in range(2):
        process.sqlite._tidier.step()


SCENARIOS: tuple[OnFile, ...] = (
    OnFile("another process invalidates all", "P1", ((A, reader_twice), (B, writer_of_all))),
    OnFile("another process invalidates the call", "P2", ((A, reader_twice), (B, writer_of_one))),
    OnFile("another process invalidates the tag", "P1", ((A, reader_twice), (B, writer_of_the_tag)), tagged=True),
    OnFile("an entry that is there is invalidated with all", "P1", ((A, reader_twice), (B, writer_of_all)), stored=True),
    OnFile("two call, in two processes", "P6", ((A, reader), (B, reader)), loads=1),
    OnFile("two call, in one process", "P6", ((A, reader), (A, reader)), loads=1),
    OnFile("a lease ends while its holder loads", "P2", ((A, reader_twice), (B, writer_of_one)), ("expiry",)),
    OnFile("a long entry is set anew while it is read", "P2", ((A, reader_twice), (B, writer_who_sets)), stored=True, long=True),
    OnFile("the file is locked when all is invalidated", "P8", ((A, reader_twice), (A, writer_of_all)), ("locked:1",), stored=True),
    OnFile("two count", "atomic", ((A, counter), (B, counter)), counts=2),
    OnFile("kept while another process invalidates all", "P1", ((A, reader_twice), (B, writer_of_all)), stored=True),
    OnFile("kept while another process invalidates the call", "P2", ((A, reader_twice), (B, writer_of_one)), stored=True),
    OnFile("kept while another process refreshes the call", "P2", ((A, reader_twice), (B, writer_who_refreshes)), stored=True),
    OnFile("misses without a read while another process invalidates all", "P1", ((A, reader_twice), (B, writer_of_all)), presumed=True),
    OnFile("misses without a read while another process invalidates the call", "P2", ((A, reader_twice), (B, writer_of_one)),
           presumed=True),
)  # fmt: skip

LONG: tuple[OnFile, ...] = (
    OnFile("kept by two while another process invalidates all", "P1", ((A, reader_twice), (A, reader), (B, writer_of_all)), stored=True),
    OnFile("kept while a writer is killed", "P1", ((A, reader_twice), (B, writer_of_all), (C, writer_of_all)), ("death:1",), stored=True),
    OnFile("two call while one invalidates the call", "P2", ((A, reader), (B, reader), (C, writer_of_one))),
    OnFile("two call while one invalidates all", "P1", ((A, reader), (B, reader), (C, writer_of_all))),
    OnFile("two call in one process while it invalidates the call", "P2", ((A, reader), (A, reader), (A, writer_of_one))),
    OnFile("two call while one sets the call", "P2", ((A, reader), (B, reader), (C, writer_who_sets))),
    OnFile("two call while one refreshes the call", "P2", ((A, reader), (B, reader), (C, writer_who_refreshes))),
    OnFile("two call without a read while one invalidates all", "P1", ((A, reader_twice), (B, reader_twice), (C, writer_of_all)),
           presumed=True),
    OnFile("two call without a read in one process while one invalidates the call", "P2", ((A, reader_twice), (A, reader), (C, writer_of_one)),
           presumed=True),
    OnFile("a lease ends while two call", "P2", ((A, reader), (B, reader), (C, writer_of_one)), ("expiry",)),
    OnFile("a caller is killed", "P2", ((A, reader), (B, reader), (C, writer_of_one)), ("death:0",)),
    OnFile("a writer is killed", "P2", ((A, reader), (B, reader_twice), (C, writer_of_one)), ("death:2",)),
    OnFile("a caller is interrupted", "P17", ((A, reader), (B, reader)), ("interrupt:0",)),
    OnFile("a writer is interrupted", "P17", ((A, reader), (B, writer_of_one)), ("interrupt:1",)),
    OnFile("the file is locked when a call is invalidated", "P8", ((A, writer_of_one), (A, reader), (B, reader)), ("locked:0",)),
    OnFile("the file is locked when a result is stored", "P2", ((A, reader), (B, reader), (B, writer_of_one)), ("locked:0",)),
    OnFile("every token is lost", "P4", ((A, reader_twice), (B, writer_of_all)), ("flush",), stored=True),
    OnFile("the file is removed", "P1", ((A, reader_twice), (B, writer_of_all)), ("gone",), stored=True),
    OnFile("the file is replaced", "P1", ((A, reader_twice), (B, writer_of_all)), ("replaced",), stored=True),
    OnFile("the file is removed while two call", "P2", ((A, reader), (B, reader), (C, writer_of_one)), ("gone",)),
    OnFile("a long entry is set anew and swept while it is read", "P2", ((A, reader), (B, writer_who_sets), (C, upkeep)), stored=True,
           long=True),
    OnFile("long entries, and a call is invalidated", "P2", ((A, reader), (B, reader), (C, writer_of_one)), long=True),
    OnFile("two count, in one process and another", "atomic", ((A, counter), (A, counter), (B, counter)), counts=3),
)  # fmt: skip
"""More at once; in the slow suite."""


# -- the store with one rule broken ------------------------------------------------------------------------------------------------


def without(name: str, condition: str) -> Callable[[], Callable[[], None]]:
    """A statement that does not ask something."""

    def breaks() -> Callable[[], None]:
        real = getattr(statements, name)
        assert condition in real, "it asks"
        return replaced(statements, name, real.replace(condition, "true"))

    return breaks


def a_bump_moves_nothing() -> Callable[[], None]:
    def bump(self: Any, names: Any, nonce: str, floors: Any, along: Any, deadline: float) -> Any:
        return self.ensured(names, floors, nonce, 1 << 62, deadline)

    return replaced(Tokens, "bump", bump)


def a_dropped_entry_leaves_its_lease() -> Callable[[], None]:
    def drop(self: Any, entry: bytes, nonce: str, along: Any, deadline: float) -> None:
        self._file.count(statements.among(statements.REMOVE, 1), (entry.decode(),), deadline)

    return replaced(Tokens, "drop", drop)


def a_drop_is_two_statements() -> Callable[[], None]:
    """The lease ends first: whoever takes it then stores, and what was stored is older than the invalidation."""

    def drop(self: Any, entry: bytes, nonce: str, along: Any, deadline: float) -> None:
        self._file.count(statements.among(statements.REMOVE, 1), (entry.decode(),), deadline)
        self._file.count(statements.among(statements.END_LEASES, 1), (entry.decode(),), deadline)

    return replaced(Tokens, "drop", drop)


def a_lease_is_not_given_back() -> Callable[[], None]:
    return replaced(Writer, "release", lambda self, key, token, failed, deadline: None)


def a_locked_file_is_no_failure() -> Callable[[], None]:
    """An invalidation that did not get the lock is answered as if it had."""
    real = Tokens.bump

    def bump(self: Any, names: Any, *arguments: Any) -> Any:
        try:
            return real(self, names, *arguments)
        except StoreError:
            return [b"1-%016x" % 0 for _ in names]

    return replaced(Tokens, "bump", bump)


def the_file_is_not_looked_at_again() -> Callable[[], None]:
    return replaced(File, "unmoved", lambda self: True)


def rows_are_kept_under_marks_read_afterwards() -> Callable[[], None]:
    real = MarkPage.keep

    def keep(self: Any, text: str, seen: Any, number: int, expires: int, marks: Any, size: int) -> None:
        later = self.marks(seen.names, text.encode())
        if later is not None:
            real(self, text, seen, number, expires, later, size)

    return replaced(MarkPage, "keep", keep)


def marks_are_even_before_the_commit() -> Callable[[], None]:
    def changing(file: Any, places: Any, work: Callable[[], Any], deadline: float) -> Any:
        file.page.end(places, file.page.begin(places))
        return work()

    return replaced(tokens, "changing", changing)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("a row is kept under marks that were read after it", "P1", "kept by two while another process invalidates all",
           rows_are_kept_under_marks_read_afterwards),
    Mutant("the marks say that all is over before it is", "P1", "kept while another process invalidates all",
           marks_are_even_before_the_commit),
    Mutant("the marks of an invalidated call say that all is over before it is", "P2", "kept while another process invalidates the call",
           marks_are_even_before_the_commit),
    Mutant("an entry is stored without the lease", "P2", "another process invalidates the call",
           without("STORE", "EXISTS (SELECT 1 FROM leases WHERE key = ?1 AND holder = ?2 AND under IS NOT NULL AND ends > ?3)")),
    Mutant("an entry is stored by whoever had a lease", "P2", "a lease ends while its holder loads",
           without("STORE", "EXISTS (SELECT 1 FROM leases WHERE key = ?1 AND holder = ?2 AND under IS NOT NULL AND ends > ?3)")),
    Mutant("an invalidation moves no token", "P1", "another process invalidates all", a_bump_moves_nothing),
    Mutant("an invalidated call keeps its lease", "P2", "another process invalidates the call", a_dropped_entry_leaves_its_lease),
    Mutant("an invalidated call loses its entry before its lease", "P2", "another process invalidates the call", a_drop_is_two_statements),
    Mutant("the lease is taken without looking for an entry", "P6", "two call, in two processes",
           without("TAKE", "NOT EXISTS (SELECT 1 FROM entries WHERE key = ?1 AND expires > ?6)")),
    Mutant("the lease is taken while another has it", "P6", "two call, in two processes",
           without("TAKE", "ends <= ?6 OR under IS NULL OR under <> excluded.under")),
    Mutant("the lease of a result that is not stored is not given back", "P17", "the file is locked when all is invalidated",
           a_lease_is_not_given_back),
    Mutant("an invalidation of a locked file is answered", "P8", "the file is locked when all is invalidated", a_locked_file_is_no_failure),
    Mutant("whether the file is there is not asked after an invalidation", "P1", "the file is replaced", the_file_is_not_looked_at_again),
    Mutant("a number is written whatever it is now", "atomic", "two count", without("CHANGE", "raw IS ?2")),
)  # fmt: skip
