"""What the functions of one cache share: the store, what is known of its generations, loads under way, the keeper."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import weakref
from typing import TYPE_CHECKING, Literal

from memover.drivers.background import Background
from memover.drivers.flights import Flights, Trains
from memover.drivers.keeper import Keeper
from memover.engine.tokens import Witness
from memover.errors import StoreError
from memover.keys.names import coarse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.drivers.plan import Plan
    from memover.drivers.watch import Watch
    from memover.engine.store import AsyncStore, Store
    from memover.stores.memory import MemoryStore

__all__ = ["KEEPER", "Shared", "everyone"]

logger = logging.getLogger("memover")

KEEPER = Keeper()
REPEAT_FIRST_SECONDS = 0.1
REPEAT_LAST_SECONDS = 2.0
_FAILURES_A_ROUND = 3
"""Each may take a whole budget of the keeper's time, or of `close()`."""


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
        background_workers: int,
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
        self.home = (store.address, prefix)
        self.coarse_name = coarse_key(prefix).encode()
        self.background = Background(background_workers)
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
        self._rounds = 0
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

    def bump(self, names: Sequence[bytes], nonce: str) -> list[bytes]:
        """Move tokens in the caller's thread, and remember what they are now."""
        floors = [self.witness.floor(name) for name in names]
        tokens = self.store.bump(names, nonce, floors, (self.coarse_name,))
        self.witness.trusts(names, tokens)
        return tokens

    def owing(self, names: Sequence[bytes]) -> dict[bytes, Callable[[], object]]:
        """What is owed of these names now, for `settled`."""
        owed = self.witness.owed
        return {name: owed[name] for name in names if name in owed} if owed else {}

    def settled(self, before: dict[bytes, Callable[[], object]]) -> None:
        """The store has taken an invalidation that began when `before` was owed: what has come since is owed still."""
        owed = self.witness.owed
        for name, repeat in before.items():
            if owed.get(name) is repeat:
                owed.pop(name, None)

    def settle(self) -> bool:
        """Repeat what is owed, once each; whether nothing is left."""
        owed = self.witness.owed
        failed = 0
        waiting = list(owed.items())
        # Not always the same first: where keys live on several nodes, only theirs may be down.
        self._rounds += 1
        start = self._rounds * _FAILURES_A_ROUND % max(len(waiting), 1)
        for name, repeat in waiting[start:] + waiting[:start]:
            try:
                repeat()
            except StoreError:
                failed += 1
                if failed == _FAILURES_A_ROUND:
                    break
                continue
            if owed.get(name) is repeat:
                owed.pop(name, None)
            logger.warning("the invalidation of %s, which failed before, has been acknowledged", name.decode())
        return not owed

    # -- fork ---------------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a child: connections, threads and loads under way are the parent's; what is owed is owed by both."""
        self.flights = Flights()
        self.trains = Trains()
        self.background.after_fork()
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


def _before_fork() -> None:
    # A child that inherits the lock of a module which another thread was importing would wait for it for ever; some of
    # ours are imported at the first load. To import what is being imported is to wait until it is there.
    for name in [name for name in list(sys.modules) if name.startswith("memover.")]:
        importlib.import_module(name)


def _after_fork_in_child() -> None:
    KEEPER.after_fork()
    for shared in list(_everyone):
        shared.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


def everyone() -> list[Shared]:
    """The shared parts of every cache of this process."""
    return list(_everyone)
