"""P17: memover may be called from inside itself, at any bytecode: by a signal handler ("reload: invalidate the caches"), by a
`__del__` or a callback that the collector runs. No call hangs or is wrong, and an invalidation made there holds afterwards.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.interrupts.bench import OPERATIONS, Bench, Hung, Operation, Trouble, guarded, spread
from tests.interrupts.striking import places, strike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLED = 8
"""Bytecodes of each pair of an operation and a handler in the standing suite."""
SAMPLED_SLOW = 1000 if os.environ.get("MEMOVER_EVERY_BYTECODE") else SAMPLED
"""The same in the slow suite, which takes every operation."""
STANDING = ("hit", "miss", "hit on a new connection", "invalidate", "set", "map", "kv set")
"""Operations that are entered again in the standing suite; the slow one takes all."""


def _call(bench: Bench, x: int) -> None:
    value = bench.plain(x)
    if value["x"] != x or value["v"] not in (bench.source.get(x, 0), bench.source.get(x, 0) - 1):
        raise Trouble(f"the handler's own call returned {value!r}")


def _invalidate(bench: Bench, x: int) -> None:
    bench.change(x)
    for function in bench.functions:
        function.invalidate(x)


def _invalidate_all(bench: Bench, x: int) -> None:
    bench.change(x)
    for function in bench.functions:
        function.invalidate_all()


def _set(bench: Bench, x: int) -> None:
    bench.cache.set("handler", x)
    if bench.cache.get("handler") != x:
        raise Trouble(f"the handler's own entry is {bench.cache.get('handler')!r} and not {x}")


def _map(bench: Bench, x: int) -> None:
    values = bench.plain.map([x, x + 1, x + 9])
    if [value["x"] for value in values] != [x, x + 1, x + 9]:
        raise Trouble(f"the handler's own batch returned {values!r}")


HANDLERS: dict[str, Callable[[Bench, int], None]] = {
    "call": _call,
    "invalidate": _invalidate,
    "invalidate_all": _invalidate_all,
    "set": _set,
    "map": _map,
}


def _entered_again(operation: Operation, handler: Callable[[Bench, int], None], bench: Bench, at: int) -> None:
    x = next(bench.keys)
    operation.arrange(bench, x)
    earliest = bench.source.get(x, 0) - operation.changed
    raised: list[BaseException] = []

    def then() -> None:
        try:
            handler(bench, x)
        except BaseException as error:
            raised.append(error)

    place = None
    try:
        with guarded(f"{operation.name} with a call inside"):
            value, place = strike(lambda: operation.act(bench, x), at, then)
        if raised:
            if isinstance(raised[0], Trouble):
                raise raised[0]
            text = "".join(traceback.format_exception(type(raised[0]), raised[0], raised[0].__traceback__)[-6:])
            raise Trouble(f"the handler's call raised: {text}")
        _right_at_some_time(operation, bench, x, value, earliest)
        # What the handler has invalidated is gone for whoever comes later, however old a load was under way.
        now = bench.source.get(x, 0)
        for what in operation.checks(bench):
            if what == "entry":
                with guarded("key-value calls"):
                    bench.whole_entry(f"k{x}")
            else:
                # What is set after the handler's invalidation is what the caller gave, however old it is by then.
                allowed = range(earliest, now + 1) if operation.name == "set" else (now,)
                bench.whole_function(what, x, tuple(allowed))
                now = earliest = bench.source.get(x, 0)
    except (Trouble, Hung) as trouble:
        raise Trouble(f"entered again at {place or f'bytecode {at}'}: {trouble}") from None
    except Exception as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])
        raise Trouble(f"entered again at {place or f'bytecode {at}'}: {text}") from None


def _right_at_some_time(operation: Operation, bench: Bench, x: int, value: Any, earliest: int) -> None:
    """Whether the answer is one that was right at some moment between the operation's begin and its end."""
    if operation.right(bench, x, value):
        return
    latest = bench.source.get(x, 0)
    if operation.name == "peek" and value is None and latest > earliest:
        return  # it looked after the handler's invalidation, and nothing has been loaded since
    for moment in range(earliest, latest + 1):
        bench.source[x] = moment
        try:
            if operation.right is not OPERATIONS["invalidate"].right and operation.right(bench, x, value):
                return
        finally:
            bench.source[x] = latest
    raise Trouble(f"the operation returned {value!r}")


def _proved(name: str, handler: str, make: Callable[..., Bench], most: int) -> None:
    operation = OPERATIONS[name]
    bench = make()
    for _ in range(3):
        x = next(bench.keys)
        operation.arrange(bench, x)
        operation.act(bench, x)
        HANDLERS[handler](bench, x)
    x = next(bench.keys)
    operation.arrange(bench, x)
    count = len(places(lambda: operation.act(bench, x)))
    wrong: list[str] = []
    for at in spread(count, most, first=sum(name.encode()) + 7 * len(handler)):
        try:
            _entered_again(operation, HANDLERS[handler], bench, at)
        except Trouble as trouble:
            wrong.append(str(trouble))
            if len(wrong) == 3:
                break
            bench.other.close()
            bench = make()
    if not wrong:
        try:
            bench.well()
        except (Trouble, Hung) as trouble:
            wrong.append(f"after all of them: {trouble}")
    assert not wrong, f"{handler} inside {name}:\n" + "\n".join(f"* {one}" for one in wrong)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("name", STANDING)
def test_memover_is_called_from_inside_itself(name: str, handler: str, make: Callable[..., Bench]) -> None:
    """At a few bytecodes of each operation."""
    _proved(name, handler, make, SAMPLED)


@pytest.mark.slow
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_memover_is_called_from_inside_itself_anywhere(name: str, handler: str, make: Callable[..., Bench]) -> None:
    """Every operation."""
    _proved(name, handler, make, SAMPLED_SLOW)


@contextmanager
def _alarms(ring: Callable[[], None]) -> Iterator[Callable[[float], None]]:
    """`arm(seconds)`: have `ring` called by a signal after that."""
    before = signal.signal(signal.SIGALRM, lambda *_: ring())
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)  # type: ignore[return-value]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_invalidate(make: Callable[..., Bench]) -> None:
    """Real signals at random instants; whatever a handler has invalidated is loaded anew."""
    bench = make()
    rng = random.Random(1)
    rung = 0
    waiting = False
    wrong: list[Any] = []
    done = threading.Event()

    def ring() -> None:
        nonlocal rung, waiting
        rung += 1
        bench.change(rung % 50)
        bench.plain.invalidate(rung % 50)
        if rung % 10 == 0:
            bench.plain.invalidate_all()
        waiting = False

    def work(arm: Callable[[float], None]) -> None:
        nonlocal waiting
        n = 0
        while rung < 400:
            n += 1
            if not waiting:
                waiting = True
                arm(rng.uniform(1e-5, 3e-4))
            x = n % 50
            least = bench.source.get(x, 0)
            value = bench.plain(x)
            if value["x"] != x or value["v"] < least:
                wrong.append((x, least, value))

    watchdog = threading.Thread(target=_dump_when_it_hangs, args=(done, 60.0), daemon=True)
    watchdog.start()
    with _alarms(ring) as arm:
        work(arm)
    done.set()
    assert wrong == []
    for x in range(50):
        assert bench.other.call(lambda x=x: bench.plain(x), "a call") == bench.value(x)


def _dump_when_it_hangs(done: threading.Event, seconds: float) -> None:
    import faulthandler
    import os

    if not done.wait(seconds):
        faulthandler.dump_traceback(all_threads=True)
        os._exit(1)  # a deadlock inside a signal handler cannot be undone


def test_the_collector_may_call_memover(make: Callable[..., Bench]) -> None:
    """`__del__` of garbage, run wherever the collector happens to run, invalidates and calls."""
    bench = make()
    errors: list[BaseException] = []
    freed = 0

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal freed
            freed += 1
            try:
                x = freed % 20
                bench.change(x)
                bench.plain.invalidate(x)
                bench.cache.set("garbage", x)
                bench.plain((x + 1) % 20)
            except BaseException as error:
                errors.append(error)

    thresholds = gc.get_threshold()
    gc.enable()
    try:
        gc.set_threshold(7, 5, 5)
        for n in range(400):
            Garbage()
            x = n % 20
            least = bench.source.get(x, 0)
            with guarded("a call"):
                value = bench.plain(x)
            assert value["x"] == x
            assert value["v"] >= least, "an invalidation made by the collector did not hold"
    finally:
        gc.set_threshold(*thresholds)
        gc.disable()
    assert errors == []
    assert freed > 50
    for x in range(20):
        assert bench.other.call(lambda x=x: bench.plain(x), "a call") == bench.value(x)
