"""Where the operations of one call are answered: what both drivers share.

`sync` and `aio` add what waits: the store, the function, other callers. A site lives for one call that was not
served at once; a hit makes none.
"""

from __future__ import annotations

import inspect
import random
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.codec import shareable
from memover.drivers.flights import Flight
from memover.drivers.tracking import INSIDE, Collector, Inside, collecting
from memover.engine.ops import Grant, Outcome, Reading, Sealed
from memover.errors import UnencodableValue
from memover.model import MISSING, Event, NotCached, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.drivers.plan import Plan
    from memover.engine.ops import Marks
    from memover.engine.terms import Terms
    from memover.model import Key
    from memover.engine.store import Granted, Seen

__all__ = ["BaseSite", "loading"]

_REST_SECONDS = 1.0
_RESTING_LIMIT = 1000


def enter(items: Sequence[BaseSite]) -> tuple[Inside, Any]:
    """Mark this context as inside one load of these calls; `leave` takes it back."""
    plan = items[0].plan
    collector = Collector(plan.shared.home, plan.policy.track_dependencies)
    inside = Inside(tuple((plan, item.key.entry) for item in items), collector, INSIDE.get())
    return inside, INSIDE.set(inside)


def leave(mark: tuple[Inside, Any]) -> None:
    """The load is over, in this context and in those it began."""
    mark[0].over = True
    INSIDE.reset(mark[1])


def loading(plan: Plan, entry: bytes) -> bool:
    """Whether this context is inside a load of the very same call: waiting for it would be waiting for oneself."""
    inside = INSIDE.get()
    return inside is not None and inside.loads(plan, entry)


class BaseSite:
    """One call of one function. `flight` is what other callers of this process may wait for."""

    __slots__ = (
        "_train",
        "args",
        "collector",
        "flight",
        "key",
        "kwargs",
        "load_time",
        "opened",
        "outcome",
        "plan",
        "terms",
        "token",
    )

    def __init__(self, plan: Plan, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.plan = plan
        self.key = plan.known_key(key) if plan.learned else key
        self.args = args
        self.kwargs = kwargs
        self.flight = Flight()
        self.opened: list[str] = []
        self.load_time = 0.0
        self._train = False
        collector = collecting()
        tracked = collector is not None and collector.tracks and collector.home == plan.shared.home
        self.collector = collector if tracked else None
        self.terms: Terms | None = None
        # Filled in where the call is one of a batch.
        self.outcome: Outcome | None = None
        self.token = ""

    def on_terms(self, max_age: float | None = None) -> Terms:
        """What the flows of this call are told."""
        self.terms = self.plan.terms(self.key, max_age, tracked=self.collector is not None)
        return self.terms

    # -- answers that need no waiting ---------------------------------------------------------------------------------

    def seal(self, outcome: Outcome, marks: Marks) -> Sealed | None:
        return self.plan.sealed(self.key, outcome, marks, self.args, self.kwargs)

    def learn(self, names: Sequence[bytes]) -> None:
        self.key = self.plan.learn(self.key, names)

    def late_tags(self, outcome: Outcome) -> list[bytes] | Outcome:
        plan = self.plan
        prefix = plan.shared.prefix
        names: list[bytes] = []
        try:
            if outcome.declared:
                plan.late = True
                names.extend(plan.tags.names(prefix, outcome.declared))
            if plan.tags.late and outcome.error is None:
                names.extend(plan.tags.late_names(prefix, plan.call(self.key, self.args, self.kwargs), outcome.value))
        except Exception as error:
            return Outcome(error=error, load_time=outcome.load_time)
        return names

    def decode(self, reading: Reading, source: Source) -> Outcome | None:
        return self.plan.outcome(self.key, reading, source)

    def board(self) -> int:
        return self.plan.shared.trains.arrive()

    def last_known(self) -> Outcome | None:
        known = self.plan.last_known
        reading = None if known is None else known.get(self.key.entry)
        if reading is None or reading.header is None:
            return None
        last = self.plan.witness.last
        if reading.header.generation != last(self.key.names[0]):
            return None
        # Nor across an invalidation of a tag or of what its load used, as far as this process has made or seen it.
        marks = reading.header.marks
        if any(last(name) not in (None, token) for name, token in marks):
            return None
        if self.terms is not None and self.terms.owing([name for name, _ in marks]):
            return None
        return self.plan.outcome(self.key, reading, Source.STALE_IF_ERROR)

    # -- parts of the answers that wait ---------------------------------------------------------------------------------

    def reading(self, seen: Seen) -> Reading:
        return self.plan.reading(self.key, seen)

    def asked(self) -> Key:
        """The key to read: with the call's own token, where a load that tracks what it uses waits for the answer."""
        terms = self.terms
        if terms is None or not terms.call_name or terms.spread:
            return self.key
        return self.key.asking((*self.key.names, terms.call_name))

    def ensured(self) -> tuple[bytes, ...]:
        """The tokens to put back along with the required ones before a load."""
        terms = self.terms
        if terms is None:
            return ()
        return tuple(name for name in (terms.call_name, terms.clock_name) if name)

    def open(self, token: str) -> Flight:
        """Let other callers of this process find this call under a lease token; whoever was first is answered."""
        flight = self.plan.shared.flights.open(token, self.flight)
        if flight is self.flight and token not in self.opened:
            self.opened.append(token)
        return flight

    def floors(self, names: Sequence[bytes]) -> list[int]:
        return [self.plan.witness.floor(name) for name in names]

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
            return Outcome(error=outcome.error, source=Source.WAITED, marks=outcome.marks)
        return Outcome(self.plan.own_copy(outcome), source=Source.WAITED, marks=outcome.marks)

    def loaded(self, value: Any, error: BaseException | None, seconds: float, collector: Collector | None) -> Outcome:
        plan = self.plan
        keep = True
        if isinstance(value, NotCached):  # type: ignore[arg-type]  # to checkers it is a function
            value, keep = value.value, False
        plan.counters.loads += 1
        self.load_time = seconds
        if error is None and isinstance(value, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            error = refused(plan.name, value)
        if error is not None:
            plan.counters.load_errors += 1
        plan.emit("load", self.key, error=error, load_time=seconds)
        outcome = Outcome(None if error is not None else value, error, load_time=seconds)
        outcome.keep = keep
        outcome.marks = () if collector is None else collector.result()
        outcome.declared = () if collector is None else tuple(collector.tags)
        return outcome

    def stored(self, kept: bool, sealed: Sealed) -> bool:
        plan = self.plan
        if kept:
            plan.counters.stores += 1
            if coarsely(plan.shared.coarse_name, sealed):
                plan.counters.coarse += 1
            if plan.last_known is not None:
                assert sealed.header is not None
                plan.know(self.key, Reading((), (), sealed.raw, sealed.header))
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

    def hand_on(self, outcome: Outcome) -> None:
        """Tell the load that asked for this call what the answer stands under."""
        collector, terms = self.collector, self.terms
        if collector is None or terms is None or outcome.source is Source.BYPASSED:
            return
        stale = outcome.source is Source.STALE or outcome.source is Source.STALE_IF_ERROR
        if outcome.marks is None or stale or terms.call_token is None:
            collector.use(None)
        else:
            collector.use((*outcome.marks, (terms.call_name, terms.call_token), self.plan.version_mark))

    def within(self) -> tuple[bytes, ...]:
        """What to read before the function is run inside a load of its own: the tokens that stand for it in a load between
        the two. Empty where there is none, or none that tracks."""
        collector, inside, plan = self.collector, INSIDE.get(), self.plan
        if collector is None or inside is None or any(w is plan and e == self.key.entry for w, e in inside.calls):
            return ()
        return (*self.key.names[: self.key.required], plan.call_name(self.key))

    def bypassed(self, names: Sequence[bytes], tokens: Sequence[bytes] | None) -> None:
        """The function is run inside a load of its own, under these tokens; None when the store did not say."""
        if self.collector is not None:
            known = tokens is not None and not self.plan.tags.late
            self.collector.use((*zip(names, tokens or ()), self.plan.version_mark) if known else None)

    def rest(self) -> bool:
        """Whether a refresh of this entry is under way here, or failed a moment ago; it is marked as begun if not."""
        refreshing, entry = self.plan.refreshing, self.key.entry
        if refreshing.get(entry, 0.0) > monotonic():
            return True
        # Not for ever: an event loop may be left with the refresh in it. The lease sees to it that there is but one.
        refreshing[entry] = monotonic() + self.plan.lease_seconds
        return False

    def rested(self, outcome: Outcome | None) -> None:
        """A refresh is over; after a failure nobody tries again for a moment, or a dead origin would be hit by every call."""
        refreshing, entry = self.plan.refreshing, self.key.entry
        if outcome is not None and outcome.error is not None:
            if len(refreshing) > _RESTING_LIMIT:
                now = monotonic()
                for other in [other for other, until in list(refreshing.items()) if until <= now]:
                    refreshing.pop(other, None)
            refreshing[entry] = monotonic() + _REST_SECONDS
        else:
            refreshing.pop(entry, None)

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
        self.hand_on(outcome)
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


def coarsely(coarse_name: bytes, sealed: Sealed) -> bool:
    """Whether an entry stands under the one token for too many, its own or that of what it used."""
    return sealed.header is not None and any(name == coarse_name for name, _ in sealed.header.marks)


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
