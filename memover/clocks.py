"""The clocks. Freshness follows `time.time`, which a test may freeze; waiting, leases and timeouts follow a
monotonic clock that a frozen test does not stop, or a waiter in such a test would wait for ever.

freezegun replaces module attributes; a clock held as a default argument is out of its reach, and one that is looked up while
it freezes is its own. time-machine replaces what `time.time` does, and leaves the object.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ACTUAL", "boottime", "is_real", "monotonic", "real", "wall"]

real = time.time if type(time.time) is BuiltinFunctionType else None
"""The wall clock itself: what `time.time` is while nobody has put another in its place. None, which it never is, where a test
had frozen it before memover was imported."""
_steady: Callable[[], float] = (
    time.monotonic
    if type(time.monotonic) is BuiltinFunctionType or not hasattr(time, "CLOCK_MONOTONIC")
    else partial(time.clock_gettime, time.CLOCK_MONOTONIC)  # the same clock, by a name that freezegun does not know
)


class _Actual(NamedTuple):
    nanoseconds: Callable[[], int]


ACTUAL = _Actual(
    time.time_ns
    if type(time.time_ns) is BuiltinFunctionType or not hasattr(time, "CLOCK_REALTIME")
    else partial(time.clock_gettime_ns, time.CLOCK_REALTIME)
)
"""Nanoseconds since the epoch, frozen by nothing, for a default argument: a store in this process or on this machine goes by them,
as a server goes by a clock of its own. freezegun does not look for clocks inside of objects."""


def wall() -> float:
    """Seconds since the epoch as the process sees them, looked up anew each time so that it can be frozen."""
    return time.time()


def is_real() -> bool:
    """Whether `wall` follows the wall clock itself."""
    return time.time is real and "time_machine" not in sys.modules


def monotonic(_clock: Callable[[], float] = _steady) -> float:
    """Seconds that only grow, frozen by nothing."""
    return _clock()


boottime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else _steady
)
"""Seconds that only grow, frozen by nothing, and go on while the machine is suspended (Linux, clock_gettime(2)): for ages
that are promised. Where there is no such clock, `time.monotonic`."""
