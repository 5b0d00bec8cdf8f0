"""The embedded store: this process's memory, bounded, the same envelope and the same protocol as any other.

Reads take no lock: they are single operations on dictionaries, and whoever changes an entry replaces its `Item`
whole. Whatever changes more than one thing holds the lock. The least recently used entry leaves first; generations
are not entries and stay.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.model import MISSING
from memover.engine import lease as leases
from memover.engine.store import Granted, Request, Seen, SeenMany
from memover.stores.memory_keyvalue import MemoryKeyValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.codec.envelope import Header
    from memover.model import Key

__all__ = ["Item", "MemoryStore"]


class Item:
    """A stored entry; `value` is the object itself when it may be shared, else MISSING."""

    __slots__ = ("fingerprint", "fresh_until", "generation", "raw", "value")

    def __init__(self, raw: bytes, generation: bytes, fresh_until: float, fingerprint: bytes, value: Any) -> None:
        self.fingerprint = fingerprint
        self.raw = raw
        self.generation = generation
        self.fresh_until = fresh_until
        self.value = value


class MemoryStore(MemoryKeyValues):
    """A bounded store in this process, for threads and event loops alike; `max_entries` bounds the entries."""

    shared = False
    spread = False

    def __init__(self, max_entries: int) -> None:
        self.address = f"memory://{id(self):x}"
        self.max_entries = max_entries
        self.items: OrderedDict[str, Item] = OrderedDict()
        self.tokens: dict[bytes, bytes] = {}
        self._leases: dict[bytes, tuple[bytes, float]] = {}
        self._lock = threading.Lock()
        # Tags make tokens without end; every entry may carry a few of its own before the oldest give way.
        self._max_tokens = max(100_000, 8 * max_entries)

    def after_fork(self) -> None:
        """Forget what belonged to threads that did not come along."""
        self._lock = threading.Lock()
        self._leases.clear()

    def value(self, text: str, name: bytes, fingerprint: bytes) -> Any:
        """The shareable value stored under a key that depends on one generation only, if it is fresh and of this shape;
        else MISSING.

        The whole of a hit that nobody observes. It says the same as `read` and `judge` (held to it by a test)."""
        item = self.items.get(text)
        if (
            item is None
            or item.value is MISSING
            or item.generation != self.tokens.get(name)
            or item.fingerprint != fingerprint
            or time.time() >= item.fresh_until
        ):
            return MISSING
        try:
            self.items.move_to_end(text)
        except KeyError:  # evicted by another thread since; the item in hand is still right
            pass
        return item.value

    def read(self, key: Key) -> Seen:
        tokens = [self.tokens.get(name) for name in key.names]
        item = self.items.get(key.text)
        if item is None:
            return Seen(key.names, tokens, None)
        try:
            self.items.move_to_end(key.text)
        except KeyError:
            pass
        return Seen(key.names, tokens, item.raw)

    def read_plain(self, keys: Sequence[Key]) -> SeenMany:
        seens = self.read_many(keys)
        return keys[0].names, seens[0].tokens, [seen.raw for seen in seens]

    def read_many(self, keys: Sequence[Key]) -> list[Seen]:
        return [self.read(key) for key in keys]

    def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        return [self.acquire(key, token, ms, ensured, floors, False) for key, token, ms, ensured, floors in requests]

    def store_many(self, entries: Sequence[tuple[Key, str, bytes, int]]) -> list[bool]:
        return [self.store(*entry) for entry in entries]

    def look(self, key: Key) -> Seen:
        with self._lock:
            seen = self.read(key)
            return Seen(seen.names, seen.tokens, seen.raw, self._lease(key.lease))

    def acquire(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Granted:
        required = key.required
        names = (*key.names[:required], *ensured, *key.names[required:])
        with self._lock:
            for name, floor in zip(names, floors):
                self._ensure(name, token, floor)
            seen = Seen(names, [self.tokens.get(name) for name in names], self.read(key).raw)
            under = leases.stamp(seen.tokens[:required])
            holder = "" if force else leases.holder_of(self._lease(key.lease), under)
            if holder and holder != token:
                return Granted(False, holder, seen)
            self._leases[key.lease] = (leases.held(token, under), monotonic() + lease_ms / 1000)
            return Granted(True, "", seen)

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        with self._lock:
            return [self._ensure(name, nonce, floor) for name, floor in zip(names, floors)]

    def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> bool:
        raise TypeError("the memory store keeps objects beside their bytes: use keep()")

    def keep(self, key: Key, token: str, raw: bytes, header: Header, value: Any) -> bool:
        """`Store.store`, with the object itself when it may be shared (else MISSING)."""
        with self._lock:
            if not self._holds(key.lease, token):
                return False
            del self._leases[key.lease]
            self.items[key.text] = Item(
                raw,
                header.generation,
                header.fresh_until,
                header.fingerprint,
                MISSING if header.marks else value,
            )
            self.items.move_to_end(key.text)
            while len(self.items) > self.max_entries:
                self.items.popitem(last=False)
            return True

    def release(self, key: Key, token: str, failed: bool) -> None:
        with self._lock:
            if not self._holds(key.lease, token):
                return
            if failed:
                self._leases[key.lease] = (leases.failed(token), monotonic() + leases.FAILED_MS / 1000)
                self._sweep()
            else:
                del self._leases[key.lease]

    def renew(self, key: Key, token: str, lease_ms: int) -> bool:
        with self._lock:
            if not self._holds(key.lease, token):
                return False
            lease, _ = self._leases[key.lease]
            self._leases[key.lease] = (lease, monotonic() + lease_ms / 1000)
            return True

    def bump(self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]) -> list[bytes]:
        with self._lock:
            floor = 0
            moved = []
            for name, own in zip(names, floors):
                moved.append(self._move(name, nonce, max(own, floor)))
                floor = floor or int(moved[0].partition(b"-")[0]) - 1
            self._move_along(along, nonce)
            return moved

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        with self._lock:
            self.items.pop(entry.decode(), None)
            self._leases.pop(lease, None)
            self._move_along(along, nonce)

    def close(self) -> None:
        """Nothing is open; entries stay until the store goes."""

    def _ensure(self, name: bytes, nonce: str, floor: int) -> bytes:
        return self.tokens.get(name) or self._move(name, nonce, floor)

    def _move(self, name: bytes, nonce: str, floor: int) -> bytes:
        current = self.tokens.get(name)
        if current is not None and current.endswith(nonce.encode()):
            return current
        number = max(int(current.partition(b"-")[0]) if current else 0, floor) + 1
        self.tokens[name] = b"%d-%b" % (max(number, time.time_ns() // 1000), nonce.encode())
        while len(self.tokens) > self._max_tokens:
            del self.tokens[next(iter(self.tokens))]  # the oldest; losing it can only cause misses
        return self.tokens[name]

    def _move_along(self, names: Sequence[bytes], nonce: str) -> None:
        for name in names:
            if name in self.tokens:
                self._move(name, nonce, 0)

    def _lease(self, name: bytes) -> bytes | None:
        lease, ends = self._leases.get(name, (None, 0.0))
        return lease if monotonic() < ends else None

    def _holds(self, name: bytes, token: str) -> bool:
        lease = self._lease(name)
        return lease is not None and lease.startswith(leases.held(token, b""))

    def _sweep(self) -> None:
        # Only marks of failure outlive their call; without this, failing calls with ever new arguments would pile up.
        if len(self._leases) > 256:
            now = monotonic()
            for name in [name for name, (_, ends) in self._leases.items() if ends <= now]:
                del self._leases[name]
