"""The protocol with one rule broken at a time, each in a way that real caches are broken.

A mutant replaces a flow (first argument: the flows it lives among), a verb of a call, of the store or of the function, a
script of the server, or the witness, and says which promise it breaks and in which scenario. One that the explorer does not
catch means that the explorer is blind, or that the rule is not needed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from memover.engine import alone, follow, load, marks, reading, replace
from memover.engine import invalidate as real_invalidate
from memover.engine import many as real_many
from memover.engine.call import CachedCall
from memover.engine.judge import DEAD, STALE, VERSION
from memover.engine.steps import Await, Send
from memover.engine.store import Granted, Seen
from memover.engine.tokens import Witness
from memover.errors import StoreError
from memover.model import Source
from memover.stores.redis import scripts
from memover.stores.redis.asking import Command, call
from tests.explorer.function import WorldFunction
from tests.explorer.server import Server, WorldStore
from tests.explorer.state import TAG
from tests.explorer.world import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from tests.explorer.world import Scenario

__all__ = ["MUTANTS", "Mutant", "real_rules"]

LISTED = 3
"""More tokens than these are replaced by the coarse one, in a coarse scenario: `p` has four."""


@dataclass(frozen=True)
class Mutant:
    """One broken rule: what is wrong, the promise that falls with it, and the scenario that shows it."""

    wrong: str
    promise: str
    scenario: str
    flows: dict[str, Callable[..., Any]] = field(default_factory=dict)
    many: dict[str, Callable[..., Any]] = field(default_factory=dict)
    invalidate: dict[str, Callable[..., Any]] = field(default_factory=dict)
    call: type[CachedCall] = CachedCall
    function: type[WorldFunction] = WorldFunction
    store: type[WorldStore] = WorldStore
    server: type[Server] = Server
    witness: type[Witness] = Witness

    def rules(self, scenario: Scenario) -> Rules:
        flows = changed_flows(self.flows, **({"MARKS_LIMIT": LISTED} if scenario.coarse else {}))
        shared = {name: flow for name, flow in vars(flows).items() if hasattr(real_many, name)}
        many = changed(real_many, self.many, **shared)
        invalidate = changed(real_invalidate, self.invalidate)
        return Rules(flows, many, invalidate, self.call, self.function, self.store, self.server, self.witness)


def real_rules(scenario: Scenario) -> Rules:
    """The protocol as it is."""
    return Mutant("nothing is wrong", "", "").rules(scenario)


_FLOWS = (reading, marks, alone, follow, load, replace)
"""The modules of the flows of a call. A flow's name is the same in all of them."""
real_flows: Any = SimpleNamespace(**{name: getattr(module, name) for module in _FLOWS for name in module.__all__})


def changed_flows(replaced: dict[str, Any], **others: Any) -> SimpleNamespace:
    """Copies of the flows of a call, with some of them replaced wherever they are used."""
    copies = [changed(module, {}) for module in _FLOWS]
    # From where each is defined: what a copy imports is the real one.
    made = [(name, getattr(copy, name), copy.__name__) for copy in copies for name in copy.__all__]
    flows = SimpleNamespace(**{name: each for name, each, home in made if getattr(each, "__module__", home) == home})
    assert vars(flows).keys() >= {*replaced, *others}, "there are flows of these names"
    for name, value in (*others.items(), *((name, partial(flow, flows)) for name, flow in replaced.items())):
        setattr(flows, name, value)
    for copy in copies:
        for name, value in vars(flows).items():
            if hasattr(copy, name):
                setattr(copy, name, value)
    return flows


def changed(module: ModuleType, replaced: dict[str, Any], **others: Any) -> ModuleType:
    """A copy of a module of flows, with some of them replaced."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None and spec.loader is not None, "it was imported"
    flows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flows)
    for name, value in others.items():
        setattr(flows, name, value)
    for name, flow in replaced.items():
        setattr(flows, name, partial(flow, flows))
    return flows


# -- rule 1: stamped with what was read before the load ----------------------------------------------------------------------


def lead_reading_after(flows: Any, call: Any, token: str, reading: Any) -> Any:
    done = yield from call.function.load(call)
    return (yield from flows.conclude(call, token, (yield from call.look()), done))


def lead_many_reading_after(many: Any, batch: Any, calls: Any) -> Any:
    if not calls:
        return None
    requests = [call.request(call.function.new_token()) for call in calls]
    granted = yield from calls[0].function.store.acquire_many(requests)
    ours = [call for call, each in zip(calls, granted) if call.granted(each).ours]
    loaded = yield from batch.load_many(ours)
    for one, done in zip(ours, loaded):
        reading = yield from one.look()
        yield from many.each(batch, [(one, many.conclude(one, one.token, reading, done))])
    yield from many.each(batch, [(call, many.get(call)) for call in calls if call not in ours])
    return None


# -- rule 2: the lease before the load, and only its holder stores -----------------------------------------------------------


def obtain_lease_after(flows: Any, call: Any) -> Any:
    token = call.function.new_token()
    reading = yield from call.read()
    done = yield from call.function.load(call)
    yield from call.acquire(token, force=True)
    return (yield from flows.conclude(call, token, reading, done))


class StoreUnasked(Server):
    def store(self, values: Any, keys: Any, mine: bytes, raw: bytes, ms: bytes, keep: bytes) -> Any:
        self.put(values, keys[1], raw)
        self.put(values, keys[0], None)
        return 1


class LeaseOutlivesDrop(Server):
    def drop(self, values: Any, keys: Any, nonce: bytes, *limits: bytes) -> Any:
        self.delete(values, keys[:1])
        self.move(values, keys[2:], nonce)
        return 1


class DropInTwo(WorldStore):
    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Any) -> Any:
        yield from Send(self.link, [Command(entry, (b"DEL", entry)), Command(entry, (b"DEL", lease))])


# -- rule 3: a load is shared by lease token, under tokens that are current ---------------------------------------------------


class AnyHolder(Server):
    def is_taken(self, current: bytes | None, mine: bytes, mode: bytes, under: bytes) -> bool:
        return super().is_taken(current, mine, b"2" if mode == b"0" else mode, under)


class AnyHolderHeard(WorldStore):
    def _granted(self, ours: Any, held: Any, seen: Any, required: int) -> Granted:
        return Granted(ours == 1, "" if ours else held.split(b" ")[1].decode(), seen)


def stands_always(flows: Any, call: Any, reading: Any, marks: Any) -> Any:
    return True
    yield


class FlightByKey(CachedCall):
    def acquire(self, token: str, *, force: bool = False) -> Any:
        means: Any = self.function.means  # type: ignore[attr-defined]
        own = self.flight.name
        other = means.observe(
            lambda process: min((name for name, flight in process.flights if flight != own), default="")
        )
        if not other:
            return (yield from super().acquire(token, force=force))
        reading = yield from self.read()
        self.token = token
        return self.granted(Granted(False, other, Seen(tuple(reading.names), reading.tokens, reading.raw)))


def stands_under_required(flows: Any, call: Any, reading: Any, marks: Any) -> Any:
    required = call.required
    return marks is not None and tuple(reading.tokens[:required]) == tuple(token for _, token in marks[:required])
    yield


def stands_unmarked(flows: Any, call: Any, reading: Any, marks: Any) -> Any:
    return marks is None or (yield from real_flows.stands(call, reading, marks))


def obtain_without_a_second_look(flows: Any, call: Any) -> Any:
    token = call.function.new_token()
    grant = yield from call.acquire(token)
    if not grant.ours:
        return (yield from real_flows.obtain(call))
    return (yield from flows.lead(call, token, grant.reading))


# -- rule 4: what was waited for is judged -----------------------------------------------------------------------------------


def follow_blindly(flows: Any, call: Any, grant: Any, deadline: float, arrival: int) -> Any:
    flight = call.function.share(call, grant.holder)
    if flight is not call.flight:
        yield from Await(flight, deadline)
        shared = call.own(flight.outcome)
        if shared is not None:
            return shared
    reading = yield from call.look()
    return None if reading.header is None else call.opened(reading, Source.WAITED)


# -- rule 6: without the store, only a load that began after the call --------------------------------------------------------


def alone_with_anybody(flows: Any, call: Any, arrival: int) -> Any:
    return (yield from real_flows.alone(call, -1))


# -- rule 7: what was used stands as it was when it was used -------------------------------------------------------------------


def answer_with_marks_of_now(flows: Any, call: Any, reading: Any, source: Any) -> Any:
    found: Any = yield from real_flows.answer(call, reading, source)
    if found is not None and call.call_name:
        names = [name for name, _ in found.marks if not name.startswith(VERSION)]
        found.marks = tuple(zip(names, (yield from call.ensure(names))))
    return found


class CallTokenLast(CachedCall):
    def read(self) -> Any:
        if not self.call_name:
            return (yield from super().read())
        reading = self.reading((yield from self.function.store.read(self.key)))
        (self.call_token,) = yield from self.ensure((self.call_name,))
        return reading


class TokenBeforeEntry(WorldStore):
    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Any) -> Any:
        for name in along:
            yield from self.asked([call(scripts.MOVE, (name,), nonce.encode(), b"0")])
        yield from self.asked([Command(entry, (b"DEL", entry, lease))])


# -- rule 8: a tag known late stands as it was before the load -----------------------------------------------------------------


def with_late_of_now(flows: Any, call: Any, reading: Any, marks: Any, late: Any) -> Any:
    return (*marks, *zip(late, (yield from call.ensure(late)))) if late else marks


class TagsOfTheCode(WorldFunction):
    """An upgraded result carries the tokens that the code tells, not those that the older entry stood under."""

    def upgrade(self, call: Any, version: int, reading: Any) -> Any:
        done: Any = yield from super().upgrade(call, version, reading)
        done.marks = done.marks[: call.required]
        done.sealed = self.seal(call, done, done.marks)
        return done

    def late_names(self, call: Any, outcome: Any) -> Any:
        return [] if outcome.source is Source.UPGRADED else super().late_names(call, outcome)


class UntaggedUpgrades(WorldFunction):
    """An upgraded result is stored though its older entry does not carry the late tag."""

    def late_names(self, call: Any, outcome: Any) -> Any:
        return [] if outcome.source is Source.UPGRADED else super().late_names(call, outcome)


class BatchUnasked(WorldFunction):
    """A batch stores what its bulk loader returned without asking for tags that the results tell."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.late = False

    def late_names(self, call: Any, outcome: Any) -> Any:
        return [TAG] if self.scenario.tag == "late" else []


# -- generations: a lost one is replaced by a new one, and behind is healed -----------------------------------------------------


class Remembering(CachedCall):
    """A reader puts back the token that it remembers."""

    def acquire(self, token: str, *, force: bool = False) -> Any:
        witness, store = self.function.witness, self.function.store
        for name in self.names:
            if (last := witness.last(name)) is not None:
                yield from store.asked([Command(name, (b"SETNX", name, last))])  # type: ignore[attr-defined]
        return (yield from super().acquire(token, force=force))


class ServerThatSets(Server):
    def perform(self, held: Any, command: Any) -> Any:
        if command.args[0] != b"SETNX":
            return super().perform(held, command)
        values = list(held)
        if self.get(values, command.args[1]) is None:
            self.put(values, command.args[1], command.args[2])
        return tuple(values), 1


class Counting(Server):
    """Generations are numbers, counted up with INCR."""

    def first(self, at: int) -> bytes:
        return b"1-%016x" % 0

    def new(self, current: int, floor: int, nonce: bytes) -> bytes:
        return b"%d-%016x" % (current + 1, 0)


class CountingStore(WorldStore):
    def tokens(self, answers: Any, count: int, what: str, nonce: bytes = b"") -> Any:
        return list(answers)


class Believing(Witness):
    """Whatever the store says is true."""

    __slots__ = ()

    def trusts(self, names: Sequence[bytes], tokens: Sequence[bytes | None]) -> bool:
        for name, token in zip(names, tokens):
            if token is not None:
                self._seen[name] = (bytes(token), 0)
        return all(token is not None for token in tokens)


class Floorless(Witness):
    __slots__ = ()

    def floor(self, name: bytes) -> int:
        return 0


class FloorlessServer(Server):
    def token_of(self, values: Any, name: bytes, nonce: bytes, floor: int, *, force: bool = False) -> bytes:
        return super().token_of(values, name, nonce, 0, force=force)


# -- what is owed closes its names ------------------------------------------------------------------------------------------------


class Forgetful(CachedCall):
    """An invalidation that failed is nobody's business until it is repeated."""

    __slots__ = ()

    def closed(self) -> bool:
        return False

    def owing(self, names: Sequence[bytes]) -> bool:
        return False


class ForgetfulOfUse(CachedCall):
    """Only the call's own names are closed, not what its load used."""

    __slots__ = ()

    def owing(self, names: Sequence[bytes]) -> bool:
        return False


# -- stale windows ------------------------------------------------------------------------------------------------------------------


class StaleAcrossBumps(CachedCall):
    """What was invalidated is served as stale while it is refreshed."""

    def judge(self, reading: Any) -> Any:
        verdict = super().judge(reading)
        return STALE if verdict is DEAD and reading.header is not None else verdict


# -- upgrades -----------------------------------------------------------------------------------------------------------------------


def drop_this_version_alone(
    invalidate: Any, ledger: Any, subject: Any, call: Any, nonce: str, older: Any, generation_name: bytes
) -> Any:
    return (yield from real_invalidate.drop(ledger, subject, call, nonce, (), generation_name))


def drop_older_last(
    invalidate: Any, ledger: Any, subject: Any, call: Any, nonce: str, older: Any, generation_name: bytes
) -> Any:
    yield from real_invalidate.drop(ledger, subject, call, nonce, (), generation_name)
    for each in older:
        yield from ledger.store.drop(each.entry, each.lease, nonce, ())


def drop_none(flows: Any, call: Any) -> Any:
    return None
    yield


class OlderDroppedLast(CachedCall):
    """The older versions go after the lease was taken by force, and not before."""

    def acquire(self, token: str, *, force: bool = False) -> Any:
        grant = yield from super().acquire(token, force=force)
        if force:
            yield from real_flows.drop_older(self)
        return grant


def upgrade_under_the_older_tokens(flows: Any, call: Any, token: str, reading: Any) -> Any:
    """The older entry is believed as it stands."""
    function = call.function
    for _, key in function.older_keys(call.key):
        seen = yield from function.store.read(key)
        header = function.read_header(key, seen.raw)
        if header is None:
            continue
        older = type(reading)(reading.names, reading.tokens, seen.raw, header)
        done = yield from function.upgrade(call, 1, older)
        now = real_flows.captured(call, reading)
        done.sealed, done.marks = function.seal(call, done, now), now
        yield from call.store(token, done.sealed)
        return done
    return None


# -- the coarse token ----------------------------------------------------------------------------------------------------------------


def coarse_unchecked(flows: Any, call: Any, marks: Any) -> Any:
    """What the coarse token stands for is not read once more after it."""
    (token,) = yield from call.ensure((call.function.coarse_name,))
    versions = (mark for mark in marks if call.is_version(mark[0]))
    return (*marks[: call.required], (call.function.coarse_name, token), *versions)


class CoarseFirst(WorldStore):
    """In a cluster, the coarse token moves before the tokens that it stands for."""

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Any) -> Any:
        yield from super().drop(entry, lease, nonce, (*along[1:], along[0]))


class CoarseStays(Server):
    """An invalidation of a namespace does not move the coarse token."""

    def move(self, values: Any, keys: Any, nonce: bytes, *limits: bytes) -> Any:
        return super().move(values, [key for key in keys if not key.endswith(b"@all")], nonce)


# -- a generation in shards ----------------------------------------------------------------------------------------------------------


def moved_without_shards(invalidate: Any, ledger: Any, names: Any, nonce: str, along: Any) -> Any:
    """An invalidation moves the namespace's own key alone."""
    every = invalidate.with_shards(names, ledger.store.generation_shards)
    floors = [ledger.witness.floor(name) for name in every[: len(names)]]
    tokens = yield from ledger.store.bump(every[: len(names)], nonce, floors, along)
    ledger.witness.trusts(names, tokens)
    return tokens


class Own(WorldStore):
    """Only what is given is moved, whatever is registered."""

    def _move_others(self, *asked: Any) -> Any:
        yield from ()


class OneShardLeft(Own):
    """The first shard is not moved."""

    def bump(self, names: Any, nonce: str, floors: Any, along: Any) -> Any:
        kept = [
            (name, floor) for name, floor in zip(names, floors) if name != (self.shards_of(names[0], 2) or (b"",))[0]
        ]
        return (yield from super().bump([name for name, _ in kept], nonce, [floor for _, floor in kept], along))


class AcknowledgedTooSoon(Own):
    """An invalidation returns when the namespace's own key has moved; the shards follow if the store happens to answer."""

    def bump(self, names: Any, nonce: str, floors: Any, along: Any) -> Any:
        tokens = yield from super().bump(names[:1], nonce, floors[:1], along)
        try:
            yield from super().bump(names[1:], nonce, floors[1:], ())
        except StoreError:
            pass
        return tokens


class Unregistered(WorldStore):
    """A load does not say of how many shards its generation is."""

    def _registering(self, names: Any, nonce: bytes) -> list[Command]:
        return []


class CertainFromTheBeginning(Server):
    """A new registry does not say that it may have taken the place of another."""

    def register(self, values: Any, keys: Any, count: bytes, nonce: bytes) -> Any:
        if self.get(values, keys[0]) is None:
            self.put(values, keys[0], count)
            return 1
        return super().register(values, keys, count, nonce)


class SettledWhateverCame(Server):
    """The mark goes although the registry has changed since it was read."""

    def settle(self, values: Any, keys: Any, read: bytes, wanted: bytes) -> Any:
        self.put(values, keys[0], wanted)
        return 1


class OwedAlone(Witness):
    """What is owed to a generation does not concern its shards."""

    def owes(self, names: Any, *more: bytes) -> bool:
        return any(name in self.owed for name in (*names, *more))


MUTANTS: tuple[Mutant, ...] = (
    Mutant("the entry is stamped with what is read after the load", "P1", "the namespace is invalidated",
           flows={"lead": lead_reading_after}),
    Mutant("the lease is taken after the load", "P2", "the call is invalidated", flows={"obtain": obtain_lease_after}),
    Mutant("whoever has loaded stores, lease or not", "P2", "the call is invalidated", server=StoreUnasked),
    Mutant("an invalidation of the call leaves its lease", "P2", "the call is invalidated", server=LeaseOutlivesDrop),
    Mutant("entry and lease are removed one after the other", "P2", "the call is invalidated",
           store=DropInTwo),
    Mutant("a lease under other tokens is waited for, and what comes of it taken", "P1", "the namespace is invalidated by a reader's process",
           server=AnyHolder, store=AnyHolderHeard, flows={"stands": stands_always}),
    Mutant("a load in the same process is shared by key", "P2", "the call is invalidated by a reader's process", call=FlightByKey),
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
           call=CallTokenLast),
    Mutant("in a cluster, the call's token moves before its entry goes", "P11", "the call that was used is invalidated, in a cluster",
           store=TokenBeforeEntry),
    Mutant("a late tag is stamped as it is after the load", "P1", "a late tag is invalidated", flows={"with_late": with_late_of_now}),
    Mutant("a reader puts back the generation that it remembers", "P4", "the generation is evicted", call=Remembering, server=ServerThatSets),
    Mutant("generations are counted, from 1 again when they are lost", "P4", "the generation is evicted", server=Counting, store=CountingStore),
    Mutant("a generation that is behind is believed", "P5", "a failover loses the bump", witness=Believing),
    Mutant("a generation that is behind is not put right", "P5", "a failover loses the bump", witness=Floorless),
    Mutant("the store does not heed the floor", "P5", "a failover loses the bump", server=FloorlessServer),
    Mutant("an owed invalidation of the namespace is ignored", "P8", "an invalidation of the namespace is owed",
           call=Forgetful),
    Mutant("an owed invalidation of the call is ignored", "P8", "an invalidation of the call is owed", call=Forgetful),
    Mutant("an owed invalidation of what was used is ignored", "P11", "an invalidation of the namespace that was used is owed",
           call=ForgetfulOfUse),
    Mutant("what was invalidated is served as stale", "P1", "a stale entry is invalidated", call=StaleAcrossBumps),
    Mutant("an invalidation of the call leaves the older versions", "P2", "an older entry is upgraded",
           invalidate={"drop": drop_this_version_alone}),
    Mutant("an invalidation of the call removes the older versions last", "P2", "an older entry is upgraded",
           invalidate={"drop": drop_older_last}),
    Mutant("a refresh leaves the older versions", "P2", "an older entry is upgraded, and what renewed it evicted",
           flows={"drop_older": drop_none}),
    Mutant("a set leaves the older versions", "P2", "an older entry is upgraded, and what was set evicted",
           flows={"drop_older": drop_none}),
    Mutant("a set removes the older versions under its lease", "P2", "an older entry is upgraded, and set by a lease that runs out",
           flows={"drop_older": drop_none}, call=OlderDroppedLast),
    Mutant("an older entry is upgraded without being judged", "P1", "an older entry is upgraded, and all invalidated",
           flows={"upgrade": upgrade_under_the_older_tokens}),
    Mutant("an upgraded result loses its late tags", "P1", "an older entry is upgraded, with a late tag", function=TagsOfTheCode),
    Mutant("late tags are not asked for in an upgrade", "P1", "an older entry without the late tag", function=UntaggedUpgrades),
    Mutant("a batch is stamped with tokens read after the load", "P1", "a batch against an invalidation of all",
           many={"lead_many": lead_many_reading_after}),
    Mutant("a batch does not ask for late tags", "P1", "a batch with a late tag", function=BatchUnasked),
    Mutant("a batch does not ask for late tags, in a cluster", "P1", "a batch with a late tag, in a cluster",
           function=BatchUnasked),
    Mutant("what the coarse token stands for is not read again after it", "P11", "what is one of too many is invalidated",
           flows={"coarse": coarse_unchecked}),
    Mutant("the coarse token stays where it is", "P11", "a call that is one of too many is invalidated", server=CoarseStays),
    Mutant("an invalidation leaves a shard out", "P1", "the namespace is invalidated, in shards", store=OneShardLeft),
    Mutant("an invalidation moves the namespace's own key alone", "P1", "the namespace is invalidated, in shards",
           invalidate={"bumped": moved_without_shards}, store=Own),
    Mutant("an invalidation returns before all shards have moved", "P1", "an invalidation of shards is owed, for others",
           store=AcknowledgedTooSoon),
    Mutant("an owed invalidation does not concern the shards", "P8", "an invalidation of shards is owed", witness=OwedAlone),
    Mutant("what others have registered is not moved", "P1", "one of fewer shards invalidates all", store=Own),
    Mutant("a load does not register its shards", "P1", "one without shards invalidates what is loaded", store=Unregistered),
    Mutant("a new registry of shards is taken for the whole truth", "P1", "two settings and a registry that is lost",
           server=CertainFromTheBeginning),
    Mutant("a registry of shards is settled although it has changed", "P1", "a load registers while others look for shards",
           server=SettledWhateverCame),
    Mutant("in a cluster, the coarse token moves first", "P11", "a call that is one of too many is invalidated, in a cluster",
           store=CoarseFirst),
)  # fmt: skip
