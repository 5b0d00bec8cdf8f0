"""What the functions of one cache share: the store, what is known of its generations, loads under way, the keeper."""

from __future__ import annotations

import logging
import os
import weakref
from typing import TYPE_CHECKING, Any, Literal

from memover.drivers.flights import Flights, Trains
from memover.drivers.keeper import Keeper
from memover.engine.generations import Witness
from memover.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.drivers.plan import Plan
    from memover.drivers.watch import Watch
    from memover.stores.base import AsyncStore, Store
    from memover.stores.memory import MemoryStore

__all__ = ["KEEPER", "Shared", "everyone"]

logger = logging.getLogger("memover")

KEEPER = Keeper()
REPEAT_FIRST_SECONDS = 0.1
REPEAT_LAST_SECONDS = 2.0


class Shared:
    """The parts of one cache. `memory` is the store itself when it is this process's memory, else None."""

    def __init__(
        self,
        *,
        prefix: str,
        default_ttl: float,
        wait_timeout: float,
        lease_ttl: float,
        watch: Watch,
        store: Store,
        async_store: AsyncStore | None,
        memory: MemoryStore | None,
        max_entries: int,
        compress_from_bytes: int,
        expanded_bytes_limit: int,
        on_unencodable: Literal["raise", "return"],
    ) -> None:
        self.prefix = prefix
        self.default_ttl = default_ttl
        self.wait_timeout = wait_timeout
        self.lease_ttl = lease_ttl
        self.watch = watch
        self.store = store
        self.async_store = async_store
        self.memory = memory
        self.remote = memory is None
        self.max_entries = max_entries
        self.compress_from_bytes = compress_from_bytes
        self.expanded_bytes_limit = expanded_bytes_limit
        self.on_unencodable = on_unencodable
        self.witness = Witness()
        self.keeper = KEEPER
        self.flights = Flights()
        self.trains = Trains()
        self.plans: weakref.WeakSet[Plan] = weakref.WeakSet()
        self._repeating = False
        _everyone.add(self)

    # -- invalidations the store has not acknowledged ---------------------------------------------------------------------

    def owe(self, name: bytes, repeat: Callable[[], object]) -> None:
        """Close a name in this process, and repeat its invalidation until the store has taken it."""
        self.witness.owed[name] = repeat
        if not self._repeating:
            self._repeating = True
            delay = REPEAT_FIRST_SECONDS

            def attempt() -> float | None:
                nonlocal delay
                if not self.settle():
                    delay = min(delay * 2, REPEAT_LAST_SECONDS)
                    return delay
                self._repeating = False
                # One that came in between the last look and the line above found the task still running.
                if self.witness.owed:
                    self._repeating = True
                    return REPEAT_FIRST_SECONDS
                return None

            self.keeper.later(delay, attempt)

    def settled(self, name: bytes) -> None:
        """The store has taken a later invalidation of the same name."""
        self.witness.owed.pop(name, None)

    def settle(self) -> bool:
        """Repeat what is owed, once each; whether nothing is left."""
        owed = self.witness.owed
        for name, repeat in list(owed.items()):
            try:
                repeat()
            except StoreError:
                return False
            if owed.get(name) is repeat:
                del owed[name]
            logger.warning("the invalidation of %s, which failed before, has been acknowledged", name.decode())
        return not owed

    # -- fork ---------------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a child: connections, threads and loads under way are the parent's; what is owed is owed by both."""
        self.flights = Flights()
        self.trains = Trains()
        for plan in list(self.plans):
            plan.after_fork()
        for store in (self.store, self.async_store):
            reset = getattr(store, "after_fork", None)
            if reset is not None:
                reset()
        self._repeating = False
        owed, self.witness.owed = dict(self.witness.owed), {}
        for name, repeat in owed.items():
            self.owe(name, repeat)


_everyone: weakref.WeakSet[Shared] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    KEEPER.after_fork()
    for shared in list(_everyone):
        shared.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def everyone() -> list[Shared]:
    """The shared parts of every cache of this process."""
    return list(_everyone)
