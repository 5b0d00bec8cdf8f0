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
from memover.engine.store import Granted, Request, Seen, SeenMany
from memover.stores.redis.cluster import Exchanges, Topology
from memover.stores.redis.commands import Exchange, RedisCommands, scripted, side_by_side
from memover.stores.redis.connect import Node, Target, check_role, lost, translated
from memover.stores.redis.keyvalue import RedisKeyValues

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.model import Key
    from memover.stores.redis.breaker import Breaker
    from memover.stores.redis.limits import Limits

__all__ = ["Pool", "RedisStore"]

T = TypeVar("T")

_PATIENCE = 20
"""Budgets for which a call queues at most in a pool that is busy but moving."""


class Pool:
    """The connections of this process's threads to one server; `make` opens nothing yet."""

    def __init__(self, make: Callable[[], Any], limits: Limits, breaker: Breaker) -> None:
        self.breaker = breaker
        self._make = make
        self._limits = limits
        self._era = 0
        self.after_fork()

    def after_fork(self) -> None:
        """The child's connections are its own; the parent's are let go of without a word to the server."""
        self.idle: deque[Any] = deque()
        self._open = 0
        self._waiting = 0
        self._returned = 0
        self._room = threading.Condition(threading.Lock())
        self.breaker.after_fork()

    def take(self, urgent: bool = False) -> tuple[Any, bool]:
        """A connection, and whether it was used before. Waits for one while all are in use and keep coming back."""
        try:
            return self.idle.pop(), True
        except IndexError:
            pass
        with self._room:
            if self._open >= self._limits.max_connections:
                self._await_room(urgent)
                try:
                    return self.idle.pop(), True
                except IndexError:
                    pass
            self._open += 1
        era = self._era
        try:
            connection = self._make()
        except BaseException:
            self._leave()
            raise
        connection.memover_era = era
        return connection, False

    def _await_room(self, urgent: bool) -> None:
        # A pool that is merely busy is waited for: to run functions because there are many callers would make more
        # of the same. One budget without a single connection coming back means that the store is stuck.
        limits = self._limits
        self._waiting += 1
        try:
            for _ in range(_PATIENCE):
                returned = self._returned
                if self._room.wait_for(lambda: self.idle or self._open < limits.max_connections, limits.socket_timeout):
                    if self.breaker.tripped and not urgent:
                        self.breaker.check()  # it stopped answering while we queued
                    return
                if self._returned == returned:
                    break
        finally:
            self._waiting -= 1
        raise exhausted(self.breaker.address, limits)

    def give(self, connection: Any) -> None:
        if connection.memover_era != self._era:
            self.discard(connection)
            return
        self.idle.append(connection)
        self._returned += 1
        if self._waiting:
            with self._room:
                self._room.notify()

    def discard(self, connection: Any) -> None:
        try:
            connection.disconnect()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._room:
            self._open -= 1
            self._returned += 1
            self._room.notify()

    def close(self) -> None:
        """Close what is idle."""
        while True:
            try:
                self.discard(self.idle.pop())
            except IndexError:
                return

    def retire(self) -> None:
        """Close what is idle, and what is in use when it comes back: another server is the right one now."""
        self._era += 1
        self.close()

    def begin(self, packed: bytes, urgent: bool = False, once: bool = False) -> tuple[Any, bool]:
        """Send bytes; the answer is what `finish` needs. Raises redis-py's errors of transport.

        `once`: never sent again, so an idle connection is first looked at for whether the server has hung up."""
        while True:
            connection, used = self.take(urgent)
            if once and used and _hung_up(connection):
                self.discard(connection)
                continue
            try:
                connection.send_packed_command((packed,), False)
            except BaseException as error:
                self.discard(connection)
                if once or not used or not lost(error):
                    raise
                self.close()
            else:
                return connection, used

    def finish(
        self, begun: tuple[Any, bool], packed: bytes, count: int, urgent: bool = False, once: bool = False
    ) -> list[Any]:
        """Read `count` answers, the server's errors as answers."""
        connection, used = begun
        while True:
            try:
                answers = _answers(connection, count)
            except BaseException as error:
                self.discard(connection)
                if once or not used or not lost(error):
                    raise
                self.close()
            else:
                self.give(connection)
                return answers
            connection, used = self.begin(packed, urgent)


def _hung_up(connection: Any) -> bool:
    # Whatever can be read on an idle connection is the end of it, or an answer that nobody waits for.
    try:
        return bool(connection.can_read(timeout=0))
    except Exception:
        return True


def exhausted(address: str, limits: Limits) -> StoreUnavailable:
    """The error for a call that found all connections in use, and none that came back."""
    return StoreUnavailable(
        f"{address}: all {limits.max_connections} connections stayed in use for {limits.socket_timeout:g} s: raise "
        f"max_connections.",
        store=address,
    )


def _answers(connection: Any, count: int) -> list[Any]:
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(connection.read_response(True))
        except ResponseError as error:
            answers.append(error)
    return answers


def _by_node(exchange: tuple[Node | None, Any]) -> Node:
    node, _ = exchange
    assert node is not None, "only a Cluster has several"
    return node


class _Visit:
    """A batch on its way to one node: what was sent on which connection, or why it was not."""

    __slots__ = ("begun", "count", "error", "node", "packed", "pool")

    def __init__(self, node: Node | None, pool: Pool, packed: bytes, count: int) -> None:
        self.node = node
        self.pool = pool
        self.packed = packed
        self.count = count
        self.begun: tuple[Any, bool] | None = None
        self.error: StoreError | None = None


class RedisStore(RedisKeyValues, RedisCommands):
    """Redis or Valkey for threads; see `memover.engine.store.Store`. Each method is one round trip but where it says."""

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
        # The common case of `begin` and `finish`, spelled out: this is every hit.
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
        return Seen(key.names, answer[:-1], answer[-1])

    def look(self, key: Key) -> Seen:
        return self._run(self.looking(key))

    def acquire(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Granted:
        return self._run(self.acquiring(key, token, lease_ms, ensured, floors, force))

    def read_plain(self, keys: Sequence[Key]) -> SeenMany:
        return self._run(self.reading_plain(keys))

    def read_many(self, keys: Sequence[Key]) -> list[Seen]:
        return self._run(self.reading_many(keys))

    def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        return self._run(
            side_by_side(
                [self.acquiring(key, token, ms, ensured, floors, False) for key, token, ms, ensured, floors in requests]
            )
        )

    def store_many(self, entries: Sequence[tuple[Key, str, bytes, int]]) -> list[bool]:
        return self._run(side_by_side([self.storing(*entry) for entry in entries]))

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        return self._run(self.ensuring(names, floors, nonce))

    def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> bool:
        return self._run(self.storing(key, token, raw, expire_ms))

    def release(self, key: Key, token: str, failed: bool) -> None:
        self._run(self.releasing(key, token, failed))

    def renew(self, key: Key, token: str, lease_ms: int) -> bool:
        return self._run(self.renewing(key, token, lease_ms))

    def bump(self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]) -> list[bytes]:
        return self._run(self.bumping(names, nonce, floors, along), urgent=True)

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        self._run(self.dropping(entry, lease, nonce, along), urgent=True)

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.retire()
            self._primary = None

    # -- node by node, for those who look through the whole store ------------------------------------------------------

    def nodes(self) -> list[Node | None]:
        """The primaries, each of which has keys of its own; None for the one there is. Raises `StoreError`."""
        if self._topology is None:
            return [None]
        self._answers([(b"", (b"PING",))], False, False)
        return list(self._topology.primaries())

    def visit(self, node: Node | None, commands: list[tuple[bytes, ...]]) -> list[Any]:
        """The answers of one node to a pipeline of commands, errors as answers. One round trip. Raises `StoreError`."""
        answers = self._finish(self._begin(node, commands, False, False), False, False)
        if answers and isinstance(answers[0], StoreError):
            raise answers[0]
        return answers

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

    def _answers(self, commands: list[tuple[bytes, tuple[bytes, ...]]], urgent: bool, once: bool) -> list[Any]:
        if self._topology is None:
            (answers,) = self._exchange([(None, [args for _, args in commands])], urgent, once)
            return answers
        hops = self._topology.routed(commands)
        try:
            exchanges = next(hops)
            while True:
                exchanges = hops.send(self._exchange(exchanges, urgent, once))
        except StopIteration as stop:
            result: list[Any] = stop.value
            return result

    def _exchange(self, exchanges: Exchanges, urgent: bool, once: bool) -> list[list[Any]]:
        # To all nodes before the first answer is read, so that several cost the time of one.
        visits: dict[Node | None, _Visit] = {}
        try:
            # In one order for all threads: each holds a connection while it takes the next, and small pools could lock.
            for node, batch in exchanges if len(exchanges) == 1 else sorted(exchanges, key=_by_node):
                visits[node] = self._begin(node, batch, urgent, once)
            return [self._finish(visits[node], urgent, once) for node, _ in exchanges]
        except BaseException:
            for visit in visits.values():  # cut short (KeyboardInterrupt, say): nobody will read those answers
                if visit.begun is not None:
                    visit.pool.discard(visit.begun[0])
            raise

    def _begin(self, node: Node | None, batch: list[tuple[bytes, ...]], urgent: bool, once: bool) -> _Visit:
        pool = self._pools.get(node) or self._pool(node)
        visit = _Visit(node, pool, b"".join(map(self._packed, batch)), len(batch))
        try:
            if pool.breaker.tripped and not urgent:
                pool.breaker.check()
            visit.begun = pool.begin(visit.packed, urgent, once)
        except StoreError as error:
            visit.error = error
        except Exception as error:
            visit.error = self._failed(node, pool, error)
        return visit

    def _finish(self, visit: _Visit, urgent: bool, once: bool) -> list[Any]:
        begun, visit.begun = visit.begun, None
        if begun is None:
            return [visit.error] * visit.count
        pool = visit.pool
        try:
            answers = pool.finish(begun, visit.packed, visit.count, urgent, once)
        except StoreError as error:
            return [error] * visit.count
        except Exception as error:
            return [self._failed(visit.node, pool, error)] * visit.count
        if pool.breaker.tripped:
            pool.breaker.answered()
        if self._primary is not None and any(isinstance(answer, ReadOnlyError) for answer in answers):
            self._lose_primary(pool)
        return answers

    def _failed(self, node: Node | None, pool: Pool, error: Exception) -> StoreError:
        failure = translated(error, self.address if node is None else f"{node[0]}:{node[1]}")
        pool.breaker.failed(failure)
        # Whatever silenced this connection may have silenced the idle ones, and each would cost a budget to find out.
        pool.close()
        if self._topology is not None:
            self._topology.forget()
        self._lose_primary(pool)
        return failure

    def _lose_primary(self, pool: Pool) -> None:
        if self._target.kind == "sentinel":
            self._primary = None
            pool.retire()

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
            connection = self._target.connection(node, limits.socket_timeout, limits.socket_connect_timeout)
            # Sentinels may not have heard yet, and a replica would answer reads (Redis docs, "Guidelines for Sentinel
            # clients", step 3).
            try:
                connection.send_command("ROLE")
                check_role(connection.read_response(True), node)
            except BaseException:
                self._primary = None
                connection.disconnect()
                raise
            return connection
        return self._target.connection(node, limits.socket_timeout, limits.socket_connect_timeout)
