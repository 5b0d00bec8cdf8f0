"""Which exceptions are the fault of a value or of stored bytes, and which come from outside.

While a codec works, anything may be raised in the middle of it: by a signal handler (a job queue's time limit, Ctrl-C), by a
greenlet's timeout, by the interpreter (MemoryError, RecursionError). Such an exception is the caller's and goes on as it
is. Only what bad data raises becomes `UnencodableValue` or `DamagedEntry`:

* In the codec's own code and in the libraries under it: the types of `FAULTS`, which are what Python and msgpack raise for
  data that does not fit. `OSError` is none of them, because `TimeoutError` is one.
* In code of the user's that a codec calls (the functions of `register_value`, `__reduce__`, validators): every `Exception`
  but MemoryError and RecursionError. There an exception that a signal handler raises cannot be told from the function's
  own, and counts as its own: such functions should be short.

A handler that raises one of `FAULTS` itself, a ValueError say, cannot be told apart either; every other type can.
"""

from __future__ import annotations

import re
import struct

import msgpack

__all__ = ["FAULTS", "FROM_OUTSIDE"]

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

FROM_OUTSIDE: tuple[type[Exception], ...] = (MemoryError, RecursionError)
"""What goes on to the caller even where a user's own function raised it."""
