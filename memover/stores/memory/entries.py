"""The embedded store: this process's memory, bounded, the same envelope and the same protocol as any other.

Reads take no lock: they are single operations on dictionaries, and a changed entry is a new `Item`. What changes more than
one thing holds the latch. A signal handler or a finalizer may use the store in the middle of such a section of its own
thread; the section then sees that `Latch.entries` has grown, and begins again or stores nothing. Which entry leaves when
there are too many, `sieve` says; generations (`tokens`) are not entries and stay.

What has ended is removed a few at a time, as new ones come (`rounds`): no caller waits for a walk over all of them.

Its methods are generators that never yield (`immediate`).
"""

from __future__ import annotations

import math
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from memover.clocks import monotonic, wall
from memover.codec.copier import copier_of
from memover.engine import lease as leases
from memover.engine.judge import is_fresh
from memover.engine.store import Granted, Renewal, Request, Seen, SeenMany, StoredEntry, names_of
from memover.latch import Latch
from memover.model import MISSING
from memover.stores.memory.direct import Direct
from memover.stores.memory.items import Cohort, Item, Slim, spared
from memover.stores.memory.rounds import Rounds
from memover.stores.memory.tokens import MemoryTokens
from memover.stores.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.codec.envelope import Header
    from memover.engine.steps import Flow
    from memover.model import Key

__all__ = ["MemoryEntries", "immediate", "limit"]

P = ParamSpec("P")
T = TypeVar("T")


def immediate(method: Callable[P, T]) -> Callable[P, Flow[T]]:
    """Makes a flow that waits for nothing out of a method."""

    @wraps(method)
    def flow(*args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        return method(*args, **kwargs)
        yield

    return flow


def limit(expire_ms: int) -> float:
    """The instant in monotonic seconds at which an entry stored now ends; never, where `expire_ms` is 0."""
    return monotonic() + expire_ms / 1000 if expire_ms else math.inf


class MemoryEntries:
    """Entries, tokens and leases in this process, for threads and event loops alike; `max_entries` bounds the entries."""

    local = True
    spread = False
    generation_shards = 1

    def __init__(self, max_entries: int) -> None:
        self.address = f"memory://{id(self):x}"
        self.max_entries = max_entries
        self.items: dict[str, Slim] = {}
        self._cohorts: WeakValueDictionary[bytes, Cohort] = WeakValueDictionary()
        """The last of each generation's name, while there are entries of it."""
        self._leases: dict[bytes, tuple[bytes, float]] = {}
        self._tokens = MemoryTokens(self._leases)
        self.tokens = self._tokens.current
        self._item_rounds = Rounds(self.items)
        self._lease_rounds = Rounds(self._leases)
        self._sieve = Sieve(self.items, spared)
        self._latch = Latch()

    def after_fork(self) -> None:
        """Forgets what belonged to threads that did not come along."""
        self._leases.clear()

    def close(self) -> None:
        """Nothing is open; entries stay until the store goes."""

    def rereads(self) -> None:
        """There is nothing to be read."""

    def direct(self) -> Direct:
        """The steps of a plain miss without generators, for `runtime.direct`."""
        return Direct(self)

    def settle(self, seconds: float) -> None:
        pass  # nothing is sent anywhere

    async def aclose(self) -> None:
        """As `close`."""

    # -- reading --------------------------------------------------------------------------------------------------------

    def standing(self, text: str, name: bytes, fingerprint: bytes) -> Slim | None:
        """The entry under a key that depends on one generation only, if it is fresh and of this shape."""
        # The hard limit is not asked for: `fresh_until` comes before it.
        item = self.items.get(text)
        if (
            item is None
            or item.marked
            or item.cohort.fingerprint != fingerprint
            or not is_fresh(item.cohort.generation, item, self.tokens.get(name), time.time())
        ):
            return None
        return item

    def value(self, text: str, name: bytes, fingerprint: bytes) -> Any:
        """What a caller gets of such an entry without decoding, else MISSING."""
        item = self.standing(text, name, fingerprint)
        return MISSING if item is None else item.serve()

    def decoded(self, text: str, raw: bytes, decode: Callable[[], Any]) -> None:
        """An entry was decoded for a hit. From the second time on it is copied instead, where `copier_of` knows how."""
        item = self.items.get(text)
        if not isinstance(item, Item) or item._raw is not raw or item.marked or item.decoded > 1:
            return
        item.decoded += 1
        if item.decoded > 1 and item.value is MISSING and item.copy is None:
            made = copier_of(decode())
            if made is not None:
                item.places = made.places
                item.copy = made.copy

    def fetch(self, key: Key) -> Seen:
        """The tokens of the key's names, then its entry."""
        tokens = [self.tokens.get(name) for name in key.names]
        item = self._item_at(key.text)
        if item is None:
            return Seen(key.names, tokens, None)
        item.visited = True
        return Seen(key.names, tokens, item.raw(key.entry))

    async def afetch(self, key: Key) -> Seen:
        """As `fetch`."""
        return self.fetch(key)

    def _item_at(self, text: str) -> Slim | None:
        """The entry of a key, None from its hard limit on."""
        item = self.items.get(text)
        ends = math.inf if item is None else item.ends
        return None if ends != math.inf and ends <= monotonic() else item

    read = immediate(fetch)

    @immediate
    def read_plain(self, keys: Sequence[Key]) -> SeenMany:
        names = names_of(keys)
        tokens = [self.tokens.get(name) for name in names]
        return names, tokens, [self.fetch(key).raw for key in keys]

    @immediate
    def read_many(self, keys: Sequence[Key]) -> list[Seen]:
        return [self.fetch(key) for key in keys]

    @immediate
    def look(self, key: Key) -> Seen:
        with self._latch:
            seen = self.fetch(key)
            return Seen(seen.names, seen.tokens, seen.raw, self._lease(key.lease))

    # -- leases ---------------------------------------------------------------------------------------------------------

    @immediate
    def acquire(self, request: Request, *, force: bool = False) -> Granted:
        return self.acquired(request, force)

    @immediate
    def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        return [self.acquired(request, False) for request in requests]

    def acquired(self, request: Request, force: bool) -> Granted:
        """As `acquire`, without a generator."""
        key, token, lease_ms, ensured, floors = request
        required = key.required
        names = (*key.names[:required], *ensured, *key.names[required:])
        with self._latch:
            while True:
                entries = self._latch.entries
                for name, floor in zip(names, floors):
                    self._tokens.ensure(name, token, floor, lease_ms)
                seen = Seen(names, [self.tokens.get(name) for name in names], self.fetch(key).raw)
                under = leases.stamp(seen.tokens[:required])
                holder = "" if force else leases.holder_of(self._lease(key.lease), under)
                if holder and holder != token:
                    return Granted(False, holder, seen)
                if key.lease not in self._leases:
                    self._lease_rounds.came(key.lease)
                self._leases[key.lease] = (leases.held(token, under), monotonic() + lease_ms / 1000)
                if entries == self._latch.entries:
                    break
            self._sweep_leases()
            return Granted(True, "", seen)

    @immediate
    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        with self._latch:
            return [self._tokens.ensure(name, nonce, floor, 0) for name, floor in zip(names, floors)]

    @immediate
    def store(self, entry: StoredEntry) -> bool:
        return self.stored(entry)

    @immediate
    def store_many(self, entries: Sequence[StoredEntry]) -> list[bool]:
        return [self.stored(entry) for entry in entries]

    def stored(self, entry: StoredEntry) -> bool:
        """As `store`, without a generator."""
        key = entry.key
        with self._latch:
            before = self._latch.entries
            if not leases.is_held(self._lease(key.lease), entry.token):
                return False
            for name in entry.names:
                self._tokens.keep(name, entry.expire_ms or math.inf)
            self._place(key.text, self._made(entry))
            self._unlease(key.lease)
            if before != self._latch.entries:
                # Something ran in the middle of this section, perhaps the invalidation of this very call.
                self._leave(key.text)
                return False
            return True

    def _made(self, entry: StoredEntry) -> Slim:
        header, codec, ends, name = entry.header, entry.codec, limit(entry.expire_ms), entry.key.names[0]
        assert header is not None, "a memory store is given it"
        if codec is not None and not header.marks and header.usable_until == header.fresh_until:
            # Of the same sixteenth of a second are many. Later by that is no harm: `fresh_until` is exact, and comes first.
            cohort = self._cohort(name, header, codec, math.inf if ends == math.inf else math.ceil(ends * 16) / 16)
            if cohort.created(header.fresh_until) == header.created_at:
                return Slim.of(cohort, header, entry.value)
        return Item(entry.raw, header, entry.value, entry.places, ends, self._cohort(name, header))

    def _cohort(self, name: bytes, header: Header, codec: Any = None, ends: float = math.inf) -> Cohort:
        cohort = self._cohorts.get(name)
        if cohort is None or not cohort.fits(header, codec, ends):
            # The same object, where it is the same token: `engine.judge.FRESH_SOURCE` compares by identity.
            token = self.tokens.get(name)
            own = token if token == header.generation else None
            cohort = self._cohorts[name] = Cohort(header, codec, ends, own)
        return cohort

    def _place(self, text: str, item: Slim) -> None:
        items = self.items
        former = items.get(text)
        if former is None:
            while len(items) >= self.max_entries and (leaving := self._sieve.next()) is not None:
                self._leave(leaving)
            self._sieve.came(text)
            self._item_rounds.came(text)
        items[text] = item
        if former is not None:
            self._tokens.left(former.marked)
            former.end()
        self._tokens.came(item.marked)
        self._sweep_items()

    def _sweep_items(self) -> None:
        if some := self._item_rounds.due():
            now, moment = wall(), monotonic()
            for text in some:
                item = self.items.get(text)
                if item is not None and (item.usable_until <= now or item.ends <= moment):
                    self._leave(text)

    def _leave(self, text: str) -> None:
        item = self.items.pop(text, None)
        if item is not None:
            self._item_rounds.left(text)
            self._tokens.left(item.marked)
            item.end()

    @immediate
    def release(self, key: Key, token: str, failed: bool) -> None:
        with self._latch:
            if not leases.is_held(self._lease(key.lease), token):
                return
            if failed:
                self._leases[key.lease] = (leases.failed(token), monotonic() + leases.FAILED_MS / 1000)
            else:
                self._unlease(key.lease)

    @immediate
    def release_many(self, held: Sequence[tuple[Key, str]]) -> None:
        with self._latch:
            for key, token in held:
                if leases.is_held(self._lease(key.lease), token):
                    self._unlease(key.lease)

    @immediate
    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        return [self._renew(*renewal) for renewal in renewals]

    def _renew(self, key: Key, token: str, lease_ms: int, names: Sequence[bytes]) -> bool:
        with self._latch:
            lease = self._lease(key.lease)
            if lease is None or not leases.is_held(lease, token):
                return False
            for name in names:
                self._tokens.keep(name, lease_ms)
            self._leases[key.lease] = (lease, monotonic() + lease_ms / 1000)
            return True

    # -- invalidating ---------------------------------------------------------------------------------------------------

    @immediate
    def bump(self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]) -> list[bytes]:
        with self._latch:
            moved = self._tokens.move(names, nonce, floors)
            self._tokens.move_along(along, nonce)
            return moved

    @immediate
    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        with self._latch:
            self._leave(entry.decode())
            self._unlease(lease)
            self._tokens.move_along(along, nonce)
            self._sweep_items()

    # -- leases, inside the latch ---------------------------------------------------------------------------------------

    def _lease(self, name: bytes) -> bytes | None:
        lease, ends = self._leases.get(name, (None, 0.0))
        return lease if monotonic() < ends else None

    def _sweep_leases(self) -> None:
        # Marks of failure, and leases whose holders are gone, outlive their calls.
        if some := self._lease_rounds.due():
            now = monotonic()
            for name in some:
                if self._leases.get(name, (b"", math.inf))[1] <= now:
                    self._unlease(name)

    def _unlease(self, name: bytes) -> None:
        if self._leases.pop(name, None) is not None:
            self._lease_rounds.left(name)
