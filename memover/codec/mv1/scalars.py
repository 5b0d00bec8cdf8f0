"""Values that are one piece: each is written as a single extension, and read back without looking elsewhere.

`encoder_for` names the writer of a class, `DECODERS` the reader of a code. Modules that most programs never load
(decimal, uuid, fractions, ...) are recognised by the name of the class and imported when first needed; the names
are in this file, never in stored bytes.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import ADDRESSES, PATHS, published
from memover.codec.mv1 import format as f
from memover.codec.mv1 import moments
from memover.codec.mv1.format import Unencodable, extension
from memover.codec.mv1.limits import LONG_BYTES
from memover.errors import raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

__all__ = ["DECODERS", "encoder_for"]

GCD_LIMIT_BITS = 100_000
PATTERN_LIMIT_CHARS = 10_000
_GROUPS_LIMIT = 100
"""A pattern with no more groups than this takes a third of the usual stack to be compiled, however they are nested."""

_COMPLEX = struct.Struct(">dd")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def encode_int(value: int, writer: Any) -> ExtType:
    data = _int_bytes(value)
    if len(data) > LONG_BYTES:
        _noted(writer.numbers.long, value)
    return extension(f.INT, data)


def _noted(note: Callable[..., None], *facts: Any, hint: str = "store one of the two as text") -> None:
    """Adds to what reading the payload will cost; refuses what no reader would accept (`limits`)."""
    try:
        note(*facts)
    except ValueError as error:
        if raised_by_handler(error):
            raise
        raise Unencodable(str(error), hint) from None


def decode_int(data: bytes) -> int:
    if not data:
        raise ValueError("an int of no bytes")
    return int.from_bytes(data, "big", signed=True)


def encode_complex(value: complex, _: Any) -> ExtType:
    return extension(f.COMPLEX, _COMPLEX.pack(value.real, value.imag))


def decode_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def encode_bytearray(value: bytearray, _: Any = None) -> ExtType:
    return extension(f.BYTEARRAY, bytes(value))


# Numbers and names of the standard library


def encode_decimal(value: Any, writer: Any) -> ExtType:
    data = str(value).encode("ascii")
    _noted(writer.numbers.decimal, value)
    if len(data) > LONG_BYTES:
        _noted(writer.numbers.long, value)
    return extension(f.DECIMAL, data)


def decode_decimal(data: bytes) -> Any:
    from decimal import Context, Decimal

    # The exact constructor, under a context of our own: the caller's traps must not decide what is readable.
    value = Decimal(data.decode("ascii"), Context())
    if str(value).upper() != data.decode("ascii").upper():
        raise ValueError("a Decimal out of its normal form")
    return value


def encode_fraction(value: Any, writer: Any) -> ExtType:
    numerator = _int_bytes(value.numerator)
    data = len(numerator).to_bytes(4, "big") + numerator + _int_bytes(value.denominator)
    if len(data) > LONG_BYTES:
        _noted(writer.numbers.long, value)
    return extension(f.FRACTION, data)


def decode_fraction(data: bytes) -> Any:
    from fractions import Fraction

    size = int.from_bytes(data[:4], "big")
    numerator, denominator = decode_int(data[4 : 4 + size]), decode_int(data[4 + size :])
    if len(data) < 5 + size or denominator <= 0:
        raise ValueError("a Fraction out of its normal form")
    # What was written is in lowest terms; proving it takes time that grows with the square of the length, so that
    # beyond a length the bytes are believed rather than made a way to stop a reader.
    if denominator.bit_length() < GCD_LIMIT_BITS and math.gcd(numerator, denominator) != 1:
        raise ValueError("a Fraction out of its normal form")
    value: Any = object.__new__(Fraction)
    value._numerator, value._denominator = numerator, denominator
    return value


def encode_uuid(value: Any, _: Any) -> ExtType:
    safety = {0: b"\0", -1: b"\1", None: b"\2"}[value.is_safe.value]
    return extension(f.UUID, value.bytes + safety)


def decode_uuid(data: bytes) -> Any:
    from uuid import UUID, SafeUUID

    if len(data) != 17:
        raise ValueError("a UUID of another length")
    safety = (SafeUUID.safe, SafeUUID.unsafe, SafeUUID.unknown)[data[16]]
    return UUID(bytes=data[:16], is_safe=safety)


def encode_path(value: Any, _: Any) -> ExtType:
    text = str(value).encode("utf-8", "surrogatepass")
    return extension(f.PATH, bytes((PATHS.index(type(value).__name__),)) + text)


def decode_path(data: bytes) -> Any:
    import pathlib

    return getattr(pathlib, PATHS[data[0]])(_text(data[1:]))


def encode_address(value: Any, _: Any) -> ExtType:
    return extension(f.IPADDRESS, bytes((ADDRESSES.index(type(value).__name__),)) + str(value).encode("ascii"))


def decode_address(data: bytes) -> Any:
    import ipaddress

    return getattr(ipaddress, ADDRESSES[data[0]])(data[1:].decode("ascii"))


def encode_pattern(value: re.Pattern[Any], writer: Any) -> ExtType:
    pattern = value.pattern
    _noted(writer.patterns.add, pattern, value.flags, hint="store their source texts")
    if value.flags & re.DEBUG or len(pattern) > PATTERN_LIMIT_CHARS:
        raise Unencodable(
            f"a pattern compiled with re.DEBUG, or longer than {PATTERN_LIMIT_CHARS:,} characters",
            "store its source text",
        )
    is_bytes = isinstance(pattern, bytes)
    source = pattern if is_bytes else pattern.encode("utf-8", "surrogatepass")
    return extension(f.PATTERN, bytes((is_bytes,)) + value.flags.to_bytes(4, "big") + source)


def decode_pattern(data: bytes) -> re.Pattern[Any]:
    flags = int.from_bytes(data[1:5], "big")
    source: Any = data[5:] if data[0] == 1 else _text(data[5:])
    if data[0] > 1 or len(data) < 5 or flags & re.DEBUG or len(source) > PATTERN_LIMIT_CHARS:
        raise ValueError("no pattern that was written so")
    try:
        pattern: re.Pattern[Any] = re.compile(source, flags)
    except RecursionError:
        # Of the pattern's own nesting, which what was written never has, or the caller has used up the stack.
        if source.count("(" if data[0] == 0 else b"(") <= _GROUPS_LIMIT:
            raise
        raise ValueError("a pattern nested too deep") from None
    if pattern.flags != flags:
        raise ValueError("other flags than the pattern itself has")
    return pattern


def encode_array(value: Any, _: Any) -> ExtType:
    if value.typecode in "uw":
        raise Unencodable("an array of characters, whose item size depends on the platform", "store ''.join(it)")
    head = value.typecode.encode("ascii") + bytes((value.itemsize, sys.byteorder == "big"))
    return extension(f.ARRAY, head + value.tobytes())


def decode_array(data: bytes) -> Any:
    from array import array

    typecode = chr(data[0])
    if typecode not in "bBhHiIlLqQfd" or data[2] > 1:
        raise ValueError("an array of no known type")
    value = array(typecode)
    if value.itemsize != data[1]:
        raise ValueError("an array of another platform's item size")
    value.frombytes(data[3:])
    if (sys.byteorder == "big") != bool(data[2]):
        value.byteswap()
    return value


def encode_constant(value: Any, _: Any) -> ExtType:
    return extension(f.CONSTANT, b"\0" if value is Ellipsis else b"\1" if value is NotImplemented else b"\2")


def decode_constant(data: bytes) -> Any:
    if data == b"\0":
        return Ellipsis
    if data == b"\1":
        return NotImplemented
    if data == b"\2":
        import msgspec

        return msgspec.UNSET
    if data in (b"\3", b"\4"):
        import pandas

        return pandas.NA if data == b"\3" else pandas.NaT
    raise ValueError("no known constant")


DECODERS: dict[int, Callable[[bytes], Any]] = {
    **moments.DECODERS,
    f.CONSTANT: decode_constant,
    f.INT: decode_int,
    f.COMPLEX: decode_complex,
    f.BYTEARRAY: bytearray,
    f.DECIMAL: decode_decimal,
    f.FRACTION: decode_fraction,
    f.UUID: decode_uuid,
    f.PATH: decode_path,
    f.IPADDRESS: decode_address,
    f.PATTERN: decode_pattern,
    f.ARRAY: decode_array,
}

_EXACT: dict[type, Callable[..., Any]] = {
    **moments.ENCODERS,
    int: encode_int,
    complex: encode_complex,
    bytearray: encode_bytearray,
    re.Pattern: encode_pattern,
    type(Ellipsis): encode_constant,
    type(NotImplemented): encode_constant,
}

# Public module · class name -> encoder; the class must be what that module holds under that name.
_NAMED: dict[tuple[str, str], Callable[..., Any]] = {
    ("decimal", "Decimal"): encode_decimal,
    ("fractions", "Fraction"): encode_fraction,
    ("uuid", "UUID"): encode_uuid,
    ("zoneinfo", "ZoneInfo"): moments.encode_tzinfo,
    ("array", "array"): encode_array,
    ("msgspec", "UnsetType"): encode_constant,
    # A frozen test clock's datetimes are datetimes: read back under the same clock they have its class again.
    ("freezegun.api", "FakeDatetime"): moments.encode_datetime,
    ("freezegun.api", "FakeDate"): moments.encode_date,
    **{("pathlib", name): encode_path for name in PATHS},
    **{("ipaddress", name): encode_address for name in ADDRESSES},
}


def encoder_for(kind: type) -> Callable[..., Any] | None:
    """The function that writes instances of exactly this class as one extension; None for a class that is not of these."""
    if kind in _EXACT:
        return _EXACT[kind]
    named = published(kind, _NAMED)
    return None if named is None else _NAMED[named]
