"""Where the steps of a flow are answered, at one moment of the explorer's world: every choice there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.steps import Await, Send, Sleep
from memover.stores.redis import scripts
from tests.explorer.function import BROKEN, Behind, Loading
from tests.explorer.histories import FAILURE, TIMEOUT
from tests.explorer.state import Actor, Sight, State, Step, fallen, put_actor, put_process, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.stores.redis.asking import Command
    from tests.explorer.world import World

__all__ = ["Change", "Desk", "Promise"]


class Change:
    """The truth counts up by one. Answer: the new truth."""


class Promise:
    """The invalidation of a truth has returned (`everywhere`), or has failed loudly, which binds its own process."""

    def __init__(self, truth: int, *, everywhere: bool) -> None:
        self.truth = truth
        self.everywhere = everywhere


class Desk:
    """The choices of one actor, whose flow waits on a step."""

    def __init__(self, world: World, state: State, index: int) -> None:
        self.world = world
        self.state = state
        self.index = index
        self.actor = state.actors[index]
        self.player = world.players[index]
        self.steps: list[Step] = []

    def choices(self, step: Any) -> list[Step]:
        """Every next moment in which this actor has done something."""
        verbs: dict[type, Any] = {
            Send: self.send,
            Sleep: self.sleep,
            Await: self.wait,
            Loading: self.load,
            Change: self.change,
        }
        verbs[type(step)](step)
        return self.steps

    def at_once(self, step: Any) -> tuple[State, Any] | None:
        """The moment after a step that is nobody else's concern, and its answer; None for any other."""
        at = self.player.process
        process = self.state.processes[at]
        if isinstance(step, Promise):
            if step.everywhere:
                return self.state._replace(settled=max(self.state.settled, step.truth)), None
            return put_process(self.state, at, process._replace(bound=max(process.bound, step.truth))), None
        if isinstance(step, Behind):
            behind = self.world.behind(self.index)
            if self.state.actors[behind].phase != ("dormant",):
                return self.state, True  # it runs already, or has run a moment ago
            return put_actor(self.state, behind, Actor()), True
        return None

    # -- the server -------------------------------------------------------------------------------------------------------

    def send(self, step: Send) -> None:
        """Commands that are served at moments of their own: in a cluster in any order, else in this one."""
        world, state, scenario = self.world, self.state, self.world.scenario
        commands = step.commands
        got = dict(self.actor.phase[1]) if self.actor.phase else {}
        for at, command in enumerate(commands):
            if at in got:
                continue
            if self.player.process in scenario.cut_off:
                failed = self.answer(state, (*FAILURE, len(commands)))
                self.step((command, "in vain: the store cannot be reached"), failed)
                return
            held, found = world.server.perform(state.held, command)
            found = tuple(map(frozen, found)) if isinstance(found, list) else found
            after = world.touched(state, held)
            more = {**got, at: found}
            said = (command, found) if len(commands) == 1 else (f"({at + 1} of {len(commands)})", command, found)
            if len(more) < len(commands):
                self.step(said, self.enter(after, ("sending", tuple(sorted(more.items())))))
            else:
                answers = tuple(more[each] for each in range(len(commands)))
                self.step(said, self.answer(after, ("answers", answers), seen=sight(commands, answers)))
            if late := self.may("late"):
                given_up = without(state, late)
                given_up = given_up._replace(network=(*state.network, (self.index, command)))
                failed = self.answer(given_up, (*FAILURE, len(commands)))
                self.step((command, "and gives up on the answer"), failed)
            if (resent := self.may("resent")) and held != state.held:
                again = without(after, resent)
                self.step((command, "and, the connection having died, will send it again"), again)
            if not scenario.spread:
                return

    # -- waiting ----------------------------------------------------------------------------------------------------------

    def sleep(self, step: Sleep) -> None:
        """A waiter looks again when there is something new to see."""
        seen, get = self.actor.seen, self.world.server.get
        if seen is None or any(get(self.state.held, key) != value for key, value in seen):
            self.step(("looks again",), self.answer(self.state, None))
        self.may_time_out()

    def wait(self, step: Await) -> None:
        name = self.actor.phase[1]
        if name in dict(self.state.processes[self.player.process].landed):
            self.step(("is woken",), self.answer(self.state, None))
        self.may_time_out()

    def may_time_out(self) -> None:
        if fault := self.may("timeout"):
            self.step(("has waited long enough",), self.answer(without(self.state, fault), TIMEOUT))

    # -- the function --------------------------------------------------------------------------------------------------------

    def change(self, step: Change) -> None:
        truth = self.state.truth + 1
        self.step(("changes the truth to", truth), self.answer(self.state._replace(truth=truth), truth))

    def load(self, step: Loading) -> None:
        state, actor = self.state, self.actor
        if actor.phase[:1] == ("loading",):
            value = actor.phase[1]
            self.step(("has loaded", value), self.answer(state, (value, None)))
            if failure := self.may("failure"):
                self.step(("fails to load",), self.answer(without(state, failure), (None, BROKEN)))
            return
        if step.unleased and not any(fault.startswith("timeout") for fault in self.world.scenario.faults):
            for other, player in zip(state.actors, self.world.players):
                if player.process == self.player.process and other.phase[:1] == ("loading",) and other.phase[2]:
                    what = f"{self.player.name} loads without a lease while {player.name} does, in one process"
                    state = fallen(state, "P6", what)
        most = self.world.scenario.loads
        if most is not None:
            state = state._replace(loads=state.loads + 1)
            if state.loads > most:
                state = fallen(state, "P6", f"this is load number {state.loads}, where {most} would do")
        began = self.enter(state, ("loading", state.truth, step.unleased))
        self.step(("begins to load, the truth being", state.truth), began)

    # -- what comes of it ------------------------------------------------------------------------------------------------------

    def may(self, kind: str) -> str:
        """The fault of this kind that may befall this flow now, "" when there is none left."""
        own = f"{kind}:{self.index}"
        return own if own in self.state.faults else kind if kind in self.state.faults else ""

    def step(self, what: tuple[Any, ...], after: State) -> None:
        self.steps.append(Step(self.player.name, what, after))

    def enter(self, state: State, phase: tuple[Any, ...]) -> State:
        """The flow is further inside its step."""
        return put_actor(state, self.index, state.actors[self.index]._replace(phase=phase))

    def answer(self, state: State, answer: Any, *, seen: Sight | None = None) -> State:
        if type(answer) is tuple and answer[:1] == FAILURE and self.actor.healing:  # it cannot put anything back
            state = put_actor(state, self.index, state.actors[self.index]._replace(healing=False))
        return self.world.answered(state, self.index, answer, seen)


def frozen(answer: Any) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer


def sight(commands: Sequence[Command], answers: tuple[Any, ...]) -> Sight | None:
    """What a look, or a request for the lease, has shown: keys with what was under them. None for any other step."""
    seen: list[tuple[bytes, bytes | None]] = []
    for command, answer in zip(commands, answers):
        if command.script is scripts.ACQUIRE:
            return tuple(zip(command.args[1:], answer[1:]))
        if command.script is not None or command.args[0] != b"MGET":
            return None
        seen += zip(command.args[1:], answer)
    return tuple(seen) if any(key.endswith(b":lease") for key, _ in seen) else None
