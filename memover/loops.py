"""The running event loop: asyncio's, or an error that says so, and its worker threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from memover.errors import raised_beneath, raised_by_handler
from memover.later import later

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["in_thread", "running_loop", "stranded"]

T = TypeVar("T")


def stranded(task: asyncio.Task[Any]) -> bool:
    """Whether a task's loop is closed, so that nobody can run it to its end; asyncio then need not complain of it either."""
    closed = task.get_loop().is_closed()
    if closed:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    return closed


def running_loop(what: str = "An `async def` function") -> asyncio.AbstractEventLoop:
    """The running event loop. Raises `RuntimeError` that says what is supported where there is none of asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        if raised_beneath(error):
            raise
        raise RuntimeError(
            f"{what} was awaited without a running asyncio event loop. memover's `async def` functions run under "
            f"asyncio only (and uvloop): not under trio, nor under anyio on its trio backend."
        ) from None


async def in_thread(function: Callable[[], T]) -> T:
    """Runs a blocking callable in a worker thread of the running loop and returns what it returns, or raises what it raises.

    While the interpreter ends no thread can be started any more: then, and where the executor has been shut down, it runs
    in the loop's own thread. Raises `RuntimeError` outside asyncio.
    """
    loop = running_loop()
    if not threading.main_thread().is_alive():
        return function()  # an executor that is made now fails again when the loop is closed
    turn = [None]  # who pops it runs the function: an executor that fails may have queued its work all the same

    def work() -> T:
        turn.pop()
        return function()

    try:
        waiting = loop.run_in_executor(None, work)
    except RuntimeError as error:
        if not turn or raised_by_handler(error):
            raise
        turn.pop()
        return function()
    return await waiting
