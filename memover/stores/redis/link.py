"""The way from commands to servers and back, for threads and for event loops.

    Send ─▶ journey (scripts, nodes) ─▶ exchanges, by threads (visits, pool) or on event loops (mux) ─▶ answers

A journey is one generator, whichever way the bytes go; it yields exchanges, (node, commands) pairs, all of which are sent
before the first answer is read. What goes wrong with a server is a `StoreError` here.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from memover.clocks import monotonic
from memover.engine.steps import POSTED, returned
from memover.errors import StoreError, raised_beneath
from memover.loops import in_thread
from memover.model import MISSING
from memover.stores.redis.asking import KnownScripts
from memover.stores.redis.connection import WHOLE_BYTES
from memover.stores.redis.failures import TRANSPORT_ERRORS, Lost, ValueFault, last_word, lost, transport_error
from memover.stores.redis.journey import journey, performed
from memover.stores.redis.limits import FLOOR_BYTES, LARGE_BYTES
from memover.stores.redis.resp import pack, pack_all
from memover.stores.redis.servers import Servers
from memover.stores.redis.visits import visit_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.steps import Send, Steps
    from memover.stores.redis.connection import Connection
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.loops import Home
    from memover.stores.redis.mux import Mux
    from memover.stores.redis.url import Node, Target

__all__ = ["RedisLink"]

T = TypeVar("T")
_SHORT_BYTES = WHOLE_BYTES // 2
"""Arguments of this size are no longer than WHOLE_BYTES when they are packed, with a script of ours beside them."""
_QUICK_SECONDS, _MANY_IN_A_ROW = 0.005, 32
"""Stores that follow each other as quickly as this, and more than so many of them, are posted."""
_LAST_WORDS_SECONDS = 0.25
"""How long `close` waits for answers that no call has waited for."""
_WORDS = frozenset((list, bytes, int, type(None)))
"""The classes of answers that are no errors."""


class RedisLink:
    """The `memover.engine.steps.Link` of one store."""

    def __init__(self, target: Target, limits: Limits) -> None:
        self.servers = Servers(target, limits)
        self.breaker = self.servers.breaker()
        """Of the one server; a Cluster has one for each node."""
        self.topology = self.servers.topology
        self.homes = self.servers.homes
        self._pools = self.servers.pools
        self._scripts = KnownScripts()
        self._in_a_row, self._last_at = 0, 0.0

    def close(self) -> None:
        """Closes the connections of threads: idle ones now, those in use when they are given back."""
        self.settle(_LAST_WORDS_SECONDS)
        self.servers.close()

    # -- for threads -------------------------------------------------------------------------------------------------------

    def single(self, packed: bytes, posting: Send[Any] | None = None) -> Any:
        """Sends one short command, which may be sent again, to the one server on an idle connection. Returns the answer, an
        error of the server's included, or MISSING if that cannot be done: then nothing has happened. Raises `StoreError`.

        With `posting`, returns POSTED if the answer will be given to `posting.posted` later.
        This is the exchange of every hit and of most misses, written out for speed; `exchange` does the rest."""
        pool = self._pools.get(None)
        if pool is None or pool.breaker.tripped:
            return MISSING
        connection: Connection | None = None
        try:
            try:
                connection = pool.idle.pop()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                return MISSING
            if connection.owed:
                pool.discard(connection)
                return MISSING
            posted, first = connection.posted, None
            try:
                if posted is not None:
                    first, answer = connection.single_after(packed)
                elif posting is not None and connection.post(packed, partial(self._heard, posting)):
                    answer = POSTED
                else:
                    answer = connection.single(packed)
            except BaseException as error:
                if posted is None:
                    connection.posted = None  # this call itself hears of it
                pool.discard(connection)
                failure = transport_error(error)
                if failure is None:
                    raise
                if lost(failure):
                    pool.close()
                    return MISSING
                raise self.servers.failed(None, failure) from None
            if answer.__class__ in _WORDS or answer is POSTED:
                if connection.era == pool.era:  # `pool.give`, without a frame that would hold the connection
                    pool.idle.append(connection)
                    if pool.waiting:
                        pool.ring()
                else:
                    pool.discard(connection)
            else:
                (pool.discard if last_word(answer) else pool.give)(connection)
                self.servers.answered(pool.breaker, None, (answer,))
        finally:
            connection = (
                None  # a traceback keeps this frame, which would keep the connection, and so its place in the pool
            )
        if posted is not None:
            posted(first)
        return answer

    def _hurried(self) -> bool:
        """Whether this is one of many misses in quick succession. Any other miss waits until its entry is stored, so that a
        failure of the network right after the call cannot lose it."""
        now = monotonic()
        self._in_a_row = self._in_a_row + 1 if now - self._last_at < _QUICK_SECONDS else 0
        self._last_at = now
        return self._in_a_row > _MANY_IN_A_ROW

    def _heard(self, step: Any, answer: Any) -> None:
        """The answer to a command that was posted, or why there is none."""
        if answer.__class__ is NoScriptError:
            self._scripts.forget(None)
        elif isinstance(answer, ResponseError):
            self.servers.answered(self.breaker, None, (answer,))
        step.posted([answer])

    def settle(self, seconds: float) -> None:
        """Reads the answers that nobody waited for, as far as they come within `seconds`."""
        pool = self._pools.get(None)
        if pool is None:
            return
        try:
            pool.settle(seconds)
        except StoreError:
            pass  # `posted` has been called with it
        except TRANSPORT_ERRORS as error:
            self.servers.failed(None, error)

    def exchange(self, step: Any) -> list[Any]:
        pool, commands = self._pools.get(None), step.commands
        # Looked at before anything is packed: a script that has been packed whole counts as sent.
        if pool is not None and pool.idle and len(commands) == 1 and not step.once:
            (command,) = commands
            if sum(map(len, command.args)) <= _SHORT_BYTES:
                posting = step if step.posted is not None and self._hurried() else None
                try:
                    answer = self.single(pack(self._scripts.arguments(command)), posting)
                except StoreError as error:
                    return [error]
                if answer.__class__ is NoScriptError and command.script is not None:
                    self._scripts.forget(None)
                elif answer is not MISSING:
                    return POSTED if answer is POSTED else [answer]
        return performed(
            journey(step.commands, self._scripts, self.topology),
            lambda exchanges: visit_all(self.servers, exchanges, step.urgent, step.once),
        )

    def complete(self, steps: Steps[T]) -> T:
        """Runs a flow that sends over this link and waits for nothing else."""
        flow = iter(steps)
        try:
            step = next(flow)
            while True:
                try:
                    answers = self.exchange(step)
                except StoreError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answers)
        except StopIteration as stop:
            result: T = returned(stop)
            return result

    def visit(self, node: Node | None, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """The answers of one node to a pipeline of commands, errors as answers. One round trip. Raises `StoreError`."""
        (answers,) = visit_all(self.servers, [(node, list(commands))], False, False)
        if answers and isinstance(answers[0], StoreError):
            raise answers[0]
        return answers

    # -- for event loops ---------------------------------------------------------------------------------------------------

    async def aexchange(self, step: Any) -> list[Any]:
        home = self.homes.here()
        if home.blocking:
            return await in_thread(lambda: self.exchange(step))
        large = any(command.large for command in step.commands)
        if len(step.commands) == 1 and self.topology is None:
            (command,) = step.commands
            packed = pack(self._scripts.arguments(command))
            mux = None if large or step.once else self.at_hand(home, packed)
            try:
                if mux is not None:
                    answer = await self.asingle(mux, packed, step.urgent)
                else:
                    answer = await self.answers(None, packed, 1, large, step.urgent, step.once)
            except StoreError as error:
                return [error]
            if answer.__class__ is not NoScriptError or command.script is None:
                return [answer]
            self._scripts.forget(None)
        hops = journey(step.commands, self._scripts, self.topology)
        try:
            exchanges = next(hops)
            while True:
                if len(exchanges) == 1:
                    node, batch = exchanges[0]
                    replies = [await self._avisit(node, batch, large, step.urgent, step.once)]
                else:
                    replies = await asyncio.gather(
                        *(self._avisit(node, batch, large, step.urgent, step.once) for node, batch in exchanges)
                    )
                exchanges = hops.send(replies)
        except StopIteration as stop:
            answers: list[Any] = returned(stop)
            return answers

    def at_hand(self, home: Home, packed: bytes) -> Mux | None:
        """The connection for one short command to the one server, where nothing has to be waited for before it can be sent."""
        if self.breaker.tripped or len(packed) > LARGE_BYTES:
            return None
        lane = home.small.get(None)
        mux = None if lane is None else lane.mux
        return None if mux is None or mux.sock is None or mux.backlog else mux

    async def asingle(self, mux: Mux, packed: bytes, urgent: bool = False) -> Any:
        """The answer to one command that may be sent again, on a connection that is at hand. Raises `StoreError`.

        `RedisStore.afetch` has the same written out, so that a hit needs a coroutine less."""
        try:
            answer = await mux.submit(packed)
        except TRANSPORT_ERRORS as error:
            return await self.again(packed, error, urgent)
        if answer.__class__ not in _WORDS:
            self.servers.answered(self.breaker, None, (answer,))
        return answer

    async def again(self, packed: bytes, error: Exception, urgent: bool = False) -> Any:
        """The answer to a command on another connection, after this error on the first. Raises `StoreError`, and at once
        unless the connection was lost."""
        if not lost(error):
            raise self.servers.failed(None, error) from None
        return await self.answers(None, packed, 1, urgent=urgent)

    async def _avisit(
        self, node: Node | None, batch: list[tuple[bytes, ...]], large: bool, urgent: bool, once: bool
    ) -> list[Any]:
        try:
            answers = await self.answers(
                node, pack_all(batch), len(batch), large, urgent, once, apart=batch[-1][0] == b"WAIT"
            )
        except StoreError as error:
            return [error] * len(batch)
        return [answers] if len(batch) == 1 else answers

    async def answers(
        self,
        node: Node | None,
        packed: bytes,
        count: int,
        large: bool = False,
        urgent: bool = False,
        once: bool = False,
        apart: bool = False,
    ) -> Any:
        """What `Mux.submit` answers to commands for one node. Raises `StoreError`."""
        breaker = self.servers.breaker(node)
        if breaker.tripped and not urgent:
            breaker.check()
        home, limits = self.homes.here(), self.servers.limits
        end = monotonic() + max(limits.seconds_for(len(packed), count), limits.socket_connect_timeout)
        large = large or len(packed) > LARGE_BYTES
        again = True
        while True:
            lane = home.lane(node, large, apart)
            try:
                mux = await lane.ready(end)
                if mux.backlog:
                    await mux.room()
                if once and mux.answered and mux.idle and mux.hung_up():
                    mux.close()
                    continue
                answers = await mux.submit(packed, count)
            except Lost as error:
                if again and error.used and not (once and error.sent):
                    again = False
                    continue
                if error.sent and len(packed) >= FLOOR_BYTES:
                    raise self.servers.failed(
                        node, ValueFault(f"{len(packed)} bytes were not taken: {error}")
                    ) from None
                raise self.servers.failed(node, error) from None
            except TRANSPORT_ERRORS as error:
                if large and lane is not home.lane(node, True, False):
                    continue  # the server gives no second connection
                raise self.servers.failed(node, error) from None
            self.servers.answered(breaker, node, answers if count > 1 else (answers,))
            return answers
