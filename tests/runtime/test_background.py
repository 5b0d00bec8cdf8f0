"""What runs behind the callers: one thread for timed tasks, none when there are none, and a bounded pool for refreshes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from functools import partial
from typing import Any

import pytest

from memover import Cache
from memover.runtime import background as module
from memover.runtime.background import Background, RefreshPool
from tests.interrupts.striking import places, strike
from tests.servers import wait_until


def test_tasks_run_in_the_order_they_are_due() -> None:
    """What is due first runs first, whenever it was asked for."""
    background, ran, done = Background(), [], threading.Event()

    def last() -> None:
        ran.append("last")
        done.set()

    background.later(0.2, last)
    background.later(0.1, lambda: ran.append("second"))
    background.later(0.0, lambda: ran.append("first"))
    assert done.wait(30)
    assert ran == ["first", "second", "last"]


def test_a_thread_that_ends_at_any_moment_of_a_call_leaves_the_task_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It empties the list of threads before it looks whether anything was added."""
    started: list[object] = []
    monkeypatch.setattr(module, "start_new_thread", lambda *args: started.append(args))

    def adding() -> Background:
        background = Background()
        background._working.append(None)
        return background

    record = places(partial(adding().later, 0.0, bool))
    for at in range(len(record)):
        background = adding()
        started.clear()
        _, struck = strike(partial(background.later, 0.0, bool), at, background._working.clear)
        background.wake()  # as the thread does that ends, where it finds what was added
        assert started, struck


def test_a_task_says_when_it_is_due_again() -> None:
    """A task that answers seconds runs again after them; one that answers None is over."""
    background, over = Background(), threading.Event()
    runs: list[int] = []

    def task() -> float | None:
        runs.append(len(runs))
        return 0.001 if len(runs) < 5 else None

    background.later(0.0, task)
    wait_until(lambda: len(runs) == 5, "the task to be over")
    background.later(0.05, over.set)
    assert over.wait(30)
    assert runs == [0, 1, 2, 3, 4]


def test_a_cancelled_task_is_not_begun() -> None:
    """Cancelled before its time, it never runs, and what comes after it does."""
    background, ran, done = Background(), [], threading.Event()
    task = background.later(0.05, lambda: ran.append("cancelled"))
    background.later(0.1, done.set)
    task.cancel()
    assert done.wait(30)
    assert ran == []


def test_a_task_that_raises_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and dropped."""
    background, done = Background(), threading.Event()

    def broken() -> float:
        raise ValueError("a task of the test's")

    with caplog.at_level(logging.ERROR, logger="memover"):
        background.later(0.0, broken)
        background.later(0.01, done.set)
        assert done.wait(30)
    assert "a task of the test's" in caplog.text
    assert caplog.text.count("a background task of memover failed") == 1


def test_a_store_that_does_not_answer_holds_up_no_other_stores_tasks(prefix: str) -> None:
    """What is due for one cache runs while a task of another one's waits for its store. Caches of one store have one thread."""
    answered, done = threading.Event(), threading.Event()
    with (
        Cache("redis://192.0.2.1:1", prefix=prefix) as silent,
        Cache("redis://192.0.2.2:1", prefix=prefix) as healthy,
        Cache("redis://192.0.2.2:1", prefix=f"{prefix}2") as beside,
        Cache("memory://") as inside,
        Cache("memory://") as too,
    ):
        own = [cache._state.background for cache in (silent, healthy, beside, inside, too)]
        assert own[1] is own[2]
        assert own[3] is own[4]
        assert len(set(own)) == 3
        try:
            waiting = threading.Event()

            def ask() -> None:
                waiting.set()
                answered.wait(60)

            own[0].later(0.0, ask)
            assert waiting.wait(30)
            own[1].later(0.0, done.set)
            assert done.wait(30)
        finally:
            answered.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_no_thread_is_thought_to_be_there_in_a_child(prefix: str) -> None:
    """Of no store: each is started anew by the first task."""
    with Cache("redis://192.0.2.3:1", prefix=prefix) as cache, Cache("memory://") as inside:
        both = [each._state.background for each in (cache, inside)]
        for each in both:
            each.later(3600.0, lambda: None)
        assert all(each.running for each in both)
        child = os.fork()
        if child == 0:
            os._exit(1 if any(each.running for each in both) else 0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        for each in both:
            each._reset()


def test_the_thread_of_a_cache_that_is_gone_goes_with_it(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Nothing of it is held by address."""
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    with Cache("redis://192.0.2.4:1", prefix=prefix) as cache:
        background = weakref.ref(cache._state.background)
        cache._state.background.later(0.0, lambda: None)
    del cache

    def gone() -> bool:
        gc.collect()
        return background() is None

    wait_until(gone, "the background to be gone")
    assert "redis://192.0.2.4:1/0" not in module._by_address


def test_many_threads_may_ask() -> None:
    """Every task of every thread runs once."""
    background = Background()
    ran: list[int] = []
    threads = [
        threading.Thread(target=lambda own=own: [background.later(0.0, lambda at=at: ran.append(at)) for at in range(own, 400, 4)])  # type: ignore[misc]
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
    background, ran = Background(), threading.Event()
    background.later(0.0, ran.set)
    assert ran.wait(30)
    parents = background.later(3600.0, lambda: None)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            background.after_fork()
            assert not background.running
            done = threading.Event()
            background.later(0.0, done.set)
            status = 0 if done.wait(30) else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    parents.cancel()


def test_a_thread_that_cannot_be_started_is_started_with_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives no thread once: nothing is raised, and the next task brings both to run."""
    background, ran, both = Background(), [], threading.Event()
    start, refused = module.start_new_thread, list[int]()  # type: ignore[attr-defined]

    def refuse_once(*args: Any) -> int:
        if not refused:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        return start(*args)

    monkeypatch.setattr(module, "start_new_thread", refuse_once)
    background.later(0.0, lambda: ran.append(1))
    assert (refused, background.running) == ([1], False)
    background.later(0.0, both.set)
    assert both.wait(30)
    assert ran == [1]


def test_the_thread_ends_when_it_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that caches nothing any more keeps no thread; a later task starts one again."""
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    background, done = Background(), threading.Event()
    background.later(0.0, lambda: None)
    wait_until(lambda: not background.running, "the thread to have ended")
    background.later(0.0, done.set)
    assert done.wait(30)


def test_a_pool_has_room_for_so_many() -> None:
    """Two workers run two refreshes, two more wait, a fifth finds no room; all four run in the end."""
    pool, hold, running = RefreshPool(2), threading.Event(), threading.Semaphore(0)
    ran: list[int] = []

    def refresh(number: int) -> None:
        running.release()
        assert hold.wait(60)
        ran.append(number)

    assert pool.submit(lambda: refresh(0))
    assert pool.submit(lambda: refresh(1))
    assert running.acquire(timeout=30)
    assert running.acquire(timeout=30)
    assert pool.submit(lambda: refresh(2))
    assert pool.submit(lambda: refresh(3))
    assert len(pool) == 4
    assert not pool.room()
    assert not pool.submit(lambda: refresh(4))
    assert not pool.drain(0.01)
    hold.set()
    assert pool.drain(60)
    assert sorted(ran) == [0, 1, 2, 3]


def test_a_pool_without_threads_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the refresh is refused, so that its caller loads, and nothing waits for ever."""

    def refuse(*args: Any) -> int:
        raise RuntimeError("can't start new thread")

    pool = RefreshPool(2)
    monkeypatch.setattr(module, "start_new_thread", refuse)
    assert not pool.submit(lambda: None)
    assert len(pool) == 0
    monkeypatch.undo()
    done = threading.Event()
    assert pool.submit(done.set)
    assert done.wait(30)


def test_a_refresh_that_raises_leaves_the_pool_whole(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; its thread serves the next one."""
    pool, done = RefreshPool(1), threading.Event()

    def broken() -> None:
        raise ValueError("a refresh of the test's")

    with caplog.at_level(logging.ERROR, logger="memover"):
        assert pool.submit(broken)
        assert pool.submit(done.set)
        assert done.wait(30)
        assert pool.drain(30)
    assert "a refresh of the test's" in caplog.text


def test_tasks_of_a_closed_loop_take_no_room() -> None:
    """What a closed event loop left pending will never end, and is not counted."""
    pool = RefreshPool(1)

    async def leave_behind() -> None:
        for _ in range(2):
            pool.keep(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    tasks = pool.tasks()
    assert not pool.room()
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert pool.room()
    assert len(pool) == 0
