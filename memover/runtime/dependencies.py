"""What a load uses: the tokens of every cached result that is asked for while it runs.

A context variable holds the collector of the load under way, so what runs in tasks, in `asyncio.to_thread` or under
`copy_context` begun by the load is seen too; a bare `threading.Thread` starts with an empty context and is not.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING
from weakref import ReferenceType

from memover.errors import ConfigurationError, raised_beneath

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.engine.answers import Marks
    from memover.engine.call import CachedCall
    from memover.latch import Present
    from memover.runtime.flights import Flight

__all__ = [
    "INSIDE",
    "UNDER_WAY",
    "TokenCollector",
    "Inside",
    "collecting",
    "current",
    "depends_on",
    "enclosing_flights",
    "enter",
    "is_loading",
    "leave",
]


class TokenCollector:
    """The marks of one load. `home` is the state of the cache whose store and prefix they must be of: others cannot be read in the same step.
    `tracks` is False where only what is declared by hand counts.

    `spoiled` is True once something was used that cannot be tracked: the result is then returned and not stored. `marks` and
    `tags` are dictionaries of its own from the first use on, made by one operation: what a load began in other threads may
    use something, too."""

    marks: Mapping[bytes, bytes] = {}
    tags: Mapping[str, None] = {}
    spoiled = False

    def __init__(self, home: object, tracks: bool = True) -> None:
        self.home = home
        self.tracks = tracks

    def use(self, marks: Marks | None) -> None:
        """Something that stands under these marks was used; None when that is not known.

        Two tokens under one name are of different times: an entry made of both would be born invalid."""
        if marks is None:
            self.spoiled = True
            return
        own: dict[bytes, bytes] = vars(self).setdefault("marks", {})
        for name, token in marks:
            if own.setdefault(name, token) != token:
                self.spoiled = True

    def declare(self, tag: str) -> None:
        """The load depends on this tag."""
        vars(self).setdefault("tags", {})[tag] = None

    def result(self) -> Marks | None:
        """All that was used with the tokens it stood under; None where that cannot be said."""
        return None if self.spoiled else tuple(dict(self.marks).items()) if self.marks else ()


class Inside(TokenCollector):
    """A load under way, as the contexts it runs in know it: its calls, what it collects, and the load it is part of.

    A task that a load began may outlive it, with the load still in its context: `over` says that it means nothing any
    more. So does the presence of its calls, where the load was interrupted before it could say so."""

    over = False

    def __init__(self, calls: Sequence[CachedCall], home: object, tracks: bool, outer: Inside | None) -> None:
        self.home = home
        self.tracks = tracks
        self.calls = calls
        self.outer = outer
        self.presence: Present | None = calls[0].presence

    def ended(self) -> bool:
        """Whether the load is over.

        One that its caller has left may still run: that of a batch in a thread, when the batch was interrupted. What it uses from
        then on would not be in its entry's marks, so nothing of it is stored."""
        if not self.over and self.presence is not None and not self.presence.present():
            self.spoiled = True
            self.over = True
        return self.over

    def is_of(self, function: object, entry: bytes) -> bool:
        """Whether this very call is one of its own."""
        return any(call.function is function and call.key.entry == entry for call in self.calls)

    def loads(self, function: object, entry: bytes) -> bool:
        """Whether this very call is being loaded in this context."""
        inside: Inside | None = self
        while inside is not None:
            if not inside.over and inside.is_of(function, entry):
                return True
            inside = inside.outer
        return False


INSIDE: ContextVar[Inside | None] = ContextVar("memover-inside", default=None)

UNDER_WAY: set[ReferenceType[Inside]] = set()
"""The loads of this process that are not over. While it is empty no context is inside one, which a hit sees quicker so.
Weakly: a load that was left before it could say that it is over goes with the contexts that know it."""


Entered = tuple[Inside, ReferenceType[Inside], Token["Inside | None"]]
"""A load with what marks it in `UNDER_WAY` and in its context."""


def enter(calls: Sequence[CachedCall], home: object, tracks: bool) -> Entered:
    """Marks this context as inside one load of these calls; `leave` takes it back."""
    inside = Inside(calls, home, tracks, None if INSIDE.get() is None else current())
    # No code of Python at its end: what a signal handler raises in there reaches nobody.
    mark = ReferenceType(inside, UNDER_WAY.discard)
    UNDER_WAY.add(mark)
    return inside, mark, INSIDE.set(inside)


def leave(entered: Entered) -> None:
    """The load is over, in this context and in those it began, which keep nothing of its calls."""
    inside, mark, token = entered
    inside.over, inside.calls = True, ()
    UNDER_WAY.discard(mark)
    try:
        INSIDE.reset(token)
    except ValueError as error:  # a load whose event loop was closed is ended by the collector, in another context
        if raised_beneath(error):
            raise


def current() -> Inside | None:
    """The load that this context is inside; loads that are over are taken out of the context."""
    first = inside = INSIDE.get()
    while inside is not None and inside.ended():
        inside = inside.outer  # what outlives its load may still be at work for the one around it
    if inside is not first:
        INSIDE.set(inside)
    return inside


def is_loading(function: object, entry: bytes) -> bool:
    """Whether this context is inside a load of the very same call: waiting for it would be waiting for oneself."""
    inside = current()
    return inside is not None and inside.loads(function, entry)


def enclosing_flights() -> list[Flight]:
    """The flights of the loads that this context is inside, the innermost first."""
    found: list[Flight] = []
    inside = INSIDE.get()
    while inside is not None:
        if not inside.over:
            found.extend(call.flight for call in inside.calls)
        inside = inside.outer
    return found


def collecting() -> TokenCollector | None:
    """The load that this context is in, as what collects what it uses; None when there is none."""
    return current()


def depends_on(*tags: str) -> None:
    """Declares, inside a cached function, that its result depends on these tags: when one is invalidated, so is it.

    No round trip. Outside a load that is being cached it does nothing. Raises `ConfigurationError` for a tag that
    is no text."""
    collector = collecting()
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise ConfigurationError(f"depends_on() takes tags, which are text such as 'user:7', not {tag!r}.")
        if collector is not None:
            collector.declare(tag)
