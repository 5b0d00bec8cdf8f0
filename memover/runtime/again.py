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
from memover.engine.store import Again
from memover.errors import DamagedEntry
from memover.model import MISSING
from memover.runtime.footprint import memory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Kept
    from memover.runtime.function import Function

__all__ = ["again", "decoded", "made"]

_LARGE_BYTES = 1 << 20

_ONCE = Again(None, b"", 0.0, None, ())
_NEVER = Again(None, b"", 0.0, None, ())


def again(seen: Kept, form: tuple[bytes, bytes], generation: bytes) -> Any:
    """What one more caller gets of an entry under a trusted generation; MISSING where it is to be decoded, or not fresh."""
    item = seen.decoded
    if item is None or item.form is not form or not is_fresh(generation, item.fresh_until, generation, wall()):
        return MISSING
    return made(item)


def made(item: Again) -> Any:
    """What one more caller gets; MISSING where the entry is to be decoded."""
    make, places = item.make, item.places
    return MISSING if make is None or (places and moved(places)) else make()


def decoded(
    function: Function,
    seen: Kept,
    generation: bytes,
    fresh_until: float,
    payload: bytes | memoryview,
    value: Any,
) -> None:
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
            seen.decoded = Again(function.form, generation, fresh_until, make, places)
