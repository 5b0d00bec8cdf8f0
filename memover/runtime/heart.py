"""The heartbeat of a near tier: one thread for each cache that has one, with a connection of its own.

A beat asks the store for one token, that which moves with every invalidation (`keys.names.coarse_key`). If it is the one
known, no token of the prefix has moved since the last beat, and the fence is raised to the moment at which this question
was sent. If not, every token in use is read anew, in one batch, after it; then the fence is raised. An invalidation moves
its own tokens first and this one last (`engine.store.Store.bump`, `drop`), and returns after that: so one that returned
before a beat was sent is seen by it, on one server and on a Cluster, whatever messages were lost.

The token is made to exist before anything is trusted; a lost one differs from the one known. A new connection knows none.

Pushes (what the server says has changed) only make it faster. While nobody looks into the tier, the thread sends at most one
command a second, whatever others do: it beats that often, drops what it hears of without asking, and leaves the tokens
unread when one has moved. So the fence may lapse; the first call goes to the store then and wakes the thread.

The thread does not keep its cache alive. It is started by the first call, and again after a fork or `close()`.
"""

from __future__ import annotations

import logging
import math
import socket
from _thread import start_new_thread
from typing import TYPE_CHECKING, Any
from weakref import ref

from memover.clocks import boottime
from memover.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable, raised_by_handler
from memover.keys.names import token_prefixes, transient
from memover.latch import FramePresence
from memover.model import Event
from memover.readable import readable
from memover.runtime.nonce import new_nonce
from memover.runtime.run import run
from memover.stores.near import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.tokens import Witness
    from memover.runtime.observers import Observers
    from memover.runtime.state import CacheState
    from memover.stores.feed import Feed

__all__ = ["Heart", "heart_of"]

logger = logging.getLogger("memover")

IDLE_SECONDS = 1.0
"""The least time for each command of a beat while nobody looks into the tier."""
KEEP_SECONDS = 10.0
"""How often the call tokens in use are prolonged; they live three times as long."""
_RETRY_FIRST_SECONDS, _RETRY_LAST_SECONDS = 0.05, 1.0
_PUSHED_REST_SECONDS, _PUSHED_REST_SECONDS_A_TOKEN = 0.02, 0.0001
"""On a Cluster, where a push says only that something moved, and every token is then read by a command of its own: the least
time between two beats because of that."""
_BATCH = 512


class _Life:
    """One life of the thread: what it knows, and its bell. `stopped` ends it at its next step."""

    def __init__(self) -> None:
        self.feed: Feed | None = None
        self.known: bytes | None = None
        self.due = self.retry_at = self.keep_at = 0.0
        self.retry = _RETRY_FIRST_SECONDS
        self.unused: set[bytes] = set()
        self.active = True
        """Whether anybody had looked into the tier before the last beat."""
        self.stopped = False
        self.starting: FramePresence | None = FramePresence(1)
        self.bell: tuple[Any, ...] = ()

    def ring(self) -> None:
        for end in self.bell[1:]:
            try:
                end.send(b"!")
            except OSError:
                pass  # it has been told already

    def drop(self) -> None:
        """Closes what is open."""
        feed, bell, self.feed, self.bell = self.feed, self.bell, None, ()
        if feed is not None:
            feed.close()
        for end in bell:
            end.close()


class Heart:
    """Keeps the fence of one tier. `staleness` is the least that a function on it asked for."""

    def __init__(self, state: CacheState, open_feed: Callable[[float], Feed]) -> None:
        self.tier = Tier(state.near_max_entries, state.near_max_bytes)
        self.staleness = math.inf
        self._runs: dict[int, _Life] = {}
        self._spread = state.store.spread
        self._store: Any = state.store
        self._coarse = state.coarse_name
        self._witness: Witness = state.witness
        self._observers: Observers = state.observers
        self._open = open_feed
        self._fell = False

    def wake(self) -> None:
        """Has the next beat now, and starts the thread if there is none. Any thread may call this; it costs little."""
        life = self._runs.get(0)
        if life is not None:
            starting = life.starting
            if starting is None:
                life.ring()
                return
            if starting.present():
                return
            self._runs = {}  # whoever was about to start it has been interrupted
            life.drop()
        mine = _Life()
        if self._runs.setdefault(0, mine) is not mine:
            return
        try:
            mine.bell = socket.socketpair()
            for end in mine.bell:
                end.setblocking(False)
            start_new_thread(_work, (ref(self), mine))
        except (OSError, RuntimeError) as error:
            self._runs = {}  # the system gives none now: the next call tries again
            mine.drop()
            if raised_by_handler(error):
                raise

    def close(self) -> None:
        """Ends the thread and its connection. The next call begins anew."""
        runs, self._runs = self._runs, {}
        for life in runs.values():
            life.stopped = True
            life.ring()
        self.tier.empty()

    def after_fork(self) -> None:
        """In a child: thread and connection are the parent's, and nothing is known."""
        runs, self._runs = self._runs, {}
        self._fell = False
        self.tier.reset()
        for life in runs.values():
            life.drop()

    def runs(self, life: _Life) -> bool:
        """Whether this is the life that counts."""
        return not life.stopped and self._runs.get(0) is life

    # -- one turn of the thread -------------------------------------------------------------------------------------------------

    def turn(self, life: _Life) -> tuple[list[Any], float]:
        """Does what is due. Returns what to wait on, and for how many seconds at most."""
        now = boottime()
        try:
            if life.feed is None:
                if now < life.retry_at:
                    return [], life.retry_at - now
                life.feed = self._open(self._budget())
                life.known, life.due = None, 0.0
            return self._turn(life, life.feed, now)
        except StoreError as error:
            return [], self._lost(life, error)

    def _turn(self, life: _Life, feed: Feed, now: float) -> tuple[list[Any], float]:
        tier = self.tier
        if life.due and now - life.due > self.staleness:
            self._falls(life, StoreTimeout("the heartbeat was late", store=self._store.address))
        names, everything = feed.pushed()
        if names:
            self._look_at(life, feed, set(names), now)
        if everything:
            self._falls(life, StoreUnavailable("the server was flushed", store=self._store.address))
        if now >= life.due or (tier.asked and now - tier.fence > self.staleness / 2):
            life.active = active = self.tier.end_round()
            self._beat(life, feed)
            interval = self.staleness / 3
            life.due = boottime() + (interval if active else max(interval, IDLE_SECONDS * feed.commands))
            if active and now >= life.keep_at:
                life.keep_at = now + KEEP_SECONDS
                self._keep(life, feed)
        if tier.wanted:
            self._make_sure()
        # What came in between the answers to our own questions makes no socket readable.
        return feed.sources(), 0.0 if feed.waiting() else max(life.due - boottime(), 0.0)

    def _look_at(self, life: _Life, feed: Feed, names: set[bytes], now: float) -> None:
        """Reads the tokens of the keys that the server says were written, and drops those that changed. A token whose ttl was
        prolonged counts as written too. While nobody uses the tier nothing is read, and all of them are dropped."""
        looking = life.active or self.tier.asked
        if self._spread:
            if looking and self._coarse in names:  # of the others the nodes have not told this connection
                rest = max(_PUSHED_REST_SECONDS, _PUSHED_REST_SECONDS_A_TOKEN * len(self.tier.cells))
                life.due = min(life.due, now + rest)
            return
        cells = [cell for name in names if (cell := self.tier.cells.get(name)) is not None]
        concerned = [cell.name for cell in cells]
        if cells and not looking:
            self.tier.moved(concerned)
        elif cells:
            tokens = feed.tokens(concerned)
            self._witness.trusts(concerned, tokens)
            for cell, token in zip(cells, tokens):
                if cell.token != token:
                    self.tier.moved((cell.name,))

    def _beat(self, life: _Life, feed: Feed) -> None:
        tier = self.tier
        sent = boottime()
        coarse = feed.pulse()
        if coarse is None or coarse != life.known or not tier.ready:
            life.known = None
            if tier.ready and coarse is not None and not life.active:
                return  # they are read when somebody looks
            cells = tier.begin_reading()
            if coarse is None:
                (coarse,) = run(self._store.ensure((self._coarse,), (self._witness.floor(self._coarse),), new_nonce()))
            names = [cell.name for cell in cells]
            tokens = feed.tokens(names) if names else []
            # One that is behind what was seen before is put back by the next call, which finds it in the store.
            self._witness.trusts(names, tokens)
            if not self.runs(life):
                return
            tier.end_reading(cells, tokens)
            life.known = coarse
        if not self.runs(life):
            return
        tier.fence = sent
        life.retry = _RETRY_FIRST_SECONDS
        if self._fell:
            self._fell = False
            self._emit("near-stand", None)

    def _make_sure(self) -> None:
        """Has the call tokens exist that entries are to come in under. Where the store refuses (it is full, say), those
        entries stay out."""
        names = list(self.tier.wanted)[:_BATCH]
        floors = [self._witness.floor(name) for name in names]
        try:
            tokens = run(self._store.ensure(names, floors, new_nonce()))
        except StoreError:
            self.tier.wanted.clear()
            return
        self.tier.know(names, tokens)

    def _keep(self, life: _Life, feed: Feed) -> None:
        tier = self.tier
        life.unused = tier.unused(life.unused)
        names = [name for name, cell in tier.cells.copy().items() if cell.uses and transient(name)]
        for at in range(0, len(names), _BATCH):
            try:
                feed.keep(names[at : at + _BATCH])
            except StoreError:
                return  # those that expire are missing at the next beat

    def _budget(self) -> float:
        return min(self.staleness, 5.0)

    def _lost(self, life: _Life, error: StoreError) -> float:
        feed, life.feed = life.feed, None
        if feed is not None:
            feed.close()
        if self.runs(life):
            self._falls(life, error)
        wait, life.retry = life.retry, min(life.retry * 2, _RETRY_LAST_SECONDS)
        life.retry_at = boottime() + wait
        return wait

    def _falls(self, life: _Life, error: StoreError) -> None:
        self.tier.fall()
        life.known, life.due = None, 0.0
        if not self._fell:
            self._fell = True
            self._emit("near-fall", error)

    def _emit(self, name: str, error: StoreError | None) -> None:
        if self._observers.busy:
            self._observers.emit(Event(name, "", "", detail="" if error is None else str(error)))


def heart_of(state: CacheState) -> Heart:
    """The heart of a cache's near tier. Raises `ConfigurationError` where its store can have none."""
    feed = getattr(state.store, "feed", None)
    if feed is None:
        raise ConfigurationError(
            f"near=: {state.store.address} is a store that a near cache cannot follow: leave near= out, or use Redis."
        )
    coarse, prefixes = state.coarse_name, token_prefixes(state.prefix)
    return Heart(state, lambda seconds: feed(coarse, prefixes, seconds))


def _work(heart_ref: Any, life: _Life) -> None:
    """The thread. It holds its heart only while it works."""
    life.starting = None
    try:
        while not life.stopped:
            heart = heart_ref()
            if heart is None or not heart.runs(life):
                return
            try:
                sources, seconds = heart.turn(life)
            except Exception:
                logger.exception("the heartbeat of memover's near cache failed")
                heart.tier.fall()
                sources, seconds = [], _RETRY_LAST_SECONDS
                life.known = None
            del heart
            bell = life.bell[0]
            try:
                readable([bell, *sources], min(seconds, 3600.0))
                while bell.recv(4096):
                    pass
            except (OSError, ValueError):
                pass  # nobody rang, or a connection that has been closed
    finally:
        life.drop()
