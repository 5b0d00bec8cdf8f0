"""The key-value entries of one cache as data: how values become entries and back, and which of them may be served."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec import ValueCodec, resolve_codec, shareable
from memover.codec.compression import compress
from memover.codec.envelope import KIND_KEY_VALUE, NO_FINGERPRINT, Header, payload_of, read_header, seal
from memover.codec.pickle import PickleCodec
from memover.drivers.plan import Plan
from memover.engine.judge import FRESH, judge
from memover.engine.ops import Outcome, Sealed
from memover.errors import DamagedEntry, UnencodableValue
from memover.keys.binding import Binding
from memover.keys.keyvalue import NAMESPACE, Name
from memover.model import MISSING
from memover.policy import Policy
from memover.stores.keyvalue import INTEGER, INTEGER_LIMIT, Parcel, Stamp
from memover.keys.tags import Tags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.drivers.shared import Shared
    from memover.engine.ops import Marks
    from memover.model import Key

__all__ = ["KeyValuePlan", "limit_ms"]

_DIGITS = re.compile(rb"-?[0-9]{1,16}\Z")
_LIMIT_MS = 1 << 52


class KeyValuePlan(Plan):
    """The codec, the names and the clock of the key-value entries of one cache.

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
        self.fingerprint = NO_FINGERPRINT  # entries of any shape
        # A codec of the user's may hide or sign what it stores, so it gets to see integers as well.
        self.plain_integers = isinstance(resolved, (ValueCodec, PickleCodec))
        self.forget_failed_sets = forget_failed_sets

    def named(self, text: str) -> Name:
        """The names of an entry in the store."""
        return Name(text, self.names, spread=self.shared.store.spread)

    # -- values to bytes and back -----------------------------------------------------------------------------------------

    def pack(
        self, key: Key, value: Any, fresh_for: float, generation: bytes, load_time: float = 0.0
    ) -> tuple[bytes, int]:
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
            payload = self.encode(value)
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


def limit_ms(fresh_for: float) -> int:
    """The hard limit in the store for a time to live in seconds; 0 for none."""
    return 0 if fresh_for == math.inf else max(1, min(math.ceil(fresh_for * 1000), _LIMIT_MS))
