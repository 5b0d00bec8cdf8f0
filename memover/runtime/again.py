"""The value of an entry that a store answers again and again with the same object (`engine.store.Kept`): copied, not decoded.

The entry is the one that was decoded, byte for byte, so it is of the same generation; whether that is trusted is asked by the
call, as of any other entry. From the second time on that it is decoded, what a caller gets is copied, where `copier_of` knows
how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.copier import Same, copier_of
from memover.codec.sharing import moved, places_of
from memover.engine.judge import is_fresh
from memover.errors import DamagedEntry
from memover.model import MISSING
from memover.runtime.footprint import memory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Kept
    from memover.runtime.function import Function

__all__ = ["again", "decoded"]

_LARGE_BYTES = 1 << 20


Again = tuple["tuple[bytes, bytes] | None", float, "Callable[[], Any]", "tuple[Any, ...]"]
"""The form that an entry was decoded in, until when it is fresh, and what makes the value of one more caller while
`moved(places)` is False, then these places."""

_ONCE: Again = (None, 0.0, lambda: MISSING, ())
_NEVER: Again = (None, 0.0, lambda: MISSING, ())


def again(seen: Kept, form: tuple[bytes, bytes], generation: bytes) -> Any:
    """What one more caller gets of an entry under a trusted generation; MISSING where it is to be decoded, or not fresh."""
    made: Again | None = seen.decoded
    if made is None:
        return MISSING
    decoded_in, fresh_until, make, places = made
    if (
        decoded_in is not form
        or not is_fresh(generation, fresh_until, generation, wall())
        or (places and moved(places))
    ):
        return MISSING
    return make()


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
            seen.decoded = (function.form, fresh_until, make, places)
