"""The plainest miss in one frame: a `def` function on one Redis server, no entry there, nobody looking on.

What `engine.load` says as flows is written out here for the case in which each step has its usual answer: the lease is ours,
the function returns, the result can be stored. Whatever else happens goes on in the flow that says what to do then. A test
holds the two together, event by event.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.engine import load as flows
from memover.engine.answers import Outcome, Reading
from memover.engine.call import CachedCall
from memover.engine.marks import captured
from memover.engine.steps import POSTED
from memover.errors import StoreError
from memover.latch import FramePresence
from memover.model import Source
from memover.runtime.dependencies import enter, leave
from memover.runtime.flights import Flight
from memover.runtime.hit import settled
from memover.runtime.results import evaluated, is_lazy
from memover.runtime.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.store import Seen
    from memover.model import Key
    from memover.runtime.function import Function

__all__ = ["straight_miss"]

LOADED = Source.LOADED


def straight_miss(
    function: Function,
) -> Callable[[Key, tuple[Any, ...], dict[str, Any], Seen, float], Any] | None:
    """What follows a read that found no entry, outside any load; None where a miss of this function may be more than that."""
    store: Any = function.state.store
    link = store.straight
    if link is None or function.near is not None or function.soft_name is not None or function.tags.late:
        return None
    witness, exchange = function.witness, link.exchange
    observers, counters = function.observers, function.counters
    state, tracks = function.state, function.policy.track_dependencies

    def miss(key: Key, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Seen, began: float) -> Any:
        call = CachedCall(function, key, args, kwargs, flight=Flight())
        call.presence = call.flight.presence = presence = FramePresence()
        done: Any = None
        try:
            if not witness.owed:
                witness.trusts(seen.names, seen.tokens)
            arrival, token = function.arrive(), function.new_token()
            step = store.acquire(call.request(token))
            try:
                granted = step.read(exchange(step))
            except StoreError as error:
                function.abandon(token)
                done = run(flows.storeless(call, error, arrival))
            else:
                names, tokens, raw, _ = granted.seen
                if not granted.ours or raw is not None or function.upgrades:
                    deadline = function.monotonic() + function.wait_seconds
                    done = run(flows.granted(call, call.granted(granted), token, arrival, deadline))
                else:
                    if not witness.owed:
                        witness.trusts(names, tokens)
                    value, raised = None, None
                    entered = enter((call,), state, tracks)
                    start = perf_counter()
                    try:
                        value = function.function(*args, **kwargs)
                        if is_lazy(value):
                            value = evaluated(value)
                    except BaseException as error:
                        raised = error
                    finally:
                        seconds = perf_counter() - start
                        leave(entered)
                    done = function.loaded(call, value, raised, seconds, entered[0].collector)
                    reading = Reading(names, tokens, None, None)
                    if (
                        raised is not None
                        or done.error is not None
                        or done.marks != ()
                        or done.declared
                        or not done.keep
                    ):
                        done = run(flows.conclude(call, token, reading, done))
                    else:
                        done.marks = marks = captured(call, reading)
                        sealed = function.seal(call, done, marks)
                        if sealed is None or sealed.error is not None or call.closed():
                            done = run(flows.keep(call, token, done, sealed))
                        else:
                            done.sealed = sealed
                            storing = call.storing(token, sealed)
                            try:
                                answers = exchange(storing)
                                if answers is POSTED:
                                    function.post(token)
                                else:
                                    call.kept(token, sealed, storing.read(answers))
                            except StoreError as error:
                                run(flows.not_stored(call, token, error))
        finally:
            function.finish(call, done if done.__class__ is Outcome else None)
            presence.forget()
            raised = None  # its traceback refers to this frame
        if done.error is None and done.source is LOADED and not observers.busy:
            counters.misses += 1
            return done.value
        try:
            return settled(done, call, began)
        finally:
            del done

    return miss
