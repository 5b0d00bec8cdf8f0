"""Why a value cannot be a part of a key, where in an argument it is, and what to do."""

from __future__ import annotations

from typing import Any

from memover.errors import UnkeyableArgument

__all__ = ["Unkeyable", "step", "type_name"]


class Unkeyable(Exception):
    """A value that has no canonical bytes, on its way up to where function and parameter are known.

    `hint` says what to do, where it is known better than for any class. `steps` is the path from the refused value
    outwards, so in reverse.
    """

    def __init__(self, value: Any, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.kind = type_name(type(value))
        self.steps: list[str] = []

    def unkeyable(self, function: str, parameter: str, place: str = "") -> UnkeyableArgument:
        """The error that a caller sees: function, parameter, path, type, reason and what to do.

        `place` is where in the parameter the value came from, if not the parameter itself.
        """
        steps = self.steps[::-1]
        if len(steps) > 20:
            steps[10:-10] = ["..."]
        path = (place or parameter) + "".join(steps)
        at = f"{function}(): " if function else ""
        # All the objects that a parameter left out may be share one entry.
        out = f"leave the parameter out with ignore=({parameter!r},) if the result does not depend on it"
        if self.steps:
            out = f"leave all of {parameter} out with ignore=({parameter!r},) if the result depends on nothing in it"
        if parameter == "self" and self.steps:
            # Not ignore=: without `self` all objects of the class, of whatever tenant, would share.
            todo = "give the class a __memover_key__() that returns what tells its objects apart"
        elif self.hint:
            todo = f"{self.hint}, or {out}" if parameter else self.hint
        elif parameter == "self":
            todo = (
                "give the class a __memover_key__() that returns what tells its objects apart, or leave it out "
                'with ignore=("self",) if the result does not depend on it'
            )
        elif not parameter:
            todo = (
                "return a str, a number or a tuple of them, give its class a __memover_key__(), or teach memover "
                "its type with memover.register_key(type, fn)"
            )
        else:
            todo = (
                "give its class a __memover_key__(), teach memover its type with memover.register_key(type, fn), "
                f"{out}, or make the key yourself with key="
            )
        what = f"argument {path}" if parameter else path
        message = f"{at}{what} of type {self.kind} cannot be part of a key: {self.reason}; {todo}"
        return UnkeyableArgument(message, function=function, parameter=parameter, path=path, kind=self.kind)


def step(value: Any) -> str:
    """The path step to the value under a key: `['a']`, or `[...]` for a key that is not short and simple."""
    if type(value) in (int, str, bool, bytes, float):
        text = repr(value) if type(value) is not int or abs(value) < 2**64 else "..."
        return f"[{text}]" if len(text) <= 40 else f"[{text[:37]}...]"
    return "[...]"


def type_name(kind: type) -> str:
    """The class as `module.qualname`, without the module for builtins."""
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", None) or type.__name__
    return str(name) if module in (None, "builtins") else f"{module}.{name}"
