"""Waiting for a condition, never for a length of time."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["free_port", "wait_until"]

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    what: str,
    *,
    timeout: float = 30.0,
    interval: float = 0.005,
    passing: tuple[type[BaseException], ...] = (),
) -> T:
    """Ask `condition` until its answer is true, and return that answer.

    `timeout` and `interval` are seconds; exceptions of the types `passing` count as "not yet". Raises
    `TimeoutError` that names `what` was waited for and the last exception.
    """
    deadline = time.monotonic() + timeout
    last: BaseException | None = None
    while True:
        try:
            answer = condition()
        except passing as error:
            last = error
        else:
            if answer:
                return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}, in vain") from last
        time.sleep(interval)


def free_port() -> int:
    """A loopback TCP port that nobody held a moment ago; whoever starts on it must be ready to try another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
