"""P17: a signal handler may raise what memover itself catches from a list that is empty; it reaches the caller all the same."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.interrupts.bench import Fault, handler
from tests.interrupts.striking import places, strike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interrupts.bench import Bench

LISTS_MAY_BE_EMPTY = {
    "stores/redis/link.py": "single",
    "stores/redis/pool.py": "take",
    "stores/sqlite/store.py": "fetch",
    "stores/sqlite/file.py": "query",
    "runtime/flights.py": "end",
    "codec/mv1/codec.py": "encode",
}


@pytest.fixture
def installed() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR2, handler)
    yield
    signal.signal(signal.SIGUSR2, before)


def test_a_mistake_in_a_handler_reaches_the_caller(installed: None, make: Callable[..., Bench]) -> None:
    """At bytecodes, a dozen or every one, of the functions that take something from a list which others may have emptied."""
    bench = make()
    struck = 0
    for act in (bench.plain.max_age(60), lambda x: bench.plain.set(bench.value(x), x)):
        for _ in range(3):
            act(1)
        there = [
            place for place in places(lambda act=act: act(1)) if LISTS_MAY_BE_EMPTY.get(place.file) == place.function
        ]
        step = 1 if os.environ.get("MEMOVER_EVERY_BYTECODE") else max(1, len(there) // 12)
        for place in there[::step]:
            own = Fault("from outside")
            raised = reached = None
            try:
                _, reached = strike(lambda act=act: act(1), place.nth, lambda own=own: handler(own))
            except Fault as error:
                raised = error
            # Where nothing was reached, the act was shorter this time.
            assert raised is own if raised is not None else reached is None, f"what was raised at {reached} is gone"
            struck += raised is not None
            del raised
            del own
            gc.collect()  # the traceback holds a connection
            act(1)
    assert struck > 10


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError])
def test_a_mistake_in_a_handler_is_not_the_templates(error: type[Exception]) -> None:
    """It strikes in a property that a key template asks for."""

    def on_signal(number: int, frame: Any) -> None:
        raise error("time is up")

    class User:
        @property
        def id(self) -> int:
            signal.raise_signal(signal.SIGUSR2)
            return 1

    with Cache() as cache:

        @cache.versioned(namespace="f", key="{user.id}")
        def f(user: User) -> int:
            return 1

        before = signal.signal(signal.SIGUSR2, on_signal)
        try:
            with pytest.raises(error, match="time is up") as caught:
                f(User())
            assert type(caught.value) is error
        finally:
            signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("error", [KeyError, LookupError, RuntimeError, ValueError])
@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_a_mistake_in_a_handler_ends_a_batch(option: str, error: type[Exception]) -> None:
    """It strikes in a callable that is asked once for each result of a bulk loader, and none is asked again."""
    asked = 0

    def on_signal(number: int, frame: Any) -> None:
        raise error("time is up")

    def asks(result: int, call: Any) -> float:
        nonlocal asked
        asked += 1
        if asked == 2:
            signal.raise_signal(signal.SIGUSR2)
        return 60.0

    with Cache() as cache:
        options: dict[str, Any] = {option: asks}

        @cache.versioned(namespace="f", **options)
        def f(x: int) -> int:
            return x

        @f.batch_load
        def several(calls: Any) -> list[int]:
            return [call.arguments["x"] for call in calls]

        before = signal.signal(signal.SIGUSR2, on_signal)
        try:
            with pytest.raises(error, match="time is up"):
                f.map([1, 2, 3])
        finally:
            signal.signal(signal.SIGUSR2, before)
        assert asked == 2
        assert f.map([1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_mistake_in_a_handler_is_not_a_want_of_threads(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It strikes while a batch starts its threads."""

    def on_signal(number: int, frame: Any) -> None:
        raise error("time is up")

    def strike(*_: Any) -> int:
        signal.raise_signal(signal.SIGUSR2)
        return 0

    with Cache() as cache:

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            return x

        before = signal.signal(signal.SIGUSR2, on_signal)
        try:
            monkeypatch.setattr("memover.runtime.run.copy_context", strike)
            with pytest.raises(error, match="time is up"):
                f.map([1, 2, 3])
        finally:
            signal.signal(signal.SIGUSR2, before)
        monkeypatch.undo()
        assert f.map([1, 2, 3]) == [1, 2, 3]
