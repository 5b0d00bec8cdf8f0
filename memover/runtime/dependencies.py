"""What a load uses: the tokens of every cached result that is asked for while it runs.

A context variable holds the collector of the load under way, so what runs in tasks, in `asyncio.to_thread` or under
`copy_context` begun by the load is seen too; a bare `threading.Thread` starts with an empty context and is not.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING
from weakref import ReferenceType

from memover.errors import ConfigurationError, raised_beneath

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    `spoiled` is True once something was used that cannot be tracked: the result is then returned and not stored."""

    __slots__ = ("home", "marks", "spoiled", "tags", "tracks")

    def __init__(self, home: object, tracks: bool = True) -> None:
        self.home = home
        self.tracks = tracks
        self.marks: dict[bytes, bytes] = {}
        self.tags: dict[str, None] = {}
        self.spoiled = False

    def use(self, marks: Marks | None) -> None:
        """Something that stands under these marks was used; None when that is not known.

        Two tokens under one name are of different times: an entry made of both would be born invalid."""
        if marks is None:
            self.spoiled = True
            return
        for name, token in marks:
            if self.marks.setdefault(name, token) != token:
                self.spoiled = True

    def result(self) -> Marks | None:
        return None if self.spoiled else tuple(self.marks.items())


class Inside:
    """A load under way, as the contexts it runs in know it: its calls, what it collects, and the load it is part of.

    A task that a load began may outlive it, with the load still in its context: `over` says that it means nothing any
    more. So does `presence`, where the load was interrupted before it could say so."""

    __slots__ = ("__weakref__", "calls", "collector", "flights", "outer", "over", "presence")

    def __init__(
        self,
        calls: tuple[tuple[object, bytes], ...],
        flights: tuple[Flight, ...],
        collector: TokenCollector | None,
        outer: Inside | None,
        presence: Present | None,
    ) -> None:
        self.calls = calls
        self.flights = flights
        self.collector = collector
        self.outer = outer
        self.over = False
        self.presence = presence

    def ended(self) -> bool:
        """Whether the load is over."""
        if not self.over and self.presence is not None and not self.presence.present():
            self.over = True
        return self.over

    def loads(self, function: object, entry: bytes) -> bool:
        """Whether this very call is being loaded in this context."""
        inside: Inside | None = self
        while inside is not None:
            if not inside.over and any(whose is function and what == entry for whose, what in inside.calls):
                return True
            inside = inside.outer
        return False


INSIDE: ContextVar[Inside | None] = ContextVar("memover-inside", default=None)

UNDER_WAY: dict[int, ReferenceType[Inside]] = {}
"""The loads of this process that are not over, by id. While it is empty no context is inside one, which a hit sees quicker so.
Weakly: a load that was left before it could say that it is over goes with the contexts that know it."""


def enter(calls: Sequence[CachedCall], home: object, tracks: bool) -> tuple[Inside, Token[Inside | None]]:
    """Marks this context as inside one load of these calls; `leave` takes it back."""
    pairs, flights = [], []
    for call in calls:
        pairs.append((call.function, call.key.entry))
        flights.append(call.flight)
    outer = None if INSIDE.get() is None else current()
    inside = Inside(tuple(pairs), tuple(flights), TokenCollector(home, tracks), outer, calls[0].presence)
    number = id(inside)
    # No code of Python at its end: what a signal handler raises in there reaches nobody.
    UNDER_WAY[number] = ReferenceType(inside, partial(UNDER_WAY.pop, number))
    return inside, INSIDE.set(inside)


def leave(entered: tuple[Inside, Token[Inside | None]]) -> None:
    """The load is over, in this context and in those it began."""
    entered[0].over = True
    UNDER_WAY.pop(id(entered[0]), None)
    try:
        INSIDE.reset(entered[1])
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
            found.extend(inside.flights)
        inside = inside.outer
    return found


def collecting() -> TokenCollector | None:
    """The collector of the load that this context is in, None when there is none."""
    inside = current()
    return None if inside is None else inside.collector


def depends_on(*tags: str) -> None:
    """Declares, inside a cached function, that its result depends on these tags: when one is invalidated, so is it.

    No round trip. Outside a load that is being cached it does nothing. Raises `ConfigurationError` for a tag that
    is no text."""
    collector = collecting()
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise ConfigurationError(f"depends_on() takes tags, which are text such as 'user:7', not {tag!r}.")
        if collector is not None:
            collector.tags[tag] = None
