"""The Redis store for coroutines: the same commands, pools per event loop and node.

A connection belongs to the loop that opened it, so each running loop has pools of its own, made when first used there
and closed when that loop shuts down (`asyncio.run` may be called any number of times, in any number of threads).
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from memover.errors import StoreError
from memover.engine.store import Granted, Request, Seen, SeenMany
from memover.stores.redis.cluster import Exchanges, Topology
from memover.stores.redis.commands import Exchange, RedisCommands, scripted, side_by_side
from memover.stores.redis.connect import Node, Target, check_role, lost, translated
from memover.stores.redis.keyvalue import AsyncRedisKeyValues
from memover.stores.redis.limit import Limit
from memover.stores.redis.sync import _PATIENCE, exhausted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from memover.model import Key
    from memover.stores.redis.breaker import Breaker
    from memover.stores.redis.limits import Limits

__all__ = ["AsyncPool", "AsyncRedisStore"]

T = TypeVar("T")

_LATENESS = 0.2
"""From which share of the budget a timer is late, so that the loop must have been held up."""


class AsyncPool:
    """The connections of one event loop to one server; `make` answers a connection that is not open yet."""

    def __init__(self, make: Callable[[], Awaitable[Any]], limits: Limits, breaker: Breaker) -> None:
        self.breaker = breaker
        self.idle: deque[Any] = deque()
        self._make = make
        self._limits = limits
        self._open = 0
        self._era = 0
        self._returned = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def room(self, urgent: bool = False) -> None:
        """Return when a connection is idle or may be opened. A pool that is merely busy is waited for; see `sync.Pool`."""
        limits = self._limits
        loop = asyncio.get_running_loop()
        for _ in range(_PATIENCE):
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            returned, due = self._returned, loop.time() + limits.socket_timeout
            try:
                await asyncio.wait({turn}, timeout=limits.socket_timeout)
            except BaseException:
                if turn.done():
                    self._notify()  # the turn came as we gave up: the next one's
                raise
            finally:
                turn.cancel()
            if self.idle or self._open < limits.max_connections:
                if self.breaker.tripped and not urgent:
                    self.breaker.check()  # it stopped answering while we queued
                return
            if self._returned == returned and not _late(loop, due, limits):
                break
        raise exhausted(self.breaker.address, limits)

    def give(self, connection: Any) -> None:
        if connection.memover_era == self._era:
            self.idle.append(connection)
            self._returned += 1
            if self._waiting:
                self._notify()
        else:
            self._let_go(connection)

    def _let_go(self, connection: Any) -> None:
        self._open -= 1
        self._returned += 1
        self._notify()
        close(connection)

    discard = _let_go

    def _notify(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def close(self) -> None:
        """Close what is idle."""
        while self.idle:
            self.discard(self.idle.pop())

    def retire(self) -> None:
        """Close what is idle, and what is in use when it comes back: another server is the right one now."""
        self._era += 1
        self.close()

    async def exchange(self, packed: bytes, count: int, urgent: bool = False, once: bool = False) -> list[Any]:
        """Send bytes and read `count` answers, the server's errors as answers. Raises redis-py's errors of transport.

        One budget for making a connection, sending and reading together; queueing for a connection is apart."""
        limits = self._limits
        while True:
            while not self.idle and self._open >= limits.max_connections:
                await self.room(urgent)
            connection: Any = None
            used = bool(self.idle)
            try:
                with Limit(limits.socket_timeout):
                    connection = self.idle.pop() if used else await self._new()
                    if once and used and await _hung_up(connection):
                        self.discard(connection)
                        continue
                    answers = await _exchange(connection, packed, count)
            except BaseException as error:
                if connection is not None:
                    self.discard(connection)
                if once or not used or not lost(error):
                    raise
                self.close()
            else:
                self.give(connection)
                return answers

    async def _new(self) -> Any:
        self._open += 1
        era = self._era
        connection: Any = None
        try:
            with Limit(self._limits.socket_connect_timeout):
                connection = await self._make()
                await connection.connect()
        except BaseException:
            if connection is not None:
                close(connection)
            self._open -= 1
            self._returned += 1
            self._notify()
            raise
        connection.memover_era = era
        return connection


def close(connection: Any) -> None:
    """Close a connection now. Told not to wait, redis-py's coroutine ends at its first step."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        # TLS would say goodbye and wait for an answer, longer than a loop that is ending runs; nothing is unsent here.
        writer.transport.abort()
    step = connection.disconnect(nowait=True)
    try:
        step.send(None)
    except StopIteration:
        pass
    except (RedisError, OSError, RuntimeError):
        pass  # it was closed already, or its loop was
    finally:
        step.close()


def _late(loop: asyncio.AbstractEventLoop, due: float, limits: Limits) -> bool:
    """Whether the loop came to a timer so late that it must have been held up."""
    return loop.time() - due > limits.socket_timeout * _LATENESS


async def _hung_up(connection: Any) -> bool:
    # redis-py 8 has another name for it.
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    # The end of a connection is known when the loop has asked for it (one turn) and handled the answer (another).
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        return bool(await look())
    except Exception:
        return True


async def _exchange(connection: Any, packed: bytes, count: int) -> list[Any]:
    await connection.send_packed_command((packed,), False)
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(await connection.read_response(True))
        except ResponseError as error:
            answers.append(error)
    return answers


class _Home:
    """The pools of one event loop."""

    def __init__(self) -> None:
        self.pools: dict[Node | None, AsyncPool] = {}
        self.closer: AsyncGenerator[None, None] | None = None

    def close(self) -> None:
        for pool in self.pools.values():
            pool.retire()

    async def closing(self) -> AsyncGenerator[None, None]:
        # A loop that shuts down closes its asynchronous generators while it can still run: the one hook it offers.
        try:
            yield
        finally:
            self.close()


_left_behind: list[Any] = []
"""In a forked child: what belongs to its parent's event loops."""


class AsyncRedisStore(AsyncRedisKeyValues, RedisCommands):
    """Redis or Valkey for coroutines; see `memover.engine.store.AsyncStore`."""

    shared = True

    def __init__(self, target: Target, limits: Limits) -> None:
        self.address = target.address
        self.spread = target.kind == "cluster"
        self.wait_replicas = limits.wait_replicas
        self.replicas_ms = limits.replicas_ms
        self._target = target
        self._limits = limits
        self._topology = Topology(target.nodes, target.address) if self.spread else None
        self._known: set[bytes] = set()
        self._primary: Node | None = None
        self._breakers: dict[Node | None, Breaker] = {}
        self._packer = target.connection(None, 1.0, 1.0)
        self._homes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Home] = weakref.WeakKeyDictionary()

    def after_fork(self) -> None:
        # The parent's connections are not closed here, nor collected: their transports would tell a selector that parent
        # and child share to forget them.
        _left_behind.append(self._homes)
        self._homes = weakref.WeakKeyDictionary()
        for breaker in self._breakers.values():
            breaker.after_fork()

    # -- the store ------------------------------------------------------------------------------------------------------

    async def read(self, key: Key) -> Seen:
        if self.spread:
            return await self._run(self.reading(key))
        packed = key.packed
        if packed is None:
            packed = key.packed = self._packed((b"MGET", *key.names, key.entry))
        pool = await self._pool(None)
        if pool.breaker.tripped:
            return await self._run(self.reading(key))
        try:
            (answer,) = await pool.exchange(packed, 1)
        except StoreError:
            raise
        except Exception as error:
            raise self._failed(None, pool, error) from error
        if isinstance(answer, Exception):
            raise translated(answer, self.address) from answer
        return Seen(key.names, answer[:-1], answer[-1])

    async def look(self, key: Key) -> Seen:
        return await self._run(self.looking(key))

    async def acquire(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Granted:
        return await self._run(self.acquiring(key, token, lease_ms, ensured, floors, force))

    async def read_plain(self, keys: Sequence[Key]) -> SeenMany:
        return await self._run(self.reading_plain(keys))

    async def read_many(self, keys: Sequence[Key]) -> list[Seen]:
        return await self._run(self.reading_many(keys))

    async def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        return await self._run(
            side_by_side(
                [self.acquiring(key, token, ms, ensured, floors, False) for key, token, ms, ensured, floors in requests]
            )
        )

    async def store_many(self, entries: Sequence[tuple[Key, str, bytes, int]]) -> list[bool]:
        return await self._run(side_by_side([self.storing(*entry) for entry in entries]))

    async def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        return await self._run(self.ensuring(names, floors, nonce))

    async def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> bool:
        return await self._run(self.storing(key, token, raw, expire_ms))

    async def release(self, key: Key, token: str, failed: bool) -> None:
        await self._run(self.releasing(key, token, failed))

    async def renew(self, key: Key, token: str, lease_ms: int) -> bool:
        return await self._run(self.renewing(key, token, lease_ms))

    async def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> list[bytes]:
        return await self._run(self.bumping(names, nonce, floors, along), urgent=True)

    async def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        await self._run(self.dropping(entry, lease, nonce, along), urgent=True)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        home = self._homes.pop(asyncio.get_running_loop(), None)
        if home is not None and home.closer is not None:
            await home.closer.aclose()

    # -- from commands to bytes and back --------------------------------------------------------------------------------

    async def _run(self, exchange: Exchange[T], *, urgent: bool = False, once: bool = False) -> T:
        wire = scripted(exchange, self._known)
        try:
            commands = next(wire)
            while True:
                commands = wire.send(await self._answers(commands, urgent, once))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except RedisError as error:
            raise translated(error, self.address) from error

    async def _answers(self, commands: list[tuple[bytes, tuple[bytes, ...]]], urgent: bool, once: bool) -> list[Any]:
        if self._topology is None:
            (answers,) = await self._exchange([(None, [args for _, args in commands])], urgent, once)
            return answers
        hops = self._topology.routed(commands)
        try:
            exchanges = next(hops)
            while True:
                exchanges = hops.send(await self._exchange(exchanges, urgent, once))
        except StopIteration as stop:
            result: list[Any] = stop.value
            return result

    async def _exchange(self, exchanges: Exchanges, urgent: bool, once: bool) -> list[list[Any]]:
        async def visit(node: Node | None, batch: list[tuple[bytes, ...]]) -> list[Any]:
            try:
                return await self._visit(node, batch, urgent, once)
            except StoreError as error:
                return [error] * len(batch)

        if len(exchanges) == 1:
            return [await visit(*exchanges[0])]
        return list(await asyncio.gather(*(visit(node, batch) for node, batch in exchanges)))

    async def _visit(self, node: Node | None, batch: list[tuple[bytes, ...]], urgent: bool, once: bool) -> list[Any]:
        pool = await self._pool(node)
        breaker = pool.breaker
        if breaker.tripped and not urgent:
            breaker.check()
        try:
            answers = await pool.exchange(b"".join(map(self._packed, batch)), len(batch), urgent, once)
        except StoreError:
            raise
        except Exception as error:
            raise self._failed(node, pool, error) from error
        if breaker.tripped:
            breaker.answered()
        if self._primary is not None and any(isinstance(answer, ReadOnlyError) for answer in answers):
            self._lose_primary(pool)
        return answers

    def _failed(self, node: Node | None, pool: AsyncPool, error: Exception) -> StoreError:
        if isinstance(error, asyncio.TimeoutError):
            error = RedisTimeoutError(f"{self._limits.socket_timeout:g} s")
        failure = translated(error, self.address if node is None else f"{node[0]}:{node[1]}")
        pool.breaker.failed(failure)
        pool.close()  # see `RedisStore._failed`
        if self._topology is not None:
            self._topology.forget()
        self._lose_primary(pool)
        return failure

    def _lose_primary(self, pool: AsyncPool) -> None:
        if self._target.kind == "sentinel":
            self._primary = None
            pool.retire()

    def _packed(self, args: tuple[bytes, ...]) -> bytes:
        return b"".join(self._packer.pack_command(*args))

    async def _pool(self, node: Node | None) -> AsyncPool:
        home = self._homes.get(asyncio.get_running_loop())
        if home is None:
            home = self._homes[asyncio.get_running_loop()] = _Home()
            home.closer = home.closing()
            await home.closer.__anext__()
        pool = home.pools.get(node)
        if pool is None:
            address = self.address if node is None else f"{node[0]}:{node[1]}"
            breaker = self._breakers.setdefault(node, self._limits.breaker(address))
            pool = home.pools.setdefault(node, AsyncPool(lambda: self._connect(node), self._limits, breaker))
        return pool

    async def _connect(self, node: Node | None) -> Any:
        limits = self._limits
        if self._target.kind == "sentinel":
            if self._primary is None:
                self._primary = await self._target.async_primary(limits.socket_timeout / len(self._target.nodes))
            node = self._primary
            connection = self._target.async_connection(node)
            try:
                await connection.send_command("ROLE")
                check_role(await connection.read_response(True), node)
            except BaseException:
                self._primary = None
                close(connection)
                raise
            return connection
        return self._target.async_connection(node)
