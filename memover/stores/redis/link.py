"""The way from commands to servers and back, for threads and for event loops.

    Send ─▶ scripts (EVALSHA, or EVAL where NOSCRIPT) ─▶ nodes (cluster) ─▶ visits (breaker, pool or mux) ─▶ answers

The first two steps are one generator, `_journey`, whichever way the bytes go; it yields visits, (node, commands) pairs,
all of which are sent before the first answer is read. What goes wrong on a visit is a `StoreError` here, once for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from memover.clocks import monotonic
from memover.engine.steps import POSTED, returned
from memover.errors import StoreError, StoreUnavailable, raised_beneath
from memover.loops import in_thread
from memover.model import MISSING
from memover.stores.redis.cluster import Exchanges, Topology
from memover.stores.redis.connection import WHOLE_BYTES
from memover.stores.redis.faults import FAULTS, ValueFault, last_word, lost, translated, transport_error
from memover.stores.redis.limits import FLOOR_BYTES, LARGE_BYTES
from memover.stores.redis.loops import Homes
from memover.stores.redis.mux import Lost
from memover.stores.redis.opening import Opener, check_options
from memover.stores.redis.pool import Pool
from memover.stores.redis.resp import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.steps import Send, Steps
    from memover.stores.breaker import Breaker
    from memover.stores.redis.asking import Command
    from memover.stores.redis.connection import Connection
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.opening import Line, Opening
    from memover.stores.redis.scripts import Script
    from memover.stores.redis.url import Node, Target

__all__ = ["RedisLink"]

T = TypeVar("T")
Journey = Generator[Exchanges, "list[list[Any]]", "list[Any]"]
_SHORT_BYTES = WHOLE_BYTES // 2
"""Arguments of this size are no longer than WHOLE_BYTES when they are packed, with a script of ours beside them."""
_QUICK_SECONDS, _MANY_IN_A_ROW = 0.005, 32
"""Stores that follow each other as quickly as this, and more than so many of them, are posted."""
_LAST_WORDS_SECONDS = 0.25
"""How long who closes a store waits for answers that nobody has waited for."""
_WORDS = frozenset((list, bytes, int, type(None)))
"""The classes of answers that are no errors."""


class RedisLink:
    """See `memover.engine.steps.Link`; one for each store."""

    def __init__(self, target: Target, limits: Limits) -> None:
        check_options(target)
        self.address = target.address
        self.topology = Topology(target.nodes, target.address) if target.kind == "cluster" else None
        self.pools: dict[Node | None, Pool] = {}
        self.identity: str | None = None
        """What the server says of itself, known after the first connection; see `opening.Line`."""
        self._opener = Opener(target)
        self._limits = limits
        self._known: set[bytes] = set()
        self._in_a_row, self._last_at = 0, 0.0
        self.breakers: dict[Node | None, Breaker] = {}
        """Of the nodes that were spoken to; see `breaker`."""
        self.homes = Homes(self._make, limits)

    # -- what there is ------------------------------------------------------------------------------------------------------

    def breaker(self, node: Node | None = None) -> Breaker:
        """The circuit breaker of a node; None: of the one server."""
        breaker = self.breakers.get(node)
        if breaker is None:
            breaker = self.breakers.setdefault(node, self._limits.breaker(self._name(node)))
        return breaker

    def pool(self, node: Node | None) -> Pool:
        """The connections of threads to a node."""
        pool = self.pools.get(node)
        if pool is None:
            pool = self.pools.setdefault(node, Pool(self._make(node), self._limits, self.breaker(node)))
        return pool

    def _make(self, node: Node | None) -> Callable[[Opening], Line]:
        def make(opening: Opening) -> Line:
            self.homes.sweep()
            line = self._opener.open(node, self._limits.socket_connect_timeout, opening)
            if line.identity is not None:
                self.identity = line.identity
            return line

        return make

    def close(self) -> None:
        """Close what threads have open; what is in use, when it comes back."""
        self.settle(_LAST_WORDS_SECONDS)
        for pool in list(self.pools.values()):
            pool.retire()
        self._opener.primary = None
        self.homes.sweep()

    def after_fork(self) -> None:
        """In a forked child: nothing that is open is its own."""
        for pool in self.pools.values():
            pool.after_fork()
        for breaker in self.breakers.values():
            breaker.after_fork()
        self.homes.after_fork()

    # -- commands to visits ---------------------------------------------------------------------------------------------------

    def _journey(self, commands: Sequence[Command]) -> Journey:
        """The answers to commands, the server's errors among them. Yields visits.

        A server that does not know a script says NOSCRIPT and has not done anything, so sending it whole is safe."""
        answers = yield from self._routed([(command.route, self._arguments(command)) for command in commands])
        forgotten = [at for at, answer in enumerate(answers) if answer.__class__ is NoScriptError]
        if forgotten:
            whole = []
            for at in forgotten:
                script = commands[at].script
                if script is None:
                    continue
                self._forget(script)
                whole.append((commands[at].route, self._arguments(commands[at])))
            for at, answer in zip(forgotten, (yield from self._routed(whole))):
                answers[at] = answer
        return answers

    def _routed(self, commands: list[tuple[bytes, tuple[bytes, ...]]]) -> Journey:
        if self.topology is not None:
            return (yield from self.topology.routed(commands))
        (answers,) = yield [(None, [args for _, args in commands])]
        return answers

    def _arguments(self, command: Command) -> tuple[bytes, ...]:
        script = command.script
        if script is None:
            return command.args
        if script.sha in self._known:
            return (b"EVALSHA", script.sha, *command.args)
        self._known.add(script.sha)
        return (b"EVAL", script.text, *command.args)

    def _forget(self, script: Script) -> None:
        """A server does not know a script: it has lost the others too, unless it is one of several."""
        if self.topology is None:
            self._known.clear()
        self._known.discard(script.sha)

    # -- for threads -------------------------------------------------------------------------------------------------------

    def single(self, packed: bytes, posting: Send[Any] | None = None) -> Any:
        """The one server's answer to one short command that may be sent again, on a connection that is at hand; its error as
        an answer. MISSING where it takes more than that: nothing has been done then that counts. Raises `StoreError`.

        The answer for `posting.posted` is not waited for, where that can be: POSTED.
        The exchange of every hit and of most misses, spelled out; `exchange` does the rest."""
        pool = self.pools.get(None)
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
                raise self.failed(None, failure) from None
            if answer.__class__ in _WORDS or answer is POSTED:
                if connection.era == pool.era:  # `pool.give`, without a frame that would hold the connection
                    pool.idle.append(connection)
                    if pool.waiting:
                        pool.ring()
                else:
                    pool.discard(connection)
            else:
                (pool.discard if last_word(answer) else pool.give)(connection)
                self._answered(pool.breaker, None, (answer,))
        finally:
            connection = (
                None  # a traceback keeps this frame, which would keep the connection, and so its place in the pool
            )
        if posted is not None:
            posted(first)
        return answer

    def _hurried(self) -> bool:
        """Whether this is one of many misses in quick succession. A single one waits for the answer to its store, which costs
        nobody much, so that what it stored is there whatever happens to the server or the network right after the call."""
        now = monotonic()
        self._in_a_row = self._in_a_row + 1 if now - self._last_at < _QUICK_SECONDS else 0
        self._last_at = now
        return self._in_a_row > _MANY_IN_A_ROW

    def _heard(self, step: Any, answer: Any) -> None:
        """The answer to a command that was posted, or why there is none."""
        if answer.__class__ is NoScriptError:
            self._known.clear()
        elif isinstance(answer, ResponseError):
            self._answered(self.breaker(), None, (answer,))
        step.posted([answer])

    def settle(self, seconds: float) -> None:
        """Read the answers that nobody waited for, as far as they come within `seconds`."""
        pool = self.pools.get(None)
        if pool is None:
            return
        try:
            pool.settle(seconds)
        except StoreError:
            pass  # told to whoever is to hear of it
        except FAULTS as error:
            self.failed(None, error)

    def exchange(self, step: Any) -> list[Any]:
        pool, commands = self.pools.get(None), step.commands
        # Looked at before anything is packed: a script that has been packed whole counts as sent.
        if pool is not None and pool.idle and len(commands) == 1 and not step.once:
            (command,) = commands
            if sum(map(len, command.args)) <= _SHORT_BYTES:
                posting = step if step.posted is not None and self._hurried() else None
                try:
                    answer = self.single(pack(self._arguments(command)), posting)
                except StoreError as error:
                    return [error]
                if answer.__class__ is NoScriptError and command.script is not None:
                    self._forget(command.script)
                elif answer is not MISSING:
                    return POSTED if answer is POSTED else [answer]
        journey = self._journey(step.commands)
        try:
            exchanges = next(journey)
            while True:
                exchanges = journey.send(self._visits(exchanges, step.urgent, step.once))
        except StopIteration as stop:
            answers: list[Any] = returned(stop)
            return answers

    def complete(self, steps: Steps[T]) -> T:
        """Run a flow that sends over this link and waits for nothing else."""
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
        (answers,) = self._visits([(node, list(commands))], False, False)
        if answers and isinstance(answers[0], StoreError):
            raise answers[0]
        return answers

    def _visits(self, exchanges: Exchanges, urgent: bool, once: bool) -> list[list[Any]]:
        # To all nodes before the first answer is read, so that several cost the time of one; in one order for all threads,
        # for each holds a connection while it takes the next, and small pools could lock.
        visits = [_Visit(node, batch) for node, batch in exchanges]
        try:
            for visit in visits if len(visits) == 1 else sorted(visits, key=_by_node):
                self._begin(visit, urgent, once)
            return [self._finish(visit, urgent, once) for visit in visits]
        except BaseException:
            for visit in visits:  # cut short: nobody will read those answers
                if visit.connection is not None:
                    self.pool(visit.node).discard(visit.connection)
            raise

    def _begin(self, visit: _Visit, urgent: bool, once: bool) -> None:
        pool = self.pool(visit.node)
        seconds = self._limits.seconds_for(len(visit.packed), visit.count)
        if not pool.idle:
            seconds = max(seconds, self._limits.socket_connect_timeout)
        visit.end = monotonic() + seconds
        try:
            if pool.breaker.tripped and not urgent:
                pool.breaker.check()
            visit.connection = pool.begin(visit.packed, visit.count, visit.end, urgent, once)
        except StoreError as error:
            visit.error = error
        except FAULTS as error:
            visit.error = self.failed(visit.node, error)

    def _finish(self, visit: _Visit, urgent: bool, once: bool) -> list[Any]:
        connection, visit.connection = visit.connection, None
        if connection is None:
            return [visit.error] * visit.count
        pool = self.pool(visit.node)
        try:
            answers = pool.finish(connection, visit.packed, visit.end, urgent, once)
        except StoreError as error:
            return [error] * visit.count
        except FAULTS as error:
            return [self.failed(visit.node, error)] * visit.count
        self._answered(pool.breaker, visit.node, answers)
        return answers

    # -- for event loops ---------------------------------------------------------------------------------------------------

    async def aexchange(self, step: Any) -> list[Any]:
        home = self.homes.here()
        if home.blocking:
            return await in_thread(lambda: self.exchange(step))
        large = any(command.large for command in step.commands)
        if len(step.commands) == 1 and self.topology is None:
            (command,) = step.commands
            packed = pack(self._arguments(command))
            try:
                answer = await self.answers(None, packed, 1, large, step.urgent, step.once)
            except StoreError as error:
                return [error]
            if answer.__class__ is not NoScriptError or command.script is None:
                return [answer]
            self._forget(command.script)
        journey = self._journey(step.commands)
        try:
            exchanges = next(journey)
            while True:
                if len(exchanges) == 1:
                    node, batch = exchanges[0]
                    replies = [await self._avisit(node, batch, large, step.urgent, step.once)]
                else:
                    replies = await asyncio.gather(
                        *(self._avisit(node, batch, large, step.urgent, step.once) for node, batch in exchanges)
                    )
                exchanges = journey.send(replies)
        except StopIteration as stop:
            answers: list[Any] = returned(stop)
            return answers

    async def _avisit(
        self, node: Node | None, batch: list[tuple[bytes, ...]], large: bool, urgent: bool, once: bool
    ) -> list[Any]:
        packed = pack(batch[0]) if len(batch) == 1 else b"".join(map(pack, batch))
        try:
            answers = await self.answers(node, packed, len(batch), large, urgent, once, apart=batch[-1][0] == b"WAIT")
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
        breaker = self.breaker(node)
        if breaker.tripped and not urgent:
            breaker.check()
        home, limits = self.homes.here(), self._limits
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
                    raise self.failed(node, ValueFault(f"{len(packed)} bytes were not taken: {error}")) from None
                raise self.failed(node, error) from None
            except FAULTS as error:
                if large and lane is not home.lane(node, True, False):
                    continue  # the server gives no second connection
                raise self.failed(node, error) from None
            self._answered(breaker, node, answers if count > 1 else (answers,))
            return answers

    # -- what came of it ----------------------------------------------------------------------------------------------------

    def _answered(self, breaker: Breaker, node: Node | None, answers: Sequence[Any]) -> None:
        if breaker.tripped:
            breaker.answered()
        if self._opener.primary is not None and any(isinstance(answer, ReadOnlyError) for answer in answers):
            self._lose_primary(node)

    def failed(self, node: Node | None, error: Exception) -> StoreError:
        """The `StoreError` for what went wrong with a node, which is left alone for a while, unless it was the value."""
        failure = translated(error, self._name(node))
        if isinstance(error, ValueFault):
            return failure
        failure.refused = False  # it was not even asked
        self.breaker(node).failed(failure)
        # Whatever silenced this connection may have silenced the idle ones, and each would cost a budget to find out.
        pool = self.pools.get(node)
        if pool is not None:
            pool.close()
        if self.topology is not None:
            self.topology.forget()
        if self._opener.primary is not None:
            self._opener.primary = None
            if pool is not None:
                pool.retire()
        return failure

    # -- a connection apart, for a near tier -----------------------------------------------------------------------------------

    @property
    def sentinel(self) -> bool:
        """Whether Sentinel says where the primary is."""
        return self._opener.target.kind == "sentinel"

    def open_line(self, route: bytes, seconds: float) -> Any:
        """A connected socket to the node of a key, opened in the calling thread. Raises redis-py's errors, OSError and
        `StoreError`."""
        node = None if self.topology is None else self.topology.owner(route)
        if self.topology is not None and node is None:
            self.visited(route)
            node = self.topology.owner(route)
            if node is None:
                raise StoreUnavailable(
                    f"{self.address}: no node answers for the slot of {route!r}.", store=self.address
                )
        return self._opener.open(node, seconds).socket

    def visited(self, route: bytes) -> None:
        """Find the node of a key, by asking it for the key. Raises `StoreError`."""
        journey = self._routed([(route, (b"MGET", route))])
        answers: list[Any] = []
        try:
            exchanges = next(journey)
            while True:
                exchanges = journey.send(self._visits(exchanges, False, False))
        except StopIteration as stop:
            answers = returned(stop)
        for answer in answers:
            if isinstance(answer, Exception):
                raise translated(answer, self.address)

    def forget_map(self) -> None:
        """Ask a Cluster for its map anew before the next command."""
        if self.topology is not None:
            self.topology.forget()

    def forget_primary(self) -> None:
        """Ask the sentinels anew where the primary is."""
        self._lose_primary(None)

    def _lose_primary(self, node: Node | None) -> None:
        self._opener.primary = None
        self.pool(node).retire()
        self.homes.retire(node)

    def _name(self, node: Node | None) -> str:
        return self.address if node is None else f"{node[0]}:{node[1]}"


def _by_node(visit: _Visit) -> Node:
    assert visit.node is not None, "only a Cluster has several"
    return visit.node


class _Visit:
    """A batch for one node: what was sent on which connection, or why it was not."""

    __slots__ = ("connection", "count", "end", "error", "node", "packed")

    def __init__(self, node: Node | None, batch: list[tuple[bytes, ...]]) -> None:
        self.node = node
        self.packed = pack(batch[0]) if len(batch) == 1 else b"".join(map(pack, batch))
        self.count = len(batch)
        self.connection: Connection | None = None
        self.error: StoreError | None = None
        self.end = 0.0
