"""What the world of the explorer looks like at one moment: values only, so that equal moments are one moment."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from memover.codec.envelope import Header

__all__ = [
    "CALL", "CHILD", "CLOCK", "COARSE", "ENTRIES", "GENERATION", "OUTER", "PARENT", "TAG", "VERSION_MARK",
    "Actor", "Held", "Marks", "Process", "Slot", "State", "Step", "expired", "fallen", "header_of", "put_actor", "put_process",
    "without",
]  # fmt: skip

Marks = tuple[tuple[bytes, bytes], ...]
Tokens = tuple[bytes | None, ...]

GENERATION = b"w:gen:f"
TAG = b"w:tag:t"
CLOCK = b"w:clock"
CALL = b"w:call:f:0"
COARSE = b"w:gen:@all"
OUTER = b"w:gen:p"
VERSION_MARK = (b"@version:f", b"1")
"""The function `f` and its call's own token; the tag it may carry, the tags' clock; `p`, which uses `f`."""

CHILD, PARENT = 0, 1
ENTRIES = (b"w:1:f:k", b"w:1:p:k")
NEVER = float("inf")


@cache
def header_of(key: int, marks: Marks) -> Header:
    """The header of an entry stamped with these tokens, the generation first."""
    return Header(
        kind=0,
        codec="world",
        compression=0,
        generation=marks[0][1],
        key=ENTRIES[key],
        marks=marks[1:],
        created_at=0.0,
        load_time=0.0,
        fresh_until=NEVER,
        usable_until=NEVER,
        fingerprint=bytes(8),
        payload_at=0,
        payload_check=0,
        size=0,
    )


class Slot(NamedTuple):
    """One key in a store: its entry (the value, what it is stamped with) and the bytes of its lease."""

    entry: tuple[int, Marks] | None = None
    lease: bytes | None = None


class Held(NamedTuple):
    """What a store holds: tokens in the order of the world's names, and a slot for each key."""

    tokens: Tokens
    slots: tuple[Slot, ...]


class Process(NamedTuple):
    """What the calls of one process share.

    `last` and `owed` are its witness; `bound` is the truth that its own calls were promised by an invalidation that
    failed loudly; `learned` are the further names that its new calls read with each key; `flights` are (lease token, actor); `trains`
    the storeless load under way for each key, (actor, number); `tickets` counts them and those who wait.
    """

    last: Tokens
    learned: tuple[tuple[bytes, ...], ...]
    trains: tuple[tuple[int, int] | None, ...]
    owed: frozenset[bytes] = frozenset()
    bound: int = 0
    flights: frozenset[tuple[str, int]] = frozenset()
    tickets: int = 0
    alive: bool = True


class Actor(NamedTuple):
    """How far one flow has come. `node` names everything it was ever answered; `phase` is inside its operation.

    `floor` is the least value it may be answered with, known when it begins (None: not yet); `seen` is what it saw when
    it last looked; `learned` are the further names it reads with each key; `excused` says that a failover took away what it would have had to know; `healing` that it
    knew what was lost, and so has to put it back.
    """

    node: int = -1
    phase: tuple[Any, ...] = ()
    floor: int | None = None
    seen: tuple[Any, ...] | None = None
    learned: tuple[tuple[bytes, ...], ...] = ()
    excused: bool = False
    healing: bool = False


class State(NamedTuple):
    """One moment. `settled` is the greatest truth whose invalidation has returned; `lost` tells the names whose last
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


# -- small changes of a moment -----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One choice: who, what it does, and the moment after."""

    who: str
    what: tuple[Any, ...]
    after: State


def put_actor(state: State, index: int, actor: Actor) -> State:
    actors = state.actors
    return state._replace(actors=(*actors[:index], actor, *actors[index + 1 :]))


def put_process(state: State, at: int, process: Process) -> State:
    processes = state.processes
    return state._replace(processes=(*processes[:at], process, *processes[at + 1 :]))


def without(state: State, fault: str) -> State:
    faults = list(state.faults)
    faults.remove(fault)
    return state._replace(faults=tuple(faults))


def expired(state: State) -> State:
    return state._replace(held=state.held._replace(slots=tuple(Slot(slot.entry, None) for slot in state.held.slots)))


def fallen(state: State, promise: str, what: str) -> State:
    return state._replace(fallen=(promise, what))
