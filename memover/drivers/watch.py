"""What is looked at from outside: counters of a function, observers of a cache.

A call that nobody observes builds no event: the shells test `Watch.busy`, one attribute, and nothing else. An
observer that raises is reported once in the log and otherwise ignored: it can slow a call, never break it.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from memover.model import Event, Source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Counters", "Watch"]

logger = logging.getLogger("memover")


class Counters:
    """What one function did in this process. Plain additions: exact with the GIL, close without it."""

    __slots__ = (
        "bypasses",
        "coarse",
        "damaged",
        "hits",
        "invalidations",
        "load_errors",
        "loads",
        "misses",
        "other_shape",
        "refused_stores",
        "stale",
        "store_errors",
        "stores",
        "unencodable",
        "upgrade_errors",
        "upgrades",
        "waits",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    bypasses: int
    coarse: int
    damaged: int
    hits: int
    invalidations: int
    load_errors: int
    loads: int
    misses: int
    other_shape: int
    refused_stores: int
    stale: int
    store_errors: int
    stores: int
    unencodable: int
    upgrade_errors: int
    upgrades: int
    waits: int

    def looked_up(self, source: Source) -> None:
        if source is Source.FRESH:
            self.hits += 1
        elif source is Source.BYPASSED:
            self.bypasses += 1
        elif source is Source.STALE or source is Source.STALE_IF_ERROR:
            self.hits += 1
            self.stale += 1
        else:
            self.misses += 1
            if source is Source.WAITED:
                self.waits += 1


class Watch:
    """The observers of one cache, those of the current context included."""

    def __init__(self, observers: tuple[Callable[[Event], object], ...], *, enabled: bool = True) -> None:
        self._observers = observers
        self._complained: set[int] = set()
        self._enabled = enabled
        self._contexts = 0
        self._recorders: ContextVar[tuple[list[Event], ...]] = ContextVar("memover-detect", default=())
        self._disabled: ContextVar[bool] = ContextVar("memover-disabled", default=False)
        self.busy = bool(observers) or not enabled

    def disabled(self) -> bool:
        """Whether calls in this context run their function and touch nothing."""
        return not self._enabled or self._disabled.get()

    def disable(self) -> Callable[[], None]:
        """Turn caching off in this context; the answer turns it on again."""
        token = self._disabled.set(True)
        self._enter(1)

        def undo() -> None:
            self._disabled.reset(token)
            self._enter(-1)

        return undo

    def record(self, into: list[Event]) -> Callable[[], None]:
        """Append the lookups of this context to a list; the answer ends it."""
        token = self._recorders.set((*self._recorders.get(), into))
        self._enter(1)

        def undo() -> None:
            self._recorders.reset(token)
            self._enter(-1)

        return undo

    def _enter(self, step: int) -> None:
        self._contexts += step
        self.busy = bool(self._observers) or not self._enabled or self._contexts > 0

    def emit(self, event: Event) -> None:
        """Tell whoever observes; never raises."""
        if event.name == "lookup":
            for recorder in self._recorders.get():
                recorder.append(event)
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                if id(observer) not in self._complained:
                    self._complained.add(id(observer))
                    logger.exception(
                        "the observer %r raised on %r; further errors of it are not logged", observer, event.name
                    )
