"""The servers of one store: the circuit breaker of each, its connections for threads and for event loops, and what follows
when it fails.

A server is named by its node, host and port; None stands for the one there is, and for Sentinel's primary. Nothing here
sends a command of the store's: `link` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import ReadOnlyError

from memover.stores.redis.cluster import Topology
from memover.stores.redis.failures import ValueFault, translated
from memover.stores.redis.loops import Homes
from memover.stores.redis.opening import Opener, check_options
from memover.stores.redis.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from memover.errors import StoreError
    from memover.stores.breaker import Breaker
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.opening import Line, Opening
    from memover.stores.redis.url import Node, Target

__all__ = ["Servers"]


class Servers:
    """The servers of one store. Raises `ConfigurationError` for options in its URL that are unknown."""

    def __init__(self, target: Target, limits: Limits) -> None:
        check_options(target)
        self.address = target.address
        self.limits = limits
        self.topology = Topology(target.nodes, target.address) if target.kind == "cluster" else None
        self.sentinel = target.kind == "sentinel"
        """Whether Sentinel says where the primary is."""
        self.identity: str | None = None
        """What the server says of itself, known after the first connection; see `opening.Line`."""
        self.pools: dict[Node | None, Pool] = {}
        self.breakers: dict[Node | None, Breaker] = {}
        """Of the nodes that were spoken to; see `breaker`."""
        self._opener = Opener(target)
        self.homes = Homes(self._make, limits)

    def breaker(self, node: Node | None = None) -> Breaker:
        """The circuit breaker of a node."""
        breaker = self.breakers.get(node)
        if breaker is None:
            breaker = self.breakers.setdefault(node, self.limits.breaker(self._name(node)))
        return breaker

    def pool(self, node: Node | None) -> Pool:
        """The connections of threads to a node."""
        pool = self.pools.get(node)
        if pool is None:
            pool = self.pools.setdefault(node, Pool(self._make(node), self.limits, self.breaker(node)))
        return pool

    def open(self, node: Node | None, seconds: float) -> Any:
        """A connected socket of the caller's own, opened in the calling thread. Raises redis-py's errors and OSError."""
        return self._opener.open(node, seconds).socket

    def _make(self, node: Node | None) -> Callable[[Opening], Line]:
        def make(opening: Opening) -> Line:
            self.homes.sweep()
            line = self._opener.open(node, self.limits.socket_connect_timeout, opening)
            if line.identity is not None:
                self.identity = line.identity
            return line

        return make

    def _name(self, node: Node | None) -> str:
        return self.address if node is None else f"{node[0]}:{node[1]}"

    def close(self) -> None:
        """Closes the connections of threads: idle ones now, those in use when they are given back."""
        for pool in list(self.pools.values()):
            pool.retire()
        self._opener.primary = None
        self.homes.sweep()

    def after_fork(self) -> None:
        """In a forked child: nothing that is open is its own."""
        for pool in self.pools.values():
            pool.after_fork()
        self.homes.after_fork()

    def answered(self, breaker: Breaker, node: Node | None, answers: Sequence[Any]) -> None:
        """A node has answered: close its circuit, and look for the primary anew if it has become a replica."""
        if breaker.tripped:
            breaker.answered()
        if self._opener.primary is not None and any(isinstance(answer, ReadOnlyError) for answer in answers):
            self.forget_primary(node)

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
        self.forget_map()
        if self._opener.primary is not None:
            self._opener.primary = None
            if pool is not None:
                pool.retire()
        return failure

    def forget_map(self) -> None:
        """Asks a Cluster for its map anew before the next command."""
        if self.topology is not None:
            self.topology.forget()

    def forget_primary(self, node: Node | None = None) -> None:
        """Asks the sentinels anew where the primary is."""
        self._opener.primary = None
        self.pool(node).retire()
        self.homes.retire(node)
