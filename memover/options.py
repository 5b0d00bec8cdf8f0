"""Options that do not exist or are missing: a `ConfigurationError` that says what to write, and a TypeError as Python's own."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["at_least", "checked", "flag", "refuse_unknown", "several"]


class WrongCall(ConfigurationError, TypeError):
    """Options that a function does not have, that it needs, or that were not given by name."""


F = TypeVar("F", bound="Callable[..., Any]")


def checked(name: str, example: str) -> Callable[[F], F]:
    """Decorates a function of keyword-only options, or an `__init__`, so that wrong arguments raise `ConfigurationError`.

    `name` is what messages call it, and `example` what a right call looks like."""

    def decorate(function: F) -> F:
        code = function.__code__
        parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        positional = parameters[: code.co_argcount]
        known = [each for each in parameters if each != "self"]
        required = set(parameters[code.co_argcount :]) - set(function.__kwdefaults__ or ())

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if len(args) > len(positional):
                given = args[len(positional)]
                if callable(given):
                    raise WrongCall(f"{name} takes options and no function: write {example}.")
                raise WrongCall(f"{name} takes {given!r} only by name: write {example}.")
            refuse_unknown(name, options, known)
            for missing in required.difference(options):
                raise WrongCall(f"{name} needs {missing}=: write {example}.")
            return function(*args, **options)

        return call  # type: ignore[return-value]  # the same signature, checked

    return decorate


def at_least(least: int, value: Any, name: str) -> int:
    """The checked value of an option that is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        from memover.spelling import whole, write

        meant = "" if isinstance(value, (bool, int)) else write(name, whole(value), least=least)
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least {least}{meant}.")
    return value


def flag(value: Any, name: str) -> bool:
    """The checked value of an option that is True or False. Text is refused: "no" would be true."""
    if isinstance(value, (str, bytes)):
        from memover.spelling import switch, write

        raise ConfigurationError(f"{name}={value!r} must be True or False{write(name, switch(value))}.")
    return bool(value)


def several(values: Any, name: str, example: str) -> tuple[Any, ...]:
    """The checked value of an option that is a sequence."""
    try:
        return tuple(values)
    except TypeError:
        raise ConfigurationError(f"{name}={values!r} must be a sequence; write {name}={example}, say.") from None


def refuse_unknown(name: str, options: Any, known: Any) -> None:
    """Raises `WrongCall` for the first option that is not known, with the nearest that is."""
    for option in options:
        if option not in known:
            from difflib import get_close_matches

            near = get_close_matches(option, list(known), 1)
            hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(sorted(known))}."
            raise WrongCall(f"{name} has no option {option}=: {hint}")
