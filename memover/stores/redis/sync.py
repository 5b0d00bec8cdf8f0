"""The Redis store for threads: a pool of connections per node, and one exchange of bytes at a time on each.

A connection that was used before may have died in the meantime, which shows only when it is used: what was sent on it
is sent once more on a new one, unless it must be applied once only. Nothing else is ever repeated here.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from memover.errors import StoreError, StoreUnavailable
from memover.stores.base import Granted, Seen
from memover.stores.redis.breaker import Breaker
from memover.stores.redis.cluster import Exchanges, Topology
from memover.stores.redis.commands import Exchange, RedisCommands, scripted
from memover.stores.redis.connect import Node, Target, lost, translated
from memover.stores.redis.keyvalue import RedisKeyValues

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.model import Key
    from memover.stores.redis.limits import Limits

__all__ = ["Pool", "RedisStore"]

T = TypeVar("T")


class Pool:
    """The connections of this process's threads to one server; `make` opens nothing yet."""

    def __init__(self, make: Callable[[], Any], limits: Limits, breaker: Breaker) -> None:
        self.breaker = breaker
        self._make = make
        self._limits = limits
        self.after_fork()

    def after_fork(self) -> None:
        """The child's connections are its own; the parent's are let go of without a word to the server."""
        self.idle: deque[Any] = deque()
        self._open = 0
        self._waiting = 0
        self._room = threading.Condition(threading.Lock())
        self.breaker.after_fork()

    def take(self) -> tuple[Any, bool]:
        """A connection, and whether it was used before. Waits for one when all are in use, within the budget."""
        try:
            return self.idle.pop(), True
        except IndexError:
            pass
        with self._room:
            if self._open < self._limits.max_connections:
                self._open += 1
                return self._make(), False
            self._waiting += 1
            try:
                if self._room.wait_for(lambda: self.idle or self._open < self._limits.max_connections, self._limits.socket_timeout):
                    try:
                        return self.idle.pop(), True
                    except IndexError:
                        self._open += 1
                        return self._make(), False
            finally:
                self._waiting -= 1
        raise StoreUnavailable(
            f"{self.breaker.address}: all {self._limits.max_connections} connections stayed in use for "
            f"{self._limits.socket_timeout:g} s: raise max_connections.",
            store=self.breaker.address,
        )

    def give(self, connection: Any) -> None:
        self.idle.append(connection)
        if self._waiting:
            with self._room:
                self._room.notify()

    def discard(self, connection: Any) -> None:
        connection.disconnect()
        with self._room:
            self._open -= 1
            self._room.notify()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back wrong, or goes on being used."""
        while True:
            try:
                self.discard(self.idle.pop())
            except IndexError:
                return

    def exchange(self, packed: bytes, count: int, once: bool = False) -> list[Any]:
        """Send bytes and read `count` answers, the server's errors as answers. Raises redis-py's errors of transport.

        `once`: never sent again, so an idle connection is first looked at for whether the server has hung up."""
        connection, used = self.take()
        while once and used and _hung_up(connection):
            self.discard(connection)
            connection, used = self.take()
        try:
            answers = _exchange(connection, packed, count)
        except BaseException as error:
            self.discard(connection)
            if once or not used or not lost(error):
                raise
        else:
            self.give(connection)
            return answers
        self.close()
        connection, _ = self.take()
        try:
            answers = _exchange(connection, packed, count)
        except BaseException:
            self.discard(connection)
            raise
        self.give(connection)
        return answers


def _hung_up(connection: Any) -> bool:
    # Whatever can be read on an idle connection is the end of it, or an answer that nobody waits for.
    try:
        return bool(connection.can_read(timeout=0))
    except Exception:
        return True


def _exchange(connection: Any, packed: bytes, count: int) -> list[Any]:
    connection.send_packed_command((packed,), False)
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(connection.read_response(True))
        except ResponseError as error:
            answers.append(error)
    return answers


class RedisStore(RedisKeyValues, RedisCommands):
    """Redis or Valkey for threads; see `memover.stores.base.Store`. Each method is one round trip but where it says."""

    shared = True

    def __init__(self, target: Target, limits: Limits) -> None:
        self.address = target.address
        self.spread = target.kind == "cluster"
        self._target = target
        self._limits = limits
        self._topology = Topology(target.nodes, target.address) if self.spread else None
        self._known: set[bytes] = set()
        self._primary: Node | None = None
        self._pools: dict[Node | None, Pool] = {}
        self._lock = threading.Lock()
        self._packer = target.connection(None, 1.0, 1.0)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        for pool in self._pools.values():
            pool.after_fork()

    # -- the store ------------------------------------------------------------------------------------------------------

    def read(self, key: Key) -> Seen:
        if self.spread:
            return self._run(self.reading(key))
        packed = key.packed
        if packed is None:
            packed = key.packed = self._packed((b"MGET", *key.names, key.entry))
        # The common case of `Pool.exchange`, spelled out: this is every hit.
        pool = self._pools.get(None) or self._pool(None)
        if pool.breaker.tripped or not pool.idle:
            return self._run(self.reading(key))
        try:
            connection = pool.idle.pop()
        except IndexError:
            return self._run(self.reading(key))
        try:
            connection.send_packed_command((packed,), False)
            answer = connection.read_response(True)
        except ResponseError as error:
            pool.give(connection)
            raise translated(error, self.address) from error
        except BaseException as error:
            pool.discard(connection)
            if not isinstance(error, Exception):
                raise
            if lost(error):
                pool.close()
                return self._run(self.reading(key))
            raise self._failed(None, pool, error) from error
        pool.give(connection)
        return Seen(answer[:-1], answer[-1])

    def look(self, key: Key) -> Seen:
        return self._run(self.looking(key))

    def acquire(self, key: Key, token: str, lease_ms: int, floors: Sequence[int], force: bool) -> Granted:
        return self._run(self.acquiring(key, token, lease_ms, floors, force))

    def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> bool:
        return self._run(self.storing(key, token, raw, expire_ms))

    def release(self, key: Key, token: str, failed: bool) -> None:
        self._run(self.releasing(key, token, failed))

    def renew(self, key: Key, token: str, lease_ms: int) -> bool:
        return self._run(self.renewing(key, token, lease_ms))

    def bump(self, name: bytes, nonce: str, floor: int) -> bytes:
        return self._run(self.bumping(name, nonce, floor), urgent=True)

    def drop(self, entry: bytes, lease: bytes) -> None:
        self._run(self.dropping(entry, lease), urgent=True)

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._primary = None

    # -- from commands to bytes and back --------------------------------------------------------------------------------

    def _run(self, exchange: Exchange[T], *, urgent: bool = False, once: bool = False) -> T:
        wire = scripted(exchange, self._known)
        try:
            commands = next(wire)
            while True:
                commands = wire.send(self._answers(commands, urgent, once))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except RedisError as error:
            raise translated(error, self.address) from error

    def _answers(
        self, commands: list[tuple[bytes, tuple[bytes, ...]]], urgent: bool, once: bool
    ) -> list[Any]:
        if self._topology is None:
            (answers,) = self._exchange([(None, [args for _, args in commands])], urgent, once)
            return answers
        hops = self._topology.routed(commands)
        try:
            exchanges = next(hops)
            while True:
                exchanges = hops.send(self._exchange(exchanges, urgent, once))
        except StopIteration as stop:
            answers = stop.value
            return answers

    def _exchange(self, exchanges: Exchanges, urgent: bool, once: bool) -> list[list[Any]]:
        results: list[list[Any]] = []
        for node, batch in exchanges:
            try:
                results.append(self._visit(node, batch, urgent, once))
            except StoreError as error:
                results.append([error] * len(batch))
        return results

    def _visit(self, node: Node | None, batch: list[tuple[bytes, ...]], urgent: bool, once: bool) -> list[Any]:
        pool = self._pools.get(node) or self._pool(node)
        breaker = pool.breaker
        if breaker.tripped and not urgent:
            breaker.check()
        try:
            answers = pool.exchange(b"".join(map(self._packed, batch)), len(batch), once)
        except StoreError:
            raise
        except Exception as error:
            raise self._failed(node, pool, error) from error
        if breaker.tripped:
            breaker.answered()
        if self._primary is not None and any(isinstance(answer, ReadOnlyError) for answer in answers):
            self._lose_primary(pool)
        return answers

    def _failed(self, node: Node | None, pool: Pool, error: Exception) -> StoreError:
        failure = translated(error, self.address if node is None else f"{node[0]}:{node[1]}")
        pool.breaker.failed(failure)
        if self._topology is not None:
            self._topology.forget()
        self._lose_primary(pool)
        return failure

    def _lose_primary(self, pool: Pool) -> None:
        if self._target.kind == "sentinel":
            self._primary = None
            pool.close()

    def _packed(self, args: tuple[bytes, ...]) -> bytes:
        return b"".join(self._packer.pack_command(*args))

    def _pool(self, node: Node | None) -> Pool:
        with self._lock:
            pool = self._pools.get(node)
            if pool is None:
                address = self.address if node is None else f"{node[0]}:{node[1]}"
                pool = Pool(lambda: self._connect(node), self._limits, self._limits.breaker(address))
                self._pools[node] = pool
            return pool

    def _connect(self, node: Node | None) -> Any:
        limits = self._limits
        if self._target.kind == "sentinel":
            if self._primary is None:
                self._primary = self._target.primary(limits.socket_timeout / len(self._target.nodes))
            node = self._primary
        return self._target.connection(node, limits.socket_timeout, limits.socket_connect_timeout)
