"""What is raised from outside in the middle of a codec's or a key's work reaches the caller as it is."""

from __future__ import annotations

import ctypes
import functools
import gc
import inspect
import re
import signal
import sys
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from memover.classes.registered import register_value
from memover.codec.compression import compress, expand
from memover.codec.envelope import payload_of, read_header, seal
from memover.codec.faults import from_outside
from memover.codec.mv1.codec import ValueCodec
from memover.codec.pickle import PickleCodec, UnpicklableValue
from memover.errors import DamagedEntry, UnencodableValue
from memover.keys.binding import Binding
from memover.keys.canonical import encode
from tests.codec import things as t
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class TimeLimit(Exception):
    """What a job queue's signal handler raises: an ordinary exception, of a class that nobody here knows."""


def strike(error: type[BaseException], *_: Any) -> None:
    raise error("from outside")


def on_signal(number: int, frame: Any) -> None:
    strike(TimeLimit)


@pytest.fixture(autouse=True, scope="module")
def _no_finalizers() -> Iterator[None]:
    """What an earlier test left is not finalized in the middle of a call here, where it would be struck."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def handler() -> Iterator[None]:
    """A signal handler that raises, as a job queue's time limit does."""
    before = signal.signal(signal.SIGUSR1, on_signal)
    yield
    signal.signal(signal.SIGUSR1, before)


def struck(call: Callable[[], Any], hit: Callable[[], Any], at: int) -> BaseException | None:
    """What comes out of a call in which `hit` is called at the `at`-th line or call of memover's own; None: no such line."""
    left = at

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if "memover" not in frame.f_code.co_filename and "<memover" not in frame.f_code.co_filename:
            return None
        # Closing a generator cannot raise, whatever happens in it.
        if event in ("call", "line") and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            left -= 1
            if left == 0:
                hit()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except BaseException as raised:
        return raised
    finally:
        sys.settrace(before)
    return None


VALUE = [
    t.Friend("x", (1, {2, 3})), {Decimal("1.5"): datetime(2026, 1, 1, tzinfo=timezone.utc)}, t.Colour.RED, bytearray(b"y"),
    re.compile("a"), ValueError("no"), t.Pair(1, 2), {(1, 2): 3}, {number: number for number in range(300)}, "x" * 3000,
]  # fmt: skip
CODEC = ValueCodec(t.anything)
PAYLOAD = CODEC.encode(VALUE)
SIGNED = PickleCodec(keys=[b"k"])


def function(number: int, text: str = "x", *more: Any, **options: Any) -> None: ...


BINDING = Binding(function)
CALL = BINDING.compile(str)
ENTRY = seal(
    PAYLOAD, key=b"k", generation=b"1-a", codec="mv1", created_at=1.0, load_time=0.0, fresh_until=2.0, usable_until=2.0,
    marks=((b"tag", b"1-b"),),
)  # fmt: skip
SQUEEZED = compress(b"x" * 10_000)
CALLS: dict[str, Callable[[], Any]] = {
    "encode": lambda: CODEC.encode(VALUE),
    "encode with a new codec": lambda: ValueCodec(t.anything).encode(VALUE[:3]),
    "encode what is refused": lambda: _ignoring(UnencodableValue, lambda: CODEC.encode([1, {"a": object()}])),
    "decode": lambda: CODEC.decode(PAYLOAD),
    "decode with a new codec": lambda: ValueCodec(t.anything).decode(PAYLOAD),
    "decode what is damaged": lambda: _ignoring(DamagedEntry, lambda: CODEC.decode(PAYLOAD[:-5])),
    "plain": lambda: CODEC.plain(PAYLOAD),
    "envelope": lambda: payload_of(ENTRY, read_header(ENTRY, b"k")),
    "compression": lambda: expand(SQUEEZED[0], SQUEEZED[1], limit_bytes=1 << 20),
    "key": lambda: encode((1, [t.Friend("x"), {2.0: None}, {3}], t.Colour.RED)),
    "bound call": lambda: CALL(7, "y"),
    "bound call, in full": lambda: CALL(7, [1], 2, three=(3,)),
}


def _ignoring(expected: type[Exception], call: Callable[[], Any]) -> None:
    try:
        call()
    except expected:
        pass


@pytest.mark.parametrize("error", [TimeLimit, KeyboardInterrupt, MemoryError, TimeoutError])
@pytest.mark.parametrize("name", CALLS)
def test_an_exception_from_outside_goes_on_as_it_is(name: str, error: type[BaseException]) -> None:
    """At every line of memover's own code: neither swallowed nor turned into another; the next call is whole."""
    call = CALLS[name]
    call()
    for at in range(1, 20_000):
        raised = struck(call, lambda: strike(error), at)
        if raised is None:
            break
        assert type(raised) is error, f"at {at}: {raised!r}"
        assert raised.args == ("from outside",)
        if at > 400:  # the rest is more of the same: generated code and loops
            break
    assert at > 2
    call()
    assert CODEC.decode(CODEC.encode(VALUE[0])) == VALUE[0]


@pytest.mark.parametrize("name", [*CALLS, "pickle", "registered"])
def test_what_a_signal_handler_raises_goes_on_as_it_is(name: str, handler: None) -> None:
    """A real signal at every line, in users' functions too, with errors that data might raise as well."""
    call = {
        **CALLS,
        "pickle": lambda: SIGNED.decode(SIGNED.encode([Reducing()])),
        "registered": lambda: CODEC.decode(CODEC.encode([Taught()])),
    }[name]
    call()
    for at in range(1, 300):
        raised = struck(call, lambda: signal.raise_signal(signal.SIGUSR1), at)
        if raised is None:
            break
        assert type(raised) is TimeLimit, f"at {at}: {raised!r}"
    assert at > 2


class Busy:
    """Its functions run until they are thrown out of, as a job with a time limit does."""

    turns: ClassVar[int] = 0

    def __reduce__(self) -> Any:
        return self.spin()

    @classmethod
    def spin(cls, *_: Any) -> Any:
        for cls.turns in range(300_000_000):  # without a call: a call that has just ended could have raised itself
            pass
        return Busy, ()


register_value(Busy, Busy.spin, Busy.spin)


@pytest.mark.parametrize("error", [ValueError, TypeError, TimeLimit, TimeoutError])
@pytest.mark.parametrize("codec", [CODEC, SIGNED], ids=["mv1", "pickle"])
def test_what_is_thrown_into_a_thread_goes_on_as_it_is(codec: Any, error: type[Exception]) -> None:
    """By `PyThreadState_SetAsyncExc`, as time limits in threads are: from a user's function too, whatever its type is."""
    raised: list[BaseException] = []
    Busy.turns = 0

    def work() -> None:
        try:
            codec.encode([Busy()])
        except BaseException as each:
            raised.append(each)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: Busy.turns, "the function to run")
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)) == 1
    thread.join(30)
    assert [type(each) for each in raised] == [error]


def test_time_limits_of_job_queues_go_on_as_they_are() -> None:
    """Thrown in while a function in C runs they leave no trace, so their names are known."""
    limit = type(
        "JobTimeoutException", (type("BaseTimeoutException", (Exception,), {"__module__": "rq.timeouts"}),), {}
    )
    assert from_outside(limit("time is up"))
    assert from_outside(type("SoftTimeLimitExceeded", (Exception,), {"__module__": "billiard.exceptions"})())
    assert not from_outside(TimeLimit("time is up"))


@pytest.mark.parametrize("raising", ["raise", "call", "subscript", "generator", "attribute", "unbound"])
def test_an_error_of_ones_own_is_not_from_outside(raising: str) -> None:
    """Whichever instruction raises it."""

    def generator() -> Iterator[int]:
        yield 1

    def own() -> None:
        if raising == "raise":
            raise ValueError
        if raising == "call":
            int("x")
        if raising == "subscript":
            {}[1]
        if raising == "attribute":
            object().x  # type: ignore[attr-defined]  # noqa: B018
        if raising == "generator":
            running: Any = generator()
            next(running)
            running.throw(ValueError())
        if raising == "unbound":
            print(name)  # noqa: F821
            name = 1  # noqa: F841

    with pytest.raises(Exception) as caught:  # noqa: PT011
        own()
    assert not from_outside(caught.value)


@pytest.mark.parametrize("error", [ValueError, KeyError, TimeoutError, OSError, RuntimeError])
def test_a_handler_may_raise_what_data_raise(error: type[Exception]) -> None:
    """The traceback tells them apart, whatever kind of callable the handler is."""

    class Limit:
        def __call__(self, number: int, frame: Any) -> None:
            raise error("time is up")

        def on_alarm(self, number: int, frame: Any) -> None:
            raise error("time is up")

    for handler in (Limit(), Limit().on_alarm, functools.partial(Limit.on_alarm, Limit())):
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            for call in (lambda: CODEC.encode([Signalling()]), lambda: CODEC.decode(CODEC.encode([Signalled()]))):
                with pytest.raises(error, match="time is up"):
                    call()
        finally:
            signal.signal(signal.SIGUSR1, before)


class Signalling:
    """A signal comes while it is encoded."""


class Signalled:
    """A signal comes while it is decoded."""


def signalled(_: Any) -> Any:
    signal.raise_signal(signal.SIGUSR1)
    return Signalled()


register_value(Signalling, lambda value: signalled(value) and 1, lambda data: Signalling())
register_value(Signalled, lambda value: 1, signalled)


class Taught:
    """Known by its functions, which a test may let fail."""

    failing: type[BaseException] | None = None

    @classmethod
    def give(cls, made: Any) -> Any:
        if cls.failing is not None:
            raise cls.failing("in the function")
        return made


register_value(Taught, lambda value: Taught.give(1), lambda data: Taught.give(Taught()))


@pytest.fixture
def failing() -> Any:
    def fail(error: type[BaseException] | None) -> None:
        Taught.failing = error

    yield fail
    Taught.failing = None


@pytest.mark.parametrize("error", [RuntimeError, TimeLimit, OSError, KeyError])
def test_what_a_registered_function_raises_is_its_own(error: type[Exception], failing: Any) -> None:
    """An ordinary exception in a user's function is the value's or the entry's fault, whatever its class."""
    data = CODEC.encode(Taught())
    failing(error)
    with pytest.raises(UnencodableValue, match=error.__name__):
        CODEC.encode([Taught()])
    with pytest.raises(DamagedEntry, match=error.__name__):
        CODEC.decode(data)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyboardInterrupt, SystemExit])
def test_what_the_interpreter_raises_in_it_is_not(error: type[BaseException], failing: Any) -> None:
    """No memory, no stack, Ctrl-C: the caller's."""
    data = CODEC.encode(Taught())
    failing(error)
    for call in (lambda: CODEC.encode([Taught()]), lambda: CODEC.decode(data)):
        with pytest.raises(error, match="in the function"):
            call()


class Reducing:
    """Pickles as a test says."""

    def __reduce__(self) -> Any:
        return Taught.give, (1,)


@pytest.mark.parametrize(("error", "expected"), [(TimeLimit, UnpicklableValue), (MemoryError, MemoryError)])
def test_pickle_follows_the_same_rule(error: type[Exception], expected: type[Exception], failing: Any) -> None:
    """`__reduce__` is code of the user's."""

    class Failing:
        def __reduce__(self) -> Any:
            raise error("in the function")

    with pytest.raises(expected):
        SIGNED.encode(Failing())
    data = SIGNED.encode(Reducing())
    failing(error)
    with pytest.raises(DamagedEntry if expected is UnpicklableValue else expected):
        SIGNED.decode(data)


def test_a_refused_result_is_not_lost() -> None:
    """The error carries it, says what else can be done, and leaves it behind when it is pickled."""
    import copy
    import pickle

    value = {"work": [1, object()]}
    with pytest.raises(UnencodableValue, match='on_unencodable="return"') as caught:
        CODEC.encode(value)
    assert caught.value.value is value
    assert "codec=" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).value is None
    assert copy.copy(caught.value).value is None
    with pytest.raises(UnpicklableValue) as refused:
        SIGNED.encode(lambda: 1)
    assert refused.value.value is not None


def test_a_class_whose_metaclass_cannot_be_hashed_is_an_argument_like_others() -> None:
    """The memo of the binder does without it."""

    class Meta(type):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(cls, other: object) -> bool:
            return cls is other

    class Odd(metaclass=Meta):
        pass

    @dataclass
    class Holder:
        a: int

    with pytest.raises(TypeError):
        hash(Odd)
    with pytest.raises(TypeError):
        CALL(1, Odd())
