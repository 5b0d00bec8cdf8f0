"""What the key-value API does, written once for threads and coroutines: flows that ask the store and are told.

A flow yields callables that take the store's key-value side; `run` and `arun` answer them. Keys come as stored
texts: who calls them what is the faces' business (`memover.keyvalue`, `memover.django`).

When the store cannot be asked:

* reads (`get`, `get_many`, `has_key`) find nothing, and `get_or_set` computes: they fail open;
* `set`, `add`, `touch`, `incr`, `incr_version` and their kin raise `StoreError`: they promise something of what others will
  read, so that silence would be a lie. What timed out may have been applied. With `on_set_error="forget"`, `set` and
  `set_many` return instead, and what was there before is removed as by a `delete` that failed;
* `delete`, `delete_many` and `clear` raise `InvalidationFailed`, and go on until the store has taken them; meanwhile this
  process serves nothing under those names.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeVar

from memover.clocks import monotonic, wall
from memover.codec import ValueCodec, resolve_codec, shareable
from memover.codec.compression import compress
from memover.codec.envelope import KIND_KEY_VALUE, Header, payload_of, read_header, rewritten, seal
from memover.codec.pickle import PickleCodec
from memover.drivers.plan import Plan, new_nonce
from memover.engine.judge import FRESH, judge
from memover.engine.ops import Outcome, Sealed
from memover.errors import DamagedEntry, InvalidationFailed, StoreError, StoreTimeout, UnencodableValue
from memover.keys.binding import Binding
from memover.keys.keyvalue import NAMESPACE, Name
from memover.model import MISSING, Event, Source
from memover.policy import Policy
from memover.tags import Tags
from memover.stores.keyvalue import INTEGER, INTEGER_LIMIT, Change, Parcel, Stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.drivers.shared import Shared
    from memover.engine.ops import Marks
    from memover.model import Key
    from memover.stores.keyvalue import AsyncKeyValueStore, KeyValueStore

__all__ = ["KeyValues", "Kept", "acompute", "arun", "compute", "limit_ms", "run"]

T = TypeVar("T")

Ask = Callable[[Any], Any]
Asking = Generator[Ask, Any, T]

_DIGITS = re.compile(rb"-?[0-9]{1,16}\Z")
_LIMIT_MS = 1 << 52
_OWED_LIMIT = 1000
"""How many removals may be owed one by one before it is simpler to owe a clear: it removes more, and is one step."""


def run(flow: Asking[T], store: KeyValueStore) -> T:
    """Run a flow in the caller's thread; store errors are thrown into it."""
    answer: Any = None
    failure: StoreError | None = None
    while True:
        try:
            ask = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = failure = None
        try:
            answer = ask(store)
        except StoreError as error:
            failure = error


async def arun(flow: Asking[T], store: AsyncKeyValueStore | KeyValueStore) -> T:
    """As `run`, awaiting what is awaitable."""
    answer: Any = None
    failure: StoreError | None = None
    while True:
        try:
            ask = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = failure = None
        try:
            answer = ask(store)
            if hasattr(answer, "__await__"):
                answer = await answer
        except StoreError as error:
            failure = error


class KeyValues(Plan):
    """The key-value entries of one cache: how values become entries and back, and what each operation asks.

    A `Plan`, so that `get_or_set` loads under a lease as a decorated function's call does; its function is what runs
    the caller's default.
    """

    def __init__(self, shared: Shared, codec: Any, function: Callable[..., Any], *, forget_failed_sets: bool) -> None:
        policy = Policy(
            namespace=NAMESPACE,
            version=1,
            ttl=None,
            cache_if=None,
            jitter=0.0,
            on_store_error="load",
            wait_timeout=None,
            lease_ttl=None,
            track_dependencies=False,
        )
        resolved = resolve_codec(codec, name_for_errors="the key-value API")
        binding = Binding(function, key=None, ignore=(), name="get_or_set")
        super().__init__(function, "get_or_set", policy, binding, resolved, Tags((), binding, "get_or_set"), shared)
        # A codec of the user's may hide or sign what it stores, so it gets to see integers as well.
        self.plain_integers = isinstance(resolved, (ValueCodec, PickleCodec))
        self.forget_failed_sets = forget_failed_sets

    def named(self, text: str) -> Name:
        """The names of an entry in the store."""
        return Name(text, self.names, spread=self.shared.store.spread)

    # -- values to bytes and back -----------------------------------------------------------------------------------------

    def pack(self, key: Key, value: Any, fresh_for: float, generation: bytes, load_time: float = 0.0) -> tuple[bytes, int]:
        """A value as an entry's bytes and its hard limit in ms; raises `UnencodableValue`."""
        now = wall()
        fresh_until = now + fresh_for
        codec, payload, compression = self._payload(value)
        raw = seal(
            payload,
            key=key.entry,
            generation=generation,
            codec=codec,
            created_at=now,
            load_time=load_time,
            fresh_until=fresh_until,
            usable_until=fresh_until,
            kind=KIND_KEY_VALUE,
            compression=compression,
        )
        return raw, limit_ms(fresh_for)

    def _payload(self, value: Any) -> tuple[str, bytes, int]:
        if type(value) is int and self.plain_integers and -INTEGER_LIMIT < value < INTEGER_LIMIT:
            return INTEGER, b"%d" % value, 0
        try:
            payload = self._encode(value)
        except UnencodableValue:
            self.counters.unencodable += 1
            raise
        compression, payload = compress(payload, threshold_bytes=self.shared.compress_from_bytes)
        return self.codec_name, payload, compression

    def decode(self, raw: bytes, header: Header) -> Any:
        if header.codec == INTEGER and self.plain_integers:
            payload = bytes(payload_of(raw, header))
            if not _DIGITS.match(payload):
                raise DamagedEntry("its payload is no integer", reason="undecodable")
            return int(payload)
        return super().decode(raw, header)

    def sealed(
        self, key: Key, outcome: Outcome, marks: Marks, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Sealed | None:
        """As `Plan.sealed`, for `get_or_set`: the time to live is the call's own."""
        _, fresh_for = args
        if fresh_for <= 0 or outcome.error is not None:
            return None
        try:
            raw, expire_ms = self.pack(key, outcome.value, fresh_for, marks[0][1], outcome.load_time)
        except UnencodableValue as error:
            if self.shared.on_unencodable == "raise":
                return Sealed(error=error)
            self.emit("unencodable", key, error=error)
            return None
        return Sealed(raw, expire_ms, read_header(raw, key.entry), outcome.value)

    def _parcel(self, key: Name, value: Any, fresh_for: float, stamp: Stamp) -> Parcel:
        if fresh_for <= 0:
            return Parcel(key, b"", -1, MISSING)
        raw, expire_ms = self.pack(key, value, fresh_for, stamp.known)
        return Parcel(key, raw, expire_ms, value if shareable(value) else MISSING)

    def _live(self, key: Key, generation: bytes | None, raw: bytes | None, *, whole: bool = True) -> Header | None:
        """The header of an entry that may be served, else None."""
        if raw is None or self.witness.owes(key.names, key.entry) or not self.witness.trusts(key.names, (generation,)):
            return None
        try:
            header = read_header(raw, key.entry, whole=whole)
        except DamagedEntry as error:
            self.damaged(key, error)
            return None
        if header.kind != KIND_KEY_VALUE or judge(header, key.names, (generation,), wall()) is not FRESH:
            return None
        return header

    def _value(self, key: Key, generation: bytes | None, raw: bytes | None) -> Any:
        """The value of an entry that was read, MISSING where it may not be served."""
        header = self._live(key, generation, raw)
        if header is None or raw is None:
            return MISSING
        try:
            return self.decode(raw, header)
        except DamagedEntry as error:
            self.damaged(key, error)
            return MISSING

    # -- reading: a store that fails is a store that has nothing ------------------------------------------------------------

    def get(self, text: str, default: Any) -> Asking[Any]:
        key = self.named(text)
        if self.watch.disabled():
            return default
        value: Any = MISSING
        try:
            seen = yield lambda store: store.read(key)
            value = self._value(key, seen.tokens[0], seen.raw)
        except StoreError as error:
            self.store_failed(key, error)
        self._looked_up(key, value)
        return default if value is MISSING else value

    def get_many(self, texts: Mapping[Any, str]) -> Asking[dict[Any, Any]]:
        """Values by whatever the texts are called."""
        keys = {called: self.named(text) for called, text in texts.items()}
        found: dict[Any, Any] = {}
        if not keys or self.watch.disabled():
            return found
        try:
            _, tokens, raws = yield lambda store: store.read_plain(tuple(keys.values()))
        except StoreError as error:
            self.store_failed(None, error)
            return found
        for (called, key), raw in zip(keys.items(), raws):
            value = self._value(key, tokens[0], raw)
            self._looked_up(key, value)
            if value is not MISSING:
                found[called] = value
        return found

    def has_key(self, text: str) -> Asking[bool]:
        return (yield from self.get(text, MISSING)) is not MISSING

    def _looked_up(self, key: Key, value: Any) -> None:
        if value is MISSING:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        if self.watch.busy:
            self.watch.emit(Event("lookup", NAMESPACE, key.text, None if value is MISSING else Source.FRESH))

    # -- writing --------------------------------------------------------------------------------------------------------

    def _stamp(self) -> Asking[Stamp]:
        name, witness = self.generation_name, self.witness
        if name in witness.owed:
            # A clear() that nobody has acknowledged would end whatever is stored now: it goes first.
            before = self.shared.owing((name,))
            (token,) = yield lambda store: store.bump((name,), new_nonce(), (witness.floor(name),), ())
            self._learn(token)
            self.shared.settled(before)
        return Stamp(name, witness.last(name) or b"", witness.floor(name), new_nonce())

    def _learn(self, generation: bytes) -> None:
        self.witness.trusts(self.names, (generation,))

    def _changed(self, change: Change, before: Mapping[bytes, Any]) -> Change:
        self._learn(change.generation)
        if change.done:
            # What was owed to these entries was their removal: they have been replaced.
            self.shared.settled(dict(before))
        return change

    def _owing_now(self, *keys: Key) -> dict[bytes, Any]:
        return self.shared.owing([key.entry for key in keys])

    def set_many(self, values: Mapping[str, Any], fresh_for: float) -> Asking[None]:
        """Store values by text, all in one step (Cluster: one per entry, sent together)."""
        keys = {text: self.named(text) for text in values}
        if not keys or self.watch.disabled():
            return
        try:
            stamp = yield from self._stamp()
            parcels = [self._parcel(keys[text], value, fresh_for, stamp) for text, value in values.items()]
            before = self._owing_now(*keys.values())
            generation = yield lambda store: store.put(parcels, stamp)
        except StoreError as error:
            self.store_failed(None, error)
            if self.forget_failed_sets:
                self._owe_removal(list(keys.values()))
                return
            raise
        self._changed(Change(True, generation), before)
        self.counters.stores += len(parcels)
        if self.watch.busy:
            for parcel in parcels:
                self.emit("store", parcel.key, size=len(parcel.raw))

    def add(self, text: str, value: Any, fresh_for: float) -> Asking[bool]:
        key = self.named(text)
        if self.watch.disabled():
            return True
        stamp = yield from self._stamp()
        parcel = self._parcel(key, value, fresh_for, stamp)
        if before := self._owing_now(key):
            # Its removal is owed: what is there still is not there.
            generation = yield lambda store: store.put([parcel], stamp)
            self._changed(Change(True, generation), before)
            return True
        change = yield lambda store: store.add(parcel, stamp, wall())
        return self._changed(change, {}).done

    def touch(self, text: str, fresh_for: float) -> Asking[bool]:
        key = self.named(text)
        if self.watch.disabled() or key.entry in self.witness.owed:
            return False
        stamp = yield from self._stamp()
        now = wall()
        parcel = Parcel(key, b"", -1 if fresh_for <= 0 else limit_ms(fresh_for), MISSING)
        change = yield lambda store: store.touch(parcel, now + fresh_for, stamp, now)
        return self._changed(change, {}).done

    def incr(self, text: str, delta: Any) -> Asking[Any]:
        """The new value; MISSING when there is nothing to add to."""
        key = self.named(text)
        if self.watch.disabled() or key.entry in self.witness.owed:
            return MISSING
        if type(delta) is int and -INTEGER_LIMIT < delta < INTEGER_LIMIT:
            stamp = yield from self._stamp()
            change = yield lambda store: store.increment(key, delta, stamp, wall())
            self._changed(change, {})
            if change.detail is not False:
                return change.detail if change.done else MISSING
        return (yield from self._add_up(key, delta))

    def _add_up(self, key: Name, delta: Any) -> Asking[Any]:
        # No plain integer: read, add here, and put it in place of exactly what was read, until nobody came between.
        deadline = monotonic() + self.wait_seconds
        while True:
            seen = yield lambda store: store.read(key)
            raw = seen.raw
            header = self._live(key, seen.tokens[0], raw)
            if header is None or raw is None:
                return MISSING
            try:
                value = self.decode(raw, header)
            except DamagedEntry as error:
                self.damaged(key, error)
                return MISSING
            if not isinstance(value, Number):
                raise TypeError(f"The value under {key.text!r} is a {type(value).__name__}; only a number can be incremented.")
            value = value + delta  # type: ignore[operator]  # Number says nothing of what it can do
            codec, payload, compression = self._payload(value)
            new = rewritten(raw, header, payload=payload, codec=codec, compression=compression)
            if (yield lambda store, raw=raw, new=new: store.swap(key, raw, new)):
                return value
            if monotonic() >= deadline:
                raise StoreTimeout(
                    f"{key.text!r} was changed by others throughout {self.wait_seconds:g} s: count in a plain int.",
                    store=self.shared.store.address,
                )

    def move(self, text: str, to: str) -> Asking[bool]:
        """Give an entry another key, for `incr_version`; whether there was one."""
        key, other = self.named(text), self.named(to)
        if self.watch.disabled() or key.entry in self.witness.owed:
            return False
        stamp = yield from self._stamp()
        if key.entry == other.entry:
            seen = yield lambda store: store.read(key)
            return self._live(key, seen.tokens[0], seen.raw) is not None
        before = self._owing_now(other)
        change = yield lambda store: store.move(key, other, stamp, wall())
        return self._changed(change, before).done

    # -- removing: loud when not acknowledged, and repeated until it is ------------------------------------------------------

    def delete(self, text: str) -> Asking[bool]:
        key = self.named(text)
        before = self._owing_now(key)
        try:
            generation, head = yield lambda store: store.remove(key)
        except StoreError as error:
            raise self._owing([key], f"the key {text!r}", error) from error
        was_there = self._live(key, generation, head, whole=False) is not None
        self._removed([key], before)
        return was_there

    def delete_many(self, texts: Iterable[str]) -> Asking[None]:
        keys = [self.named(text) for text in texts]
        if not keys:
            return
        before = self._owing_now(*keys)
        try:
            yield lambda store: store.remove_many(keys)
        except StoreError as error:
            raise self._owing(keys, f"{len(keys)} keys", error) from error
        self._removed(keys, before)

    def clear(self) -> Asking[None]:
        """Move the key-value entries, all versions, to a new generation."""
        name, nonce, shared = self.generation_name, new_nonce(), self.shared
        before = shared.owing((name,))
        try:
            (token,) = yield lambda store: store.bump((name,), nonce, (shared.witness.floor(name),), ())
        except StoreError as error:
            self._owe_clear(nonce)
            raise self._failed((name,), "the key-value entries", None, error) from error
        self._learn(token)
        shared.settled(before)
        self.counters.invalidations += 1
        self.emit("invalidate", None)

    def _removed(self, keys: Sequence[Key], before: dict[bytes, Any]) -> None:
        self.shared.settled(before)
        for key in keys:
            self.counters.invalidations += 1
            self.emit("invalidate", key)

    def _owing(self, keys: Sequence[Key], what: str, error: StoreError) -> InvalidationFailed:
        self._owe_removal(keys)
        return self._failed(tuple(key.entry for key in keys), what, keys[0], error)

    def _owe_removal(self, keys: Sequence[Key]) -> None:
        store: Any = self.shared.store
        if len(self.witness.owed) + len(keys) > _OWED_LIMIT:
            self._owe_clear(new_nonce())
            return
        for key in keys:
            self.shared.owe(key.entry, lambda key=key: store.remove_many([key]))

    def _owe_clear(self, nonce: str) -> None:
        name, shared = self.generation_name, self.shared

        if name not in self.witness.owed:
            shared.owe(name, lambda: shared.bump((name,), nonce))

    def _failed(self, names: Sequence[bytes], what: str, key: Key | None, error: StoreError) -> InvalidationFailed:
        from memover.cache import failed_invalidation

        self.store_failed(key, error)
        failure = failed_invalidation(what, tuple(names), self.shared.store.address)
        self.emit("invalidate", key, error=failure)
        return failure


def limit_ms(fresh_for: float) -> int:
    """The hard limit in the store for a time to live in seconds; 0 for none."""
    return 0 if fresh_for == math.inf else max(1, min(math.ceil(fresh_for * 1000), _LIMIT_MS))


def compute(default: Any, _: float) -> Any:
    """The function behind `get_or_set`."""
    return default() if callable(default) else default


async def acompute(default: Any, _: float) -> Any:
    """The function behind `aget_or_set`; a default may be an `async def` function too."""
    value = default() if callable(default) else default
    return await value if inspect.isawaitable(value) else value


class Kept:
    """Mixed into a site: remembers whether its store was refused, somebody else having stored meanwhile."""

    refused_store = False

    def stored(self, kept: bool, sealed: Sealed) -> bool:
        self.refused_store = not kept
        base: Any = super()
        return bool(base.stored(kept, sealed))
