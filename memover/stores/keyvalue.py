"""What a store does for the key-value API: bytes in, bytes out, each method one atomic step.

Every write names the generation it is made under in a `Stamp` and answers the generation that is current, so that
nothing is stored under one that a `clear()` has ended: an entry that carries another generation than the current one is
stamped anew by the store. Where keys share a server a write is one command; in Cluster it is sent together with a
question for the generation, and sent again when that had moved.

Whether a stored entry is alive (its own key, kind, checks and generation, and `now` before `fresh_until`) is decided as
`engine.judge` does it. Methods raise `StoreUnavailable` or `StoreTimeout`. Those marked "once" are never sent again on a
connection that was lost meanwhile, since applying them twice would be wrong: they may have been applied all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from memover.model import Key

__all__ = ["INTEGER", "INTEGER_LIMIT", "AsyncKeyValueStore", "Change", "KeyValueStore", "Parcel", "Stamp"]

INTEGER = "mv-int"
"""The codec of plain integers: decimal digits with an optional minus, which a script can count up."""
INTEGER_LIMIT = 1 << 53
"""Plain integers are smaller than this in magnitude: what a double, Lua's only number, counts exactly."""


class Stamp(NamedTuple):
    """The generation a write is made under: its key, as last seen (b"" if never), the least number it may have, and
    the nonce of a new one should it be missing."""

    name: bytes
    known: bytes
    floor: int
    nonce: str


class Parcel(NamedTuple):
    """An entry on its way: `expire_ms` is the hard limit in milliseconds (0 none, -1: remove what is there instead).

    `value` is the object itself where a memory store may hand it out, else MISSING."""

    key: Key
    raw: bytes
    expire_ms: int
    value: Any


class Change(NamedTuple):
    """What came of a write: whether it was done, the current generation, and what there is to say besides."""

    done: bool
    generation: bytes
    detail: Any = None


class KeyValueStore(Protocol):
    """The key-value side of a store for synchronous callers, which has `Store`'s methods besides."""

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> bytes:
        """Store all and end the leases on them; answers the generation they now carry."""
        ...

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Change:
        """Store unless a live entry is there. Once."""
        ...

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Change:
        """Add to a live plain integer, keeping its instants and limit; the detail is the new value.

        Not done: no live entry (detail None), or one that is no plain integer or would not stay one (False). Once."""
        ...

    def swap(self, key: Key, old: bytes, new: bytes) -> bool:
        """Replace the entry, if it still is `old`, keeping its limit. Once."""
        ...

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Change:
        """Give a live entry a new end; of the parcel, key and `expire_ms` count."""
        ...

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Change:
        """Give a live entry another key, with its instants and its remaining limit, and end the leases on both. Once."""
        ...

    def remove(self, key: Key) -> tuple[bytes | None, bytes | None]:
        """Remove entry and lease; the generation and at least the header of what was removed."""
        ...

    def remove_many(self, keys: Sequence[Key]) -> None:
        """Remove entries and leases."""
        ...


class AsyncKeyValueStore(Protocol):
    """The same for coroutines; see `KeyValueStore`."""

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> Awaitable[bytes]: ...
    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Awaitable[Change]: ...
    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Awaitable[Change]: ...
    def swap(self, key: Key, old: bytes, new: bytes) -> Awaitable[bool]: ...
    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Awaitable[Change]: ...
    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Awaitable[Change]: ...
    def remove(self, key: Key) -> Awaitable[tuple[bytes | None, bytes | None]]: ...
    def remove_many(self, keys: Sequence[Key]) -> Awaitable[None]: ...
