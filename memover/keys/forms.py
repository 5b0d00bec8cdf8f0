"""What the encoders of foreign types have in common: containers under way, named parts, plain fields, numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .canonical import Active, composite, encode_part, enter
from .refusal import Unkeyable, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from .canonical import Encoder

__all__ = ["encoded", "entered", "fields", "inside", "named", "numpy_for"]


def entered(encode: Encoder) -> Encoder:
    """The encoder of a container: noted as under way while its parts are encoded."""

    def encode_entered(value: Any, active: Active) -> bytes:
        enter(value, active)
        try:
            return encode(value, active)
        finally:
            del active[id(value)]

    return encode_entered


def inside(path: str, encode: Encoder, part: Any, active: Active) -> bytes:
    """The bytes of a part; a refusal in it says which part it was."""
    try:
        return encode(part, active)
    except Unkeyable as refused:
        refused.steps.append(path)
        raise


def named(name: Any, encode: Encoder, part: Any, active: Active) -> bytes:
    """As `inside`, of the part under a name."""
    return inside(step(name), encode, part, active)


def encoded(active: Active, *values: Any) -> list[bytes]:
    """Each value's bytes."""
    return [encode_part(value, active) for value in values]


def numpy_for(value: Any) -> Any:
    """numpy, for reading the items of `value`; `Unkeyable` where it is not installed.

    There is no other way without it: the bytes of a key must not depend on what is installed.
    """
    try:
        import numpy
    except ImportError:
        raise Unkeyable(value, "reading its items takes numpy, which is not installed", "install numpy") from None
    return numpy


def fields(label: str, read: Callable[[Any], tuple[Any, ...]]) -> Encoder:
    """The encoder of an object that is a label and a tuple of values read off it."""
    return entered(lambda value, active: composite(label, *encoded(active, *read(value))))
