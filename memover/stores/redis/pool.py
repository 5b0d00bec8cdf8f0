"""Connections of threads to one server: each is used by one thread at a time, for one exchange, without a lock.

A connection says by its own state whether it may be used: `owed` is how many answers are still to be read. It is set
before anything is sent, so whatever interrupts an exchange, at any moment, leaves a connection that nobody uses again.
Idle ones lie in a deque, whose `pop` and `append` are one step each; how many there are is counted by weak references.
An interrupted thread can therefore lose neither a place in the pool nor a lock.

A connection that was used before may have died in the meantime, which shows only when it is used: what was sent on it
is sent once more on another, unless it must be applied once only. Nothing else is ever repeated here.
"""

from __future__ import annotations

import math
import weakref
from _thread import allocate_lock
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError

from memover.clocks import monotonic
from memover.errors import raised_beneath, raised_by_handler
from memover.stores.redis.connection import Connection
from memover.stores.redis.failures import ValueFault, exhausted, last_word, lost, timely
from memover.stores.redis.limits import FLOOR_BYTES
from memover.stores.redis.opening import Crowded, Opening

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.stores.breaker import Breaker
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.opening import Line
    from memover.stores.redis.visits import Visit

__all__ = ["Pool"]

_CHECK_SECONDS = 0.05
_START_SECONDS = 0.25
_CROWDED_SECONDS = 10.0
"""For how long a server that took no more connections is not asked for more."""


class Pool:
    """The connections of this process's threads to one server; `make` opens one, in a thread of its own."""

    def __init__(self, make: Callable[[Opening], Line], limits: Limits, breaker: Breaker) -> None:
        self.breaker = breaker
        self._make = make
        self._limits = limits
        self.era = 0
        """Counts `retire`: a connection of an earlier era is not to be used again."""
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the parent's connections are dropped, and nothing is sent on them."""
        self.idle: deque[Connection] = deque()
        self._open: set[Any] = set()
        self._openings: dict[Opening, float] = {}
        self.waiting: deque[Any] = deque()
        """A locked lock of each thread that waits for a connection."""
        self._room = self._limits.max_connections
        self._room_until = 0.0

    # -- a connection ---------------------------------------------------------------------------------------------------

    def take(self, end: float, urgent: bool = False) -> Connection:
        """A connection, idle or new. Waits for one while all are in use, until the time `end` at most."""
        try:
            return self.idle.pop()
        except IndexError as empty:
            if raised_beneath(empty):
                raise
        began = monotonic()
        mine: Opening | None = None
        bell: Any = None
        try:
            while True:
                if mine is not None and self._is_over(mine):
                    error, mine = mine.error, None
                    if error is not None and not (isinstance(error, Crowded) and self._shrink()):
                        raise error
                if bell is None:
                    bell = allocate_lock()
                    bell.acquire()
                    self.waiting.append(bell)  # before looking, so that nothing comes between
                try:
                    return self.idle.pop()
                except IndexError as empty:
                    if raised_beneath(empty):
                        raise
                if mine is None and self._count() < self._size():
                    mine = self._open_another()
                left = end - monotonic()
                if left <= 0:
                    if mine is None:
                        raise exhausted(self.breaker.address, self._size(), monotonic() - began)
                    raise TimeoutError(f"no connection in {monotonic() - began:.3g} s")
                if (mine is None or not self._is_over(mine)) and bell.acquire(True, min(left, _CHECK_SECONDS)):
                    bell = None
                if self.breaker.tripped and not urgent and mine is None:
                    self.breaker.check()  # it stopped answering while we queued
        finally:
            if bell is not None:
                try:
                    self.waiting.remove(bell)
                except ValueError as error:
                    self.ring()  # it was for us, and another may need it
                    if raised_beneath(error):
                        raise
            if mine is not None and not mine.done:
                mine.abandon()

    def _size(self) -> int:
        if self._room < self._limits.max_connections and monotonic() > self._room_until:
            self._room = self._limits.max_connections
        return self._room

    def _shrink(self) -> bool:
        """Limits the pool to the connections that it has, for a while; False if it has none."""
        self._room_until = monotonic() + _CROWDED_SECONDS
        self._room = max(1, len(self._open))
        return bool(self._open)

    def _open_another(self) -> Opening:
        era = self.era

        def work(opening: Opening) -> Line:
            self._openings[opening] = math.inf  # by now it will end by itself
            return self._make(opening)

        opening = Opening(work, lambda ended: self._opened(ended, era))
        self._openings[opening] = monotonic() + _START_SECONDS
        opening.start()
        return opening

    def _is_over(self, opening: Opening) -> bool:
        # It is `done` a moment before its connection is in the pool: to look only there would open a second one.
        return opening.done and opening not in self._openings

    def _count(self) -> int:
        """How many connections there are, those included that are being opened."""
        if self._openings:
            now = monotonic()
            for opening, until in self._openings.copy().items():
                if until < now:  # whoever was about to start it was interrupted
                    self._openings.pop(opening, None)
        return len(self._open) + len(self._openings)

    def _opened(self, opening: Opening, era: int) -> None:
        line = opening.take()
        try:
            if line is not None and len(self._open) >= self._size():
                line.socket.close()  # others were quicker
            elif line is not None:
                try:
                    connection = Connection(line, self._limits.socket_timeout, era)
                except OSError as error:
                    opening.error = error
                    line.socket.close()
                else:
                    connection.ref = weakref.ref(connection, self._open.discard)
                    self._open.add(connection.ref)
                    self.give(connection)
        finally:
            self._openings.pop(opening, None)
            self.ring(all_of_them=opening.error is not None)

    def give(self, connection: Connection) -> None:
        """Takes a connection back; one that is not clean, or from before `retire`, is closed."""
        if connection.owed or connection.era != self.era:
            self.discard(connection)
            return
        self.idle.append(connection)
        if self.waiting:
            self.ring()

    def ring(self, all_of_them: bool = False) -> None:
        """Wakes one waiting thread, or all of them: there is a connection or an error to look at."""
        while True:
            try:
                bell = self.waiting.popleft()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                return
            try:
                bell.release()
            except RuntimeError as error:
                if raised_by_handler(error):
                    raise
                continue
            if not all_of_them:
                return

    def discard(self, connection: Connection) -> None:
        """Closes a connection."""
        connection.close()
        self._open.discard(connection.ref)
        if self.waiting:
            self.ring()

    def close(self) -> None:
        """Closes idle connections."""
        while True:
            try:
                self.idle.pop().close()  # in no variable: a frame that a traceback keeps would keep its place as well
            except IndexError as error:
                if raised_beneath(error):
                    raise
                return

    def retire(self) -> None:
        """Closes idle connections now and those in use when they are given back: another server has taken over."""
        self.era += 1
        self.close()

    # -- an exchange ----------------------------------------------------------------------------------------------------

    def begin(self, visit: Visit, urgent: bool = False, once: bool = False) -> None:
        """Sends a visit's commands. Raises redis-py's errors, OSError and `StoreUnavailable`.

        `once`: never sent again, so an idle connection is first looked at for whether the server has hung up."""
        while True:
            visit.connection = connection = self.take(visit.end, urgent)
            used = connection.used
            if connection.posted is not None and not self._settled(connection):
                continue
            if connection.owed or (once and used and connection.hung_up()):
                self.discard(connection)
                continue
            try:
                connection.send(visit.packed, visit.count, visit.end)
            except OSError as failure:
                self._lost(connection, visit.packed, failure, used and not once)
            else:
                return

    def _lost(self, connection: Connection, packed: bytes, failure: Exception, may_repeat: bool) -> None:
        """An exchange failed, so its connection is closed. Raises the error, unless the commands are to be sent once more:
        then idle connections are closed as well, because they may be as old."""
        error = timely(failure)
        again = may_repeat and lost(error)
        fault = _value_fault(connection, packed, error, again)
        self.discard(connection)
        if fault is not None:
            raise fault from None
        if not again:
            raise error from None
        self.close()

    def _settled(self, connection: Connection) -> bool:
        """Reads the answer that nobody waited for; False when the server has hung up. Raises what `begin` raises."""
        posted = connection.posted
        try:
            answer = connection.settle()
        except BaseException as failure:
            self.discard(connection)
            if isinstance(failure, (OSError, RedisConnectionError)):
                error = timely(failure)
                if lost(error):
                    return False
                raise error from None
            raise
        if posted is not None:
            posted(answer)
        return True

    def settle(self, seconds: float) -> None:
        """Reads the answers that nobody waited for, as far as they come within `seconds`. Raises what `begin` raises."""
        end = monotonic() + seconds
        for connection in list(self.idle):
            if connection.posted is None:
                continue
            try:
                self.idle.remove(connection)
            except ValueError as error:
                if raised_beneath(error):
                    raise
                continue  # somebody uses it, and so reads the answer
            if connection.posted is not None and not connection.owed:
                if connection.settles(end - monotonic()):
                    if not self._settled(connection):
                        continue
                elif connection.overdue():
                    self.discard(connection)
                    raise TimeoutError("the time limit is over")
            self.give(connection)

    def finish(self, visit: Visit, urgent: bool = False, once: bool = False) -> list[Any]:
        """Reads the answers to what `begin` sent, the server's errors among them. Raises what `begin` raises."""
        connection: Connection | None = None
        try:
            while True:
                connection = visit.connection
                assert connection is not None, "it was begun"
                used = connection.used
                try:
                    answers = connection.receive(visit.end)
                except (OSError, RedisConnectionError) as failure:
                    self._lost(connection, visit.packed, failure, used and not once)
                    self.begin(visit, urgent, once)
                    continue
                if connection.era != self.era or any(
                    isinstance(answer, Exception) and last_word(answer) for answer in answers
                ):
                    self.discard(connection)
                    return answers
                # As `give` does: between these two lines no signal handler is run.
                visit.connection = None
                self.idle.append(connection)
                if self.waiting:
                    self.ring()
                return answers
        finally:
            connection = None  # a traceback keeps this frame, and so would keep its place in the pool


def _value_fault(connection: Connection, packed: bytes, error: Exception, again: bool) -> ValueFault | None:
    # A server that refuses a value for its size says so and hangs up, in the middle of our sending. Where it could not be
    # heard, and it is not sent again, or where the time was over, a value of that size tells nothing about the server (P16).
    if len(packed) < FLOOR_BYTES:
        return None
    words = connection.last_words() if lost(error) else None
    if words is None and again:
        return None
    return ValueFault(
        f"{len(packed)} bytes were not taken: {words or error}. The server may be well; see its proto-max-bulk-len."
    )
