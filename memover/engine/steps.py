"""What flows wait for. A flow is a generator that yields steps; `runtime.run` performs them for threads and for asyncio.

    answer = yield from Send(link, commands)

A step is data. Whatever needs no waiting is a plain method call and no step, so a store that never waits (memory) makes
flows that never yield. An exception raised while a step is performed, of any kind, is thrown into the flow at that point.

| step       | performed as                                              | answer                                          |
|------------|-----------------------------------------------------------|-------------------------------------------------|
| `Send`     | commands to servers, sent together                        | their answers; the server's errors among them,  |
|            |                                                           | or what its `read` makes of them                |
| `Run`      | a callable that may block (asyncio: in a worker thread)   | what it returns                                 |
| `Invoke`   | a user's function (asyncio: awaited if it is awaitable)   | what it returns                                 |
| `Sleep`    | a pause in seconds                                        | None                                            |
| `Await`    | waiting until another's load has ended, or for `seconds`  | None                                            |
| `Spawn`    | a flow run behind the caller, who waits `seconds` at most | its result once it has ended, else False or True|
| `Together` | flows run side by side, `limit` at a time                 | their results in order                          |

A method that waits for one step at most may return the step itself, which `yield from` takes as it takes a flow (`Steps`):
that saves a generator for each of a miss's commands.

This module alone contains a bare `yield` of a step; everywhere else it is `yield from`, whose type is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = [
    "POSTED", "Await", "Awaited", "Flow", "Invoke", "Link", "Run", "Send", "Sleep", "Spawn", "Step", "Steps",
    "Together", "itself", "returned",
]  # fmt: skip

T = TypeVar("T")
POSTED: Any = object()
"""The answer of a `Send` whose commands were sent, and whose answers will be told of later."""


def returned(stop: StopIteration) -> Any:
    """What a generator returned. A StopIteration that other code raised meanwhile, a signal handler say, is raised again."""
    if raised_beneath(stop):
        raise stop
    return stop.value


def itself(error: BaseException) -> BaseException:
    """An exception as it was raised: Python makes a RuntimeError of a StopIteration that leaves a generator (PEP 479), and
    flows are generators. One that has left a generator of the user's stays what Python made of it."""
    stop = error.__cause__
    if type(error) is not RuntimeError or not isinstance(stop, StopIteration) or stop.__traceback__ is None:
        return error
    left = stop.__traceback__.tb_frame.f_globals.get("__name__", "")
    return stop if left.startswith("memover.") else error


class Step(Generic[T]):
    """Something to wait for; `T` is the type of its answer."""

    __slots__ = ()

    def __iter__(self) -> Generator[Step[Any], Any, T]:
        answer: T = yield self
        return answer


Flow = Generator[Step[Any], Any, T]
"""A generator of steps that returns T."""
Steps = Flow[T] | Step[T]
"""What `yield from` takes: a flow, or one step."""


def _as_they_are(answers: list[Any]) -> Any:
    return answers


class Link(Protocol):
    """A way to servers, for threads and for asyncio."""

    def exchange(self, step: Send[Any]) -> list[Any]:
        """Performs the step in the calling thread. Raises `StoreError`."""
        ...

    def aexchange(self, step: Send[Any]) -> Awaitable[list[Any]]:
        """Performs the step on the running event loop. Raises `StoreError`."""
        ...


class Send(Step[T]):
    """Sends commands together and reads their answers, in their order; `read` makes of them what the flow is given.

    `urgent` passes an open circuit (invalidations do); `once` forbids sending again what may have been applied. `posted` is
    for an answer that the flow need not wait for: a link may answer `POSTED`, which the flow is then given, and call
    `posted` with the answers when it knows them, or why there are none, from whichever thread."""

    __slots__ = ("commands", "link", "once", "posted", "read", "urgent")

    def __init__(
        self,
        link: Link,
        commands: Sequence[Any],
        read: Callable[[list[Any]], T] = _as_they_are,
        *,
        urgent: bool = False,
        once: bool = False,
    ) -> None:
        self.link = link
        self.commands = commands
        self.read = read
        self.urgent = urgent
        self.once = once
        self.posted: Callable[[list[Any]], None] | None = None

    def __iter__(self) -> Generator[Step[Any], Any, T]:
        answers: list[Any] = yield self
        if answers is POSTED:
            return POSTED  # type: ignore[return-value]  # whoever asks for it knows it
        return self.read(answers)


class Run(Step[T]):
    """Calls something that may block for a while, such as a write to a file that another process has locked."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function


class Invoke(Step[Any]):
    """Calls a user's function in the caller's context. Raises whatever it raises."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None):
        self.function = function
        self.args = args
        self.kwargs: Mapping[str, Any] = {} if kwargs is None else kwargs


class Sleep(Step[None]):
    """Pause for `seconds`."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Awaited(Protocol):
    """What can be waited for by threads and event loops alike: see `runtime.flights`."""

    def join(self, wake: Callable[[], None]) -> bool:
        """Has `wake` called at the end, from whichever thread ends it; False if it has ended already."""
        ...

    def leave(self, wake: Callable[[], None]) -> None:
        """The caller does not wait any more."""
        ...

    def present(self) -> bool:
        """Whether the caller that has to end it is still running."""
        ...


class Await(Step[None]):
    """Waits until a load has ended, until it is clear that nobody will end it, or for `seconds`."""

    __slots__ = ("flight", "seconds")

    def __init__(self, flight: Awaited, seconds: float) -> None:
        self.flight = flight
        self.seconds = seconds


class Spawn(Step["T | bool"]):
    """Runs a flow behind the caller, in a bounded pool, and waits at most `seconds` for it.

    Answer: its result if it ended within that time, True when it goes on without the caller, False when there was no room
    for it. `begun` is called with the presence (`latch.Present`) of whatever runs it; `ended` when it has ended, whatever
    happened, with its result or None."""

    __slots__ = ("begun", "ended", "flow", "pool", "seconds")

    def __init__(
        self,
        flow: Callable[[], Flow[T]],
        pool: Any,
        ended: Callable[[T | None], None],
        seconds: float = 0.0,
        begun: Callable[[Any], None] | None = None,
    ) -> None:
        self.begun = begun
        self.flow = flow
        self.pool = pool
        self.ended = ended
        self.seconds = seconds


class Together(Step["list[T]"]):
    """Runs flows side by side, at most `limit` at a time; the first exception of one is raised when no more is begun.

    `done` is called with the number of flows that have ended since the last call, from the caller's thread or loop."""

    __slots__ = ("done", "flows", "limit")

    def __init__(self, flows: Sequence[Flow[T]], limit: int, done: Callable[[int], None] | None = None) -> None:
        self.flows = flows
        self.limit = limit
        self.done = done
