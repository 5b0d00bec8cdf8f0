"""The machine's clock, which all processes of a file share; frozen by nothing, as Redis's is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.clocks import ACTUAL

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["time_ms", "time_us"]


def time_ms(_clock: Callable[[], int] = ACTUAL.nanoseconds) -> int:
    """Milliseconds since the epoch."""
    return _clock() // 1_000_000


def time_us(_clock: Callable[[], int] = ACTUAL.nanoseconds) -> int:
    """Microseconds since the epoch."""
    return _clock() // 1000
