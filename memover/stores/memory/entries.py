"""The embedded store: this process's memory, bounded, the same envelope and the same protocol as any other.

Reads take no lock: they are single operations on dictionaries, and a changed entry is a new `Item`. What changes more than
one thing holds the latch. A signal handler or a finalizer may use the store in the middle of such a section of its own
thread; the section then sees that `Latch.entries` has grown, and begins again or stores nothing. Which entry leaves when
there are too many, `sieve` says; generations are not entries and stay.

An item that has left the dictionary is dead (`Item.end`): whoever still refers to it, as the calls that `runtime.bare` makes
do, serves it no more.

Its methods are generators that never yield (`immediate`).
"""

from __future__ import annotations

import math
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from memover.clocks import monotonic, wall
from memover.codec.copier import Same, copier_of, moved
from memover.codec.envelope import Header, seal
from memover.engine import lease as leases
from memover.engine.judge import is_fresh
from memover.engine.store import TOKEN_MARGIN_MS, Granted, Request, Seen, SeenMany, StoredEntry, names_of
from memover.keys.names import transient
from memover.latch import Latch
from memover.model import MISSING
from memover.stores.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.steps import Flow
    from memover.model import Key

__all__ = ["Item", "MemoryEntries", "immediate", "limit"]

P = ParamSpec("P")
T = TypeVar("T")


def immediate(method: Callable[P, T]) -> Callable[P, Flow[T]]:
    """Make a flow that waits for nothing out of a method."""

    @wraps(method)
    def flow(*args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        return method(*args, **kwargs)
        yield

    return flow


def limit(expire_ms: int) -> float:
    """The instant in monotonic seconds at which an entry stored now ends; never, where `expire_ms` is 0."""
    return monotonic() + expire_ms / 1000 if expire_ms else math.inf


def number(token: bytes | None) -> int:
    """The number of a token, 0 for what is none."""
    digits = token.partition(b"-")[0] if token is not None else b""
    return int(digits) if digits.isdigit() else 0


class Batch:
    """What entries have in common that one function stored about the same time, so that each need not have it.

    `generation` and `fingerprint` are those of their headers. Entries that are kept without their bytes have the rest too:
    `codec` and `codec_name`, their `lifetime` (seconds from creation to `fresh_until`), their hard limit `ends` in monotonic
    seconds, and the load time of the first of them, which nobody asks for: functions that refresh early keep the bytes."""

    __slots__ = (
        "codec",
        "codec_name",
        "created_at",
        "ends",
        "fingerprint",
        "generation",
        "lifetime",
        "load_time",
        "__weakref__",
    )

    def __init__(
        self, header: Header, codec: Any = None, ends: float = math.inf, generation: bytes | None = None
    ) -> None:
        self.generation = header.generation if generation is None else generation
        self.fingerprint = header.fingerprint
        self.codec = codec
        self.codec_name = header.codec
        self.lifetime = header.fresh_until - header.created_at
        self.created_at = header.created_at
        self.load_time = header.load_time
        self.ends = ends

    def fits(self, header: Header, codec: Any, ends: float) -> bool:
        """Whether an entry can be of this batch."""
        return (
            self.generation == header.generation
            and self.fingerprint == header.fingerprint
            and self.codec is codec
            and self.ends == ends
            and (codec is None or self.lifetime == header.fresh_until - header.created_at)
            # For ever: nothing can be subtracted from that.
            and (codec is None or self.lifetime != math.inf or self.created_at == header.created_at)
        )

    def created(self, fresh_until: float) -> float:
        """When an entry of this batch was made."""
        return self.created_at if self.lifetime == math.inf else fresh_until - self.lifetime


class Slim(float):
    """A stored entry without its bytes: an immutable value from which they are made again when somebody asks.

    It is a float, its `fresh_until`: an object for that would take a seventh of all that an entry of an int takes. `value`
    is the object itself where any caller may have it at any time, else MISSING. `visited` is the flag of `sieve`."""

    __slots__ = ("batch", "value", "visited")

    batch: Batch
    value: Any
    visited: bool

    # What `Item` has of its own.
    copy: Callable[[], Any] | None = None
    decoded = 2
    marked = False
    places: tuple[Any, ...] = ()

    @classmethod
    def of(cls, batch: Batch, header: Header, value: Any) -> Slim:
        item = cls(header.fresh_until)
        item.batch = batch
        item.value = value
        item.visited = False
        return item

    @property
    def fresh_until(self) -> float:
        return float(self)

    @property
    def usable_until(self) -> float:
        return float(self)

    @property
    def ends(self) -> float:
        """The hard limit in monotonic seconds."""
        return self.batch.ends

    @property
    def shared(self) -> Any:
        """The object that every caller gets, MISSING where there is none."""
        return self.value

    def raw(self, entry: bytes) -> bytes | None:
        """The entry's bytes under its key; None when it has left the store in the meantime."""
        value, batch = self.value, self.batch
        if value is MISSING or batch.codec is None:
            return None
        fresh_until = float(self)
        return seal(
            batch.codec.encode(value),
            key=entry,
            generation=batch.generation,
            codec=batch.codec_name,
            created_at=batch.created(fresh_until),
            load_time=batch.load_time,
            fresh_until=fresh_until,
            usable_until=fresh_until,
            fingerprint=batch.fingerprint,
        )

    def serve(self) -> Any:
        """What one more caller gets of an entry that stands; MISSING where it is to be decoded."""
        value = self.value
        if value is MISSING:
            copy = self.copy
            if copy is None or (self.places and moved(self.places)):
                return MISSING
            value = copy()
        self.visited = True
        return value

    def end(self) -> None:
        """It has left the store. First what every hit asks for, then what it keeps."""
        self.batch = _ENDED
        self.value = MISSING


class Item(Slim):
    """A stored entry with its bytes.

    Where `value` is MISSING, `copy` makes what a caller gets, while `moved(places)` is False, or is None where the bytes are to be
    decoded. An entry that carries tokens beside its generation (`marked`) has neither, because `standing` looks at its
    generation alone."""

    __slots__ = ("_ends", "_raw", "_usable_until", "copy", "decoded", "marked", "places")

    def __new__(cls, raw: bytes, header: Header, *args: Any, **kwargs: Any) -> Item:
        return super().__new__(cls, header.fresh_until)

    def __init__(
        self,
        raw: bytes,
        header: Header,
        value: Any,
        places: tuple[Any, ...] = (),
        ends: float = math.inf,
        batch: Batch | None = None,
    ) -> None:
        self.batch = Batch(header) if batch is None else batch
        self.visited = False
        self.decoded = 0
        self.marked = bool(header.marks)
        self.places = places
        self.value = MISSING if self.marked or places else value
        self.copy = Same(value) if places and not self.marked else None
        self._raw = raw
        self._ends = ends
        self._usable_until = header.usable_until

    @property
    def usable_until(self) -> float:
        return self._usable_until

    @property
    def ends(self) -> float:
        return self._ends

    @property
    def shared(self) -> Any:
        return self.copy.value if isinstance(self.copy, Same) else self.value

    def raw(self, entry: bytes) -> bytes | None:
        return self._raw

    def end(self) -> None:
        super().end()
        self.copy = None


_ENDED = Batch(Header(0, "", 0, b"", b"", (), 0.0, 0.0, 0.0, 0.0, b"", 0, 0, 0))
"""That of no entry: no token is empty."""


def spared(item: Slim) -> bool:
    """Whether it was asked for since the hand of `sieve` was here; clears the flag."""
    visited, item.visited = item.visited, False
    return visited


class MemoryEntries:
    """Entries, tokens and leases in this process, for threads and event loops alike; `max_entries` bounds the entries."""

    local = True
    spread = False
    generation_shards = 1

    def __init__(self, max_entries: int) -> None:
        self.address = f"memory://{id(self):x}"
        self.max_entries = max_entries
        self.items: dict[str, Slim] = {}
        self._batches: WeakValueDictionary[bytes, Batch] = WeakValueDictionary()
        """The last of each generation's name, while there are entries of it."""
        self.tokens: dict[bytes, bytes] = {}
        self._leases: dict[bytes, tuple[bytes, float]] = {}
        self._token_ends: dict[bytes, float] = {}
        self._sweep_items_at = self._sweep_tokens_at = self._sweep_leases_at = 256
        self._sieve = Sieve(self.items, spared)
        self._latch = Latch()

    def after_fork(self) -> None:
        """Forget what belonged to threads that did not come along."""
        self._latch = Latch()
        self._leases.clear()

    def close(self) -> None:
        """Nothing is open; entries stay until the store goes."""

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
            or item.batch.fingerprint != fingerprint
            or not is_fresh(item.batch.generation, item, self.tokens.get(name), time.time())
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
        return self._acquired(request, force)

    @immediate
    def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        return [self._acquired(request, False) for request in requests]

    def _acquired(self, request: Request, force: bool) -> Granted:
        key, token, lease_ms, ensured, floors = request
        required = key.required
        names = (*key.names[:required], *ensured, *key.names[required:])
        with self._latch:
            while True:
                entries = self._latch.entries
                for name, floor in zip(names, floors):
                    self._ensure(name, token, floor, lease_ms)
                seen = Seen(names, [self.tokens.get(name) for name in names], self.fetch(key).raw)
                under = leases.stamp(seen.tokens[:required])
                holder = "" if force else leases.holder_of(self._lease(key.lease), under)
                if holder and holder != token:
                    return Granted(False, holder, seen)
                self._leases[key.lease] = (leases.held(token, under), monotonic() + lease_ms / 1000)
                if entries == self._latch.entries:
                    break
            if len(self._leases) > self._sweep_leases_at:
                self._sweep_leases()
            return Granted(True, "", seen)

    @immediate
    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        with self._latch:
            return [self._ensure(name, nonce, floor, 0) for name, floor in zip(names, floors)]

    @immediate
    def store(self, entry: StoredEntry) -> bool:
        return self._stored(entry)

    @immediate
    def store_many(self, entries: Sequence[StoredEntry]) -> list[bool]:
        return [self._stored(entry) for entry in entries]

    def _stored(self, entry: StoredEntry) -> bool:
        key = entry.key
        with self._latch:
            before = self._latch.entries
            if not leases.is_held(self._lease(key.lease), entry.token):
                return False
            for name in entry.names:
                self._keep_token(name, entry.expire_ms or math.inf)
            self._place(key.text, self._made(entry))
            self._leases.pop(key.lease, None)
            if before != self._latch.entries:
                # Something ran in the middle of this section, perhaps the invalidation of this very call.
                self._leave(key.text)
                return False
            return True

    def _made(self, entry: StoredEntry) -> Slim:
        header, codec, ends, name = entry.header, entry.codec, limit(entry.expire_ms), entry.key.names[0]
        if codec is not None and not header.marks and header.usable_until == header.fresh_until:
            # Of the same sixteenth of a second are many. Later by that is no harm: `fresh_until` is exact, and comes first.
            batch = self._batch(name, header, codec, math.inf if ends == math.inf else math.ceil(ends * 16) / 16)
            if batch.created(header.fresh_until) == header.created_at:
                return Slim.of(batch, header, entry.value)
        return Item(entry.raw, header, entry.value, entry.places, ends, self._batch(name, header))

    def _batch(self, name: bytes, header: Header, codec: Any = None, ends: float = math.inf) -> Batch:
        batch = self._batches.get(name)
        if batch is None or not batch.fits(header, codec, ends):
            # The same object, where it is the same token: `engine.judge.FRESH_SOURCE` compares by identity.
            token = self.tokens.get(name)
            own = token if token == header.generation else None
            batch = self._batches[name] = Batch(header, codec, ends, own)
        return batch

    def _place(self, text: str, item: Slim) -> None:
        items = self.items
        former = items.get(text)
        if former is None:
            while len(items) >= self.max_entries and (leaving := self._sieve.next()) is not None:
                self._leave(leaving)
            self._sieve.came(text)
        items[text] = item
        if former is not None:
            former.end()
        if len(items) > self._sweep_items_at:
            now, moment = wall(), monotonic()
            over = [each for each, stored in list(items.items()) if stored.usable_until <= now or stored.ends <= moment]
            for each in over:
                self._leave(each)
            self._sweep_items_at = 2 * len(items) + 256

    def _leave(self, text: str) -> None:
        item = self.items.pop(text, None)
        if item is not None:
            item.end()

    @immediate
    def release(self, key: Key, token: str, failed: bool) -> None:
        with self._latch:
            if not leases.is_held(self._lease(key.lease), token):
                return
            if failed:
                self._leases[key.lease] = (leases.failed(token), monotonic() + leases.FAILED_MS / 1000)
            else:
                self._leases.pop(key.lease, None)

    @immediate
    def renew(self, key: Key, token: str, lease_ms: int, names: Sequence[bytes] = ()) -> bool:
        with self._latch:
            lease = self._lease(key.lease)
            if lease is None or not leases.is_held(lease, token):
                return False
            for name in names:
                self._keep_token(name, lease_ms)
            self._leases[key.lease] = (lease, monotonic() + lease_ms / 1000)
            return True

    # -- invalidating ---------------------------------------------------------------------------------------------------

    @immediate
    def bump(self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]) -> list[bytes]:
        with self._latch:
            floor = 0
            moved = []
            for name, own in zip(names, floors):
                moved.append(self._move(name, nonce, max(own, floor)))
                floor = floor or number(moved[0]) - 1
            self._move_along(along, nonce)
            return moved

    @immediate
    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        with self._latch:
            self._leave(entry.decode())
            self._leases.pop(lease, None)
            self._move_along(along, nonce)

    # -- tokens, inside the latch ---------------------------------------------------------------------------------------

    def _ensure(self, name: bytes, nonce: str, floor: int, lease_ms: int) -> bytes:
        token = self.tokens.get(name)
        if token is None or (floor and number(token) < floor):
            token = self._move(name, nonce, floor)
        if transient(name):
            self._keep_token(name, lease_ms)
        return token

    def _move(self, name: bytes, nonce: str, floor: int) -> bytes:
        current = self.tokens.get(name)
        if current is not None and current.endswith(nonce.encode()):
            return current
        least = max(number(current), floor) + 1
        new = self.tokens[name] = b"%d-%b" % (max(least, time.time_ns() // 1000), nonce.encode())
        if transient(name):
            self._token_ends[name] = monotonic() + TOKEN_MARGIN_MS / 1000
            if len(self._token_ends) > self._sweep_tokens_at:
                self._sweep_tokens()
        return new

    def _move_along(self, names: Sequence[bytes], nonce: str) -> None:
        for name in names:
            if name in self.tokens:
                self._move(name, nonce, 0)

    def _keep_token(self, name: bytes, needed_ms: float) -> None:
        """Prolong a transient token past what needs it: a lease or an entry."""
        ends = self._token_ends.get(name)
        if ends is not None:
            self._token_ends[name] = max(ends, monotonic() + (needed_ms + TOKEN_MARGIN_MS) / 1000)

    def _sweep_tokens(self) -> None:
        now = monotonic()
        for name in [name for name, ends in list(self._token_ends.items()) if ends <= now]:
            self._token_ends.pop(name, None)
            self.tokens.pop(name, None)
        self._sweep_tokens_at = 2 * len(self._token_ends) + 256

    # -- leases, inside the latch ---------------------------------------------------------------------------------------

    def _lease(self, name: bytes) -> bytes | None:
        lease, ends = self._leases.get(name, (None, 0.0))
        return lease if monotonic() < ends else None

    def _sweep_leases(self) -> None:
        # Marks of failure, and leases whose holders are gone, outlive their calls.
        now = monotonic()
        for name in [name for name, (_, ends) in list(self._leases.items()) if ends <= now]:
            self._leases.pop(name, None)
        self._sweep_leases_at = 2 * len(self._leases) + 256
