"""Which exceptions are the fault of a value or of stored bytes, and which come from outside.

While a codec works, anything may be raised in the middle of it: by a signal handler (a job queue's time limit, Ctrl-C), by a
greenlet's timeout, by the interpreter (MemoryError, RecursionError). Such an exception is the caller's and goes on as it
is. Only what bad data raises becomes `UnencodableValue` or `DamagedEntry`:

* In the codec's own code and in the libraries under it: the types of `FAULTS`, which are what Python and msgpack raise for
  data that does not fit. `OSError` is none of them, because `TimeoutError` is one.
* In code of the user's that a codec calls (the functions of `register_value`, `__reduce__`, `__post_init__`): every
  `Exception` but MemoryError and RecursionError.
* In neither case what a signal handler raised. `from_outside` finds that out from the traceback: it passes through the
  code of a handler that is installed.

What is thrown into a thread in another way than by a signal (`PyThreadState_SetAsyncExc`, a switch between greenlets) leaves
no trace: in the codec's own code it goes on if its type is none of `FAULTS`, in a user's function only if it is no
`Exception` (as `gevent.Timeout` is none).
"""

from __future__ import annotations

import re
import struct
import sys
from typing import Any

import msgpack

__all__ = ["FAULTS", "from_outside"]

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


def from_outside(error: BaseException) -> bool:
    """Whether an exception that was caught is neither the data's fault nor that of a user's function.

    True for what is no `Exception`, for MemoryError and RecursionError, and for what an installed signal handler
    raised. To be asked where it was caught, in some microseconds.
    """
    if not isinstance(error, Exception) or isinstance(error, (MemoryError, RecursionError)):
        return True
    # Whoever installed a handler in Python has imported this module.
    signal: Any = sys.modules.get("signal")
    if signal is None:
        return False
    handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code in handlers:
            return True
        frame = frame.tb_next
    return False


def _code_of(handler: Any) -> Any:
    if not callable(handler):  # SIG_DFL, SIG_IGN, or None for a handler that is not Python's
        return None
    for _ in range(10):
        code = getattr(handler, "__code__", None)
        if code is not None:
            return code
        # A bound method, a partial, or an object with `__call__`.
        call = getattr(type(handler), "__call__", None)  # noqa: B004 - the function is wanted, not the answer
        handler = getattr(handler, "__func__", None) or getattr(handler, "func", None) or call
    return None
