"""The world of the explorer: from one moment, every next one.

Processes whose calls share flights, a server that they all reach by commands, a truth that only counts up, and things that
go wrong. Each step that a flow yields is answered here as the runtime and a server answer it, at a moment of the explorer's
choosing; `World.steps` lists the choices.

Three things are left out because they lead nowhere new: a look by a waiter to whom nothing can have changed, the time
between a call's beginning and its first step, and that between an invalidation's last step and its return.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine.call import CachedCall
from memover.engine.judge import FRESH, VERSION, judge
from memover.engine.steps import Await
from memover.engine.tokens import Witness
from memover.keys.shards import shard_of, shards
from tests.explorer.desk import Desk
from tests.explorer.function import WorldFunction
from tests.explorer.histories import Histories
from tests.explorer.server import Server, WorldStore
from tests.explorer.state import (
    CALL,
    CHILD,
    CLOCK,
    COARSE,
    GENERATION,
    OLDER,
    OTHER,
    OUTER,
    PARENT,
    REGISTRY,
    SOFT,
    TAG,
    VERSION_MARK,
    Actor,
    Held,
    Marks,
    Process,
    State,
    Step,
    fallen,
    header_in,
    key_of,
    number,
    put_actor,
    put_process,
    raw_of,
    value_in,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.explorer.histories import After
    from tests.explorer.state import FlightName, Sight

__all__ = ["Player", "Rules", "Scenario", "World"]

LAST_RESORT = "the lease runs out, since nothing else can happen"


class Player(NamedTuple):
    """Somebody whose flow is run: a name to print, a process (0, 1, ...), and a maker of the flow."""

    name: str
    process: int
    make: Callable[[Any], Any]
    reads: bool = True
    behind: int | None = None
    """Of a refresh behind a caller: the caller's index."""


class Rules(NamedTuple):
    """The protocol that is tried: the real one, or a mutant of it."""

    flows: Any
    many: ModuleType
    invalidate: ModuleType
    call: type[CachedCall] = CachedCall
    function: type[WorldFunction] = WorldFunction
    store: type[WorldStore] = WorldStore
    server: type[Server] = Server
    witness: type[Witness] = Witness


@dataclass(frozen=True)
class Scenario:
    """Who acts, what may go wrong, and what must hold.

    `faults` happen at most once each, at any moment: "expiry", "eviction" (of the generation, "eviction:<n>" of another
    token), "entry" (that of the call), "flush", "failover", "death:<process>", "cancel:<actor>"; "late" and "resent" befall any command, "timeout"
    any wait, "failure" any load (or only those of one actor: "late:<actor>"). Processes in `cut_off` never reach the store. `entry` says whether one is stored when
    it begins (None: try both). `spread` is a cluster: each key of a command is served at a moment of its own. `tag` is
    "known" when the function has one that its arguments tell, "late" when only its result tells it; `nested` adds a
    second function that uses the first, whose dependencies are more than can be listed where it is `coarse`. `stale` allows
    stale-while-revalidate: the entry at first is past `fresh_until`. With `upgrades` it is the version before that has one, which
    did not tell its late tag where it is `untagged`.
    `shards` are the numbers of shards that processes 0, 1, ... have the generation in, 1 where it says none; `registry`
    is what is registered at first, else what the stored entry needs, and the names number `absent` have no token then.
    `batch` adds a second call of the function, `sets` the token of the first, which a set asks for. `loads` bounds the loads of a whole schedule.
    """

    name: str
    promise: str
    players: Callable[[Scenario, Rules], tuple[Player, ...]]
    faults: tuple[str, ...] = ()
    entry: bool | None = None
    spread: bool = False
    tag: str = ""
    nested: bool = False
    coarse: bool = False
    stale: bool = False
    upgrades: bool = False
    untagged: bool = False
    batch: bool = False
    sets: bool = False
    cut_off: frozenset[int] = frozenset()
    loads: int | None = None
    shards: tuple[int, ...] = ()
    own_shards: int = 1
    registry: bytes = b""
    absent: tuple[int, ...] = ()

    def at(self, process: int) -> Scenario:
        """The scenario as one process sees it, with its own number of shards."""
        return replace(self, own_shards=self.shards[process]) if process < len(self.shards) else self

    @property
    def every_shard(self) -> tuple[bytes, ...]:
        """The shards of all settings there are."""
        return tuple(dict.fromkeys(each for count in self.shards for each in shards(GENERATION, count)))

    @property
    def names(self) -> tuple[bytes, ...]:
        """All the names there are tokens of."""
        tags = (TAG,) if self.tag and self.spread else (TAG, CLOCK) if self.tag else ()
        soft = (SOFT,) if self.stale else ()
        used = (CALL, OUTER, COARSE) if self.nested else (CALL,) if self.sets else ()
        return (GENERATION, *tags, *soft, *self.every_shard, *used)

    @property
    def entries(self) -> tuple[int, ...]:
        """All the keys that entries are kept under."""
        return (
            CHILD,
            *((PARENT,) if self.nested else ()),
            *((OTHER,) if self.batch else ()),
            *((OLDER,) if self.upgrades else ()),
        )

    def required(self, which: int) -> tuple[bytes, ...]:
        """The names whose tokens every entry of a key carries."""
        if which == PARENT:
            return (OUTER,)
        soft = (SOFT,) if self.stale else ()
        generation = shard_of(GENERATION, self.own_shards, key_of(which, ()).text.split(":", 3)[3])
        return (generation, *soft, TAG) if self.tag == "known" else (generation, *soft)


class World:
    """One scenario under one set of rules."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.players = scenario.players(scenario, rules)
        self.names = scenario.names
        self.keys = {which: key_of(which, scenario.required(which)) for which in scenario.entries}
        places = [name for key in self.keys.values() for name in (key.entry, key.lease)]
        self.server = rules.server((*self.names, *places, *((REGISTRY,) if scenario.shards else ())))
        self.leases = tuple(self.server.at[key.lease] for key in self.keys.values())
        sharing = [
            sum(other.process == player.process and other.reads for other in self.players) > 1
            for player in self.players
        ]
        self.histories = Histories([player.make for player in self.players], rules.witness, self.names, sharing)
        self.witness = rules.witness
        self._served: dict[Any, bool] = {}

    def behind(self, index: int) -> int:
        """The actor that refreshes behind another."""
        return next(at for at, player in enumerate(self.players) if player.behind == index)

    @cached_property
    def starts(self) -> list[State]:
        """The first moments: nothing is stored, or the entry of the first truth, or what uses it too."""
        scenario, server = self.scenario, self.server
        # A call's token is there once a load that used the call has asked for it, the coarse one when it is needed.
        first = {name: server.first(at) for at, name in enumerate(self.names) if name != COARSE}
        held: list[Any] = [None] * len(server.keys)
        for name, token in first.items():
            if name != CALL and self.names.index(name) not in scenario.absent:
                server.put(held, name, token)
        first_shards = scenario.at(0).own_shards
        if first_shards > 1 and scenario.entry is not False:
            server.put(held, REGISTRY, b"%d" % first_shards)
        if scenario.registry:
            server.put(held, REGISTRY, scenario.registry)
        start = State(
            held=tuple(held),
            truth=1,
            settled=1,
            processes=(self.stranger,) * (1 + max(player.process for player in self.players)),
            actors=tuple(
                Actor(phase=("dormant",)) if player.behind is not None else Actor() for player in self.players
            ),
            lost=(False,) * len(self.names),
            high=tuple(number(first.get(name)) for name in self.names),
            faults=scenario.faults,
        )
        names = scenario.at(0).required(CHILD) + ((TAG,) if scenario.tag == "late" and not scenario.untagged else ())
        child: Marks = tuple((name, first[name]) for name in names)
        stored = list(held)
        whose = OLDER if scenario.upgrades else CHILD
        server.put(stored, key_of(whose, ()).entry, raw_of(1, child, stale=scenario.stale))
        if scenario.batch:
            server.put(stored, key_of(OTHER, ()).entry, raw_of(1, child))
        starts = {False: [held], True: [stored], None: [held, stored]}[scenario.entry]
        if scenario.nested and scenario.entry is not False:
            used = list(stored)
            for name, token in first.items():
                server.put(used, name, token)
            parent = ((OUTER, first[OUTER]), *child, (CALL, first[CALL]), VERSION_MARK)
            server.put(used, key_of(PARENT, ()).entry, raw_of(1, parent))
            starts = [*starts, used]
        return [start._replace(held=tuple(held)) for held in starts]

    @cached_property
    def stranger(self) -> Process:
        """A process that has seen nothing."""
        return Process((None,) * len(self.names), ((),) * 4, (None,) * 4)

    # -- the choices ------------------------------------------------------------------------------------------------------

    def steps(self, state: State) -> list[Step]:
        """Every next moment; none when all is over."""
        steps: list[Step] = []
        for index, actor in enumerate(state.actors):
            if not self.over(actor):
                steps += self._act(state, index)
        waiting = not steps and [self.players[at].name for at, actor in enumerate(state.actors) if not self.over(actor)]
        if waiting and any(state.held[at] is not None for at in self.leases):
            steps.append(Step("time", (LAST_RESORT,), self.expired(state)))
        elif waiting:
            steps.append(Step("time", ("passes",), fallen(state, "P7", f"{' and '.join(waiting)} will wait for ever")))
        steps += self._deliveries(state)
        steps += self._accidents(state)
        return steps

    def over(self, actor: Actor) -> bool:
        return actor.phase[:1] in (("gone",), ("ended",), ("dormant",))

    def expired(self, state: State) -> State:
        held = list(state.held)
        for at in self.leases:
            held[at] = None
        return state._replace(held=tuple(held))

    def _act(self, state: State, index: int) -> list[Step]:
        actor = state.actors[index]
        if actor.node < 0:
            state = self._begin(state, index)
            actor = state.actors[index]
            if self.over(actor):
                return [Step(self.players[index].name, ("does nothing",), state)]
        return Desk(self, state, index).choices(self.histories.nodes[actor.node].step)

    def _begin(self, state: State, index: int) -> State:
        player = self.players[index]
        process = state.processes[player.process]
        lost_here = any(state.lost) and not self._can_tell(state, process)
        actor = Actor(
            floor=max(state.settled, process.bound),
            excused=lost_here,
            healing=any(state.lost) and not lost_here and player.reads,
        )
        state = put_actor(state, index, actor)
        return self._onward(state, index, self.histories.begin(index, process))

    def answered(self, state: State, index: int, answer: Any, seen: Sight | None) -> State:
        """The moment after a flow was answered: it goes on to its next step that others have to do with."""
        actor, at = state.actors[index], self.players[index].process
        after = self.histories.send(actor.node, answer, state.processes[at])
        if actor.phase[:1] == ("awaiting",):
            name = actor.phase[1]
            others = any(other.phase == actor.phase and which != index for which, other in enumerate(state.actors))
            if not others:
                landed = tuple(pair for pair in after.process.landed if pair[0] != name)
                after = after._replace(process=after.process._replace(landed=landed))
        return self._onward(state, index, after, seen)

    def _onward(self, state: State, index: int, after: After, seen: Sight | None = None) -> State:
        at = self.players[index].process
        while True:
            node = after.node
            state = put_process(state, at, after.process)
            state = put_actor(state, index, state.actors[index]._replace(node=node.number, phase=(), seen=seen))
            for name, outcome in after.ended:
                state = self._land(state, at, name, outcome)
            if node.ended:
                return self._end(state, index, node.result)
            if isinstance(node.step, Await):
                phase = ("awaiting", node.step.flight.name)  # type: ignore[attr-defined]
                return put_actor(state, index, state.actors[index]._replace(phase=phase))
            answered = Desk(self, state, index).at_once(node.step)
            if answered is None:
                return state
            state, answer = answered
            after = self.histories.send(node.number, answer, state.processes[at])

    def _end(self, state: State, index: int, result: Any) -> State:
        """A flow has ended, and what it came to is held against the promises."""
        player, actor = self.players[index], state.actors[index]
        state = put_actor(state, index, actor._replace(phase=("ended", result), seen=None))
        if not player.reads or player.behind is not None:
            return state
        value, error, source, _ = result
        if error is None and not actor.excused and value < (actor.floor or 0):
            return fallen(
                state,
                self.scenario.promise,
                f"{player.name} began when the invalidation of truth {actor.floor} had returned, and was answered "
                f"with {value} ({source})",
            )
        if actor.healing and any(state.lost) and error is None:
            return fallen(state, "P5", f"{player.name} had seen the bump that was lost, and did not put it back")
        return state

    def _land(self, state: State, at: int, name: FlightName, outcome: Any) -> State:
        """A call has ended: those who wait for it are woken."""
        if not any(actor.phase == ("awaiting", name) for actor in state.actors):
            return state
        process = state.processes[at]
        return put_process(state, at, process._replace(landed=(*process.landed, (name, outcome))))

    # -- what goes wrong ----------------------------------------------------------------------------------------------------

    def _deliveries(self, state: State) -> Iterator[Step]:
        for at, (index, command) in enumerate(state.network):
            held, _ = self.server.perform(state.held, command)
            rest = state.network[:at] + state.network[at + 1 :]
            after = self.touched(state, held)._replace(network=rest)
            yield Step("network", ("delivers late what was sent by", self.players[index].name, command), after)

    def _accidents(self, state: State) -> Iterator[Step]:
        held = state.held
        for fault in dict.fromkeys(state.faults):
            left = without(state, fault)
            kind, _, which = fault.partition(":")
            if kind == "expiry" and any(held[at] is not None for at in self.leases):
                yield Step("fault", ("the lease runs out",), self.expired(left))
            elif kind == "eviction" and held[int(which or 0)] is not None:
                at = int(which or 0)
                after = left._replace(held=(*held[:at], None, *held[at + 1 :]))
                yield Step("fault", ("is evicted:", self.names[at].decode()), after)
            elif kind == "entry" and (raw := self.server.get(held, self.keys[CHILD].entry)) is not None:
                after = left._replace(held=tuple(None if value == raw else value for value in held))
                yield Step("fault", ("the entry is evicted",), after)
            elif kind == "registry" and self.server.get(held, REGISTRY) is not None:
                gone = list(held)
                self.server.put(gone, REGISTRY, None)
                yield Step("fault", ("the registry of shards is lost",), left._replace(held=tuple(gone)))
            elif kind == "flush":
                yield Step("fault", ("FLUSHALL",), left._replace(held=(None,) * len(held)))
            elif kind == "failover":
                yield Step("fault", ("the replica has everything until now",), left._replace(replica=held))
            elif kind == "death":
                process = state.processes[int(which)]
                if process.alive and any(
                    actor.node >= 0 and not self.over(actor) and player.process == int(which)
                    for actor, player in zip(state.actors, self.players)
                ):
                    yield Step("fault", ("dies", chr(65 + int(which))), self._killed(left, int(which)))
            elif kind == "cancel":
                actor = state.actors[int(which)]
                if actor.node >= 0 and not self.over(actor):
                    yield Step(
                        "fault", ("is cancelled", self.players[int(which)].name), self._cancelled(left, int(which))
                    )
        if state.replica is not None:
            yield Step("fault", ("failover to what the replica has",), self._failed_over(state, state.replica))

    def _cancelled(self, state: State, which: int) -> State:
        """An exception from outside: its calls are finished without an outcome."""
        at = self.players[which].process
        process = state.processes[at]
        mine = {name for _, name in process.flights if name[0] == which}
        mine |= {load[0] for load in process.unleased if load is not None and load[0][0] == which}
        process = process._replace(
            flights=frozenset(flight for flight in process.flights if flight[1] not in mine),
            unleased=tuple(None if load is not None and load[0] in mine else load for load in process.unleased),
        )
        state = put_process(state, at, process)
        state = put_actor(state, which, state.actors[which]._replace(phase=("gone",), seen=None))
        for name in sorted(mine):
            state = self._land(state, at, name, None)
        return state

    def _killed(self, state: State, which: int) -> State:
        for index, player in enumerate(self.players):
            if player.process == which and not self.over(state.actors[index]):
                state = put_actor(state, index, Actor(phase=("gone",)))
        return put_process(state, which, self.stranger._replace(alive=False))

    def _failed_over(self, state: State, replica: Held) -> State:
        lost = tuple(high > number(token) for high, token in zip(state.high, replica))
        state = state._replace(held=replica, replica=None, lost=lost)
        for index, (actor, player) in enumerate(zip(state.actors, self.players)):
            if any(lost) and actor.node >= 0 and not self._can_tell(state, state.processes[player.process]):
                state = put_actor(state, index, state.actors[index]._replace(excused=True))
        return state

    def _can_tell(self, state: State, process: Process) -> bool:
        """Whether this process has seen every bump that was lost, and so can tell that the store is behind."""
        return all(
            not lost or (seen is not None and number(seen[0]) > number(token))
            for lost, seen, token in zip(state.lost, process.last, state.held)
        )

    def touched(self, state: State, held: Held) -> State:
        """The moment after a command: a token that has moved is lost no more."""
        if held != state.held and "failover" in self.scenario.faults:
            lost = tuple(was and before == now for was, before, now in zip(state.lost, state.held, held))
            high = tuple(max(high, number(token)) for high, token in zip(state.high, held))
            state = state._replace(lost=lost, high=high)
        return state._replace(held=held)

    # -- what holds at every moment --------------------------------------------------------------------------------------------

    def check(self, state: State) -> State:
        """The same moment, fallen if a call that began now would be served from the store what was invalidated."""
        for which, key in self.keys.items():
            raw = self.server.get(state.held, key.entry)
            if raw is None or which in (OLDER, OTHER):
                continue
            value = value_in(raw)
            if value >= state.settled and not any(process.bound for process in state.processes):
                continue
            for at, process in enumerate((*state.processes, self.stranger)):
                floor = max(state.settled, process.bound)
                if value >= floor or not process.alive or process.owed:
                    continue
                if any(state.lost) and not self._can_tell(state, process):
                    continue
                if self._would_serve(process.last, state.held, which, raw, at if at < len(state.processes) else 0):
                    where = chr(65 + at) if at < len(state.processes) else "that has seen nothing"
                    return fallen(
                        state,
                        self.scenario.promise,
                        f"the invalidation of truth {floor} has returned, and a call that began now in a process "
                        f"{where} would be served {value} from the store",
                    )
        return state

    def _would_serve(self, last: Any, held: Held, which: int, raw: bytes, process: int) -> bool:
        scenario = self.scenario.at(process)
        asked = (last, held, which, scenario.own_shards)
        served = self._served.get(asked)
        if served is None:
            witness = self.witness()
            for name, known in zip(self.names, last):
                if known is not None:
                    witness._seen[name] = known
            required = scenario.required(which)
            header = header_in(raw, self.keys[which].entry)
            more = [name for name, _ in header.marks if name not in required and not name.startswith(VERSION)]
            names = (*required, *more)
            tokens = tuple(self.server.get(held, name) for name in names)
            served = witness.trusts(names, tokens) and FRESH is judge(
                header, names, tokens, 0.0, required=len(required)
            )
            self._served[asked] = served
        return served
