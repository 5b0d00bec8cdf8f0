"""Which exceptions are the fault of a value or of stored bytes, and which come from outside.

While a codec works, anything may be raised in the middle of it: by a signal handler (a job queue's time limit, Ctrl-C), by a
greenlet's timeout, by the interpreter (MemoryError, RecursionError). Such an exception is the caller's and goes on as it
is. Only what bad data raises becomes `UnencodableValue` or `DamagedEntry`:

* In the codec's own code and in the libraries under it: the types of `FAULTS`, which are what Python and msgpack raise for
  data that does not fit. `OSError` is none of them, because `TimeoutError` is one.
* In code of the user's that a codec calls (the functions of `register_value`, `__reduce__`, `__post_init__`): every
  `Exception` but MemoryError and RecursionError.
* In neither case what came from outside, as `from_outside` finds out:
  - what a signal handler raised: the traceback passes through the code of a handler that is installed;
  - the time limits of job queues that are an `Exception` (`TIME_LIMITS`), however they are thrown;
  - what was thrown into the thread (`PyThreadState_SetAsyncExc`) between two instructions: the traceback ends at an
    instruction that cannot raise anything itself.

What is thrown into a thread while a function in C runs, or into a greenlet at a switch, shows in no traceback. In the codec's
own code it goes on if its type is none of `FAULTS`; in a user's function if it is no `Exception` (`gevent.Timeout`,
`eventlet.Timeout` and dramatiq's `Interrupt` are none), or one of `TIME_LIMITS`. Any other counts as the function's own error.
"""

from __future__ import annotations

import re
import struct
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from opcode import opname
from typing import TYPE_CHECKING

import msgpack

from memover.errors import raised_by_handler

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FAULTS", "TIME_LIMITS", "from_outside"]

FAULTS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    ImportError,
    LookupError,
    NotImplementedError,  # pathlib: a path of another platform
    TypeError,
    ValueError,
    Warning,  # where a program makes errors of them
    re.error,
    struct.error,
    msgpack.UnpackException,
)
"""What data that does not fit raises, in the codec and in the libraries that it uses."""

TIME_LIMITS = frozenset(
    {
        "billiard.exceptions.SoftTimeLimitExceeded",  # Celery
        "billiard.exceptions.TimeLimitExceeded",
        "rq.timeouts.BaseTimeoutException",
        "stopit.utils.TimeoutException",
        "timeout_decorator.timeout_decorator.TimeoutError",
    }
)
"""Exceptions that libraries raise in the middle of whatever runs when its time is over, by module and name."""

_STUB_BYTES = 8
_SUSPENDING = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
_SILENT = frozenset(
    {
        "COPY", "DUP_TOP", "DUP_TOP_TWO", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_FORWARD", "KW_NAMES", "LOAD_CONST", "NOP",
        "POP_BLOCK", "POP_TOP", "PUSH_NULL", "RESUME", "ROT_THREE", "ROT_TWO", "SETUP_FINALLY", "STORE_FAST", "SWAP",
    }
)  # fmt: skip
"""Instructions that raise nothing themselves, in Python 3.10 to 3.14."""


def from_outside(error: BaseException) -> bool:
    """Whether an exception that was caught is neither the data's fault nor that of a user's function.

    True for what is no `Exception`, for MemoryError and RecursionError, for `TIME_LIMITS`, for what an installed signal
    handler raised, and for what was thrown in between two instructions. To be asked where it was caught, in some microseconds.
    """
    if not isinstance(error, Exception) or isinstance(error, (MemoryError, RecursionError)):
        return True
    if any(f"{kind.__module__}.{kind.__name__}" in TIME_LIMITS for kind in type(error).__mro__):
        return True
    if raised_by_handler(error):
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and _thrown_in(last)


def _thrown_in(innermost: TracebackType) -> bool:
    """Whether a traceback ends at an instruction that cannot have raised."""
    code, at = innermost.tb_frame.f_code, innermost.tb_lasti
    instructions = code.co_code
    # Extension modules put frames into tracebacks whose code is a stub that was never run.
    if len(instructions) <= _STUB_BYTES or not 0 <= at < len(instructions):
        return False
    name = opname[instructions[at]]
    # Generators and coroutines are resumed with what others throw into them.
    return name in _SILENT and not (name in ("RESUME", "POP_TOP", "NOP") and code.co_flags & _SUSPENDING)
