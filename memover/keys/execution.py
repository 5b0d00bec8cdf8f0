"""Which run of a module's code decorates a function: how a reload, an edited notebook cell or another `exec` is recognised."""

from __future__ import annotations

import functools
import os
import sys
import weakref
from inspect import CO_OPTIMIZED
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import CodeType, FunctionType

__all__ = ["Execution", "execution_of"]


class Execution(NamedTuple):
    """Which run of its module's code decorated a function; `token` is 0 when no module-level code of it was running.

    `space` stands for the module's dict, `file` is the module's file or "", and `whole` whether the code that was running is
    all of that file. `target` is the name that the statement under way is about to assign, "" if that is not known.
    """

    token: int
    space: int
    file: str
    whole: bool
    target: str = ""


_runs: dict[int, tuple[Any, int]] = {}
"""The id of a module's code object to a weak reference to it and the number of its run."""
_run_numbers = count(1)


def execution_of(function: FunctionType | None) -> Execution:
    """The run that is under way in the calling thread; call it while the function is being decorated."""
    if function is None:
        return Execution(0, 0, "", False)
    namespace = function.__globals__
    named = namespace.get("__file__")
    file = os.path.realpath(named) if isinstance(named, str) else ""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if (
            frame.f_globals is namespace
            and not code.co_flags & CO_OPTIMIZED
            and (code.co_name == "<module>" or frame.f_locals is namespace)
        ):
            whole = code.co_name == "<module>" and named == code.co_filename
            return Execution(_run_of(code), id(namespace), file, whole, "" if whole else _target(frame))
        frame = frame.f_back
    return Execution(0, id(namespace), file, False)


def _target(frame: Any) -> str:
    """The name to which the call that a frame is making is assigned, as in `f = make()`."""
    import dis  # for cells and the like only

    for each in dis.get_instructions(frame.f_code):
        if each.offset > frame.f_lasti and each.opname not in ("CACHE", "EXTENDED_ARG", "NOP"):
            return str(each.argval) if each.opname in ("STORE_NAME", "STORE_GLOBAL") else ""
    return ""


def _run_of(code: CodeType) -> int:
    place = id(code)
    known = _runs.get(place)
    if known is None or known[0]() is not code:
        known = _runs[place] = (weakref.ref(code, functools.partial(_forget_run, place)), next(_run_numbers))
    return known[1]


def _forget_run(place: int, reference: Any) -> None:
    known = _runs.get(place)
    if known is not None and known[0] is reference:
        _runs.pop(place, None)
