"""The protocol: what a call does when its entry cannot simply be served. Generators of operations, no I/O.

The rules that make the promises hold, each with a mutant in the tests that breaks it:

1.  The tokens stamped into an entry were read before its load began (P1).
2.  The lease is taken before the load, and only its holder may store: an invalidation of the call deletes the lease
    and so kills the store of every load under way (P2).
3.  A load is shared by lease token, never by key: whoever comes after an invalidation finds the lease gone, or taken
    under other tokens, and so cannot join a load begun before it (P1, P2).
4.  What was waited for is judged like anything else that was read.
5.  Losing the lease, the store or the race only ever means "return the value, do not store it".
6.  Without the store, a load is shared only by callers that came before it began (P1), one at a time (P6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.judge import FRESH, STALE, judge
from memover.engine.ops import (
    Acquire,
    Board,
    Bump,
    Decode,
    Drop,
    DropOlder,
    Flow,
    Grant,
    LastKnown,
    Load,
    Look,
    Outcome,
    Read,
    Reading,
    Release,
    Ride,
    Seal,
    Store,
    Upgrade,
    Wait,
)
from memover.errors import StoreError
from memover.model import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.generations import Witness
    from memover.policy import OnStoreError

__all__ = ["FAILED", "HELD", "Terms", "get", "invalidate", "invalidate_all", "miss", "peek", "put", "refresh", "upgrade"]

HELD = b"L "
"""A lease slot reads `L <token> <tokens it was taken under>` while a load is under way ..."""
FAILED = b"F "
"""... and `F <token>` for a moment after a load that left no entry: whoever waited on it need not wait for the next."""

POLL_FIRST_SECONDS = 0.005
POLL_LAST_SECONDS = 0.1


class Terms:
    """What the flows of one call are told: its names, its limits, its clocks. Data and three callables."""

    __slots__ = ("entry", "max_age", "monotonic", "names", "new_token", "now", "on_store_error", "upgrades", "wait_seconds", "witness")

    def __init__(
        self,
        *,
        entry: bytes,
        names: Sequence[bytes],
        witness: Witness,
        on_store_error: OnStoreError,
        wait_seconds: float,
        max_age: float | None,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        new_token: Callable[[], str],
        upgrades: bool = False,
    ) -> None:
        self.entry = entry
        self.names = names
        self.witness = witness
        self.on_store_error = on_store_error
        self.wait_seconds = wait_seconds
        self.max_age = max_age
        self.now = now
        self.monotonic = monotonic
        self.new_token = new_token
        self.upgrades = upgrades

    def closed(self) -> bool:
        """Whether an invalidation that would concern this call is still owed to the store."""
        return self.witness.owes(self.names, self.entry)


def get(terms: Terms) -> Flow[Outcome]:
    """A whole cached call. The shells inline its first two operations; a test holds them to the same answers."""
    if terms.closed():
        return (yield from alone(terms, (yield Board())))
    try:
        reading = yield Read()
    except StoreError as error:
        return (yield from storeless(terms, error, (yield Board())))
    found = yield from answer(terms, reading, Source.FRESH)
    return found if found is not None else (yield from miss(terms, reading))


def answer(terms: Terms, reading: Reading, source: Source) -> Flow[Outcome | None]:
    """What a reading says if it may be trusted and is fresh, decoded; else None."""
    if not terms.witness.trusts(terms.names, reading.tokens):
        return None
    if judge(reading.header, terms.names, reading.tokens, terms.now(), terms.max_age) is not FRESH:
        return None
    outcome: Outcome | None = yield Decode(reading, source)
    return outcome


def miss(terms: Terms, reading: Reading | None) -> Flow[Outcome]:
    """Take the lease and load, or share the load of whoever has it. `reading` is what was found wanting, if any."""
    ticket: int = yield Board()
    token = terms.new_token()
    deadline = terms.monotonic() + terms.wait_seconds
    source = Source.FRESH
    try:
        while True:
            grant: Grant = yield Acquire(token)
            found = yield from answer(terms, grant.reading, source)
            if found is not None:
                if grant.ours:
                    yield from give_back(token)
                return found
            if grant.ours:
                break
            source = Source.WAITED
            outcome = yield from follow(terms, grant, deadline, ticket)
            if outcome is not None:
                return outcome
    except StoreError as error:
        return (yield from storeless(terms, error, ticket, reading))
    if terms.upgrades:
        upgraded = yield from upgrade(terms, token, grant.reading.tokens)
        if upgraded is not None:
            return upgraded
    return (yield from lead(terms, token, grant.reading.tokens))


def upgrade(terms: Terms, token: str, tokens: Sequence[bytes | None]) -> Flow[Outcome | None]:
    """Instead of a load: what an older version stored, made into this one's. None: load after all.

    It stands where the load stands, between the lease and the store, so the rules above hold for it as they do for a
    load: the older entry must be valid under the tokens captured with the lease, and is stamped with them."""
    try:
        done: Outcome | None = yield Upgrade(token, tokens, terms.max_age)
    except StoreError:
        return None
    if done is None:
        return None
    if done.error is not None or terms.closed():
        yield from give_back(token, failed=isinstance(done.error, Exception))
        return done if done.error is not None else None
    assert done.sealed is not None, "what was upgraded was sealed"
    try:
        yield Store(token, done.sealed)
    except StoreError:
        pass  # as after a load
    return done


def lead(terms: Terms, token: str, tokens: Sequence[bytes | None]) -> Flow[Outcome]:
    """Load under the lease and store what came of it, stamped with what was read before."""
    done: Outcome = yield Load(token)
    if done.error is not None:
        yield from give_back(token, failed=isinstance(done.error, Exception))
        return done
    sealed = yield Seal(done, tokens)
    if sealed is None or sealed.error is not None:
        yield from give_back(token, failed=True)
        return done if sealed is None else Outcome(error=sealed.error, load_time=done.load_time)
    done.sealed = sealed
    if terms.closed():
        yield from give_back(token, failed=True)
        return done
    try:
        yield Store(token, sealed)
    except StoreError:
        pass  # the lease ends by itself, and whoever waits takes over
    return done


def follow(terms: Terms, grant: Grant, deadline: float, ticket: int) -> Flow[Outcome | None]:
    """Wait for the load that holds the lease. None: it ended without an entry, so ask for the lease again."""
    poll = POLL_FIRST_SECONDS
    while True:
        left = deadline - terms.monotonic()
        if left <= 0:
            return (yield from alone(terms, ticket))
        shared: Outcome | None = yield Wait(grant.holder, left, min(poll, left))
        if shared is not None:
            return shared
        reading: Reading = yield Look()
        found = yield from answer(terms, reading, Source.WAITED)
        if found is not None:
            return found
        holder = grant.holder.encode()
        if reading.lease == FAILED + holder:
            return (yield from alone(terms, ticket))
        if reading.lease is None or not reading.lease.startswith(HELD + holder + b" "):
            return None
        poll = min(poll * 2, POLL_LAST_SECONDS)


def storeless(terms: Terms, error: StoreError, ticket: int, reading: Reading | None = None) -> Flow[Outcome]:
    """The store failed this call: raise, serve what is still usable, or load, as the function asked."""
    if terms.on_store_error == "raise":
        return Outcome(error=error)
    if terms.on_store_error == "stale":
        if reading is not None and reading.header is not None and terms.witness.trusts(terms.names, reading.tokens):
            verdict = judge(reading.header, terms.names, reading.tokens, terms.now())
            if verdict is STALE or verdict is FRESH:
                stale: Outcome | None = yield Decode(reading, Source.STALE)
                if stale is not None:
                    return stale
        known: Outcome | None = None if terms.closed() else (yield LastKnown())
        if known is not None:
            return known
    return (yield from alone(terms, ticket))


def alone(terms: Terms, ticket: int) -> Flow[Outcome]:
    """Load without a lease and store nothing; share only a load of this process that began after this call did."""
    deadline = terms.monotonic() + terms.wait_seconds
    while (left := deadline - terms.monotonic()) > 0:
        ride = yield Ride(ticket, left)
        if ride is True:
            break
        if ride is not None:
            shared: Outcome = ride
            return shared
    outcome: Outcome = yield Load(None)
    return outcome


def refresh(terms: Terms) -> Flow[Outcome]:
    """Run the function now and store what it returns, whatever is stored or under way."""
    if terms.closed():
        return (yield Load(None))
    token = terms.new_token()
    try:
        grant: Grant = yield Acquire(token, force=True)
        if terms.upgrades:
            # Else an upgrade could bring back what was there before, once this result has expired.
            yield DropOlder()
    except StoreError as error:
        return Outcome(error=error) if terms.on_store_error == "raise" else (yield Load(None))
    return (yield from lead(terms, token, grant.reading.tokens))


def put(terms: Terms, outcome: Outcome) -> Flow[bool]:
    """Store a value known from elsewhere. A store failure is thrown on: the old entry would live on unnoticed."""
    token = terms.new_token()
    grant: Grant = yield Acquire(token, force=True)
    if terms.upgrades:
        yield DropOlder()
    sealed = yield Seal(outcome, grant.reading.tokens)
    if sealed is None or sealed.error is not None or terms.closed():
        yield from give_back(token, failed=True)
        if sealed is not None and sealed.error is not None:
            outcome.error = sealed.error
        return False
    return bool((yield Store(token, sealed)))


def peek(terms: Terms) -> Flow[tuple[Reading, Outcome] | None]:
    """The entry that a call would be answered from now, decoded, or None; nothing is loaded or changed."""
    if terms.closed():
        return None
    reading: Reading = yield Read()
    found = yield from answer(terms, reading, Source.FRESH)
    return None if found is None else (reading, found)


def invalidate_all(nonce: str) -> Flow[bytes]:
    """Move the namespace to a new generation."""
    token: bytes = yield Bump(nonce)
    return token


def invalidate(*, older: bool = False) -> Flow[None]:
    """Remove this call's entry, and its lease with it, so that no load under way can store.

    Entries it could be upgraded from go first: after the last step nothing is left to make it from."""
    if older:
        yield DropOlder()
    yield Drop()


def give_back(token: str, *, failed: bool = False) -> Flow[None]:
    """Release the lease; when the store cannot be told, the lease ends by itself."""
    try:
        yield Release(token, failed)
    except StoreError:
        pass
