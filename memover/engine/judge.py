"""The one place that decides whether a stored entry may answer a call. Pure: no clock, no store, no user code.

| the entry                                                        | verdict |
|------------------------------------------------------------------|---------|
| absent                                                           | DEAD    |
| of another generation, or any further mark is not current        | DEAD    |
| `usable_until` reached                                           | DEAD    |
| `fresh_until` reached, or older than the call's `max_age`        | STALE   |
| otherwise                                                        | FRESH   |

Generations and marks are compared byte for byte: no order, no clock enters, so skew cannot revive an entry.
An entry from the future (another machine's clock) has age 0.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.codec.envelope import Header

__all__ = ["DEAD", "FRESH", "STALE", "Verdict", "judge"]


class Verdict(Enum):
    """What may be done with an entry."""

    DEAD = "dead"
    STALE = "stale"
    FRESH = "fresh"


DEAD, STALE, FRESH = Verdict.DEAD, Verdict.STALE, Verdict.FRESH


def judge(
    header: Header | None,
    names: Sequence[bytes],
    tokens: Sequence[bytes | None],
    now: float,
    max_age: float | None = None,
) -> Verdict:
    """Judge an entry by the tokens read with it: `tokens[0]` is the generation, the rest belong to `names[1:]`."""
    if header is None or header.generation != tokens[0]:
        return DEAD
    if header.marks or len(tokens) > 1:
        current = dict(zip(names[1:], tokens[1:]))
        if len(current) != len(header.marks) or any(current.get(name) != token for name, token in header.marks):
            return DEAD
    if now >= header.usable_until:
        return DEAD
    if now >= header.fresh_until or (max_age is not None and now - header.created_at > max_age):
        return STALE
    return FRESH
