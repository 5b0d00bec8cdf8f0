"""Who meets whom, and what goes wrong meanwhile: the scenarios that the explorer goes through."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.errors import StoreError
from tests.explorer.world import Player, Scenario

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["DEEP", "SCENARIOS", "Change", "Promise", "cast"]


# -- what writers do --------------------------------------------------------------------------------------------------------


class Change:
    """The truth counts up by one. Answer: the new truth."""

    def on(self, site: Any) -> Any:
        return site.change()


class Promise:
    """The invalidation of a truth has returned (`everywhere`), or has failed loudly, which binds its own process."""

    def __init__(self, truth: int, *, everywhere: bool) -> None:
        self.truth = truth
        self.everywhere = everywhere

    def on(self, site: Any) -> Any:
        return site.promise(self.truth, self.everywhere)


class BumpTag:
    """Move the first tag to a new token."""

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce

    def on(self, site: Any) -> Any:
        return site.bump_name(1, self.nonce)


Writing = Generator[Any, Any, None]


def change_all(flows: ModuleType, terms: Any) -> Writing:
    """Change the truth, then invalidate the namespace."""
    nonce = terms.new_token()
    return changing(terms, terms.names[0], lambda: flows.invalidate_all(nonce))


def change_one(flows: ModuleType, terms: Any) -> Writing:
    """Change the truth, then invalidate the call."""
    return changing(terms, terms.entry, flows.invalidate)


def change_tagged(flows: ModuleType, terms: Any) -> Writing:
    """Change the truth, then invalidate a tag of the call."""
    nonce = terms.new_token()

    def bump() -> Generator[Any, Any, Any]:
        return (yield BumpTag(nonce))

    return changing(terms, terms.names[1], bump)


def changing(terms: Any, name: bytes, invalidation: Any) -> Writing:
    """As `memover.core` does it: what fails is owed, the name is closed in this process, and it is repeated."""
    truth = yield Change()
    try:
        token = yield from invalidation()
    except StoreError:
        terms.witness.owed[name] = repeat
        yield Promise(truth, everywhere=False)
        while True:
            try:
                token = yield from invalidation()
            except StoreError:
                continue
            break
        believe(terms, name, token)
        del terms.witness.owed[name]
    else:
        believe(terms, name, token)
    yield Promise(truth, everywhere=True)


def believe(terms: Any, name: bytes, token: bytes | None) -> None:
    if token is not None:
        terms.witness.trusts((name,), (token,))


def repeat() -> None:
    """Stands for what the keeper repeats; here the writer's own flow does."""


def change_and(flow: str, flows: ModuleType, terms: Any) -> Writing:
    """Change the truth, then put the new value in place of the old one, by `refresh` or `put`."""
    truth = yield Change()
    if flow == "put":
        yield from flows.put(terms, flows.Outcome(truth))
    else:
        yield from flows.refresh(terms)
    yield Promise(truth, everywhere=True)


WRITERS = {
    "all": change_all,
    "one": change_one,
    "tag": change_tagged,
    "put": partial(change_and, "put"),
    "refresh": partial(change_and, "refresh"),
}


def cast(*roles: str) -> Any:
    """Players from words: "A" is a reader in process A, "A:refresh" one who refreshes, "C:all" a writer there who
    invalidates all ("one", "tag": the call, its tag; "put", "refresh": replaces it)."""

    def players(flows: ModuleType) -> tuple[Player, ...]:
        cast: list[Player] = []
        for at, role in enumerate(roles):
            process, _, what = role.partition(":")
            number = ord(process) - ord("A")
            if what.startswith("writes "):
                writer = what.removeprefix("writes ")
                cast.append(Player(f"writer {at + 1} ({process})", number, partial(WRITERS[writer], flows), reads=False))
            else:
                cast.append(Player(f"reader {at + 1} ({process})", number, getattr(flows, what or "get")))
        return tuple(cast)

    return players


def scenario(name: str, promise: str, *roles: str, **options: Any) -> Scenario:
    return Scenario(name, promise, cast(*roles), **options)


A, B = frozenset({0}), frozenset({1})

SCENARIOS: tuple[Scenario, ...] = (
    # One load, whoever comes.
    scenario("three readers of a cold key", "P6", "A", "B", "C", entry=False, loads=1),
    scenario("three readers of a cold key, two in one process", "P6", "A", "A", "B", entry=False, loads=1),
    scenario("three readers in one process", "P6", "A", "A", "A", entry=False, loads=1),
    # Invalidations against loads under way.
    scenario("the namespace is invalidated", "P1", "A", "B", "C:writes all"),
    scenario("the call is invalidated", "P2", "A", "B", "C:writes one"),
    scenario("a tag is invalidated", "P1", "A", "B", "C:writes tag", names=2),
    scenario("both are invalidated", "P1", "A", "B", "C:writes all", "D:writes one"),
    scenario("the call is invalidated twice", "P2", "A", "B", "C:writes one", "D:writes one"),
    scenario("the namespace is invalidated by a reader's process", "P1", "A", "A", "A:writes all"),
    scenario("the call is invalidated among readers of one process", "P2", "A", "A", "B", "B:writes one"),
    scenario("the namespace is invalidated among readers of one process", "P1", "A", "A", "B", "B:writes all"),
    scenario("a refresh against an invalidation", "P2", "A", "B:refresh", "C:writes one"),
    scenario("a refresh puts the new value in place", "P2", "A", "B", "C:writes refresh"),
    scenario("set puts the new value in place", "P2", "A", "B", "C:writes put"),
    # Each key of a cluster's command at a moment of its own.
    scenario("the namespace is invalidated, in a cluster", "P1", "A", "B", "C:writes all", spread=True),
    scenario("the call is invalidated, in a cluster", "P2", "A", "B", "C:writes one", spread=True),
    scenario("a tag is invalidated, in a cluster", "P1", "A", "C:writes tag", names=2, spread=True),
    # What goes wrong.
    scenario("a lease runs out", "P2", "A", "B", "C:writes one", faults=("expiry",)),
    scenario("a lease runs out twice", "P1", "A", "B", "C:writes all", faults=("expiry", "expiry")),
    scenario("a load fails", "P2", "A", "A", "B", "C:writes one", faults=("failure",)),
    scenario("a leader dies", "P2", "A", "B", "C:writes one", faults=("death:0",)),
    scenario("a leader is cancelled", "P1", "A", "A", "C:writes all", faults=("cancel:0",)),
    scenario("the generation is evicted", "P4", "A", "B", "C:writes all", faults=("eviction",)),
    scenario("the store is flushed", "P4", "A", "B", "C:writes all", faults=("flush",)),
    scenario("the store is flushed and the call invalidated", "P4", "A", "B", "C:writes one", faults=("flush",)),
    scenario("a failover loses the bump", "P5", "A", "B", "A:writes all", faults=("failover",)),
    scenario("a failover loses the bump that a reader has seen", "P5", "A", "A", "C:writes all", faults=("failover",)),
    scenario("a command arrives late, namespace", "P1", "A", "B", "C:writes all", faults=("late",)),
    scenario("a command arrives late, call", "P2", "A", "B", "C:writes one", faults=("late",)),
    scenario("a store arrives after its lease was lost", "P2", "A", "B", "C:writes one", faults=("late", "expiry")),
    scenario("a command is sent twice, namespace", "P1", "A", "B", "C:writes all", faults=("resent",)),
    scenario("a command is sent twice, call", "P2", "A", "B", "C:writes one", faults=("resent",)),
    scenario("an invalidation of the namespace is owed", "P8", "A", "B", "A:writes all", faults=("late",)),
    scenario("an invalidation of the call is owed", "P8", "A", "B", "A:writes one", faults=("late",)),
    scenario("a process is cut off from the store", "P1", "A", "A", "A", "C:writes all", cut_off=A),
    scenario("waiting takes too long", "P1", "A", "A", "B", "C:writes all", faults=("timeout",)),
)

DEEP: tuple[Scenario, ...] = (
    scenario(
        "three readers in one process, one elsewhere, two invalidations", "P1",
        "A", "A", "A", "B", "C:writes all", "D:writes one", faults=("timeout", "late", "expiry"),
    ),
    scenario(
        "everything goes wrong", "P1",
        "A", "A", "A", "B", "B", "C:writes all", "D:writes all", "A:writes all",
        faults=("expiry", "eviction", "flush", "death:1", "cancel:0", "late", "late", "resent", "timeout", "timeout", "failure"),
    ),
    scenario(
        "everything goes wrong, call by call", "P2",
        "A", "A", "A", "B", "B", "C:writes one", "D:writes one", "A:writes one",
        faults=("expiry", "eviction", "flush", "death:1", "cancel:0", "late", "late", "resent", "timeout", "timeout", "failure"),
    ),
    scenario(
        "everything goes wrong in a cluster", "P1",
        "A", "A", "B", "C", "C:writes all", "D:writes one", "A:writes tag", names=2, spread=True,
        faults=("expiry", "eviction", "flush", "death:1", "cancel:0", "late", "late", "timeout", "failure"),
    ),
    scenario(
        "failover, and everything else", "P5",
        "A", "A", "B", "B", "A:writes all", "B:writes all", faults=("failover", "expiry", "late", "eviction"),
    ),
)  # fmt: skip
