"""Loads: the user's function is run, what it uses is gathered, and what it came to is looked at."""

from __future__ import annotations

import inspect
import logging
from time import perf_counter
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from memover.codec.faults import from_outside
from memover.engine.answers import Outcome
from memover.engine.steps import Invoke, itself
from memover.errors import UnencodableValue
from memover.keys.tags import TooManyTags
from memover.model import NotCached, Source
from memover.runtime.dependencies import enter, leave
from memover.runtime.entries import Entries
from memover.runtime.results import evaluating, is_lazy

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.keys.tags import Tags
    from memover.runtime.dependencies import TokenCollector
    from memover.runtime.observers import Observers

__all__ = ["Loading"]

logger = logging.getLogger("memover")


class Loading(Entries):
    """Runs one function on one cache. `late` says whether tags may be known only from the result."""

    function: Callable[..., Any]
    observers: Observers
    tags: Tags
    late: bool
    is_async = False
    """Whether it is an `async def` function; `definition` says so."""

    def span(self, name: str, key: str) -> AbstractContextManager[None]:
        """Around what ends with an event of that name, for observers that make spans."""
        return self.observers.span(name, self.policy.namespace, key, self.state.store.address)

    def load(self, call: CachedCall) -> Flow[Outcome]:
        """Runs the function and gathers what it uses. What it raises is in the outcome."""
        return self._spanned(call) if self.observers.spanning else self._load(call)

    def _spanned(self, call: CachedCall) -> Flow[Outcome]:
        with self.span("load", call.key.text):
            return (yield from self._load(call))

    def _load(self, call: CachedCall) -> Flow[Outcome]:
        value, error = None, None
        entered = enter((call,), self.state, self.policy.track_dependencies)
        began = perf_counter()
        try:
            value = yield from Invoke(self.function, call.args, call.kwargs)
            if is_lazy(value):
                value = yield from evaluating(value, awaited=self.is_async)
        except BaseException as raised:
            error = itself(raised)
        finally:
            seconds = perf_counter() - began
            leave(entered)
        return self.loaded(call, value, error, seconds, entered[0])

    def loaded(
        self, call: CachedCall, value: Any, error: BaseException | None, seconds: float, used: TokenCollector
    ) -> Outcome:
        """The outcome of a load that took `seconds`, and of what it used."""
        keep = True
        if isinstance(value, NotCached):  # type: ignore[arg-type]  # to checkers it is a function
            value, keep = value.value, False
        call.load_time, call.ran = seconds, True
        if error is None and isinstance(value, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            error = refused(self.name, value)
        self.counters.loaded(seconds, error is not None)
        if self.observers.busy:
            self.emit("load", call.key, error=error, load_time=seconds)
        outcome = Outcome(None if error is not None else value, error, Source.LOADED, seconds, None, used.result())
        if error is not None:
            outcome.outside = from_outside(error)
        if used.tags:
            outcome.declared = tuple(used.tags)
        outcome.keep = keep
        return outcome

    def late_names(self, call: CachedCall, outcome: Outcome) -> list[bytes] | None:
        """The names of the tags that were not known before the load; None when the result is not to be stored for them.

        What a `tags=` callable raises becomes the outcome's error."""
        prefix, names = self.state.prefix, list[bytes]()
        try:
            if outcome.declared:
                self.late = True
                names.extend(self.tags.names(prefix, outcome.declared))
            if self.tags.late and outcome.error is None:
                described = self.described(call.key, call.args, call.kwargs)
                names.extend(self.tags.late_names(prefix, described, outcome.value))
        except TooManyTags as error:
            self.counters.refused_stores += 1
            self.emit("too-many-tags", call.key, error=error)
            if not self._too_many_tags:
                self._too_many_tags = True
                logger.warning("%s The result was returned and not stored (further ones are only counted).", error)
            return None
        except Exception as error:
            outcome.error, outcome.value = error, None
            return None
        return names

    _too_many_tags = False


def refused(name: str, value: Any) -> UnencodableValue:
    """The error for a result that can be consumed only once."""
    if inspect.iscoroutine(value):
        value.close()
        what, instead = (
            "a coroutine",
            "declare the function `async def`, so that its result is cached and not its promise",
        )
    else:
        what, instead = "a generator", "return a list or a tuple of what it yields"
    return UnencodableValue(
        f"{name} returned {what}, which can be consumed only once, so no later caller could have it: {instead}.",
        function=name,
        kind=type(value).__qualname__,
    )
