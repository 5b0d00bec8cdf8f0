"""The key-value entries of one cache: how values become entries and back, and which of them may be served.

`KeyValueEntries` is what `engine.keyvalue` calls `KeyValues`, and a `Function`, so that `get_or_set` loads under a lease as
a decorated function's call does: its function is what runs the caller's default.
"""

from __future__ import annotations

import inspect
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.base import resolve_codec
from memover.codec.compression import NONE
from memover.codec.envelope import KIND_KEY_VALUE, NO_FINGERPRINT, Header, payload_of, read_header, rewritten, seal
from memover.codec.mv1.codec import ValueCodec
from memover.codec.pickle import PickleCodec
from memover.codec.sharing import places_of
from memover.engine import keyvalue as flows
from memover.engine.call import CachedCall
from memover.engine.judge import FRESH, judge
from memover.engine.store import INTEGER, INTEGER_LIMIT, Parcel, Stamp
from memover.errors import DamagedEntry, UnencodableValue
from memover.keys.binding import Binding
from memover.keys.keyvalue import NAMESPACE, Name
from memover.keys.tags import Tags
from memover.model import MISSING, Source
from memover.policy import Policy
from memover.runtime.entries import limit_ms
from memover.runtime.flights import Flight
from memover.runtime.function import Function
from memover.runtime.hit import adrive, drive, inside_a_load
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.engine.answers import Marks, Outcome, Sealed
    from memover.model import Key
    from memover.runtime.state import CacheState

__all__ = ["KeyValueEntries", "aget_or_set", "get_or_set"]

_DIGITS = re.compile(rb"-?[0-9]{1,16}\Z")


def compute(default: Any, _: float) -> Any:
    """The function behind `get_or_set`. What it returns is awaited under asyncio, where it can be."""
    return default() if callable(default) else default


class KeyValueEntries(Function):
    """The codec, the names and the clock of the key-value entries of one cache."""

    def __init__(self, state: CacheState, codec: Any, *, forget_failed_sets: bool) -> None:
        policy = Policy(NAMESPACE, version=1, track_dependencies=False)
        resolved = resolve_codec(codec, name_for_errors="the key-value API")
        binding = Binding(compute, key=None, ignore=(), name="get_or_set")
        super().__init__(compute, "get_or_set", policy, binding, resolved, Tags((), binding, "get_or_set"), state)
        self.fingerprint = NO_FINGERPRINT  # entries of any shape
        self.plain_integers = isinstance(resolved, (ValueCodec, PickleCodec))
        self.forget_failed_sets = forget_failed_sets
        self.ledger = state

    def call(
        self, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], max_age: float | None = None
    ) -> CachedCall:
        """A `get_or_set` that was not served at once; key-value entries take no part in dependencies."""
        return CachedCall(self, key, args, kwargs, flight=Flight(), max_age=max_age)

    def call_name(self, key: Key) -> bytes:
        """No token stands for a key-value entry."""
        return b""

    def named(self, text: str) -> Name:
        """The names of an entry in the store."""
        return Name(text, self.names, spread=self.store.spread)

    # -- values to bytes ------------------------------------------------------------------------------------------------

    def parcel(self, key: Key, value: Any, fresh_for: float, stamp: Stamp) -> Parcel:
        """A value as what the store is given to write; 0 seconds or less remove what is there."""
        if fresh_for <= 0:
            return Parcel(key, b"", -1, MISSING)
        now = wall()
        codec, payload, compression = self._payload(value)
        raw = seal(
            payload,
            key=key.entry,
            generation=stamp.known,
            codec=codec,
            created_at=now,
            load_time=0.0,
            fresh_until=now + fresh_for,
            usable_until=now + fresh_for,
            kind=KIND_KEY_VALUE,
            compression=compression,
        )
        places = places_of(value) if self.store.local else None
        return Parcel(key, raw, limit_ms(fresh_for), MISSING if places is None else value, places or ())

    def replaced(self, raw: bytes, header: Header, value: Any) -> bytes:
        """An entry with another value and everything else as it was."""
        codec, payload, compression = self._payload(value)
        return rewritten(raw, header, payload=payload, codec=codec, compression=compression)

    def _payload(self, value: Any) -> tuple[str, bytes, int]:
        try:
            return self.encoded(value)[:3]
        except UnencodableValue:
            self.counters.unencodable += 1
            raise

    def encoded(self, value: Any) -> tuple[str, bytes, int, int]:
        if type(value) is int and self.plain_integers and -INTEGER_LIMIT < value < INTEGER_LIMIT:
            digits = b"%d" % value
            return INTEGER, digits, NONE, len(digits)
        return super().encoded(value)

    def seal(self, call: CachedCall, outcome: Outcome, marks: Marks) -> Sealed | None:
        """As `Entries.seal`, for `get_or_set`: the time to live is the call's own."""
        (_, fresh_for), now = call.args, wall()
        if fresh_for <= 0 or outcome.error is not None:
            return None
        end = now + fresh_for
        return self.packed(call, outcome.value, marks, KIND_KEY_VALUE, now, now, outcome.load_time, end, end)

    limit_ms = staticmethod(limit_ms)

    # -- bytes to values ------------------------------------------------------------------------------------------------

    def decode(self, raw: bytes, header: Header) -> Any:
        if header.codec == INTEGER and self.plain_integers:
            payload = bytes(payload_of(raw, header))
            if not _DIGITS.match(payload):
                raise DamagedEntry("its payload is no integer", reason="undecodable")
            return int(payload)
        return super().decode(raw, header)

    def header(self, key: Key, generation: bytes | None, raw: bytes | None, *, whole: bool = True) -> Header | None:
        """The header of an entry that may be served, else None. `whole=False`: `raw` may be its beginning only."""
        witness = self.witness
        if raw is None or witness.owes(key.names, key.entry) or not witness.trusts(key.names, (generation,)):
            return None
        try:
            header = read_header(raw, key.entry, whole=whole)
        except DamagedEntry as error:
            self.damaged(key, error, raw)
            return None
        if header.kind != KIND_KEY_VALUE or judge(header, key.names, (generation,), wall()) is not FRESH:
            return None
        return header

    def value(self, key: Key, raw: bytes, header: Header) -> Any:
        """The value of an entry that may be served, MISSING where its payload is damaged."""
        try:
            return self.decode(raw, header)
        except DamagedEntry as error:
            self.damaged(key, error, raw)
            return MISSING

    def at_hand(self, text: str) -> Any:
        """A value that this process's memory can hand out as it is, else MISSING."""
        memory = self.state.memory
        if memory is None or self.observers.busy or self.witness.owed:
            return MISSING
        return memory.value(text, self.generation_name, NO_FINGERPRINT)

    def is_disabled(self) -> bool:
        """Whether caching is turned off in this context."""
        return self.observers.disabled()

    def note_lookup(self, key: Key, value: Any) -> None:
        """Counts a read and tells the observers of it."""
        if value is MISSING:
            self.counters.misses += 1
        else:
            self.counters.own_hits += 1
        self.emit("lookup", key, source=None if value is MISSING else Source.FRESH)

    def note_stored(self, parcels: Sequence[Parcel]) -> None:
        """Counts what was written and tells the observers of it."""
        self.counters.stores += len(parcels)
        if self.observers.busy:
            for parcel in parcels:
                self.emit("store", parcel.key, size=len(parcel.raw))

    def invalidation(self, what: str, keys: Sequence[Key]) -> _Removal:
        """The removal of keys (of all there are, where none is named), for `engine.invalidate`."""
        return _Removal(self, what, keys)


class _Removal:
    """Key-value entries, as an `engine.invalidate.Subject`."""

    def __init__(self, entries: KeyValueEntries, what: str, keys: Sequence[Key]) -> None:
        self.what = what
        self.names = tuple(key.entry for key in keys) or (entries.generation_name,)
        self._entries = entries
        self._keys = keys

    def begin(self) -> None:
        """This process keeps nothing of key-value entries beside the store."""

    def failed(self, error: Exception, failure: Exception) -> None:
        """Counts and reports what the store did not acknowledge."""
        key = self._keys[0] if self._keys else None
        self._entries.store_failed(key, error)
        self._entries.emit("invalidate", key, error=failure)

    def done(self) -> None:
        """Counts and reports it, once for each key."""
        for key in self._keys or (None,):
            self._entries.counters.invalidations += 1
            self._entries.emit("invalidate", key)


def get_or_set(entries: KeyValueEntries, text: str, default: Any, fresh_for: float) -> Any:
    """The value under a key, else the default computed under a lease and stored."""
    began = perf_counter()
    if entries.observers.disabled():
        entries.disabled()
        return compute(default, 0.0)
    call = entries.call(entries.named(text), (default, fresh_for), {})
    value = drive(inside_a_load(call), call, began)
    # Somebody stored while we computed, so that ours was refused: everybody gets what is stored.
    return run(flows.get(entries, text, value)) if call.refused else value


async def aget_or_set(entries: KeyValueEntries, text: str, default: Any, fresh_for: float) -> Any:
    """As `get_or_set`, awaited."""
    began = perf_counter()
    if entries.observers.disabled():
        entries.disabled()
        value = compute(default, 0.0)
        return await value if inspect.isawaitable(value) else value
    call = entries.call(entries.named(text), (default, fresh_for), {})
    value = await adrive(inside_a_load(call), call, began)
    return await arun(flows.get(entries, text, value)) if call.refused else value
