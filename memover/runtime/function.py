"""One decorated function on one cache: everything a call needs that does not depend on its arguments.

`Function` is what the engine calls by that name (`engine.function.Function`): names in the store (`names`), the way from values to
entries (`entries`), running the function (`loading`), last answers (`answers`), loads under way, counters.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic, wall
from memover.codec.sharing import own_error
from memover.engine.answers import Outcome, Reading
from memover.engine.call import CachedCall
from memover.engine.replace import renew
from memover.engine.steps import Spawn
from memover.keys.ownership import UNCLAIMED, Claimed
from memover.latch import inside_section
from memover.model import CacheInfo, Key, Source
from memover.runtime.counters import Counters
from memover.runtime.dependencies import INSIDE, collecting, enclosing_flights
from memover.runtime.flights import Flight, arrive
from memover.runtime.guard import ShapeGuard
from memover.runtime.last_answers import LastAnswers
from memover.runtime.names import CallNames
from memover.runtime.nonce import new_token
from memover.runtime.upgrades import Upgrading

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping

    from memover.engine.answers import Sealed
    from memover.engine.steps import Flow
    from memover.keys.binding import Binding
    from memover.keys.tags import Tags
    from memover.latch import Present
    from memover.policy import Policy
    from memover.runtime.audit.auditor import Auditor
    from memover.runtime.state import CacheState
    from memover.stores.near import Tier

__all__ = ["Function"]

SETTLE_SECONDS = 0.05
"""How long `cache_info()` waits for what the store has not answered yet."""
_REST_SECONDS = 1.0
"""For so long after a refresh that failed no other one is begun."""
_RESTING_LIMIT = 1000


class Function(CallNames, LastAnswers):
    """A function, its policy and its codec on a cache's state."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        policy: Policy,
        binding: Binding,
        codec: Any,
        tags: Tags,
        state: CacheState,
        claimed: Claimed = UNCLAIMED,
    ) -> None:
        CallNames.__init__(self, policy, binding, tags, state, claimed)
        kept = policy.on_store_error == "stale" and not state.store.local
        LastAnswers.__init__(self, codec, kept, state.max_entries)
        self.function = function
        self.name = name
        self.fixed = policy.fixed(state.default_ttl)
        self.store = state.store
        self.observers = state.observers
        self.counters = Counters()
        self.upgrades: Mapping[int, Callable[[Any], Any]] = {}
        self.guard = ShapeGuard(function, name, policy, state.prefix, claimed)
        self.late = tags.late or "depends_on" in getattr(getattr(function, "__code__", None), "co_names", ())
        self.whole = bool(policy.beta or policy.audit)
        """Whether every hit takes the whole flow, because something else may follow from it."""
        self.simple = self.soft_name is None and not tags.early and not self.whole
        """Whether an entry can be served by its generation alone, and a hit concerns nothing else."""
        self.lease_seconds = state.lease_ttl if policy.lease_ttl is None else policy.lease_ttl
        self.wait_seconds = state.wait_timeout if policy.wait_timeout is None else policy.wait_timeout
        self.lease_ms = max(1, min(round(self.lease_seconds * 1000), 1 << 52))
        leases = state.leases
        self.hold, self.let_go, self.post, self.withdraw = leases.hold, leases.let_go, leases.post, leases.withdraw
        self.abandon, self.orphan = leases.abandon, leases.orphan
        self.refreshing: dict[bytes, float] = {}
        self.coming: dict[tuple[bytes, AbstractEventLoop], Flight] = {}
        """By entry and loop, the flights whose first step is still to come; see `engine.follow.joined`. Those of another loop
        are not joined: it may have been stopped before that step."""
        self.near: Tier | None = None if policy.near is None or state.store.local else state.near(policy.near)
        self.auditor: Auditor | None = None
        if policy.audit:
            from memover.runtime.audit.subject import auditor_of

            self.auditor = auditor_of(self)
        state.functions.add(self)

    def after_fork(self) -> None:
        """In a child: no refresh of the parent is under way here."""
        self.refreshing = {}
        self.coming = {}

    # -- calls ----------------------------------------------------------------------------------------------------------

    def call(
        self, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], max_age: float | None = None
    ) -> CachedCall:
        """A call that was not served at once."""
        collector = None if INSIDE.get() is None else collecting()
        if collector is not None and not (collector.tracks and self.state.may_be_at(collector.home)):
            collector = None
        key = self.known_key(key) if self.learned else key
        return CachedCall(self, key, args, kwargs, flight=Flight(), collector=collector, max_age=max_age)

    def share(self, call: CachedCall, token: str) -> Flight:
        """Lets other callers of this process find this call under a lease token; returns the flight that was first."""
        flight = self.state.flights.share(token, call.flight)
        if flight is call.flight and token not in call.tokens:
            call.tokens = (*call.tokens, token)
        return flight

    def quiet(self) -> bool:
        """Whether nobody is to hear at once what became of an entry."""
        return not self.observers.busy and self.last_answers is None

    def load_unleased(self, call: CachedCall) -> Flight:
        """The call's own flight when it is to load without a lease, else that of the load under way."""
        flight = self.state.unleased.begin(call.key.entry, call.flight)
        call.unleased = flight is call.flight
        return flight

    def set_off(self, call: CachedCall, loop: AbstractEventLoop) -> None:
        """The call begins: from now on nobody joins it who has not learned its lease token from the store."""
        at = call.key.entry, loop
        if self.coming.get(at) is call.flight:
            self.coming.pop(at, None)

    def begin_wait(self, call: CachedCall, flight: Any) -> bool:
        """Notes that the loads which this call is part of wait for another; False when that one cannot end before this call.

        Two functions that call each other from two threads would else wait for each other (in other processes such a
        circle is not seen, and ends by `wait_timeout`), and so would a signal handler for the load that it interrupted."""
        if flight.beneath(call.presence) or inside_section():
            return False
        enclosing = enclosing_flights()
        if not enclosing:
            return True
        enclosing[0].begin_wait(call, flight)
        if flight.leads_to({id(each) for each in enclosing}):
            self.end_wait(call, flight)
            return False
        return True

    def end_wait(self, call: CachedCall, flight: Any) -> None:
        """The call waits no more."""
        for enclosing in enclosing_flights()[:1]:
            enclosing.end_wait(call)

    def finish(self, call: CachedCall, outcome: Outcome | None) -> None:
        """The call is over: its followers go on, and leases that it could not give back are given back.

        May be called more than once, by the call and, when that was interrupted, by the background thread."""
        state, flight = self.state, call.flight
        if (outcome is None or call.left) and not call.counted and (call.ran or outcome is not None):
            # Nobody has its answer, but what ran did run.
            self._count(call, Outcome(source=Source.LOADED) if outcome is None else outcome, call.load_time)
        if outcome is not None and outcome.outside:
            outcome = None
        for token in call.tokens:
            state.flights.close(token, flight)
        if call.unleased:
            state.unleased.end(call.key.entry, flight)
        shared = call.shared if call.shared is not None and outcome is not None else outcome
        if shared is not None and shared.error is not None and not flight.ended:
            # As it is now: what this caller does to its error is nobody else's concern.
            error = own_error(shared.error).with_traceback(shared.traceback)
            shared = Outcome(error=error, marks=shared.marks, sealed=shared.sealed)
        flight.end(shared)
        for token in call.tokens:
            self.abandon(token)

    # -- what came of it --------------------------------------------------------------------------------------------------

    def upgrade(self, call: CachedCall, version: int, reading: Reading) -> Flow[Outcome | None]:
        """This version's result made out of an older entry; None when it cannot be done."""
        return Upgrading(self, call, version, reading).flow()

    def stored(self, call: CachedCall, kept: bool, sealed: Sealed) -> None:
        """The store has taken or refused an entry: count it, and keep the answer for when the store cannot be asked."""
        counters = self.counters
        if not kept:
            counters.refused_stores += 1
            self.emit("store-refused", call.key, size=len(sealed.raw))
            return
        counters.stores += 1
        if self.unreadable:
            self.unreadable.pop(call.key.entry, None)
        if sealed.marks and any(name == self.coarse_name for name, _ in sealed.marks):
            counters.coarse += 1
        if self.last_answers is not None:
            self.keep_answer(call.key, Reading((), (), sealed.raw, sealed.header), self.forgotten)
        if self.observers.busy:
            self.emit("store", call.key, size=len(sealed.raw))

    # -- refreshing behind the callers ------------------------------------------------------------------------------------

    def refresh_behind(self, call: CachedCall, seconds: float, since: float) -> Flow[Outcome | bool]:
        """Refreshes the entry made at `since` behind the caller, who waits `seconds` for it at most.

        Returns its outcome, True when it goes on without the caller, False when there was no room for it."""
        refreshing, entry = self.refreshing, call.key.entry
        if refreshing.get(entry, 0.0) > monotonic():
            return True
        # Not for ever: an event loop may be left with the refresh in it. The lease sees to it that there is but one.
        refreshing[entry] = monotonic() + self.lease_seconds
        behind = CachedCall(self, call.key, call.args, call.kwargs, flight=Flight())
        behind.counted = True
        ran: list[Outcome | None] = []

        def work() -> Flow[Outcome | None]:
            INSIDE.set(None)
            outcome: Outcome | None = None
            try:
                outcome = yield from renew(behind, since)
            finally:
                ran.append(outcome)
            return outcome

        def begun(presence: Present) -> None:
            behind.presence = behind.flight.presence = presence

        def ended(outcome: Outcome | None) -> None:
            self.finish(behind, outcome)
            self._rest(entry, ran[0] if ran else outcome)

        answer = yield from Spawn(work, self.state.refreshes, ended, seconds, begun)
        if isinstance(answer, Outcome):
            return call.own(answer) or True
        return bool(answer)

    def _rest(self, entry: bytes, outcome: Outcome | None) -> None:
        """A refresh is over; after a failure none is begun for a moment, or a dead origin would be hit by every call."""
        refreshing = self.refreshing
        if outcome is None or outcome.error is None:
            refreshing.pop(entry, None)
            return
        if len(refreshing) > _RESTING_LIMIT:
            now = monotonic()
            for other in [other for other, until in refreshing.copy().items() if until <= now]:
                refreshing.pop(other, None)
        refreshing[entry] = monotonic() + _REST_SECONDS

    # -- what happened ----------------------------------------------------------------------------------------------------

    def disabled(self) -> None:
        """A call ran with caching turned off."""
        self.counters.bypasses += 1
        self.emit("lookup", None, source=Source.BYPASSED)

    def looked_up(self, call: CachedCall, outcome: Outcome, elapsed: float) -> None:
        """Counts a lookup and tells the observers of it; `elapsed` is the whole call in seconds."""
        if call.collector is not None:
            call.hand_on(outcome)
        self._count(call, outcome, elapsed)
        if self.auditor is not None and (outcome.source is Source.FRESH or outcome.source is Source.NEAR):
            self.auditor.consider(call, outcome)

    def _count(self, call: CachedCall, outcome: Outcome, elapsed: float) -> None:
        if outcome.outside and not call.ran and outcome.source is Source.LOADED:
            return  # interrupted before its load began
        call.counted = True
        self.counters.looked_up(outcome.source)
        if self.observers.busy:
            self.emit(
                "lookup",
                call.key,
                source=outcome.source,
                elapsed=elapsed,
                load_time=call.load_time,
                size=0 if outcome.sealed is None else len(outcome.sealed.raw),
                error=outcome.error,
            )

    def info(self) -> CacheInfo:
        """The counters as `cache_info()` gives them."""
        self.state.store.settle(SETTLE_SECONDS)
        memory, counts = self.state.memory, self.counters.as_dict()
        return CacheInfo(
            counts.pop("hits"),
            counts.pop("misses"),
            None if memory is None else memory.max_entries,
            None if memory is None else len(memory.items),
            **counts,
        )

    # -- what the engine asks for by these names ----------------------------------------------------------------------------

    now = staticmethod(wall)
    monotonic = staticmethod(monotonic)
    new_token = staticmethod(new_token)
    arrive = staticmethod(arrive)
    own_error = staticmethod(own_error)

    def chance(self) -> float:
        """A random number from 0 to below 1."""
        return random.random()
