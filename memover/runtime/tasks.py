"""Holds on to the tasks in which loads run: an event loop keeps only weak references to its tasks.

Tasks of a loop that was closed with them pending will never end. They are let go of when another task is noted, or when
the background thread looks through the leases.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from memover.later import later
from memover.loops import stranded
from memover.runtime.background import sweep_pools

if TYPE_CHECKING:
    import asyncio

    from memover.runtime.state import CacheState
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["drain", "keep", "sweep"]

_tasks: dict[asyncio.Task[Any], CacheState] = {}
_loops: dict[int, weakref.ref[asyncio.AbstractEventLoop]] = {}


def keep(task: asyncio.Task[Any], state: CacheState) -> None:
    """Holds on to a task until it is done."""
    loop = task.get_loop()
    known = _loops.get(id(loop))
    if known is None or known() is not loop:
        sweep()
        _loops[id(loop)] = weakref.ref(loop)
    _tasks[task] = state
    task.add_done_callback(_done)


def _done(task: asyncio.Task[Any]) -> None:
    _tasks.pop(task, None)


def sweep() -> None:
    """Lets go of the tasks of closed loops, refreshes among them."""
    sweep_pools()
    closed = {at for at, known in _loops.copy().items() if (loop := known()) is None or loop.is_closed()}
    if not closed:
        return
    for at in closed:
        _loops.pop(at, None)
    for task in list(_tasks):
        if stranded(task):
            _tasks.pop(task, None)


async def drain(state: CacheState) -> None:
    """Waits for what the running loop still does for a cache."""
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    loads = [task for task, owner in _tasks.copy().items() if owner is state]
    mine = [task for task in (*loads, *state.refreshes.tasks()) if task.get_loop() is loop]
    if waiting := [task for task in mine if task is not current]:
        await asyncio.wait(waiting)
