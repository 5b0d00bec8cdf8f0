"""What runs behind the callers: a thread for the small timed tasks of each store, and a bounded pool for refreshes.

No `threading.Condition` and no executor: an exception from outside inside their Python code would leave them locked.
Threads are started by `_thread`; a thread that cannot be started now is tried again with the next task. They do not keep
the interpreter from exiting: at exit, what is under way has `EXIT_SECONDS` to end.
"""

from __future__ import annotations

import logging
import time
from _thread import TIMEOUT_MAX, allocate_lock, start_new_thread
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from memover.clocks import monotonic
from memover.errors import raised_by_handler
from memover.latch import FramePresence
from memover.living import Living
from memover.loops import stranded

if TYPE_CHECKING:
    from asyncio import Task as AsyncioTask
    from collections.abc import Callable

__all__ = [
    "EXIT_SECONDS", "Background", "RefreshPool", "Timed", "background_of", "backgrounds_after_fork", "drain_pools", "sweep_pools",
]  # fmt: skip

logger = logging.getLogger("memover")

EXIT_SECONDS = 1.0
"""How long the exit of the interpreter waits for refreshes under way, and for leases to be given back."""
_IDLE_SECONDS = 5.0


class Timed:
    """A task of the background thread: `run` returns the seconds until it is due again, None for never."""

    __slots__ = ("cancelled", "due", "run")

    def __init__(self, due: float, run: Callable[[], float | None]) -> None:
        self.due = due
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        """It is not begun any more; a run under way is not waited for."""
        self.cancelled = True


class Background:
    """Runs timed tasks in one daemon thread, which ends when it has had nothing to do for a while.

    A task that raises is logged and dropped. Any thread may call `later`, a signal handler included."""

    def __init__(self) -> None:
        self._reset()
        _backgrounds.add(self)

    def _reset(self) -> None:
        self._added: deque[Timed] = deque()
        self._bell = allocate_lock()
        self._bell.acquire()
        self._working: list[FramePresence | None] = []

    def after_fork(self) -> None:
        """In a child: the thread did not come along, and what it was to do is the parent's."""
        self._reset()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return bool(self._working)

    def later(self, seconds: float, run: Callable[[], float | None]) -> Timed:
        """Has `run` called after `seconds`, and again as it says."""
        task = Timed(monotonic() + seconds, run)
        self._added.append(task)
        self.wake()
        return task

    def wake(self) -> None:
        """Makes sure that the thread runs and looks at what was added."""
        working = self._working
        first = working[:1]  # a thread that ends empties the list
        if not first or not _there(first[0]):
            working.clear()  # whoever was about to start it has been interrupted
            starting = FramePresence()
            working.append(starting)
            # Two threads may come here at once: the first in the list stays.
            if working[:1] == [starting]:
                try:
                    start_new_thread(self._work, (working, self._bell))
                except RuntimeError as error:
                    working.clear()  # the system gives no thread now: the next task tries again
                    if raised_by_handler(error):
                        raise
                    return
        try:
            self._bell.release()
        except RuntimeError as error:  # it has been told already
            if raised_by_handler(error):
                raise

    def _work(self, working: list[FramePresence | None], bell: Any) -> None:
        tasks: list[Timed] = []
        working[:] = [None]
        try:
            while True:
                while self._added:
                    tasks.append(self._added.popleft())
                tasks = [task for task in tasks if not task.cancelled]
                tasks.sort(key=lambda task: task.due)
                wait = tasks[0].due - monotonic() if tasks else _IDLE_SECONDS
                if wait > 0:
                    if not bell.acquire(True, min(wait, TIMEOUT_MAX)) and not tasks and not self._added:
                        return
                    continue
                _run_first(tasks)
        finally:
            self._added.extendleft(tasks)
            working.clear()
            if self._added and working is self._working:
                self.wake()


def _run_first(tasks: list[Timed]) -> None:
    # In a call of its own: a thread that is idle must not keep the last task, and with it a cache that is gone.
    task = tasks.pop(0)
    try:
        again = task.run()
    except Exception:
        logger.exception("a background task of memover failed")
        return
    if again is not None:
        task.due = monotonic() + again
        tasks.append(task)


_backgrounds: Living[Background] = Living()
_by_address: dict[str, ref[Background]] = {}


def background_of(address: str) -> Background:
    """That of all caches whose store is at this address: a store that does not answer holds up no other store's tasks."""
    known = _by_address.get(address)
    background = None if known is None else known()
    if background is None:
        background = Background()
        # Two threads may make one each, or the callback may remove the wrong one: then there are two for an address.
        _by_address[address] = ref(background, partial(_by_address.pop, address))
    return background


def backgrounds_after_fork() -> None:
    """`Background.after_fork` for all there are."""
    for background in _backgrounds:
        background.after_fork()


def _there(thread: FramePresence | None) -> bool:
    """Whether a thread runs (None), or is being started by a call that has not been interrupted."""
    return thread is None or thread.present()


class RefreshPool:
    """Refreshes behind their callers: at most `workers` run at a time in threads, and as many again wait for their turn.

    Refreshes of `async def` functions are tasks and count too. What finds no room is not queued: the caller loads."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.after_fork()
        _pools.add(self)

    def after_fork(self) -> None:
        """In a child: none of the parent's threads and tasks is here."""
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads: dict[object, FramePresence | None] = {}
        self._running: dict[object, None] = {}
        self._tasks: dict[AsyncioTask[Any], None] = {}

    def __len__(self) -> int:
        """How many refreshes run or wait."""
        return len(self._waiting) + len(self._running) + len(self._tasks)

    def tasks(self) -> list[AsyncioTask[Any]]:
        """The refreshes that are tasks of event loops."""
        return list(self._tasks)

    def room(self) -> bool:
        """Whether one more refresh may begin."""
        self.sweep()
        return len(self) < 2 * self.workers

    def sweep(self) -> None:
        """Lets go of the tasks of closed loops, which will never end."""
        for task in list(self._tasks):
            if stranded(task):
                self._tasks.pop(task, None)

    def keep(self, task: AsyncioTask[Any]) -> None:
        """Counts a task, and holds on to it, until it is done."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def submit(self, run: Callable[[], None]) -> bool:
        """Has `run` called in a thread of the pool; False when there is no room."""
        if not self.room():
            return False
        self._waiting.append(run)
        for thread, starting in self._threads.copy().items():
            if not _there(starting):
                self._threads.pop(thread, None)
        if len(self._threads) < self.workers:
            thread = object()
            self._threads[thread] = FramePresence()
            try:
                start_new_thread(self._serve, (thread, self._threads, self._waiting, self._running))
            except RuntimeError as error:
                self._threads.pop(thread, None)
                if raised_by_handler(error):
                    raise
                if not self._threads:
                    try:
                        self._waiting.remove(run)
                    except ValueError:
                        return True  # a thread that has ended since took it
                    return False
        return True

    @staticmethod
    def _serve(
        thread: object,
        threads: dict[object, FramePresence | None],
        waiting: deque[Callable[[], None]],
        running: dict[object, None],
    ) -> None:
        threads[thread] = None
        while True:
            running[thread] = None
            try:
                run = waiting.popleft()
            except IndexError:
                threads.pop(thread, None)
                running.pop(thread, None)
                if not waiting:
                    return
                threads[thread] = None  # something came between the lines above
                continue
            try:
                run()
            except Exception:
                logger.exception("a refresh of memover failed")
            running.pop(thread, None)

    def drain(self, seconds: float | None = None) -> bool:
        """Waits until what runs in threads or waits for one has ended; whether it has, within `seconds`."""
        end = None if seconds is None else monotonic() + seconds
        while self._waiting or self._running:
            if end is not None and monotonic() >= end:
                return False
            time.sleep(0.002)
        return True


_pools: Living[RefreshPool] = Living()


def sweep_pools() -> None:
    """`RefreshPool.sweep` for all there are."""
    for pool in list(_pools):
        pool.sweep()


def drain_pools(seconds: float) -> None:
    """`RefreshPool.drain` for all there are, within `seconds` together."""
    end = monotonic() + seconds
    for pool in list(_pools):
        pool.drain(max(end - monotonic(), 0.0))
