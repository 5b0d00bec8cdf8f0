"""Waiting for another caller's load, in a thread and in a task: until it has ended, or nobody is at work on it any more."""

from __future__ import annotations

from _thread import allocate_lock
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.errors import raised_by_handler
from memover.later import later

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from memover.engine.steps import Await
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["aawait_flight", "await_flight", "bell_and_wake"]

_CHECK_SECONDS = 0.5
"""How often a caller that waits for a load checks whether the load's owner is still running it."""


def await_flight(step: Await) -> None:
    flight = step.flight
    bell, wake = bell_and_wake()
    if not flight.join(wake):
        return
    try:
        end = monotonic() + step.seconds
        while flight.present() and (left := end - monotonic()) > 0:
            if bell.acquire(True, min(left, _CHECK_SECONDS)):
                return
    finally:
        flight.leave(wake)


async def aawait_flight(step: Await) -> None:
    flight, loop = step.flight, asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    woken = False

    def ring() -> None:
        if not turn.done():
            turn.set_result(None)

    def wake() -> None:
        nonlocal woken
        woken = True
        if asyncio._get_running_loop() is loop:
            ring()  # without a byte through the loop's pipe for each of very many that wait
            return
        try:
            loop.call_soon_threadsafe(ring)
        except RuntimeError as error:  # that loop has been closed: nobody waits there any more
            if raised_by_handler(error):
                raise

    if not flight.join(wake):
        return
    try:
        end = monotonic() + step.seconds
        while not woken and flight.present() and (left := end - monotonic()) > 0:
            timer = loop.call_later(min(left, _CHECK_SECONDS), ring)
            try:
                await turn
            finally:
                timer.cancel()
            turn = loop.create_future()
    finally:
        flight.leave(wake)


def bell_and_wake() -> tuple[Any, Callable[[], None]]:
    """A lock that is held, and what releases it once. `threading.Event` is not used: an exception from outside inside its
    Python code would leave it locked."""
    bell = allocate_lock()
    bell.acquire()

    def wake() -> None:
        try:
            bell.release()
        except RuntimeError as error:  # it rang already
            if raised_by_handler(error):
                raise

    return bell, wake
