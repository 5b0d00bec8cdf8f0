"""An entry as the memory store keeps it: with its bytes, or without them where they can be made again.

An item is immutable but for what counts its uses; a changed entry is a new item. One that has left the store is dead
(`Slim.end`): whoever still refers to it, as the calls that `runtime.hot` makes do, serves it no more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from memover.codec.copier import Same, moved
from memover.codec.envelope import Header, seal
from memover.model import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cohort", "Item", "Slim", "spared"]


class Cohort:
    """What entries have in common that one function stored about the same time, so that each need not have it.

    `generation` and `fingerprint` are those of their headers. Entries that are kept without their bytes have the rest too:
    `codec` and `codec_name`, their `lifetime` (seconds from creation to `fresh_until`), their hard limit `ends` in monotonic
    seconds, and the load time of the first of them, which nobody asks for: functions that refresh early keep the bytes."""

    __slots__ = (
        "codec", "codec_name", "created_at", "ends", "fingerprint", "generation", "lifetime", "load_time",
        "__weakref__",
    )  # fmt: skip

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
        """Whether an entry can be of this cohort."""
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
        """When an entry of this cohort was made."""
        return self.created_at if self.lifetime == math.inf else fresh_until - self.lifetime


class Slim(float):
    """A stored entry without its bytes: an immutable value from which they are made again when somebody asks.

    It is a float, its `fresh_until`: an object for that would take a seventh of all that an entry of an int takes. `value`
    is the object itself where any caller may have it at any time, else MISSING. `visited` is the flag of `sieve`."""

    __slots__ = ("cohort", "value", "visited")

    cohort: Cohort
    value: Any
    visited: bool

    # What `Item` has of its own.
    copy: Callable[[], Any] | None = None
    decoded = 2
    marked: tuple[bytes, ...] = ()
    places: tuple[Any, ...] = ()

    @classmethod
    def of(cls, cohort: Cohort, header: Header, value: Any) -> Slim:
        item = cls(header.fresh_until)
        item.cohort = cohort
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
        return self.cohort.ends

    @property
    def shared(self) -> Any:
        """The object that every caller gets, MISSING where there is none."""
        return self.value

    def raw(self, entry: bytes) -> bytes | None:
        """The entry's bytes under its key; None when it has left the store in the meantime."""
        value, cohort = self.value, self.cohort
        if value is MISSING or cohort.codec is None:
            return None
        fresh_until = float(self)
        return seal(
            cohort.codec.encode(value),
            key=entry,
            generation=cohort.generation,
            codec=cohort.codec_name,
            created_at=cohort.created(fresh_until),
            load_time=cohort.load_time,
            fresh_until=fresh_until,
            usable_until=fresh_until,
            fingerprint=cohort.fingerprint,
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
        self.cohort = _ENDED
        self.value = MISSING


class Item(Slim):
    """A stored entry with its bytes.

    Where `value` is MISSING, `copy` makes what a caller gets, while `moved(places)` is False, or is None where the bytes are to be
    decoded. An entry that carries tokens beside its generation (`marked`, their names) has neither, because `standing` looks at its
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
        cohort: Cohort | None = None,
    ) -> None:
        self.cohort = Cohort(header) if cohort is None else cohort
        self.visited = False
        self.decoded = 0
        self.marked = tuple([name for name, _ in header.marks]) if header.marks else ()
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


_ENDED = Cohort(Header(0, "", 0, b"", b"", (), 0.0, 0.0, 0.0, 0.0, b"", 0, 0, 0))
"""That of no entry: no token is empty."""


def spared(item: Slim) -> bool:
    """Whether it was asked for since the hand of `sieve` was here; clears the flag."""
    visited, item.visited = item.visited, False
    return visited
