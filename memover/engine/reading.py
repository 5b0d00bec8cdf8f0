"""What a reading comes to: whether its tokens may be believed, and the outcome of an entry that `judge` finds fresh."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from memover.engine.judge import FRESH, STALE, UNKNOWN
from memover.model import Source

if TYPE_CHECKING:
    from memover.codec.envelope import Header
    from memover.engine.answers import Outcome, Reading
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = ["answer", "early", "peek", "trusted"]

_LEARN_LIMIT = 3
_LEAST_LOAD_SECONDS = 0.001


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
