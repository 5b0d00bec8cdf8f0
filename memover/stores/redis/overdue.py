"""How long the server may take for what was written on a connection of an event loop.

One budget after it was written, and more for what was answered or moved since: see `limits.FLOOR_BYTES`. And more once for
a loop that was held up, because its server's time was held up with it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from memover.stores.redis.limits import FLOOR_BYTES, FLOOR_COMMANDS

__all__ = ["Turn", "Overdue"]

_LATENESS = 0.2
"""From which share of the budget a timer is late, so that the loop must have been held up."""


class Turn(NamedTuple):
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
        self._turns: deque[Turn] = deque()
        self._spared = 0
        self._extra = 0.0

    @property
    def first(self) -> Turn | None:
        """The first of what had not been answered when `due` was last asked."""
        return self._turns[0] if self._turns else None

    def written(self, turn: Turn) -> None:
        """The commands of one turn are being written."""
        self._turns.append(turn)

    def clear(self) -> None:
        """Nothing is in flight any more."""
        self._turns.clear()

    def due(self, done: int, answered: int, received: int) -> float:
        """When the first of what is in flight is overdue, 0.0 if nothing is: `done` of all that was written is over, and so many
        answers and bytes have been received."""
        turns = self._turns
        while turns and turns[0].last <= done:
            turns.popleft()
        if not turns:
            return 0.0
        first = turns[0]
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
