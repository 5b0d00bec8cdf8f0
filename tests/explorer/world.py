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

from memover.engine.generations import Witness
from memover.engine.judge import FRESH, VERSION, judge
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
    header_of,
)
from tests.explorer.threads import BROKEN, FAILURE, TIMEOUT, Knowledge, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

    from memover.engine.ops import Outcome, Reading, Sealed

__all__ = ["Player", "Rules", "Scenario", "Step", "World"]

Commands = tuple[tuple[Any, ...], ...]

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
    desk: type[Desk] | None = None


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


class Step(NamedTuple):
    """One choice: who, what it does, and the moment after."""

    who: str
    what: tuple[Any, ...]
    after: State


class World:
    """One scenario under one set of rules."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.players = scenario.players(scenario, rules.flows)
        self.names = scenario.names
        self.shelf = rules.shelf(self.names)
        self.threads = Threads(tuple(player.make for player in self.players), rules.witness, self.names)
        self.desk = rules.desk or Desk
        self.witness = rules.witness
        self.sharing = [
            sum(other.process == player.process and other.reads for other in self.players) > 1 for player in self.players
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

    def answered(self, state: State, index: int, answer: Any) -> State:
        """The moment after a flow was answered: it goes on to its next operation that others have to do with."""
        actor = state.actors[index]
        process = state.processes[self.players[index].process]
        return self._onward(state, index, self.threads.send(actor.node, answer, Knowledge.of(process)))

    def _onward(self, state: State, index: int, node: Any) -> State:
        player = self.players[index]
        while True:
            process = state.processes[player.process]
            if node.known != (process.last, process.owed):
                process = process._replace(last=node.known.last, owed=node.known.owed)
                state = put_process(state, player.process, process)
            state = put_actor(state, index, state.actors[index]._replace(node=node.number, phase=()))
            if node.ended:
                return self._end(state, index, node.result)
            desk = self.desk(self, state, index, at_once=True)
            node.op.on(desk)
            if desk.reply is None:
                return state
            (answer,), state = desk.reply, desk.state
            process = state.processes[player.process]
            node = self.threads.send(node.number, answer, Knowledge.of(process))

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


class Desk:
    """Where the operations of one flow are answered, at one moment; a `Site` whose answers are choices.

    With `at_once` only what concerns nobody else is answered (`reply` is then set), else every choice is in `steps`.
    """

    def __init__(self, world: World, state: State, index: int, *, at_once: bool = False) -> None:
        self.world = world
        self.state = state
        self.index = index
        self.at_once = at_once
        self.actor = state.actors[index]
        self.player = world.players[index]
        self.process = state.processes[self.player.process]
        self.key = self.player.key
        self.tracked = False
        self.reply: tuple[Any] | None = None
        self.steps: list[Step] = []

    # -- of nobody else's concern ----------------------------------------------------------------------------------------------

    def decode(self, reading: Reading, source: Any) -> None:
        header = reading.header
        assert reading.raw is not None and header is not None, "nothing there to decode"
        name = self.world.scenario.required(self.key)[0]
        self.now(("outcome", int(reading.raw), None, source.value, ((name, header.generation), *header.marks)))

    def seal(self, outcome: Outcome, marks: Marks) -> None:
        self.now(None if outcome.error else ("sealed", self.key, outcome.value, marks))

    def last_known(self) -> None:
        self.now(None)

    def learn(self, names: Sequence[bytes]) -> None:
        lesson = tuple(name for name in names if not name.startswith(VERSION))

        def after(learned: tuple[tuple[bytes, ...], ...]) -> tuple[tuple[bytes, ...], ...]:
            return (*learned[: self.key], lesson, *learned[self.key + 1 :])

        process = self.process._replace(learned=after(self.process.learned))
        state = put_process(self.state, self.player.process, process)
        self.state = put_actor(state, self.index, self.actor._replace(learned=after(self.actor.learned)))
        self.now(None)

    def late_tags(self, outcome: Outcome) -> None:
        late = self.world.scenario.tag == "late" and self.key == CHILD
        self.now(("list", (TAG,) if late else ()))

    def promise(self, truth: int, everywhere: bool) -> None:
        """A writer's invalidation has returned, or failed loudly and so holds for its own process."""
        if everywhere:
            self.state = self.state._replace(settled=max(self.state.settled, truth))
        else:
            process = self.process._replace(bound=max(self.process.bound, truth))
            self.state = put_process(self.state, self.player.process, process)
        self.now(None)

    def now(self, answer: Any) -> None:
        if self.at_once:
            self.reply = (answer,)

    # -- the store ----------------------------------------------------------------------------------------------------------

    def asked(self) -> tuple[bytes, ...]:
        """The names to read with the key: the required ones, what was learned, and the call's own where it is wanted."""
        first = self.world.scenario.required(self.key)
        more = self.actor.learned[self.key]
        if self.tracked and not self.world.scenario.spread:
            more = (*more, CALL)
        return tuple(dict.fromkeys((*first, *more)))

    def read(self) -> None:
        self.look("reads", lease=False)

    def look(self, what: str = "looks", *, lease: bool = True) -> None:
        key, names = self.key, self.asked()
        if lease and not self.actor.phase and self.actor.seen == self.sight():
            return  # it looked a moment ago, and nothing has changed since
        if not self.world.scenario.spread:
            self.command(what, ("look" if lease else "read", key, names))
            return
        # A cluster serves each token, and entry and lease together, at moments of their own.
        self.exchange(what, (*(("token", name) for name in names), ("slot", key)), lambda got: (
            "reading", key, names, got[:-1], got[-1].entry, got[-1].lease if lease else None
        ))  # fmt: skip

    def acquire(self, token: str, force: bool) -> None:
        self.fly(token)
        scenario, key = self.world.scenario, self.key
        required = scenario.required(key)
        clock = scenario.clock(key)
        ensured = (*required, *((CALL,) if self.tracked else ()), *((clock,) if clock else ()))
        names = (*ensured, *(name for name in self.actor.learned[key] if name not in required))
        floors = self.floors(ensured)
        if not scenario.spread:
            self.command("asks for the lease", ("acquire", key, token, force, names, len(required), floors))
            return
        # The tokens first, then the slot that holds entry and lease.
        tokens = (
            *(("ensure", name, floor, token) for name, floor in zip(ensured, floors)),
            *(("token", name) for name in names[len(ensured) :]),
        )

        def then(got: tuple[Any, ...]) -> Commands:
            return (("lease", key, token, force, names, len(required), got),)

        self.exchange("asks for the lease", tokens, lambda got: got[0], then)

    def ensure(self, names: Sequence[bytes]) -> None:
        commands = tuple(("ensure", name, floor, self.nonce()) for name, floor in zip(names, self.floors(names)))
        if commands:
            self.exchange("fetches tokens", commands, lambda got: ("list", got))
        else:
            self.now(("list", ()))

    def store(self, token: str, sealed: Sealed) -> None:
        header = sealed.header
        assert header is not None, "it was sealed"
        name = self.world.scenario.required(self.key)[0]
        entry = (sealed.value, ((name, header.generation), *header.marks))
        self.command("stores", ("store", self.key, token, entry))

    def release(self, token: str, failed: bool) -> None:
        self.command("releases", ("release", self.key, token, failed))

    def bump(self, names: Sequence[bytes], nonce: str) -> None:
        names, floors, along = tuple(names), self.floors(names), self.along()
        if not self.world.scenario.spread:
            self.command("bumps", ("bump", names, nonce, floors, along))
            return
        commands = tuple(("bump", (name,), nonce, (floor,), ()) for name, floor in zip(names, floors))
        self.exchange("bumps", commands, lambda got: ("list", tuple(token for (token,) in got)))

    def drop(self, nonce: str) -> None:
        key, along = self.key, self.along(CALL)
        if not self.world.scenario.spread:
            self.command("drops entry and lease", ("drop", key, nonce, along))
        elif along:
            self.exchange("drops", (("delete", key),), lambda _: None, lambda _: (("along", along, nonce),))
        else:
            self.exchange("drops entry and lease", (("delete", key),), lambda _: None)

    def along(self, *names: bytes) -> tuple[bytes, ...]:
        return tuple(name for name in (*names, COARSE) if name in self.world.shelf.at)

    def floors(self, names: Sequence[bytes]) -> tuple[int, ...]:
        return tuple(number(self.process.last[self.world.shelf.at[name]]) for name in names)

    def nonce(self) -> str:
        """A nonce that nobody else has, for a site that makes its own."""
        return f"e{self.index:07x}{self.actor.node:08x}"

    def sight(self) -> tuple[Any, ...]:
        """All that a look at the key can show."""
        return (self.world.shelf.tokens(self.state.held, self.asked()), self.state.held.slots[self.key])

    def command(self, what: str, command: tuple[Any, ...]) -> None:
        """One command on the store, with all that can become of it."""
        self.exchange(what, (command,), lambda got: ("list", got[0]) if command[0] == "bump" else got[0])
        resent = self.may("resent")
        if resent and not self.at_once and self.player.process not in self.world.scenario.cut_off:
            held, _ = self.world.shelf.perform(self.state.held, command)
            after = without(self.world.touched(self.state, held), resent)
            self.step((what, "and, the connection having died, will say it again"), after)

    def exchange(
        self,
        what: str,
        commands: Commands,
        answer: Callable[[tuple[Any, ...]], Any],
        then: Callable[[tuple[Any, ...]], Commands] | None = None,
    ) -> None:
        """Commands that are served at moments of their own: in a cluster in any order, else in this one.

        `then` makes the second round of them from what the first has brought."""
        if self.at_once:
            return
        world, state, scenario = self.world, self.state, self.world.scenario
        phase = self.actor.phase if self.actor.phase[:1] == ("exchange",) else ("exchange", None, ())
        _, first, have = phase
        if first is not None:
            assert then is not None, "there is a second round"
            commands = then(first)
        got = dict(have)
        for at, command in enumerate(commands):
            if at in got:
                continue
            if self.player.process in scenario.cut_off:
                self.step((what, "in vain: the store cannot be reached"), self.answer(state, FAILURE))
                return
            held, found = world.shelf.perform(state.held, command)
            after = world.touched(state, held)
            more = {**got, at: found}
            said = (what, found) if len(commands) == 1 else (what, f"({at + 1} of {len(commands)}):", found)
            if len(more) < len(commands):
                self.step(said, self.enter(after, ("exchange", first, tuple(sorted(more.items())))))
            elif then is not None and first is None:
                brought = tuple(more[at] for at in range(len(commands)))
                self.step(said, self.enter(after, ("exchange", brought, ())))
            else:
                whole = answer(tuple(more[at] for at in range(len(commands))))
                self.step(said, self.answer(after, whole, saw=saw(whole)))
            if late := self.may("late"):
                given_up = without(state, late)
                given_up = given_up._replace(network=(*state.network, (self.index, command)))
                self.step((what, "and gives up on the answer"), self.answer(given_up, FAILURE))
            if not scenario.spread:
                return

    # -- the function --------------------------------------------------------------------------------------------------------

    def change(self) -> None:
        if not self.at_once:
            truth = self.state.truth + 1
            self.step(("changes the truth to", truth), self.answer(self.state._replace(truth=truth), truth))

    def load(self, token: str | None) -> None:
        if self.at_once:
            return
        state, actor = self.state, self.actor
        if actor.phase[:1] == ("loading",):
            value = actor.phase[1]
            self.step(("has loaded", value), self.answer(state, ("outcome", value, None, "loaded", ())))
            if failure := self.may("failure"):
                failed = self.answer(without(state, failure), ("outcome", None, BROKEN, "loaded", ()))
                self.step(("fails to load",), failed)
            return
        if token is None and not any(fault.startswith("timeout") for fault in self.world.scenario.faults):
            for other, player in zip(state.actors, self.world.players):
                if player.process == self.player.process and other.phase[:1] == ("loading",) and not other.phase[2]:
                    state = fallen(
                        state, "P6", f"{self.player.name} loads without a lease while {player.name} does, in one process"
                    )
        most = self.world.scenario.loads
        if most is not None:
            state = state._replace(loads=state.loads + 1)
            if state.loads > most:
                state = fallen(state, "P6", f"this is load number {state.loads}, where {most} would do")
        began = self.enter(state, ("loading", state.truth, token or ""))
        self.step(("begins to load, the truth being", state.truth), began)

    # -- other callers ---------------------------------------------------------------------------------------------------------

    def fly(self, token: str) -> int:
        """Let other callers find this flow under a token; whoever was first is answered."""
        for name, index in self.process.flights:
            if name == token:
                return index
        self.process = self.process._replace(flights=self.process.flights | {(token, self.index)})
        self.state = put_process(self.state, self.player.process, self.process)
        return self.index

    def wait(self, holder: str, seconds: float, poll: float) -> None:
        actor, sharing = self.actor, self.world.sharing[self.index]
        if actor.phase[:1] == ("boarded",):
            if self.at_once:
                return
            other = self.state.actors[actor.phase[1]]
            if self.world.over(other):
                self.step(("is told",), self.answer(self.state, shared(other)))
            self.may_time_out()
            return
        if actor.phase[:1] == ("standing in",):
            if self.at_once:
                return
            if actor.seen != self.sight():
                self.step(("wakes up",), self.answer(self.state, None, keep_seen=True))
            self.may_time_out()
            return
        if self.at_once and (sharing or self.may("timeout")):
            return
        if self.at_once:
            self.now(None)
            return
        at = self.fly(holder)
        if at != self.index:
            self.step(
                ("waits for", self.world.players[at].name), self.enter(self.state, ("boarded", at), forget=True)
            )
        else:
            self.step(("waits for another process",), self.enter(self.state, ("standing in",)))

    def may_time_out(self) -> None:
        if fault := self.may("timeout"):
            self.step(("has waited long enough",), self.answer(without(self.state, fault), TIMEOUT))

    def may(self, kind: str) -> str:
        """The fault of this kind that may befall this flow now, "" when there is none left."""
        own = f"{kind}:{self.index}"
        return own if own in self.state.faults else kind if kind in self.state.faults else ""

    def board(self) -> None:
        if self.at_once and self.world.sharing[self.index]:
            return
        process = self.process._replace(count=self.process.count + 1)
        self.state = put_process(self.state, self.player.process, process)
        if self.at_once:
            self.now(process.count)
        else:
            self.step(("takes a ticket",), self.answer(self.state, process.count))

    def ride(self, ticket: int, seconds: float) -> None:
        if self.at_once:
            return
        phase = self.actor.phase
        if phase[:1] == ("riding",):
            _, index, flight = phase
            other = self.state.actors[index]
            if self.world.over(other):
                outcome = shared(other)
                if flight > ticket and outcome is not None:
                    self.step(("is told",), self.answer(self.state, outcome))
                else:
                    self.depart()
            self.may_time_out()
        else:
            self.depart()

    def depart(self) -> None:
        running = self.process.trains[self.key]
        if running is None:
            count = self.process.count + 1
            trains = list(self.process.trains)
            trains[self.key] = (self.index, count)
            process = self.process._replace(trains=tuple(trains), count=count)
            state = put_process(self.state, self.player.process, process)
            self.step(("drives a load without a lease",), self.answer(state, True))
        else:
            self.step(
                ("waits for the load of", self.world.players[running[0]].name),
                self.enter(self.state, ("riding", *running)),
            )

    # -- what comes of it ------------------------------------------------------------------------------------------------------

    def step(self, what: tuple[Any, ...], after: State) -> None:
        self.steps.append(Step(self.player.name, what, after))

    def enter(self, state: State, phase: tuple[Any, ...], *, forget: bool = False) -> State:
        """The flow is further inside its operation."""
        actor = state.actors[self.index]._replace(phase=phase)
        return put_actor(state, self.index, actor._replace(seen=None) if forget else actor)

    def answer(self, state: State, answer: Any, *, saw: tuple[Any, ...] | None = None, keep_seen: bool = False) -> State:
        if not keep_seen:
            state = put_actor(state, self.index, state.actors[self.index]._replace(seen=saw))
        return self.world.answered(state, self.index, answer)


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


def expired(state: State) -> State:
    return state._replace(held=state.held._replace(slots=tuple(Slot(slot.entry, None) for slot in state.held.slots)))


def fallen(state: State, promise: str, what: str) -> State:
    return state._replace(fallen=(promise, what))


def shared(other: Actor) -> Any:
    """What a flight came to, as `BaseSite.shared_outcome` hands it on."""
    if other.phase[0] != "ended":
        return None
    value, error, _, marks = other.phase[1]
    return ("outcome", value, BROKEN if error else None, "waited", marks)


def saw(answer: Any) -> tuple[Any, ...] | None:
    """What somebody knows of the key who has just looked, as `Desk.sight` would show it."""
    if type(answer) is not tuple or answer[0] != "reading":
        return None
    _, _, _, tokens, entry, lease = answer
    return (tokens, Slot(entry, lease))
