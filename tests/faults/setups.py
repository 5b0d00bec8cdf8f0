"""What is done to a history's processes before they begin; called in them by name."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from memover.cache import Cache


def clock_that_steps(index: int) -> None:
    """The wall clock jumps by up to two hours, back and forth, twenty times a second, differently in each process."""
    real = time.time
    rng = random.Random(index)
    offset = 0.0

    def step() -> None:
        nonlocal offset
        while True:
            offset = rng.choice((-7200.0, -3600.0, -1.0, 0.0, 1.0, 3600.0, 7200.0))
            time.sleep(0.05)

    time.time = lambda: real() + offset
    threading.Thread(target=step, daemon=True).start()


def observers_that_misbehave(index: int) -> None:
    """One observer is slow and one raises."""
    real = Cache.__init__

    def slow(event: Any) -> None:
        time.sleep(0.0005)

    def raising(event: Any) -> None:
        raise RuntimeError("an observer's own trouble")

    def init(self: Cache, *args: Any, **options: Any) -> None:
        real(self, *args, observers=(slow, raising), **options)

    Cache.__init__ = init  # type: ignore[method-assign]


def tiny_pools(index: int) -> None:
    """Two connections for everybody."""
    real = Cache.__init__

    def init(self: Cache, *args: Any, **options: Any) -> None:
        real(self, *args, max_connections=2, **options)

    Cache.__init__ = init  # type: ignore[method-assign]
