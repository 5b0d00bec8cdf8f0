"""The key-value side of the memory store: the same steps as the scripts of Redis, inside the store's latch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from memover.codec.envelope import KIND_KEY_VALUE, Header, read_header, rewritten
from memover.engine.judge import is_fresh
from memover.engine.store import Change, Parcel, Stamp, incremented
from memover.errors import DamagedEntry
from memover.model import MISSING
from memover.stores.memory.entries import MemoryEntries, immediate, limit
from memover.stores.memory.items import Item, Slim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.model import Key

__all__ = ["MemoryKeyValues"]


class MemoryKeyValues(MemoryEntries):
    """Entries, with the methods of `engine.store.KeyValueStore`."""

    @immediate
    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> bytes:
        with self._latch:
            generation = self._under(stamp)
            for parcel in parcels:
                self._lay(parcel, generation)
            return generation

    @immediate
    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Change:
        with self._latch:
            while True:
                entries = self._latch.entries
                generation = self._under(stamp)
                if self._live(parcel.key, generation, now) is not None:
                    return Change(False, generation)
                if entries == self._latch.entries:
                    self._lay(parcel, generation)
                    return Change(True, generation)

    @immediate
    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        with self._latch:
            while True:
                entries = self._latch.entries
                generation = self._under(stamp)
                found = self._live(key, generation, now)
                if found is None:
                    return Change(False, generation)
                old, raw, header = found
                value = incremented(raw, header, delta)
                if value is None or value is False:
                    return Change(False, generation, value)
                item = self._item(key, rewritten(raw, header, payload=b"%d" % value), value, ends=old.ends)
                if entries == self._latch.entries:
                    self._place(key.text, item)
                    return Change(True, generation, value)

    @immediate
    def swap(self, key: Key, old: bytes, new: bytes) -> bool:
        with self._latch:
            while True:
                entries = self._latch.entries
                item = self._item_at(key.text)
                if item is None or item.raw(key.entry) != old:
                    return False
                changed = self._item(key, new, MISSING, ends=item.ends)
                if entries == self._latch.entries:
                    self._place(key.text, changed)
                    return True

    @immediate
    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Change:
        with self._latch:
            while True:
                entries = self._latch.entries
                generation = self._under(stamp)
                found = self._live(parcel.key, generation, now)
                if found is None:
                    return Change(False, generation)
                old, raw, header = found
                raw = rewritten(raw, header, fresh_until=fresh_until)
                item = self._item(parcel.key, raw, old.shared, old.places, limit(max(parcel.expire_ms, 0)))
                if entries != self._latch.entries:
                    continue  # something ran in the middle of this section, perhaps a removal
                if parcel.expire_ms < 0:
                    self._remove(parcel.key)
                else:
                    self._place(parcel.key.text, item)
                return Change(True, generation)

    @immediate
    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        with self._latch:
            while True:
                entries = self._latch.entries
                generation = self._under(stamp)
                found = self._live(key, generation, now)
                if found is None:
                    return Change(False, generation)
                old, raw, header = found
                item = self._item(to, rewritten(raw, header, key=to.entry), old.shared, old.places, old.ends)
                if entries == self._latch.entries:
                    self._remove(key)
                    self._remove(to)
                    self._place(to.text, item)
                    return Change(True, generation)

    @immediate
    def remove(self, key: Key) -> tuple[bytes | None, bytes | None]:
        with self._latch:
            item = self._item_at(key.text)
            self._remove(key)
            self._sweep_items()
            return self.tokens.get(key.names[0]), None if item is None else item.raw(key.entry)

    @immediate
    def remove_many(self, keys: Sequence[Key]) -> None:
        with self._latch:
            for key in keys:
                self._remove(key)
                self._sweep_items()

    # -- inside the latch -----------------------------------------------------------------------------------------------

    def _under(self, stamp: Stamp) -> bytes:
        return self._tokens.ensure(stamp.name, stamp.nonce, stamp.floor, 0)

    def _live(self, key: Key, generation: bytes, now: float) -> tuple[Slim, bytes, Header] | None:
        item = self._item_at(key.text)
        raw = None if item is None else item.raw(key.entry)
        if item is None or raw is None:
            return None
        try:
            header = read_header(raw, key.entry)
        except DamagedEntry:
            return None
        if header.kind != KIND_KEY_VALUE or not is_fresh(header.generation, header.fresh_until, generation, now):
            return None
        return item, raw, header

    def _lay(self, parcel: Parcel, generation: bytes) -> None:
        self._remove(parcel.key)
        if parcel.expire_ms >= 0:
            raw = parcel.raw
            header = read_header(raw, parcel.key.entry)
            if header.generation != generation:
                raw = rewritten(raw, header, generation=generation)
            item = self._item(parcel.key, raw, parcel.value, parcel.places, limit(parcel.expire_ms))
            self._place(parcel.key.text, item)

    @staticmethod
    def _item(key: Key, raw: bytes, value: object, places: tuple[Any, ...] = (), ends: float = math.inf) -> Item:
        return Item(raw, read_header(raw, key.entry), value, places, ends)

    def _remove(self, key: Key) -> None:
        self._leave(key.text)
        self._unlease(key.lease)
