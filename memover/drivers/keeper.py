"""The one background thread of a process: it does small things at their time, and sleeps without a beat otherwise.

It prolongs the leases of loads that take long, and repeats invalidations that the store has not acknowledged.
Started when there is first something to do, a daemon, and started anew in a child after fork. A task that raises
is logged and dropped, so that it cannot stop the others.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from memover.clocks import monotonic

__all__ = ["Keeper", "Task"]

logger = logging.getLogger("memover")


class Task:
    """Something to do at `due` (monotonic seconds); what `run` returns is the seconds until it is due again, None: never."""

    __slots__ = ("cancelled", "run")

    def __init__(self, run: Callable[[], float | None]) -> None:
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        """It will not be begun any more; a run under way is not waited for."""
        self.cancelled = True


class Keeper:
    """Runs tasks at their time in one daemon thread."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._reset()

    def _reset(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """In a child: the thread did not come along, and what it was to do is the parent's."""
        self._reset()

    def later(self, seconds: float, run: Callable[[], float | None]) -> Task:
        """Have `run` called after `seconds`, and again as it says."""
        task = Task(run)
        with self._wake:
            self._put(seconds, task)
        return task

    def _put(self, seconds: float, task: Task) -> None:
        heapq.heappush(self._heap, (monotonic() + seconds, next(self._count), task))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="memover-keeper", daemon=True)
            self._thread.start()
        elif self._heap[0][2] is task:
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                while self._heap and self._heap[0][2].cancelled:
                    heapq.heappop(self._heap)
                if not self._heap:
                    # A thread that sleeps for ever would be one more thing for a program to look at; it is cheap to start.
                    if not self._wake.wait(timeout=5.0) and not self._heap:
                        self._thread = None
                        return
                    continue
                due, _, task = self._heap[0]
                wait = due - monotonic()
                if wait > 0:
                    self._wake.wait(timeout=min(wait, threading.TIMEOUT_MAX))
                    continue
                heapq.heappop(self._heap)
            if task.cancelled:
                continue
            try:
                again = task.run()
            except Exception:
                logger.exception("a background task of memover failed")
                continue
            if again is not None and not task.cancelled:
                with self._wake:
                    self._put(again, task)
