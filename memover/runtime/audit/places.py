"""How many audits of a cache run at a time: what a cache keeps of them whether or not any function is audited."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["Place", "Places"]

_PLACES = 2


class Place:
    """Room for one audit: taken for as long as the audit, or whatever will begin it, holds on to it."""

    __slots__ = ("__weakref__",)


class Places:
    """How many audits of one cache run at a time; what finds no place is not audited.

    No lock, so that an exception from outside (P17) leaves none held: each step is one operation of a dict, and a place whose
    audit was cut short before it could give it back is found to be gone. Two audits that begin at the same moment may both find
    the last place; then there is one more for a while.
    """

    def __init__(self, number: int = _PLACES) -> None:
        self.number = number
        self.closed = 0
        """How often the cache was closed: an audit that began before that reads nothing more."""
        self.after_fork()

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._taken: dict[int, tuple[weakref.ref[Place], asyncio.Task[None] | None]] = {}

    def __len__(self) -> int:
        self._sweep()
        return len(self._taken)

    def take(self, place: Place) -> bool:
        """Whether there is room; `place` is then taken."""
        if len(self._taken) >= self.number and len(self) >= self.number:
            return False
        self._taken[id(place)] = (weakref.ref(place), None)
        return True

    def occupy(self, place: Place, task: asyncio.Task[None]) -> None:
        """Have a place that was taken keep the task that audits there, until it ends or its event loop is closed."""
        self._taken[id(place)] = (weakref.ref(place), task)
        task.add_done_callback(lambda _: self.leave(place))

    def leave(self, place: Place) -> None:
        """Give a place back, if it is taken. May be repeated."""
        self._taken.pop(id(place), None)

    def _sweep(self) -> None:
        for number, (place, task) in list(self._taken.items()):
            if task is not None and task.get_loop().is_closed():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody can run it to its end
                self._taken.pop(number, None)
            elif place() is None:
                self._taken.pop(number, None)
