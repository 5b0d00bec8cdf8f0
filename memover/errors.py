"""Every error memover raises, and the facts each one carries.

    MemoverError
    ├── ConfigurationError (ValueError)      your mistake, at decoration or construction
    ├── UnkeyableArgument (TypeError)        an argument that cannot enter a key faithfully
    ├── UnencodableValue (TypeError)         a result that cannot be stored faithfully
    ├── StoreError                           the world's: the store did not do its part
    │   ├── StoreUnavailable                 refused, cut, read-only, out of memory, circuit open
    │   └── StoreTimeout                     no answer within the budget; it may have been applied
    └── InvalidationFailed                   an invalidation that the store did not acknowledge

A damaged, foreign or undecodable entry is none of these: it is a miss, counted and reported
(`DamagedEntry` is how the codec tells the engine so, and never reaches a caller).

Facts are keyword-only attributes, so that a handler need not parse a message; every error survives
pickle with its facts, and every message ends with what to do.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = [
    "ConfigurationError", "DamagedEntry", "InvalidationFailed", "MemoverError", "MemoverWarning", "StoreError",
    "StoreTimeout", "StoreUnavailable", "UnencodableValue", "UnkeyableArgument", "failed_invalidation",
]  # fmt: skip


def _rebuild(kind: type[MemoverError], message: str, facts: dict[str, Any]) -> MemoverError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(facts)
    return error


class MemoverError(Exception):
    """The root of every error that memover raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        message = self.args[0] if self.args else ""
        return _rebuild, (type(self), message, dict(self.__dict__))


class MemoverWarning(UserWarning):
    """Something that the programmer should mend, and that memover works on without: shown by `warnings`."""


class ConfigurationError(MemoverError, ValueError):
    """A mistake in how memover was set up, found at decoration or construction."""


class UnkeyableArgument(MemoverError, TypeError):
    """An argument that cannot be turned into key bytes that mean the same in every process.

    `function` is the qualified name, `parameter` the parameter's name, `path` the place inside it
    (`user.friends[3]`), `kind` the qualified name of the offending type.
    """

    def __init__(
        self, message: str, *, function: str = "", parameter: str = "", path: str = "", kind: str = ""
    ) -> None:
        super().__init__(message)
        self.function = function
        self.parameter = parameter
        self.path = path
        self.kind = kind


class UnencodableValue(MemoverError, TypeError):
    """A result that would not come back as it was, so it is not stored.

    `function` is the qualified name (or the namespace), `path` the place inside the result
    (`$.friends[3].photo`), `kind` the qualified name of the offending type. `value` is the result itself, so that the
    work of a long function is not lost.
    """

    __slots__ = ("_value",)  # beside the facts in `__dict__`, which survive pickle

    def __init__(self, message: str, *, function: str = "", path: str = "$", kind: str = "", value: Any = None) -> None:
        super().__init__(message)
        self.function = function
        self.path = path
        self.kind = kind
        self._value = value

    @property
    def value(self) -> Any:
        """The result that was not stored; None where it is not known, and in a copy that was pickled."""
        return getattr(self, "_value", None)


class StoreError(MemoverError):
    """The store did not do what was asked; `store` is its address without credentials.

    `refused` is True where the store is there and did not take what was sent: too large for it, say. It says nothing
    about what is sent next."""

    refused = False

    def __init__(self, message: str, *, store: str = "") -> None:
        super().__init__(message)
        self.store = store


class StoreUnavailable(StoreError):
    """The store refused, cut the connection, or is held back by the open circuit."""


class StoreTimeout(StoreError):
    """The store gave no answer within the budget; what was asked may still have been applied."""


class InvalidationFailed(MemoverError):
    """An invalidation that the store did not acknowledge.

    `what` lists the names that are still to be invalidated. This process serves and stores nothing under
    them until a repeat has been acknowledged; other processes may serve the old entries until then.
    """

    def __init__(self, message: str, *, what: tuple[str, ...] = (), store: str = "") -> None:
        super().__init__(message)
        self.what = what
        self.store = store


def failed_invalidation(what: str, names: tuple[bytes, ...], address: str) -> InvalidationFailed:
    """The error for an invalidation that was not acknowledged."""
    return InvalidationFailed(
        f"{address} did not acknowledge the invalidation of {what}. This process serves and stores nothing under it until a "
        f"repeat is acknowledged; other processes may serve old entries until then. Nothing needs to be done when the "
        f"store comes back while this process lives; otherwise invalidate again.",
        what=tuple(name.decode() for name in names),
        store=address,
    )


class DamagedEntry(MemoverError):
    """Stored bytes that are not an entry of this key; `reason` is a short stable word for counting."""

    def __init__(self, message: str, *, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason


def raised_beneath(error: BaseException) -> bool:
    """Whether Python code that was called raised it, and not the instruction in the frame that caught it.

    Where that frame calls functions of C alone, such an exception is a signal handler's, and the caller's (P17).
    """
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_next is not None


def raised_by_handler(error: BaseException) -> bool:
    """Whether the handler of a signal raised it: the traceback passes through the code of one that is installed."""
    # Whoever installed a handler in Python has imported this module.
    signal: Any = sys.modules.get("signal")
    handlers: set[Any] = set()
    if signal is not None:
        handlers = {
            code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None
        }
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
