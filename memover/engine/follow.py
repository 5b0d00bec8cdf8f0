"""Waiting for the load of another caller: of this process, whose outcome is shared, or of another one, whose entry is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine import lease
from memover.engine.alone import alone
from memover.engine.reading import answer
from memover.engine.steps import Await, Sleep
from memover.model import Source

if TYPE_CHECKING:
    from memover.engine.answers import Grant, Marks, Outcome, Reading
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = ["follow", "joined", "stands"]

POLL_FIRST_SECONDS = 0.005
POLL_LAST_SECONDS = 0.1
POLL_SHARE = 0.15
"""Of what a waiter has waited already: so much later than the load, at most, it hears of the end of a load elsewhere. One
caller of each process polls; a load of 200 ms is asked for about twenty times."""


def follow(call: CachedCall, grant: Grant, deadline: float, arrival: int) -> Flow[Outcome | None]:
    """Waits for the load that holds the lease. None: it ended without an entry, so ask for the lease again."""
    function, holder = call.function, grant.holder
    if call.call_name:
        call.call_token = grant.reading.token(call.call_name)
    while True:
        left = deadline - function.monotonic()
        if left <= 0:
            return (yield from alone(call, arrival))
        flight = function.share(call, holder)
        if flight is call.flight:
            # No caller of this process has that lease: look again after a while, and let others wait for this one.
            poll = min(max((function.wait_seconds - left) * POLL_SHARE, POLL_FIRST_SECONDS), POLL_LAST_SECONDS)
            yield from Sleep(min(poll, left) * (0.75 + function.chance() / 2))
            shared = None
        elif function.orphan(holder):
            # Its caller was interrupted and cannot give it back.
            yield from function.store.release(call.key, holder, False)
            return None
        elif not function.begin_wait(call, flight):
            return (
                yield from alone(call, arrival)
            )  # that load waits, in the end, for the one that this call is part of
        else:
            shared = yield from _outcome(call, flight, left)
        if shared is not None and (yield from stands(call, grant.reading, shared.marks)):
            return shared
        reading = yield from call.look()
        found = yield from answer(call, reading, Source.WAITED)
        if found is not None:
            return found
        if lease.has_failed(reading.lease, holder):
            return (yield from alone(call, arrival))
        if not lease.is_held(reading.lease, holder):
            return None


def joined(call: CachedCall, flight: Any, deadline: float) -> Flow[Outcome | None]:
    """Waits for a load that had not asked for its lease yet when this call came. None: it gave nothing to share.

    It reads its tokens, asks for its lease and runs the function after this call began, so whatever had been invalidated by
    then is in it: as in a load of this call's own (P1, P2), nothing needs to be compared."""
    function = call.function
    if not function.begin_wait(call, flight):
        return None
    return (yield from _outcome(call, flight, deadline - function.monotonic()))


def _outcome(call: CachedCall, flight: Any, seconds: float) -> Flow[Outcome | None]:
    """What a load comes to, as this call's own. The wait has been noted."""
    try:
        yield from Await(flight, seconds)
    finally:
        call.function.end_wait(call, flight)
    return call.own(flight.outcome)


def stands(call: CachedCall, reading: Reading, marks: Marks | None) -> Flow[bool]:
    """Whether a shared outcome stands under the tokens this caller has read, and under those of what its load used.

    The lease was taken under the required tokens alone: an invalidation of what the load used, or of a tag known only
    from its result, has not ended it. And a holder that lost the store may have ended its flight with anything."""
    required = call.required
    if marks is None or tuple(reading.tokens[:required]) != tuple(token for _, token in marks[:required]):
        return False
    more = [mark for mark in marks[required:] if not call.is_version(mark[0])]
    if not more:
        return True
    names = [name for name, _ in more]
    if call.owing(names):
        return False
    tokens = yield from call.ensure(names)
    return all(token == now for (_, token), now in zip(more, tokens))
