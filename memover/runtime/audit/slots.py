"""How many audits of a cache run at a time: what a cache keeps of them whether or not any function is audited."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from memover.loops import stranded

if TYPE_CHECKING:
    import asyncio

__all__ = ["Slot", "Slots"]

_SLOTS = 2


class Slot:
    """Room for one audit: taken for as long as the audit, or whatever will begin it, holds on to it."""

    __slots__ = ("__weakref__",)


class Slots:
    """How many audits of one cache run at a time; what finds no slot is not audited.

    No lock, so that an exception from outside (P17) leaves none held: each step is one operation of a dict, and a slot whose
    audit was cut short before it could give it back is found to be gone. Two audits that begin at the same moment may both find
    the last slot; then there is one more for a while.
    """

    def __init__(self, number: int = _SLOTS) -> None:
        self.number = number
        self.closed = 0
        """How often the cache was closed: an audit that began before that reads nothing more."""
        self.after_fork()

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._taken: dict[int, tuple[weakref.ref[Slot], asyncio.Task[None] | None]] = {}

    def __len__(self) -> int:
        self._sweep()
        return len(self._taken)

    def take(self, slot: Slot) -> bool:
        """Whether there is room; `slot` is then taken."""
        if len(self._taken) >= self.number and len(self) >= self.number:
            return False
        self._taken[id(slot)] = (weakref.ref(slot), None)
        return True

    def occupy(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """Has a slot that was taken keep the task that audits there, until it ends or its event loop is closed."""
        self._taken[id(slot)] = (weakref.ref(slot), task)
        task.add_done_callback(lambda _: self.leave(slot))

    def leave(self, slot: Slot) -> None:
        """Gives a slot back, if it is taken. May be repeated."""
        self._taken.pop(id(slot), None)

    def _sweep(self) -> None:
        for number, (slot, task) in self._taken.copy().items():
            if (task is not None and stranded(task)) or slot() is None:
                self._taken.pop(number, None)
