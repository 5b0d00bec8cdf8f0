"""The limits of an SQLite store: how long, how much."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """`max_bytes`: what the file may take, least recently used out first (the write-ahead log comes on top of it: a few
    MB; and for a moment a 32nd of it, 1 MiB at most, and an entry for each process that writes). `lock_timeout`: seconds that one call may wait for a lock that somebody else holds, all its steps together.
    `breaker_first_seconds`, `breaker_last_seconds`: for how long writes are not tried after that, at first and at most.
    """

    max_bytes: int = 1 << 30
    lock_timeout: float = 0.25
    breaker_first_seconds: float = 0.25
    breaker_last_seconds: float = 2.0
