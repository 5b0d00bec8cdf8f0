"""Waiting for a lock that somebody else holds: in short random pauses, within the budget of the whole call."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

from memover.clocks import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pauses"]

_random = random.Random()
"""Its own, because background threads draw from it and the program's may be seeded."""

_YIELDS = 12
"""How often somebody else is let run before a pause: a writer has the lock for some tens of microseconds."""
_FIRST_SECONDS, _LAST_SECONDS = 0.0002, 0.004
_HURRY_SECONDS = 0.1
"""Who has no more time left than this asks as often as at first: the lock goes to whoever asks next, not to who has waited longest,
and where others have it most of the time a few questions may all miss it."""


class Pauses:
    """The pauses of one call, whose deadline is on `clocks.monotonic`."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._taken = 0
        self._seconds = _FIRST_SECONDS

    def another(self) -> bool:
        """Waits a moment; False if the time is over."""
        left = self._deadline - monotonic()
        if left <= 0:
            return False
        self._taken += 1
        if self._taken < _YIELDS:
            _yield()
        else:
            seconds = self._seconds if left > _HURRY_SECONDS else _FIRST_SECONDS
            time.sleep(min(left, seconds * (0.5 + _random.random())))
            self._seconds = min(self._seconds * 2, _LAST_SECONDS)
        return True


_yield: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))
