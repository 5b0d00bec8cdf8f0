"""The world of the explorer: from one moment, every next one.

Processes whose calls share flights and trains, one store they all reach by commands, a truth that only counts up, and
things that go wrong. Each operation that a flow yields is answered here as `drivers.site` and the stores answer it, at
a moment of the explorer's choosing; `World.steps` lists the choices. What concerns the calling flow alone (decoding,
sealing) is answered at once, since its moment makes no difference to anybody.

Three things are left out because they lead nowhere new: a look by a waiter to whom nothing can have changed, the time
between a call's beginning and its first operation, and that between an invalidation's last step and its return.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine.judge import FRESH, VERSION, judge
from memover.engine.tokens import Witness
from tests.explorer.desk import Desk
from tests.explorer.shelf import Shelf, number, put
from tests.explorer.state import (
    CALL,
    CHILD,
    CLOCK,
    COARSE,
    GENERATION,
    OUTER,
    PARENT,
    TAG,
    VERSION_MARK,
    Actor,
    Held,
    Marks,
    Process,
    Slot,
    State,
    Step,
    expired,
    fallen,
    header_of,
    put_actor,
    put_process,
    without,
)
from tests.explorer.threads import Knowledge, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from tests.explorer.threads import Node

__all__ = ["Player", "Rules", "Scenario", "World"]

LAST_RESORT = "the lease runs out, since nothing else can happen"


class Player(NamedTuple):
    """Somebody whose flow is run: a name to print, a process (0, 1, ...), and a maker of the flow."""

    name: str
    process: int
    make: Callable[[Any], Any]
    key: int = CHILD
    reads: bool = True


class Rules(NamedTuple):
    """The protocol that is tried: the real one, or a mutant of it."""

    flows: ModuleType
    shelf: type[Shelf] = Shelf
    witness: type[Witness] = Witness
    desk: type[Desk] = Desk


@dataclass(frozen=True)
class Scenario:
    """Who acts, what may go wrong, and what must hold.

    `faults` happen at most once each, at any moment: "expiry", "eviction" (of the generation, "eviction:<n>" of another
    token), "flush", "failover", "death:<process>", "cancel:<actor>"; "late" and "resent" befall any command, "timeout"
    any wait, "failure" any load (or only those of one actor: "late:<actor>"). Processes in `cut_off` never reach the store. `entry` says whether one is stored when
    it begins (None: try both). `spread` is a cluster: each key of a command is served at a moment of its own. `tag` is
    "known" when the function has one that its arguments tell, "late" when only its result tells it; `nested` adds a
    second function that uses the first. `loads` bounds the loads of a whole schedule.
    """

    name: str
    promise: str
    players: Callable[[Scenario, ModuleType], tuple[Player, ...]]
    faults: tuple[str, ...] = ()
    entry: bool | None = None
    spread: bool = False
    tag: str = ""
    nested: bool = False
    cut_off: frozenset[int] = frozenset()
    loads: int | None = None

    @property
    def names(self) -> tuple[bytes, ...]:
        """All the names there are tokens of."""
        tags = (TAG,) if self.tag and self.spread else (TAG, CLOCK) if self.tag else ()
        return (GENERATION, *tags, *((CALL, OUTER, COARSE) if self.nested else ()))

    def required(self, key: int) -> tuple[bytes, ...]:
        """The names whose tokens every entry of a key carries."""
        if key == PARENT:
            return (OUTER,)
        return (GENERATION, TAG) if self.tag == "known" else (GENERATION,)

    def clock(self, key: int) -> bytes:
        return CLOCK if self.tag == "late" and key == CHILD and not self.spread else b""


class World:
    """One scenario under one set of rules."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.players = scenario.players(scenario, rules.flows)
        self.names = scenario.names
        self.shelf = rules.shelf(self.names)
        self.threads = Threads(tuple(player.make for player in self.players), rules.witness, self.names)
        self.desk = rules.desk
        self.witness = rules.witness
        self.sharing = [
            sum(other.process == player.process and other.reads for other in self.players) > 1
            for player in self.players
        ]
        self._served: dict[Any, bool] = {}

    @cached_property
    def starts(self) -> list[State]:
        """The first moments: nothing is stored, or the entry of the first truth, or what uses it too."""
        scenario, shelf = self.scenario, self.shelf
        # A call's token is there once a load that used the call has asked for it, the coarse one when it is needed.
        first = {name: shelf.first(at) for at, name in enumerate(self.names) if name != COARSE}
        bare = {name: token for name, token in first.items() if name != CALL}
        start = State(
            held=Held(tuple(map(bare.get, self.names)), (Slot(),) * (2 if scenario.nested else 1)),
            truth=1,
            settled=1,
            processes=(self.stranger,) * (1 + max(player.process for player in self.players)),
            actors=(Actor(),) * len(self.players),
            lost=(False,) * len(self.names),
            high=tuple(number(first.get(name)) for name in self.names),
            faults=scenario.faults,
        )
        names = scenario.required(CHILD) + ((TAG,) if scenario.tag == "late" else ())
        child: Marks = tuple((name, first[name]) for name in names)
        stored = put(start.held, CHILD, Slot((1, child)))
        starts = {False: [start.held], True: [stored], None: [start.held, stored]}[scenario.entry]
        if scenario.nested and scenario.entry is not False:
            used = stored._replace(tokens=tuple(map(first.get, self.names)))
            parent = ((OUTER, first[OUTER]), *child, (CALL, first[CALL]), VERSION_MARK)
            starts.append(put(used, PARENT, Slot((1, parent))))
        return [start._replace(held=held) for held in starts]

    @cached_property
    def stranger(self) -> Process:
        """A process that has seen nothing."""
        keys = 2 if self.scenario.nested else 1
        return Process((None,) * len(self.names), ((),) * keys, (None,) * keys)

    # -- the choices ------------------------------------------------------------------------------------------------------

    def steps(self, state: State) -> list[Step]:
        """Every next moment; none when all is over."""
        steps: list[Step] = []
        for index, actor in enumerate(state.actors):
            if not self.over(actor):
                steps += self._act(state, index)
        waiting = not steps and [self.players[at].name for at, actor in enumerate(state.actors) if not self.over(actor)]
        if waiting and any(slot.lease is not None for slot in state.held.slots):
            steps.append(Step("time", (LAST_RESORT,), expired(state)))
        elif waiting:
            steps.append(Step("time", ("passes",), fallen(state, "P7", f"{' and '.join(waiting)} will wait for ever")))
        steps += self._deliveries(state)
        steps += self._accidents(state)
        return steps

    def over(self, actor: Actor) -> bool:
        return actor.phase[:1] in (("gone",), ("ended",))

    def _act(self, state: State, index: int) -> list[Step]:
        actor = state.actors[index]
        if actor.node < 0:
            state = self._begin(state, index)
            actor = state.actors[index]
            if self.over(actor):
                return [Step(self.players[index].name, ("does nothing",), state)]
        desk = self.desk(self, state, index)
        self.threads.nodes[actor.node].op.on(desk)
        return desk.steps

    def _begin(self, state: State, index: int) -> State:
        player = self.players[index]
        process = state.processes[player.process]
        lost_here = any(state.lost) and not self._can_tell(state, process)
        actor = Actor(
            floor=max(state.settled, process.bound),
            learned=process.learned,
            excused=lost_here,
            healing=any(state.lost) and not lost_here and player.reads,
        )
        state = put_actor(state, index, actor)
        node = self.threads.begin(index, Knowledge.of(process))
        return self._onward(state, index, node)

    def answered(self, state: State, index: int, answer: Any, seen: tuple[Any, ...] | None) -> State:
        """The moment after a flow was answered: it goes on to its next operation that others have to do with."""
        process = state.processes[self.players[index].process]
        node = self.threads.send(state.actors[index].node, answer, Knowledge.of(process))
        return self._onward(state, index, node, seen)

    def _onward(self, state: State, index: int, node: Node, seen: tuple[Any, ...] | None = None) -> State:
        at = self.players[index].process
        while True:
            process, known = state.processes[at], node.known
            if known is not None and (known.last != process.last or known.owed != process.owed):
                process = process._replace(last=known.last, owed=known.owed)
                state = put_process(state, at, process)
            actor = state.actors[index]
            state = put_actor(state, index, actor._replace(node=node.number, phase=(), seen=seen))
            if node.ended:
                return self._end(state, index, node.result)
            desk = self.desk(self, state, index, at_once=True)
            node.op.on(desk)
            if desk.reply is None:
                return state
            (answer,), state = desk.reply, desk.state
            node = self.threads.send(node.number, answer, Knowledge.of(state.processes[at]))

    def _end(self, state: State, index: int, result: Any) -> State:
        """A flow has ended: its flights land, and what it came to is held against the promises."""
        player, actor = self.players[index], state.actors[index]
        state = put_actor(state, index, actor._replace(phase=("ended", result), seen=None))
        state = self._land(state, index)
        if not player.reads:
            return state
        value, error, source, _ = result
        if error is None and not actor.excused and value < actor.floor:
            return fallen(
                state,
                self.scenario.promise,
                f"{player.name} began when the invalidation of truth {actor.floor} had returned, and was answered "
                f"with {value} ({source})",
            )
        if actor.healing and any(state.lost) and error is None:
            return fallen(state, "P5", f"{player.name} had seen the bump that was lost, and did not put it back")
        return state

    def _land(self, state: State, index: int) -> State:
        at = self.players[index].process
        process = state.processes[at]
        flights = frozenset(flight for flight in process.flights if flight[1] != index)
        trains = tuple(None if train is not None and train[0] == index else train for train in process.trains)
        if flights == process.flights and trains == process.trains:
            return state
        return put_process(state, at, process._replace(flights=flights, trains=trains))

    # -- what goes wrong ----------------------------------------------------------------------------------------------------

    def _deliveries(self, state: State) -> Iterator[Step]:
        for at, (index, command) in enumerate(state.network):
            held, _ = self.shelf.perform(state.held, command)
            rest = state.network[:at] + state.network[at + 1 :]
            after = self.touched(state, held)._replace(network=rest)
            yield Step("network", ("delivers late what was sent by", self.players[index].name, command), after)

    def _accidents(self, state: State) -> Iterator[Step]:
        held = state.held
        for fault in dict.fromkeys(state.faults):
            left = without(state, fault)
            kind, _, which = fault.partition(":")
            if kind == "expiry" and any(slot.lease is not None for slot in held.slots):
                yield Step("fault", ("the lease runs out",), expired(left))
            elif kind == "eviction" and held.tokens[int(which or 0)] is not None:
                at = int(which or 0)
                tokens = (*held.tokens[:at], None, *held.tokens[at + 1 :])
                after = left._replace(held=held._replace(tokens=tokens))
                yield Step("fault", ("is evicted:", self.names[at].decode()), after)
            elif kind == "flush":
                empty = Held((None,) * len(held.tokens), (Slot(),) * len(held.slots))
                yield Step("fault", ("FLUSHALL",), left._replace(held=empty))
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
                    after = put_actor(left, int(which), actor._replace(phase=("gone",), seen=None))
                    yield Step("fault", ("is cancelled", self.players[int(which)].name), self._land(after, int(which)))
        if state.replica is not None:
            yield Step("fault", ("failover to what the replica has",), self._failed_over(state, state.replica))

    def _killed(self, state: State, which: int) -> State:
        for index, player in enumerate(self.players):
            if player.process == which and not self.over(state.actors[index]):
                state = put_actor(state, index, Actor(phase=("gone",)))
        return put_process(state, which, self.stranger._replace(alive=False))

    def _failed_over(self, state: State, replica: Held) -> State:
        lost = tuple(high > number(token) for high, token in zip(state.high, replica.tokens))
        state = state._replace(held=replica, replica=None, lost=lost)
        for index, (actor, player) in enumerate(zip(state.actors, self.players)):
            if any(lost) and actor.node >= 0 and not self._can_tell(state, state.processes[player.process]):
                state = put_actor(state, index, state.actors[index]._replace(excused=True))
        return state

    def _can_tell(self, state: State, process: Process) -> bool:
        """Whether this process has seen every bump that was lost, and so can tell that the store is behind."""
        return all(
            not lost or number(seen) > number(token)
            for lost, seen, token in zip(state.lost, process.last, state.held.tokens)
        )

    def touched(self, state: State, held: Held) -> State:
        """The moment after a command: a token that has moved is lost no more."""
        if held.tokens != state.held.tokens and "failover" in self.scenario.faults:
            lost = tuple(was and before == now for was, before, now in zip(state.lost, state.held.tokens, held.tokens))
            high = tuple(max(high, number(token)) for high, token in zip(state.high, held.tokens))
            state = state._replace(lost=lost, high=high)
        return state._replace(held=held)

    # -- what holds at every moment --------------------------------------------------------------------------------------------

    def check(self, state: State) -> State:
        """The same moment, fallen if a call that began now would be served from the store what was invalidated."""
        for key, slot in enumerate(state.held.slots):
            entry = slot.entry
            if entry is None or (entry[0] >= state.settled and not any(process.bound for process in state.processes)):
                continue
            for at, process in enumerate((*state.processes, self.stranger)):
                floor = max(state.settled, process.bound)
                if entry[0] >= floor or not process.alive or process.owed:
                    continue
                if any(state.lost) and not self._can_tell(state, process):
                    continue
                if self._would_serve(process.last, state.held, key):
                    where = chr(65 + at) if at < len(state.processes) else "that has seen nothing"
                    return fallen(
                        state,
                        self.scenario.promise,
                        f"the invalidation of truth {floor} has returned, and a call that began now in a process "
                        f"{where} would be served {entry[0]} from the store",
                    )
        return state

    def _would_serve(self, last: tuple[bytes | None, ...], held: Held, key: int) -> bool:
        entry = held.slots[key].entry
        assert entry is not None, "there is nothing to serve"
        asked = (last, held.tokens, key, entry[1])
        served = self._served.get(asked)
        if served is None:
            witness = self.witness()
            for name, token in zip(self.names, last):
                if token is not None:
                    witness.trusts((name,), (token,))
            required = self.scenario.required(key)
            more = [name for name, _ in entry[1] if name not in required and not name.startswith(VERSION)]
            names = (*required, *more)
            tokens = self.shelf.tokens(held, names)
            served = witness.trusts(names, tokens) and FRESH is judge(
                header_of(key, entry[1]), names, tokens, 0.0, required=len(required)
            )
            self._served[asked] = served
        return served
