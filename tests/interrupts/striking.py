"""Something happens at one bytecode: an exception is raised there, or a function is called, as a signal handler would.

`sys.settrace` with `f_trace_opcodes` stops before every bytecode of memover's own files and of what they call (the standard
library's locks and queues, redis-py), except the function under test. A signal handler runs only at some of these places, so
what is whole after a strike at each of them is whole after any signal.

What a tracer may not be used for: a frame that the interpreter runs on its own account (a weak reference's callback, `__del__`)
swallows every exception. Such strikes are found through `sys.unraisablehook` and count as "not delivered". The collector
runs such frames at any allocation, so it is off while `run` is traced: a strike there is lost, and CPython 3.11 was seen to crash.
"""

from __future__ import annotations

import dis
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import memover

__all__ = ["Place", "Unraisable", "places", "strike"]

_OWN = str(Path(memover.__file__).resolve().parent)
_TESTS = str(Path(__file__).resolve().parents[1])
# A handler of `logging` swallows exceptions by its own rules, an import that is cut off is the importer's matter, and a
# pytest plugin may wrap anything.
_NOT_OURS = ("logging/__init__.py", "importlib", "_pytest", "linecache.py", "traceback.py", "warnings.py")
_inside: dict[CodeType, int] = {}
# From Python 3.12 on, what `sys.settrace` installs hears of bytecodes only if some frame has asked for them before.
sys._getframe().f_trace_opcodes = True


def _belongs(code: CodeType) -> int:
    """1: memover's own, 2: somebody's that memover may call, 0: left alone."""
    known = _inside.get(code)
    if known is None:
        name = code.co_filename
        if name.startswith((_OWN, "<memover")):
            known = 0 if f"{_OWN}/testing" in name else 1
        elif name.startswith(_TESTS) or any(part in name for part in _NOT_OURS):
            known = 0
        else:
            known = 2
        _inside[code] = known
    return known


class Place(NamedTuple):
    """One bytecode that was about to be executed, the `nth` of a run."""

    nth: int
    file: str
    line: int
    offset: int
    function: str
    code: CodeType

    def __str__(self) -> str:
        name = "?"
        if self.offset < 0:
            name = "(the call itself)"
        else:
            for instruction in dis.get_instructions(self.code):
                if instruction.offset == self.offset:
                    name = instruction.opname
                    break
        return f"{self.file}:{self.line} {self.function} {name}@{self.offset} (bytecode {self.nth})"


class _Tracer:
    def __init__(self, at: int, then: Callable[[], object] | None, record: list[Place] | None) -> None:
        self.at = at
        self.then = then
        self.record = record
        self.count = -1
        self.struck: Place | None = None

    def entered(self, frame: FrameType, event: str, arg: Any) -> Any:
        kind = _belongs(frame.f_code)
        if kind == 0:
            return None
        if kind == 2:
            caller = frame.f_back
            if caller is None or caller.f_trace is None:
                return None
        frame.f_trace = (
            self.inside
        )  # in this order: from 3.13 on, bytecodes are asked for of the code of a frame that is traced
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._step(frame, -1)
        return self.inside

    def inside(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._step(frame, frame.f_lasti)
        return self.inside

    def _step(self, frame: FrameType, offset: int) -> None:
        self.count += 1
        if self.record is not None:
            self.record.append(_place(self.count, frame, offset))
        if self.count == self.at and self.struck is None:
            self.struck = _place(self.count, frame, offset)
            assert self.then is not None
            self.then()


def _place(nth: int, frame: FrameType, offset: int) -> Place:
    code = frame.f_code
    file = code.co_filename.removeprefix(f"{_OWN}/")
    if file == code.co_filename and "/" in file:
        file = "/".join(file.split("/")[-2:])
    return Place(nth, file, frame.f_lineno or 0, offset, code.co_name, code)


def places(run: Callable[[], object]) -> list[Place]:
    """Every bytecode that `run` executes in memover and beneath it, in order, in this thread."""
    record: list[Place] = []
    tracer = _Tracer(-2, None, record)
    _traced(tracer, run)
    return record


def strike(run: Callable[[], Any], at: int, then: Callable[[], object]) -> tuple[Any, Place | None]:
    """Call `run` with `then` called before its bytecode number `at`; the result, and where that was (None: never reached).

    What `then` raises is raised at that bytecode. Raises what `run` raises, with the place as its `struck`."""
    tracer = _Tracer(at, then, None)
    try:
        result = _traced(tracer, run)
    except BaseException as error:
        try:
            error.struck = tracer.struck  # type: ignore[attr-defined]
        except AttributeError:
            pass  # a class with slots: the caller knows the bytecode's number
        raise
    return result, tracer.struck


def _traced(tracer: _Tracer, run: Callable[[], Any]) -> Any:
    before = sys.gettrace()
    assert threading.get_ident(), "tracing is per thread"

    def apart() -> Iterator[Any]:
        yield run()

    collecting = gc.isenabled()
    gc.disable()
    sys.settrace(tracer.entered)
    try:
        # A strike at the very end of an `except`, where no signal handler is run, leaves the interpreter with that exception as
        # the one being handled: every later one has it as its context, which holds all the frames of its traceback. A
        # generator has a record of its own of what is being handled, and takes it along.
        return next(apart())
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()


class Unraisable:
    """A `with`: collects what the interpreter could deliver to nobody (`sys.unraisablehook`)."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def __enter__(self) -> Unraisable:
        self._before = sys.unraisablehook
        sys.unraisablehook = lambda what: self.errors.append(what.exc_value)
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._before
