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
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from numbers import Number
from typing import TYPE_CHECKING, Any, TypeVar

from memover.clocks import monotonic, wall
from memover.codec.envelope import rewritten
from memover.drivers.keyvalue_plan import KeyValuePlan, limit_ms
from memover.drivers.plan import new_nonce
from memover.errors import DamagedEntry, InvalidationFailed, StoreError, StoreTimeout, failed_invalidation
from memover.keys.keyvalue import NAMESPACE, Name
from memover.model import MISSING, Event, Source
from memover.stores.keyvalue import INTEGER_LIMIT, Change, Parcel, Stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.ops import Sealed
    from memover.model import Key
    from memover.stores.keyvalue import AsyncKeyValueStore, KeyValueStore

__all__ = ["KeyValues", "Kept", "acompute", "arun", "compute", "run"]

T = TypeVar("T")

Ask = Callable[[Any], Any]
Asking = Generator[Ask, Any, T]

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


class KeyValues(KeyValuePlan):
    """What each operation asks of the store."""

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
                raise TypeError(
                    f"The value under {key.text!r} is a {type(value).__name__}; only a number can be incremented."
                )
            value = value + delta
            codec, payload, compression = self._payload(value)
            new = rewritten(raw, header, payload=payload, codec=codec, compression=compression)
            if (yield partial(_swap, key, raw, new)):
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
            self.shared.owe(key.entry, partial(store.remove_many, [key]))

    def _owe_clear(self, nonce: str) -> None:
        name, shared = self.generation_name, self.shared

        if name not in self.witness.owed:
            shared.owe(name, lambda: shared.bump((name,), nonce))

    def _failed(self, names: Sequence[bytes], what: str, key: Key | None, error: StoreError) -> InvalidationFailed:

        self.store_failed(key, error)
        failure = failed_invalidation(what, tuple(names), self.shared.store.address)
        self.emit("invalidate", key, error=failure)
        return failure


def _swap(key: Key, old: bytes, new: bytes, store: Any) -> Any:
    return store.swap(key, old, new)


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
