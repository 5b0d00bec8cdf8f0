"""The SQLite store: the protocol of `engine.store`, on a file that the processes of one machine share.

Reads never wait for a writer (the log has every reader's own state), so they are done where they are called, on an event
loop too. Only what would wait all the same (a connection to be opened, another process that recovers the file), and entries
of more than `_LONG_BYTES`, go to a worker thread. Whatever writes yields `Run`.

**What is promised.** A commit is in the operating system's hands: `kill -9` at any moment loses nothing that was answered.
An invalidation (`bump`, `drop`, `remove`, `remove_many`) is on the disk besides, before it is answered, so it survives a
power loss as far as the disk keeps its word; the last entries may be lost then, which is a miss.

Each method's steps are single statements (see `statements`). Where a step of Redis's is one script and here there are
several statements, the order is the one that Redis Cluster has, where keys are on different nodes: `acquire` reads tokens
first, and takes the lease only if the required ones have not moved.
"""

from __future__ import annotations

import os
import random
import time
import weakref
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from memover.clocks import monotonic
from memover.engine import lease as leases
from memover.engine.steps import Run
from memover.engine.store import TOKEN_MARGIN_MS, Granted, Seen
from memover.errors import StoreError, StoreUnavailable
from memover.keys.names import transient
from memover.loops import in_thread
from memover.stores.breaker import Breaker
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.failures import ERRORS
from memover.stores.sqlite.file import Busy, file_at, time_ms, time_us
from memover.stores.sqlite.job import Job
from memover.stores.sqlite.keyvalue import SqliteKeyValues
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.statements import FOREVER, INLINE_BYTES, PIECE_BYTES
from memover.stores.sqlite.tidy import Tidier
from memover.stores.sqlite.watch import SqliteWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.steps import Flow
    from memover.engine.store import Request, SeenMany, StoredEntry
    from memover.model import Key

__all__ = ["SqliteStore"]

T = TypeVar("T")

_LONG_BYTES = 1 << 20
_UNLINKED_MS = 600_000
"""How long a long entry may take to be written."""
_KEEP_SLACK_MS = 30_000
"""Tokens are kept for longer than needed by this, so that not every miss has to prolong them."""
_NAMES_AT_ONCE = 200
_ATTEMPTS = 8

_numbers = count(1)
_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


class SqliteStore(SqliteKeyValues):
    """A store in one file; threads, event loops and forked children may use one object at the same time."""

    local = False
    spread = False

    def __init__(self, path: str, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits = Limits() if limits is None else limits
        self._file = file_at(path)
        self.address = self._file.address
        self._tidier = Tidier(self._file, limits.max_bytes)
        self._reads, self._writes = (
            Breaker(
                self.address,
                first_seconds=limits.breaker_first_seconds,
                last_seconds=limits.breaker_last_seconds,
            )
            for _ in range(2)
        )
        self._watching = self._file.kept
        _stores.add(self)

    # -- the read of a hit ----------------------------------------------------------------------------------------------------

    def fetch(self, key: Key, *, _clock: Callable[[], int] = time.time_ns) -> Seen:
        file = self._file
        moment = _clock() // 1_000_000
        if moment != file.moment:
            file.look(moment)
        statement, names = key.packed or _pack(key)
        idle = file.idle
        try:
            connection = idle.pop()
        except IndexError:
            return self._guarded(lambda deadline: self._read(key, deadline), self._reads)
        try:
            row = connection.execute(statement, (*names, moment)).fetchone()
        except ERRORS:
            file.give_back(idle, connection)  # it is found again, and dealt with, there:
            return self._guarded(lambda deadline: self._read(key, deadline), self._reads)
        idle.append(connection)
        if idle is not file.idle:
            file.drain(idle)
        *tokens, number, raw, _, parts = row
        if raw is not None:
            file.recent[number] = None
            if parts is not None:
                return self._guarded(lambda deadline: self._read(key, deadline), self._reads)
        return Seen(key.names, tokens, raw)

    async def afetch(self, key: Key) -> Seen:
        try:
            return self._read(key, None)
        except Busy:
            pass
        return await in_thread(lambda: self._guarded(lambda deadline: self._read(key, deadline), self._reads))

    def read(self, key: Key) -> Flow[Seen]:
        return self._read_flow(lambda deadline: self._read(key, deadline))

    def look(self, key: Key) -> Flow[Seen]:
        return self._read_flow(lambda deadline: self._look(key, deadline))

    def read_plain(self, keys: Sequence[Key]) -> Flow[SeenMany]:
        return self._read_flow(lambda deadline: self._read_plain(keys, deadline))

    def read_many(self, keys: Sequence[Key]) -> Flow[list[Seen]]:
        return self._read_flow(lambda deadline: self._read_many(keys, deadline))

    def _read(self, key: Key, deadline: float | None) -> Seen:
        statement, names = key.packed or _pack(key)
        ((*tokens, row, raw, size, parts),) = self._file.rows(statement, (*names, time_ms()), deadline)
        if raw is not None:
            self._file.recent[row] = None
            if parts is not None:
                raw = self._whole(key, raw, size, parts, deadline)
        return Seen(key.names, tokens, raw)

    def _look(self, key: Key, deadline: float | None) -> Seen:
        names = key.names
        row = self._looked(key, names, deadline)
        return Seen(names, row[0], row[1], row[2])

    def _looked(
        self, key: Key, names: Sequence[bytes], deadline: float | None
    ) -> tuple[list[bytes | None], bytes | None, bytes | None, str | None, bytes | None]:
        """Tokens, entry, the lease's bytes, its holder, and the tokens it was taken under."""
        texts = [name.decode() for name in names]
        ((*tokens, _, raw, size, parts, holder, under),) = self._file.rows(
            sql.look(len(texts)), (*texts, time_ms(), key.text), deadline
        )
        if parts is not None:
            raw = self._whole(key, raw, size, parts, deadline)
        lease = None if holder is None else leases.failed(holder) if under is None else leases.held(holder, under)
        return tokens, raw, lease, holder, under

    def _read_plain(self, keys: Sequence[Key], deadline: float | None) -> SeenMany:
        names = keys[0].names
        tokens = self._tokens(names, deadline)
        raws = self._raws(keys, deadline)
        return names, [tokens.get(name) for name in names], [raws.get(key.text) for key in keys]

    def _read_many(self, keys: Sequence[Key], deadline: float | None) -> list[Seen]:
        # Tokens before entries: what is then read of an entry may be newer than its tokens, which is a miss, but never older.
        tokens = self._tokens(list(dict.fromkeys(name for key in keys for name in key.names)), deadline)
        raws = self._raws(keys, deadline)
        return [Seen(key.names, [tokens.get(name) for name in key.names], raws.get(key.text)) for key in keys]

    def _tokens(self, names: Sequence[bytes], deadline: float | None) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for texts in _batches([name.decode() for name in names]):
            for text, token in self._file.rows(sql.READ_TOKENS, texts, deadline):
                found[text.encode()] = token
        return found

    def _raws(self, keys: Sequence[Key], deadline: float | None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        long: list[tuple[str, bytes, int, int]] = []
        recent = self._file.recent
        now = time_ms()
        for texts in _batches([key.text for key in keys]):
            for text, row, raw, size, parts in self._file.rows(sql.READ_ENTRIES, (now, *texts), deadline):
                recent[row] = None
                if parts is None:
                    found[text] = raw
                else:
                    long.append((text, raw, size, parts))
        if long:
            by_text = {key.text: key for key in keys}
            for text, raw, size, parts in long:
                whole = self._whole(by_text[text], raw, size, parts, deadline)
                if whole is not None:
                    found[text] = whole
        return found

    def _whole(self, key: Key, raw: bytes, size: int, parts: int, deadline: float | None) -> bytes | None:
        """A long entry. Its pieces go when another has taken its place, so that is then read."""
        if deadline is None and size > _LONG_BYTES:
            raise Busy
        for _ in range(_ATTEMPTS):
            pieces = self._file.rows(sql.READ_PIECES, (parts,), deadline)
            whole = b"".join((raw, *(piece for (piece,) in pieces)))
            if len(whole) == size:
                return whole
            rows = self._file.rows(sql.READ_ROW, (key.text, time_ms()), deadline)
            if not rows or not rows[0][3] or rows[0][2] == parts:
                return None
            raw, size, again, _ = rows[0]
            if again is None:
                return raw
            parts = again
        return None

    # -- leases and entries -----------------------------------------------------------------------------------------------------

    def acquire(self, request: Request, *, force: bool = False) -> Flow[Granted]:
        return self._write_flow(lambda deadline: self._acquire(request, force, deadline))

    def acquire_many(self, requests: Sequence[Request]) -> Flow[list[Granted]]:
        return self._write_flow(lambda deadline: [self._acquire(request, False, deadline) for request in requests])

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Flow[list[bytes]]:
        return self._write_flow(
            lambda deadline: self._ensured(names, floors, nonce, time_ms() + TOKEN_MARGIN_MS, deadline)
        )

    def store(self, entry: StoredEntry) -> Flow[bool]:
        return self._write_flow(lambda deadline: self._store(entry, deadline))

    def store_many(self, entries: Sequence[StoredEntry]) -> Flow[list[bool]]:
        return self._write_flow(lambda deadline: [self._store(entry, deadline) for entry in entries])

    def release(self, key: Key, token: str, failed: bool) -> Flow[None]:
        def work(deadline: float) -> None:
            now = time_ms()
            if failed:
                self._file.count(sql.FAIL, (key.text, token, now, now + leases.FAILED_MS), deadline)
            else:
                self._file.count(sql.RELEASE, (key.text, token, now), deadline)
            self._tidier.wrote()

        return self._write_flow(work, final=True)

    def renew(self, key: Key, token: str, lease_ms: int, names: Sequence[bytes] = ()) -> Flow[bool]:
        def work(deadline: float) -> bool:
            now = time_ms()
            self._keep(names, now + lease_ms + TOKEN_MARGIN_MS, deadline)
            return bool(self._file.count(sql.RENEW, (key.text, token, now, now + lease_ms), deadline))

        return self._write_flow(work)

    def _acquire(self, request: Request, force: bool, deadline: float) -> Granted:
        key, token, lease_ms, ensured, floors = request
        required = key.required
        names = (*key.names[:required], *ensured, *key.names[required:])
        texts = [name.decode() for name in names]
        statement = sql.acquire(len(names), required, len(floors))
        brief = [name for name in names[: len(floors)] if transient(name)]
        for _ in range(_ATTEMPTS):
            now = time_ms()
            until = now + lease_ms + TOKEN_MARGIN_MS
            if brief:
                self._keep(brief, until, deadline)
            taken = self._file.rows(statement, (key.text, token, now + lease_ms, now, force, *texts, *floors), deadline)
            if taken:
                ((*tokens, raw, size),) = taken
                if raw is not None and size > len(raw):
                    raw = self._read(key, deadline).raw
                self._tidier.wrote()
                return Granted(True, "", Seen(names, tokens, raw))
            tokens, raw, _, holder, taken_under = self._looked(key, names, deadline)
            behind = [at for at, floor in enumerate(floors) if _behind(tokens[at], floor)]
            if behind:
                self._put_back([names[at] for at in behind], [floors[at] for at in behind], token, until, deadline)
            elif holder is not None and taken_under == leases.stamp(tokens[:required]):
                return Granted(False, holder, Seen(names, tokens, raw))
            # Otherwise it was given back, or a token moved, in the meantime: ask again.
        raise StoreUnavailable(f"{self.address}: the tokens of {key.text} move all the time.", store=self.address)

    def _store(self, entry: StoredEntry, deadline: float) -> bool:
        now = time_ms()
        expires = now + entry.expire_ms if entry.expire_ms else FOREVER
        if entry.names:
            self._keep(entry.names, min(expires + TOKEN_MARGIN_MS, FOREVER), deadline)
        head, parts = self._laid(entry.raw, deadline)
        if head is None:
            self._file.count(sql.RELEASE, (entry.key.text, entry.token, now), deadline)
            return False
        size = len(entry.raw)
        stored = self._file.count(sql.STORE, (entry.key.text, entry.token, now, head, size, parts, expires), deadline)
        if not stored and parts is not None:
            self._file.count(sql.DOOM, (parts, 0), deadline)
        self._tidier.wrote(size)
        return bool(stored)

    def _laid(self, raw: bytes, deadline: float) -> tuple[bytes | None, int | None]:
        """What of an entry goes into its row, and where the rest has been written to; (None, None) if it is too long."""
        if len(raw) <= INLINE_BYTES:
            return raw, None
        if not self._tidier.room_for(len(raw), deadline):
            return None, None
        head = max(
            4096, 64 + sum(raw[58:60]) + int.from_bytes(raw[60:62], "little") + int.from_bytes(raw[62:64], "little")
        )
        parts = random.getrandbits(46)
        file, whole = self._file, memoryview(raw)
        file.count(sql.DOOM, (parts, time_ms() + _UNLINKED_MS), deadline)
        for number, at in enumerate(range(head, len(raw), PIECE_BYTES)):
            piece = whole[at : at + PIECE_BYTES]
            # Each has the whole budget: what a long entry takes is its own time, and nobody is held up by it.
            file.count(sql.ADD_PIECE, (parts * 65536 + number, piece), monotonic() + self.limits.lock_timeout)
        return raw[:head], parts

    # -- tokens -----------------------------------------------------------------------------------------------------------------

    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Flow[list[bytes]]:
        return self._write_flow(
            lambda deadline: self._lasting(lambda: self._bump(names, nonce, floors, along, deadline)), urgent=True
        )

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Flow[None]:
        return self._write_flow(
            lambda deadline: self._lasting(lambda: self._drop(entry, nonce, along, deadline)), urgent=True
        )

    def drop_now(self, entry: bytes, nonce: str, along: Sequence[bytes]) -> None:
        """As `drop`, in the calling thread."""
        self._guarded(
            lambda deadline: self._lasting(lambda: self._drop(entry, nonce, along, deadline)), self._writes, urgent=True
        )

    def _drop(self, entry: bytes, nonce: str, along: Sequence[bytes], deadline: float) -> None:
        now_us = time_us()
        until = now_us // 1000 + TOKEN_MARGIN_MS
        texts = [name.decode() for name in along]
        some: list[str | None] = [*texts[: sql.DROPPED_NAMES], *[None] * (sql.DROPPED_NAMES - len(texts))]
        self._file.count(sql.DROP, (entry.decode(), nonce, now_us, until, *some), deadline)
        for text in texts[sql.DROPPED_NAMES :]:
            self._file.count(sql.DROP, (None, nonce, now_us, until, text, *some[1:]), deadline)
        self._tidier.wrote()

    def _bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes], deadline: float
    ) -> list[bytes]:
        now_us = time_us()
        until = now_us // 1000 + TOKEN_MARGIN_MS
        asked = [
            (name.decode(), floor, until if transient(name) else FOREVER, must)
            for part, levels, must in ((names, floors, True), (along, [0] * len(along), False))
            for name, floor in zip(part, levels)
        ]
        first = (asked[0][0], max(now_us, asked[0][1] + 1))
        moved: dict[bytes, bytes] = {}
        for at in range(0, len(asked), _NAMES_AT_ONCE):
            some = asked[at : at + _NAMES_AT_ONCE]
            parameters = [word for each in some for word in each]
            for text, token in self._file.rows(sql.bump(len(some)), (*parameters, *first, nonce), deadline):
                moved[text.encode()] = token
        self._tidier.wrote()
        return [moved[name] for name in names]

    def _ensured(
        self, names: Sequence[bytes], floors: Sequence[int], nonce: str, until: int, deadline: float
    ) -> list[bytes]:
        """The tokens of these names, put back where missing or behind, and kept until then."""
        for _ in range(_ATTEMPTS):
            found = self._tokens(names, deadline)
            behind = [at for at, name in enumerate(names) if _behind(found.get(name), floors[at])]
            if not behind:
                self._keep(names, until, deadline)
                return [found[name] for name in names]
            self._put_back([names[at] for at in behind], [floors[at] for at in behind], nonce, until, deadline)
        raise StoreUnavailable(f"{self.address}: tokens go as soon as they are made.", store=self.address)

    def _put_back(self, names: Sequence[bytes], floors: Sequence[int], nonce: str, until: int, deadline: float) -> None:
        for at in range(0, len(names), _NAMES_AT_ONCE):
            asked = [
                word
                for name, floor in zip(names[at : at + _NAMES_AT_ONCE], floors[at : at + _NAMES_AT_ONCE])
                for word in (name.decode(), floor, until if transient(name) else FOREVER)
            ]
            self._file.count(sql.ensure(len(asked) // 3), (*asked, time_us(), nonce), deadline)

    def _keep(self, names: Sequence[bytes], until: int, deadline: float) -> None:
        """Have the short-lived ones among these tokens live until then, at least."""
        texts = [name.decode() for name in names if transient(name)]
        for at in range(0, len(texts), _NAMES_AT_ONCE):
            some = texts[at : at + _NAMES_AT_ONCE]
            if self._file.rows(sql.short_lived(len(some)), (until, *some), deadline):
                until = min(until + _KEEP_SLACK_MS, FOREVER)
                self._file.count(sql.prolong(len(some)), (until, *some), deadline)

    # -- running ------------------------------------------------------------------------------------------------------------------

    def _lasting(self, work: Callable[[], T]) -> T:
        """Do what invalidates, and answer when it is on the disk, in the file that is at the path."""
        file = self._file
        for _ in range(_ATTEMPTS):
            done = work()
            file.sync()
            if file.unmoved():
                return done
        raise StoreUnavailable(f"{self.address} is replaced all the time: by whom?", store=self.address)

    def _read_flow(self, work: Callable[[float | None], T]) -> Flow[T]:
        try:
            return work(None)
        except Busy:
            pass
        return (yield from Run(lambda: self._guarded(work, self._reads)))

    def _write_flow(self, work: Callable[[float], T], *, urgent: bool = False, final: bool = False) -> Flow[T]:
        """`final`: it is done even if the caller is cancelled before it has begun."""
        job = Job(lambda: self._guarded(work, self._writes, urgent=urgent))
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
                yield from Run(lambda: self._guarded(work, self._writes, urgent=urgent))
            raise

    def _guarded(self, work: Callable[[float], T], breaker: Breaker, *, urgent: bool = False) -> T:
        if breaker.tripped and not urgent:
            breaker.check()
        try:
            done = work(monotonic() + self.limits.lock_timeout)
        except StoreError as error:
            breaker.failed(error)
            raise
        if breaker.tripped:
            breaker.answered()
        return done

    def watch(self, coarse: bytes, prefixes: Sequence[bytes], seconds: float) -> SqliteWatch:
        """What a near tier asks; see `stores.near.Watch`."""
        return SqliteWatch(self, coarse)

    # -- the rest -----------------------------------------------------------------------------------------------------------------

    def data_version(self) -> tuple[int, int]:
        """What changes with every commit of anybody, of this process or another: if it is what it was at the last call,
        nothing in the file has changed. Waits for nobody. Raises `StoreError`."""
        file = self._file
        moment = time_ms()
        if moment != file.moment:
            file.look(moment)
        try:
            pool, connection, number = self._watching.pop()
            if pool is file.idle:
                ((version,),) = connection.execute("PRAGMA data_version").fetchall()
                self._watching.append((pool, connection, number))
                return number, version
        except (IndexError, *ERRORS):
            pass
        return self._guarded(self._watch, self._reads)

    def _watch(self, deadline: float) -> tuple[int, int]:
        # A connection that writes nothing: it sees every commit as another's.
        pool, connection = self._file.open(deadline)
        ((version,),) = connection.execute("PRAGMA data_version").fetchall()
        number = next(_numbers)
        self._watching.append((pool, connection, number))
        return number, version

    def tidy(self, seconds: float) -> bool:
        """What otherwise happens behind writes, now and in this thread; False if that time was too short."""
        return self._tidier.tidy(seconds)

    def close(self) -> None:
        self._file.leave()

    async def aclose(self) -> None:
        await in_thread(self._file.leave)

    def after_fork(self) -> None:
        self._tidier.after_fork()
        for breaker in (self._reads, self._writes):
            breaker.after_fork()


def _pack(key: Key) -> tuple[str, tuple[str, ...]]:
    packed = sql.read(len(key.names)), (*(name.decode() for name in key.names), key.text)
    key.packed = packed
    return packed


def _behind(token: bytes | None, floor: int) -> bool:
    return token is None or int(token.partition(b"-")[0]) < floor


def _batches(texts: Sequence[str]) -> list[tuple[Any, ...]]:
    """Texts as parameters of a batch's statement, filled up with NULLs."""
    return [
        (*texts[at : at + sql.BATCH], *(None,) * (sql.BATCH - len(texts[at : at + sql.BATCH])))
        for at in range(0, len(texts), sql.BATCH)
    ]


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
