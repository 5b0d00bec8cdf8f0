"""The leases that calls of this process hold: prolonged while their loads run, given back when a caller is gone.

A lease is noted here before the store is asked for it, so there is no moment at which it exists and is not noted. The
background thread looks through the list a few times a second while it is not empty:

* a load that takes long has its lease prolonged, before a third of it is over;
* a call that was interrupted before it could give its lease back (P17), or whose event loop was closed, is finished: its
  lease is released, and those who wait for its load look again.

A call may be interrupted or cancelled while its request for a lease is on its way, and the release must not overtake it: the
lease would stay until it ends by itself. On an event loop the release is a task of that loop and takes the connection on
which the request went, where commands keep their order. Otherwise, and where that connection is lost, the background
thread releases it, and once more `_AGAIN_SECONDS` later. A server that stood still takes the request when it goes on, however
long that is, so a release that was not acknowledged is repeated until it is.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from memover.clocks import monotonic
from memover.engine.store import Renewal
from memover.errors import StoreError, raised_beneath
from memover.latch import TaskPresence
from memover.later import later
from memover.runtime import tasks
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from memover.engine.call import CachedCall
    from memover.engine.store import Store
    from memover.model import Key
    from memover.runtime.background import Background
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["Leases"]

logger = logging.getLogger("memover")

_LOOK_SECONDS = 0.25
_RENEWED_AT_ONCE = 200
"""How many leases are prolonged in one round trip: 10,000 loads may be under way, and renewals compete with them for the
interpreter."""
_ATTEMPTS = 200
"""How often a release that the store does not acknowledge is tried, for some minutes; after that the lease ends by itself."""
_RETRY_LAST_SECONDS = 2.0
_RELEASED_AT_ONCE = 200
"""How many leases are released in one round trip."""
_RETURNED_LIMIT = 100_000
"""How many leases wait to be released at most; more end by themselves. An interrupted batch may leave as many as it has calls."""
_AGAIN_SECONDS = 1.0
"""How long a request for a lease may still be on its way after its connection was closed."""


class Lease:
    """A lease that is to be given back."""

    __slots__ = ("attempts", "key", "repeated", "token")

    def __init__(self, key: Key, token: str) -> None:
        self.key = key
        self.token = token
        self.attempts = 0
        self.repeated = False


class Leases:
    """The leases of one cache's calls in this process. Any thread may call anything here.

    `keep` is called with every task that releases one, so that closing the cache can wait for it."""

    def __init__(
        self, store: Store, background: Background, keep: Callable[[asyncio.Task[None]], object] = bool
    ) -> None:
        self._store = store
        self._background = background
        self._keep = keep
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: the leases are the parent's."""
        self._held: dict[str, CachedCall] = {}
        """By token, the call that holds the lease or has asked for it."""
        self._posted: dict[str, CachedCall] = {}
        """Those of entries that were sent, and whose answer is not there yet."""
        self._releasing_tasks: dict[str, TaskPresence] = {}
        """The tasks that give leases back, which are noted as held until they have."""
        self._to_release: deque[Lease] = deque()
        self._looking = False
        self._retrying = False
        self._releasing = False
        self._told = False
        """Whether the thread has been asked to release, and has not begun to."""

    def __len__(self) -> int:
        return len(self._held) + len(self._posted) + len(self._to_release)

    def hold(self, call: CachedCall, token: str) -> None:
        """Notes a lease that is about to be asked for."""
        call.renewed = monotonic()
        self._held[token] = call
        if not self._looking or not self._background.running:
            try:
                self._looking = True
                self._background.later(_LOOK_SECONDS, self._look)
            except BaseException:
                self._looking = False  # interrupted: the next one sees to it
                raise

    def let_go(self, token: str) -> None:
        """The lease was released, used up by a store, or not granted."""
        self._held.pop(token, None)
        if self._posted:
            self._posted.pop(token, None)

    def post(self, token: str) -> None:
        """The entry was sent with the lease; `let_go` or `withdraw` follows when the store has answered."""
        call = self._held.get(token)
        if call is not None:
            self._posted[token] = call
            if self._held.pop(token, None) is None:  # it was answered in the meantime
                self._posted.pop(token, None)

    def withdraw(self, token: str) -> None:
        """The entry was not stored after all: have the lease released."""
        self._give_up(self._posted.get(token) or self._held.get(token), token)

    def orphan(self, token: str) -> bool:
        """Whether a call of this process holds the lease and is gone. It is finished, if so; its lease is the caller's to
        release."""
        call = self._held.get(token)
        if call is None or self._present(call, token):
            return False
        self._held.pop(token, None)
        call.function.finish(call, None)
        return True

    def _present(self, call: CachedCall, token: str) -> bool:
        """Whether a call, or the task that releases its lease, is still at work."""
        presence = self._releasing_tasks.get(token, call.presence)
        return presence is None or bool(presence.present())

    def abandon(self, token: str) -> None:
        """Has a lease released that its call could not give back, or may have been given unheard. Does not wait for it."""
        call = self._held.get(token)
        if call is None or token in self._releasing_tasks:
            return
        if not self._store.local:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError as error:
                if raised_beneath(error):
                    raise
            else:
                task = loop.create_task(self._arelease(call.key, token))
                if not task.done():  # an eager task factory's may be
                    # It stays noted, in case the loop is closed before.
                    self._releasing_tasks[token] = TaskPresence(task, loop)
                    self._keep(task)
                return
        self._hand_over(token)

    async def _arelease(self, key: Key, token: str) -> None:
        released = False
        try:
            await arun(self._store.release(key, token, False))
            released = True
        except StoreError:
            pass  # the background thread tries again
        finally:
            if released:
                self._held.pop(token, None)
                self._releasing_tasks.pop(token, None)
            else:
                self._hand_over(token)

    def _hand_over(self, token: str) -> None:
        """To the background thread."""
        self._give_up(self._held.get(token), token)
        self._releasing_tasks.pop(token, None)

    def _give_up(self, call: CachedCall | None, token: str) -> None:
        if call is None:
            return
        if len(self._to_release) < _RETURNED_LIMIT:
            self._to_release.append(Lease(call.key, token))
            if not self._told or not self._background.running:
                try:
                    self._told = True
                    self._background.later(0.0, self._release)
                except BaseException:
                    self._told = False  # interrupted: the next one sees to it
                    raise
        self.let_go(token)  # at last: one that is interrupted before that is released twice, and not never

    def _look(self) -> float | None:
        # In this order: a lease noted meanwhile is either in the list, or finds that nothing looks through it.
        self._looking = False
        if not self._held and not self._posted:
            return None
        self._looking = True
        try:
            return self._looked_through()
        except Exception:
            # The next look comes all the same, or every lease would end under its load.
            logger.exception("memover could not look through its leases, and tries again")
            return _LOOK_SECONDS

    def _looked_through(self) -> float:
        if self._posted:
            self._store.settle(0.0)
        now = monotonic()
        next_look = _LOOK_SECONDS
        due: list[tuple[str, CachedCall]] = []
        for token, call in self._posted.copy().items():
            if now - call.renewed > call.function.lease_ms / 1000:  # whoever was to read the answer was interrupted
                self._posted.pop(token, None)
        for token, call in self._held.copy().items():
            if not self._present(call, token):
                if token not in self._releasing_tasks:
                    call.function.finish(call, None)
                self._hand_over(token)
                tasks.sweep()
                continue
            if token in self._releasing_tasks:
                continue
            third = call.function.lease_ms / 6000
            next_look = min(next_look, third)
            if now - call.renewed >= third:
                due.append((token, call))
        for at in range(0, len(due), _RENEWED_AT_ONCE):
            some = due[at : at + _RENEWED_AT_ONCE]
            renewals = []
            for token, call in some:
                call.renewed = now
                renewals.append(Renewal(call.key, token, call.function.lease_ms, call.names))
            try:
                run(self._store.renew(renewals))
            except StoreError as error:
                first = some[0][1]
                first.function.store_failed(first.key, error)  # once for all of them
                break
        return next_look

    def _release(self) -> float | None:
        self._told = False  # before it looks: one that is put in meanwhile is either found, or asks again
        while some := self._some_to_release():
            try:
                run(self._store.release_many([(lease.key, lease.token) for lease in some]))
            except StoreError:
                for lease in some:
                    lease.attempts += 1
                some = [lease for lease in some if lease.attempts < _ATTEMPTS]
                self._to_release.extend(some)
                if some:
                    self._try_again(some[0].attempts)
                return None
            except Exception:
                logger.exception("memover could not release the lease of %s", some[0].key.text)
                continue
            finally:
                self._releasing = False
            again = [] if self._store.local else [lease for lease in some if not lease.repeated]
            for lease in again:
                lease.repeated = True
            if again:
                self._background.later(_AGAIN_SECONDS, partial(self._repeat, again))
        return None

    def _some_to_release(self) -> list[Lease]:
        self._releasing = True  # before they are taken: see `drain`
        some: list[Lease] = []
        try:
            while len(some) < _RELEASED_AT_ONCE:
                some.append(self._to_release.popleft())
        except IndexError:
            self._releasing = bool(some)
        return some

    def give_back(self) -> None:
        """Has all leases released, also those of loads under way, which nobody will wait for. Does not wait for it."""
        for token in list(self._held):
            self._hand_over(token)

    def drain(self, seconds: float) -> None:
        """As `give_back`, and wait for it, within `seconds` and while the store answers."""
        self.give_back()
        end = monotonic() + seconds
        while (self._to_release or self._releasing) and not self._retrying and monotonic() < end:
            time.sleep(0.002)

    def _try_again(self, attempts: int) -> None:
        # Once for all that wait: they may be many, and the store answers none of them or all.
        if not self._retrying or not self._background.running:
            self._retrying = True
            self._background.later(min(0.1 * 2.0 ** min(attempts, 10), _RETRY_LAST_SECONDS), self._retry)

    def _retry(self) -> float | None:
        self._retrying = False
        return self._release()

    def _repeat(self, leases: list[Lease]) -> float | None:
        self._to_release.extend(leases)
        return self._release()
