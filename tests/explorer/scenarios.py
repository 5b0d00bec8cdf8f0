"""Who meets whom, and what goes wrong meanwhile: the scenarios that the explorer goes through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.engine.terms import Terms

from memover.engine import invalidate, ops
from memover.errors import StoreError
from tests.explorer.state import CALL, CHILD, CLOCK, COARSE, ENTRIES, GENERATION, PARENT, TAG, VERSION_MARK
from tests.explorer.threads import PATIENCE_SECONDS
from tests.explorer.world import Player, Scenario

if TYPE_CHECKING:
    from types import ModuleType

    from memover.engine.ops import Marks

    from tests.explorer.threads import Means

__all__ = ["DEEP", "LONG", "SCENARIOS", "cast", "scenario", "terms_of"]

Writing = Generator[Any, Any, None]
Reading = Generator[Any, Any, ops.Outcome]


def terms_of(scenario: Scenario, kind: type[Terms], means: Means, key: int, *, tracked: bool = False) -> Terms:
    """What `Plan.terms` tells the flows of a call."""
    return kind(
        entry=ENTRIES[key],
        names=scenario.required(key),
        witness=means.witness,
        on_store_error="load",
        wait_seconds=PATIENCE_SECONDS,
        now=lambda: 0.0,
        monotonic=means.monotonic,
        new_token=means.nonce,
        chance=lambda: 1.0,
        keeps=lambda error: False,
        call_name=CALL if tracked else b"",
        clock_name=scenario.clock(key),
        coarse_name=COARSE,
        spread=scenario.spread,
    )


# -- readers ----------------------------------------------------------------------------------------------------------------


def reading(flow: str, scenario: Scenario, flows: ModuleType, means: Means) -> Reading:
    """A call of the function."""
    made: Reading = getattr(flows, flow)(terms_of(scenario, kind_of(flows), means, CHILD))
    return made


def using(scenario: Scenario, flows: ModuleType, means: Means) -> Reading:
    """A call of the function that uses the other one: its load is a call of that."""
    flow = flows.get(terms_of(scenario, kind_of(flows), means, PARENT))
    answer: Any = None
    failure: StoreError | None = None
    while True:
        try:
            op = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: ops.Outcome = stop.value
            return result
        answer = failure = None
        try:
            answer = (yield from used(scenario, flows, means)) if isinstance(op, ops.Load) else (yield op)
        except StoreError as error:
            failure = error


def used(scenario: Scenario, flows: ModuleType, means: Means) -> Reading:
    """The call that is used, as the load that uses it gets it."""
    terms = terms_of(scenario, kind_of(flows), means, CHILD, tracked=True)
    flow = flows.get(terms)
    answer: Any = None
    failure: StoreError | None = None
    while True:
        try:
            op = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            return handed_on(stop.value, terms)
        answer = failure = None
        try:
            answer = yield OfChild(op)
        except StoreError as error:
            failure = error


def handed_on(child: ops.Outcome, terms: Terms) -> ops.Outcome:
    """What the site of a used call hands on to the load that uses it (`BaseSite.hand_on`)."""
    marks: Marks | None = None
    if child.marks is not None and terms.call_token is not None:
        marks = (*child.marks, (CALL, terms.call_token), VERSION_MARK)
    return ops.Outcome(child.value, child.error, marks=marks)


class OfChild:
    """An operation of the call that is used."""

    def __init__(self, op: Any) -> None:
        self.op = op

    def on(self, desk: Any) -> Any:
        desk.key, desk.tracked = CHILD, True
        return self.op.on(desk)


def kind_of(flows: ModuleType) -> type[Terms]:
    """The terms of a mutant may be its own."""
    kind: type[Terms] = getattr(flows, "Terms", Terms)
    return kind


# -- writers ----------------------------------------------------------------------------------------------------------------


class Change:
    """The truth counts up by one. Answer: the new truth."""

    def on(self, desk: Any) -> Any:
        return desk.change()


class Promise:
    """The invalidation of a truth has returned (`everywhere`), or has failed loudly, which binds its own process."""

    def __init__(self, truth: int, *, everywhere: bool) -> None:
        self.truth = truth
        self.everywhere = everywhere

    def on(self, desk: Any) -> Any:
        return desk.promise(self.truth, self.everywhere)


def change_all(scenario: Scenario, flows: ModuleType, means: Means) -> Writing:
    """Change the truth, then invalidate the namespace."""
    nonce = means.nonce()
    return changing(means, (GENERATION,), (GENERATION,), lambda: invalidate.move((GENERATION,), nonce))


def change_one(scenario: Scenario, flows: ModuleType, means: Means) -> Writing:
    """Change the truth, then invalidate the call."""
    nonce = means.nonce()
    return changing(means, (ENTRIES[CHILD], CALL), (), lambda: invalidate.invalidate(nonce))


def change_tagged(scenario: Scenario, flows: ModuleType, means: Means) -> Writing:
    """Change the truth, then invalidate the tag."""
    nonce = means.nonce()
    names = (TAG,) if scenario.spread else (CLOCK, TAG)
    return changing(means, names, names, lambda: invalidate.move(names, nonce))


def changing(means: Means, owed: tuple[bytes, ...], moved: tuple[bytes, ...], invalidation: Any) -> Writing:
    """As `memover.core` does it: what fails is owed, the names are closed in this process, and it is repeated."""
    truth = yield Change()
    try:
        tokens = yield from invalidation()
    except StoreError:
        means.witness.owed.update(dict.fromkeys(owed, repeat))
        yield Promise(truth, everywhere=False)
        tokens = None
        while tokens is None:
            try:
                tokens = (yield from invalidation()) or ()
            except StoreError:
                pass
        means.witness.trusts(moved, tokens)
        for name in owed:
            del means.witness.owed[name]
    else:
        means.witness.trusts(moved, tokens or ())
    yield Promise(truth, everywhere=True)


def repeat() -> None:
    """Stands for what the keeper repeats; here the writer's own flow does."""


def change_and(flow: str, scenario: Scenario, flows: ModuleType, means: Means) -> Writing:
    """Change the truth, then put the new value in place of the old one, by `refresh` or `put`."""
    terms = terms_of(scenario, kind_of(flows), means, CHILD)
    truth = yield Change()
    if flow == "put":
        yield from flows.put(terms, ops.Outcome(truth))
    else:
        yield from flows.refresh(terms)
    yield Promise(truth, everywhere=True)


READERS: dict[str, Callable[..., Reading]] = {
    "": partial(reading, "get"),
    "refreshes": partial(reading, "refresh"),
    "uses it": using,
}
WRITERS: dict[str, Callable[..., Writing]] = {
    "invalidates all": change_all,
    "invalidates it": change_one,
    "invalidates the tag": change_tagged,
    "sets it": partial(change_and, "put"),
    "renews it": partial(change_and, "refresh"),
}


def cast(*roles: str) -> Any:
    """Players from words: a process ("A" to "Z"), and what it does there, nothing being a plain call: see `READERS`
    and `WRITERS`, who all change the truth first."""

    def players(scenario: Scenario, flows: ModuleType) -> tuple[Player, ...]:
        cast: list[Player] = []
        for at, role in enumerate(roles, 1):
            place, _, what = role.partition(" ")
            process = ord(place) - ord("A")
            if what in READERS:
                make = partial(READERS[what], scenario, flows)
                key = PARENT if what == "uses it" else CHILD
                cast.append(Player(f"reader {at} ({place})", process, make, key))
            else:
                make = partial(WRITERS[what], scenario, flows)
                cast.append(Player(f"writer {at} ({place})", process, make, reads=False))
        return tuple(cast)

    return players


def scenario(name: str, promise: str, *roles: str, **options: Any) -> Scenario:
    return Scenario(name, promise, cast(*roles), **options)


SCENARIOS: tuple[Scenario, ...] = (
    # One load, whoever comes.
    scenario("three readers of a cold key", "P6", "A", "B", "C", entry=False, loads=1),
    scenario("three readers of a cold key, two in one process", "P6", "A", "A", "B", entry=False, loads=1),
    # Invalidations against loads under way.
    scenario("the namespace is invalidated", "P1", "A", "B", "C invalidates all"),
    scenario("the call is invalidated", "P2", "A", "B", "C invalidates it"),
    scenario("a tag is invalidated", "P1", "A", "B", "C invalidates the tag", tag="known"),
    scenario("both are invalidated", "P1", "A", "B", "C invalidates all", "D invalidates it"),
    scenario("the call is invalidated twice", "P2", "A", "B", "C invalidates it", "D invalidates it"),
    scenario("the namespace is invalidated by a reader's process", "P1", "A", "A", "A invalidates all"),
    scenario("the call is invalidated by a reader's process", "P2", "A", "A", "A invalidates it"),
    scenario("a refresh against an invalidation", "P2", "A", "B refreshes", "C invalidates it"),
    scenario("a refresh puts the new value in place", "P2", "A", "B", "C renews it"),
    scenario("set puts the new value in place", "P2", "A", "B", "C sets it"),
    # Tags that only the result tells.
    scenario("a late tag is invalidated", "P1", "A", "B", "C invalidates the tag", tag="late"),
    scenario("a late tag is invalidated, two in one process", "P1", "A", "A", "C invalidates the tag", tag="late"),
    scenario("a late tag is evicted", "P4", "A", "C invalidates the tag", tag="late", faults=("eviction:1",)),
    scenario("the tags' clock is evicted", "P4", "A", "C invalidates the tag", tag="late", faults=("eviction:2",)),
    # Functions that use one another.
    scenario("the namespace that was used is invalidated", "P11", "A uses it", "B", "C invalidates all", nested=True),
    scenario("the call that was used is invalidated", "P11", "A uses it", "B", "C invalidates it", nested=True),
    scenario("two use the call that is invalidated", "P11", "A uses it", "B uses it", "C invalidates it", nested=True),
    scenario("two in one process use what is invalidated", "P11", "A uses it", "A uses it", "C invalidates all", nested=True,
             entry=False),
    scenario("the call that was used is refreshed", "P11", "A uses it", "B refreshes", "C invalidates it", nested=True),
    scenario("the token of the call that was used is evicted", "P11", "A uses it", "C invalidates it", nested=True,
             faults=("eviction:1",)),
    scenario("an invalidation of the namespace that was used is owed", "P11", "A uses it", "A invalidates all", nested=True,
             faults=("late",)),
    scenario("an invalidation of the call that was used is owed", "P11", "A uses it", "A invalidates it", nested=True,
             faults=("late",)),
    # In a cluster, each key of a command is served at a moment of its own.
    scenario("the namespace is invalidated, in a cluster", "P1", "A", "B", "C invalidates all", spread=True),
    scenario("the call is invalidated, in a cluster", "P2", "A", "B", "C invalidates it", spread=True),
    scenario("a tag is invalidated, in a cluster", "P1", "A", "C invalidates the tag", tag="known", spread=True),
    scenario("a late tag is invalidated, in a cluster", "P1", "A", "C invalidates the tag", tag="late", spread=True),
    scenario("what was used is invalidated, in a cluster", "P11", "A uses it", "C invalidates all", nested=True, spread=True),
    scenario("the call that was used is invalidated, in a cluster", "P11", "A uses it", "C invalidates it", nested=True,
             spread=True),
    # What goes wrong.
    scenario("a lease runs out", "P2", "A", "B", "C invalidates it", faults=("expiry",)),
    scenario("a lease runs out twice", "P1", "A", "B", "C invalidates all", faults=("expiry", "expiry")),
    scenario("a load fails", "P2", "A", "A", "C invalidates it", faults=("failure",)),
    scenario("a load fails elsewhere", "P2", "A", "B", "C invalidates it", faults=("failure",)),
    scenario("a leader dies", "P2", "A", "B", "C invalidates it", faults=("death:0",)),
    scenario("a leader is cancelled", "P1", "A", "A", "C invalidates all", faults=("cancel:0",)),
    scenario("the generation is evicted", "P4", "A", "B", "C invalidates all", faults=("eviction",)),
    scenario("the store is flushed", "P4", "A", "B", "C invalidates all", faults=("flush",)),
    scenario("the store is flushed and the call invalidated", "P4", "A", "B", "C invalidates it", faults=("flush",)),
    scenario("a failover loses the bump", "P5", "A", "B", "A invalidates all", faults=("failover",)),
    scenario("a command arrives late, namespace", "P1", "A", "B", "C invalidates all", faults=("late",)),
    scenario("a command arrives late, two in one process", "P1", "A", "A", "C invalidates all", entry=False, faults=("late:0",)),
    scenario("a command arrives late, call", "P2", "A", "B", "C invalidates it", faults=("late",)),
    scenario("a store arrives after its lease was lost", "P2", "A", "B", "C invalidates it", faults=("late:0", "expiry")),
    scenario("a command is sent twice, namespace", "P1", "A", "B", "C invalidates all", faults=("resent",)),
    scenario("a command is sent twice, call", "P2", "A", "B", "C invalidates it", faults=("resent",)),
    scenario("an invalidation of the namespace is owed", "P8", "A", "B", "A invalidates all", faults=("late:2",)),
    scenario("an invalidation of the call is owed", "P8", "A", "B", "A invalidates it", faults=("late:2",)),
    scenario("a process is cut off from the store", "P1", "A", "A", "C invalidates all", cut_off=frozenset({0})),
    scenario("waiting takes too long", "P1", "A", "A", "C invalidates all", faults=("timeout",)),
    scenario("waiting for another process takes too long", "P1", "A", "B", "C invalidates all", faults=("timeout",)),
)  # fmt: skip

LONG: tuple[Scenario, ...] = (
    scenario("three readers in one process", "P6", "A", "A", "A", entry=False, loads=1),
    scenario("the call is invalidated among readers of one process", "P2", "A", "A", "B", "B invalidates it"),
    scenario("the namespace is invalidated among readers of one process", "P1", "A", "A", "B", "B invalidates all"),
    scenario("two in one process use the call that is invalidated, in a cluster", "P11", "A uses it", "A uses it",
             "C invalidates it", nested=True, spread=True, entry=False),
    scenario("a load fails among three", "P2", "A", "A", "B", "C invalidates it", faults=("failure",)),
    scenario("a failover loses the bump that a reader has seen", "P5", "A", "A", "C invalidates all", faults=("failover",)),
    scenario("three are cut off from the store", "P1", "A", "A", "A", "C invalidates all", cut_off=frozenset({0})),
    scenario("waiting takes too long among three", "P1", "A", "A", "B", "C invalidates all", faults=("timeout",)),
)  # fmt: skip
"""Too many schedules for every run."""

EVERYTHING = (
    "expiry",
    "eviction",
    "flush",
    "death:1",
    "cancel:0",
    "late",
    "late",
    "resent",
    "timeout",
    "timeout",
    "failure",
)

DEEP: tuple[Scenario, ...] = (
    scenario("three in one process, one elsewhere, two invalidations", "P1",
             "A", "A", "A", "B", "C invalidates all", "D invalidates it", faults=("timeout", "late", "expiry")),
    scenario("everything goes wrong", "P1",
             "A", "A", "A", "B", "B", "C invalidates all", "D invalidates all", "A invalidates all", faults=EVERYTHING),
    scenario("everything goes wrong, call by call", "P2",
             "A", "A", "A", "B", "B", "C invalidates it", "D invalidates it", "A invalidates it", faults=EVERYTHING),
    scenario("everything goes wrong, tag by tag", "P1",
             "A", "A", "B", "B", "C invalidates the tag", "A invalidates the tag", tag="late", faults=EVERYTHING),
    scenario("everything goes wrong with what was used", "P11",
             "A uses it", "A uses it", "A", "B uses it", "B", "C invalidates all", "A invalidates it", "B refreshes",
             nested=True, faults=EVERYTHING),
    scenario("everything goes wrong in a cluster", "P1",
             "A", "A", "B", "C", "C invalidates all", "D invalidates it", "A invalidates the tag", tag="known", spread=True,
             faults=EVERYTHING),
    scenario("everything goes wrong with what was used, in a cluster", "P11",
             "A uses it", "A uses it", "B uses it", "B", "C invalidates all", "D invalidates it", nested=True, spread=True,
             faults=EVERYTHING),
    scenario("failover, and more", "P5",
             "A", "A", "B", "B", "A invalidates all", "B invalidates all", faults=("failover", "expiry", "late", "cancel:1")),
)  # fmt: skip
"""Far too many to go through: drawn at random."""
