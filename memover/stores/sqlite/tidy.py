"""What happens behind writes, in bounded steps: expired rows leave, the least recently used make room, the file shrinks.

A step does at most one statement of each kind, each for some milliseconds at most, and never waits for a lock: whoever has
it is writing, and will come by here. A step follows the first write of a process, and every `_WRITES`-th or `_STEP_BYTES` bytes, in the
writer's thread, so that a writer cannot outrun it; one that did not get the lock is made with the next write. What is slow (copying the log into the file, with its syncs) or has no writer
(noting what was read) is done by a thread that is started for it and ends when nothing is left. Where that thread does not
keep up with the writers of all processes, the log grows to `_FULL_LOG_BYTES` and the writers copy it themselves.

**Least recently used**, nearly: of each `_SAMPLE_ROWS` entries, in the order of their rows, the quarter goes that was not
used for the longest time; a store of fewer entries is sampled whole. (An index by use would be one more page to write with
each entry.) A read notes the row in a dictionary of the process; every few seconds the rows noted get their
`used` in the file. A process that evicts spares, besides, what it has read itself since.

The token of a tag stays as long as an entry may need it: for ever, where entries have no ttl. Where there are so many tags that their
tokens leave little room for entries, the older ones of those go. What still stands under one is a miss, as it is whenever a token is lost.
"""

from __future__ import annotations

import time
from _thread import start_new_thread
from typing import TYPE_CHECKING

from memover.clocks import monotonic
from memover.errors import StoreError, raised_by_handler
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.file import RECENT_MS, Busy
from memover.stores.sqlite.moments import time_ms

if TYPE_CHECKING:
    from memover.stores.sqlite.file import File

__all__ = ["Tidier"]

_WRITES = 64
_STEP_BYTES = 1 << 20
_ROWS = 64
_PIECES = 16
_VACUUM_PAGES = 256
_EARLY_PAGES = 4
"""What rounding to whole pages takes besides of what is written between two steps."""
_EARLY_SHARE = 8
_EARLY_DECAY = 256
_LOG_PAGES = 2000
"""When about so many pages have been written by a process, it copies the log into the file."""
_LONG_LOG_PAGES = 3000
"""A log longer than this is made to begin anew."""
_FULL_LOG_BYTES = 16 << 20
"""Nor is a log left to the thread that is longer than this, whoever wrote it. That to which `connections` has a log cut that
begins anew."""
_RESTART_SECONDS = 0.25
_RESTART_PAUSE_SECONDS = 0.001
_PAGES_A_WRITE = 3
_ROOM_TRIES = 8
_SPARE_SHARE = 64
"""When room is made, a 64th of the limit more is made, so that not every write has to."""
_RECENT_ROWS = 10_000
_NOTED_AT_ONCE = 100
_SAMPLE_ROWS = 256
_SAMPLED_TIMES = 4
_TOKENS_SHARE = 4
"""Tokens of tags make room where entries have less than a quarter of the limit."""
_BEHIND_SECONDS = 0.02
_AT_WORK_SECONDS = 4.0
_PAUSE_SECONDS = 0.002


class Tidier:
    """One per store; `max_bytes` bounds the file."""

    def __init__(self, file: File, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self.longest_bytes = max_bytes // 2
        """The longest entry for which room is made."""
        self._step_bytes = min(_STEP_BYTES, max_bytes // 32)
        # Two steps early: what is written until the next one has room, with the rest of its pages.
        self._least_early = self._early = 2 * self._step_bytes + min(_EARLY_PAGES * 4096, max_bytes // _EARLY_SHARE)
        self._writes = _WRITES  # the first write is followed by a step: a process may make few, and end
        self._bytes = 0
        self._pages = 0
        self._hand = 0
        self._entries_bytes = max_bytes  # of all entries, when they were last added up
        self._adding = (0, 0)  # the last of those that are added up already, and their bytes
        self._tokens_hand = ""
        self._leases_hand = ""
        self._full_log = _FULL_LOG_BYTES
        self._at_work = 0.0  # when the thread was last seen at work; it may be killed without a word
        file.behind = self.begin_behind

    # -- behind a write -----------------------------------------------------------------------------------------------------

    def wrote(self, size: int = 0, writes: int = 1) -> None:
        """To be called after writes; `size` bytes are what they added. Raises nothing of the store's."""
        self._writes += writes
        self._bytes += size
        self._pages += _PAGES_A_WRITE * writes + size // 4096
        if self._writes < _WRITES and self._bytes < self._step_bytes:
            return
        self._writes = self._bytes = 0
        try:
            more = self.step()
        except (Busy, StoreError):
            more, self._writes = False, _WRITES  # the next write comes by
        if more or self._pages > _LOG_PAGES:
            self.begin_behind()
        self.relieve()

    def room_for(self, size: int, deadline: float) -> bool:
        """Whether a long entry may be written: makes room for it first. Raises `StoreError`."""
        if size > self.longest_bytes:
            return False
        tries = _ROOM_TRIES
        # What is written until the next step needs room beside it.
        while self._taken_bytes() + size + self._early > self._max_bytes:
            if not self.step(size, deadline):  # nothing to evict; or another writer took the room that there was
                if not tries:
                    return False
                tries -= 1
            self.relieve()
        return True

    def step(self, wanted: int = 0, deadline: float | None = None) -> bool:
        """One bounded step; whether there is more to do. Raises `Busy` or `StoreError`."""
        file, now = self._file, time_ms()
        ((entries, tokens, doomed, pages, free, page_bytes),) = file.rows(sql.PROBE, (), deadline)
        more = False
        if entries is not None and entries < now:
            more = file.count(sql.SWEEP, (now, _ROWS), deadline) == _ROWS
        if tokens is not None and tokens < now:
            more = file.count(sql.SWEEP_TOKENS, (now, _ROWS), deadline) == _ROWS or more
        more = self._sweep_leases(now, deadline) or more
        if doomed is not None and doomed < now:
            left = _PIECES
            for (parts,) in file.rows(sql.DOOMED, (now, _PIECES), deadline):
                left -= file.count(sql.SWEEP_PIECES, (parts, left), deadline)
                if not left:
                    break
                file.count(sql.FORGET, (parts, now), deadline)
            return True
        taken, over = (pages - free) * page_bytes, pages - self._max_bytes // page_bytes
        self._begin_early(taken)
        more = self._evict(taken + wanted + self._early - self._max_bytes, deadline) or more
        if free and (over > 0 or (free > _VACUUM_PAGES and free * 8 > pages)):
            given = min(over, _VACUUM_PAGES) if over > 0 else _VACUUM_PAGES
            file.script(f"PRAGMA incremental_vacuum({given})", deadline)
            return more or over <= 0 or over > given
        return more

    def _begin_early(self, taken: int) -> None:
        """Room is made earlier where the file was found too full: other processes write between two steps, too."""
        if taken > self._max_bytes:
            self._early = min(
                self._early + taken - self._max_bytes, max(self._max_bytes // _EARLY_SHARE, self._least_early)
            )
        else:
            self._early = max(self._early - self._early // _EARLY_DECAY, self._least_early)

    def _sweep_leases(self, now: int, deadline: float | None) -> bool:
        """Those of loads that ended without a word, and marks of failure: a page of the table a time."""
        file, hand = self._file, self._leases_hand
        page = file.rows(sql.LEASES, (hand, _ROWS), deadline)
        self._leases_hand = page[-1][0] if len(page) == _ROWS else ""
        if not any(ends < now for _, ends in page):
            return False
        return file.count(sql.SWEEP_LEASES, (hand, page[-1][0], now), deadline) == _ROWS

    def _evict(self, over: int, deadline: float | None) -> bool:
        """Makes room for so many bytes, and some more; whether there were any to make."""
        file = self._file
        if over <= 0:
            return False
        over += self._max_bytes // _SPARE_SHARE
        recent = file.recent
        sample = file.rows(sql.SAMPLE, (self._hand, _SAMPLE_ROWS), deadline)
        if len(sample) < _SAMPLE_ROWS:  # around the end
            sample += file.rows(sql.SAMPLE, (0, _SAMPLE_ROWS - len(sample)), deadline)
        crowded = self._crowded(deadline) and self._evict_tokens(deadline)
        if not sample:
            return crowded
        self._hand = sample[len(sample) // _SAMPLED_TIMES][0]
        read = {row[0] for row in sample if row[0] in recent or row[0] in file.recent_before}
        spared = list(read)
        chosen = sorted({row for row in sample if row[0] not in read}, key=lambda row: int(row[2]))
        gone: list[int] = []
        before = 0
        for row, size, used in chosen[: max(1, len(chosen) // _SAMPLED_TIMES)]:
            gone.append(row)
            before = used
            over -= size
            if over <= 0:
                break
        for at in range(0, len(spared), _NOTED_AT_ONCE):
            self._note(spared[at : at + _NOTED_AT_ONCE], deadline)
        for row in spared:  # once: when everything was read lately, something has to go all the same
            recent.pop(row, None)
            file.recent_before.pop(row, None)
        if gone:
            file.count(sql.among(sql.EVICT, len(gone)), (before, *gone), deadline)
        return True

    def _crowded(self, deadline: float | None) -> bool:
        """Whether tokens leave little room for entries, whose bytes are added up some hundred rows a time."""
        file, (hand, size) = self._file, self._adding
        if not hand and len(file.rows(sql.SAMPLE_TOKENS, ("", _SAMPLE_ROWS), deadline)) < _SAMPLE_ROWS:
            return False
        part = file.rows(sql.SAMPLE, (hand, _SAMPLE_ROWS), deadline)
        size += sum(row[1] for row in part)
        self._adding = (part[-1][0], size) if len(part) == _SAMPLE_ROWS else (0, 0)
        if not self._adding[0]:
            self._entries_bytes = size
        return self._entries_bytes < self._max_bytes // _TOKENS_SHARE

    def _evict_tokens(self, deadline: float | None) -> bool:
        """Makes room of the older tokens among some hundred; whether there were so many."""
        sample = self._file.rows(sql.SAMPLE_TOKENS, (self._tokens_hand, _SAMPLE_ROWS), deadline)
        if len(sample) < _SAMPLE_ROWS:
            around = bool(self._tokens_hand)
            self._tokens_hand = ""
            return around and self._evict_tokens(deadline)
        self._tokens_hand = str(sample[-1][0])
        tags = sorted((row for row in sample if _is_tag(str(row[0]))), key=lambda row: int(row[1]))
        gone = tags[: len(tags) // 2]
        if not gone:
            return False
        names = [name for name, _ in gone]
        return self._file.count(sql.among(sql.EVICT_TOKENS, len(names)), (gone[-1][1], *names), deadline) > 0

    def _taken_bytes(self) -> int:
        ((_, _, _, pages, free, page_bytes),) = self._file.rows(sql.PROBE, (), monotonic() + 1.0)
        return int((pages - free) * page_bytes)

    # -- in a thread of its own -----------------------------------------------------------------------------------------------

    def begin_behind(self) -> None:
        """Starts the thread, unless it is at work."""
        if monotonic() - self._at_work < _AT_WORK_SECONDS:
            return
        self._at_work = monotonic()
        try:
            start_new_thread(self._work, ())
        except RuntimeError as error:  # the system gives no more threads, or the interpreter ends: another time
            if raised_by_handler(error):
                raise

    def _work(self) -> None:
        time.sleep(_BEHIND_SECONDS)
        while not self.tidy(_AT_WORK_SECONDS / 2):
            self._at_work = monotonic()
            time.sleep(_BEHIND_SECONDS)
        self._at_work = 0.0

    def after_fork(self) -> None:
        """In a child there is no such thread, and its first write is followed by a step."""
        self._at_work = 0.0
        self._writes = _WRITES

    def tidy(self, seconds: float) -> bool:
        """Does what is to be done, for as long as that; False if it was cut short. Raises nothing of the store's."""
        end = monotonic() + seconds
        try:
            self._note_recent()
            while True:
                if self._pages > _LOG_PAGES:  # however much there is to do: each step adds to the log
                    self._pages = 0
                    self._checkpoint()
                if not self.step(0, monotonic() + 1.0):
                    break
                self.relieve()
                if monotonic() >= end:
                    return False
                time.sleep(_PAUSE_SECONDS)
        except (Busy, StoreError):
            pass  # the next write comes by
        return True

    # -- the log ------------------------------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Copies a full log into the file, in the writer's thread: after whatever adds more than a few pages to it. Raises nothing
        of the store's."""
        length = self._file.log_bytes()
        if length <= self._full_log:
            if length <= _FULL_LOG_BYTES:
                self._full_log = _FULL_LOG_BYTES
            return
        try:
            begun = self._checkpoint()
        except (Busy, StoreError):
            begun = False
        # Where a reader stays in the log for long, not every writer waits for it each time.
        self._full_log = _FULL_LOG_BYTES if begun else length + _FULL_LOG_BYTES

    def _checkpoint(self) -> bool:
        """Copies the log into the file while others write; whether a long one will begin anew with the next write. Raises
        `StoreError`."""
        ((busy, pages, copied),) = self._file.rows("PRAGMA wal_checkpoint(PASSIVE)", (), monotonic() + 1.0)
        if not busy and pages <= _LONG_LOG_PAGES:
            return bool(pages == copied)
        # Writers have always added to it meanwhile. Nearly nothing is left to copy now; this holds them up while it is,
        # but not if another checkpoint or a writer holds the lock at that moment, or a reader is in the log.
        end = monotonic() + _RESTART_SECONDS
        while True:
            ((busy, _, _),) = self._file.rows("PRAGMA wal_checkpoint(RESTART)", (), end)
            if not busy or monotonic() >= end:
                return not busy
            time.sleep(_RESTART_PAUSE_SECONDS)

    # -- what was read ------------------------------------------------------------------------------------------------------

    def _note_recent(self) -> None:
        file = self._file
        recent, file.recent = file.recent, {}
        file.recent_before = recent.copy()
        file.recent_due = time_ms() + RECENT_MS
        # In their order in the file: a statement's rows are then on few pages, each of which it writes to the log.
        rows = sorted(list(recent)[-_RECENT_ROWS:])
        for at in range(0, len(rows), _NOTED_AT_ONCE):
            # Not those that were written, or noted by another process, a moment ago.
            some = rows[at : at + _NOTED_AT_ONCE]
            due = file.rows(sql.among(sql.UNNOTED, len(some)), (time_ms() - RECENT_MS, *some), monotonic() + 1.0)
            if due:
                self._note([row for (row,) in due], monotonic() + 1.0)
                time.sleep(_PAUSE_SECONDS)

    def _note(self, rows: list[int], deadline: float | None) -> None:
        self._file.count(sql.among(sql.USED, len(rows)), (time_ms(), *rows), deadline)


def _is_tag(name: str) -> bool:
    """Whether a token's key is that of a tag (see `keys.names`)."""
    return name.partition(":")[2].startswith("tag:")
