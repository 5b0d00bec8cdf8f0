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
    from collections.abc import Callable, Sequence

    from memover.model import Key

__all__ = ["MemoryKeyValues"]

_Found = tuple[Slim, bytes, Header]
_Decision = tuple[Change, "Callable[[], object] | None"]


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
        def decide(generation: bytes, found: _Found | None) -> _Decision:
            if found is not None:
                return Change(False, generation), None
            return Change(True, generation), lambda: self._lay(parcel, generation)

        return self._decided(parcel.key, stamp, now, decide)

    @immediate
    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        def decide(generation: bytes, found: _Found | None) -> _Decision:
            if found is None:
                return Change(False, generation), None
            old, raw, header = found
            value = incremented(raw, header, delta)
            if value is None or value is False:
                return Change(False, generation, value), None
            item = self._item(key, rewritten(raw, header, payload=b"%d" % value), value, ends=old.ends)
            return Change(True, generation, value), lambda: self._place(key.text, item)

        return self._decided(key, stamp, now, decide)

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
        key = parcel.key

        def decide(generation: bytes, found: _Found | None) -> _Decision:
            if found is None:
                return Change(False, generation), None
            old, raw, header = found
            raw = rewritten(raw, header, fresh_until=fresh_until)
            item = self._item(key, raw, old.shared, old.places, limit(max(parcel.expire_ms, 0)))
            ended = parcel.expire_ms < 0
            return Change(True, generation), lambda: self._remove(key) if ended else self._place(key.text, item)

        return self._decided(key, stamp, now, decide)

    @immediate
    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        def decide(generation: bytes, found: _Found | None) -> _Decision:
            if found is None:
                return Change(False, generation), None
            old, raw, header = found
            item = self._item(to, rewritten(raw, header, key=to.entry), old.shared, old.places, old.ends)

            def carry() -> None:
                self._remove(key)
                self._remove(to)
                self._place(to.text, item)

            return Change(True, generation), carry

        return self._decided(key, stamp, now, decide)

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

    def _decided(
        self, key: Key, stamp: Stamp, now: float, decide: Callable[[bytes, _Found | None], _Decision]
    ) -> Change:
        """What becomes of the live entry of a key: `decide` is given the generation and the entry, and answers with the change
        and what carries it out. It is asked again where something ran in the middle of this section, perhaps a removal."""
        with self._latch:
            while True:
                entries = self._latch.entries
                generation = self._under(stamp)
                change, carry_out = decide(generation, self._live(key, generation, now))
                if carry_out is None:
                    return change
                if entries == self._latch.entries:
                    carry_out()
                    return change

    # -- inside the latch -----------------------------------------------------------------------------------------------

    def _under(self, stamp: Stamp) -> bytes:
        return self._tokens.ensure(stamp.name, stamp.nonce, stamp.floor, 0)

    def _live(self, key: Key, generation: bytes, now: float) -> _Found | None:
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
