"""What a reading comes to: whether its tokens may be believed, and the outcome of an entry that `judge` finds fresh."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from memover.engine.judge import DEAD, FRESH, STALE, UNKNOWN
from memover.model import Source

if TYPE_CHECKING:
    from memover.codec.envelope import Header
    from memover.engine.answers import Outcome, Reading
    from memover.engine.call import CachedCall
    from memover.engine.judge import Verdict
    from memover.engine.steps import Flow

__all__ = ["answer", "early", "peek", "trusted", "verdict_on"]

_LEARN_LIMIT = 3
_LEAST_LOAD_SECONDS = 0.001


def answer(call: CachedCall, reading: Reading, source: Source) -> Flow[Outcome | None]:
    """The outcome of a reading that may be trusted and is fresh; else None, and a stale one is noted as usable."""
    verdict, reading = yield from verdict_on(call, reading)
    if verdict is STALE:
        call.usable = reading
    header = reading.header
    if verdict is not FRESH or header is None:
        return None
    beta = call.function.policy.beta
    if beta and early(header, call.function.now(), beta, call.function.chance()):
        yield from call.function.refresh_behind(call, 0.0, header.created_at)
    return call.opened(reading, source)


def peek(call: CachedCall) -> Flow[tuple[Reading, Outcome] | None]:
    """The entry that a call would be answered from now, opened, or None; nothing is loaded or changed."""
    if call.closed():
        return None
    verdict, reading = yield from verdict_on(call, (yield from call.read()))
    outcome = call.opened(reading, Source.FRESH) if verdict is FRESH else None
    return None if outcome is None else (reading, outcome)


def verdict_on(call: CachedCall, reading: Reading) -> Flow[tuple[Verdict, Reading]]:
    """The verdict on a reading, or on a later one where that had to be read with more tokens; DEAD for what is not trusted."""
    for _ in range(_LEARN_LIMIT):
        if call.owing(reading.names) or not (yield from trusted(call, reading)):
            break
        verdict = call.judge(reading)
        if verdict is UNKNOWN and reading.header is not None:
            call.learn([name for name, _ in reading.header.marks])
        elif verdict is FRESH and call.call_name:
            call.call_token = reading.token(call.call_name) or call.call_token
            if call.call_token is not None:
                return verdict, reading
            yield from call.ensure((call.call_name,))
        else:
            return verdict, reading
        reading = yield from call.read()
    return DEAD, reading


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
