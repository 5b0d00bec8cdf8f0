"""Runs flows: `run` in the calling thread, `arun` on the running event loop, side by side.

Each kind of step is performed by one function for threads and by one for asyncio. What a step raises, of whatever kind,
is thrown into the flow, so that it can give back what it holds and let the exception go on (P17).
"""

from __future__ import annotations

import sys
import time
from _thread import start_new_thread
from collections import deque
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from memover.engine.answers import Outcome
from memover.engine.steps import Await, Invoke, Run, Send, Sleep, Spawn, Together, itself, returned
from memover.errors import StoreError, raised_beneath, raised_by_handler
from memover.latch import FramePresence, TaskPresence, inside_section
from memover.later import later
from memover.loops import in_thread
from memover.runtime.waiting import aawait_flight, await_flight, bell_and_wake

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow, Steps
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["arun", "run"]

T = TypeVar("T")

_CHECK_SECONDS = 0.5
"""How often a caller that waits for threads checks whether they are still running."""


def run(steps: Steps[T], call: CachedCall | None = None) -> T:
    """Runs a flow to its end in the calling thread and returns what it returns, or raises what it raises.

    A `call` whose flow it is counts as present while this function runs, and is finished when it ends: its followers go on.
    The user's function is called from here while the flow is suspended."""
    flow = iter(steps)
    done: Any = None
    stopped: BaseException | None = None
    presence = None
    if call is not None:
        call.presence = call.flight.presence = presence = FramePresence()
    try:
        step = next(flow)
        while True:
            try:
                kind = step.__class__
                if kind is Send:
                    answer = step.link.exchange(step)  # type: ignore[attr-defined]
                elif kind is Invoke:
                    answer = step.function(*step.args, **step.kwargs)  # type: ignore[attr-defined]
                else:
                    answer = _PERFORM[kind](step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        done = returned(stop)
        return done  # type: ignore[no-any-return]
    except RuntimeError as error:
        stopped = itself(error)
        if stopped is error:
            stopped = None
            raise
    finally:
        if call is not None:
            call.function.finish(call, done if done.__class__ is Outcome else None)
            presence.forget()  # type: ignore[union-attr]
        del done  # its error's traceback refers to this frame
    try:
        raise stopped
    finally:
        del stopped


async def arun(steps: Steps[T]) -> T:
    """As `run`, awaiting what has to be waited for."""
    flow = iter(steps)
    try:
        step = next(flow)
        while True:
            try:
                kind = step.__class__
                if kind is Send:
                    answer = await step.link.aexchange(step)  # type: ignore[attr-defined]
                else:
                    answer = await _APERFORM[kind](step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = returned(stop)
        return result


# -- behind the caller --------------------------------------------------------------------------------------------------------


def _spawn(step: Spawn[T]) -> T | bool:
    bell, wake = bell_and_wake()
    result: T | None = None

    def work() -> None:
        nonlocal result
        presence = FramePresence()
        try:
            if step.begun is not None:
                step.begun(presence)
            result = run(step.flow())
        except StoreError:
            pass  # counted where it was raised; nobody waits for this result
        finally:
            step.ended(result)
            presence.forget()
            wake()

    context = copy_context()
    if not step.pool.submit(lambda: context.run(work)):
        step.ended(None)
        return False
    if step.seconds and bell.acquire(True, step.seconds) and result is not None:
        return result
    return True


async def _aspawn(step: Spawn[T]) -> T | bool:
    if not step.pool.room():
        step.ended(None)
        return False
    result: T | None = None

    async def work() -> None:
        nonlocal result
        try:
            result = await arun(step.flow())
        except StoreError:
            pass

    # `ended` is a callback and not a `finally`: a task that is cancelled before its first step never comes to that.
    loop = asyncio.get_running_loop()
    task = loop.create_task(work())
    if step.begun is not None:
        step.begun(TaskPresence(task, loop))  # before its first step: the loop may be closed before that
    step.pool.keep(task)
    task.add_done_callback(lambda _: step.ended(result))
    if step.seconds:
        await asyncio.wait({task}, timeout=step.seconds)
        if result is not None:
            return result
    return True


# -- side by side -------------------------------------------------------------------------------------------------------------


def _together(step: Together[T]) -> list[T]:
    flows, done = step.flows, step.done
    results: list[Any] = [None] * len(flows)
    waiting = deque(enumerate(flows))
    # A queue written in C: an exception from outside cannot leave it locked, as it can a condition or an executor.
    ended: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            while True:
                at, flow = waiting.popleft()
                try:
                    ended.put((at, run(flow), None))
                except BaseException as error:
                    waiting.clear()
                    ended.put((at, None, error))
        except IndexError as empty:
            if raised_beneath(empty):
                raise

    threads: list[int] = []
    # A handler that interrupted a section of its own thread does the work itself: workers might wait for that section.
    if step.limit > 1 and len(flows) > 1 and not inside_section():
        for _ in range(min(step.limit, len(flows))):
            try:
                threads.append(start_new_thread(copy_context().run, (work,)))
            except RuntimeError as fault:  # the system gives no more threads: the caller's own does the rest
                if raised_by_handler(fault):
                    raise
                break
    if not threads:
        work()
    failure: BaseException | None = None
    missing = len(flows)
    try:
        while missing:
            try:
                at, result, error = ended.get(timeout=_CHECK_SECONDS)
            except Empty:
                # Each worker reports every flow it takes, unless something from outside ended its thread.
                if _any_alive(threads) or not ended.empty():
                    continue
                if failure is None and waiting:
                    threads.clear()
                    work()
                    continue
                break
            missing -= 1
            results[at] = result
            failure = failure or error
            if error is not None:
                missing -= len(waiting)
                waiting.clear()
            elif done is not None:
                done(1)
            if failure is not None and not _any_alive(threads) and ended.empty():
                break
    finally:
        waiting.clear()  # interrupted: no more is begun
    if failure is not None:
        raise failure
    if missing:
        raise RuntimeError(f"{missing} of {len(flows)} calls were not answered: their threads were ended from outside")
    return results


def _any_alive(threads: list[int]) -> bool:
    running = sys._current_frames()
    return any(thread in running for thread in threads)


async def _atogether(step: Together[T]) -> list[T]:
    room, done, stopped = asyncio.Semaphore(step.limit), step.done, False

    async def one(flow: Flow[T]) -> T:
        nonlocal stopped
        async with room:
            if stopped:  # the room that this one got is that of one which was cancelled, or interrupted
                raise asyncio.CancelledError
            try:
                result = await arun(flow)
            except BaseException:
                stopped = True
                raise
        if done is not None:
            done(1)
        return result

    tasks = [asyncio.ensure_future(one(flow)) for flow in step.flows]
    closing = False
    try:
        return [await task for task in tasks]
    except GeneratorExit:  # behind which nothing can be awaited
        closing = True
        raise
    finally:
        for task in tasks:
            task.cancel()
        if tasks and not closing:
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ainvoke(step: Invoke) -> Any:
    answer = step.function(*step.args, **step.kwargs)
    return await answer if hasattr(answer, "__await__") else answer


_PERFORM: dict[type, Callable[[Any], Any]] = {
    Run: lambda step: step.function(),
    Sleep: lambda step: time.sleep(step.seconds),
    Await: await_flight,
    Spawn: _spawn,
    Together: _together,
}
_APERFORM: dict[type, Callable[[Any], Awaitable[Any]]] = {
    Run: lambda step: in_thread(step.function),
    Invoke: _ainvoke,
    Sleep: lambda step: asyncio.sleep(step.seconds),
    Await: aawait_flight,
    Spawn: _aspawn,
    Together: _atogether,
}
