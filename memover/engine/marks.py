"""The marks that a result is stored with: the tokens read before its load, and those of what the load used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memover.engine.answers import Marks, Reading
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.engine.store import Seen

__all__ = ["MARKS_LIMIT", "captured", "coarse", "together", "with_late"]

MARKS_LIMIT = 32
"""More tokens than this are replaced by one that moves with every invalidation: what it stands for is a superset."""


def captured(call: CachedCall, reading: Reading | Seen) -> Marks:
    """The required names with the tokens they had before the load."""
    if call.required == 1:
        return ((reading.names[0], reading.tokens[0] or b""),)
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
    """Adds the tags known only now, as they were before the load; None when that cannot be told."""
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
