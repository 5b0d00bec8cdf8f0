"""The plain miss of a `def` function on a store that performs its steps in the calling thread: no generator, two steps.

It is what `engine.load` says of a call without windows, observers or an enclosing load that found no entry: take the
lease, load, store. The rules are the same, and so are the parts that keep them: the flight and the lease are noted before
the lease is asked for, the load is marked in its context, the lease holder alone stores, and the entry carries the
tokens read before its load. Where anything else turns out (the lease is another's, an entry has come, the load raised or
used cached results, the store failed), the flow goes on from there. Tests hold the two together.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.engine import load as flows
from memover.engine.call import CachedCall
from memover.engine.marks import captured
from memover.engine.steps import POSTED
from memover.errors import StoreError
from memover.latch import FramePresence
from memover.model import MISSING, Source
from memover.runtime.dependencies import enter, leave
from memover.runtime.flights import Flight
from memover.runtime.hit import absent, settled
from memover.runtime.results import evaluated, is_lazy
from memover.runtime.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.engine.answers import Outcome
    from memover.engine.store import Granted, Seen
    from memover.model import Key
    from memover.runtime.function import Function

    Missed = Callable[..., Any]

__all__ = ["direct_miss"]

LOADED = Source.LOADED


def direct_miss(function: Function) -> Missed | None:
    """What follows a read that found no entry for a call of this function, outside any load; None where its misses always go
    the whole way. Where the read was only `presumed`, and the lease is not given, it returns MISSING."""
    state, observers, witness = function.state, function.observers, function.witness
    direct = state.store.direct()
    if direct is None or function.soft_name is not None or function.near is not None or function.whole:
        return None
    take, put, most = direct.take, direct.put, direct.most
    load, tracks, counters = function.function, function.policy.track_dependencies, function.counters

    def miss(
        key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any], seen: Seen, began: float, presumed: bool = False
    ) -> Any:
        names, tokens, _, _ = seen
        if (
            not len(names) == key.required <= most
            or observers.busy
            or function.late
            or function.upgrades
            or witness.owed
            or not witness.trusts(names, tokens)
        ):
            return MISSING if presumed else absent(function, key, args, kwargs, None, seen, began)
        this = CachedCall(function, key, args, kwargs, flight=Flight())
        this.presence = this.flight.presence = presence = FramePresence()
        value = error = None
        done: Outcome | None = None
        try:
            arrival, token = function.arrive(), function.new_token()
            granted: Granted | None = None
            try:
                granted = take(this, token, seen)
            except StoreError as failure:
                function.abandon(token)
                done = run(flows.storeless(this, failure, arrival))
            if granted is not None and granted.ours and granted.seen.raw is None:
                if granted.seen is not seen:
                    seen = granted.seen
                    if not witness.owed:
                        witness.trusts(seen.names, seen.tokens)
                entered = enter((this,), state, tracks)
                started = perf_counter()
                try:
                    value = load(*args, **kwargs)
                    if is_lazy(value):
                        value = evaluated(value)
                except BaseException as raised:
                    error = raised
                finally:
                    seconds = perf_counter() - started
                    leave(entered)
                done = function.loaded(this, value, error, seconds, entered[0])
                if done.error is not None or done.marks != () or done.declared or not done.keep:
                    done = run(flows.conclude(this, token, this.reading(seen), done))
                else:
                    done = stored(this, token, seen, done)
            elif granted is not None:
                deadline = function.monotonic() + function.wait_seconds
                done = run(flows.granted(this, this.granted(granted), token, arrival, deadline))
            elif done is None:
                function.let_go(token)  # it was not given
                if presumed:
                    return MISSING
                done = run(flows.miss(this))
        except BaseException:
            this.left = True
            raise
        finally:
            function.finish(this, done)
            presence.forget()
            error = None  # its traceback refers to this frame
        assert done is not None, "it came to something"
        if done.error is None and done.source is LOADED and not observers.busy:
            counters.misses += 1
            this.counted = True
            return done.value
        try:
            return settled(done, this, began)
        finally:
            del done

    def stored(this: CachedCall, token: str, seen: Seen, done: Outcome) -> Outcome:
        # The end of `engine.load.conclude`.
        done.marks = marks = captured(this, seen)
        sealed = function.seal(this, done, marks)
        if sealed is None or sealed.error is not None or (witness.owed and this.closed()):
            return run(flows.keep(this, token, done, sealed))
        done.sealed = sealed
        try:
            kept = put(this, token, sealed)
            if kept is None:
                kept = run(this.storing(token, sealed))
            if kept is POSTED:
                function.post(token)
            else:
                this.kept(token, sealed, kept)
        except StoreError as error:
            run(flows.not_stored(this, token, error))
        return done

    return miss
