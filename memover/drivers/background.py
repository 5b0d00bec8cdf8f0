"""Refreshes that run behind their callers, bounded: a pool of threads for `def` functions, tasks for `async def`.

What finds no room is not queued without end: the caller is told and loads itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Background"]


class Background:
    """At most `workers` refreshes run at a time in a process, and as many again wait for their turn."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.after_fork()

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Future[None]] = set()
        self._reserved = 0

    def enter(self) -> bool:
        """Reserve a place for a task that the caller runs itself; False when there is none."""
        with self._lock:
            if self._reserved + len(self._pending) >= 2 * self.workers:
                return False
            self._reserved += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._reserved -= 1

    def submit(self, run: Callable[[], None]) -> bool:
        """Have `run` called in a thread of the pool; False when there is no room, or the interpreter is going."""
        with self._lock:
            if self._reserved + len(self._pending) >= 2 * self.workers:
                return False
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="memover-refresh")
            try:
                future: Future[None] = self._pool.submit(run)
            except RuntimeError:
                return False
            self._pending.add(future)
        future.add_done_callback(self._done)
        return True

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._pending.discard(future)

    def drain(self) -> None:
        """Wait for what has begun or waits, and let the threads go."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
