"""Loads of this process that several callers share.

`Flights` are loads known by a lease token: who was told that the token holds the lease may take its outcome.
`Trains` are loads without a lease, while the store cannot be asked: a caller takes only a load that began after
the caller did, so that even then nobody is handed what an invalidation has overtaken; one load runs at a time.

Both are process-wide, for threads and event loops alike: waiting is by callback.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memover.engine.ops import Outcome

__all__ = ["Flight", "Flights", "Trains"]


class Flight:
    """A load under way: `callers` counts who wants its outcome; landing with None sends its followers to look again."""

    __slots__ = ("_landed", "_lock", "_told", "abandon", "callers", "number", "outcome")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[Callable[[], None]] = []
        self._landed = False
        self.outcome: Outcome | None = None
        self.callers = 1
        self.number = 0
        self.abandon: Callable[[], None] | None = None

    @property
    def landed(self) -> bool:
        return self._landed

    def board(self, tell: Callable[[], None]) -> bool:
        """Have `tell` called on landing, by whichever thread lands it; False if it has landed already."""
        with self._lock:
            if self._landed:
                return False
            self.callers += 1
            self._told.append(tell)
            return True

    def leave(self, tell: Callable[[], None] | None = None) -> bool:
        """One caller less; True when nobody is left and it has not landed."""
        with self._lock:
            if tell is not None and tell in self._told:
                self._told.remove(tell)
            self.callers -= 1
            return self.callers <= 0 and not self._landed

    def land(self, outcome: Outcome | None) -> None:
        with self._lock:
            if self._landed:
                return
            self._landed = True
            self.outcome = outcome
            told, self._told = self._told, []
        for tell in told:
            tell()


class Flights:
    """The flights of one cache by lease token."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def open(self, token: str, flight: Flight) -> Flight:
        """Make `flight` known under a token; whoever was first under it is returned."""
        return self._flights.setdefault(token, flight)

    def find(self, token: str) -> Flight | None:
        return self._flights.get(token)

    def close(self, token: str, flight: Flight) -> None:
        if self._flights.get(token) is flight:
            del self._flights[token]


class Trains:
    """The storeless loads of one cache, by entry: at most one runs, and later callers take the next."""

    def __init__(self) -> None:
        self._running: dict[bytes, Flight] = {}
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def arrive(self) -> int:
        """A ticket: loads that depart from now on have a greater number."""
        return next(self._count)

    def depart(self, entry: bytes, flight: Flight) -> Flight:
        """`flight` itself when its owner is to drive, else the one under way."""
        with self._lock:
            running = self._running.setdefault(entry, flight)
            if running is flight:
                flight.number = next(self._count)
            return running

    def arrived(self, entry: bytes, flight: Flight, outcome: Outcome | None) -> None:
        """The load of `flight` is over; None when it was given up."""
        with self._lock:
            if self._running.get(entry) is flight:
                del self._running[entry]
        flight.land(outcome)
