"""The classes that were registered with `register_value`: by name, and how each becomes builtins and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.classes.naming import class_name
from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Registration",
    "family_of",
    "register_family",
    "register_value",
    "registered",
    "registered_name",
    "registrations",
]

T = TypeVar("T")

KEPT_AS_THEY_ARE = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, list, dict, tuple, set, frozenset}
)


class Registration(NamedTuple):
    """A type that stored bytes may rebuild; without functions, memover's own way for such classes is used."""

    kind: type
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None
    subclasses: bool = False
    """Whether every subclass is meant that is not registered itself: those of a class that are made anew for each object."""


_by_name: dict[str, Registration] = {}
_registrations = 0


def register_value(
    type: type[T], encode: Callable[[T], Any] | None = None, decode: Callable[[Any], T] | None = None
) -> type[T]:
    """Teaches memover to store values of a class it does not know.

    `encode(value)` returns something memover can store (builtins, or other known classes) and `decode` makes the
    value from it; it must return an instance of exactly this class. Without the two functions the class, which
    must then be one memover understands (a dataclass, an enum, ...), may be stored by any function; that form also
    serves as a class decorator. Classes go by module and qualified name, and subclasses are not covered. Register
    at import time, in every process that reads: elsewhere the entry is a miss.

    An ordinary exception in `encode` means that the value cannot be stored (`UnencodableValue`), one in `decode` that the
    entry is damaged, a miss. MemoryError, RecursionError, what is no `Exception` and what an installed signal handler raises
    go on to the caller. What is thrown into the thread in another way cannot be told from the functions' own errors, so
    that they should be short and do no I/O.

    Raises `ConfigurationError` for builtins, and when only one of the two functions is given.
    """
    global _registrations  # noqa: PLW0603
    if not isinstance(type, _TYPE):
        raise ConfigurationError(f"register_value() takes a class, not {type!r}; pass the class itself.")
    if type in KEPT_AS_THEY_ARE:
        raise ConfigurationError(
            f"{type.__qualname__} is stored as it is and cannot be registered; wrap the value in a class of yours."
        )
    if (encode is None) != (decode is None) or not (encode is None or (callable(encode) and callable(decode))):
        raise ConfigurationError(
            f"register_value({type.__qualname__}) needs both encode and decode, as functions, or neither."
        )
    _by_name[class_name(type)] = Registration(type, encode, decode)
    _registrations += 1
    return type


_TYPE = type

_families: tuple[Registration, ...] = ()


def register_family(base: _TYPE, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
    """As `register_value`, for all subclasses of a class that makes one for each of its objects.

    They are stored under the name of `base`, and `decode` returns an instance of another subclass. No way of storing such a
    class is remembered, because the class goes with its object.
    """
    global _families, _registrations  # noqa: PLW0603
    registration = Registration(base, encode, decode, True)
    _by_name[class_name(base)] = registration
    _families = (*(each for each in _families if each.kind is not base), registration)
    _registrations += 1


def family_of(kind: _TYPE) -> _TYPE | None:
    """The class whose subclasses are stored alike, this one among them; None for all others."""
    return next((each.kind for each in _families if issubclass(kind, each.kind)), None)


def registered(kind: type) -> Registration | None:
    """What was registered for exactly this class."""
    found = _by_name.get(class_name(kind))
    return found if found is not None and found.kind is kind else None


def registered_name(name: str) -> Registration | None:
    """What was registered under a stored name."""
    return _by_name.get(name)


def registrations() -> int:
    """A number that changes with each registration, for those who keep what they looked up."""
    return _registrations
