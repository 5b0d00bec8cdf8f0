"""What a call does when its entry cannot simply be served. Generators of steps, no I/O of their own.

The rules that make the promises hold, each with a mutant in the tests that breaks it:

1.  The tokens in an entry were read before its load began (P1).
2.  The lease is taken before the load, and only its holder may store: an invalidation of the call deletes the lease
    and so stops every load under way from storing (P2).
3.  A load under way is shared by lease token, never by key: a caller that comes after an invalidation finds the lease gone, or
    taken under other tokens, and so cannot join a load begun before it (P1, P2). Only a load that has not even asked for its
    lease is shared by key: it begins after all who join it (`follow.joined`).
4.  What was waited for is judged like anything else that was read, by the terms of the caller that waited.
5.  Losing the lease, the store or the race only ever means "return the value, do not store it".
6.  Without the store, a load is shared only by callers that came before it began (P1), one at a time (P6).
7.  An entry carries the tokens of what its load used, as they were in what it used, not as they are now; a call's own
    token was read before its entry (P11). What cannot be tracked so is not stored.
8.  A tag known only from the result is taken as it was before the load, or only if no tag moved meanwhile (P1).

Here is the order of a call: read, lease, load, store. What a reading comes to is in `reading`, the tokens that a result is
stored with in `marks`, waiting for another's load in `follow`, loads without the store in `alone`, results that replace
others in `replace`, invalidations in `invalidate`, batches in `many`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.alone import alone, storeless
from memover.engine.answers import Outcome, Reading
from memover.engine.follow import follow, joined
from memover.engine.judge import FRESH
from memover.engine.marks import MARKS_LIMIT, captured, coarse, together, with_late
from memover.engine.reading import answer
from memover.errors import StoreError
from memover.model import Source

if TYPE_CHECKING:
    from memover.engine.answers import Grant, Sealed
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = [
    "conclude",
    "get",
    "give_back",
    "granted",
    "joined",
    "judged",
    "keep",
    "lead",
    "miss",
    "miss_within_windows",
    "not_stored",
    "obtain",
    "rescue",
    "resolve",
    "served",
    "storeless",
    "upgrade",
]


# -- reading ----------------------------------------------------------------------------------------------------------------


def get(call: CachedCall) -> Flow[Outcome]:
    """A whole cached call. `runtime.hit` writes its first steps out; a test holds the two to the same answers."""
    if call.closed():
        return (yield from alone(call, call.function.arrive()))
    try:
        reading = yield from call.read()
    except StoreError as error:
        return (yield from storeless(call, error, call.function.arrive()))
    return (yield from resolve(call, reading))


def served(call: CachedCall) -> Flow[Outcome | None]:
    """Reads and answers; None when that does not serve the call."""
    return (yield from answer(call, (yield from call.read()), Source.FRESH))


def resolve(call: CachedCall, reading: Reading) -> Flow[Outcome]:
    """Answers from what was read if it is fresh, else loads or waits."""
    return miss(call) if call.found_nothing(reading) else judged(call, reading)


def judged(call: CachedCall, reading: Reading) -> Flow[Outcome]:
    """As `resolve`, where there is an entry."""
    try:
        found = yield from answer(call, reading, Source.FRESH)
    except StoreError as error:
        return (yield from storeless(call, error, call.function.arrive()))
    return found if found is not None else (yield from miss(call))


# -- loading ----------------------------------------------------------------------------------------------------------------


def miss(call: CachedCall) -> Flow[Outcome]:
    """Serves what is stale while it is refreshed, where the function allows it; else loads or shares a load."""
    return obtain(call) if call.function.soft_name is None else miss_within_windows(call)


def miss_within_windows(call: CachedCall) -> Flow[Outcome]:
    """As `miss`, for a function with stale windows."""
    stale, policy = call.usable, call.function.policy
    if stale is not None and stale.header is not None and call.max_age is None:
        # A softly invalidated entry that has not reached its end yet is at the beginning of its windows.
        age = max(call.function.now() - stale.header.fresh_until, 0.0)
        ran: Outcome | bool = False
        if age < policy.stale_while_revalidate:
            ran = yield from call.function.refresh_behind(call, 0.0, stale.header.created_at)
        elif policy.soft_timeout is not None and age < policy.stale_if_error:
            ran = yield from call.function.refresh_behind(call, policy.soft_timeout, stale.header.created_at)
            if isinstance(ran, Outcome) and ran.error is None:
                return ran
        if ran is not False:
            outcome = call.opened(stale, Source.STALE)
            if outcome is not None:
                return outcome
    done = yield from obtain(call)
    if done.error is not None and not done.outside and done.sealed is None and not isinstance(done.error, StoreError):
        # Others who wait for this load accept what is stale by their own terms, not by this caller's.
        call.shared = done
        return rescue(call, done)
    return done


def rescue(call: CachedCall, failed: Outcome) -> Outcome:
    """The stale entry in place of an error, if the function allows it and there is one (RFC 5861, section 4)."""
    stale = call.usable
    if stale is None or stale.header is None or call.max_age is not None:
        return failed
    if max(call.function.now() - stale.header.fresh_until, 0.0) >= call.function.policy.stale_if_error:
        return failed
    outcome = call.opened(stale, Source.STALE_IF_ERROR)
    return failed if outcome is None else outcome


def obtain(call: CachedCall, deadline: float | None = None) -> Flow[Outcome]:
    """Takes the lease and loads, or shares the load of another caller that has it. `deadline`: of a wait that began before."""
    function = call.function
    arrival = function.arrive()
    token = function.new_token()
    if deadline is None:
        deadline = function.monotonic() + function.wait_seconds
    return (yield from granted(call, None, token, arrival, deadline))


def granted(call: CachedCall, grant: Grant | None, token: str, arrival: int, deadline: float) -> Flow[Outcome]:
    """Goes on from the answer to a first request for the lease; None: it has not been asked for yet."""
    function, source = call.function, Source.FRESH
    try:
        while True:
            if grant is None:
                grant = yield from call.acquire(token)
            reading = grant.reading
            found = None if call.found_nothing(reading) else (yield from answer(call, reading, source))
            if found is not None:
                if grant.ours:
                    yield from give_back(call, token)
                return found
            if grant.ours:
                break
            source = Source.WAITED
            outcome = yield from follow(call, grant, deadline, arrival)
            if outcome is not None:
                return outcome
            grant = None
    except StoreError as error:
        function.abandon(token)
        return (yield from storeless(call, error, arrival))
    if function.older_keys(call.key):
        upgraded = yield from upgrade(call, token, reading)
        if upgraded is not None:
            return upgraded
    return (yield from lead(call, token, reading))


def upgrade(call: CachedCall, token: str, reading: Reading) -> Flow[Outcome | None]:
    """Instead of a load: what an older version stored, made into this one's. None: load after all.

    It stands where the load stands, between the lease and the store, so the rules above hold for it as they do for a
    load: the older entry must be valid under the tokens captured with the lease, and is stored with them. What this version
    is tagged with and the older entry is not was not captured before the older load, so the function runs."""
    function = call.function
    if call.call_name:
        call.call_token = reading.token(call.call_name)
    try:
        for version, key in function.older_keys(call.key):
            seen = yield from function.store.read(key)
            header = function.read_header(key, seen.raw)
            if header is None:
                continue
            # Of what the older load depended on, the tokens as they are after its entry was read.
            names = [name for name, _ in header.marks if name not in call.names and not call.is_version(name)]
            tokens = (yield from call.ensure(names)) if names else []
            older = Reading((*call.names, *names), (*reading.tokens[: call.required], *tokens), seen.raw, header)
            if call.owing(older.names) or call.judge(older) is not FRESH:
                continue
            done = yield from function.upgrade(call, version, older)
            if done is None:
                return None
            call.ran = True
            if done.error is not None:
                yield from give_back(call, token, failed=not done.outside)
                return done
            assert done.sealed is not None, "an upgraded result is sealed"
            # A tag that the older entry does not carry may have been invalidated since its load began (P1).
            late, carried = function.late_names(call, done), {name for name, _ in header.marks}
            if late is None or any(name not in carried for name in late) or call.closed():
                return None
            yield from call.post(token, done.sealed)
            return done
    except StoreError as error:
        function.store_failed(call.key, error)
    return None


def lead(call: CachedCall, token: str, reading: Reading) -> Flow[Outcome]:
    """Loads under the lease and stores the result with the tokens read before it and those of what the load used."""
    if call.call_name:
        call.call_token = reading.token(call.call_name)
    done = yield from call.function.load(call)
    return (yield from conclude(call, token, reading, done))


def conclude(call: CachedCall, token: str, reading: Reading, done: Outcome) -> Flow[Outcome]:
    """Stores what a load came to, under the lease it was begun under, and gives the lease back."""
    function = call.function
    used, done.marks = done.marks, captured(call, reading)
    if done.error is not None and (done.outside or not function.policy.keeps(done.error)):
        done.marks = together(done.marks, used)
        yield from give_back(call, token, failed=not done.outside)
        return done
    marks = together(done.marks, used)
    late = function.late_names(call, done)
    if done.error is not None and late is None:
        # The function's own tags= callable raised, which is the outcome of this call.
        done.marks = marks
        yield from give_back(call, token, failed=True)
        return done
    try:
        if late or late is None:
            marks = None if late is None else (yield from with_late(call, reading, marks, late))
        if marks is not None and len(marks) > MARKS_LIMIT:
            marks = yield from coarse(call, marks)
    except StoreError as error:
        function.store_failed(call.key, error)
        marks = None
    done.marks = marks
    sealed = None if marks is None or not done.keep else function.seal(call, done, marks)
    return (yield from keep(call, token, done, sealed))


def keep(call: CachedCall, token: str, done: Outcome, sealed: Sealed | None) -> Flow[Outcome]:
    """Stores what a load came to, sealed; None: it is not to be stored."""
    if sealed is None or sealed.error is not None or call.closed():
        yield from give_back(call, token, failed=True)
        # An error that was to be cached and cannot be is still the function's own.
        if sealed is not None and sealed.error is not None and done.error is None:
            return Outcome(error=sealed.error, load_time=done.load_time, marks=done.marks)
        return done
    done.sealed = sealed
    try:
        yield from call.post(token, sealed)
    except StoreError as error:
        yield from not_stored(call, token, error)
    return done


def not_stored(call: CachedCall, token: str, error: StoreError) -> Flow[None]:
    """Storing the entry raised: report it, and end the wait of other callers."""
    call.function.store_failed(call.key, error)
    if error.refused:
        yield from give_back(call, token, failed=True)  # the store is there: it is this value that it does not take
    else:
        call.function.abandon(token)


def give_back(call: CachedCall, token: str, *, failed: bool = False) -> Flow[None]:
    """Releases the lease; when the store does not answer, it is released in the background, or ends by itself."""
    try:
        yield from call.release(token, failed=failed)
    except StoreError as error:
        call.function.store_failed(call.key, error)
        call.function.abandon(token)
