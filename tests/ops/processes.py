"""Functions that report as those of an application do."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from memover.runtime.counters import Counters
from memover.runtime.report import Reporter
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.stores.survey import Survey


class Function:
    def __init__(self, namespace: str, version: int | str) -> None:
        self.policy = SimpleNamespace(namespace=namespace, version=version)
        self.counters = Counters()


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


def reporter(url: str, prefix: str, *functions: Function, interval: float = 5.0) -> tuple[Reporter, Clockwork, Survey]:
    """A reporter on a survey's connections."""
    clock, survey = Clockwork(), open_survey(url)
    return reporter_over(survey, prefix, clock, *functions, interval=interval), clock, survey


def reporter_over(survey: Any, prefix: str, clock: Clockwork, *functions: Function, interval: float = 5.0) -> Reporter:
    state: Any = SimpleNamespace(prefix=prefix, functions=functions, store=None, background=clock)
    made = Reporter(state, interval)
    made._survey = survey
    return made


@contextmanager
def reporting(url: str, prefix: str, namespace: str, version: int) -> Iterator[Function]:
    """A process that has reported once, and takes its report back at the end."""
    function = Function(namespace, version)
    made, clock, survey = reporter(url, prefix, function)
    made.start()
    clock.turn()
    try:
        yield function
    finally:
        made.stop()
        survey.close()
