"""How long the server may take for what was written on a connection of an event loop.

One budget after it was written, and more for what was answered or moved since: see `limits.FLOOR_BYTES`. And more once for
a loop that was held up, because its server's time was held up with it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from memover.stores.redis.limits import FLOOR_BYTES, FLOOR_COMMANDS

__all__ = ["Batch", "Overdue"]

_LATENESS = 0.2
"""From which share of the budget a timer is late, so that the loop must have been held up."""


class Batch(NamedTuple):
    """What was written in one turn, at the time `at`: `last` counts everything written so far. And the state of the
    connection then: how many answers and bytes had been received, and the `size` of what the kernel had still to send."""

    last: int
    at: float
    answered: int
    received: int
    size: int


class Overdue:
    """What was written on one connection, with the time at which the first of it is overdue; `budget` is in seconds."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._batches: deque[Batch] = deque()
        self._spared = 0
        self._extra = 0.0

    @property
    def first(self) -> Batch | None:
        """The first of what had not been answered when `due` was last asked."""
        return self._batches[0] if self._batches else None

    def written(self, batch: Batch) -> None:
        """The commands of one turn are being written."""
        self._batches.append(batch)

    def clear(self) -> None:
        """Nothing is in flight any more."""
        self._batches.clear()

    def due(self, done: int, answered: int, received: int) -> float:
        """When the first of what is in flight is overdue, 0.0 if nothing is: `done` of all that was written is over, and so many
        answers and bytes have been received."""
        batches = self._batches
        while batches and batches[0].last <= done:
            batches.popleft()
        if not batches:
            return 0.0
        first = batches[0]
        if self._spared != first.last:
            self._spared, self._extra = first.last, 0.0
        moved = (received - first.received + first.size) / FLOOR_BYTES
        return first.at + self._budget * (1 + moved + (answered - first.answered) / FLOOR_COMMANDS) + self._extra

    def spare(self, late: float) -> float:
        """How many seconds more the first may take when a timer comes so many seconds `late`: 0.0 unless the loop must have been
        held up, and the second time."""
        if self._extra or late < self._budget * _LATENESS:
            return 0.0
        self._extra = min(late, self._budget)
        return self._extra
