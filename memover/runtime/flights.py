"""Loads of this process that several callers share (single-flight).

A `Flight` is found by a lease token: a caller that learned from the store that the token holds the lease may take its
outcome. Without the store there are no leases: `UnleasedLoads` shares by entry, and a caller takes only a load that began
after the caller did, so that even then no caller gets what an invalidation has overtaken; one such load runs at a time.

Both serve threads and event loops alike: waiting is by callback. There are no locks; each step is one operation of a
dict, a deque or an attribute, so an exception from outside leaves nothing locked.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.engine.answers import Outcome
    from memover.latch import Present

__all__ = ["Flight", "Flights", "UnleasedLoads", "arrive"]


class Flight:
    """A load under way. It ends with an outcome, or with None, which sends its followers to look again.

    `presence` says whether its owner is still at work; `abandon` is called when the last of its callers has left.
    `followers` are what wakes the others who want its outcome, in the order in which they came; `waits_for` are the flights
    that this load waits for in turn, by what waits. Most loads have none of either: each is a dictionary of its own from the
    first on, made by one operation."""

    ended = False
    owned = True
    """Whether its owner has not left."""
    number = 0
    outcome: Outcome | None = None
    presence: Present | None = None
    abandon: Callable[[], None] | None = None
    followers: Mapping[Callable[[], None], None] = {}
    waits_for: Mapping[int, Flight] = {}

    @property
    def callers(self) -> int:
        """How many callers want its outcome."""
        return self.owned + len(self.followers)

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
        vars(self).setdefault("followers", {})[wake] = None
        # It may have ended between the two lines above; then `wake` was called, or never will be.
        return not self.ended

    def leave(self, wake: Callable[[], None] | None = None) -> None:
        """One caller less (None: its owner). The last follower of a load whose owner has left calls `abandon`."""
        if wake is None:
            self.owned = False
            return
        vars(self)["followers"].pop(wake, None)
        abandon = self.abandon
        if not self.callers and not self.ended and abandon is not None:
            abandon()

    def end(self, outcome: Outcome | None) -> None:
        """Gives the outcome to every caller. The first call counts."""
        if not self.ended:
            self.outcome = outcome
            self.ended = True
        self.presence = self.abandon = None  # they refer to an event loop
        while self.followers:
            followers: dict[Callable[[], None], None] = vars(self)["followers"]
            for wake in list(followers):
                if followers.pop(wake, self) is None:  # by whoever else ends it, otherwise
                    wake()

    def begin_wait(self, waiting: object, flight: Flight) -> None:
        """From now on this load waits for another; `waiting` is what waits."""
        vars(self).setdefault("waits_for", {})[id(waiting)] = flight

    def end_wait(self, waiting: object) -> None:
        """It waits for that no more."""
        vars(self).get("waits_for", {}).pop(id(waiting), None)

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


class Flights(dict[str, Flight]):
    """The flights of one cache by lease token. `share(token, flight)` makes a flight known under a token, and returns the one
    that was first under it."""

    __slots__ = ()
    share = dict.setdefault

    def close(self, token: str, flight: Flight) -> None:
        """Forgets a token, if it is this flight's."""
        if self.get(token) is flight:
            self.pop(token, None)


arrive: Callable[[], int] = partial(next, itertools.count(1))
"""The number of a caller in this process: loads without a lease that begin from now on have a greater one."""


class UnleasedLoads:
    """The loads of one cache that run without a lease, by entry: at most one at a time."""

    def __init__(self) -> None:
        self._running: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, entry: bytes, flight: Flight) -> Flight:
        """`flight` itself when its owner is to load, else the one under way."""
        running = self._running.setdefault(entry, flight)
        if running is not flight and (running.ended or not running.present()):
            self._running[entry] = running = flight  # its owner was interrupted and will not end it
        if running is flight:
            flight.number = arrive()
        return running

    def end(self, entry: bytes, flight: Flight) -> None:
        """The load of `flight` is over."""
        if self._running.get(entry) is flight:
            self._running.pop(entry, None)
