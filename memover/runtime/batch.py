"""Many calls of one function answered together.

Hits that concern nothing but their value take a short path, without a call object for each; everything else is
`engine.many.gather`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.envelope import marks_packer, read_header, read_plain
from memover.codec.sharing import shareable
from memover.engine.answers import Outcome, Reading
from memover.engine.judge import DEAD, is_fresh, judge
from memover.engine.many import gather
from memover.engine.steps import Invoke, itself
from memover.errors import DamagedEntry, StoreError
from memover.latch import FramePresence, TaskPresence
from memover.model import Source
from memover.runtime.bare import fresh_header
from memover.runtime.bulk import load_many
from memover.runtime.dependencies import INSIDE, is_loading
from memover.runtime.flights import Flight
from memover.runtime.hit import bypassed
from memover.runtime.near import fill, fill_from, in_use, near, ticket_of
from memover.runtime.results import evaluating, unwrapped
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.codec.envelope import Header
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.engine.store import SeenMany
    from memover.model import Key
    from memover.runtime.function import Function
    from memover.stores.near import Ticket

__all__ = ["Batch", "CallArguments", "Hit", "aanswer_many", "answer_many"]

_FIRST_STEP = 8
"""So many entries of a file are read first, and more or fewer after that, as they turn out to be short or long."""
_SHORT_STEP_BYTES, _LONG_STEP_BYTES = 1 << 20, 16 << 20

CallArguments = tuple[tuple[Any, ...], Mapping[str, Any]]


class Hit:
    """An outcome that is nothing but a fresh value."""

    __slots__ = ("value",)

    error = None
    source = Source.FRESH

    def __init__(self, value: Any) -> None:
        self.value = value


class Batch:
    """The calls of one batch, equal ones once; `outcomes` has one place for each of those.

    `loader` is the bulk loader, if there is one. `wanted` says whether the values are wanted, or only what became of the calls.
    `progress` is called with the number of calls that have been answered since the last time, in the caller's thread or loop."""

    def __init__(
        self,
        function: Function,
        lookup: Callable[..., Key],
        arguments: Sequence[CallArguments],
        *,
        loader: Callable[..., Any] | None,
        concurrency: int,
        progress: Callable[[int], object] | None,
        wanted: bool,
    ) -> None:
        self.function = function
        self.limit = concurrency
        self._lookup = lookup
        self._loader = loader
        self._progress = progress
        self._told = 0
        self._wanted = wanted
        self._all = arguments
        self.keys: list[Key] = []
        self.arguments: list[CallArguments] = []
        self.outcomes: list[Outcome | Hit | None] = []
        self.readings: list[Reading] | None = None

    def flow(self, presence: Any) -> Flow[list[Outcome | Hit]]:
        """Answers every call: the outcomes in the order of the calls."""
        if self.function.observers.disabled():
            return (yield from self._disabled())
        function, lookup, at = self.function, self._lookup, list[int]()
        places: dict[str, int] = {}
        for call in self._all:
            args, kwargs = call
            key = lookup(*args, **kwargs) if kwargs else lookup(*args)
            place = places.get(key.text)
            if place is None:
                place = places[key.text] = len(places)
                self.keys.append(function.known_key(key) if function.learned else key)
                self.arguments.append(call)
            at.append(place)
        self.outcomes = [None] * len(self.keys)
        yield from self._answered(presence)
        self.done(len(self._all) - self._told)  # equal calls, and those that ended in another way
        if len(at) > len(places) and self._wanted:
            return self._apart(at)
        outcomes = self.outcomes
        return [outcome for place in at if (outcome := outcomes[place]) is not None]

    def _apart(self, at: Sequence[int]) -> list[Outcome | Hit]:
        """The outcomes of all calls: of equal ones each has a value of its own, as with `map` of the builtins."""
        function, first = self.function, set[int]()
        outcomes: list[Outcome | Hit] = []
        for place in at:
            outcome = self.outcomes[place]
            if outcome is None:
                continue
            if place in first and outcome.error is not None:
                outcome = Outcome(error=function.own_error(outcome.error), source=outcome.source)
            elif place in first and not shareable(outcome.value):
                outcome = Outcome(function.own_copy(Outcome(outcome.value)), source=outcome.source)
            first.add(place)
            outcomes.append(outcome)
        return outcomes

    def _disabled(self) -> Flow[list[Outcome | Hit]]:
        """The function itself for each call, where caching is turned off."""
        function, outcomes = self.function, list[Outcome | Hit]()
        for args, kwargs in self._all:
            function.disabled()
            try:
                value = yield from Invoke(function.function, args, kwargs)
                value = unwrapped((yield from evaluating(value, awaited=function.is_async)))
                outcomes.append(Outcome(value, source=Source.BYPASSED))
            except Exception as error:
                outcomes.append(Outcome(error=itself(error), source=Source.BYPASSED))
            self.done(1)
        return outcomes

    def _answered(self, presence: Any) -> Flow[None]:
        if in_use(self.function):
            self.done(self.serve_near())
        rest = [at for at, outcome in enumerate(self.outcomes) if outcome is None]
        tickets: Mapping[int, Ticket | None] = {}
        if rest and in_use(self.function):
            tickets = {at: ticket_of(self.function, self.keys[at]) for at in rest}
        if rest and self.bare():
            try:
                yield from self._read(rest, tickets)
            except StoreError as error:
                self.function.store_failed(None, error)
                self.readings = None
            rest = [at for at in rest if self.outcomes[at] is None]
        if not rest:
            return
        began = perf_counter()
        calls = [self.function.call(self.keys[at], *self.arguments[at]) for at in rest]
        for call in calls:
            call.presence = call.flight.presence = presence
        try:
            yield from gather(self, calls, self.readings, self._loader is not None)
        except BaseException:
            for call in calls:
                call.left = True  # those that still run in threads count themselves when they have ended
            raise
        finally:
            for call in calls:
                self.function.finish(call, call.outcome)
        elapsed = perf_counter() - began
        for at, call in zip(rest, calls):
            assert call.outcome is not None, "the flow fills in every call"
            self.function.looked_up(call, call.outcome, elapsed)
            self.outcomes[at] = call.outcome
            fill_from(self.function, tickets.get(at), call.key, call.outcome)
        for call in calls:
            done = call.outcome
            if done is not None and done.outside and done.error is not None:
                raise done.error  # cancelled or interrupted: a caller of `warm` is not to go on from that

    def _read(self, rest: Sequence[int], tickets: Mapping[int, Ticket | None]) -> Flow[None]:
        """Reads the calls at these places and answers the hits. Raises `StoreError`.

        In one round trip; from a file in steps where no values are wanted, so that long entries are not all in memory."""
        store, readings, begin = self.function.store, list[Reading](), 0
        step = _FIRST_STEP if not self._wanted and getattr(store, "read_in_steps", False) else len(rest)
        while begin < len(rest):
            some = rest[begin : begin + step]
            begin += step
            seens = yield from store.read_plain([self.keys[at] for at in some])
            self.done(self.serve(seens, some, tickets))
            readings += self.readings or ()
            taken = sum(len(raw) for raw in seens[2] if raw is not None)
            if taken < _SHORT_STEP_BYTES:
                step *= 16
            elif taken > _LONG_STEP_BYTES and step > 1:
                step //= 2
            del seens
        self.readings = readings

    def done(self, number: int) -> None:
        """So many calls have been answered."""
        self._told += number
        if self._progress is not None and number:
            self._progress(number)

    def over(self, call: CachedCall) -> None:
        """Where no values are wanted, the call lets go of its own, and of the entry's bytes: the results of a thousand calls may be more
        than there is memory. Callers that have waited for it hold its flight."""
        outcome = call.outcome
        if self._wanted or outcome is None or outcome.error is not None:
            return
        if in_use(self.function) or self.function.observers.busy:
            return  # the near cache takes the entry, observers hear how long it is
        flight = Flight()
        flight.end(None)
        call.flight, call.outcome = flight, Outcome(source=outcome.source, marks=outcome.marks)

    def serve_near(self) -> int:
        """Answers the calls that the near cache has; their number."""
        function, number = self.function, 0
        for at, key in enumerate(self.keys):
            found = near(function, key)
            if found is not None:
                self.outcomes[at] = found
                number += 1
                function.looked_up(function.call(key, *self.arguments[at]), found, 0.0)
        return number

    def bare(self) -> bool:
        """Whether hits concern nothing but their value."""
        function = self.function
        return bool(
            self.keys
            and not function.whole
            and not function.observers.busy
            and function.names_by_grain is None
            and not function.witness.owed
            and function.last_answers is None
            and INSIDE.get() is None
        )

    def serve(self, seens: SeenMany, rest: Sequence[int], tickets: Mapping[int, Ticket | None]) -> int:
        """Answers the hits, and keeps what was read for the other calls; the number of hits. `rest` are the places of the calls,
        `tickets` the rights to bring them near.

        An entry whose generation and marks are byte for byte what would be stamped into one now is looked at no further;
        of any other with marks, `judge` tells."""
        function, outcomes, now, keys = self.function, self.outcomes, wall(), self.keys
        names, tokens, raws = seens
        trusted = function.witness.trusts(names, tokens)
        current: dict[bytes, Any] = dict(zip(names, tokens))
        stamps: dict[bytes, Any] = dict(zip(names, zip(names, tokens)))
        decode, form, pack = function.decode_payload, function.form, marks_packer()
        readings: list[Reading] = []
        for at, raw in zip(rest, raws):
            key = keys[at]
            if raw is not None and trusted:
                generation, marks = current[key.names[0]], b""
                if len(key.names) > 1:
                    marks = pack([stamps[name] for name in key.names[1:]])
                plain = None if form is None else read_plain(raw, form, generation, key.entry, marks)
                if plain is None:
                    if self._judged(at, raw, [current[name] for name in key.names], now, tickets.get(at)):
                        form = function.form  # the first entry of all tells the fingerprint
                        continue
                elif is_fresh(generation, plain[0], generation, now):
                    try:
                        ticket = tickets.get(at) if tickets else None
                        value = decode(plain[1]) if self._wanted or ticket is not None else None
                        outcomes[at] = Hit(value)
                        if ticket is not None:
                            fill(function, ticket, key, raw, read_header(raw, key.entry), value)
                        continue
                    except DamagedEntry:
                        pass  # the ordinary way finds out once more, and counts it
            own = [current[name] for name in key.names]
            header = function.read_header(key, raw)
            if trusted and header is not None and self._invalidated(header, key, own):
                raw = None  # whatever the clock says; those of a whole batch would be in memory until it ends
            readings.append(Reading(key.names, own, raw, header))
        hits = len(rest) - len(readings)
        function.counters.own_hits += hits
        self.readings = readings
        return hits

    def _invalidated(self, header: Header, key: Key, tokens: Sequence[bytes | None]) -> bool:
        required, soft = key.required, self.function.soft_name
        return judge(header, key.names, tokens, -math.inf, required=required, soft=soft) is DEAD

    def _judged(self, at: int, raw: bytes, tokens: Sequence[bytes | None], now: float, ticket: Ticket | None) -> bool:
        """Answers a call from an entry in any other form, if that is fresh."""
        function, key = self.function, self.keys[at]
        try:
            header = fresh_header(function, key, key.names, tokens, raw, now)
            if header is None:
                return False
            value = function.decode(raw, header) if self._wanted or ticket is not None else None
            self.outcomes[at] = Hit(value)
            fill(function, ticket, key, raw, header, value)
        except DamagedEntry:
            return False  # the ordinary way finds out once more, and counts it
        return True

    def load_many(self, calls: Sequence[CachedCall]) -> Flow[list[Outcome | None]]:
        """Runs the bulk loader: an outcome for each call that it had a value for, None for the others."""
        if not calls or self._loader is None:
            return [None] * len(calls)
        return (yield from load_many(self.function, self._loader, calls))

    def itself(self, call: CachedCall) -> Flow[Outcome] | None:
        """The function alone, for a call that is part of its own load and would wait for itself; else None."""
        return self._bypass(call) if is_loading(self.function, call.key.entry) else None

    def _bypass(self, call: CachedCall) -> Flow[Outcome]:
        yield from bypassed(call)
        outcome = yield from self.function.load(call)
        outcome.source, outcome.marks = Source.BYPASSED, ()
        return outcome


def answer_many(batch: Batch) -> list[Outcome | Hit]:
    """Answers the calls of a batch in this thread: their outcomes in order."""
    presence = FramePresence()
    try:
        return run(batch.flow(presence))
    finally:
        presence.forget()


async def aanswer_many(batch: Batch) -> list[Outcome | Hit]:
    """As `answer_many`, awaited."""
    presence = TaskPresence.of_current()
    try:
        return await arun(batch.flow(presence))
    finally:
        presence.forget()
