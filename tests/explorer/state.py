"""What the world of the explorer looks like at one moment: values only, so that equal moments are one moment."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from memover.codec.envelope import Header

__all__ = ["Actor", "Held", "Process", "State", "header_of", "names_of"]

ENTRY = b"w:1:f:k"
NEVER = float("inf")


@cache
def names_of(count: int) -> tuple[bytes, ...]:
    """The names an entry depends on: its generation, then its tags."""
    return (b"w:gen:f", *(b"w:tag:t%d" % n for n in range(1, count)))


@cache
def header_of(tokens: tuple[bytes, ...]) -> Header:
    """The header of an entry that was stamped with these tokens."""
    return Header(
        kind=0,
        codec="world",
        compression=0,
        generation=tokens[0],
        key=ENTRY,
        marks=tuple(zip(names_of(len(tokens))[1:], tokens[1:])),
        created_at=0.0,
        load_time=0.0,
        fresh_until=NEVER,
        usable_until=NEVER,
        fingerprint=bytes(8),
        payload_at=0,
        payload_check=0,
        size=0,
    )


class Held(NamedTuple):
    """What a store holds of one key: its tokens, its entry (the value, the tokens it is stamped with), its lease's slot."""

    tokens: tuple[bytes | None, ...]
    entry: tuple[int, tuple[bytes, ...]] | None
    lease: bytes | None


class Process(NamedTuple):
    """What the calls of one process share.

    `last` and `owed` are its witness; `bound` is the truth that its own calls were promised by an invalidation that
    failed loudly; `flights` are (lease token, actor); `train` is the storeless load under way, (actor, number).
    """

    last: tuple[bytes | None, ...]
    owed: frozenset[bytes] = frozenset()
    bound: int = 0
    flights: frozenset[tuple[str, int]] = frozenset()
    train: tuple[int, int] | None = None
    count: int = 0
    alive: bool = True


class Actor(NamedTuple):
    """How far one flow has come. `node` names everything it was ever answered; `phase` is inside its operation.

    `floor` is the least value it may be answered with, known when it begins (None: not yet); `seen` is what it saw when
    it began to wait; `excused` says that a failover took away what it would have had to know.
    """

    node: int = -1
    phase: tuple[Any, ...] = ()
    floor: int | None = None
    seen: Held | None = None
    excused: bool = False
    healing: bool = False


class State(NamedTuple):
    """One moment. `settled` is the greatest truth whose invalidation has returned; `lost` tells the names whose
    bump a failover has taken away, `high` the highest numbers there were; `network` are commands whose sender has given
    up on them; `fallen` is the promise that did not hold, and what happened."""

    held: Held
    truth: int
    settled: int
    processes: tuple[Process, ...]
    actors: tuple[Actor, ...]
    replica: Held | None = None
    network: tuple[tuple[int, tuple[Any, ...]], ...] = ()
    lost: tuple[bool, ...] = ()
    high: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    loads: int = 0
    fallen: tuple[str, str] | None = None
