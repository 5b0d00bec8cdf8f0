"""A Redis Cluster on loopback, put together by hand: CLUSTER MEET, ADDSLOTS, REPLICATE.

A node does not call the cluster ok in the first two seconds of its life (CLUSTER_WRITABLE_DELAY in Redis), so starting
one takes about three seconds.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

import redis
from redis.crc import key_slot

from .redis import NOT_YET, RedisServer
from .waiting import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

__all__ = ["SLOTS", "RedisCluster"]

SLOTS = 16384


class RedisCluster:
    """`primaries` primaries with `replicas` replicas each (3 and 1 make the common six); a context manager.

    `node_timeout` is in seconds: how long a node must be silent before the others take it for dead. `nodes` holds
    the primaries first. Without replicas, a killed node takes the cluster down, as in production, unless `config`
    sets `cluster-require-full-coverage` to "no".
    """

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 0,
        *,
        node_timeout: float = 1.5,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self.nodes: list[RedisServer] = []
        self._primaries = primaries
        self._config: dict[str, object] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": int(node_timeout * 1000),
            "cluster-announce-ip": "127.0.0.1",
            **(config or {}),
        }
        self._stack = ExitStack()
        try:
            for _ in range(primaries * (1 + replicas)):
                self.nodes.append(self._stack.enter_context(self._start_node()))
            self._assemble()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes if node.alive)

    def client(self, **options: Any) -> redis.RedisCluster:
        """A plain `redis.RedisCluster`, answers as bytes; the caller closes it."""
        return redis.RedisCluster(host="127.0.0.1", port=self._any().port, protocol=2, **options)

    def owner(self, slot: int) -> RedisServer:
        """The primary that serves `slot`, as the first living node that is asked says."""
        for start, end, (_, port, *_), *_ in self._any().run("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"nobody serves slot {slot}")

    def owner_of(self, key: str | bytes) -> RedisServer:
        return self.owner(key_slot(key if isinstance(key, bytes) else key.encode()))

    def primaries(self) -> list[RedisServer]:
        """The living nodes that are primaries now."""
        return [node for node in self.nodes if node.alive and node.info("replication")["role"] == "master"]

    def kill_node(self, node: RedisServer) -> None:
        """SIGKILL; if it is a primary with replicas, `wait_ok()` then waits for a replica to take its place."""
        node.kill()

    @contextmanager
    def migrating(self, slot: int, to: RedisServer) -> Iterator[None]:
        """Hold `slot` between two nodes during the block (its owner answers ASK for keys it lacks), then finish."""
        source = self.owner(slot)
        assert source is not to, f"slot {slot} is there already"
        target_id, source_id = self._id(to), self._id(source)
        to.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        yield
        while keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.run("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        # The new owner first: the other order leaves the slot with nobody if this process dies in between.
        for node in (to, source, *(n for n in self.primaries() if n not in (to, source))):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        wait_until(
            lambda: all(self._owner_port(node, slot) == to.port for node in self.nodes if node.alive),
            f"all nodes to know the new owner of slot {slot}",
            passing=NOT_YET,
        )

    def migrate_slot(self, slot: int, to: RedisServer) -> None:
        """Move `slot` and its keys to `to`; returns when every node knows."""
        with self.migrating(slot, to):
            pass

    def wait_ok(self, timeout: float = 60.0) -> None:
        """Return when every living node says cluster_state:ok, and sees all the slots with living primaries."""

        def ok() -> bool:
            alive = {node.port for node in self.nodes if node.alive}
            for node in self.nodes:
                if node.alive:
                    state = node.run("CLUSTER", "INFO")
                    if b"cluster_state:ok" not in state or b"cluster_slots_ok:%d" % SLOTS not in state:
                        return False
                    served = node.run("CLUSTER", "SLOTS")
                    if any(primary[1] not in alive for _, _, primary, *_ in served):
                        return False
            return True

        wait_until(ok, "cluster_state:ok on every node", timeout=timeout, passing=NOT_YET)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside

    def _start_node(self) -> RedisServer:
        for _ in range(4):
            try:
                # The default bus port, the client's plus 10,000, may be above 65,535.
                return RedisServer(config={**self._config, "cluster-port": free_port()})
            except RuntimeError:  # somebody else took the bus port first
                continue
        return RedisServer(config={**self._config, "cluster-port": free_port()})

    def _assemble(self) -> None:
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for n, node in enumerate(self.nodes):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for n, node in enumerate(primaries):
            first, last = n * SLOTS // self._primaries, (n + 1) * SLOTS // self._primaries - 1
            node.run("CLUSTER", "ADDSLOTS", *range(first, last + 1))
        # Every pair: gossip alone would take seconds to introduce them.
        for node, other in combinations(self.nodes, 2):
            bus = [other._config["cluster-port"]] if "cluster-port" in other._config else []
            node.run("CLUSTER", "MEET", "127.0.0.1", other.port, *bus)
        everybody = {self._id(node) for node in self.nodes}
        wait_until(
            lambda: all(self._connected(node) == everybody for node in self.nodes),
            "every node to know every other",
            passing=NOT_YET,
        )
        for n, replica in enumerate(replicas):
            replica.run("CLUSTER", "REPLICATE", self._id(primaries[n % self._primaries]))
        self.wait_ok()
        for replica in replicas:
            replica.wait_in_sync()
        wait_until(
            lambda: all(self._replicas_seen(node) == len(replicas) for node in self.nodes),
            "every node to see the replicas as such",
            passing=NOT_YET,
        )

    def _any(self) -> RedisServer:
        return next(node for node in self.nodes if node.alive)

    def _id(self, node: RedisServer) -> str:
        identity: bytes = node.run("CLUSTER", "MYID")
        return identity.decode()

    def _connected(self, node: RedisServer) -> set[str]:
        """The identities of those whom `node` has shaken hands with, itself included."""
        lines = node.run("CLUSTER", "NODES").decode().splitlines()
        fields = (line.split() for line in lines)
        return {identity for identity, _, flags, *_ in fields if "handshake" not in flags and "noaddr" not in flags}

    def _replicas_seen(self, node: RedisServer) -> int:
        lines = node.run("CLUSTER", "NODES").decode().splitlines()
        return sum("slave" in line.split()[2] for line in lines)

    def _owner_port(self, node: RedisServer, slot: int) -> int | None:
        for start, end, (_, port, *_), *_ in node.run("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return int(port)
        return None
