"""Loads of this process that several callers share (single-flight).

A `Flight` is found by a lease token: a caller that learned from the store that the token holds the lease may take its
outcome. Without the store there are no leases: `UnleasedLoads` shares by entry, and a caller takes only a load that began
after the caller did, so that even then no caller gets what an invalidation has overtaken; one such load runs at a time.

Both serve threads and event loops alike: waiting is by callback. There are no locks; each step is one operation of a
dict, a deque or an attribute, so an exception from outside leaves nothing locked.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.answers import Outcome
    from memover.latch import Present

__all__ = ["Flight", "Flights", "UnleasedLoads"]

_OWNER = object()
"""Stands for the owner among the callers of a flight. The flight itself would be a cycle, which only the collector breaks."""


class Flight:
    """A load under way. It ends with an outcome, or with None, which sends its followers to look again.

    `presence` says whether its owner is still at work; `abandon` is called when the last of its callers has left.
    `waits_for` are the flights that this load waits for in turn, by identity."""

    __slots__ = ("_callers", "_waking", "abandon", "ended", "number", "outcome", "presence", "waits_for")

    def __init__(self) -> None:
        self._callers: dict[object, None] = {_OWNER: None}
        self._waking: deque[Callable[[], None]] = deque()
        self.ended = False
        self.outcome: Outcome | None = None
        self.number = 0
        self.presence: Present | None = None
        self.abandon: Callable[[], None] | None = None
        self.waits_for: dict[int, Flight] = {}

    @property
    def callers(self) -> int:
        """How many callers want its outcome."""
        return len(self._callers)

    def present(self) -> bool:
        """Whether it has ended, or its owner can still end it."""
        presence = self.presence
        return self.ended or presence is None or presence.present()

    def beneath(self, caller: Present | None) -> bool:
        """Whether its owner was interrupted by the caller and cannot end it before the caller returns."""
        presence = self.presence
        return presence is not None and presence.beneath(caller)

    def join(self, wake: Callable[[], None]) -> bool:
        """Has `wake` called at the end, by whichever thread ends it; False if it has ended already."""
        if self.ended:
            return False
        self._callers[wake] = None
        self._waking.append(wake)
        # It may have ended between the two lines above; then `wake` was called, or never will be.
        return not self.ended

    def leave(self, wake: Callable[[], None] | None = None) -> None:
        """One caller less (None: its owner). The last follower of a load whose owner has left calls `abandon`."""
        self._callers.pop(_OWNER if wake is None else wake, None)
        abandon = self.abandon
        if wake is not None and not self._callers and not self.ended and abandon is not None:
            abandon()

    def end(self, outcome: Outcome | None) -> None:
        """Gives the outcome to every caller. The first call counts."""
        if not self.ended:
            self.outcome = outcome
            self.ended = True
        self.presence = self.abandon = None  # they refer to an event loop
        while self._waking:
            try:
                wake = self._waking.popleft()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                return
            wake()

    def leads_to(self, flights: set[int]) -> bool:
        """Whether this load waits, directly or through others, for one of these flights."""
        seen: set[int] = set()
        waiting: list[Flight] = [self]
        while waiting:
            flight = waiting.pop()
            if id(flight) in flights:
                return True
            if id(flight) not in seen:
                seen.add(id(flight))
                waiting.extend(list(flight.waits_for.values()))
        return False


class Flights:
    """The flights of one cache by lease token."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def share(self, token: str, flight: Flight) -> Flight:
        """Makes `flight` known under a token; returns the one that was first under it."""
        return self._flights.setdefault(token, flight)

    def close(self, token: str, flight: Flight) -> None:
        """Forgets a token, if it is this flight's."""
        if self._flights.get(token) is flight:
            self._flights.pop(token, None)


class UnleasedLoads:
    """The loads of one cache that run without a lease, by entry: at most one at a time."""

    def __init__(self) -> None:
        self._running: dict[bytes, Flight] = {}
        self._count = itertools.count(1)

    def __len__(self) -> int:
        return len(self._running)

    def arrive(self) -> int:
        """The number of a caller: loads that begin from now on have a greater one."""
        return next(self._count)

    def begin(self, entry: bytes, flight: Flight) -> Flight:
        """`flight` itself when its owner is to load, else the one under way."""
        running = self._running.setdefault(entry, flight)
        if running is not flight and (running.ended or not running.present()):
            self._running[entry] = running = flight  # its owner was interrupted and will not end it
        if running is flight:
            flight.number = next(self._count)
        return running

    def end(self, entry: bytes, flight: Flight) -> None:
        """The load of `flight` is over."""
        if self._running.get(entry) is flight:
            self._running.pop(entry, None)
