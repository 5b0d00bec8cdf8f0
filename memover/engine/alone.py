"""A call without the store, or without a lease: what it is answered with, and whose load it may share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.answers import Outcome
from memover.engine.steps import Await
from memover.model import Source

if TYPE_CHECKING:
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.errors import StoreError

__all__ = ["alone", "storeless"]


def storeless(call: CachedCall, error: StoreError, arrival: int) -> Flow[Outcome]:
    """The store failed this call: raise, serve what is still usable, or load, as the function asked."""
    function = call.function
    function.store_failed(call.key, error)
    if function.policy.on_store_error == "raise":
        return Outcome(error=error)
    if function.policy.on_store_error == "stale":
        if call.usable is not None:
            stale = call.opened(call.usable, Source.STALE)
            if stale is not None:
                return stale
        last = None if call.closed() else function.last_answer(call)
        if last is not None:
            return last
    return (yield from alone(call, arrival))


def alone(call: CachedCall, arrival: int) -> Flow[Outcome]:
    """Loads without a lease and stores nothing; shares only a load of this process that began after this call did."""
    function = call.function
    deadline = function.monotonic() + function.wait_seconds
    while (left := deadline - function.monotonic()) > 0:
        flight = function.load_unleased(call)
        if flight is call.flight or not function.begin_wait(call, flight):
            break
        try:
            yield from Await(flight, left)
        finally:
            function.end_wait(call, flight)
        if flight.number > arrival:
            shared = call.own(flight.outcome)
            if shared is not None:
                return shared
    outcome = yield from function.load(call)
    outcome.marks = None
    return outcome
