"""Going through the schedules of a world: all of them, or as many as one likes at random."""

from __future__ import annotations

import gc
import random
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.stores.redis import scripts
from memover.stores.redis.asking import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.explorer.state import State, Step
    from tests.explorer.world import World

__all__ = ["Report", "Violation", "explore", "wander"]


class Violation(NamedTuple):
    """A promise that fell, and the schedule under which it did."""

    promise: str
    what: str
    start: State
    steps: Sequence[Step]
    seed: int | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f" (seed {self.seed})"
        wide = max((len(step.who) for step in self.steps), default=0)
        lines = [f"{at:3}  {step.who:{wide}}  {spoken(step.what)}" for at, step in enumerate(self.steps, 1)]
        entries = " ".join(_word(raw) for raw in self.start.held if raw is not None and b"|" in raw)
        begin = f"     at first: {entries or 'no entry'}, the truth is {self.start.truth}"
        return "\n".join([f"{self.promise} does not hold{seed}: {self.what}", begin, *lines])


class Report(NamedTuple):
    """What was gone through: distinct moments, the schedules they make up, and the first promise that fell."""

    moments: int
    schedules: int
    violation: Violation | None


@contextmanager
def without_collecting() -> Iterator[None]:
    """Moments are kept, and are no cycles: looking for garbage among them takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_collecting()
def explore(world: World, *, most: int = 2_000_000) -> Report:
    """Every schedule, the shortest first; it ends at the first violation, which is therefore a shortest one.

    Schedules that lead to the same moment go on as one: what was done in another order, without anybody having seen
    a difference, is gone through once. Raises when there are more than `most` moments.
    """
    moments: dict[State, int] = {state: at for at, state in enumerate(world.starts)}
    came: list[tuple[State, Step] | None] = [None] * len(moments)
    layer = dict.fromkeys(moments.values(), 1)
    states = list(moments)
    schedules = 0
    while layer:
        following: dict[int, int] = {}
        for at, ways in layer.items():
            state = states[at]
            steps = world.steps(state)
            if not steps:
                schedules += ways
            for step in steps:
                after = moments.setdefault(step.after, len(states))
                if after == len(states):
                    states.append(step.after)
                    came.append((state, step))
                    checked = step.after if step.after.fallen else world.check(step.after)
                    if checked.fallen:
                        path = [step]
                        while (before := came[moments[state]]) is not None:
                            state, step = before
                            path.append(step)
                        return Report(len(states), schedules, Violation(*checked.fallen, state, path[::-1]))
                following[after] = following.get(after, 0) + ways
        if len(states) > most:
            raise RuntimeError(f"{world.scenario.name}: more than {most} moments; make the scenario smaller")
        layer = following
    return Report(len(states), schedules, None)


def wander(world: World, seed: int) -> tuple[int, Violation | None]:
    """One schedule, chosen by a seed: how many steps it had, and the promise that fell in it.

    A draw picks some of the actors and a few of the faults, and lets the fastest go first, changing its mind now and then
    about who that is: evenly drawn schedules hardly ever leave a slow load behind, and one that everything befalls
    hardly ever comes to the end of anything.
    """
    chance = random.Random(seed)
    state = start = _some_of(world, chance.choice(world.starts), chance)
    speed: dict[str, float] = {}
    path: list[Step] = []
    while steps := world.steps(state):
        if speed and chance.random() < 0.15:
            speed[chance.choice(list(speed))] = 10.0 ** chance.uniform(-3, 0)
        first: set[str] = set()
        drawn = []
        for step in steps:
            weight = speed.setdefault(step.who, 10.0 ** chance.uniform(-3, 0))
            drawn.append(weight if step.who not in first or world.scenario.spread else weight / 3)
            first.add(step.who)  # what follows the first of an actor's choices is something that goes wrong
        (step,) = chance.choices(steps, drawn)
        path.append(step)
        checked = step.after if step.after.fallen else world.check(step.after)
        if checked.fallen:
            return len(path), Violation(*checked.fallen, start, path, seed)
        state = step.after
    return len(path), None


def _some_of(world: World, state: State, chance: random.Random) -> State:
    actors = list(state.actors)
    for at in chance.sample(range(len(actors)), chance.randint(0, max(0, len(actors) - 3))):
        actors[at] = actors[at]._replace(phase=("gone",))
    faults = chance.sample(state.faults, chance.randint(0, min(3, len(state.faults))))
    return state._replace(actors=tuple(actors), faults=tuple(faults))


# -- in words ---------------------------------------------------------------------------------------------------------------


def spoken(what: tuple[Any, ...]) -> str:
    """A step as one reads it."""
    return " ".join(part if isinstance(part, str) else _word(part) for part in what)


def _word(part: Any) -> str:
    if part is None:
        return "-"
    if isinstance(part, bytes):
        return _bytes(part)
    if isinstance(part, Command):
        return _command(part)
    if isinstance(part, tuple):
        return "(" + ", ".join(map(_word, part)) + ")"
    return str(part)


def _command(command: Command) -> str:
    if command.script is None:
        return " ".join(map(_bytes, command.args))
    name = next(name for name in scripts.__all__ if getattr(scripts, name) is command.script)
    return " ".join([name, *map(_bytes, command.args[1:])])


def _bytes(text: bytes) -> str:
    """Tokens and nonces without their zeros, entries as what they say."""
    return re.sub(r"(?<![0-9a-f])0*([0-9a-f]{1,16})(?=[ ,|)]|$)", r"\1", text.decode())
