"""The key-value side of the SQLite store.

A header is read and rewritten here, in Python, and written only if the row still holds what was read (its bytes name the
generation, the instants and the checksum of the payload); otherwise the step begins again. One of those who compete
always gets through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.clocks import monotonic
from memover.codec.envelope import KIND_KEY_VALUE, read_header, rewritten
from memover.engine.judge import is_fresh
from memover.engine.store import TOKEN_MARGIN_MS, Change, incremented
from memover.errors import DamagedEntry, StoreTimeout
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.changing import change
from memover.stores.sqlite.marks import entry_place
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.schema import FOREVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.codec.envelope import Header
    from memover.engine.steps import Flow
    from memover.engine.store import Parcel, Stamp
    from memover.model import Key
    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.reading import Reader
    from memover.stores.sqlite.tidy import Tidier
    from memover.stores.sqlite.tokens import Tokens
    from memover.stores.sqlite.writing import Writer

__all__ = ["SqliteKeyValues"]

T = TypeVar("T")

_PARCELS_AT_ONCE = 64


class _Found(NamedTuple):
    """A row as it was read under a generation: `head` is what a statement compares, `raw` and `header` those of a live entry."""

    key: Key
    stamp: Stamp
    generation: bytes
    head: bytes | None
    raw: bytes | None = None
    header: Header | None = None

    @property
    def guard(self) -> tuple[object, ...]:
        """What a statement asks before it changes the row."""
        return self.key.text, self.head, self.stamp.name.decode(), self.generation


_Decide = Callable[["_Found", float], "Change | None"]


class SqliteKeyValues:
    """What `SqliteStore` inherits; see `engine.store.KeyValueStore`."""

    address: str
    _file: File
    _reader: Reader
    _tokens: Tokens
    _writer: Writer
    _tidier: Tidier

    if TYPE_CHECKING:

        def _write_flow(self, work: Callable[[float], T], *, invalidates: bool = False) -> Flow[T]: ...

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> Flow[bytes]:
        return self._write_flow(lambda deadline: self._put(parcels, stamp, deadline))

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Flow[Change]:
        def decide(found: _Found, deadline: float) -> Change | None:
            if found.header is not None:
                return Change(False, found.generation)
            if parcel.expire_ms < 0:
                self._discard(found, deadline)
                return Change(True, found.generation)
            raw = _stamped(parcel.raw, parcel.key, found.generation)
            done = self._write(found, sql.ADD, raw, deadline, expire_ms=parcel.expire_ms, lossy=True)
            return Change(True, found.generation) if done else None

        return self._decided(parcel.key, stamp, now, decide)

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Flow[Change]:
        def decide(found: _Found, deadline: float) -> Change | None:
            if found.raw is None or found.header is None:
                return Change(False, found.generation)
            value = incremented(found.raw, found.header, delta)
            if value is None or value is False:
                return Change(False, found.generation, value)
            done = self._write(found, sql.CHANGE, rewritten(found.raw, found.header, payload=b"%d" % value), deadline)
            return Change(True, found.generation, value) if done else None

        return self._decided(key, stamp, now, decide)

    def swap(self, key: Key, old: bytes, new: bytes) -> Flow[bool]:
        return self._write_flow(lambda deadline: self._swap(key, old, new, deadline))

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Flow[Change]:
        def decide(found: _Found, deadline: float) -> Change | None:
            if found.raw is None or found.header is None:
                return Change(False, found.generation)
            if parcel.expire_ms < 0:
                done = self._discard(found, deadline)
            else:
                raw = rewritten(found.raw, found.header, fresh_until=fresh_until)
                done = self._write(found, sql.CHANGE, raw, deadline, expire_ms=parcel.expire_ms)
            return Change(True, found.generation) if done else None

        return self._decided(parcel.key, stamp, now, decide)

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Flow[Change]:
        def decide(found: _Found, deadline: float) -> Change | None:
            if found.raw is None or found.header is None:
                return Change(False, found.generation)
            done = self._write(found, sql.MOVE, rewritten(found.raw, found.header, key=to.entry), deadline, to=to)
            return Change(True, found.generation) if done else None

        return self._decided(key, stamp, now, decide)

    def remove(self, key: Key) -> Flow[tuple[bytes | None, bytes | None]]:
        def work(deadline: float) -> tuple[bytes | None, bytes | None]:
            name = key.names[0]
            token = self._reader.tokens((name,), deadline).get(name)
            rows = self._file.rows(sql.READ_HEAD, (key.text, time_ms()), deadline)
            self._remove([key.text], deadline)
            return token, rows[0][0] if rows else None

        return self._write_flow(work, invalidates=True)

    def remove_many(self, keys: Sequence[Key]) -> Flow[None]:
        texts = [key.text for key in keys]
        return self._write_flow(lambda deadline: self._remove(texts, deadline), invalidates=True)

    def _put(self, parcels: Sequence[Parcel], stamp: Stamp, deadline: float) -> bytes:
        laid: list[tuple[Any, ...]] = []
        gone: list[str] = []
        size = 0
        while True:
            generation = self._under(stamp, deadline)
            laid.clear()
            gone.clear()
            now = time_ms()
            # The last of two with one key counts, as it would if they were written one after the other.
            for parcel in {parcel.key.text: parcel for parcel in parcels}.values():
                raw = parcel.raw
                if parcel.expire_ms >= 0:
                    raw = _stamped(raw, parcel.key, generation)
                    head, parts, deadline = self._writer.laid(raw, deadline)
                    if head is not None:
                        size += len(raw)
                        laid.append((parcel.key.text, head, len(raw), parts, _expires(now, parcel.expire_ms)))
                        continue
                gone.append(parcel.key.text)
            if all(
                change(
                    self._file,
                    [entry_place(each[0].encode()) for each in some],
                    sql.put(len(some)),
                    (*(word for each in some for word in each), now, stamp.name.decode(), generation),
                    deadline,
                )
                for some in _slices(laid)
            ):
                break
            for *_, parts, _ in laid:
                self._again(parts, deadline)
        self._remove(gone, deadline)
        self._tidier.wrote(size)
        return generation

    def _swap(self, key: Key, old: bytes, new: bytes, deadline: float) -> bool:
        now = time_ms()
        found = self._row(key, deadline)
        if found is None or not found[2] or found[1] != old:
            return False
        head, parts, deadline = self._writer.laid(new, deadline)
        if head is None:
            return False
        places = (entry_place(key.entry),)
        swapped = change(self._file, places, sql.SWAP, (key.text, found[0], head, len(new), parts, now), deadline)
        if not swapped and parts is not None:
            self._file.count(sql.DOOM, (parts, 0), deadline)
        self._tidier.wrote(len(new))
        return bool(swapped)

    def _under(self, stamp: Stamp, deadline: float) -> bytes:
        until = time_ms() + TOKEN_MARGIN_MS
        return self._tokens.ensured((stamp.name,), (stamp.floor,), stamp.nonce, until, deadline)[0]

    def _row(self, key: Key, deadline: float) -> tuple[bytes | None, bytes | None, bool] | None:
        """What the row holds in itself, the whole entry, and whether its time is not over; None: no row."""
        rows = self._file.rows(sql.READ_ROW, (key.text, time_ms()), deadline)
        if not rows:
            return None
        head, size, parts, alive = rows[0]
        raw = head
        if head is not None and parts is not None:
            raw = self._reader.whole(key, head, size, parts, deadline)
            if raw is not None and raw[: len(head)] != head:
                return self._row(key, deadline)  # another took its place meanwhile
        return head, raw, bool(alive)

    def _decided(self, key: Key, stamp: Stamp, now: float, decide: _Decide) -> Flow[Change]:
        """What becomes of the entry of a key. `decide` is given what is found, and the deadline; it changes that, and answers None
        where it has changed since it was read: then it is asked again."""

        def work(deadline: float) -> Change:
            while True:
                done = decide(self._find(key, stamp, now, deadline), deadline)
                if done is not None:
                    return done

        return self._write_flow(work)

    def _find(self, key: Key, stamp: Stamp, now: float, deadline: float) -> _Found:
        generation = self._under(stamp, deadline)
        row = self._row(key, deadline)
        found = _Found(key, stamp, generation, None if row is None else row[0])
        if row is None or row[1] is None or not row[2]:
            return found
        try:
            header = read_header(row[1], key.entry)
        except DamagedEntry:
            return found
        if header.kind != KIND_KEY_VALUE or not is_fresh(header.generation, header.fresh_until, generation, now):
            return found
        return found._replace(raw=row[1], header=header)

    def _write(
        self,
        found: _Found,
        statement: str,
        raw: bytes,
        deadline: float,
        *,
        expire_ms: int | None = None,
        to: Key | None = None,
        lossy: bool = False,
    ) -> bool:
        """Writes an entry if its row still is as it was found. `lossy`: one that there is no room for counts as written."""
        head, parts, deadline = self._writer.laid(raw, deadline)
        now = time_ms()
        laid: tuple[object, ...] = (head, len(raw), parts)
        asked = (
            (*laid, None if expire_ms is None else _expires(now, expire_ms), now)
            if to is None
            else (to.text, *laid, now)
        )
        places = [entry_place(key.entry) for key in (found.key, to) if key is not None]
        if head is None:
            done = lossy
        else:
            done = change(self._file, places, statement, (*found.guard, *asked), deadline) > 0
        if done:
            self._tidier.wrote(len(raw))
        else:
            self._again(parts, deadline)
        return done

    def _remove(self, texts: Sequence[str], deadline: float) -> None:
        # Leases first: a load under way must not store behind the removal of its entry.
        for at in range(0, len(texts), sql.BATCH):
            some = texts[at : at + sql.BATCH]
            self._file.count(sql.among(sql.END_LEASES, len(some)), some, deadline)
            places = [entry_place(text.encode()) for text in some]
            change(self._file, places, sql.among(sql.REMOVE, len(some)), some, deadline)

    def _discard(self, found: _Found, deadline: float) -> bool:
        key = found.key
        self._file.count(sql.among(sql.END_LEASES, 1), (key.text,), deadline)
        done = change(self._file, (entry_place(key.entry),), sql.DISCARD, found.guard, deadline)
        if not done:
            self._again(None, deadline)
        return bool(done)

    def _again(self, parts: int | None, deadline: float) -> None:
        """Something has changed since it was read. Raises `StoreTimeout` when it does so all the time."""
        if parts is not None:
            self._file.count(sql.DOOM, (parts, 0), deadline)
        if monotonic() >= deadline:
            raise StoreTimeout(
                f"{self.address}: others change the entry all the time, for longer than this call may wait.",
                store=self.address,
            )


def _stamped(raw: bytes, key: Key, generation: bytes) -> bytes:
    header = read_header(raw, key.entry)
    return raw if header.generation == generation else rewritten(raw, header, generation=generation)


def _expires(now: int, expire_ms: int) -> int:
    return now + expire_ms if expire_ms else FOREVER


def _slices(laid: Sequence[tuple[Any, ...]]) -> list[Sequence[tuple[Any, ...]]]:
    return [laid[at : at + _PARCELS_AT_ONCE] for at in range(0, len(laid), _PARCELS_AT_ONCE)]
