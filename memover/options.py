"""Options that are not there: a `ConfigurationError` that says what to write, and a TypeError as Python's own."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checked", "refuse_unknown"]


class WrongCall(ConfigurationError, TypeError):
    """Options that a function does not have, or that were not given by name."""


F = TypeVar("F", bound="Callable[..., Any]")


def checked(name: str, example: str) -> Callable[[F], F]:
    """Decorate a function of keyword-only options, or an `__init__`, so that wrong arguments raise `ConfigurationError`.

    `name` is what messages call it, and `example` what a right call looks like."""

    def decorate(function: F) -> F:
        code = function.__code__
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        positional = parameters[: code.co_argcount]
        known = [each for each in parameters if each != "self"]

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if len(args) > len(positional):
                given = args[len(positional)]
                if callable(given):
                    raise WrongCall(f"{name} takes options and no function: write {example}.")
                raise WrongCall(f"{name} takes {given!r} only by name: write {example}.")
            refuse_unknown(name, options, known)
            return function(*args, **options)

        return call  # type: ignore[return-value]  # the same signature, checked

    return decorate


def refuse_unknown(name: str, options: Any, known: Any) -> None:
    """Raise `WrongCall` for the first option that is not known, with the nearest that is."""
    for option in options:
        if option not in known:
            from difflib import get_close_matches

            near = get_close_matches(option, list(known), 1)
            hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(sorted(known))}."
            raise WrongCall(f"{name} has no option {option}=: {hint}")
