"""Results that replace what is stored: refreshed behind the callers, refreshed now, or known from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.answers import Outcome
from memover.engine.judge import FRESH
from memover.engine.load import give_back, lead
from memover.engine.marks import captured, with_late
from memover.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from memover.engine.answers import Marks, Reading
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = ["drop_older", "put", "refresh", "renew"]

_PUT_ATTEMPTS = 3


def renew(call: CachedCall, since: float) -> Flow[Outcome | None]:
    """Refresh behind the callers: load if the lease is free, and unless an entry newer than `since` has come in."""
    if call.closed():
        return None
    token = call.function.new_token()
    grant = yield from call.acquire(token)
    if not grant.ours:
        return None
    reading = grant.reading
    if reading.header is not None and reading.header.created_at > since and call.judge(reading) is FRESH:
        yield from give_back(call, token)
        return None
    return (yield from lead(call, token, reading))


def refresh(call: CachedCall) -> Flow[Outcome]:
    """Run the function now and store what it returns, whatever is stored or under way."""
    function = call.function
    if not call.closed():
        token = function.new_token()
        try:
            yield from drop_older(call)
            grant = yield from call.acquire(token, force=True)
        except StoreError as error:
            function.abandon(token)
            function.store_failed(call.key, error)
            if function.policy.on_store_error == "raise":
                return Outcome(error=error)
        else:
            return (yield from lead(call, token, grant.reading))
    unstored = yield from function.load(call)
    unstored.marks = None
    return unstored


def put(call: CachedCall, outcome: Outcome) -> Flow[bool]:
    """Store a value known from elsewhere. False: it is not to be stored, and what is stored is another. Raises `StoreError`.

    A store that was refused because another `set`, `refresh`, load or invalidation came between is superseded by it, and
    that is no error; one that is still under way may fail, so what was to be replaced does not stay either. A lease that
    merely ended, by its time or by eviction, is taken again, under the tokens of the first time: the call's own among them,
    which tells an invalidation of this call from a lost lease."""
    function = call.function
    late = function.late_names(call, outcome)
    if late is None:
        return False
    call.call_name = function.call_name(call.key)
    first: Reading | None = None
    marks: Marks = ()
    own: Marks = ()
    for _ in range(_PUT_ATTEMPTS):
        token = function.new_token()
        try:
            yield from drop_older(call)
            grant = yield from call.acquire(token, force=first is None)
            reading = grant.reading
            if not grant.ours:
                if first is not None and reading.raw is not None and reading.raw == first.raw:
                    yield from function.store.drop(call.key.entry, call.key.lease, function.new_token(), ())
                return True
            if first is None:
                captured_now = yield from with_late(call, reading, captured(call, reading), late)
                if captured_now is None:
                    continue  # its tags had first to be learned
                first, marks = reading, captured_now
                own = ((call.call_name, reading.token(call.call_name) or b""),)
                sealed = function.seal(call, outcome, marks)
            else:
                moved = _moved((*marks, *own), reading)
                if moved or reading.raw not in (None, first.raw):
                    yield from give_back(call, token)
                    if any(each.endswith(token.encode()) for each in moved):
                        break  # this request has put it back: whether anybody had moved it before it was lost is not known
                    return True
                # On a Cluster an invalidation ends the lease first and moves the call's token later.
                sealed = function.seal(call, outcome, (*marks, *own) if call.spread else marks)
            if sealed is None or sealed.error is not None or call.closed():
                yield from give_back(call, token, failed=True)
                outcome.error = None if sealed is None else sealed.error
                return False
            if (yield from call.store(token, sealed)):
                return True
        except StoreError:
            function.abandon(token)
            raise
    raise StoreUnavailable(
        f"the value of {call.key.text} was not stored: its lease was lost. Raise lease_ttl=, or the store's memory limit.",
        store=function.store.address,
    )


def _moved(marks: Marks, reading: Reading) -> list[bytes]:
    """The tokens read that are others than those of the marks."""
    return [now for name, then in marks if (now := reading.token(name)) not in (None, then)]


def drop_older(call: CachedCall) -> Flow[None]:
    """Remove this call's entries of the versions it is upgraded from, with their leases.

    Before the lease is taken by force: that ends whoever has read one of them already, and should this lease be lost
    before anything is stored, nobody who takes the next one finds them."""
    function = call.function
    for _, key in function.older_keys(call.key):
        yield from function.store.drop(key.entry, key.lease, function.new_token(), ())
