"""Functions that report as those of an application do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from memover.runtime.counters import Counters
from memover.runtime.report import Reporter
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Function:
    def __init__(self, namespace: str, version: int | str) -> None:
        self.namespace = namespace
        self.version = version
        self.counters = Counters()


class State:
    """What a reporter needs of a cache, on a survey's connections."""

    def __init__(self, url: str, prefix: str, functions: list[Function]) -> None:
        self.prefix = prefix
        self._survey = open_survey(url)
        self._functions = functions

    def functions(self) -> list[Function]:
        return self._functions

    def publish(self, name: bytes, raw: bytes, expire_ms: int) -> None:
        self._survey.put(name, raw, expire_ms)

    def withdraw(self, name: bytes) -> None:
        self._survey.unlink([name])

    def close(self) -> None:
        self._survey.close()


class Task:
    def __init__(self, run: Callable[[], float | None]) -> None:
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clockwork:
    """A keeper whose time passes when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def later(self, seconds: float, run: Callable[[], float | None]) -> Task:
        task = Task(run)
        self.tasks.append(task)
        return task

    def turn(self) -> list[Any]:
        """Run what is due once."""
        return [task.run() for task in self.tasks if not task.cancelled]


def reporter(url: str, prefix: str, *functions: Function, interval: float = 5.0) -> tuple[Reporter, Clockwork, State]:
    state, clock = State(url, prefix, list(functions)), Clockwork()
    return Reporter(state, interval, clock.later), clock, state


@contextmanager
def reporting(url: str, prefix: str, namespace: str, version: int) -> Iterator[Function]:
    """A process that has reported once, and takes its report back at the end."""
    function = Function(namespace, version)
    made, clock, state = reporter(url, prefix, function)
    made.start()
    clock.turn()
    try:
        yield function
    finally:
        made.stop()
        state.close()
