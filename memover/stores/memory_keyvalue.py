"""The key-value side of the memory store: the same steps as the scripts of Redis, under the store's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.codec.envelope import KIND_KEY_VALUE, Header, payload_of, read_header, rewritten
from memover.errors import DamagedEntry
from memover.model import MISSING
from memover.stores.keyvalue import INTEGER, INTEGER_LIMIT, Change, Parcel, Stamp

if TYPE_CHECKING:
    import threading
    from collections import OrderedDict
    from collections.abc import Sequence

    from memover.model import Key
    from memover.stores.memory import Item

__all__ = ["MemoryKeyValues"]


class MemoryKeyValues:
    """What `MemoryStore` inherits; see `memover.stores.keyvalue.KeyValueStore`."""

    if TYPE_CHECKING:
        items: OrderedDict[str, Item]
        tokens: dict[bytes, bytes]
        max_entries: int
        _lock: threading.Lock
        _leases: dict[bytes, tuple[bytes, float]]

        def _ensure(self, name: bytes, nonce: str, floor: int) -> bytes: ...

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> bytes:
        with self._lock:
            generation = self._under(stamp)
            for parcel in parcels:
                self._lay(parcel, generation)
            return generation

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Change:
        with self._lock:
            generation = self._under(stamp)
            if self._live(parcel.key, generation, now) is not None:
                return Change(False, generation)
            self._lay(parcel, generation)
            return Change(True, generation)

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        with self._lock:
            generation = self._under(stamp)
            found = self._live(key, generation, now)
            if found is None:
                return Change(False, generation)
            raw, header = found
            if header.codec != INTEGER:
                return Change(False, generation, False)
            try:
                value = int(bytes(payload_of(raw, header))) + delta
            except (DamagedEntry, ValueError):
                return Change(False, generation)
            if not -INTEGER_LIMIT < value < INTEGER_LIMIT:
                return Change(False, generation, False)
            self._place(key, rewritten(raw, header, payload=b"%d" % value), value)
            return Change(True, generation, value)

    def swap(self, key: Key, old: bytes, new: bytes) -> bool:
        with self._lock:
            item = self.items.get(key.text)
            if item is None or item.raw != old:
                return False
            self._place(key, new, MISSING)
            return True

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Change:
        with self._lock:
            generation = self._under(stamp)
            found = self._live(parcel.key, generation, now)
            if found is None:
                return Change(False, generation)
            if parcel.expire_ms < 0:
                self._remove(parcel.key)
            else:
                value = self.items[parcel.key.text].value
                self._place(parcel.key, rewritten(*found, fresh_until=fresh_until), value)
            return Change(True, generation)

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        with self._lock:
            generation = self._under(stamp)
            found = self._live(key, generation, now)
            if found is None:
                return Change(False, generation)
            value = self.items[key.text].value
            self._remove(key)
            self._remove(to)
            self._place(to, rewritten(*found, key=to.entry), value)
            return Change(True, generation)

    def remove(self, key: Key) -> tuple[bytes | None, bytes | None]:
        with self._lock:
            item = self.items.get(key.text)
            self._remove(key)
            return self.tokens.get(key.names[0]), None if item is None else item.raw

    def remove_many(self, keys: Sequence[Key]) -> None:
        with self._lock:
            for key in keys:
                self._remove(key)

    # -- inside the lock ------------------------------------------------------------------------------------------------

    def _under(self, stamp: Stamp) -> bytes:
        return self._ensure(stamp.name, stamp.nonce, stamp.floor)

    def _live(self, key: Key, generation: bytes, now: float) -> tuple[bytes, Header] | None:
        item = self.items.get(key.text)
        if item is None:
            return None
        try:
            header = read_header(item.raw, key.entry)
        except DamagedEntry:
            return None
        if header.kind != KIND_KEY_VALUE or header.generation != generation or now >= header.fresh_until:
            return None
        return item.raw, header

    def _lay(self, parcel: Parcel, generation: bytes) -> None:
        self._remove(parcel.key)
        if parcel.expire_ms >= 0:
            raw = parcel.raw
            header = read_header(raw, parcel.key.entry)
            if header.generation != generation:
                raw = rewritten(raw, header, generation=generation)
            self._place(parcel.key, raw, parcel.value)

    def _place(self, key: Key, raw: bytes, value: object) -> None:
        from memover.stores.memory import Item  # which inherits from here

        header = read_header(raw, key.entry)
        self.items[key.text] = Item(raw, header.generation, header.fresh_until, header.fingerprint, value)
        self.items.move_to_end(key.text)
        while len(self.items) > self.max_entries:
            self.items.popitem(last=False)

    def _remove(self, key: Key) -> None:
        self.items.pop(key.text, None)
        self._leases.pop(key.lease, None)
