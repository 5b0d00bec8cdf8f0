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
7.  An entry carries the tokens of what its load used, as they were in what it used, not as they are now; a call's own
    token was read before its entry (P11). What cannot be tracked so is not stored.
8.  A tag known only from the result is stamped as it was before the load, or only if no tag moved meanwhile (P1).

The flows of invalidation are in `invalidate`.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from memover.engine.judge import FRESH, STALE, UNKNOWN
from memover.engine.ops import (
    Acquire,
    Behind,
    Board,
    Decode,
    DropOlder,
    Ensure,
    Flow,
    Grant,
    LastKnown,
    LateTags,
    Learn,
    Load,
    Look,
    Marks,
    Outcome,
    Read,
    Reading,
    ReadOlder,
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
    from memover.codec.envelope import Header
    from memover.engine.terms import Terms

__all__ = [
    "FAILED",
    "HELD",
    "MARKS_LIMIT",
    "early",
    "get",
    "miss",
    "peek",
    "put",
    "refresh",
    "renew",
    "resolve",
    "served",
    "upgrade",
]

HELD = b"L "
"""A lease slot reads `L <token> <tokens it was taken under>` while a load is under way ..."""
FAILED = b"F "
"""... and `F <token>` for a moment after a load that left no entry: whoever waited on it need not wait for the next."""

POLL_FIRST_SECONDS = 0.005
POLL_LAST_SECONDS = 0.1
MARKS_LIMIT = 32
"""More tokens than this are replaced by one that moves with every invalidation: what it stands for is a superset."""
_LESSONS_LIMIT = 3
_LEAST_LOAD_SECONDS = 0.001


# -- reading ----------------------------------------------------------------------------------------------------------------


def get(terms: Terms) -> Flow[Outcome]:
    """A whole cached call. The shells inline its first two operations; a test holds them to the same answers."""
    if terms.closed():
        return (yield from alone(terms, (yield Board())))
    try:
        reading = yield from read(terms)
    except StoreError as error:
        return (yield from storeless(terms, error, (yield Board())))
    return (yield from resolve(terms, reading))


def served(terms: Terms) -> Flow[Outcome | None]:
    """Read and answer, None when that does not serve the call."""
    return (yield from answer(terms, (yield from read(terms)), Source.FRESH))


def read(terms: Terms) -> Flow[Reading]:
    """Read the entry with its tokens; the call's own token, where it is wanted, not after the entry."""
    if terms.call_name and terms.spread:
        (terms.call_token,) = yield Ensure((terms.call_name,))
    reading: Reading = yield Read()
    return reading


def resolve(terms: Terms, reading: Reading) -> Flow[Outcome]:
    """Answer from what was read if it is fresh, else load or wait."""
    try:
        found = yield from answer(terms, reading, Source.FRESH)
    except StoreError as error:
        return (yield from storeless(terms, error, (yield Board())))
    return found if found is not None else (yield from miss(terms))


def answer(terms: Terms, reading: Reading, source: Source) -> Flow[Outcome | None]:
    """What a reading says if it may be trusted and is fresh, decoded; else None, and what is usable is noted."""
    for _ in range(_LESSONS_LIMIT):
        header = reading.header
        if terms.owing(reading.names) or not (yield from trusted(terms, reading)):
            return None
        verdict = terms.judge(reading)
        if verdict is UNKNOWN:
            assert header is not None, "there is no such verdict on nothing"
            yield Learn([name for name, _ in header.marks])
            reading = yield from read(terms)
            continue
        if verdict is STALE:
            terms.usable = reading
        if verdict is not FRESH or header is None:
            return None
        if terms.call_name:
            terms.call_token = reading.token(terms.call_name) or terms.call_token
            if terms.call_token is None:
                yield Ensure((terms.call_name,))
                reading = yield from read(terms)
                continue
        if terms.beta and early(header, terms.now(), terms.beta, terms.chance()):
            yield Behind(0.0, header.created_at)
        outcome: Outcome | None = yield Decode(reading, source)
        return outcome
    return None


def trusted(terms: Terms, reading: Reading) -> Flow[bool]:
    """Whether the tokens that this entry stands under may be believed.

    What was learned of a former entry and is not in this one does not count, nor does the call's own token. A mark that is
    missing or behind is put back, as the required tokens are before a load: nobody else may ever do so."""
    if terms.witness.trusts(reading.names, reading.tokens):
        return True
    if reading.header is None:
        return False
    marked = {name for name, _ in reading.header.marks}
    lost = [
        name
        for at, (name, token) in enumerate(zip(reading.names, reading.tokens))
        if (at < terms.required or name in marked) and not terms.witness.trusts((name,), (token,))
    ]
    if not lost:
        yield Learn([name for name, _ in reading.header.marks])
        return True
    if marks := [name for name in lost if name in marked]:
        yield Ensure(marks)
    return False


def early(header: Header, now: float, beta: float, chance: float) -> bool:
    """Whether this reader is elected to refresh a fresh entry: XFetch (Vattani, Chierichetti, Lowenstein, VLDB 2015).

    The lead is at most half the entry's life, or a slow load would be refreshed all the time."""
    lead = max(header.load_time, _LEAST_LOAD_SECONDS) * beta * -log(max(chance, 1e-12))
    return now + min(lead, (header.fresh_until - header.created_at) / 2) >= header.fresh_until


# -- loading ----------------------------------------------------------------------------------------------------------------


def miss(terms: Terms) -> Flow[Outcome]:
    """Serve what is stale while it is refreshed, where the function allows it; else load or share a load."""
    stale = terms.usable
    if stale is not None and stale.header is not None and terms.max_age is None:
        # A softly invalidated entry would be fresh still: it is at the beginning of its windows, if there are any.
        age = max(terms.now() - stale.header.fresh_until, 0.0)
        ran: Outcome | bool = False
        if age < terms.stale_while_revalidate:
            ran = yield Behind(0.0, stale.header.created_at)
        elif terms.soft_timeout is not None and age < terms.stale_if_error:
            ran = yield Behind(terms.soft_timeout, stale.header.created_at)
            if isinstance(ran, Outcome) and ran.error is None:
                return ran
        if ran is not False:
            outcome: Outcome | None = yield Decode(stale, Source.STALE)
            if outcome is not None:
                return outcome
    done = yield from obtain(terms)
    if isinstance(done.error, Exception) and done.sealed is None and not isinstance(done.error, StoreError):
        return (yield from rescue(terms, done))
    return done


def rescue(terms: Terms, failed: Outcome) -> Flow[Outcome]:
    """The stale entry in place of an error, if the function allows it and there is one (RFC 5861, section 4)."""
    stale = terms.usable
    if stale is None or stale.header is None or terms.max_age is not None:
        return failed
    if max(terms.now() - stale.header.fresh_until, 0.0) >= terms.stale_if_error:
        return failed
    outcome: Outcome | None = yield Decode(stale, Source.STALE_IF_ERROR)
    return failed if outcome is None else outcome


def obtain(terms: Terms) -> Flow[Outcome]:
    """Take the lease and load, or share the load of whoever has it."""
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
        return (yield from storeless(terms, error, ticket))
    if terms.upgrades:
        upgraded = yield from upgrade(terms, token, grant.reading)
        if upgraded is not None:
            return upgraded
    return (yield from lead(terms, token, grant.reading))


def upgrade(terms: Terms, token: str, reading: Reading) -> Flow[Outcome | None]:
    """Instead of a load: what an older version stored, made into this one's. None: load after all.

    It stands where the load stands, between the lease and the store, so the rules above hold for it as they do for a
    load: the older entry must be valid under the tokens captured with the lease, and is stamped with them."""
    if terms.call_name:
        terms.call_token = reading.token(terms.call_name)
    try:
        for version in terms.upgrades:
            older: Reading = yield ReadOlder(version)
            if older.header is None:
                continue
            # Of what the older load depended on, the tokens as they are after its entry was read.
            names = [
                mark[0] for mark in older.header.marks if mark[0] not in terms.names and not terms.is_version(mark[0])
            ]
            tokens: list[bytes] = (yield Ensure(names)) if names else []
            older = Reading(
                (*terms.names, *names), (*reading.tokens[: terms.required], *tokens), older.raw, older.header
            )
            if terms.owing(older.names) or terms.judge(older) is not FRESH:
                continue
            done: Outcome | None = yield Upgrade(token, version, older)
            if done is None:
                return None
            if done.error is not None:
                yield from give_back(token, failed=isinstance(done.error, Exception))
                return done
            if terms.closed():
                return None
            assert done.sealed is not None, "what was upgraded was sealed"
            yield Store(token, done.sealed)
            return done
    except StoreError:
        pass
    return None


def lead(terms: Terms, token: str, reading: Reading) -> Flow[Outcome]:
    """Load under the lease and store what came of it, stamped with what was read before and what the load used."""
    if terms.call_name:
        terms.call_token = reading.token(terms.call_name)
    done: Outcome = yield Load(token)
    return (yield from conclude(terms, token, reading, done))


def conclude(terms: Terms, token: str, reading: Reading, done: Outcome) -> Flow[Outcome]:
    """Store what a load came to, under the lease it was begun under, and give the lease back."""
    used, done.marks = done.marks, captured(terms, reading)
    if done.error is not None and not terms.keeps(done.error):
        done.marks = together(done.marks, used)
        yield from give_back(token, failed=isinstance(done.error, Exception))
        return done
    marks = together(done.marks, used)
    try:
        late = yield LateTags(done)
        if isinstance(late, Outcome):
            late.marks = marks
            yield from give_back(token, failed=True)
            return late
        marks = yield from with_late(terms, reading, marks, late)
        if marks is not None and len(marks) > MARKS_LIMIT:
            marks = yield from coarse(terms, marks)
    except StoreError:
        marks = None
    done.marks = marks
    sealed = None if marks is None or not done.keep else (yield Seal(done, marks))
    if sealed is None or sealed.error is not None or terms.closed():
        yield from give_back(token, failed=True)
        # An error that was to be cached and cannot be is still the function's own.
        if sealed is not None and sealed.error is not None and done.error is None:
            return Outcome(error=sealed.error, load_time=done.load_time, marks=done.marks)
        return done
    done.sealed = sealed
    try:
        yield Store(token, sealed)
    except StoreError:
        pass  # the lease ends by itself, and whoever waits takes over
    return done


def captured(terms: Terms, reading: Reading) -> Marks:
    """The required names with the tokens they had before the load."""
    return tuple((name, token or b"") for name, token in zip(reading.names[: terms.required], reading.tokens))


def together(required: Marks, used: Marks | None) -> Marks | None:
    """The required marks and those of what was used; None where they say different things of one name."""
    if used is None:
        return None
    if not used:
        return required
    first = dict(required)
    if any(first.get(name, token) != token for name, token in used):
        return None
    return (*required, *(mark for mark in used if mark[0] not in first))


def with_late(terms: Terms, reading: Reading, marks: Marks | None, late: list[bytes]) -> Flow[Marks | None]:
    """Add the tags known only now, as they were before the load; None when that cannot be told."""
    if not late or marks is None:
        return marks
    known = {name for name, _ in marks}
    late = [name for name in late if name not in known]
    captured = {name: token for name in late if (token := reading.token(name)) is not None}
    asked = [name for name in late if name not in captured]
    clock = terms.clock_name and reading.token(terms.clock_name)
    if asked:
        yield Learn([*(name for name in known if not terms.is_version(name)), *late])
        if not clock:
            yield Ensure(asked)  # so that they are there to be read before the next load
            return None
        *tokens, clock_now = yield Ensure((*asked, terms.clock_name))
        if clock_now != clock and not all(terms.older(token, clock) for token in tokens):
            return None
        captured.update(zip(asked, tokens))
    return (*marks, *((name, captured[name]) for name in late))


def coarse(terms: Terms, marks: Marks) -> Flow[Marks | None]:
    """Fewer marks that stand for more: the required ones and the token that moves with every invalidation.

    Those given up are read once more after that token: what has moved before it, it does not tell."""
    (token,) = yield Ensure((terms.coarse_name,))
    rest = [mark for mark in marks[terms.required :] if not terms.is_version(mark[0])]
    now = yield Ensure([name for name, _ in rest])
    if any(token_now != mark[1] for token_now, mark in zip(now, rest)):
        return None
    return (*marks[: terms.required], (terms.coarse_name, token), *(m for m in marks if terms.is_version(m[0])))


def follow(terms: Terms, grant: Grant, deadline: float, ticket: int) -> Flow[Outcome | None]:
    """Wait for the load that holds the lease. None: it ended without an entry, so ask for the lease again."""
    poll = POLL_FIRST_SECONDS
    if terms.call_name:
        terms.call_token = grant.reading.token(terms.call_name)
    while True:
        left = deadline - terms.monotonic()
        if left <= 0:
            return (yield from alone(terms, ticket))
        shared: Outcome | None = yield Wait(grant.holder, left, min(poll, left))
        if shared is not None and (yield from stands(terms, grant.reading, shared.marks)):
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


def stands(terms: Terms, reading: Reading, marks: Marks | None) -> Flow[bool]:
    """Whether a shared outcome stands under the tokens this caller has read, and under those of what its load used.

    The lease was taken under the required tokens alone: an invalidation of what the load used, or of a tag known only
    from its result, has not ended it. And the flight of a holder who has lost the store may have come to anything."""
    if marks is None or tuple(reading.tokens[: terms.required]) != tuple(token for _, token in marks[: terms.required]):
        return False
    more = [mark for mark in marks[terms.required :] if not terms.is_version(mark[0])]
    if not more:
        return True
    names = [name for name, _ in more]
    if terms.owing(names):
        return False
    tokens: list[bytes] = yield Ensure(names)
    return all(token == now for (_, token), now in zip(more, tokens))


def storeless(terms: Terms, error: StoreError, ticket: int) -> Flow[Outcome]:
    """The store failed this call: raise, serve what is still usable, or load, as the function asked."""
    if terms.on_store_error == "raise":
        return Outcome(error=error)
    if terms.on_store_error == "stale":
        if terms.usable is not None:
            stale: Outcome | None = yield Decode(terms.usable, Source.STALE)
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
    outcome.marks = None
    return outcome


# -- the helpers ------------------------------------------------------------------------------------------------------------


def renew(terms: Terms, since: float) -> Flow[Outcome | None]:
    """Refresh behind the callers: load if the lease is free, and unless an entry newer than `since` has come in."""
    if terms.closed():
        return None
    token = terms.new_token()
    grant: Grant = yield Acquire(token)
    if not grant.ours:
        return None
    reading = grant.reading
    if reading.header is not None and reading.header.created_at > since and terms.judge(reading) is FRESH:
        yield from give_back(token)
        return None
    return (yield from lead(terms, token, reading))


def refresh(terms: Terms) -> Flow[Outcome]:
    """Run the function now and store what it returns, whatever is stored or under way."""
    unstored: Outcome
    if terms.closed():
        unstored = yield Load(None)
        unstored.marks = None
        return unstored
    token = terms.new_token()
    try:
        grant: Grant = yield Acquire(token, force=True)
        if terms.upgrades:
            # Else an upgrade could bring back what was there before, once this result has expired.
            yield DropOlder(terms.new_token())
    except StoreError as error:
        if terms.on_store_error == "raise":
            return Outcome(error=error)
        unstored = yield Load(None)
        unstored.marks = None
        return unstored
    return (yield from lead(terms, token, grant.reading))


def put(terms: Terms, outcome: Outcome) -> Flow[bool]:
    """Store a value known from elsewhere. A store failure is thrown on: the old entry would live on unnoticed."""
    token = terms.new_token()
    marks: Marks | None = None
    late = yield LateTags(outcome)
    if isinstance(late, Outcome):
        outcome.error = late.error
        return False
    for _ in range(2):  # once more where its tags have first to be learned
        grant: Grant = yield Acquire(token, force=True)
        marks = yield from with_late(terms, grant.reading, captured(terms, grant.reading), late)
        if marks is not None:
            break
    if terms.upgrades:
        yield DropOlder(terms.new_token())
    sealed = None if marks is None else (yield Seal(outcome, marks))
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
    for _ in range(_LESSONS_LIMIT):
        reading = yield from read(terms)
        if terms.owing(reading.names) or not (yield from trusted(terms, reading)):
            return None
        verdict = terms.judge(reading)
        if verdict is FRESH:
            if terms.call_name:
                terms.call_token = reading.token(terms.call_name) or terms.call_token
                if terms.call_token is None:
                    yield Ensure((terms.call_name,))
                    continue
            outcome: Outcome | None = yield Decode(reading, Source.FRESH)
            return None if outcome is None else (reading, outcome)
        if verdict is not UNKNOWN or reading.header is None:
            return None
        yield Learn([name for name, _ in reading.header.marks])
    return None


def give_back(token: str, *, failed: bool = False) -> Flow[None]:
    """Release the lease; when the store cannot be told, the lease ends by itself."""
    try:
        yield Release(token, failed)
    except StoreError:
        pass
