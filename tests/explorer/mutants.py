"""The protocol with one rule broken at a time, each in a way that real caches are broken.

A mutant replaces a flow (first argument: the flows it lives among), a command of the store, a witness, or how a site answers an
operation, and says which promise it breaks and in which scenario. One that the explorer does not catch means that the
explorer is blind, or that the rule is not needed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.engine.ops import Acquire, Decode, Ensure, Load, Look, Read, Ride, Wait
from memover.engine.terms import Terms

from memover.engine import flows as real_flows
from memover.engine import lease as leases
from memover.engine.judge import VERSION
from memover.engine.tokens import Witness
from memover.model import Source
from tests.explorer.desk import Desk
from tests.explorer.shelf import Shelf, put
from tests.explorer.state import CALL, Slot
from tests.explorer.world import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from tests.explorer.state import Held

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One broken rule: what is wrong, the promise that falls with it, and the scenario that shows it."""

    wrong: str
    promise: str
    scenario: str
    flows: dict[str, Callable[..., Any]] = field(default_factory=dict)
    shelf: type[Shelf] = Shelf
    witness: type[Witness] = Witness
    desk: type[Desk] = Desk

    def rules(self) -> Rules:
        return Rules(changed(self.flows) if self.flows else real_flows, self.shelf, self.witness, self.desk)


def changed(replaced: dict[str, Any]) -> ModuleType:
    """A copy of the flows of its own, with some of them replaced."""
    spec = importlib.util.find_spec(real_flows.__name__)
    assert spec is not None and spec.loader is not None, "it was imported"
    flows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flows)
    for name, flow in replaced.items():
        setattr(flows, name, flow if isinstance(flow, type) else partial(flow, flows))
    return flows


# -- rule 1: stamped with what was read before the load ----------------------------------------------------------------------


def lead_reading_after(flows: Any, terms: Any, token: str, reading: Any) -> Any:
    done = yield Load(token)
    return (yield from flows.conclude(terms, token, (yield Look()), done))


# -- rule 2: the lease before the load, and only its holder stores -----------------------------------------------------------


def obtain_lease_after(flows: Any, terms: Any) -> Any:
    token = terms.new_token()
    reading = yield Read()
    done = yield Load(token)
    yield Acquire(token, force=True)
    return (yield from flows.conclude(terms, token, reading, done))


class StoreUnasked(Shelf):
    def store(self, held: Held, key: int, token: str, entry: Any) -> Any:
        return put(held, key, Slot(entry, None)), True


class LeaseOutlivesDrop(Shelf):
    def delete(self, held: Held, key: int) -> Any:
        return put(held, key, Slot(None, held.slots[key].lease)), None


class DroppedInTwo(Shelf):
    def delete_entry(self, held: Held, key: int) -> Any:
        return put(held, key, Slot(None, held.slots[key].lease)), None

    def delete_lease(self, held: Held, key: int) -> Any:
        return put(held, key, Slot(held.slots[key].entry, None)), None


class DropInTwo(Desk):
    def drop(self, nonce: str) -> None:
        self.exchange("drops", (("delete_entry", self.key), ("delete_lease", self.key)), lambda _: None)


# -- rule 3: a load is shared by lease token, under tokens that are current ---------------------------------------------------


class AnyHolder(Shelf):
    def holder(self, lease: bytes | None, stamp: bytes) -> str:
        return leases.holder_of(lease, lease.split(b" ", 2)[2]) if lease and lease.startswith(b"L ") else ""


def stands_always(flows: Any, terms: Any, reading: Any, marks: Any) -> Any:
    return True
    yield


class FlightByKey(Desk):
    def acquire(self, token: str, force: bool) -> None:
        others = sorted(name for name, index in self.process.flights if index != self.index)
        if self.at_once or not others:
            super().acquire(token, force)
            return
        held, names = self.state.held, self.asked()
        reading = ("reading", self.key, names, self.world.shelf.tokens(held, names), held.slots[self.key].entry, None)
        self.step(
            ("finds a load of the key in its process",), self.answer(self.state, ("grant", False, others[0], reading))
        )


def stands_under_required(flows: Any, terms: Any, reading: Any, marks: Any) -> Any:
    required = terms.required
    return marks is not None and tuple(reading.tokens[:required]) == tuple(token for _, token in marks[:required])
    yield


def stands_unmarked(flows: Any, terms: Any, reading: Any, marks: Any) -> Any:
    return marks is None or (yield from real_flows.stands(terms, reading, marks))


def obtain_without_a_second_look(flows: Any, terms: Any) -> Any:
    token = terms.new_token()
    grant = yield Acquire(token)
    if not grant.ours:
        return (yield from real_flows.obtain(terms))
    return (yield from flows.lead(terms, token, grant.reading))


# -- rule 4: what was waited for is judged -----------------------------------------------------------------------------------


def follow_blindly(flows: Any, terms: Any, grant: Any, deadline: float, ticket: int) -> Any:
    shared = yield Wait(grant.holder, deadline, 0.0)
    if shared is not None:
        return shared
    reading = yield Look()
    return None if reading.header is None else (yield Decode(reading, Source.WAITED))


# -- rule 6: without the store, only a load that began after the call --------------------------------------------------------


def alone_with_anybody(flows: Any, terms: Any, ticket: int) -> Any:
    ride = yield Ride(0, 1.0)
    return (yield Load(None)) if ride is True or ride is None else ride


# -- rule 7: what was used stands as it was when it was used -------------------------------------------------------------------


def answer_with_marks_of_now(flows: Any, terms: Any, reading: Any, source: Any) -> Any:
    found = yield from real_flows.answer(terms, reading, source)
    if found is not None and terms.call_name:
        names = [name for name, _ in found.marks if not name.startswith(VERSION)]
        found.marks = tuple(zip(names, (yield Ensure(names))))
    return found


def read_call_token_last(flows: Any, terms: Any) -> Any:
    reading = yield Read()
    if terms.call_name:
        (terms.call_token,) = yield Ensure((terms.call_name,))
    return reading


class TokenBeforeEntry(Desk):
    def drop(self, nonce: str) -> None:
        key, along = self.key, self.along(CALL)
        self.exchange("drops", (("along", along, nonce),), lambda _: None, lambda _: (("delete", key),))


# -- rule 8: a tag known late stands as it was before the load -----------------------------------------------------------------


def with_late_of_now(flows: Any, terms: Any, reading: Any, marks: Any, late: Any) -> Any:
    return (*marks, *zip(late, (yield Ensure(late)))) if late else marks


# -- generations: a lost one is replaced by a new one, and behind is healed -----------------------------------------------------


class Remembering(Desk):
    """A reader puts back the token that it remembers."""

    def acquire(self, token: str, force: bool) -> None:
        held = self.state.held
        tokens = tuple(now or seen for now, seen in zip(held.tokens, self.process.last))
        self.state = self.state._replace(held=held._replace(tokens=tokens))
        super().acquire(token, force)


class Counting(Shelf):
    """Generations are numbers, counted up with INCR."""

    def first(self, at: int) -> bytes:
        return b"1-%016x" % 0

    def new(self, current: int, floor: int, nonce: str) -> bytes:
        return b"%d-%016x" % (current + 1, 0)


class Believing(Witness):
    """Whatever the store says is true."""

    __slots__ = ()

    def trusts(self, names: Sequence[bytes], tokens: Sequence[bytes | None]) -> bool:
        for name, token in zip(names, tokens):
            if token is not None:
                self._seen[name] = (token, 0)
        return all(token is not None for token in tokens)


class Floorless(Desk):
    def floors(self, names: Sequence[bytes]) -> tuple[int, ...]:
        return (0,) * len(names)


class FloorlessShelf(Shelf):
    def ensure(self, held: Held, name: bytes, floor: int, nonce: str) -> Any:
        return super().ensure(held, name, 0, nonce)


# -- what is owed closes its names ------------------------------------------------------------------------------------------------


class Forgetful(Terms):
    """An invalidation that failed is nobody's business until it is repeated."""

    __slots__ = ()

    def closed(self) -> bool:
        return False

    def owing(self, names: Sequence[bytes]) -> bool:
        return False


class ForgetfulOfUse(Terms):
    """Only the call's own names are closed, not what its load used."""

    __slots__ = ()

    def owing(self, names: Sequence[bytes]) -> bool:
        return False


MUTANTS: tuple[Mutant, ...] = (
    Mutant("the entry is stamped with what is read after the load", "P1", "the namespace is invalidated",
           flows={"lead": lead_reading_after}),
    Mutant("the lease is taken after the load", "P2", "the call is invalidated", flows={"obtain": obtain_lease_after}),
    Mutant("whoever has loaded stores, lease or not", "P2", "the call is invalidated", shelf=StoreUnasked),
    Mutant("an invalidation of the call leaves its lease", "P2", "the call is invalidated", shelf=LeaseOutlivesDrop),
    Mutant("entry and lease are removed one after the other", "P2", "the call is invalidated",
           shelf=DroppedInTwo, desk=DropInTwo),
    Mutant("a lease under other tokens is waited for, and what comes of it taken", "P1", "the namespace is invalidated by a reader's process",
           shelf=AnyHolder, flows={"stands": stands_always}),
    Mutant("a load in the same process is shared by key", "P2", "the call is invalidated by a reader's process", desk=FlightByKey),
    Mutant("a shared load is taken without asking for its late tags", "P1", "a late tag is invalidated, two in one process",
           flows={"stands": stands_under_required}),
    Mutant("a shared load is taken without asking for what it used", "P11", "two in one process use what is invalidated",
           flows={"stands": stands_under_required}),
    Mutant("the flight of a holder who lost the store is taken", "P1", "a command arrives late, two in one process",
           flows={"stands": stands_unmarked}),
    Mutant("the entry is not looked at again under the lease", "P6", "three readers of a cold key",
           flows={"obtain": obtain_without_a_second_look}),
    Mutant("what was waited for is not judged", "P1", "the namespace is invalidated", flows={"follow": follow_blindly}),
    Mutant("a load without the store is shared with those who came later", "P1", "a process is cut off from the store",
           flows={"alone": alone_with_anybody}),
    Mutant("what was used is stamped as it is now", "P11", "the namespace that was used is invalidated",
           flows={"answer": answer_with_marks_of_now}),
    Mutant("in a cluster, the call's token is read after its entry", "P11", "the call that was used is invalidated, in a cluster",
           flows={"read": read_call_token_last}),
    Mutant("in a cluster, the call's token moves before its entry goes", "P11", "the call that was used is invalidated, in a cluster",
           desk=TokenBeforeEntry),
    Mutant("a late tag is stamped as it is after the load", "P1", "a late tag is invalidated", flows={"with_late": with_late_of_now}),
    Mutant("a reader puts back the generation that it remembers", "P4", "the generation is evicted", desk=Remembering),
    Mutant("generations are counted, from 1 again when they are lost", "P4", "the generation is evicted", shelf=Counting),
    Mutant("a generation that is behind is believed", "P5", "a failover loses the bump", witness=Believing),
    Mutant("a generation that is behind is not put right", "P5", "a failover loses the bump", desk=Floorless),
    Mutant("the store does not heed the floor", "P5", "a failover loses the bump", shelf=FloorlessShelf),
    Mutant("an owed invalidation of the namespace is ignored", "P8", "an invalidation of the namespace is owed",
           flows={"Terms": Forgetful}),
    Mutant("an owed invalidation of the call is ignored", "P8", "an invalidation of the call is owed", flows={"Terms": Forgetful}),
    Mutant("an owed invalidation of what was used is ignored", "P11", "an invalidation of the namespace that was used is owed",
           flows={"Terms": ForgetfulOfUse}),
)  # fmt: skip
