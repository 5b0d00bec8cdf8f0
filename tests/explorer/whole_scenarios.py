"""What whole processes do in the explorer's world, and what goes wrong meanwhile."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

from memover import InvalidationFailed
from tests.explorer.whole import NAMESPACE, TAG, Choice, Process, Ready, Run, Settled, Violated, Whole, world

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["LONG", "SCENARIOS", "Found", "Report", "explore"]


# -- what somebody does -------------------------------------------------------------------------------------------------------


def reader(run: Run, process: Process) -> None:
    """One call."""
    floor = run.floor(process)
    value = run.truth_in(process.f(1))
    if value < floor:
        raise Violated(
            run.scenario.promise,
            f"a call in process {process.letter} was answered {value}, and the invalidation of {floor} had returned long "
            f"enough before it began",
        )


def reader_twice(run: Run, process: Process) -> None:
    """One call, and another one at some later moment."""
    reader(run, process)
    run.wait(Ready("calls again"))
    reader(run, process)


def changing(run: Run, process: Process, invalidation: Callable[[], object]) -> None:
    run.truth += 1
    truth = run.truth
    try:
        invalidation()
    except InvalidationFailed:
        run.settled.append(Settled(truth, process.at, run.time, everywhere=False))
    else:
        run.settled.append(Settled(truth, process.at, run.time))


def writer_of_all(run: Run, process: Process) -> None:
    changing(run, process, process.f.invalidate_all)


def writer_of_all_by_name(run: Run, process: Process) -> None:
    changing(run, process, lambda: process.cache.invalidate_namespace(NAMESPACE))


def writer_of_one(run: Run, process: Process) -> None:
    changing(run, process, lambda: process.f.invalidate(1))


def writer_of_the_tag(run: Run, process: Process) -> None:
    changing(run, process, lambda: process.cache.invalidate_tags(TAG))


def writer_who_sets(run: Run, process: Process) -> None:
    changing(run, process, lambda: process.f.set(run.value_of(run.truth), 1))


def writer_who_refreshes(run: Run, process: Process) -> None:
    changing(run, process, lambda: process.f.refresh(1))


A, B = 0, 1
COLD: Any = {"seconds": 0, "warm": False, "near": False, "slow": True}

SCENARIOS: tuple[Whole, ...] = (
    # The near tier: nothing but heartbeats.
    Whole("another process invalidates all", "P3", ((A, reader), (B, writer_of_all))),
    Whole("the process itself invalidates all", "P3", ((A, reader), (A, writer_of_all)), seconds=0),
    Whole("the process itself invalidates all between two calls", "P3", ((A, reader_twice), (A, writer_of_all)), seconds=0),
    Whole("the process itself invalidates all by name", "P3", ((A, reader), (A, writer_of_all_by_name)), seconds=0),
    Whole("the process itself invalidates the call", "P3", ((A, reader), (A, writer_of_one)), seconds=0),
    Whole("the process itself invalidates the tag", "P3", ((A, reader), (A, writer_of_the_tag)), seconds=0, tagged=True),
    Whole("the process itself sets the call", "P3", ((A, reader), (A, writer_who_sets)), seconds=0),
    Whole("an entry that is read again while the process invalidates all", "P3", ((A, reader), (A, writer_of_all)), evicted=True,
          seconds=0),
    Whole("an entry that is read again while the process invalidates the call", "P3", ((A, reader), (A, writer_of_one)),
          evicted=True, seconds=0),
)  # fmt: skip

LONG: tuple[Whole, ...] = (
    # Callers who are interrupted, without a near tier.
    Whole("a caller is interrupted", "P17", ((A, reader), (B, reader)), ("interrupt:0",), **COLD),
    Whole("one of two callers in a process is interrupted", "P17", ((A, reader), (A, reader)), ("interrupt:0",), **COLD),
    Whole("a caller is interrupted while its call is invalidated", "P17", ((A, reader), (B, writer_of_one)), ("interrupt:0",), **COLD),
    Whole("a writer is interrupted", "P17", ((A, reader), (B, writer_of_one)), ("interrupt:1",), **COLD),
    Whole("a writer of all is interrupted", "P17", ((A, reader), (B, writer_of_all)), ("interrupt:1",), **COLD),
    Whole("another process invalidates the call", "P3", ((A, reader), (B, writer_of_one))),
    Whole("another process invalidates the tag", "P3", ((A, reader), (B, writer_of_the_tag)), tagged=True),
    Whole("another process sets the call", "P3", ((A, reader), (B, writer_who_sets))),
    Whole("another process refreshes the call", "P3", ((A, reader), (B, writer_who_refreshes))),
    Whole("an entry that is read again while another process invalidates all", "P3", ((A, reader), (B, writer_of_all)), evicted=True),
    Whole("pushes, and another process invalidates all", "P3", ((A, reader), (B, writer_of_all)), pushes=True),
    Whole("pushes, and another process invalidates the call", "P3", ((A, reader), (B, writer_of_one)), pushes=True),
    Whole("in a cluster, another process invalidates all", "P3", ((A, reader), (B, writer_of_all)), spread=True),
    Whole("in a cluster, another process invalidates the call", "P3", ((A, reader), (B, writer_of_one)), spread=True),
    Whole("the connection is cut", "P3", ((A, reader), (B, writer_of_all)), ("cut:0",), pushes=True),
    Whole("the connection is half open", "P3", ((A, reader), (B, writer_of_all)), ("silence:0",)),
    Whole("the store is flushed", "P4", ((A, reader), (B, writer_of_all)), ("flush",)),
    Whole("the token of all is evicted", "P4", ((A, reader), (B, writer_of_all)), ("eviction:w:gen:@all",)),
    Whole("the generation is evicted", "P4", ((A, reader), (B, writer_of_all)), ("eviction:w:gen:f",)),
    Whole("the process forks", "P3", ((A, reader), (B, writer_of_all)), ("fork:0",)),
    Whole("the process's own invalidation is not answered", "P8", ((A, reader), (A, writer_of_all)), ("late:1",), seconds=1),
    Whole("a caller is interrupted, among others", "P17", ((A, reader), (B, reader), (B, writer_of_one)), ("interrupt:0",), **COLD),
    Whole("a caller who refreshes is interrupted", "P17", ((A, writer_who_refreshes), (B, reader)), ("interrupt:0",), **COLD),
    Whole("an invalidation is not answered, and its caller's neighbour interrupted", "P8", ((A, writer_of_one), (A, reader)),
          ("late:0", "interrupt:1"), **COLD),
)  # fmt: skip
"""Ten seconds and more each. In those that a mutant is about it is found in less than one."""


AFTERWARDS = Choice(("afterwards",), lambda: None)


# -- every schedule -------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A promise that does not hold, and the schedule under which it does not."""

    promise: str
    what: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        lines = "".join(f"\n  {at:2}. {step}" for at, step in enumerate(self.steps, 1))
        return f"{self.promise} does not hold: {self.what}{lines}"


class Report(NamedTuple):
    """How many moments there are, how often a schedule was replayed to come to them, and what does not hold."""

    moments: int
    replays: int
    violation: Found | None


def explore(
    scenario: Whole,
    breaks: Callable[[], Callable[[], None]] | None = None,
    *,
    most: int = 200_000,
    enough: int | None = None,
    world: Callable[[], AbstractContextManager[None]] = world,
) -> Report:
    """Go through every moment that a schedule of this scenario can come to. `breaks` makes the code a mutant, and returns
    what undoes that. With `enough` the search ends after so many moments, and goes on from anywhere rather than from where
    it has just been, so that those are of all parts of the scenario."""
    with world():
        undo = None if breaks is None else breaks()
        try:
            return _explore(scenario, most, enough)
        finally:
            if undo is not None:
                undo()


def _explore(scenario: Whole, most: int, enough: int | None) -> Report:
    seen: set[object] = set()
    waiting: list[tuple[int, ...]] = [()]
    processes = [scenario.process(at) for at in range(1 + max(at for at, _ in scenario.actors))]
    replays = 0
    chance = random.Random(1)
    while waiting and (enough is None or len(seen) < enough):
        schedule = waiting.pop(-1 if enough is None else chance.randrange(len(waiting)))
        steps: list[Choice] = []
        run = scenario.run(processes)
        replays += 1
        try:
            for at in schedule:
                if at < 0:
                    steps.append(AFTERWARDS)
                    run.afterwards()
                    break
                _step(run, at, steps, checked=len(steps) + 1 < len(schedule))
            else:
                _onward(run, schedule, steps, seen, waiting)
        except Violated as violated:
            return Report(len(seen), replays, Found(violated.promise, violated.what, tuple(map(str, steps))))
        finally:
            run.end()
        if len(seen) > most:
            raise RuntimeError(f"{scenario.name}: more than {most} moments; make the scenario smaller")
    return Report(len(seen), replays, None)


def _step(run: Run, at: int, steps: list[Choice], *, checked: bool) -> None:
    choice = run.choices()[at]
    steps.append(choice)
    choice.happen()
    run.note()
    if not checked:
        run.check()


def _onward(
    run: Run, schedule: tuple[int, ...], steps: list[Choice], seen: set[object], waiting: list[tuple[int, ...]]
) -> None:
    """From the end of a schedule on, always by the first choice; the others are for later."""
    while True:
        moment = run.digest()
        if moment in seen:
            return
        seen.add(moment)
        choices = run.choices()
        if run.quiet() and not run.left:
            waiting.append((*schedule, -1))
        if not choices:
            if not run.quiet():
                if run.server.get(run.held, run.lease) is None:
                    raise Violated("P7", "somebody waits for ever")
                raise Violated("P17", "somebody waits for a lease that nobody holds, and nobody gives it back")
            return
        waiting.extend((*schedule, at) for at in range(len(choices) - 1, 0, -1))
        schedule = (*schedule, 0)
        _step(run, 0, steps, checked=False)
