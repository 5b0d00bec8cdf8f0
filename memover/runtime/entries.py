"""Results to entries and back: codec, compression, envelope, and what cannot be kept.

Damage is a miss and never an exception in the caller: it is counted and reported. What is raised from outside while a
codec works (a signal's exception, MemoryError, RecursionError) passes through.
"""

from __future__ import annotations

import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.base import codec_name
from memover.codec.compression import NONE, compress, expand
from memover.codec.envelope import KIND_ERROR, KIND_VALUE, NO_FINGERPRINT, payload_of, plain_form, read_header, seal
from memover.codec.faults import from_outside
from memover.codec.mv1.codec import ValueCodec
from memover.codec.pickle import PickleCodec
from memover.codec.sharing import places_of
from memover.engine.answers import Outcome, Sealed
from memover.errors import DamagedEntry, UnencodableValue
from memover.model import MISSING, Call, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.codec.envelope import Header
    from memover.engine.answers import Marks, Reading
    from memover.engine.call import CachedCall
    from memover.keys.binding import Binding
    from memover.model import Key, Source
    from memover.policy import Policy
    from memover.runtime.counters import Counters
    from memover.runtime.guard import ShapeGuard
    from memover.runtime.state import CacheState

__all__ = ["Entries", "limit_ms"]

logger = logging.getLogger("memover")

LIMIT_MS = 1 << 52

UNREADABLE_LIMIT = 1000
"""How many damaged entries are known at most, so that each is counted once."""


def limit_ms(seconds: float) -> int:
    """The hard limit in the store, in milliseconds, for a time to live in seconds; 0 for none."""
    if seconds == math.inf:
        return 0
    ms = math.ceil(seconds * 1000)
    return 1 if ms < 1 else min(ms, LIMIT_MS)


def decoded(codec: Any, payload: bytes | memoryview) -> Any:
    """What a user's codec makes of a payload; raises `DamagedEntry` for what it cannot read."""
    try:
        return codec.decode(payload)
    except DamagedEntry:
        raise
    except Exception as error:
        if from_outside(error):
            raise
        raise DamagedEntry(f"the codec cannot read it: {error!r}", reason="undecodable") from error


class Entries:
    """Values to bytes and back for one function on one cache. `fingerprint` is that of the result's shape, b"" until the
    first entry: before that, classes may still be missing."""

    name: str
    policy: Policy
    state: CacheState
    binding: Binding
    guard: ShapeGuard
    counters: Counters

    fixed: tuple[float, float] | None = None
    """`Policy.fixed` of every result."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.codec_name = codec_name(codec)
        # They say themselves what is the data's fault, so everything else that comes out of them is from outside.
        self.own_codec = isinstance(codec, (ValueCodec, PickleCodec))
        self.decode_payload: Callable[[bytes | memoryview], Any] = (
            codec.decode if self.own_codec else partial(decoded, codec)
        )
        """The value of a payload; raises `DamagedEntry` for what cannot be read."""
        if self.own_codec:
            self.encode = codec.encode  # type: ignore[method-assign]
        self.fingerprint = b""
        self.form: tuple[bytes, bytes] | None = None
        """What `read_plain` expects of every entry of this function; None before the fingerprint is known."""
        self.unreadable: dict[bytes, int] = {}
        """Entries that were counted as damaged, each with the hash of its bytes: a miss reads one twice, and waiters more often."""

    # -- from bytes -----------------------------------------------------------------------------------------------------

    def read_header(self, key: Key, raw: bytes | None) -> Header | None:
        """The header of what was read, None where nothing was or it is damaged."""
        if raw is None:
            return None
        try:
            return read_header(raw, key.entry)
        except DamagedEntry as error:
            self.damaged(key, error, raw)
            return None

    def decode(self, raw: bytes, header: Header) -> Any:
        """The value of an entry whose header was read; raises `DamagedEntry` for what cannot be read."""
        if header.codec != self.codec_name:
            raise DamagedEntry(f"written by the codec {header.codec!r}, not {self.codec_name!r}", reason="codec")
        if header.fingerprint != self.fingerprint:
            self._other_shape(raw, header)
        return self.decode_payload(self.payload(raw, header))

    def payload(self, raw: bytes, header: Header) -> bytes | memoryview:
        """The payload as the codec wrote it."""
        payload = payload_of(raw, header)
        if header.compression:
            stored_bytes = len(payload)
            payload = expand(header.compression, payload, limit_bytes=self.state.expanded_bytes_limit)
            if isinstance(self.codec, ValueCodec):
                self.codec.check_objects(payload, stored_bytes)
        return payload

    def compressed(self, payload: bytes) -> tuple[int, bytes]:
        """How a payload is compressed, and the bytes to store: never in a way that `payload` would refuse to read."""
        compression, stored = compress(payload, threshold_bytes=self.state.compress_from_bytes)
        if compression and len(payload) > self.state.expanded_bytes_limit:
            return NONE, payload
        if compression and isinstance(self.codec, ValueCodec):
            try:
                self.codec.check_objects(payload, len(stored))
            except DamagedEntry:
                return NONE, payload
        return compression, stored

    def _other_shape(self, raw: bytes, header: Header) -> None:
        # Reached by the first entry, and by every entry whose fingerprint is not the function's own.
        self.own_fingerprint()
        if not self.guard.differs(header, self.fingerprint):
            return
        first = self.guard.first_sight(header)
        if first:
            self.counters.other_shape += 1
            self.guard.warn(self.codec, lambda: self.payload(raw, header))
        raise DamagedEntry(
            f"{self.name} returns another shape than this entry has, under one version: it counts as a miss.",
            reason="other-shape" if first else "other-shape-again",
        )

    def opened(self, key: Key, reading: Reading, source: Source) -> Outcome | None:
        """A reading as an outcome, None when its payload is damaged."""
        raw, header = reading.raw, reading.header
        if raw is None or header is None:
            return None
        try:
            value = self.decode(raw, header)
            if header.kind == KIND_ERROR and not isinstance(value, Exception):
                raise DamagedEntry("a cached error that is no exception", reason="undecodable")
        except DamagedEntry as error:
            self.damaged(key, error, raw)
            return None
        marks = ((key.names[0], header.generation), *header.marks)
        sealed = Sealed(raw, header=header)
        if header.kind == KIND_ERROR:
            return Outcome(error=value, source=source, sealed=sealed, marks=marks)
        return Outcome(value, source=source, sealed=sealed, marks=marks)

    def own_copy(self, outcome: Outcome) -> Any:
        """A copy of a shared outcome's value for one more caller, who may change it."""
        sealed = outcome.sealed
        try:
            if sealed is not None and sealed.header is not None:
                return self.decode(sealed.raw, sealed.header)
            return self.decode_payload(self.encode(outcome.value))
        except (DamagedEntry, UnencodableValue):
            return outcome.value  # it was not to be stored, so it may be of any kind: shared, as a future would be

    # -- to bytes -------------------------------------------------------------------------------------------------------

    def seal(self, call: CachedCall, outcome: Outcome, marks: Marks) -> Sealed | None:
        """A result as an entry under the tokens read before its load; None when it is not to be stored."""
        result = outcome.value if outcome.error is None else outcome.error
        policy = self.policy
        if outcome.error is not None:
            fresh_for, stale_for = policy.error_ttl, 0.0
        elif self.fixed is not None:
            fresh_for, stale_for = self.fixed
        else:
            stale_for = policy.stale_window
            try:
                describe = partial(self.described, call.key, call.args, call.kwargs)
                fresh_for = policy.lifetime(result, describe, self.state.default_ttl, random.random())
            except Exception as error:
                if from_outside(error):
                    raise
                return Sealed(error=error)  # of the user's ttl= or cache_if=
        if fresh_for <= 0:
            self.counters.refused_stores += 1
            return None
        now = wall()
        kind = KIND_VALUE if outcome.error is None else KIND_ERROR
        fresh_until = now + fresh_for
        return self.packed(call, result, marks, kind, now, now, outcome.load_time, fresh_until, fresh_until + stale_for)

    def packed(
        self,
        call: CachedCall,
        result: Any,
        marks: Marks,
        kind: int,
        now: float,
        created_at: float,
        load_time: float,
        fresh_until: float,
        usable_until: float,
    ) -> Sealed | None:
        """A result as an entry with these instants; None, counted and reported, when it cannot be stored."""
        key = call.key
        try:
            codec, payload, compression, whole = self.encoded(result)
        except UnencodableValue as error:
            self.counters.unencodable += 1
            if self.state.on_unencodable == "raise":
                return Sealed(error=error)
            self.emit("unencodable", key, error=error)
            if self.counters.unencodable == 1:
                logger.warning("%s: a result was not stored, and such results will not be: %s", self.name, error)
            return None
        state = self.state
        if len(payload) > state.max_entry_bytes:
            self.too_large(key, len(payload), "max_entry_bytes", state.max_entry_bytes)
            return None
        if whole > state.expanded_bytes_limit:  # no reader would expand it
            self.too_large(key, whole, "expanded_limit", state.expanded_bytes_limit)
            return None
        raw = seal(
            payload,
            key=key.entry,
            generation=marks[0][1],
            marks=marks[1:],
            kind=kind,
            codec=codec,
            created_at=created_at,
            load_time=load_time,
            fresh_until=fresh_until,
            usable_until=usable_until,
            compression=compression,
            fingerprint=self.fingerprint or self.own_fingerprint(),
        )
        if state.longest_bytes is not None and len(raw) > state.longest_bytes:
            self.too_large(key, len(raw), "max_bytes", state.longest_bytes)
            return None
        # Only a store in this process can hand out the object itself.
        places = places_of(result) if kind != KIND_ERROR and self.state.memory is not None else None
        value = MISSING if places is None else result
        again = self.codec if self.own_codec and places == () and kind == KIND_VALUE and not compression else None
        expire_ms = limit_ms(usable_until - now)
        return Sealed(raw, expire_ms, None, value, None, places or (), again, marks[1:], key.entry)

    def own_fingerprint(self) -> bytes:
        """What is written into the header of an entry: 8 bytes, zeros when nothing is known of the result."""
        if not self.fingerprint:
            self.fingerprint = self.guard.fingerprint()
            self.form = plain_form(self.codec_name, self.fingerprint)
        return self.fingerprint or NO_FINGERPRINT

    def encoded(self, value: Any) -> tuple[str, bytes, int, int]:
        """The name of a value's codec, its payload as it is stored, how that is compressed, and how long it was before.

        Raises `UnencodableValue`."""
        payload = self.encode(value)
        whole, compression = len(payload), NONE
        if whole >= self.state.compress_from_bytes:
            compression, payload = self.compressed(payload)
        return self.codec_name, payload, compression, whole

    def encode(self, value: Any) -> bytes:
        """The payload of a value; raises `UnencodableValue` for what the codec refuses."""
        try:
            payload: bytes = self.codec.encode(value)
        except UnencodableValue:
            raise
        except Exception as error:
            if from_outside(error):
                raise
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise UnencodableValue(
                f"{self.name}: the codec {self.codec_name!r} cannot store a {kind}: {error!r}. Return something it can "
                f"store, give the function another codec=, or leave it out with cache_if=.",
                function=self.name,
                kind=kind,
            ) from error
        return payload

    # -- what happened --------------------------------------------------------------------------------------------------

    def described(self, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """The call as it is handed to `ttl=`, `cache_if=` and `tags=`."""
        policy, bind = self.policy, self.binding.arguments
        return Call(args, kwargs, key=key.text, namespace=policy.namespace, version=policy.version, bind=bind)

    def emit(self, name: str, key: Key | None, **facts: Any) -> None:
        """Hands an event to the observers, if there are any. `facts` are the other fields of `Event`."""
        if self.state.observers.busy:
            self.state.observers.emit(Event(name, self.policy.namespace, "" if key is None else key.text, **facts))

    def too_large(self, key: Key, size: int, option: str, limit: int) -> None:
        """A result is longer than this option of the cache lets it store: count it, and warn once for the function."""
        self.counters.too_large += 1
        self.emit("too-large", key, size=size)
        if self.counters.too_large == 1:
            logger.warning(
                "%s: a result of %d bytes is longer than the %d that %s= allows, so it was returned and not stored (further "
                "ones are only counted). Raise %s=, or leave such results out with cache_if=.",
                self.name,
                size,
                limit,
                option,
                option,
            )

    def damaged(self, key: Key, error: DamagedEntry, raw: bytes) -> None:
        """An entry could not be read: count it and tell the observers, once, however often these bytes are read."""
        if error.reason.startswith("other-shape"):  # counted where it was found
            if error.reason == "other-shape":
                self.emit("other-shape", key, error=error)
            return
        known, seen = self.unreadable, hash(raw)
        if known.get(key.entry) == seen:
            return
        if len(known) >= UNREADABLE_LIMIT:
            known.clear()
        known[key.entry] = seen
        self.counters.damaged += 1
        self.emit("damaged", key, error=error, detail=error.reason)

    def store_failed(self, key: Key | None, error: BaseException) -> None:
        """The store raised: count it and tell the observers."""
        self.counters.store_errors += 1
        self.emit("store-error", key, error=error)
