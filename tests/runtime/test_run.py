"""`run` and `arun` perform every kind of step alike, and throw what a step raises, of whatever kind, into the flow."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover.engine.steps import Await, Invoke, Run, Send, Sleep, Spawn, Together
from memover.errors import StoreUnavailable
from memover.runtime.background import RefreshPool
from memover.runtime.flights import Flight
from memover.runtime.run import arun, run
from tests.servers import await_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.steps import Flow


class Outside(BaseException):
    """What a time limit raises: no Exception."""


ERRORS = [
    ValueError("of the function"),
    StoreUnavailable("not there: a test", store="x"),
    KeyboardInterrupt(),
    Outside(),
]


def through(flow: Flow[Any]) -> Any:
    return run(flow)


def through_a_loop(flow: Flow[Any]) -> Any:
    """As `asyncio.run(arun(flow))`, by hand: a KeyboardInterrupt that a task raises ends `asyncio.run` itself."""

    async def whole() -> tuple[bool, Any]:
        try:
            return True, await arun(flow)
        except BaseException as error:
            return False, error

    answered, result = asyncio.run(whole())
    if not answered:
        raise result
    return result


@pytest.fixture(params=[through, through_a_loop], ids=["run", "arun"])
def runner(request: pytest.FixtureRequest) -> Callable[[Flow[Any]], Any]:
    made: Callable[[Flow[Any]], Any] = request.param
    return made


class Server:
    """A link that answers with what it was sent, or raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def exchange(self, step: Send) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [*step.commands, step.urgent, step.once]

    async def aexchange(self, step: Send) -> list[Any]:
        await asyncio.sleep(0)
        return self.exchange(step)


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def just(answer: Any) -> Flow[Any]:
    return answer
    yield


def failing(error: BaseException) -> Flow[Any]:
    raise error
    yield


STEPS: dict[str, tuple[Callable[[], Any], Any]] = {
    "send": (lambda: Send(Server(), ["a", "b"], urgent=True), ["a", "b", True, False]),
    "run": (lambda: Run(lambda: 7), 7),
    "invoke": (lambda: Invoke(lambda a, *, b: (a, b), (1,), {"b": 2}), (1, 2)),
    "sleep": (lambda: Sleep(0.0), None),
    "await": (lambda: Await(ended(), 30.0), None),
    "await in vain": (lambda: Await(Flight(), 0.01), None),
    "together": (lambda: Together([just(1), just(2), just(3)], 2), [1, 2, 3]),
    "together one by one": (lambda: Together([just(1), just(2)], 1), [1, 2]),
    "together nothing": (lambda: Together([], 4), []),
}


def ended() -> Flight:
    flight = Flight()
    flight.end(None)
    return flight


def asking(step: Any) -> Flow[Any]:
    return (yield from step)


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_is_answered(kind: str, runner: Callable[[Flow[Any]], Any]) -> None:
    """Each kind of step has the same answer in a thread and on an event loop."""
    make, answer = STEPS[kind]
    assert runner(asking(make())) == answer


FAILING: dict[str, Callable[[BaseException], Any]] = {
    "send": lambda error: Send(Server(error), ["a"]),
    "run": lambda error: Run(raising(error)),
    "invoke": lambda error: Invoke(raising(error), (1,)),
    "together": lambda error: Together([just(1), failing(error)], 1),
    "together in threads": lambda error: Together([just(1), failing(error), just(3)], 2),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", FAILING)
def test_what_a_step_raises_is_thrown_into_the_flow(
    kind: str, error: BaseException, runner: Callable[[Flow[Any]], Any]
) -> None:
    """A flow can give back what it holds, whatever is raised, and let the exception go on or answer in its place."""
    if runner is through_a_loop and kind.startswith("together") and isinstance(error, KeyboardInterrupt):
        pytest.skip("a KeyboardInterrupt in a task ends the event loop, as asyncio has it")
    given_back: list[BaseException] = []

    def flow(*, answer: bool) -> Flow[Any]:
        try:
            return (yield from FAILING[kind](error))
        except BaseException as raised:
            given_back.append(raised)
            if answer:
                return "instead"
            raise

    assert runner(flow(answer=True)) == "instead"
    with pytest.raises(type(error)) as caught:
        runner(flow(answer=False))
    assert caught.value is error
    assert given_back == [error, error]


def test_a_flow_that_waits_for_nothing_is_run(runner: Callable[[Flow[Any]], Any]) -> None:
    """It returns what it returns and raises what it raises, without a step."""
    assert runner(just(7)) == 7
    with pytest.raises(Outside):
        runner(failing(Outside()))


def test_an_awaitable_is_awaited_on_a_loop_alone() -> None:
    """`Invoke` of an `async def` is its result on an event loop, and the coroutine itself in a thread."""

    async def function(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    assert through_a_loop(asking(Invoke(function, (7,)))) == 14
    coroutine = run(asking(Invoke(function, (7,))))
    assert asyncio.iscoroutine(coroutine)
    coroutine.close()


def test_a_blocking_step_does_not_hold_up_its_loop() -> None:
    """`Run` is called in a worker thread: the loop goes on meanwhile."""

    async def whole() -> bool:
        go_on = threading.Event()
        blocking = asyncio.ensure_future(arun(asking(Run(lambda: go_on.wait(60)))))
        await asyncio.sleep(0)
        go_on.set()
        return bool(await blocking)

    assert asyncio.run(whole())


def test_cancellation_is_thrown_into_the_flow() -> None:
    """A cancelled task's flow ends its steps' work and lets the cancellation go on; its followers leave what they joined."""
    flight, given_back = Flight(), []

    def flow() -> Flow[None]:
        try:
            yield from Await(flight, 3600.0)
        except BaseException as error:
            given_back.append(type(error))
            raise

    async def whole() -> None:
        task = asyncio.ensure_future(arun(flow()))
        await await_until(lambda: flight.callers == 2, "the task to join the flight")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(whole())
    assert given_back == [asyncio.CancelledError]
    assert flight.callers == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers by signal here")
def test_a_signal_is_thrown_into_the_flow() -> None:
    """A handler that raises while a thread waits for another's load: the exception comes through the flow, nobody is left."""
    flight, given_back = Flight(), []

    def strike(*_: Any) -> None:
        raise Outside

    def flow() -> Flow[None]:
        try:
            yield from Await(flight, 3600.0)
        except BaseException as error:
            given_back.append(type(error))
            raise

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Outside):
            run(flow())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert given_back == [Outside]
    assert flight.callers == 1


def test_a_flow_behind_is_answered_within_its_time(runner: Callable[[Flow[Any]], Any]) -> None:
    """`Spawn` answers the result where it is there in time, and tells `ended` of it either way."""
    pool, results = RefreshPool(1), list[Any]()
    assert runner(asking(Spawn(lambda: just(7), pool, results.append, 30.0))) == 7
    assert results == [7]


def test_a_flow_behind_goes_on_without_its_caller() -> None:
    """Where it is not there in time the answer is True, and `ended` is called with the result when it has ended."""
    pool, results, go_on = RefreshPool(1), list[Any](), threading.Event()
    over = threading.Event()

    def slow() -> Flow[int]:
        yield from Run(lambda: go_on.wait(60))
        return 7

    def ended_with(result: int | None) -> None:
        results.append(result)
        over.set()

    assert run(asking(Spawn(slow, pool, ended_with, 0.01))) is True
    assert results == []
    go_on.set()
    assert over.wait(60)

    async def whole() -> None:
        over.clear()
        go_on.clear()
        assert await arun(asking(Spawn(slow, pool, ended_with, 0.01))) is True
        go_on.set()
        await await_until(over.is_set, "the end of what was spawned")

    asyncio.run(whole())
    assert results == [7, 7]


@pytest.mark.parametrize("error", [StoreUnavailable("not there: a test", store="x"), ValueError("a test's")])
def test_a_flow_behind_that_raises_has_ended(error: Exception, runner: Callable[[Flow[Any]], Any]) -> None:
    """`ended` is called with None, and the caller is not hit by what was raised."""
    pool, over = RefreshPool(1), threading.Event()
    results: list[Any] = []

    def ended_with(result: Any) -> None:
        results.append(result)
        over.set()

    assert runner(asking(Spawn(lambda: failing(error), pool, ended_with, 0.05))) is True
    assert over.wait(60)
    assert results == [None]


def test_a_full_pool_says_so(runner: Callable[[Flow[Any]], Any]) -> None:
    """No room: the answer is False, the flow is not begun, and `ended` is called."""
    pool, results, go_on = RefreshPool(1), list[Any](), threading.Event()

    def wait() -> None:
        assert go_on.wait(60)

    while pool.submit(wait):
        pass
    assert runner(asking(Spawn(lambda: failing(AssertionError("begun")), pool, results.append))) is False
    assert results == [None]
    go_on.set()
    assert pool.drain(60)


def test_together_is_bounded_and_counts(runner: Callable[[Flow[Any]], Any]) -> None:
    """Never more than `limit` at a time, results in order, each end counted once."""
    lock, running, most, ends = threading.Lock(), [0], [0], list[int]()

    def one(number: int) -> Flow[int]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        yield from Sleep(0.002)
        with lock:
            running[0] -= 1
        return number

    assert runner(asking(Together([one(n) for n in range(20)], 4, ends.append))) == list(range(20))
    assert 1 <= most[0] <= 4
    assert sum(ends) == 20


def test_after_a_failure_no_more_is_begun() -> None:
    """The first exception is raised; flows that had not begun are not run."""
    begun: list[int] = []

    def one(number: int) -> Flow[int]:
        begun.append(number)
        if number == 1:
            raise ValueError("a test's")
        return number
        yield

    with pytest.raises(ValueError, match="a test's"):
        run(asking(Together([one(n) for n in range(50)], 1)))
    assert begun == [0, 1]
