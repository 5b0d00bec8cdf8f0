"""What follows a call that was not served at once (`bare` says which are), run by `drive` or `adrive`:

* a `def` function's call runs in the caller's thread;
* an `async def` function's call runs in a task of its own, so that the caller who happened to come first can be
  cancelled without taking down those who wait for its load; when the last of them is gone, the load is cancelled too.
"""

from __future__ import annotations

from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from memover.engine import load as flows
from memover.engine.answers import Outcome
from memover.engine.steps import Invoke, itself
from memover.errors import StoreError, raised_by_handler
from memover.latch import TaskPresence
from memover.later import later
from memover.loops import running_loop
from memover.model import Source
from memover.runtime.dependencies import INSIDE, current, is_loading
from memover.runtime.near import behind_tier
from memover.runtime.results import aevaluated, evaluated, evaluating, unwrapped
from memover.runtime.run import arun, run
from memover.runtime.tasks import keep

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from memover.engine.answers import Marks
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.engine.store import Seen
    from memover.model import Key
    from memover.runtime.function import Function
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["aabsent", "absent", "arun_helper", "adrive", "ageneral", "run_helper", "drive", "general", "result_of"]

T = TypeVar("T")

_function_of: Callable[[CachedCall], Function] = attrgetter("function")
"""A call's function. The engine knows a protocol of it; here it is always one of `runtime.function`."""

# -- what follows -------------------------------------------------------------------------------------------------------------


def _flow_after(call: CachedCall, error: StoreError | None, seen: Seen | None) -> Flow[Outcome]:
    """The flow of a call after a read that did not serve it."""
    if error is not None:
        return flows.storeless(call, error, call.function.arrive())
    assert seen is not None, "there is an answer or an error"
    return flows.resolve(call, call.reading(seen))


def absent(
    function: Function,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: StoreError | None,
    seen: Seen | None,
    began: float,
) -> Any:
    """What follows a read that did not serve the call."""
    call = function.call(key, args, kwargs)
    if INSIDE.get() is not None and is_loading(function, key.entry):
        return bypass(function, call)
    return settled(run(_flow_after(call, error, seen), call), call, began)


async def aabsent(
    function: Function,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: StoreError | None,
    seen: Seen | None,
    began: float,
) -> Any:
    """As `absent`, awaited."""
    call = function.call(key, args, kwargs)
    if is_loading(function, key.entry):
        return await abypass(function, call)
    if seen is None or seen.raw is not None or function.soft_name is not None or INSIDE.get() is not None:
        return await adrive(_flow_after(call, error, seen), call, began)
    # With no entry and no stale window, the next thing that the call does is to ask for the lease.
    flight = function.coming.get((key.entry, running_loop(_function_of(call).name)))
    if flight is None or not flight.present():
        return await adrive(_flow_after(call, error, seen), call, began, first=True)
    deadline = function.monotonic() + function.wait_seconds
    call.found_nothing(call.reading(seen))
    shared = await arun(flows.joined(call, flight, deadline))
    if shared is None:
        return await adrive(flows.obtain(call, deadline), call, began)
    return settled(shared, call, began)


def general(
    function: Function,
    lookup: Callable[..., Key],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    max_age: float | None = None,
) -> Any:
    """The call as one whole flow: observed, disabled, limited in age, inside a load, or under a pending invalidation."""
    if function.observers.disabled():
        function.disabled()
        return unwrapped(evaluated(function.function(*args, **kwargs)))
    began = perf_counter()
    call = function.call(lookup(*args, **kwargs), args, kwargs, max_age)
    if is_loading(function, call.key.entry):
        return bypass(function, call)
    if function.observers.spanning:
        with function.span("lookup", call.key.text):
            return drive(_whole(call), call, began)
    return drive(_whole(call), call, began)


def _whole(call: CachedCall) -> Flow[Outcome]:
    function = _function_of(call)
    return flows.get(call) if function.near is None else behind_tier(call, flows.get)


async def ageneral(
    function: Function,
    lookup: Callable[..., Key],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    max_age: float | None = None,
) -> Any:
    """As `general`, awaited. Only what is not served at once gets a task of its own."""
    if function.observers.disabled():
        function.disabled()
        return unwrapped(await aevaluated(await function.function(*args, **kwargs)))
    began = perf_counter()
    call = function.call(lookup(*args, **kwargs), args, kwargs, max_age)
    if is_loading(function, call.key.entry):
        return await abypass(function, call)
    if function.observers.spanning:
        with function.span("lookup", call.key.text):
            return await _served_or_flown(function, call, began)
    return await _served_or_flown(function, call, began)


async def _served_or_flown(function: Function, call: CachedCall, began: float) -> Any:
    if call.closed():
        return await adrive(flows.get(call), call, began)
    try:
        found = await arun(flows.served(call) if function.near is None else behind_tier(call, flows.served))
    except StoreError as error:
        return await adrive(flows.storeless(call, error, function.arrive()), call, began)
    if found is None:
        return await adrive(flows.miss(call), call, began)
    function.looked_up(call, found, perf_counter() - began)
    return result_of(found)


def _own_tokens(call: CachedCall) -> tuple[bytes, ...]:
    """The tokens that stand for a call of a function inside a load of its own, in the loads between the two; () where no
    load between them tracks what it uses."""
    inside = current()
    function = call.function
    if call.collector is None or inside is None:
        return ()
    if inside.is_of(function, call.key.entry):
        return ()
    return (*call.names, function.call_name(call.key))


def bypassed(call: CachedCall) -> Flow[None]:
    """Has the loads that a call is inside of depend on it, although it runs its function itself."""
    function, collector, names = call.function, call.collector, _own_tokens(call)
    if collector is None or not names:
        return
    marks: Marks | None = None
    try:
        tokens = yield from call.ensure(names)
        if not function.late:
            marks = (*zip(names, tokens), function.version_mark)
    except StoreError as error:
        function.store_failed(call.key, error)
    collector.use(marks)


def bypassing(call: CachedCall) -> Flow[Outcome]:
    """The function itself, for a call inside a load of its own: to wait for that load would be to wait for oneself."""
    function = _function_of(call)
    yield from bypassed(call)
    try:
        value = yield from Invoke(function.function, call.args, call.kwargs)
        value = unwrapped((yield from evaluating(value, awaited=function.is_async)))
    except BaseException as error:
        return Outcome(error=itself(error), source=Source.BYPASSED)
    return Outcome(value, source=Source.BYPASSED)


def bypass(function: Function, call: CachedCall) -> Any:
    """Runs the function itself for a call whose key is known, and counts it."""
    return drive(bypassing(call), call, perf_counter())


async def abypass(function: Function, call: CachedCall) -> Any:
    """As `bypass`, awaited in the caller's own task."""
    began = perf_counter()
    return settled(await arun(bypassing(call)), call, began)


def inside_a_load(call: CachedCall) -> Flow[Outcome]:
    """The whole flow of a call that a load makes."""
    return bypassing(call) if is_loading(call.function, call.key.entry) else flows.get(call)


# -- running a call's flow ----------------------------------------------------------------------------------------------------


def result_of(outcome: Outcome) -> Any:
    """The outcome's value, or its error raised."""
    error = outcome.error
    if error is None:
        return outcome.value
    try:
        raise error
    finally:
        del error, outcome  # the traceback refers to this frame


def drive(flow: Flow[Outcome], call: CachedCall, began: float, *, lookup: bool = True) -> Any:
    """Runs a call's flow in this thread, lets those go on who wait for it, and returns or raises what it came to. It is counted
    as a `lookup` or not at all."""
    call.counted = not lookup
    return settled(run(flow, call), call, began, lookup=lookup)


def settled(outcome: Outcome, call: CachedCall, began: float, *, lookup: bool = True) -> Any:
    """Counts a call that is over, and returns or raises what it came to."""
    function = _function_of(call)
    if lookup:
        function.looked_up(call, outcome, perf_counter() - began)
    else:
        call.hand_on(outcome)
    try:
        return result_of(outcome)
    finally:
        del outcome  # its error's traceback refers to this frame


async def adrive(
    flow: Flow[Outcome], call: CachedCall, began: float, *, lookup: bool = True, first: bool = False
) -> Any:
    """Runs a call's flow in a task of its own and returns or raises what it came to. `first`: until its first step, others may
    join it (see `engine.follow.joined`)."""
    loop = running_loop(_function_of(call).name)
    call.counted = not lookup
    task = loop.create_task(_fly(flow, call))
    call.presence = call.flight.presence = TaskPresence(task, loop)
    function = _function_of(call)
    keep(task, function.state)

    def abandon() -> None:
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError as error:  # the loop is closed, and the task went with it
            if raised_by_handler(error):
                raise

    call.flight.abandon = abandon
    if first and not call.token:  # else the loop's task factory is an eager one, and the lease has been asked for
        function.coming[call.key.entry, loop] = call.flight
    try:
        outcome = await asyncio.shield(task)
    except BaseException as error:
        call.left = True  # the task counts the call at its end
        if task.done():
            function.finish(call, None if task.cancelled() or task.exception() is not None else task.result())
        elif isinstance(error, asyncio.CancelledError):
            call.flight.leave()  # cancels the task if nobody else waits for it
            if not call.flight.callers:
                # The function may have something to clean up; its caller goes on when it has, as without a cache.
                task.cancel()
                await asyncio.wait({task})
        raise
    finally:
        if first:
            function.set_off(call, loop)  # a task that is cancelled before its first step never comes to that
    if lookup:
        function.looked_up(call, outcome, perf_counter() - began)
    else:
        call.hand_on(outcome)
    try:
        return result_of(outcome)
    finally:
        del outcome  # its error's traceback refers to this frame


async def _fly(flow: Flow[Outcome], call: CachedCall) -> Outcome:
    outcome: Outcome | None = None
    function = _function_of(call)
    function.set_off(call, asyncio.get_running_loop())
    try:
        outcome = await arun(flow)
        return outcome
    finally:
        function.finish(call, outcome)


def run_helper(flow: Flow[T], call: CachedCall) -> T:
    """Runs a helper's flow in this thread, and lets those go on who may have waited for it."""
    return run(flow, call)


async def arun_helper(flow: Flow[T], call: CachedCall) -> T:
    """As `run_helper`, awaited."""
    running_loop(_function_of(call).name)
    call.presence = call.flight.presence = presence = TaskPresence.of_current()
    function = _function_of(call)
    try:
        return await arun(flow)
    finally:
        function.finish(call, None)
        presence.forget()
