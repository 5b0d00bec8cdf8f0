"""What is seen from outside: the counters of a function, the observers of a cache.

A call that nobody observes builds no event: the hit tests `Observers.busy`, one attribute, and nothing else. An
observer that raises is reported once in the log and otherwise ignored: it can slow a call, never break it.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from memover.codec.faults import from_outside
from memover.model import Event, Source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COUNTERS", "Counters", "Observers"]

logger = logging.getLogger("memover")


COUNTERS: dict[str, str] = {
    "hits": "lookups answered without a load, stale answers included",
    "misses": "lookups that loaded, or waited for another's load",
    "loads": "runs of the function for the cache",
    "waits": "misses answered by another's load",
    "stale": "hits answered with a stale entry",
    "bypasses": "calls that ran the function uncached: disabled, or inside their own load",
    "load_errors": "loads that raised",
    "stores": "entries stored",
    "refused_stores": "results that were not stored: the lease was lost, or the function or its policy declined",
    "store_errors": "errors of the store",
    "damaged": "entries that could not be read",
    "unencodable": "results that could not be encoded",
    "invalidations": "invalidations that the store acknowledged",
    "coarse": "stored entries that depend on too many tokens to list",
    "other_shape": "entries of another shape under the same version",
    "upgrades": "entries made from an older version's",
    "upgrade_errors": "upgrades that raised",
    "too_large": "results longer than max_entry_bytes",
    "near_hits": "hits answered by the near cache, which `hits` includes",
    "audits": "hits that were compared with the source",
    "disagreements": "audited hits that differed from the source",
}
"""Every counter with what it counts: `CacheInfo`, the documentation and metrics are made from this table."""


class Counters:
    """What one function did in this process. Plain additions: exact with the GIL, close without it."""

    __slots__ = tuple(COUNTERS)

    if TYPE_CHECKING:
        hits: int
        misses: int
        loads: int
        waits: int
        stale: int
        bypasses: int
        load_errors: int
        stores: int
        refused_stores: int
        store_errors: int
        damaged: int
        unencodable: int
        invalidations: int
        coarse: int
        other_shape: int
        upgrades: int
        upgrade_errors: int
        too_large: int
        near_hits: int
        audits: int
        disagreements: int

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {name: getattr(self, name) for name in COUNTERS}

    def looked_up(self, source: Source) -> None:
        if source is Source.FRESH:
            self.hits += 1
        elif source is Source.NEAR:
            self.hits += 1
            self.near_hits += 1
        elif source is Source.BYPASSED:
            self.bypasses += 1
        elif source is Source.STALE or source is Source.STALE_IF_ERROR:
            self.hits += 1
            self.stale += 1
        else:
            self.misses += 1
            if source is Source.WAITED:
                self.waits += 1


class Observers:
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
        """Hand the event to every observer; what an observer raises is logged once and goes no further."""
        if event.name == "lookup":
            for recorder in self._recorders.get():
                recorder.append(event)
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:
                if from_outside(error):
                    raise
                if id(observer) not in self._complained:
                    self._complained.add(id(observer))
                    logger.exception(
                        "the observer %r raised on %r; further errors of it are not logged", observer, event.name
                    )
