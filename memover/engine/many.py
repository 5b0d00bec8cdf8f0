"""The flow of a batch: one read for all the calls, leases and loads for those that it does not serve.

A batch is not a snapshot: its entries are read together, but each was loaded when it was. Leases are asked for and
never waited for while others are held, so two batches cannot block each other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from memover.engine.flows import (
    MARKS_LIMIT,
    answer,
    captured,
    conclude,
    get,
    give_back,
    lead,
    resolve,
    together,
    upgrade,
)
from memover.engine.judge import FRESH, STALE, UNKNOWN
from memover.engine.ops import Outcome
from memover.errors import StoreError
from memover.model import Source

if TYPE_CHECKING:
    from memover.engine.ops import Flow, Grant, Reading, Sealed
    from memover.engine.terms import Terms

__all__ = [
    "AcquireMany",
    "Attempt",
    "BatchOp",
    "BatchSite",
    "Each",
    "Item",
    "LoadMany",
    "ReadMany",
    "StoreMany",
    "gather",
]


class Item(Protocol):
    """One call of a batch; `outcome` is filled in by the flow."""

    terms: Terms
    token: str
    outcome: Outcome | None

    def seal(self, outcome: Outcome, marks: Any) -> Sealed | None: ...
    def learn(self, names: Sequence[bytes]) -> None: ...
    def finish(self, outcome: Outcome | None) -> None: ...


class BatchSite(Protocol):
    """Where the operations of a batch are answered."""

    def read_many(self, items: Sequence[Item]) -> Any: ...
    def acquire_many(self, items: Sequence[Item]) -> Any: ...
    def load_many(self, items: Sequence[Item]) -> Any: ...
    def store_many(self, stored: Sequence[tuple[Item, Sealed]]) -> Any: ...
    def each(self, flows: Sequence[tuple[Item, Flow[Outcome]]]) -> Any: ...
    def attempt(self, flows: Sequence[tuple[Item, Flow[Outcome | None]]]) -> Any: ...


class ReadMany:
    """Answer: for each item its `Outcome` if it is served, else its `Reading`; one round trip, one per node in Cluster."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def on(self, site: BatchSite) -> Any:
        return site.read_many(self.items)


class AcquireMany:
    """Answer: a `Grant` for each item, asked for under its token; one round trip."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def on(self, site: BatchSite) -> Any:
        return site.acquire_many(self.items)


class LoadMany:
    """Answer: an `Outcome` for each item that the bulk loader had a value for, None for the others."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def on(self, site: BatchSite) -> Any:
        return site.load_many(self.items)


class StoreMany:
    """Store entries under their leases; one round trip. Answer: None."""

    __slots__ = ("stored",)

    def __init__(self, stored: Sequence[tuple[Item, Sealed]]) -> None:
        self.stored = stored

    def on(self, site: BatchSite) -> Any:
        return site.store_many(self.stored)


class Each:
    """Run a flow of its own for each item, a bounded number at a time, and note its outcome. Answer: None."""

    __slots__ = ("flows",)

    def __init__(self, flows: Sequence[tuple[Item, Flow[Outcome]]]) -> None:
        self.flows = flows

    def on(self, site: BatchSite) -> Any:
        return site.each(self.flows)


class Attempt:
    """Run a flow for each item, a bounded number at a time. Answer: what each came to; None is no outcome yet."""

    __slots__ = ("flows",)

    def __init__(self, flows: Sequence[tuple[Item, Flow[Outcome | None]]]) -> None:
        self.flows = flows

    def on(self, site: BatchSite) -> Any:
        return site.attempt(self.flows)


BatchOp = ReadMany | AcquireMany | LoadMany | StoreMany | Each | Attempt
BatchFlow = Generator[BatchOp, Any, None]


def gather(items: Sequence[Item], readings: Sequence[Reading] | None, bulk: bool) -> BatchFlow:
    """Answer every item. `readings` are what was read for them and found wanting, None to read first; `bulk` says
    that there is a bulk loader."""
    closed = [item for item in items if item.terms.closed()]
    if closed:  # nothing is served under an invalidation that is owed
        yield Each([(item, get(item.terms)) for item in closed])
        items, readings = [item for item in items if item.outcome is None], None
    if not items:
        return
    try:
        answers = yield from look(items, readings)
    except StoreError:
        yield Each([(item, get(item.terms)) for item in items])
        return
    missing: list[tuple[Item, Reading]] = []
    for item, found in zip(items, answers):
        if isinstance(found, Outcome):
            item.outcome = found
        else:
            missing.append((item, found))
    singly = missing
    if bulk:
        # What has yet to be learned of, or may be served stale, is not a load yet.
        singly = [(item, reading) for item, reading in missing if undecided(item.terms, reading)]
        known = {id(item) for item, _ in singly}
        stopped = yield from lead_many([item for item, _ in missing if id(item) not in known])
        if stopped is not None:
            for item, _ in singly:
                item.outcome = Outcome(error=stopped)
            return
    yield Each([(item, resolve(item.terms, reading)) for item, reading in singly])


def look(items: Sequence[Item], readings: Sequence[Reading] | None) -> Generator[BatchOp, Any, list[Outcome | Reading]]:
    """Read what has not been read; and what stands under tokens not known of before, once more, together with these."""
    found: list[Outcome | Reading] = list((yield ReadMany(items)) if readings is None else readings)
    learning: list[int] = []
    for at, (item, one) in enumerate(zip(items, found)):
        if not isinstance(one, Outcome) and one.header is not None and unknown(item.terms, one):
            item.learn([name for name, _ in one.header.marks])
            learning.append(at)
    if learning:
        for at, one in zip(learning, (yield ReadMany([items[at] for at in learning]))):
            found[at] = one
    return found


def unknown(terms: Terms, reading: Reading) -> bool:
    """Whether more tokens must be read before anything can be said of this reading."""
    return terms.witness.trusts(reading.names, reading.tokens) and terms.judge(reading) is UNKNOWN


def undecided(terms: Terms, reading: Reading) -> bool:
    """Whether more than a load may come of this reading."""
    if terms.closed():
        return True
    if not terms.witness.trusts(reading.names, reading.tokens):
        return False
    verdict = terms.judge(reading)
    return verdict is UNKNOWN or verdict is FRESH or (verdict is STALE and terms.soft is not None)


def lead_many(items: Sequence[Item]) -> Generator[BatchOp, Any, BaseException | None]:
    """Take what leases there are, load those calls in bulk, and leave the rest to their own flows.

    Answer: what ended the bulk loader if it was no error of its own (cancelled, interrupted): then no more is begun."""
    if not items:
        return None
    try:
        grants = yield AcquireMany(items)
    except StoreError:
        yield Each([(item, get(item.terms)) for item in items])
        return None
    ours: list[tuple[Item, Grant]] = []
    holding: list[tuple[Item, Flow[Outcome]]] = []
    others: list[tuple[Item, Flow[Outcome]]] = []
    for item, grant in zip(items, grants):
        terms, reading = item.terms, grant.reading
        if not grant.ours:
            others.append((item, get(terms)))
        elif terms.witness.trusts(reading.names, reading.tokens) and terms.judge(reading) is FRESH:
            holding.append((item, filled(terms, item.token, reading)))
        else:
            if terms.call_name:
                terms.call_token = reading.token(terms.call_name)
            ours.append((item, grant))
    upgraded: list[Outcome | None] = []
    loaded: list[Outcome | None]
    if ours and ours[0][0].terms.upgrades:
        upgraded = yield Attempt([(item, upgrade(item.terms, item.token, grant.reading)) for item, grant in ours])
        for (item, _), done in zip(ours, upgraded):
            if done is not None:
                item.outcome = done
                item.finish(done)
        ours = [(item, grant) for (item, grant), done in zip(ours, upgraded) if done is None]
    loaded = yield LoadMany([item for item, _ in ours])
    stored: list[tuple[Item, Sealed]] = []
    for (item, grant), done in zip(ours, loaded):
        terms, reading = item.terms, grant.reading
        if done is None:
            holding.append((item, lead(terms, item.token, reading)))
            continue
        marks = together(captured(terms, reading), done.marks)
        plain = done.error is None and done.keep and not done.declared and not terms.clock_name
        sealed = None
        if plain and marks is not None and len(marks) <= MARKS_LIMIT and not terms.closed():
            sealed = item.seal(done, marks)
        if sealed is None or sealed.error is not None:
            holding.append((item, conclude(terms, item.token, reading, done)))
        else:
            done.marks, done.sealed, item.outcome = marks, sealed, done
            stored.append((item, sealed))
    if stored:
        try:
            yield StoreMany(stored)
        except StoreError:
            pass  # the leases end by themselves, and whoever waits takes over
        for item, _ in stored:
            item.finish(item.outcome)
    # Those that hold a lease first: nobody waits for another while others wait for it.
    yield Each(holding)
    errors = (done.error for done in (*upgraded, *loaded) if done is not None)
    stopped = next((error for error in errors if error is not None and not isinstance(error, Exception)), None)
    if stopped is not None:
        for item, _ in others:
            item.outcome = Outcome(error=stopped)
        return stopped
    yield Each(others)
    return None


def filled(terms: Terms, token: str, reading: Reading) -> Flow[Outcome]:
    """Serve what was stored between the read and the lease, and give the lease back."""
    found = yield from answer(terms, reading, Source.WAITED)
    yield from give_back(token)
    return found if found is not None else (yield from get(terms))
