"""What is seen from outside: the observers of a cache. (The counters of a function are in `counters`, the events in `events`.)

A call that nobody observes builds no event: the hit tests `Observers.busy`, one attribute, and nothing else. An
observer that raises is reported once in the log and otherwise ignored: it can slow a call, never break it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from memover.later import later

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from memover.codec import faults
    from memover.model import Event
else:
    faults = later(__name__, "memover.codec.faults")

__all__ = ["Observers"]

logger = logging.getLogger("memover")

T = TypeVar("T")


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
        self.spanning: tuple[Any, ...] = tuple(observer for observer in observers if hasattr(observer, "begin"))
        """The observers that want to know when something begins, too."""

    @contextmanager
    def span(self, name: str, namespace: str, key: str, address: str) -> Generator[None, None, None]:
        """Around what ends with an event of that name, in the context that runs it: see `OpenTelemetryObserver.begin`."""
        ends = []
        for observer in self.spanning:
            try:
                ends.append((observer, observer.begin(name, namespace, key, address)))
            except Exception as error:
                self._failed(observer, name, error)
        try:
            yield
        finally:
            # The event has ended it already, unless it was cut short.
            for observer, end in reversed(ends):
                try:
                    end(None)
                except Exception as error:
                    self._failed(observer, name, error)

    def disabled(self) -> bool:
        """Whether calls in this context run their function and touch nothing."""
        return not self._enabled or self._disabled.get()

    def disabling(self) -> AbstractContextManager[None]:
        """Inside, caching is off in this context."""
        return self._setting(self._disabled, True)

    def recording(self, into: list[Event]) -> AbstractContextManager[None]:
        """Inside, the lookups of this context are appended to a list."""
        return self._setting(self._recorders, (*self._recorders.get(), into))

    @contextmanager
    def _setting(self, variable: ContextVar[T], value: T) -> Generator[None, None, None]:
        token = variable.set(value)
        self._enter(1)
        try:
            yield
        finally:
            try:
                variable.reset(token)
            finally:
                self._enter(-1)  # also where it ends in another context, which cannot reset it

    def _enter(self, step: int) -> None:
        self._contexts += step
        self.busy = bool(self._observers) or not self._enabled or self._contexts > 0

    def emit(self, event: Event) -> None:
        """Hands the event to every observer; what an observer raises is logged once and goes no further."""
        if event.name == "lookup":
            for recorder in self._recorders.get():
                recorder.append(event)
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:
                self._failed(observer, event.name, error)

    def _failed(self, observer: object, name: str, error: Exception) -> None:
        if faults.from_outside(error):
            raise error
        if id(observer) not in self._complained:
            self._complained.add(id(observer))
            logger.error(
                "the observer %r raised on %r; further errors of it are not logged", observer, name, exc_info=error
            )
