"""Mutual exclusion that survives an exception from outside at any moment (promise P17).

A signal handler, a job's time limit or `PyThreadState_SetAsyncExc` may raise between any two bytecodes, also between the
acquisition of a lock and the `try` that would release it, and inside `threading.Condition`'s own Python code. A lock that
is left held that way hangs every later caller. What is here records who holds it in the same atomic step, so that the
next caller sees that the holder has gone and takes over.
"""

from __future__ import annotations

import os
import sys
import time
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any, Protocol

    class Present(Protocol):
        """What knows whether its owner is still at work."""

        def present(self) -> bool: ...

        def beneath(self, other: Present | None) -> bool: ...


__all__ = ["FramePresence", "Latch", "TaskPresence", "inside_section", "section"]


class FramePresence:
    """Whether a function call is still running, in whatever thread or greenlet it runs.

    `depth` counts from the caller: 0 is the function that constructs this object. `present` may be asked by any thread.
    It keeps the frame, and so its local variables, alive until `forget` or its own end."""

    __slots__ = ("_frame", "thread")

    def __init__(self, depth: int = 0) -> None:
        self._frame: FrameType | None = sys._getframe(depth + 1)
        self.thread = get_ident()

    def present(self) -> bool:
        """Whether the call has neither returned nor been left by an exception."""
        frame = self._frame
        if frame is None:
            return False
        try:
            frame.clear()  # refuses while the frame is being executed; afterwards there is nothing left in it to lose
        except RuntimeError as error:
            if raised_beneath(error):
                raise
            return True
        self._frame = None
        return False

    def beneath(self, other: Present | None) -> bool:
        """Whether the other call runs on top of this one: it interrupted it (a signal handler, a finalizer), so this one
        cannot go on before the other has returned."""
        frame = other._frame if isinstance(other, FramePresence) and other.thread == self.thread else None
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def forget(self) -> None:
        """The work is over: from now on `present` is False."""
        self._frame = None


class TaskPresence:
    """Whether an asyncio task can still go on: it is not done, and its loop is not closed."""

    __slots__ = ("_loop", "_task")

    def __init__(self, task: Task[Any], loop: AbstractEventLoop) -> None:
        self._task: Task[Any] | None = task
        self._loop = loop

    @classmethod
    def of_current(cls) -> TaskPresence:
        """That of the running task."""
        import asyncio  # a program that awaits has it

        task = asyncio.current_task()
        assert task is not None, "nothing is awaited outside a task"
        return cls(task, asyncio.get_running_loop())

    def present(self) -> bool:
        """Whether the task has not ended and its event loop may still run it."""
        task = self._task
        return task is not None and not task.done() and not self._loop.is_closed()

    def beneath(self, other: Present | None) -> bool:
        """False: a task that waits is not on a stack."""
        return False

    def forget(self) -> None:
        """The work is over: from now on `present` is False."""
        self._task = None


F = TypeVar("F", bound="Callable[..., object]")

_SPINS = 50
_PAUSE_SECONDS = 0.0005


_process = object()
"""Stands for this process: what was held when it was forked is not held in the child, where the holder's thread is not."""


def _after_fork_in_child() -> None:
    global _process  # noqa: PLW0603  # there is one
    _process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _Holding(FramePresence):
    """One acquisition. `successor` holds under 0 whoever comes next: `dict.setdefault` is the atomic step."""

    __slots__ = ("process", "successor")

    process: object
    successor: dict[int, _Holding]


_sections: set[CodeType] = set()


def section(function: F) -> F:
    """Marks a function that holds what other threads wait for."""
    _sections.add(function.__code__)
    return function


def inside_section() -> bool:
    """Whether the caller interrupted a section of its own thread, one under a latch or a marked one. Other threads may then wait
    for that section, so the caller must not wait for them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _sections:
            return True
        frame = frame.f_back
    return False


class Latch:
    """A re-entrant lock for `with`, held for microseconds and never across anything that waits.

    Acquisitions form a chain, as in a CLH queue lock (Craig; Landin and Hagersten, 1993-94): the holder is the first one
    whose function call is still running, and to release is to forget that call. There is no moment at which the lock is
    taken and its holder unknown.

    * A holder that was left without `__exit__` holds nothing: its call is over, so the next caller takes over. So it is in a
      forked child, whoever held it in the parent.
    * A nested `with` of the same thread (a signal handler or a finalizer that runs inside the section) is let through.
      `entries` grows with every nested entry, so that a section can tell that another one ran in its middle.

    At most one `with` on the same latch in one function call.
    """

    __slots__ = ("_last", "entries")

    def __init__(self) -> None:
        self._last = _Holding()
        self._last.forget()
        self._last.process, self._last.successor = None, {}
        self.entries = 0

    def __enter__(self) -> None:
        mine = _Holding(1)
        mine.process, mine.successor = _process, {}
        _sections.add(sys._getframe(1).f_code)
        holder = self._last
        spins = 0
        while True:
            if holder.process is not _process or not holder.present():
                holder = holder.successor.setdefault(0, mine)
                if holder is mine:
                    self._last = mine
                    return
            elif holder.thread == mine.thread:
                self.entries += 1
                return
            else:
                spins += 1
                time.sleep(0 if spins < _SPINS else _PAUSE_SECONDS)

    def __exit__(self, *_: object) -> None:
        frame = sys._getframe(1)
        holder: _Holding | None = self._last
        # `_last` may lag behind by a thread that was held up while it moved it; a nested entry finds no holding of its own.
        while holder is not None:
            if holder._frame is frame:
                holder._frame = None
                return
            holder = holder.successor.get(0)
