"""The flow of a batch: one read for all the calls, leases and loads for those that it does not serve.

A batch is not a snapshot: its entries are read together, but each was loaded when it was. Leases are asked for and
never waited for while others are held, so two batches cannot block each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from memover.engine.answers import Outcome
from memover.engine.judge import FRESH, STALE, UNKNOWN
from memover.engine.load import conclude, get, give_back, lead, resolve, upgrade
from memover.engine.marks import MARKS_LIMIT, captured, together
from memover.engine.reading import answer
from memover.engine.steps import Together
from memover.errors import StoreError
from memover.model import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.answers import Grant, Reading, Sealed
    from memover.engine.call import CachedCall
    from memover.engine.judge import Verdict
    from memover.engine.steps import Flow

__all__ = ["Batch", "gather"]


class Batch(Protocol):
    """What a batch offers its flow; see `runtime.batch`."""

    limit: int
    """How many flows may run side by side."""

    def load_many(self, calls: Sequence[CachedCall]) -> Flow[list[Outcome | None]]:
        """An outcome for each call that the bulk loader had a value for, None for the others."""
        ...

    def itself(self, call: CachedCall) -> Flow[Outcome] | None:
        """The function alone, for a call that is part of its own load and would wait for itself; else None."""
        ...

    def done(self, number: int) -> None:
        """So many calls have been answered."""
        ...

    def over(self, call: CachedCall) -> None:
        """A call has its outcome and has been finished; what nobody wants of it any more may go."""
        ...


def gather(batch: Batch, calls: Sequence[CachedCall], readings: Sequence[Reading] | None, bulk: bool) -> Flow[None]:
    """Answers every call. `readings` are what was read for them and found wanting, None to read first; `bulk` says
    that there is a bulk loader."""
    closed = [call for call in calls if call.closed()]
    if closed:  # nothing is served under an invalidation that is pending
        yield from each(batch, [(call, get(call)) for call in closed])
        calls, readings = [call for call in calls if call.outcome is None], None
    if not calls:
        return
    try:
        answers = yield from read(calls, readings)
    except StoreError as error:
        calls[0].function.store_failed(None, error)
        yield from each(batch, [(call, get(call)) for call in calls])
        return
    missing: list[tuple[CachedCall, Reading]] = []
    for call, found in zip(calls, answers):
        if isinstance(found, Outcome):
            call.outcome = found
        else:
            missing.append((call, found))
    singly = missing
    if bulk:
        # What has yet to be learned of, or may be served stale, is not a load yet.
        singly = [(call, reading) for call, reading in missing if undecided(call, reading)]
        known = {id(call) for call, _ in singly}
        stopped = yield from lead_many(batch, [call for call, _ in missing if id(call) not in known])
        if stopped is not None:
            for call, _ in singly:
                call.outcome = Outcome(error=stopped)
            return
    yield from each(batch, [(call, resolve(call, reading)) for call, reading in singly])


def each(batch: Batch, flows: Sequence[tuple[CachedCall, Flow[Outcome]]]) -> Flow[None]:
    """Runs a flow of its own for each call, a bounded number at a time, and notes its outcome."""

    def one(call: CachedCall, flow: Flow[Outcome]) -> Flow[None]:
        itself = batch.itself(call)
        if itself is not None:
            flow.close()
            flow = itself
        try:
            call.outcome = outcome = yield from flow
        finally:
            # Now, and not with the batch: others may wait for this call, of whom the batch may need one.
            call.function.finish(call, call.outcome)
        batch.over(call)
        if outcome.error is not None and outcome.outside:
            raise outcome.error

    if flows:
        yield from Together([one(call, flow) for call, flow in flows], batch.limit, batch.done)


def read(calls: Sequence[CachedCall], readings: Sequence[Reading] | None) -> Flow[list[Outcome | Reading]]:
    """Reads what has not been read; and what stands under tokens not known of before, once more, together with these."""
    found: list[Outcome | Reading] = [*readings] if readings is not None else (yield from read_all(calls))
    learning: list[int] = []
    for at, (call, one) in enumerate(zip(calls, found)):
        if not isinstance(one, Outcome) and one.header is not None and verdict(call, one) is UNKNOWN:
            call.learn([name for name, _ in one.header.marks])
            learning.append(at)
    if learning:
        again = yield from read_all([calls[at] for at in learning])
        for at, one in zip(learning, again):
            found[at] = one
    return found


def read_all(calls: Sequence[CachedCall]) -> Flow[list[Outcome | Reading]]:
    """For each call its outcome if what was read serves it as it is, else its reading; one round trip."""
    seens = yield from calls[0].function.store.read_many([call.asked() for call in calls])
    return [at_once(call, call.reading(seen)) for call, seen in zip(calls, seens)]


def at_once(call: CachedCall, reading: Reading) -> Outcome | Reading:
    """The outcome of a reading that serves its call without another step, else the reading."""
    if reading.header is None or call.call_name or call.function.policy.beta or call.owing(reading.names):
        return reading
    if verdict(call, reading) is not FRESH:
        return reading
    outcome = call.opened(reading, Source.FRESH)
    if outcome is None:
        reading.header = None  # counted as damaged, and absent from here on
    return outcome or reading


def verdict(call: CachedCall, reading: Reading) -> Verdict | None:
    """What is to be said of a reading; None where its tokens are behind those seen before."""
    return call.judge(reading) if call.function.witness.trusts(reading.names, reading.tokens) else None


def undecided(call: CachedCall, reading: Reading) -> bool:
    """Whether more than a load may come of this reading."""
    if call.closed():
        return True
    found = verdict(call, reading)
    return found is UNKNOWN or found is FRESH or (found is STALE and call.function.soft_name is not None)


def lead_many(batch: Batch, calls: Sequence[CachedCall]) -> Flow[BaseException | None]:
    """Takes what leases there are, loads those calls in bulk, and leaves the rest to their own flows.

    Returns what ended the bulk loader if it was no error of its own (cancelled, interrupted): then no more is begun."""
    if not calls:
        return None
    function = calls[0].function
    requests = [call.request(function.new_token()) for call in calls]
    try:
        granted = yield from function.store.acquire_many(requests)
    except StoreError as error:
        function.store_failed(None, error)
        for call in calls:
            function.abandon(call.token)
        yield from each(batch, [(call, get(call)) for call in calls])
        return None
    ours: list[tuple[CachedCall, Grant]] = []
    holding: list[tuple[CachedCall, Flow[Outcome]]] = []
    others: list[tuple[CachedCall, Flow[Outcome]]] = []
    for call, grant in zip(calls, [call.granted(each) for call, each in zip(calls, granted)]):
        reading = grant.reading
        if not grant.ours:
            others.append((call, get(call)))
        elif verdict(call, reading) is FRESH:
            holding.append((call, filled(call, call.token, reading)))
        else:
            if call.call_name:
                call.call_token = reading.token(call.call_name)
            ours.append((call, grant))
    upgraded: list[Outcome | None] = []
    if ours and function.older_keys(ours[0][0].key):
        upgraded = yield from Together([upgrade(call, call.token, grant.reading) for call, grant in ours], batch.limit)
        for (call, _), done in zip(ours, upgraded):
            if done is not None:
                call.outcome = done
                function.finish(call, done)
        ours = [(call, grant) for (call, grant), done in zip(ours, upgraded) if done is None]
    stopped = interrupted(upgraded)
    loaded = [] if stopped is not None else (yield from batch.load_many([call for call, _ in ours]))
    stopped = stopped or interrupted(loaded)
    if stopped is not None:
        # Before the caller hears of it, whose process may be about to end: one by one would take long.
        yield from give_back_many([call for call, _ in (*ours, *holding)])
        for (call, _), done in zip(ours, loaded):
            call.outcome = done
        for call in calls:
            call.outcome = call.outcome or Outcome(error=stopped)
        return stopped
    stored: list[tuple[CachedCall, Sealed]] = []
    for (call, grant), done in zip(ours, loaded):
        reading = grant.reading
        if done is None:
            holding.append((call, lead(call, call.token, reading)))
            continue
        marks = together(captured(call, reading), done.marks)
        plain = done.error is None and done.keep and not done.declared and not function.late
        sealed = None
        if plain and marks is not None and len(marks) <= MARKS_LIMIT and not call.closed():
            sealed = function.seal(call, done, marks)
        if sealed is None or sealed.error is not None:
            holding.append((call, conclude(call, call.token, reading, done)))
        else:
            done.marks, done.sealed, call.outcome = marks, sealed, done
            stored.append((call, sealed))
    if stored:
        yield from store_many(stored)
        batch.done(len(stored))
    # Those that hold a lease first: nobody waits for another while others wait for it.
    yield from each(batch, holding)
    yield from each(batch, others)
    return None


def interrupted(outcomes: Sequence[Outcome | None]) -> BaseException | None:
    """What came from outside and ended one of these loads, if anything did."""
    return next((done.error for done in outcomes if done is not None and done.outside), None)


def give_back_many(calls: Sequence[CachedCall]) -> Flow[None]:
    """Releases the leases of these calls, in one round trip; see `load.give_back`."""
    if not calls:
        return
    function = calls[0].function
    try:
        yield from function.store.release_many([(call.key, call.token) for call in calls])
    except StoreError as error:
        function.store_failed(None, error)
        for call in calls:
            function.abandon(call.token)
    else:
        for call in calls:
            function.let_go(call.token)


def store_many(stored: Sequence[tuple[CachedCall, Sealed]]) -> Flow[None]:
    """Stores entries under their leases, in one round trip, and lets those go on who wait for them."""
    function = stored[0][0].function
    try:
        kept = yield from function.store.store_many([call.entry(call.token, sealed) for call, sealed in stored])
    except StoreError as error:
        function.store_failed(None, error)
        for call, _ in stored:
            function.abandon(call.token)
    else:
        for (call, sealed), each_kept in zip(stored, kept):
            call.kept(call.token, sealed, each_kept)
    for call, _ in stored:
        function.finish(call, call.outcome)


def filled(call: CachedCall, token: str, reading: Reading) -> Flow[Outcome]:
    """Serves what was stored between the read and the lease, and gives the lease back."""
    found = yield from answer(call, reading, Source.WAITED)
    yield from give_back(call, token)
    return found if found is not None else (yield from get(call))
