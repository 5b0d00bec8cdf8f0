"""Waiting for a condition, never for a length of time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["await_until", "free_port", "wait_until"]

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


async def await_until(condition: Callable[[], T], what: str, *, timeout: float = 30.0, interval: float = 0.001) -> T:
    """As `wait_until`, on an event loop."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}, in vain")
        await asyncio.sleep(interval)
    return answer


# Below the ports that systems give to outgoing connections (Linux from 32,768, macOS from 49,152), so that no
# client takes the port of a server that is being restarted; begun anywhere, so that two test runs rarely meet.
_PORTS = range(10_240, 32_768)
_next_port = random.randrange(len(_PORTS))


def free_port() -> int:
    """A loopback TCP port that is free now; who starts a server on it must be ready to try another.

    The ports of one process follow one another, so that one is not given out again while its server is restarting.
    """
    global _next_port
    for _ in range(len(_PORTS)):
        port = _PORTS[_next_port]
        _next_port = (_next_port + 1) % len(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no loopback port is free")
