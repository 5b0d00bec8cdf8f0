"""What the steps of a call come to: readings, grants, outcomes, and results sealed for the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.codec.envelope import read_header
from memover.model import MISSING, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.codec.envelope import Header

__all__ = ["Grant", "Marks", "Outcome", "Reading", "Sealed"]

Marks = tuple[tuple[bytes, bytes], ...]
"""Names with the tokens they had when something was read or loaded."""


class Reading:
    """One look at the store: names and their tokens, the entry, and the lease where asked for.

    `header` is None when there is no entry or it is damaged; `lease` is None or the bytes in the lease's slot.
    """

    __slots__ = ("header", "lease", "names", "raw", "tokens")

    def __init__(
        self,
        names: Sequence[bytes],
        tokens: Sequence[bytes | None],
        raw: bytes | None,
        header: Header | None,
        lease: bytes | None = None,
    ) -> None:
        self.names = names
        self.tokens = tokens
        self.raw = raw
        self.header = header
        self.lease = lease

    def token(self, name: bytes) -> bytes | None:
        """The token read under a name, None when there was none or it was not asked for."""
        for each, token in zip(self.names, self.tokens):
            if each == name:
                return token
        return None


class Grant(NamedTuple):
    """The answer to a request for the lease, with what was seen under it.

    `holder` is the token of the load that has the lease ("" when it is ours). The required tokens are all
    present: what was missing or behind has been put back first.
    """

    ours: bool
    holder: str
    reading: Reading


class Outcome:
    """What a call comes to: a value or an error, never both, and where it came from.

    `load_time` is the function's own seconds. `sealed` is the stored form, from which a caller that shares
    this outcome takes a copy of its own. `marks` are the tokens it stands under, those of everything its load used
    included; None when they are not known, so that a result made of it must not be stored. `keep` is False when
    the function asked not to be cached this once; `declared` are the tags its load named by hand. `traceback` is that of the
    error when the load ended, before it has passed through any caller. `outside` says that the error was raised from outside
    (a signal handler, cancellation), so that it concerns this caller alone.
    """

    __slots__ = ("declared", "error", "keep", "load_time", "marks", "outside", "sealed", "source", "traceback", "value")

    def __init__(
        self,
        value: Any = None,
        error: BaseException | None = None,
        source: Source = Source.LOADED,
        load_time: float = 0.0,
        sealed: Sealed | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.value = value
        self.error = error
        self.marks = marks
        self.keep = True
        self.outside = error is not None and not isinstance(error, Exception)
        self.declared: tuple[str, ...] = ()
        self.source = source
        self.load_time = load_time
        self.sealed = sealed
        self.traceback = None if error is None else error.__traceback__


class Sealed:
    """A result ready to be stored: the entry's bytes, the hard limit in milliseconds (0: none), its marks but for the generation,
    and its header, which is read from the bytes when it is first asked for where `key` says whose they are.

    `value` is the object itself where a memory store may hand it out while `moved(places)` is False, else MISSING. `codec` has
    made the payload, where a memory store may leave the bytes to be made of the value again. `error` says why the result
    cannot be stored, where the caller is to be told."""

    __slots__ = ("_header", "_key", "codec", "error", "expire_ms", "marks", "places", "raw", "value")

    def __init__(
        self,
        raw: bytes = b"",
        expire_ms: int = 0,
        header: Header | None = None,
        value: Any = MISSING,
        error: BaseException | None = None,
        places: tuple[Any, ...] = (),
        codec: Any = None,
        marks: Marks = (),
        key: bytes | None = None,
    ) -> None:
        self._header = header
        self._key = key
        self.marks = marks if header is None else header.marks
        self.codec = codec
        self.places = places
        self.raw = raw
        self.expire_ms = expire_ms
        self.value = value
        self.error = error

    @property
    def header(self) -> Header | None:
        if self._header is None and self._key is not None:
            self._header = read_header(self.raw, self._key)
        return self._header
