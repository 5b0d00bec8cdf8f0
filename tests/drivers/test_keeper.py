"""The one background thread: small things at their time, and no beat otherwise."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from memover.drivers.keeper import Keeper
from tests.servers import wait_until


def test_tasks_run_in_the_order_they_are_due() -> None:
    """What is due first runs first, whenever it was asked for."""
    keeper, ran, done = Keeper(), [], threading.Event()

    def last() -> None:
        ran.append("last")
        done.set()

    keeper.later(0.2, last)
    keeper.later(0.1, lambda: ran.append("second"))
    keeper.later(0.0, lambda: ran.append("first"))
    assert done.wait(30)
    assert ran == ["first", "second", "last"]


def test_a_task_says_when_it_is_due_again() -> None:
    """A task that answers seconds runs again after them; one that answers None is over."""
    keeper, over = Keeper(), threading.Event()
    runs: list[int] = []

    def task() -> float | None:
        runs.append(len(runs))
        return 0.001 if len(runs) < 5 else None

    keeper.later(0.0, task)
    keeper_is_idle(keeper)
    keeper.later(0.0, over.set)
    assert over.wait(30)
    assert runs == [0, 1, 2, 3, 4]


def keeper_is_idle(keeper: Keeper) -> None:
    wait_until(lambda: not keeper._heap, "the keeper to have nothing to do")


def test_a_cancelled_task_is_not_begun() -> None:
    """Cancelled before its time, it never runs, and what comes after it does."""
    keeper, ran, done = Keeper(), [], threading.Event()
    task = keeper.later(0.05, lambda: ran.append("cancelled"))
    keeper.later(0.1, done.set)
    task.cancel()
    assert done.wait(30)
    assert ran == []


def test_a_task_that_raises_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and dropped."""
    keeper, done = Keeper(), threading.Event()

    def broken() -> float:
        raise ValueError("a task of the test's")

    with caplog.at_level(logging.ERROR, logger="memover"):
        keeper.later(0.0, broken)
        keeper.later(0.01, done.set)
        assert done.wait(30)
    assert "a task of the test's" in caplog.text
    keeper_is_idle(keeper)


def test_many_threads_may_ask() -> None:
    """Every task of every thread runs once."""
    keeper = Keeper()
    ran: list[int] = []
    threads = [
        threading.Thread(target=lambda own=own: [keeper.later(0.0, lambda at=at: ran.append(at)) for at in range(own, 400, 4)])
        for own in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(ran) == 400, "all tasks to have run")
    assert sorted(ran) == list(range(400))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_begins_anew_after_fork() -> None:
    """The thread does not come along and the parent's tasks are the parent's; a task of the child's runs there."""
    keeper, ran = Keeper(), threading.Event()
    keeper.later(0.0, ran.set)
    assert ran.wait(30)
    parents = keeper.later(3600.0, lambda: None)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            keeper.after_fork()
            done = threading.Event()
            keeper.later(0.0, done.set)
            status = 0 if done.wait(30) and len(keeper._heap) == 0 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [task for *_, task in keeper._heap] == [parents]
    parents.cancel()
