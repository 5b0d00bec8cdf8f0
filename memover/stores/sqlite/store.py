"""The SQLite store: the protocol of `engine.store`, on a file that the processes of one machine share.

Reads never wait for a writer (the log has every reader's own state), so they are done where they are called, on an event
loop too. Only what would wait all the same (a connection to be opened, another process that recovers the file), and entries
of more than 1 MB, go to a worker thread. Whatever writes yields `Run`.

**What is promised.** A commit is in the operating system's hands: `kill -9` at any moment loses nothing that was answered.
An invalidation (`bump`, `drop`, `remove`, `remove_many`) is on the disk besides, before it is answered, so it survives a
power loss as far as the disk keeps its word; the last entries may be lost then, which is a miss.

The steps themselves are in `reading`, `writing`, `tokens` and `keyvalue`; here is in which thread they are done, for how long
they may wait, and when they are not tried. Where a step of Redis's is one script and here there are several statements, the
order is the one that Redis Cluster has, where keys are on different nodes: a lease is taken only if the required tokens
have not moved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from memover.clocks import ACTUAL, monotonic
from memover.engine.steps import Run
from memover.engine.store import TOKEN_MARGIN_MS, Kept, Rereads, Seen
from memover.errors import StoreError, raised_beneath
from memover.living import Living
from memover.loops import in_thread
from memover.stores.breaker import Breaker
from memover.stores.sqlite.changing import lasting
from memover.stores.sqlite.direct import Direct
from memover.stores.sqlite.failures import ERRORS
from memover.stores.sqlite.feed import SqliteFeed
from memover.stores.sqlite.file import Busy
from memover.stores.sqlite.forks import file_at
from memover.stores.sqlite.job import Job
from memover.stores.sqlite.keyvalue import SqliteKeyValues
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.marks import ALL
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.reading import Reader, packed
from memover.stores.sqlite.tidy import Tidier
from memover.stores.sqlite.tokens import Tokens
from memover.stores.sqlite.writing import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.steps import Flow
    from memover.engine.store import Granted, Renewal, Request, SeenMany, StoredEntry
    from memover.model import Key

__all__ = ["SqliteStore"]

T = TypeVar("T")

_made: Callable[[type[Seen], tuple[object, ...]], Seen] = tuple.__new__
"""A named tuple without the function that makes one, which is written in Python."""
_kept: Callable[[type[Kept], tuple[object, ...]], Kept] = tuple.__new__
_stores: Living[SqliteStore] = Living()
_STANDS = f"""(({{p}}now := {{p}}nanoseconds() // 1_000_000) == {{p}}file.moment or not {{p}}file.look({{p}}now)) \
and {{p}}item.era is {{p}}file.era and {{p}}file.words[{ALL}] == {{p}}item.word and {{p}}now < {{p}}item.expires \
and {{p}}file.recent.setdefault({{p}}item.row) is None"""
"""What `fetch` asks before it answers from what is kept. That no row was changed is asked first: `_reread` says of one row."""


class SqliteStore(SqliteKeyValues):
    """A store in one file; threads, event loops and forked children may use one object at the same time."""

    local = False
    spread = False
    generation_shards = 1
    read_in_steps = True
    """A read is no round trip: the calls of a batch are read a few at a time."""

    def __init__(self, path: str, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits = Limits() if limits is None else limits
        self._file = file_at(path)
        self.address = self._file.address
        self._tidier = Tidier(self._file, limits.max_bytes)
        self.longest_bytes = self._tidier.longest_bytes
        self._reader = Reader(self._file)
        self._tokens = Tokens(self._file, self._reader)
        self._writer = Writer(self._file, self._reader, self._tokens, self._tidier, limits.lock_timeout)
        self._reads, self._writes = (
            Breaker(self.address, first_seconds=limits.breaker_first_seconds, last_seconds=limits.breaker_last_seconds)
            for _ in range(2)
        )
        self._absences: dict[bytes, int] = {}
        """How many reads in a row found no entry, by the generation that they were under."""
        _stores.add(self)

    # -- the read of a hit ----------------------------------------------------------------------------------------------------

    def fetch(self, key: Key, *, waits: bool = True, _clock: Callable[[], int] = ACTUAL.nanoseconds) -> Seen:
        """As `engine.store.Store.fetch`. With `waits=False` it raises `Busy` where it would wait."""
        file = self._file
        moment = _clock() // 1_000_000
        if moment != file.moment:
            file.look(moment)
        page = file.page
        marks = None
        if page is not None:
            text = key.text
            row = page.rows.get(text) or (page.find(text) if page.older else None)
            if row is not None:
                kept, number, expires, first, first_word, second, second_word, more = row
                words = page.words
                if (
                    words[first] == first_word
                    and words[second] == second_word
                    and moment < expires
                    and kept[0] == key.names
                    and (not more or all(words[place] == word for place, word in more))
                ):
                    file.recent[number] = None
                    return kept
            marks = page.marks(key.names, key.entry)
        statement, names = key.packed or packed(key)
        idle = file.idle
        connection = found = None
        try:
            connection = idle.pop()
        except IndexError as error:
            if raised_beneath(error):
                raise
        if connection is not None:
            try:
                found = connection.execute(statement, (*names, moment)).fetchone()
            except ERRORS:
                file.give_back(idle, connection)
        # Opened there, and an error found again and dealt with; not above, where what it raises would have a context.
        if connection is None or found is None:
            return self._slow_read(key, waits)
        idle.append(connection)
        if idle is not file.idle:
            file.drain(idle)
        *tokens, number, raw, _, parts, expires = found
        absences, generation = self._absences, key.names[0]
        if raw is None:
            absences[generation] = absences.get(generation, 0) + 1
            return _made(Seen, (key.names, tokens, None, None))
        absences[generation] = 0
        file.recent[number] = None
        if parts is not None:
            return self._slow_read(key, waits)
        if marks is None or page is None or None in tokens:
            return _made(Seen, (key.names, tokens, raw, None))
        kept = _kept(Kept, (key.names, tokens, raw, None))
        page.keep(key.text, kept, number, expires, marks, len(raw))
        return kept

    def rereads(self) -> Rereads:
        return Rereads(self._reread, _STANDS, {"file": self._file, "nanoseconds": ACTUAL.nanoseconds})

    def _reread(self, key: Key, _clock: Callable[[], int] = ACTUAL.nanoseconds) -> Kept | None:
        file = self._file
        moment = _clock() // 1_000_000
        if moment != file.moment:
            file.look(moment)
        era, page = file.era, file.page
        row = None if page is None else page.rows.get(key.text)
        if page is None or row is None:
            return None
        kept, number, expires, first, first_word, second, second_word, more = row
        item, words = kept.decoded, page.words
        word = words[ALL]  # before those of the row
        if word & 1:
            page.settle(ALL, word)
        elif (
            item is not None
            and words[first] == first_word
            and words[second] == second_word
            and not more
            and kept[0] == key.names
        ):
            item.era, item.word, item.expires, item.row = era, word, expires, number
            return kept
        return None

    async def afetch(self, key: Key) -> Seen:
        try:
            return self.fetch(key, waits=False)
        except Busy:
            pass
        return await in_thread(lambda: self._slow_read(key, True))

    def _slow_read(self, key: Key, waits: bool) -> Seen:
        if not waits:
            return self._reader.read(key, None)
        return self._guarded(lambda deadline: self._reader.read(key, deadline), self._reads)

    def read(self, key: Key) -> Flow[Seen]:
        try:
            return self.fetch(key, waits=False)
        except Busy:
            pass
        return (yield from Run(lambda: self._slow_read(key, True)))

    def look(self, key: Key) -> Flow[Seen]:
        def work(deadline: float | None) -> Seen:
            looked = self._reader.look(key, key.names, deadline)
            return Seen(key.names, looked.tokens, looked.raw, looked.lease)

        return self._read_flow(work)

    def read_plain(self, keys: Sequence[Key]) -> Flow[SeenMany]:
        return self._read_flow(lambda deadline: self._reader.read_plain(keys, deadline))

    def read_many(self, keys: Sequence[Key]) -> Flow[list[Seen]]:
        return self._read_flow(lambda deadline: self._reader.read_many(keys, [key.names for key in keys], deadline))

    # -- leases and entries -----------------------------------------------------------------------------------------------------

    def acquire(self, request: Request, *, force: bool = False) -> Flow[Granted]:
        return self._write_flow(lambda deadline: self._writer.acquire(request, force, deadline))

    def acquire_many(self, requests: Sequence[Request]) -> Flow[list[Granted]]:
        return self._write_flow(lambda deadline: self._writer.acquire_many(requests, deadline))

    def store(self, entry: StoredEntry) -> Flow[bool]:
        return self._write_flow(lambda deadline: self._writer.store(entry, deadline))

    def store_many(self, entries: Sequence[StoredEntry]) -> Flow[list[bool]]:
        return self._write_flow(lambda deadline: self._writer.store_many(entries, deadline))

    def release(self, key: Key, token: str, failed: bool) -> Flow[None]:
        return self._write_flow(lambda deadline: self._writer.release(key, token, failed, deadline), final=True)

    def release_many(self, held: Sequence[tuple[Key, str]]) -> Flow[None]:
        return self._write_flow(lambda deadline: self._writer.release_many(held, deadline), final=True)

    def direct(self) -> Direct:
        """The writes of a plain miss in the calling thread, for `runtime.direct`."""
        whole_way: Callable[[Callable[[float], int]], int] = lambda work: self._guarded(work, self._writes)  # noqa: E731
        return Direct(self._file, self._tidier, self._writes, whole_way, self._absences)

    def renew(self, renewals: Sequence[Renewal]) -> Flow[list[bool]]:
        return self._write_flow(lambda deadline: self._writer.renew(renewals, deadline))

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Flow[list[bytes]]:
        return self._write_flow(
            lambda deadline: self._tokens.ensured(names, floors, nonce, time_ms() + TOKEN_MARGIN_MS, deadline)
        )

    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Flow[list[bytes]]:
        return self._write_flow(
            lambda deadline: self._tokens.bump(names, nonce, floors, along, deadline), invalidates=True
        )

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Flow[None]:
        return self._write_flow(lambda deadline: self._tokens.drop(entry, nonce, along, deadline), invalidates=True)

    def drop_now(self, entry: bytes, nonce: str, along: Sequence[bytes]) -> None:
        """As `drop`, in the calling thread."""
        self._guarded(lambda deadline: self._tokens.drop(entry, nonce, along, deadline), self._writes, invalidates=True)

    def _read_flow(self, work: Callable[[float | None], T]) -> Flow[T]:
        try:
            return work(None)
        except Busy:
            pass
        return (yield from Run(lambda: self._guarded(work, self._reads)))

    def _write_flow(self, work: Callable[[float], T], *, invalidates: bool = False, final: bool = False) -> Flow[T]:
        """`final`: it is done even if the caller is cancelled before it has begun."""
        job = Job(lambda: self._guarded(work, self._writes, invalidates=invalidates))
        try:
            return (yield from Run(job))
        except GeneratorExit:
            raise
        except BaseException:
            # A caller on an event loop was cancelled while this is done in a thread. What the flow does next (give the
            # lease back) must come after it.
            begun = not job.call_off()
            if begun and job.elsewhere():
                yield from Run(job.wait)
            elif final and not begun:
                yield from Run(lambda: self._guarded(work, self._writes, invalidates=invalidates))
            raise

    def _guarded(self, work: Callable[[float], T], breaker: Breaker, *, invalidates: bool = False) -> T:
        if breaker.tripped and not invalidates:
            breaker.check()
        deadline = monotonic() + self.limits.lock_timeout
        try:
            if invalidates:
                done = lasting(self._file, lambda: work(deadline))
                self._tidier.wrote()
            else:
                done = work(deadline)
        except StoreError as error:
            breaker.failed(error)
            raise
        if breaker.tripped:
            breaker.answered()
        return done

    def feed(self, coarse: bytes, prefixes: Sequence[bytes], seconds: float) -> SqliteFeed:
        """What a near tier asks; see `stores.feed.Feed`."""
        return SqliteFeed(self, coarse)

    def tidy(self, seconds: float) -> bool:
        """What otherwise happens behind writes, now and in this thread; False if that time was too short."""
        return self._tidier.tidy(seconds)

    def settle(self, seconds: float) -> None:
        pass  # every answer was waited for

    def close(self) -> None:
        self._file.leave()

    async def aclose(self) -> None:
        await in_thread(self._file.leave)

    def after_fork(self) -> None:
        self._tidier.after_fork()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
