"""Who meets whom, and what goes wrong meanwhile: the scenarios that the explorer goes through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from memover.engine.answers import Outcome
from memover.engine.steps import Together
from memover.errors import InvalidationFailed, StoreError
from tests.explorer.desk import Change, Promise
from tests.explorer.function import Boom, Loading, Means
from tests.explorer.state import CHILD, CLOCK, COARSE, GENERATION, OTHER, PARENT, TAG
from tests.explorer.world import Player, Rules, Scenario

__all__ = ["DEEP", "LONG", "SCENARIOS", "cast", "scenario"]

Flow = Generator[Any, Any, Any]


def function_of(scenario: Scenario, rules: Rules, means: Means, which: int) -> Any:
    store: Any = rules.store(spread=scenario.spread)
    store.generation_shards, store.every_shard = scenario.own_shards, scenario.every_shard
    store.sweeps = scenario.own_shards > 1
    means.store = store  # type: ignore[attr-defined]
    return rules.function(scenario, rules, means, which, store)


# -- readers ----------------------------------------------------------------------------------------------------------------


def reading(flow: str, which: int, scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """A call of the function, as `runtime.hit.drive` runs it."""
    function = function_of(scenario, rules, means, which)
    call = function.call()
    outcome = None
    try:
        outcome = yield from getattr(rules.flows, flow)(call)
    finally:
        function.finish(call, outcome)
    return outcome


def refreshing(scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """A refresh behind a caller, as `Function.refresh_behind` runs it."""
    function = function_of(scenario, rules, means, CHILD)
    call = function.call()
    outcome = None
    try:
        outcome = yield from rules.flows.renew(call, -1.0)
    finally:
        function.finish(call, outcome)
    return outcome


class Batch:
    """What `runtime.batch` offers: a bulk loader that reads the truth once for all of its calls."""

    limit = 2

    def load_many(self, calls: Any) -> Flow:
        if not calls:
            return []
        value, error = yield from Loading(unleased=False)
        return [Outcome(value, Boom(error) if error else None, marks=()) for _ in calls]

    def itself(self, call: Any) -> None:
        return None

    def done(self, number: int) -> None: ...

    def over(self, call: Any) -> None: ...


def batch(scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """Two calls in one batch; what counts is the answer of the first."""
    function = function_of(scenario, rules, means, CHILD)
    calls = [function.call(CHILD), function.call(OTHER)]
    try:
        yield from in_turn(rules.many.gather(Batch(), calls, None, True))
    finally:
        for call in calls:
            function.finish(call, call.outcome)
    return calls[0].outcome


def in_turn(flow: Flow) -> Flow:
    """A flow whose flows side by side run one after the other."""
    answer: Any = None
    failure: BaseException | None = None
    while True:
        try:
            step = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            return stop.value
        answer = failure = None
        try:
            if isinstance(step, Together):
                answer = []
                for each in step.flows:
                    answer.append((yield from in_turn(each)))
            else:
                answer = yield step
        except GeneratorExit:
            flow.close()
            raise
        except BaseException as error:
            failure = error


# -- writers ----------------------------------------------------------------------------------------------------------------


class Told:
    """An `engine.invalidate.Subject` that nobody is told of."""

    what = "the world"
    names = ()

    def begin(self) -> None: ...
    def failed(self, error: StoreError, failure: Exception) -> None: ...
    def done(self) -> None: ...


def change_all(scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """Change the truth, then invalidate the namespace."""
    function_of(scenario, rules, means, CHILD)
    yield from changing(means, rules.invalidate.move(means, Told(), (GENERATION,), means.nonce(), along=(COARSE,)))


def change_one(scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """Change the truth, then invalidate the call."""
    function = function_of(scenario, rules, means, CHILD)
    call = function.call()
    older = [key for _, key in function.older_keys(call.key)]
    yield from changing(means, rules.invalidate.drop(means, Told(), call, means.nonce(), older, GENERATION))


def change_tagged(scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """Change the truth, then invalidate the tag."""
    function_of(scenario, rules, means, CHILD)
    names = (TAG,) if scenario.spread else (CLOCK, TAG)
    yield from changing(means, rules.invalidate.move(means, Told(), names, means.nonce(), along=(COARSE,)))


def changing(means: Means, invalidation: Flow) -> Flow:
    """What fails is owed, and repeated until the store has taken it, as `runtime.state` does it."""
    truth = yield Change()
    try:
        yield from invalidation
    except InvalidationFailed:
        yield Promise(truth, everywhere=False)
        owed = means.witness.owed
        while mine := [name for name in means.repeats if getattr(owed.get(name), "actor", None) == means.actor]:
            try:
                yield from means.repeats[mine[0]]()
            except StoreError:
                continue
            for name in mine:  # all of one repeat
                if getattr(owed.get(name), "actor", None) == means.actor:
                    del owed[name]
    yield Promise(truth, everywhere=True)


def change_and(flow: str, scenario: Scenario, rules: Rules, means: Means) -> Flow:
    """Change the truth, then put the new value in place of the old one, by `refresh` or `put`."""
    function = function_of(scenario, rules, means, CHILD)
    truth = yield Change()
    call = function.call()
    outcome = None
    try:
        if flow == "put":
            yield from rules.flows.put(call, Outcome(truth))
        else:
            outcome = yield from rules.flows.refresh(call)
    finally:
        function.finish(call, outcome)
    yield Promise(truth, everywhere=True)


READERS: dict[str, Callable[..., Flow]] = {
    "": partial(reading, "get", CHILD),
    "refreshes": partial(reading, "refresh", CHILD),
    "uses it": partial(reading, "get", PARENT),
    "asks for two": batch,
}
WRITERS: dict[str, Callable[..., Flow]] = {
    "invalidates all": change_all,
    "invalidates it": change_one,
    "invalidates the tag": change_tagged,
    "sets it": partial(change_and, "put"),
    "renews it": partial(change_and, "refresh"),
}


def cast(*roles: str) -> Any:
    """Players from words: a process ("A" to "Z"), and what it does there, nothing being a plain call: see `READERS`
    and `WRITERS`, who all change the truth first. Where stale entries may be served, each reader has a refresh behind it."""

    def players(scenario: Scenario, rules: Rules) -> tuple[Player, ...]:
        cast: list[Player] = []
        behind: list[Player] = []
        for at, role in enumerate(roles):
            place, _, what = role.partition(" ")
            process = ord(place) - ord("A")
            own = scenario.at(process)
            if what in READERS:
                cast.append(Player(f"reader {at + 1} ({place})", process, partial(READERS[what], own, rules)))
                if scenario.stale:
                    make = partial(refreshing, own, rules)
                    behind.append(Player(f"behind reader {at + 1} ({place})", process, make, behind=at))
            else:
                make = partial(WRITERS[what], own, rules)
                cast.append(Player(f"writer {at + 1} ({place})", process, make, reads=False))
        return (*cast, *behind)

    return players


def scenario(name: str, promise: str, *roles: str, **options: Any) -> Scenario:
    return Scenario(name, promise, cast(*roles), sets=any(role.endswith("sets it") for role in roles), **options)


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
    # Stale entries, served while they are refreshed behind.
    scenario("a stale entry is invalidated", "P1", "A", "B", "C invalidates all", stale=True),
    scenario("a stale entry of a call is invalidated", "P2", "A", "A", "C invalidates it", stale=True, entry=True),
    # A generation in shards: of one setting, and of several.
    scenario("a reader's process invalidates all, in shards", "P1", "A", "A invalidates all", spread=True, shards=(2,)),
    scenario("an invalidation of shards is owed, for others", "P1", "B", "A invalidates all", spread=True, shards=(2, 2), faults=("late",)),
    scenario("one without shards invalidates all", "P1", "A", "C invalidates all", spread=True, shards=(2, 1, 1)),
    scenario("one without shards reads", "P1", "B", "C invalidates all", spread=True, shards=(1, 1, 2)),
    scenario("one of fewer shards invalidates all", "P1", "A", "C invalidates all", spread=True, shards=(3, 1, 2)),
    scenario("one of fewer shards invalidates all, and the registry is lost", "P1", "A", "C invalidates all", spread=True,
             shards=(3, 1, 2), faults=("registry",)),
    scenario("two settings and a registry that is lost", "P1", "B", "C invalidates all", spread=True, entry=True,
             shards=(3, 2, 2), faults=("registry",)),
    scenario("one without shards invalidates what is loaded", "P1", "A", "C invalidates all", spread=True, entry=False, shards=(2,)),
    scenario("a stale entry is invalidated, in a cluster", "P1", "A", "C invalidates all", stale=True, spread=True),
    # Made of what an older version stored.
    scenario("an older entry is upgraded", "P2", "A", "B", "C invalidates it", upgrades=True),
    scenario("an older entry is upgraded, and all invalidated", "P1", "A", "B", "C invalidates all", upgrades=True),
    scenario("an older entry is upgraded, and renewed", "P2", "A", "B", "C renews it", upgrades=True),
    scenario("an older entry is upgraded, and set", "P2", "A", "B", "C sets it", upgrades=True),
    scenario("an older entry is upgraded, with a late tag", "P1", "A", "B", "C invalidates the tag", upgrades=True, tag="late"),
    scenario("an older entry is upgraded, and what renewed it evicted", "P2", "A", "C renews it", upgrades=True,
             faults=("entry",)),
    scenario("an older entry is upgraded, and what was set evicted", "P2", "A", "C sets it", upgrades=True, faults=("entry",)),
    scenario("an older entry is upgraded, and set by a lease that runs out", "P2", "A", "C sets it", upgrades=True,
             faults=("expiry",)),
    scenario("an older entry without the late tag", "P1", "A", "B", "C invalidates the tag", upgrades=True, tag="late",
             untagged=True),
    scenario("an older entry is upgraded, in a cluster", "P2", "A", "C invalidates it", upgrades=True, spread=True),
    # Batches, with a bulk loader.
    scenario("a batch against an invalidation of all", "P1", "A asks for two", "C invalidates all", batch=True),
    scenario("a batch against an invalidation of one", "P2", "A asks for two", "B", "C invalidates it", batch=True,
             entry=True),
    scenario("a batch with a late tag", "P1", "A asks for two", "C invalidates the tag", batch=True, tag="late"),
    scenario("a batch with a late tag, in a cluster", "P1", "A asks for two", "C invalidates the tag", batch=True, tag="late",
             spread=True, entry=False),
    # More dependencies than can be listed.
    scenario("what is one of too many is invalidated", "P11", "A uses it", "B", "C invalidates all", nested=True, coarse=True),
    scenario("a call that is one of too many is invalidated", "P11", "A uses it", "C invalidates it", nested=True, coarse=True),
    scenario("what is one of too many is invalidated, in a cluster", "P11", "A uses it", "C invalidates all", nested=True,
             coarse=True, spread=True),
    scenario("a call that is one of too many is invalidated, in a cluster", "P11", "A uses it", "C invalidates it", nested=True,
             coarse=True, spread=True),
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
    scenario("an invalidation of shards is owed", "P8", "A", "A invalidates all", spread=True, shards=(2,), faults=("late",)),
    scenario("two batches in one process", "P1", "A asks for two", "A asks for two", "C invalidates all", batch=True,
             entry=False),
    scenario("the namespace is invalidated, in shards", "P1", "A", "B", "C invalidates all", spread=True, shards=(2, 2, 2)),
    scenario("a load registers while others look for shards", "P1", "A", "B invalidates all", "C invalidates all", spread=True,
             entry=False, shards=(2,), registry=b"?0", absent=(1, 2)),
)  # fmt: skip
"""Too many schedules for every run. In those that a mutant is about it is found sooner."""

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
