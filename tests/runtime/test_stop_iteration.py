"""P17: StopIteration, StopAsyncIteration and GeneratorExit reach the caller as themselves, though flows are generators."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.engine.steps import Send, Sleep
from memover.runtime.run import run
from tests.face.ways import SYNC, Way, ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.steps import Flow

way = ways(Way, SYNC)

STOPS = (StopIteration, StopAsyncIteration, GeneratorExit)


def calls(way: Way, fail: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The ways to a function that raises, and the places of other code of the user's."""

    def fine(x: int) -> list[int]:
        return [x]

    def nested() -> Any:
        inner = way.cached()(lambda x: fail())
        return way.cached()(lambda x: [inner(x)])(1)

    def calling_itself() -> Any:
        @way.cached()
        def f(x: int) -> Any:
            return f(x - 1) if x else fail()

        return f(5)

    def batch() -> Any:
        f = way.cached()(fine)
        f.batch_load(lambda calls: fail())
        return f.map([1, 2])

    def bypassing() -> Any:
        @way.cached()
        def f(x: int, again: bool = False) -> Any:
            inside.append(x)
            return fail() if len(inside) > 1 else f(x)

        inside: list[int] = []
        return f(1)

    def again() -> Any:
        f = way.cached(cache_errors=(Exception,), error_ttl=60)(lambda x: fail())
        with pytest.raises((*STOPS, RuntimeError)):
            f(1)
        return f(1)

    class Keyed:
        def __memover_key__(self) -> Any:
            return fail()

    return {
        "a call": lambda: way.cached()(lambda x: fail())(1),
        "a call with windows": lambda: way.cached(stale_if_error=9)(lambda x: fail())(1),
        "a cached error": again,
        "refresh": lambda: way.cached()(lambda x: fail()).refresh(1),
        "max_age": lambda: way.cached()(lambda x: fail()).max_age(1)(1),
        "map": lambda: way.cached()(lambda x: fail()).map([1, 2]),
        "a batch": batch,
        "a call in a call": nested,
        "a call of itself": calling_itself,
        "the same call in itself": bypassing,
        "get_or_set": lambda: way.cache.get_or_set("k", fail),
        "key=": lambda: way.cached(key=lambda x: fail())(fine)(1),
        "ttl=": lambda: way.cached(ttl=lambda result, call: fail())(fine)(1),
        "ttl=, in set": lambda: way.cached(ttl=lambda result, call: fail())(fine).set([1], 1),
        "cache_if=": lambda: way.cached(cache_if=lambda result, call: fail())(fine)(1),
        "tags=": lambda: way.cached(tags=lambda call: fail())(fine)(1),
        "__memover_key__": lambda: way.cached()(fine)(Keyed()),
    }


PLACES = list(calls(Way("memory://", is_async=False, prefix="names"), lambda: None))


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("place", PLACES)
def test_what_code_of_the_user_raises_reaches_the_caller(place: str, stop: type[BaseException], way: Way) -> None:
    """With its arguments and without another around it."""
    if stop is GeneratorExit and place == "a cached error":
        return  # no Exception
    error = stop("mine")

    def fail(*args: Any) -> Any:
        raise error

    with pytest.raises(stop) as caught:
        calls(way, fail)[place]()
    assert caught.value.args == ("mine",)
    assert caught.value.__cause__ is None


def test_what_python_makes_of_a_stop_in_a_generator_of_the_user_stays(way: Way) -> None:
    """The RuntimeError is what the function raises."""

    def generator() -> Any:
        yield next(iter(()))

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        way.cached()(lambda x: list(generator()))(1)
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        way.cache.get_or_set("k", lambda: list(generator()))


def test_an_observer_that_raises_one_is_reported(way: Way) -> None:
    """Like any other error of an observer: the call has its result."""

    def observe(event: Any) -> None:
        raise StopIteration("mine")

    cache = way.new_cache(observers=[observe])
    f: Any = cache.versioned(namespace="observed")(lambda x: [x])
    assert f(1) == f(1) == [1]


def test_one_that_a_signal_handler_raises_is_never_taken_for_a_result(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every third line of the flows and their runner, during a miss, a set, a refresh and an invalidation."""

    def handler(*_: Any) -> None:
        raise StopIteration("mine")

    unraisable: list[Any] = []  # raised while the generators of an earlier strike were closed: nobody could be given it
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    f: Any = way.cached()(lambda x: [x])

    def strike(act: Callable[[], Any], left: int) -> bool:
        """Whether the signal came before the act was over."""
        unraisable.clear()

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal left
            name = frame.f_globals.get("__name__", "")
            # From 3.12 on, the first line of a generator expression is told of before what makes a RuntimeError of a StopIteration
            # is in force. No signal handler is run there.
            if frame.f_code.co_name == "<genexpr>" or not name.startswith(
                ("memover.runtime.run", "memover.engine", "memover.stores.redis.asking")
            ):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGUSR1)
            return trace

        sys.settrace(trace)
        raised: BaseException | None = None
        try:
            act()
        except BaseException as error:
            raised = error
        finally:
            sys.settrace(None)
        if left >= 0:
            return False
        assert type(raised) is StopIteration or unraisable, f"a strike came out as {raised!r}"
        return True

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        for act in (lambda: f(1), lambda: f.set([1], 1), lambda: f.refresh(1), lambda: f.invalidate(1)):
            f.invalidate(1)
            at = 0
            while strike(act, at):
                at += 3
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_concurrent_map_that_is_left_by_generator_exit() -> None:
    """Nothing is awaited behind it."""
    with Cache("memory://") as cache:

        @cache.versioned(namespace="f")
        async def f(x: int) -> Any:
            raise GeneratorExit("mine")

        with pytest.raises(GeneratorExit, match="mine"):
            asyncio.run(f.map([1, 2]))


def test_a_step_that_raises_one_is_no_end_of_the_flow() -> None:
    """The flow sees it where it stands, and its runner raises it."""

    class Link:
        def exchange(self, step: Any) -> Any:
            raise StopIteration("mine")

    def flow() -> Flow[str]:
        yield from Sleep(0)
        yield from Send(Link(), [])  # type: ignore[arg-type]
        return "the end"

    with pytest.raises(StopIteration, match="mine"):
        run(flow())
