"""Results that replace what is stored: refreshed behind the callers, refreshed now, or known from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
    """Refreshes behind the callers: loads if the lease is free, and unless an entry newer than `since` has come in."""
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
    """Runs the function now and stores what it returns, whatever is stored or under way."""
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
    """Stores a value known from elsewhere. False: it is not to be stored, and what is stored is another. Raises `StoreError`.

    A store that was refused because another `set`, `refresh`, load or invalidation came between is superseded by it, and
    that is no error; one that is still under way may fail, so what was to be replaced does not stay either. A lease that
    merely ended, by its time or by eviction, is asked for again, without force. The value is then stored under the tokens of
    the first time, and only if none of them has moved since."""
    function = call.function
    late = function.late_names(call, outcome)
    if late is None:
        return False
    call.call_name = function.call_name(call.key)
    first: _Captured | None = None
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
                marks = yield from with_late(call, reading, captured(call, reading), late)
                if marks is None:
                    continue  # its tags had first to be learned
                first = _Captured(reading.raw, marks, (call.call_name, reading.token(call.call_name) or b""))
            else:
                moved = first.moved(reading)
                if moved or reading.raw not in (None, first.raw):
                    yield from give_back(call, token)
                    if any(each.endswith(token.encode()) for each in moved):
                        break  # this request has put it back: whether anybody had moved it before it was lost is not known
                    return True
                # On a Cluster an invalidation ends the lease first and moves the call's token later.
                marks = first.all if call.spread else first.marks
            done = yield from _stored(call, token, outcome, marks)
            if done is not None:
                return done
        except StoreError:
            function.abandon(token)
            raise
    raise StoreUnavailable(
        f"the value of {call.key.text} was not stored: its lease was lost. Raise lease_ttl=, or the store's memory limit.",
        store=function.store.address,
    )


class _Captured(NamedTuple):
    """What `put` captures with the lease that it takes first. `own` is the call's own token, which tells an invalidation of this call
    from a lost lease."""

    raw: bytes | None
    marks: Marks
    own: tuple[bytes, bytes]

    @property
    def all(self) -> Marks:
        return (*self.marks, self.own)

    def moved(self, reading: Reading) -> list[bytes]:
        """The tokens of a later reading that are not those found first."""
        return [now for name, then in self.all if (now := reading.token(name)) not in (None, then)]


def _stored(call: CachedCall, token: str, outcome: Outcome, marks: Marks) -> Flow[bool | None]:
    """Whether the value was stored under the lease; None where that is lost. What is not to be stored gives the lease back."""
    sealed = call.function.seal(call, outcome, marks)
    if sealed is None or sealed.error is not None or call.closed():
        yield from give_back(call, token, failed=True)
        outcome.error = None if sealed is None else sealed.error
        return False
    return True if (yield from call.store(token, sealed)) else None


def drop_older(call: CachedCall) -> Flow[None]:
    """Removes this call's entries of the versions it is upgraded from, with their leases.

    This comes before the lease is taken by force, which ends a load that has read one of them already. If this lease is lost
    before anything is stored, the next holder finds none of them."""
    function = call.function
    for _, key in function.older_keys(call.key):
        yield from function.store.drop(key.entry, key.lease, function.new_token(), ())
