"""The limits of a Redis store: how long, how many."""

from __future__ import annotations

from dataclasses import dataclass

from memover.stores.redis.breaker import Breaker

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Seconds for an answer, seconds for a connection, connections per server (and per event loop), and for how long
    a server that did not answer is left alone: at first, and at most, in seconds. And how many replicas an
    invalidation waits for."""

    socket_timeout: float
    socket_connect_timeout: float
    max_connections: int
    breaker_first_seconds: float
    breaker_last_seconds: float
    wait_replicas: int = 0

    @property
    def replicas_ms(self) -> int:
        """For how long the server may wait for replicas: what remains of the budget is for its answer."""
        return max(1, int(self.socket_timeout * 600))

    def breaker(self, address: str) -> Breaker:
        return Breaker(address, first_seconds=self.breaker_first_seconds, last_seconds=self.breaker_last_seconds)
