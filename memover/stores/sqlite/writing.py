"""Leases and entries in the file, one by one and many in one statement.

All methods wait for the lock until their deadline, on `clocks.monotonic`, and raise `StoreError`. A batch is written by
statements of at most `sql.ROWS` entries and `_BATCH_BYTES`, so that nobody waits long for the lock behind one, and each of
them may wait as long as a single call may: what a long batch takes is its own time.
"""

from __future__ import annotations

import random
import time
from functools import lru_cache
from threading import get_ident
from typing import TYPE_CHECKING

from memover.clocks import monotonic
from memover.engine import lease as leases
from memover.engine.store import TOKEN_MARGIN_MS, Granted, Seen
from memover.errors import StoreUnavailable
from memover.keys.names import transient
from memover.latch import FramePresence
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.changing import change, changing
from memover.stores.sqlite.marks import entry_place
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.reading import ATTEMPTS, texts_of
from memover.stores.sqlite.schema import FOREVER, INLINE_BYTES, PIECE_BYTES
from memover.stores.sqlite.tokens import is_behind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.engine.store import Renewal, Request, StoredEntry
    from memover.model import Key
    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.reading import Reader
    from memover.stores.sqlite.tidy import Tidier
    from memover.stores.sqlite.tokens import Tokens

__all__ = ["Writer"]

_BATCH_BYTES = 1 << 20
_FEW = 4
"""So many are written one by one: a statement of many rows is not quicker then."""
_UNLINKED_MS = 600_000
"""How long a long entry may take to be written."""
_TURN_PAUSE_SECONDS = 0.001

Row = tuple[str, str, bytes, int, "int | None", int]
"""What `sql.store_many` takes of an entry: key, holder, raw, size, parts, expires."""


class Writer:
    """One per store; `patience` is how long one statement may wait for the lock, in seconds."""

    def __init__(self, file: File, reader: Reader, tokens: Tokens, tidier: Tidier, patience: float) -> None:
        self._file = file
        self._reader = reader
        self._tokens = tokens
        self._tidier = tidier
        self._patience = patience

    def acquire(self, request: Request, force: bool, deadline: float) -> Granted:
        """As `engine.store.Store.acquire`."""
        key, token, lease_ms, ensured, floors = request
        required = key.required
        names = _names(key, ensured)
        statement, texts, brief = _asking(names, required, len(floors))
        for _ in range(ATTEMPTS):
            now = time_ms()
            until = now + lease_ms + TOKEN_MARGIN_MS
            if brief:
                self._tokens.keep(brief, until, deadline)
            taken = self._file.rows(statement, (key.text, token, now + lease_ms, now, force, *texts, *floors), deadline)
            if taken:
                ((*tokens, raw, size),) = taken
                if raw is not None and size > len(raw):
                    raw = self._reader.read(key, deadline).raw
                self._tidier.wrote()
                return Granted(True, "", Seen(names, tokens, raw))
            looked = self._reader.look(key, names, deadline)
            tokens = looked.tokens
            behind = [at for at, floor in enumerate(floors) if is_behind(tokens[at], floor)]
            if behind:
                self._tokens.put_back(
                    [names[at] for at in behind], [floors[at] for at in behind], token, until, deadline
                )
            elif looked.holder is not None and looked.under == leases.stamp(tokens[:required]):
                return Granted(False, looked.holder, Seen(names, tokens, looked.raw))
            # Otherwise it was given back, or a token moved, in the meantime: ask again.
        address = self._file.address
        raise StoreUnavailable(f"{address}: the tokens of {key.text} move all the time.", store=address)

    def acquire_many(self, requests: Sequence[Request], deadline: float) -> list[Granted]:
        """As `engine.store.Store.acquire_many`. Those that are held, or whose tokens move, are asked for singly."""
        if len(requests) <= _FEW:
            return [self.acquire(request, False, deadline) for request in requests]
        self._prepare(requests, deadline)
        granted: list[Granted | None] = [None] * len(requests)
        shapes: dict[tuple[int, int], list[int]] = {}
        for at, request in enumerate(requests):
            shapes.setdefault((request.key.required, len(request.floors)), []).append(at)
        for (required, floors), places in shapes.items():
            for start in range(0, len(places), sql.ROWS):
                some = places[start : start + sql.ROWS]
                for at, grant in zip(some, self._acquired([requests[at] for at in some], required, floors)):
                    granted[at] = grant
        return [
            self.acquire(request, False, monotonic() + self._patience) if grant is None else grant
            for request, grant in zip(requests, granted)
        ]

    def _prepare(self, requests: Sequence[Request], deadline: float) -> None:
        """Has the tokens there that the leases are taken under, and kept for as long as the leases."""
        least: dict[bytes, int] = {}
        for request in requests:
            for name, floor in zip(_names(request.key, request.ensured), request.floors):
                least[name] = max(floor, least.get(name, 0))
        until = time_ms() + max(request.lease_ms for request in requests) + TOKEN_MARGIN_MS
        self._tokens.ensured(list(least), list(least.values()), requests[0].token, until, deadline)

    def _acquired(self, requests: Sequence[Request], required: int, floors: int) -> list[Granted | None]:
        deadline = monotonic() + self._patience
        now = time_ms()
        width = max(required, floors)
        rows = sql.padded(len(requests))
        parameters: list[object] = [now]
        names = [_names(request.key, request.ensured) for request in requests]
        for request, some in zip(requests, names):
            parameters += (request.key.text, request.token, now + request.lease_ms)
            parameters += texts_of(some)[:width]
            parameters += request.floors
        parameters += [None] * ((rows - len(requests)) * (3 + width + floors))
        taken = {text for (text,) in self._file.rows(sql.acquire_many(rows, required, floors), parameters, deadline)}
        ours = [at for at, request in enumerate(requests) if request.key.text in taken]
        seens = self._reader.read_many([requests[at].key for at in ours], [names[at] for at in ours], deadline)
        granted: list[Granted | None] = [None] * len(requests)
        for at, seen in zip(ours, seens):
            granted[at] = Granted(True, "", seen)
        self._tidier.wrote(0, len(ours))
        return granted

    def release(self, key: Key, token: str, failed: bool, deadline: float) -> None:
        """As `engine.store.Store.release`."""
        now = time_ms()
        if failed:
            self._file.count(sql.FAIL, (key.text, token, now, now + leases.FAILED_MS), deadline)
        else:
            self._file.count(sql.RELEASE, (key.text, token, now), deadline)
        self._tidier.wrote()

    def release_many(self, held: Sequence[tuple[Key, str]], deadline: float) -> None:
        """As `engine.store.Store.release_many`."""
        now = time_ms()
        for key, token in held:
            self._file.count(sql.RELEASE, (key.text, token, now), deadline)
        self._tidier.wrote()

    def renew(self, renewals: Sequence[Renewal], deadline: float) -> list[bool]:
        """As `engine.store.Store.renew`."""
        now = time_ms()
        last = max(renewal.lease_ms for renewal in renewals)
        names = dict.fromkeys(name for renewal in renewals for name in renewal.names)
        self._tokens.keep(list(names), now + last + TOKEN_MARGIN_MS, deadline)
        renewed: set[tuple[str, str]] = set()
        for at in range(0, len(renewals), sql.ROWS):
            some = renewals[at : at + sql.ROWS]
            parameters: list[object] = [now]
            for key, token, lease_ms, _ in some:
                parameters += (key.text, token, now + lease_ms)
            rows = sql.padded(len(some))
            parameters += [None] * ((rows - len(some)) * 3)
            renewed.update(self._file.rows(sql.renew(rows), parameters, monotonic() + self._patience))
        return [(renewal.key.text, renewal.token) in renewed for renewal in renewals]

    def store(self, entry: StoredEntry, deadline: float) -> bool:
        """As `engine.store.Store.store`."""
        now = time_ms()
        expires = now + entry.expire_ms if entry.expire_ms else FOREVER
        if entry.names:
            self._tokens.keep(entry.names, min(expires + TOKEN_MARGIN_MS, FOREVER), deadline)
        head, parts, deadline = self.laid(entry.raw, deadline)
        if head is None:
            self._file.count(sql.RELEASE, (entry.key.text, entry.token, now), deadline)
            return False
        size = len(entry.raw)
        places = (entry_place(entry.key.entry),)
        asked = (entry.key.text, entry.token, now, head, size, parts, expires)
        stored = change(self._file, places, sql.STORE, asked, deadline)
        if not stored and parts is not None:
            self._file.count(sql.DOOM, (parts, 0), deadline)
        self._tidier.wrote(size)
        return bool(stored)

    def store_many(self, entries: Sequence[StoredEntry], deadline: float) -> list[bool]:
        """As `engine.store.Store.store_many`. Those too long for one row are stored singly."""
        if len(entries) <= _FEW:
            return [self.store(entry, deadline) for entry in entries]
        now = time_ms()
        needed: dict[int, list[bytes]] = {}
        rows: list[Row] = []
        for entry in entries:
            expires = now + entry.expire_ms if entry.expire_ms else FOREVER
            if len(entry.raw) <= INLINE_BYTES:
                rows.append((entry.key.text, entry.token, entry.raw, len(entry.raw), None, expires))
                if entry.names:
                    needed.setdefault(min(expires + TOKEN_MARGIN_MS, FOREVER), []).extend(entry.names)
        for until, names in needed.items():
            self._tokens.keep(list(dict.fromkeys(names)), until, monotonic() + self._patience)
        stored: set[str] = set()
        for some in _slices(rows):
            parameters: list[object] = [now]
            for row in some:
                parameters += row
            count = sql.padded(len(some))
            parameters += [None] * ((count - len(some)) * 6)
            stored.update(self._store_rows(sql.store_many(count), parameters, [row[0] for row in some]))
            self._tidier.wrote(sum(row[3] for row in some), len(some))
        return [
            entry.key.text in stored
            if len(entry.raw) <= INLINE_BYTES
            else self.store(entry, monotonic() + self._patience)
            for entry in entries
        ]

    def _store_rows(self, statement: str, parameters: list[object], texts: list[str]) -> set[str]:
        deadline = monotonic() + self._patience
        places = [entry_place(text.encode()) for text in texts]
        answered = changing(self._file, places, lambda: self._file.rows(statement, parameters, deadline), deadline)
        return {text for (text,) in answered}

    def laid(self, raw: bytes, deadline: float) -> tuple[bytes | None, int | None, float]:
        """What of an entry goes into its row, where the rest has been written to, and until when its row may wait for the
        lock; None and None first if it is too long."""
        if len(raw) <= INLINE_BYTES:
            return raw, None, deadline
        self._wait_for_turn()
        self._file.turn = turn = FramePresence()
        try:
            return self._laid_in_pieces(raw)
        finally:
            turn.forget()

    def _wait_for_turn(self) -> None:
        """Waits while another thread of this process writes a long entry, piece by piece.

        The pieces of several would contend for SQLite's lock, and it comes to whoever asks at the right moment: one of eight threads may
        ask in vain until its time is over. It is a courtesy, and no lock: who sees no piece written for as long as a call may wait
        (the lock is a stranger's, or that thread was interrupted by a handler that waits for this one) waits no longer."""
        file, began = self._file, monotonic()
        while (turn := file.turn) is not None and turn.thread != get_ident() and turn.present():
            if monotonic() - max(began, file.piece_written) > self._patience:
                return
            time.sleep(_TURN_PAUSE_SECONDS)

    def _laid_in_pieces(self, raw: bytes) -> tuple[bytes | None, int | None, float]:
        if not self._tidier.room_for(len(raw), monotonic() + self._patience):
            return None, None, monotonic() + self._patience
        head = max(
            4096, 64 + sum(raw[58:60]) + int.from_bytes(raw[60:62], "little") + int.from_bytes(raw[62:64], "little")
        )
        parts = random.getrandbits(46)
        whole = memoryview(raw)
        self._file.count(sql.DOOM, (parts, time_ms() + _UNLINKED_MS), monotonic() + self._patience)
        for number, at in enumerate(range(head, len(raw), PIECE_BYTES)):
            piece = whole[at : at + PIECE_BYTES]
            # Each has the whole budget: what a long entry takes is its own time, and nobody is held up by it.
            self._file.count(sql.ADD_PIECE, (parts * 65536 + number, piece), monotonic() + self._patience)
            self._file.piece_written = monotonic()
            self._tidier.relieve()
        return raw[:head], parts, monotonic() + self._patience


def _names(key: Key, ensured: Sequence[bytes]) -> tuple[bytes, ...]:
    """The names that are seen under a lease: the required, the ensured, and those the key has learned."""
    names = key.names
    return (*names[: key.required], *ensured, *names[key.required :]) if ensured else names


@lru_cache(maxsize=4096)
def _asking(names: tuple[bytes, ...], required: int, floors: int) -> tuple[str, tuple[str, ...], tuple[bytes, ...]]:
    """The statement that takes a lease under these names, the names as it takes them, and the short-lived among them."""
    return (
        sql.acquire(len(names), required, floors),
        texts_of(names),
        tuple(name for name in names[:floors] if transient(name)),
    )


def _slices(rows: Sequence[Row]) -> Iterator[list[Row]]:
    some: list[Row] = []
    size = 0
    for row in rows:
        if some and (len(some) == sql.ROWS or size + row[3] > _BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(row)
        size += row[3]
    if some:
        yield some
