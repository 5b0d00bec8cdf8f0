"""Holds calls back from a store that does not answer, so that an outage costs one budget now and then, not one a call.

    closed ──failure──▶ open ──after a while──▶ one call is let through ──answer──▶ closed
                          ▲                                 │
                          └───────── no answer ◀────────────┘   (and the while doubles, up to a bound)

The call that is let through is an ordinary one: it reads generations with its entry, so nothing is trusted that was
not read after the outage. Invalidations are never held back. One line is logged when it opens, one when it closes.
"""

from __future__ import annotations

import logging
import random

from memover.clocks import monotonic
from memover.errors import StoreError, StoreUnavailable
from memover.latch import Latch

__all__ = ["Breaker"]

logger = logging.getLogger("memover")

_random = random.Random()
"""For pauses. Its own, because background threads draw from it and the program's may be seeded."""


class Breaker:
    """One for each server and store, for threads and event loops; `tripped` is all that a call looks at while it is closed."""

    def __init__(self, address: str, *, first_seconds: float, last_seconds: float) -> None:
        self.address = address
        self.tripped = False
        self._first = first_seconds
        self._last = last_seconds
        self._open_for = first_seconds
        self._until = 0.0
        self._cause: StoreError | None = None
        self._probing = False
        self._latch = Latch()

    def check(self) -> None:
        """Passes, as the one call that tries again, or raises `StoreUnavailable`. To be called only when tripped."""
        with self._latch:
            if not self.tripped:
                return
            now = monotonic()
            if now >= self._until:
                self._until = now + self._open_for  # the next try, should this one be interrupted
                self._probing = True
                return
        raise StoreUnavailable(
            f"{self.address} did not answer lately and is left alone for a moment: {self._cause}", store=self.address
        )

    def failed(self, error: StoreError) -> None:
        """Opens, or stays open for longer if it was the probe that failed: the many calls that were under way when the
        store fell silent, and invalidations, which pass at any time, fail together and say nothing new."""
        with self._latch:
            first = not self.tripped
            self._cause = error
            if first or self._probing:
                self.tripped = True
                self._probing = False
                self._open_for = self._first if first else min(self._open_for * 2, self._last)
                self._until = monotonic() + self._open_for * (0.75 + _random.random() / 4)
        if first:
            logger.warning(
                "%s does not answer (%s): functions run uncached, and invalidations fail, until it does",
                self.address,
                error,
            )

    def answered(self) -> None:
        """Closes. To be called only when tripped."""
        with self._latch:
            if not self.tripped:
                return
            self.tripped = self._probing = False
        logger.warning("%s answers again", self.address)
