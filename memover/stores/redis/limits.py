"""The limits of a Redis store: how long, how many."""

from __future__ import annotations

from dataclasses import dataclass

from memover.stores.breaker import Breaker

__all__ = ["FLOOR_BYTES", "FLOOR_COMMANDS", "LARGE_BYTES", "Limits"]

FLOOR_BYTES = 1 << 20
"""The least throughput: an exchange may take one more `socket_timeout` for each so many bytes that it moves."""
FLOOR_COMMANDS = 256
"""And one more for each so many commands that the server answers before it, or as a part of it."""
LARGE_BYTES = 1 << 16
"""Values above this size go on a connection of their own under asyncio, so that small ones need not wait for them."""


@dataclass(frozen=True)
class Limits:
    """Seconds for an answer, seconds for a connection, connections per server (and per event loop), and for how long
    a server that did not answer is left alone: at first, and at most, in seconds. And how many replicas an
    invalidation waits for, and in how many shards a generation stands on a Cluster."""

    socket_timeout: float
    socket_connect_timeout: float
    max_connections: int
    breaker_first_seconds: float
    breaker_last_seconds: float
    wait_replicas: int = 0
    generation_shards: int = 1

    @property
    def replicas_ms(self) -> int:
        """For how long the server may wait for replicas: what remains of the budget is for its answer."""
        return max(1, int(self.socket_timeout * 600))

    def seconds_for(self, size: int, commands: int = 1) -> float:
        """How long an exchange of `size` bytes may take in all, connecting included.

        Once `socket_timeout`, and more for what takes long although the server is well: see FLOOR_BYTES."""
        return self.socket_timeout * (1 + size / FLOOR_BYTES + (commands - 1) / FLOOR_COMMANDS)

    def breaker(self, address: str) -> Breaker:
        """A new circuit breaker for one server."""
        return Breaker(address, first_seconds=self.breaker_first_seconds, last_seconds=self.breaker_last_seconds)
