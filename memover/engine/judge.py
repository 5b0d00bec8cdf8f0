"""The one place that decides whether a stored entry may answer a call. Pure: no clock, no store, no user code.

| the entry                                                          | verdict |
|--------------------------------------------------------------------|---------|
| absent                                                             | DEAD    |
| of another generation                                              | DEAD    |
| lacks a mark that this call requires (the tags in the code changed)| DEAD    |
| a mark of it is not current (a tag, or what its load depended on)  | DEAD    |
| `usable_until` reached                                             | DEAD    |
| the token of a mark of it was not read                             | UNKNOWN |
| the soft mark is not current                                       | STALE   |
| `fresh_until` reached, or older than the call's `max_age`          | STALE   |
| otherwise                                                          | FRESH   |

The first row that fits counts. Generations and marks are compared byte for byte: no order, no clock enters, so skew
cannot revive an entry. An entry from the future (another machine's clock) has age 0. A mark whose name begins with
`VERSION` is not in the store: it says which schema version of another function the load used, and is held
against the versions that this process has in its source.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.codec.envelope import Header

__all__ = ["DEAD", "FRESH", "FRESH_SOURCE", "STALE", "UNKNOWN", "VERSION", "Verdict", "is_fresh", "judge"]

VERSION = b"@version:"


class Verdict(Enum):
    """What may be done with an entry."""

    DEAD = "dead"
    UNKNOWN = "unknown"
    STALE = "stale"
    FRESH = "fresh"


DEAD, UNKNOWN, STALE, FRESH = Verdict.DEAD, Verdict.UNKNOWN, Verdict.STALE, Verdict.FRESH


def judge(
    header: Header | None,
    names: Sequence[bytes],
    tokens: Sequence[bytes | None],
    now: float,
    max_age: float | None = None,
    *,
    required: int = 1,
    soft: bytes | None = None,
    versions: Mapping[bytes, bytes] | None = None,
) -> Verdict:
    """Judges an entry by the tokens read with it.

    `names` and `tokens` belong together; the first is the generation, the first `required` must all be in the
    entry, `soft` is the one among them that makes stale and not dead, or what its shards begin with. `versions` are
    this process's own.
    """
    if header is None or header.generation != tokens[0]:
        return DEAD
    softly = unknown = False
    if header.marks or required > 1:
        current = dict(zip(names[1:], tokens[1:]))
        stamped = dict(header.marks)
        if any(name not in stamped for name in names[1:required]):
            return DEAD
        for name, token in header.marks:
            if name.startswith(VERSION):
                if versions is not None and versions.get(name, token) != token:
                    return DEAD
            elif name not in current:
                unknown = True
            elif current[name] != token:
                if soft is None or not name.startswith(soft):
                    return DEAD
                softly = True
    if now >= header.usable_until:
        return DEAD
    if unknown:
        return UNKNOWN
    if softly or now >= header.fresh_until or (max_age is not None and now - header.created_at > max_age):
        return STALE
    return FRESH


def is_fresh(generation: bytes, fresh_until: float, token: bytes | None, now: float) -> bool:
    """Whether `judge` says FRESH of an entry without marks, for a call that requires its generation alone.

    The short form for reads that have no header at hand; a test holds it to `judge`."""
    return generation == token and now < fresh_until


FRESH_SOURCE = "{generation} is {token} and {now} < {fresh_until}"
"""The source of `is_fresh` for calls that are generated, where a token is one object: the same object is equal to itself, and
of others `is_fresh` is asked. A test holds the two together."""
