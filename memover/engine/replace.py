"""Results that replace what is stored: refreshed behind the callers, refreshed now, or known from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.answers import Outcome
from memover.engine.judge import FRESH
from memover.engine.load import give_back, lead
from memover.engine.marks import captured, with_late
from memover.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
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


def put(call: CachedCall, outcome: Outcome) -> Flow[None]:
    """Store a value known from elsewhere. Raises `StoreError` where the old entry would live on unnoticed.

    A store that was refused because another `set`, `refresh` or an invalidation came between is superseded by it, and
    that is no error. A lease that merely ended, by its time or by eviction, is taken again."""
    function = call.function
    late = function.late_names(call, outcome)
    if late is None:
        return
    for _ in range(_PUT_ATTEMPTS):
        token, began = function.new_token(), function.monotonic()
        try:
            yield from drop_older(call)
            grant = yield from call.acquire(token, force=True)
            marks = yield from with_late(call, grant.reading, captured(call, grant.reading), late)
            if marks is None:
                continue  # its tags had first to be learned
            sealed = function.seal(call, outcome, marks)
            if sealed is None or sealed.error is not None or call.closed():
                yield from give_back(call, token, failed=True)
                outcome.error = None if sealed is None else sealed.error
                return
            if (yield from call.store(token, sealed)):
                return
        except StoreError:
            function.abandon(token)
            raise
        if function.monotonic() - began < function.lease_ms / 1000:
            before = grant.reading.raw
            now = yield from call.look()
            if now.lease is not None or now.raw is None or now.raw != before:
                return
    raise StoreUnavailable(
        f"the value of {call.key.text} was not stored: its lease was lost {_PUT_ATTEMPTS} times. Raise lease_ttl=, or the "
        f"store's memory limit.",
        store=function.store.address,
    )


def drop_older(call: CachedCall) -> Flow[None]:
    """Remove this call's entries of the versions it is upgraded from, with their leases.

    Before the lease is taken by force: that ends whoever has read one of them already, and should this lease be lost
    before anything is stored, nobody who takes the next one finds them."""
    function = call.function
    for _, key in function.older_keys(call.key):
        yield from function.store.drop(key.entry, key.lease, function.new_token(), ())
