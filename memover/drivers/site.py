"""Where the operations of one call are answered: what both drivers share.

`sync` and `aio` add what waits: the store, the function, other callers. A site lives for one call that was not
served at once; a hit makes none.
"""

from __future__ import annotations

import inspect
import random
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from memover.codec import shareable
from memover.drivers.flights import Flight
from memover.drivers.upgrades import upgraded
from memover.engine.ops import Grant, Outcome, Reading, Sealed
from memover.errors import UnencodableValue
from memover.model import MISSING, Event, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.drivers.plan import Plan
    from memover.drivers.upgrades import Old
    from memover.model import Key
    from memover.stores.base import Granted, Seen

__all__ = ["BaseSite", "loading"]

_LOADING: ContextVar[tuple[tuple[Plan, bytes], ...]] = ContextVar("memover-loading", default=())


def loading(plan: Plan, entry: bytes) -> bool:
    """Whether this context is inside a load of the very same call: waiting for it would be waiting for oneself."""
    return (plan, entry) in _LOADING.get()


class BaseSite:
    """One call of one function. `flight` is what other callers of this process may wait for."""

    __slots__ = ("_train", "args", "flight", "key", "kwargs", "load_time", "opened", "plan")

    def __init__(self, plan: Plan, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.plan = plan
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.flight = Flight()
        self.opened: list[str] = []
        self.load_time = 0.0
        self._train = False

    # -- answers that need no waiting ---------------------------------------------------------------------------------

    def seal(self, outcome: Outcome, tokens: Sequence[bytes | None]) -> Sealed | None:
        return self.plan.sealed(self.key, outcome, tokens, self.args, self.kwargs)

    def decode(self, reading: Reading, source: Source) -> Outcome | None:
        return self.plan.outcome(self.key, reading, source)

    def board(self) -> int:
        return self.plan.shared.trains.arrive()

    def last_known(self) -> Outcome | None:
        known = self.plan.last_known
        reading = None if known is None else known.get(self.key.entry)
        if reading is None or reading.header is None:
            return None
        if reading.header.generation != self.plan.witness.last(self.key.names[0]):
            return None
        return self.plan.outcome(self.key, reading, Source.STALE_IF_ERROR)

    def upgraded(self, version: int, old: Old, value: Any) -> Outcome | None:
        """The result of an upgrade as an outcome, sealed; None when it cannot be kept, which is told."""
        return upgraded(self.plan, self.key, version, old, value)

    # -- parts of the answers that wait ---------------------------------------------------------------------------------

    def reading(self, seen: Seen) -> Reading:
        return self.plan.reading(self.key, seen.tokens, seen.raw, seen.lease)

    def open(self, token: str) -> Flight:
        """Let other callers of this process find this call under a lease token; whoever was first is answered."""
        flight = self.plan.shared.flights.open(token, self.flight)
        if flight is self.flight and token not in self.opened:
            self.opened.append(token)
        return flight

    def floors(self) -> list[int]:
        return [self.plan.witness.floor(name) for name in self.key.names]

    def granted(self, granted: Granted) -> Grant:
        # The script has just put back what was behind, so what it answers is what is current, below a floor or not.
        return Grant(granted.ours, granted.holder, self.reading(granted.seen))

    def shared_outcome(self, outcome: Outcome | None) -> Outcome | None:
        """What another caller's flight came to, as this caller's own; None when there is nothing to share."""
        if outcome is None:
            return None
        if outcome.error is not None:
            if not isinstance(outcome.error, Exception):
                return None
            return Outcome(error=outcome.error, source=Source.WAITED)
        return Outcome(self.plan.own_copy(outcome), source=Source.WAITED)

    def loaded(self, value: Any, error: BaseException | None, seconds: float) -> Outcome:
        plan = self.plan
        plan.counters.loads += 1
        self.load_time = seconds
        if error is None and isinstance(value, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            error = refused(plan.name, value)
        if error is not None:
            plan.counters.load_errors += 1
        plan.emit("load", self.key, error=error, load_time=seconds)
        return Outcome(None, error) if error is not None else Outcome(value, load_time=seconds)

    def stored(self, kept: bool, sealed: Sealed) -> bool:
        plan = self.plan
        if kept:
            plan.counters.stores += 1
            if plan.last_known is not None:
                assert sealed.header is not None
                plan.know(self.key, Reading((sealed.header.generation,), sealed.raw, sealed.header))
            plan.emit("store", self.key, size=len(sealed.raw))
        else:
            plan.counters.refused_stores += 1
            plan.emit("store-refused", self.key, size=len(sealed.raw))
        return kept

    def shareable(self, value: Any) -> Any:
        """The value itself where the memory store may hand it to every caller, else MISSING."""
        return value if shareable(value) else MISSING

    def pause(self, poll: float) -> float:
        """Seconds to the next look, so that many waiters do not look in step."""
        return poll * (0.75 + random.random() / 2)

    def enter(self) -> Any:
        """Mark this context as inside the load of this call."""
        return _LOADING.set((*_LOADING.get(), (self.plan, self.key.entry)))

    def leave(self, mark: Any) -> None:
        _LOADING.reset(mark)

    def finish(self, outcome: Outcome | None) -> None:
        """The call is over: whoever waited for it is told. Called exactly once, whatever happened."""
        shared = self.plan.shared
        if outcome is not None and outcome.error is not None and not isinstance(outcome.error, Exception):
            outcome = None
        for token in self.opened:
            shared.flights.close(token, self.flight)
        if self._train:
            shared.trains.arrived(self.key.entry, self.flight, outcome)
        else:
            self.flight.land(outcome)

    def looked_up(self, outcome: Outcome, elapsed: float) -> None:
        """Count a lookup and tell the observers of it."""
        plan = self.plan
        plan.counters.looked_up(outcome.source)
        if plan.watch.busy:
            plan.watch.emit(
                Event(
                    "lookup",
                    plan.policy.namespace,
                    self.key.text,
                    outcome.source,
                    elapsed,
                    self.load_time,
                    0 if outcome.sealed is None else len(outcome.sealed.raw),
                    outcome.error,
                )
            )


def refused(name: str, value: Any) -> UnencodableValue:
    """The error for a result that can be consumed only once."""
    if inspect.iscoroutine(value):
        value.close()
        what, instead = "a coroutine", "declare the function `async def`, so that its result is cached and not its promise"
    else:
        what, instead = "a generator", "return a list or a tuple of what it yields"
    return UnencodableValue(
        f"{name} returned {what}, which can be consumed only once, so no later caller could have it: {instead}.",
        function=name,
        kind=type(value).__qualname__,
    )
