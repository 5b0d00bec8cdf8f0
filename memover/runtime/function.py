"""One decorated function on one cache: everything a call needs that does not depend on its arguments.

`Function` is what the engine calls by that name (`engine.call.Function`): names in the store, the way from values to
entries (`entries`), running the function (`loading`), loads under way, counters.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic, wall
from memover.codec.sharing import own_error
from memover.engine.answers import Outcome, Reading
from memover.engine.call import CachedCall
from memover.engine.judge import VERSION
from memover.engine.replace import renew
from memover.engine.steps import Spawn
from memover.errors import raised_beneath
from memover.keys.names import entry_key, generation_key, soft_key, stripe_key, tag_clock_key
from memover.keys.ownership import UNCLAIMED, Claimed
from memover.keys.shards import grain_of, may_have_shards, names_by_grain
from memover.latch import inside_section
from memover.model import CacheInfo, Event, Key, Source
from memover.runtime.counters import Counters
from memover.runtime.dependencies import INSIDE, collecting, enclosing_flights
from memover.runtime.flights import Flight
from memover.runtime.guard import Guard, chain
from memover.runtime.loading import Loading
from memover.runtime.nonce import new_nonce
from memover.runtime.upgrades import Upgrading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.engine.answers import Sealed
    from memover.engine.steps import Flow
    from memover.keys.binding import Binding
    from memover.keys.tags import Tags
    from memover.latch import Present
    from memover.policy import Policy
    from memover.runtime.audit.auditor import Auditor
    from memover.runtime.state import CacheState
    from memover.stores.near import Tier

SETTLE_SECONDS = 0.05
"""How long `cache_info()` waits for what the store has not answered yet."""
__all__ = ["Function"]

_REST_SECONDS = 1.0
"""For so long after a refresh that failed no other one is begun."""
_RESTING_LIMIT = 1000


class Function(Loading):
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
        super().__init__(codec)
        self.claimed = claimed
        self.function = function
        self.name = name
        self.policy = policy
        self.fixed = policy.fixed(state.default_ttl)
        self.binding = binding
        self.tags = tags
        self.state = state
        self.store = state.store
        self.observers = state.observers
        self.witness = state.witness
        self.counters = Counters()
        self.upgrades: Mapping[int, Callable[[Any], Any]] = {}
        self.guard = Guard(function, name, policy, state.prefix, claimed)
        prefix, namespace = state.prefix, policy.namespace
        self.generation_name = generation_key(prefix, namespace).encode()
        self.soft_name = soft_key(prefix, namespace).encode() if policy.stale_window > 0 else None
        self.clock_name = tag_clock_key(prefix).encode()
        self.coarse_name = state.coarse_name
        self.names: tuple[bytes, ...] = (self.generation_name,)
        if self.soft_name is not None:
            self.names = (*self.names, self.soft_name)
        count = state.store.generation_shards if may_have_shards(self.generation_name) else 1
        self.names_by_grain = names_by_grain(self.names, count) if count > 1 else None
        """Where the generation stands in shards, what takes the place of `names` for the calls of each grain."""
        self.version_name = VERSION + namespace.encode()
        state.witness.versions[self.version_name] = claimed.token(policy.version)
        self.late = tags.late or "depends_on" in names_in(function)
        self.learned: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self.whole = bool(policy.beta or policy.audit)
        """Whether every hit takes the whole flow, because something else may follow from it."""
        self.simple = self.soft_name is None and not tags.early and not self.whole
        """Whether an entry can be served by its generation alone, and a hit concerns nothing else."""
        self.lease_seconds = state.lease_ttl if policy.lease_ttl is None else policy.lease_ttl
        self.wait_seconds = state.wait_timeout if policy.wait_timeout is None else policy.wait_timeout
        self.lease_ms = max(1, min(round(self.lease_seconds * 1000), 1 << 52))
        self.let_go, self.abandon, self.orphan = state.leases.let_go, state.leases.abandon, state.leases.orphan
        self.post, self.withdraw = state.leases.post, state.leases.withdraw
        self.forgotten = 0
        """How often last answers were dropped: an answer read before that is not kept after it."""
        self.last_answers: OrderedDict[bytes, Reading] | None = (
            OrderedDict() if policy.on_store_error == "stale" and not state.store.local else None
        )
        self.refreshing: dict[bytes, float] = {}
        self.near: Tier | None = None if policy.near is None or state.store.local else state.near(policy.near)
        self.auditor: Auditor | None = None
        if policy.audit:
            from memover.runtime.audit.subject import auditor_of

            self.auditor = auditor_of(self)
        state.functions.add(self)

    def after_fork(self) -> None:
        """In a child: no refresh of the parent is under way here."""
        self.refreshing = {}

    # -- names ----------------------------------------------------------------------------------------------------------

    def key(self, text: str, version: int | None = None) -> Key:
        """The names in the store of a call whose arguments come to `text`."""
        start = self._start
        if start is None or version is not None:
            policy = self.policy
            own = version is None or version == policy.version
            start = entry_key(self.state.prefix, self.version_text if own else str(version), policy.namespace, "")
            if own:
                self._start = start
        return Key(start + text, self.names if self.names_by_grain is None else self.names_by_grain[grain_of(text)])

    _start: str | None = None
    """What the keys of this version begin with, once the first of them has been asked for."""

    @property
    def version_text(self) -> str:
        """The version part of entry keys."""
        return self.claimed.version(self.policy.version)

    @property
    def version_mark(self) -> tuple[bytes, bytes]:
        """What stands for the version in entries whose load used a result of this function."""
        return self.version_name, self.version_text.encode()

    def lookup(self, version: int | None = None) -> Callable[..., Key]:
        """The way from a call's arguments to its key: bound, digested, tagged, and remembered where that is safe."""
        tags = self.tags
        if not tags.early and version is None:
            return self.binding.compile(self.key)
        plain = self.binding.compile(lambda text: self.key(text, version))
        prefix, arguments = self.state.prefix, self.binding.arguments

        def tagged(*args: Any, **kwargs: Any) -> Key:
            key = plain(*args, **kwargs)
            if len(key.names) > len(self.names) or not tags.early:
                return key
            names = tags.early_names(prefix, self.described(key, args, kwargs), arguments(args, kwargs))
            full = Key(key.text, (*key.names, *names))
            if tags.stable:  # the record is in the binding's memo: what is written twice is the same
                key.required, key.names = full.required, full.names
            return full

        return tagged

    def is_at(self, home: object) -> bool:
        """Whether its entries are where `home` says."""
        return self.state.is_at(home)

    def call_name(self, key: Key) -> bytes:
        """The token that stands for this call in entries whose load used its result."""
        return stripe_key(self.state.prefix, self.policy.namespace, key.text.split(":", 3)[3]).encode()

    def older_keys(self, key: Key) -> Sequence[tuple[int, Key]]:
        """The versions that this call's entry can be upgraded from, the newest first, each with the call's key there.

        Empty for a key of another version."""
        if not self.upgrades:
            return ()
        prefix, policy = self.state.prefix, self.policy
        own = entry_key(prefix, self.version_text, policy.namespace, "")
        if not key.text.startswith(own):
            return ()
        text, names = key.text[len(own) :], key.names[: key.required]
        return [
            (version, Key(entry_key(prefix, version, policy.namespace, text), names))
            for version in chain(self.upgrades)
        ]

    def known_key(self, key: Key) -> Key:
        """The key with what was learned of its entry."""
        names = self.learned.get(key.text)
        return key if names is None else key.asking(names)

    def learn(self, key: Key, names: Sequence[bytes]) -> Key:
        """Read these tokens with this key from now on."""
        wanted = tuple(name for name in names if not name.startswith(VERSION))
        asking = key.asking(wanted)
        if len(asking.names) > asking.required or key.text in self.learned:
            learned = self.learned
            learned[key.text] = wanted
            try:
                learned.move_to_end(key.text)
                while len(learned) > self.state.max_entries:
                    learned.popitem(last=False)
            except KeyError as error:  # removed by another thread since
                if raised_beneath(error):
                    raise
        return asking

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
        """Let other callers of this process find this call under a lease token; returns the flight that was first."""
        flight = self.state.flights.share(token, call.flight)
        if flight is call.flight and token not in call.tokens:
            call.tokens.append(token)
        return flight

    def hold(self, call: CachedCall, token: str) -> None:
        """Note that the lease is about to be asked for."""
        self.state.leases.hold(call, token, self.lease_ms)

    def quiet(self) -> bool:
        """Whether nobody is to hear at once what became of an entry."""
        return not self.observers.busy and self.last_answers is None

    def arrive(self) -> int:
        """The number of a caller among the loads without a lease."""
        return self.state.unleased.arrive()

    def load_unleased(self, call: CachedCall) -> Flight:
        """The call's own flight when it is to load without a lease, else that of the load under way."""
        flight = self.state.unleased.begin(call.key.entry, call.flight)
        call.unleased = flight is call.flight
        return flight

    def begin_wait(self, call: CachedCall, flight: Any) -> bool:
        """Note that the loads which this call is part of wait for another; False when that one cannot end before this call.

        Two functions that call each other from two threads would else wait for each other (in other processes such a
        circle is not seen, and ends by `wait_timeout`), and so would a signal handler for the load that it interrupted."""
        if flight.beneath(call.presence) or inside_section():
            return False
        enclosing = enclosing_flights()
        if not enclosing:
            return True
        enclosing[0].waits_for[id(call)] = flight
        if flight.leads_to({id(each) for each in enclosing}):
            self.end_wait(call, flight)
            return False
        return True

    def end_wait(self, call: CachedCall, flight: Any) -> None:
        """The call waits no more."""
        for enclosing in enclosing_flights()[:1]:
            enclosing.waits_for.pop(id(call), None)

    def finish(self, call: CachedCall, outcome: Outcome | None) -> None:
        """The call is over: its followers go on, and leases that it could not give back are given back.

        May be called more than once, by the call and, when that was interrupted, by the background thread."""
        state = self.state
        if outcome is not None and outcome.outside:
            outcome = None
        for token in call.tokens:
            state.flights.close(token, call.flight)
        if call.unleased:
            state.unleased.end(call.key.entry, call.flight)
        shared = call.shared if call.shared is not None and outcome is not None else outcome
        if shared is not None and shared.error is not None and not call.flight.ended:
            # As it is now: what this caller does to its error is nobody else's concern.
            error = own_error(shared.error).with_traceback(shared.traceback)
            shared = Outcome(error=error, marks=shared.marks, sealed=shared.sealed)
        call.flight.end(shared)
        for token in state.leases.holding(call):
            state.leases.abandon(token)

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

    @staticmethod
    def own_error(error: BaseException) -> BaseException:
        """An exception of a shared load for one more caller."""
        return own_error(error)

    # -- refreshing behind the callers ------------------------------------------------------------------------------------

    def refresh_behind(self, call: CachedCall, seconds: float, since: float) -> Flow[Outcome | bool]:
        """Refresh the entry made at `since` behind the caller, who waits `seconds` for it at most.

        Returns its outcome, True when it goes on without the caller, False when there was no room for it."""
        refreshing, entry = self.refreshing, call.key.entry
        if refreshing.get(entry, 0.0) > monotonic():
            return True
        # Not for ever: an event loop may be left with the refresh in it. The lease sees to it that there is but one.
        refreshing[entry] = monotonic() + self.lease_seconds
        behind = CachedCall(self, call.key, call.args, call.kwargs, flight=Flight())
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
            for other in [other for other, until in list(refreshing.items()) if until <= now]:
                refreshing.pop(other, None)
        refreshing[entry] = monotonic() + _REST_SECONDS

    # -- the last answer, for functions that prefer it to a load when the store cannot be asked ------------------------------

    def keep_answer(self, key: Key, reading: Reading, forgotten: int) -> None:
        """Keep an answer, unless last answers were dropped since `forgotten` was read, before the answer was."""
        answers = self.last_answers
        if answers is None or forgotten != self.forgotten:
            return
        answers[key.entry] = reading
        try:
            answers.move_to_end(key.entry)
            while len(answers) > self.state.max_entries:
                answers.popitem(last=False)
        except KeyError as error:  # removed by another thread since
            if raised_beneath(error):
                raise
        if forgotten != self.forgotten:
            answers.pop(key.entry, None)

    def forget(self, entry: bytes | None = None) -> None:
        """Drop the last answer for one entry, or all."""
        if self.last_answers is not None:
            self.forgotten += 1
            if entry is None:
                self.last_answers.clear()
            else:
                self.last_answers.pop(entry, None)

    def opened(self, key: Key, reading: Reading, source: Source) -> Outcome | None:
        forgotten = self.forgotten
        outcome = super().opened(key, reading, source)
        if self.last_answers is not None and outcome is not None and source is Source.FRESH:
            self.keep_answer(key, reading, forgotten)
        return outcome

    def last_answer(self, call: CachedCall) -> Outcome | None:
        """The last answer of this process, unless an invalidation that it has made or seen is newer."""
        reading = None if self.last_answers is None else self.last_answers.get(call.key.entry)
        if reading is None or reading.header is None:
            return None
        last, marks = self.witness.last, reading.header.marks
        if reading.header.generation != last(call.key.names[0]):
            return None
        if any(last(name) not in (None, token) for name, token in marks) or call.owing([name for name, _ in marks]):
            return None
        return super().opened(call.key, reading, Source.STALE_IF_ERROR)

    # -- what happened ----------------------------------------------------------------------------------------------------

    def disabled(self) -> None:
        """A call ran with caching turned off."""
        self.counters.bypasses += 1
        if self.observers.busy:
            self.observers.emit(Event("lookup", self.policy.namespace, "", Source.BYPASSED))

    def looked_up(self, call: CachedCall, outcome: Outcome, elapsed: float) -> None:
        """Count a lookup and tell the observers of it; `elapsed` is the whole call in seconds."""
        if call.collector is not None:
            call.hand_on(outcome)
        self.counters.looked_up(outcome.source)
        if self.auditor is not None and (outcome.source is Source.FRESH or outcome.source is Source.NEAR):
            self.auditor.consider(call, outcome)
        if self.observers.busy:
            size = 0 if outcome.sealed is None else len(outcome.sealed.raw)
            self.observers.emit(
                Event(
                    "lookup",
                    self.policy.namespace,
                    call.key.text,
                    outcome.source,
                    elapsed,
                    call.load_time,
                    size,
                    outcome.error,
                )
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
    new_token = staticmethod(new_nonce)

    @staticmethod
    def chance() -> float:
        """A random number from 0 to below 1."""
        return random.random()


def names_in(function: Any) -> tuple[str, ...]:
    """The names that a function's code uses, as far as can be seen."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_names)
