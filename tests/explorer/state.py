"""What the world of the explorer looks like at one moment: values only, so that equal moments are one moment."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from memover.codec.envelope import Header
from memover.engine.tokens import parse
from memover.keys.shards import registry_key
from memover.model import Key

__all__ = [
    "CALL", "CHILD", "CLOCK", "COARSE", "GENERATION", "OLDER", "OTHER", "OUTER", "PARENT", "REGISTRY", "SOFT", "TAG", "VERSION_MARK",
    "Actor", "FlightName", "Held", "Marks", "Process", "Sight", "State", "Step", "fallen", "header_in", "key_of", "number", "put_actor",
    "put_process", "raw_of", "value_in", "without",
]  # fmt: skip

Marks = tuple[tuple[bytes, bytes], ...]
Held = tuple["bytes | None", ...]
"""What a server holds, in the order of the world's keys."""
FlightName = tuple[int, int]
"""A call: the actor that it belongs to, and which of the actor's calls it is."""
Sight = tuple["tuple[bytes, bytes | None]", ...]
"""What somebody has seen on a server: keys, with what was under them."""
Known = tuple["tuple[bytes, int] | None", ...]

GENERATION = b"w:gen:f"
SOFT = b"w:gen:f@soft"
TAG = b"w:tag:t"
CLOCK = b"w:gen:@tags"
CALL = b"w:gen:f@call0"
COARSE = b"w:gen:@all"
OUTER = b"w:gen:p"
REGISTRY = registry_key(GENERATION)
VERSION_MARK = (b"@version:f", b"2")
"""The function `f`, its soft mark and its calls' own token; the tag it may carry, the tags' clock; `p`, which uses `f`."""

CHILD, PARENT, OTHER, OLDER = range(4)
"""A call of `f`, one of `p`, another call of `f`, and the first call's entry under the version before."""
TEXTS = ("w:2:f:k", "w:1:p:k", "w:2:f:l", "w:1:f:k")
NEVER = float("inf")


def key_of(which: int, names: tuple[bytes, ...]) -> Key:
    return Key(TEXTS[which], names)


def raw_of(value: int, marks: Marks, *, stale: bool = False) -> bytes:
    """The bytes of an entry that is stamped with these tokens, the generation first."""
    return b"%d|%d|%b" % (value, stale, b",".join(name + b"=" + token for name, token in marks))


@lru_cache(100_000)
def parsed(raw: bytes) -> tuple[int, bool, Marks]:
    value, stale, marks = raw.split(b"|", 2)
    pairs = (mark.rpartition(b"=") for mark in marks.split(b","))
    return int(value), stale == b"1", tuple((name, token) for name, _, token in pairs)


def value_in(raw: bytes) -> int:
    return parsed(raw)[0]


@cache
def header_in(raw: bytes, key: bytes) -> Header:
    """The header of an entry; it was made at instant 0, which is now, and is fresh for ever or not at all."""
    _, stale, marks = parsed(raw)
    return Header(
        kind=0,
        codec="world",
        compression=0,
        generation=marks[0][1],
        key=key,
        marks=marks[1:],
        created_at=-1.0 if stale else 0.0,
        load_time=0.0,
        fresh_until=0.0 if stale else NEVER,
        usable_until=NEVER,
        fingerprint=bytes(8),
        payload_at=0,
        payload_check=0,
        size=0,
    )


class Process(NamedTuple):
    """What the calls of one process share.

    `last` and `owed` are its witness: (token, number) last believed under each name, and (name, actor) of what is owed.
    `learned` are the further names that its new calls read with each key; `flights` are (lease token, call); `unleased`
    the load without a lease under way for each key, (call, number); `counted` numbers those and their callers. `landed` are
    the outcomes of ended calls that are still waited for. `bound` is the truth that its own calls were promised by an
    invalidation that failed loudly.
    """

    last: Known
    learned: tuple[tuple[bytes, ...], ...]
    unleased: tuple[tuple[FlightName, int] | None, ...]
    owed: frozenset[tuple[bytes, int]] = frozenset()
    flights: frozenset[tuple[str, FlightName]] = frozenset()
    counted: int = 0
    landed: tuple[tuple[FlightName, Any], ...] = ()
    refreshing: bool = False
    bound: int = 0
    alive: bool = True


class Actor(NamedTuple):
    """How far one flow has come. `node` names everything it was ever answered; `phase` is inside its step.

    `floor` is the least value it may be answered with, known when it begins (None: not yet); `seen` is what
    it saw when it last looked; `excused` says that a failover took away what it would have had to know; `healing` that it knew what
    was lost, and so has to put it back.
    """

    node: int = -1
    phase: tuple[Any, ...] = ()
    floor: int | None = None
    seen: Sight | None = None
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
    network: tuple[tuple[int, Any], ...] = ()
    lost: tuple[bool, ...] = ()
    high: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    loads: int = 0
    fallen: tuple[str, str] | None = None


class Step(NamedTuple):
    """One choice: who, what it does, and the moment after."""

    who: str
    what: tuple[Any, ...]
    after: State


# -- small changes of a moment -----------------------------------------------------------------------------------------------------


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


def fallen(state: State, promise: str, what: str) -> State:
    return state._replace(fallen=(promise, what))


@cache
def number(token: bytes | None) -> int:
    generation = parse(token)
    return 0 if generation is None else generation.number
