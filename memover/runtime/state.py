"""What the functions of one cache share: the store, what is known of its tokens, loads under way, pending invalidations."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from memover.clocks import monotonic
from memover.engine.tokens import Witness
from memover.errors import StoreError
from memover.keys.names import coarse_key
from memover.keys.shards import with_shards
from memover.later import later, under_way
from memover.living import Living
from memover.runtime import tasks
from memover.runtime.audit.slots import Slots
from memover.runtime.background import EXIT_SECONDS, RefreshPool, background_of, backgrounds_after_fork, drain_pools
from memover.runtime.flights import Flights, UnleasedLoads
from memover.runtime.renewal import Leases
from memover.runtime.run import run
from memover.stores.near import Tier, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.engine.steps import Flow
    from memover.engine.store import Store
    from memover.runtime import heart as hearts
    from memover.runtime.function import Function
    from memover.runtime.heart import Heart
    from memover.runtime.observers import Observers
    from memover.runtime.report import Reporter
else:
    hearts = later(__name__, "memover.runtime.heart", "hearts")

__all__ = ["VERSIONS_LIMIT", "CacheState", "all_states"]

logger = logging.getLogger("memover")

VERSIONS_LIMIT = 256
REPEAT_FIRST_SECONDS = 0.1
REPEAT_LAST_SECONDS = 2.0
_FAILURES_A_ROUND = 3
"""Each may take a whole budget of the background thread's time, or of `close()`."""


class CacheState:
    """The parts of one cache. It is the `engine.invalidate.Ledger` of its invalidations."""

    def __init__(
        self,
        *,
        prefix: str,
        default_ttl: float,
        wait_timeout: float,
        lease_ttl: float,
        observers: Observers,
        store: Store,
        max_entries: int,
        max_entry_bytes: int,
        compress_from_bytes: int,
        expanded_bytes_limit: int,
        on_unencodable: Literal["raise", "return"],
        background_workers: int,
        near_max_entries: int,
        near_max_bytes: int,
    ) -> None:
        self.prefix = prefix
        self.default_ttl = default_ttl
        self.wait_timeout = wait_timeout
        self.lease_ttl = lease_ttl
        self.observers = observers
        self.store = store
        self.memory: Any = store if store.local else None
        self.longest_bytes: int | None = getattr(store, "longest_bytes", None)
        """The longest entry that the store takes, None where it does not say."""
        self.coarse_name = coarse_key(prefix).encode()
        self.max_entries = max_entries
        self.max_entry_bytes = max_entry_bytes
        self.compress_from_bytes = compress_from_bytes
        self.expanded_bytes_limit = expanded_bytes_limit
        self.on_unencodable = on_unencodable
        self.witness = Witness()
        self.background = background_of("" if store.local else store.address)
        self.refreshes = RefreshPool(background_workers)
        self.audits = Slots()
        self.flights = Flights()
        self.unleased = UnleasedLoads()
        self.leases = Leases(store, self.background, lambda task: tasks.keep(task, self))
        self.functions: Living[Function] = Living()
        self.versions_limit = VERSIONS_LIMIT
        """How many schema versions the witness holds at most before those of functions that are gone are looked for."""
        self.near_max_entries = near_max_entries
        self.near_max_bytes = near_max_bytes
        self.heart: Heart | None = None
        """The near cache's, if a function asked for one."""
        self.reporter: Reporter | None = None
        self._repeating = False
        self._rounds = 0
        _states.add(self)

    @property
    def home(self) -> tuple[str, str]:
        """Where its entries are: equal for two caches that share them, whatever their addresses are called."""
        identity = getattr(self.store, "identity", None)
        return (identity() if identity is not None else None) or self.store.address, self.prefix

    def near(self, staleness: float) -> Tier:
        """The tier of this cache, for one more function. Raises `ConfigurationError` where its store can have none."""
        if self.heart is None:
            self.heart = hearts.heart_of(self)
        self.heart.staleness = min(self.heart.staleness, staleness)
        return self.heart.tier

    def is_at(self, other: object) -> bool:
        """Whether the entries of another cache, given by its state, are where its own are."""
        return other is self or (isinstance(other, CacheState) and other.home == self.home)

    def may_be_at(self, other: object) -> bool:
        """As `is_at`, or whether that may turn out once its server has said what it is."""
        if self.is_at(other):
            return True
        own = self.home
        return isinstance(other, CacheState) and other.home[1] == own[1] and own[0] == self.store.address

    # -- invalidations the store has not acknowledged ---------------------------------------------------------------------

    def owing(self, names: Sequence[bytes]) -> dict[bytes, Callable[[], Flow[object]]]:
        """What is owed of these names now, for `settled`."""
        owed = self.witness.owed
        return {name: owed[name] for name in names if name in owed} if owed else {}

    def owe(self, name: bytes, repeat: Callable[[], Flow[object]]) -> None:
        """Treats a name as invalid in this process, and repeats its invalidation until the store acknowledges it."""
        self.witness.owed[name] = repeat
        if self.heart is not None:
            self.heart.tier.moved(())  # of what stood so far, each hit now asks whether anything is owed
        if not self._repeating or not self.background.running:
            delay = REPEAT_FIRST_SECONDS

            def attempt() -> float | None:
                nonlocal delay
                try:
                    settled = self.settle()
                except Exception:
                    # What is owed stays owed, whatever happened (P8).
                    logger.exception("memover could not repeat the invalidations that it owes, and tries again")
                    settled = False
                if not settled:
                    delay = min(delay * 2, REPEAT_LAST_SECONDS)
                    return delay
                self._repeating = False
                # One that came in between the last look and the line above found the task still running.
                if self.witness.owed:
                    self._repeating = True
                    return REPEAT_FIRST_SECONDS
                return None

            try:
                self._repeating = True
                self.background.later(delay, attempt)
            except BaseException:
                self._repeating = False  # interrupted: the next one sees to it
                raise

    def settled(self, before: dict[bytes, Callable[[], Flow[object]]]) -> None:
        """The store has taken an invalidation that began when `before` was owed; what failed after that remains pending."""
        owed = self.witness.owed
        for name, repeat in before.items():
            if owed.get(name) is repeat:
                owed.pop(name, None)

    def settle(self) -> bool:
        """Repeats what is owed, once each; whether nothing is left."""
        owed = self.witness.owed
        failed = 0
        waiting = list(owed.copy().items())
        # Not always the same first: where keys live on several nodes, only theirs may be down.
        self._rounds += 1
        start = self._rounds * _FAILURES_A_ROUND % max(len(waiting), 1)
        for name, repeat in waiting[start:] + waiting[:start]:
            try:
                run(repeat())
            except StoreError:
                failed += 1
                if failed == _FAILURES_A_ROUND:
                    break
                continue
            if owed.get(name) is repeat:
                moved(
                    (*with_shards((name,), self.store.generation_shards), self.coarse_name)
                )  # what came near while it was owed
                owed.pop(name, None)
            logger.warning("the invalidation of %s, which failed before, has been acknowledged", name.decode())
        return not owed

    def after_fork(self) -> None:
        """In a child: connections, threads and loads under way are the parent's; what is owed is owed by both."""
        self.flights = Flights()
        self.unleased = UnleasedLoads()
        self.leases.after_fork()
        self.refreshes.after_fork()
        self.audits.after_fork()
        for function in list(self.functions):
            function.after_fork()
        if self.heart is not None:
            self.heart.after_fork()
        self.store.after_fork()
        if self.reporter is not None:
            self.reporter.after_fork()
        self._repeating = False
        owed, self.witness.owed = dict(self.witness.owed), {}
        for name, repeat in owed.items():
            self.owe(name, repeat)


_states: Living[CacheState] = Living()


def _before_fork() -> None:
    # A child that inherits the lock of a module which another thread was importing would wait for it for ever; some of
    # ours are imported at the first load. To import what is being imported is to wait until it is there.
    for name in [*(name for name in list(sys.modules) if name.startswith("memover.")), *under_way()]:
        importlib.import_module(name)


def _after_fork_in_child() -> None:
    backgrounds_after_fork()
    for state in list(_states):
        state.after_fork()


@atexit.register
def _at_exit() -> None:
    """Refreshes under way have a moment to end, and then leases to be given back: with whatever still runs they would stay.
    Then idle connections are closed. Whoever calls after that opens one."""
    end = monotonic() + EXIT_SECONDS
    drain_pools(EXIT_SECONDS)
    states = all_states()
    for state in states:
        state.leases.give_back()  # all at once: one store may not answer
    for state in states:
        state.leases.drain(max(end - monotonic(), 0.2))
    for state in states:
        state.store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


def all_states() -> list[CacheState]:
    """The state of every cache of this process."""
    return list(_states)
