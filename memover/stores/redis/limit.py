"""A time limit for a coroutine that does not blame the store for a loop that was held up.

`asyncio.timeout` cancels in the very turn of the loop in which an answer may have come in, and when one turn took longer
than the whole limit (thousands of tasks, or something that blocks) it cancels what never had a chance. Here the end
comes in two steps: a little before the limit the loop's lateness is looked at, and whoever waits is given the
rest of the limit, as much again as the loop was late (at most the limit), and in any case one more turn for what has come in.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Limit"]

_FIRST_STEP = 0.9
"""The share of the limit after which the loop's lateness is looked at."""


class Limit:
    """`with Limit(seconds): await ...` raises `asyncio.TimeoutError` when the time is up; for use inside a task."""

    __slots__ = ("_cancelling", "_due", "_expired", "_handle", "_loop", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a limit is for tasks"
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._expired = False
        if sys.version_info >= (3, 11):
            self._cancelling = task.cancelling()
        self._due = self._loop.time() + self._seconds * _FIRST_STEP
        self._handle = self._loop.call_at(self._due, self._first)

    def _first(self) -> None:
        late = self._loop.time() - self._due
        rest = self._seconds * (1 - _FIRST_STEP) + min(late, self._seconds)
        self._handle = self._loop.call_later(rest, self._last)

    def _last(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if not self._expired:
            return
        # Another's cancellation that came with ours goes on (Python 3.11; before, nobody can tell the two apart).
        if sys.version_info >= (3, 11) and self._task.uncancel() > self._cancelling:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise asyncio.TimeoutError from error
