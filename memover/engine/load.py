"""What a call does when its entry cannot simply be served. Generators of steps, no I/O of their own.

The rules that make the promises hold, each with a mutant in the tests that breaks it:

1.  The tokens in an entry were read before its load began (P1).
2.  The lease is taken before the load, and only its holder may store: an invalidation of the call deletes the lease
    and so stops every load under way from storing (P2).
3.  A load is shared by lease token, never by key: a caller that comes after an invalidation finds the lease gone, or taken
    under other tokens, and so cannot join a load begun before it (P1, P2).
4.  What was waited for is judged like anything else that was read, by the terms of the caller that waited.
5.  Losing the lease, the store or the race only ever means "return the value, do not store it".
6.  Without the store, a load is shared only by callers that came before it began (P1), one at a time (P6).
7.  An entry carries the tokens of what its load used, as they were in what it used, not as they are now; a call's own
    token was read before its entry (P11). What cannot be tracked so is not stored.
8.  A tag known only from the result is taken as it was before the load, or only if no tag moved meanwhile (P1).

The flows of invalidation are in `invalidate`, those of batches in `many`.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from memover.engine import lease
from memover.engine.answers import Outcome, Reading
from memover.engine.judge import FRESH, STALE, UNKNOWN
from memover.engine.steps import Await, Sleep
from memover.errors import StoreError, StoreUnavailable
from memover.model import Source

if TYPE_CHECKING:
    from memover.codec.envelope import Header
    from memover.engine.answers import Grant, Marks
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = [
    "MARKS_LIMIT",
    "answer",
    "captured",
    "conclude",
    "early",
    "get",
    "give_back",
    "lead",
    "miss",
    "peek",
    "put",
    "refresh",
    "renew",
    "resolve",
    "served",
    "storeless",
    "together",
    "upgrade",
]

POLL_FIRST_SECONDS = 0.005
POLL_LAST_SECONDS = 0.1
MARKS_LIMIT = 32
"""More tokens than this are replaced by one that moves with every invalidation: what it stands for is a superset."""
_LEARN_LIMIT = 3
_LEAST_LOAD_SECONDS = 0.001
_PUT_ATTEMPTS = 3


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
    """Read and answer; None when that does not serve the call."""
    return (yield from answer(call, (yield from call.read()), Source.FRESH))


def resolve(call: CachedCall, reading: Reading) -> Flow[Outcome]:
    """Answer from what was read if it is fresh, else load or wait."""
    try:
        found = yield from answer(call, reading, Source.FRESH)
    except StoreError as error:
        return (yield from storeless(call, error, call.function.arrive()))
    return found if found is not None else (yield from miss(call))


def answer(call: CachedCall, reading: Reading, source: Source) -> Flow[Outcome | None]:
    """The outcome of a reading that may be trusted and is fresh; else None, and a stale one is noted as usable."""
    for _ in range(_LEARN_LIMIT):
        header = reading.header
        if call.owing(reading.names) or not (yield from trusted(call, reading)):
            return None
        verdict = call.judge(reading)
        if verdict is UNKNOWN:
            assert header is not None, "there is no such verdict without an entry"
            call.learn([name for name, _ in header.marks])
            reading = yield from call.read()
            continue
        if verdict is STALE:
            call.usable = reading
        if verdict is not FRESH or header is None:
            return None
        if call.call_name:
            call.call_token = reading.token(call.call_name) or call.call_token
            if call.call_token is None:
                yield from call.ensure((call.call_name,))
                reading = yield from call.read()
                continue
        beta = call.function.policy.beta
        if beta and early(header, call.function.now(), beta, call.function.chance()):
            yield from call.function.refresh_behind(call, 0.0, header.created_at)
        return call.opened(reading, source)
    return None


def trusted(call: CachedCall, reading: Reading) -> Flow[bool]:
    """Whether the tokens that this entry stands under may be believed.

    What was learned of a former entry and is not in this one does not count, nor does the call's own token. A mark that is
    missing or behind is put back here, as the required tokens are before a load: no other step ever reads it."""
    witness = call.function.witness
    if witness.trusts(reading.names, reading.tokens):
        return True
    if reading.header is None:
        return False
    marked = {name for name, _ in reading.header.marks}
    lost = [
        name
        for at, (name, token) in enumerate(zip(reading.names, reading.tokens))
        if (at < call.required or name in marked) and not witness.trusts((name,), (token,))
    ]
    if not lost:
        call.learn([name for name, _ in reading.header.marks])
        return True
    if marks := [name for name in lost if name in marked]:
        yield from call.ensure(marks)
    return False


def early(header: Header, now: float, beta: float, chance: float) -> bool:
    """Whether this reader is elected to refresh a fresh entry: XFetch (Vattani, Chierichetti, Lowenstein, VLDB 2015).

    The lead is at most half the entry's life, or a slow load would be refreshed all the time."""
    lead = max(header.load_time, _LEAST_LOAD_SECONDS) * beta * -log(max(chance, 1e-12))
    return now + min(lead, (header.fresh_until - header.created_at) / 2) >= header.fresh_until


# -- loading ----------------------------------------------------------------------------------------------------------------


def miss(call: CachedCall) -> Flow[Outcome]:
    """Serve what is stale while it is refreshed, where the function allows it; else load or share a load."""
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


def obtain(call: CachedCall) -> Flow[Outcome]:
    """Take the lease and load, or share the load of another caller that has it."""
    function = call.function
    arrival = function.arrive()
    token = function.new_token()
    deadline = function.monotonic() + function.wait_seconds
    source = Source.FRESH
    try:
        while True:
            grant = yield from call.acquire(token)
            found = yield from answer(call, grant.reading, source)
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
    except StoreError as error:
        function.abandon(token)
        return (yield from storeless(call, error, arrival))
    upgraded = yield from upgrade(call, token, grant.reading)
    if upgraded is not None:
        return upgraded
    return (yield from lead(call, token, grant.reading))


def upgrade(call: CachedCall, token: str, reading: Reading) -> Flow[Outcome | None]:
    """Instead of a load: what an older version stored, made into this one's. None: load after all.

    It stands where the load stands, between the lease and the store, so the rules above hold for it as they do for a
    load: the older entry must be valid under the tokens captured with the lease, and is stored with them. What this version
    is tagged with and the older entry is not was not captured before the older load, so the function runs."""
    function = call.function
    older_keys = function.older_keys(call.key)
    if not older_keys:
        return None
    if call.call_name:
        call.call_token = reading.token(call.call_name)
    try:
        for version, key in older_keys:
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
            if done.error is not None:
                yield from give_back(call, token, failed=not done.outside)
                return done
            assert done.sealed is not None, "an upgraded result is sealed"
            # A tag that the older entry does not carry may have been invalidated since its load began (P1).
            late, carried = function.late_names(call, done), {name for name, _ in header.marks}
            if late is None or any(name not in carried for name in late) or call.closed():
                return None
            yield from call.store(token, done.sealed)
            return done
    except StoreError as error:
        function.store_failed(call.key, error)
    return None


def lead(call: CachedCall, token: str, reading: Reading) -> Flow[Outcome]:
    """Load under the lease and store the result with the tokens read before it and those of what the load used."""
    if call.call_name:
        call.call_token = reading.token(call.call_name)
    done = yield from call.function.load(call)
    return (yield from conclude(call, token, reading, done))


def conclude(call: CachedCall, token: str, reading: Reading, done: Outcome) -> Flow[Outcome]:
    """Store what a load came to, under the lease it was begun under, and give the lease back."""
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
        marks = None if late is None else (yield from with_late(call, reading, marks, late))
        if marks is not None and len(marks) > MARKS_LIMIT:
            marks = yield from coarse(call, marks)
    except StoreError as error:
        function.store_failed(call.key, error)
        marks = None
    done.marks = marks
    sealed = None if marks is None or not done.keep else function.seal(call, done, marks)
    if sealed is None or sealed.error is not None or call.closed():
        yield from give_back(call, token, failed=True)
        # An error that was to be cached and cannot be is still the function's own.
        if sealed is not None and sealed.error is not None and done.error is None:
            return Outcome(error=sealed.error, load_time=done.load_time, marks=done.marks)
        return done
    done.sealed = sealed
    try:
        yield from call.store(token, sealed)
    except StoreError as error:
        function.store_failed(call.key, error)
        if error.refused:
            yield from give_back(call, token, failed=True)  # the store is there: it is this value that it does not take
        else:
            function.abandon(token)
    return done


def captured(call: CachedCall, reading: Reading) -> Marks:
    """The required names with the tokens they had before the load."""
    return tuple((name, token or b"") for name, token in zip(reading.names[: call.required], reading.tokens))


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


def with_late(call: CachedCall, reading: Reading, marks: Marks | None, late: list[bytes]) -> Flow[Marks | None]:
    """Add the tags known only now, as they were before the load; None when that cannot be told."""
    if not late or marks is None:
        return marks
    known = {name for name, _ in marks}
    late = [name for name in late if name not in known]
    tokens = {name: token for name in late if (token := reading.token(name)) is not None}
    asked = [name for name in late if name not in tokens]
    clock = call.clock_name and reading.token(call.clock_name)
    if asked:
        call.learn([*(name for name in known if not call.is_version(name)), *late])
        if not clock:
            yield from call.ensure(asked)  # so that they are there to be read before the next load
            return None
        *now, clock_now = yield from call.ensure((*asked, call.clock_name))
        if clock_now != clock and not all(call.older(token, clock) for token in now):
            return None
        tokens.update(zip(asked, now))
    return (*marks, *((name, tokens[name]) for name in late))


def coarse(call: CachedCall, marks: Marks) -> Flow[Marks | None]:
    """Fewer marks that stand for more: the required ones and the token that moves with every invalidation.

    Those given up are read once more after that token, because it does not tell of what moved before it was read."""
    (token,) = yield from call.ensure((call.function.coarse_name,))
    rest = [mark for mark in marks[call.required :] if not call.is_version(mark[0])]
    now = yield from call.ensure([name for name, _ in rest])
    if any(token_now != mark[1] for token_now, mark in zip(now, rest)):
        return None
    versions = (mark for mark in marks if call.is_version(mark[0]))
    return (*marks[: call.required], (call.function.coarse_name, token), *versions)


# -- sharing another's load -------------------------------------------------------------------------------------------------


def follow(call: CachedCall, grant: Grant, deadline: float, arrival: int) -> Flow[Outcome | None]:
    """Wait for the load that holds the lease. None: it ended without an entry, so ask for the lease again."""
    function, holder = call.function, grant.holder
    poll = POLL_FIRST_SECONDS
    if call.call_name:
        call.call_token = grant.reading.token(call.call_name)
    while True:
        left = deadline - function.monotonic()
        if left <= 0:
            return (yield from alone(call, arrival))
        flight = function.share(call, holder)
        if flight is call.flight:
            # No caller of this process has that lease: look again after a while, and let others wait for this one.
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
            try:
                yield from Await(flight, left)
            finally:
                function.end_wait(call, flight)
            shared = call.own(flight.outcome)
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
        poll = min(poll * 2, POLL_LAST_SECONDS)


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
    """Load without a lease and store nothing; share only a load of this process that began after this call did."""
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


# -- the helpers ------------------------------------------------------------------------------------------------------------


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


def peek(call: CachedCall) -> Flow[tuple[Reading, Outcome] | None]:
    """The entry that a call would be answered from now, opened, or None; nothing is loaded or changed."""
    if call.closed():
        return None
    for _ in range(_LEARN_LIMIT):
        reading = yield from call.read()
        if call.owing(reading.names) or not (yield from trusted(call, reading)):
            return None
        verdict = call.judge(reading)
        if verdict is FRESH:
            if call.call_name:
                call.call_token = reading.token(call.call_name) or call.call_token
                if call.call_token is None:
                    yield from call.ensure((call.call_name,))
                    continue
            outcome = call.opened(reading, Source.FRESH)
            return None if outcome is None else (reading, outcome)
        if verdict is not UNKNOWN or reading.header is None:
            return None
        call.learn([name for name, _ in reading.header.marks])
    return None


def give_back(call: CachedCall, token: str, *, failed: bool = False) -> Flow[None]:
    """Release the lease; when the store does not answer, it is released in the background, or ends by itself."""
    try:
        yield from call.release(token, failed=failed)
    except StoreError as error:
        call.function.store_failed(call.key, error)
        call.function.abandon(token)
