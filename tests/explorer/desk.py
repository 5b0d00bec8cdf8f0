"""Where the operations of a flow are answered, at one moment of the explorer's world.

It answers what `drivers.site` answers, by commands to the store as `stores.redis.commands` sends them, and with what
callers of one process share: flights by lease token, trains, the names learned of an entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.judge import VERSION
from tests.explorer.shelf import number
from tests.explorer.state import (
    CALL,
    CHILD,
    COARSE,
    TAG,
    Actor,
    Marks,
    Slot,
    State,
    Step,
    fallen,
    put_actor,
    put_process,
    without,
)
from tests.explorer.threads import BROKEN, FAILURE, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.ops import Outcome, Reading, Sealed

    from tests.explorer.world import World

__all__ = ["Desk"]

Commands = tuple[tuple[Any, ...], ...]


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
            self.command(what, ("look" if lease else "read", key, names), looks=lease)
            return
        # A cluster serves each token, and entry and lease together, at moments of their own.
        self.exchange(what, (*(("token", name) for name in names), ("slot", key)), lambda got: (
            "reading", key, names, got[:-1], got[-1].entry, got[-1].lease if lease else None
        ), looks=lease)  # fmt: skip

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

    def command(self, what: str, command: tuple[Any, ...], *, looks: bool = False) -> None:
        """One command on the store, with all that can become of it."""
        self.exchange(what, (command,), lambda got: ("list", got[0]) if command[0] == "bump" else got[0], looks=looks)
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
        *,
        looks: bool = False,
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
                self.step(said, self.answer(after, whole, saw=saw(whole) if looks else None))
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
                        state,
                        "P6",
                        f"{self.player.name} loads without a lease while {player.name} does, in one process",
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
            self.step(("waits for", self.world.players[at].name), self.enter(self.state, ("boarded", at), forget=True))
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
        process = self.process._replace(tickets=self.process.tickets + 1)
        self.state = put_process(self.state, self.player.process, process)
        if self.at_once:
            self.now(process.tickets)
        else:
            self.step(("takes a ticket",), self.answer(self.state, process.tickets))

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
            count = self.process.tickets + 1
            trains = list(self.process.trains)
            trains[self.key] = (self.index, count)
            process = self.process._replace(trains=tuple(trains), tickets=count)
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

    def answer(
        self, state: State, answer: Any, *, saw: tuple[Any, ...] | None = None, keep_seen: bool = False
    ) -> State:
        if answer == FAILURE and self.actor.healing:  # it cannot put anything back
            state = put_actor(state, self.index, state.actors[self.index]._replace(healing=False))
        return self.world.answered(state, self.index, answer, self.actor.seen if keep_seen else saw)


# -- from one form to another ---------------------------------------------------------------------------------------------------


def shared(other: Actor) -> Any:
    """What a flight came to, as `BaseSite.shared_outcome` hands it on."""
    if other.phase[0] != "ended":
        return None
    value, error, _, marks = other.phase[1]
    return ("outcome", value, BROKEN if error else None, "waited", marks)


def saw(reading: Any) -> tuple[Any, ...]:
    """What somebody knows of the key who has just looked, as `Desk.sight` would show it."""
    _, _, _, tokens, entry, lease = reading
    return (tokens, Slot(entry, lease))
