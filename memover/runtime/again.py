"""The value of an entry that a store answers again and again with the same object (`engine.store.Kept`): copied, not decoded.

Nothing is decided here. The entry is the one that was decoded, byte for byte, so it is of the same generation and form;
whether that generation is trusted and how long the entry is fresh is asked by the call, as of any other entry. From the second
time on that it is decoded, what a caller gets is copied, where `copier_of` knows how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.codec.copier import Same, copier_of
from memover.codec.sharing import moved, places_of
from memover.errors import DamagedEntry
from memover.model import MISSING
from memover.runtime.footprint import memory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Kept
    from memover.runtime.function import Function

__all__ = ["again", "decoded"]

_LARGE_BYTES = 1 << 20


class Again(NamedTuple):
    """The form that an entry was decoded in, until when it is fresh, and what makes the value of one more caller while
    `moved(places)` is False."""

    form: tuple[bytes, bytes] | None
    fresh_until: float
    make: Callable[[], Any]
    places: tuple[Any, ...]


_ONCE = Again(None, 0.0, lambda: MISSING, ())
_NEVER = Again(None, 0.0, lambda: MISSING, ())


def again(made: Again) -> Any:
    """What one more caller gets; MISSING where the entry is to be decoded."""
    places = made.places
    return MISSING if places and moved(places) else made.make()


def decoded(function: Function, seen: Kept, fresh_until: float, payload: bytes | memoryview, value: Any) -> None:
    """To be called with each decoding of an entry, with what came of it."""
    before = seen.decoded
    if before is None:
        seen.decoded = _ONCE
    elif before is _ONCE:
        seen.decoded = _NEVER
        original, places = value, places_of(value)
        make: Callable[[], Any] = Same(value)
        if places is None:
            try:
                original = function.decode_payload(payload)
            except DamagedEntry:
                return
            copier = copier_of(original)
            if copier is None:
                return
            make, places = copier.copy, copier.places
        size = memory_of(original)
        if size <= _LARGE_BYTES:
            seen.grew(size)
            seen.decoded = Again(function.form, fresh_until, make, places)
