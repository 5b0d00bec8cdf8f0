"""Values that are one piece: each is written as a single extension, and read back without looking elsewhere.

`encoder_for` names the writer of a class, `DECODERS` the reader of a code. Modules that most programs never load
(decimal, uuid, fractions, ...) are recognised by the name of the class and imported when first needed; the names
are in this file, never in stored bytes.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

from memover.codec import format as f
from memover.codec.format import Refused, extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

__all__ = ["DECODERS", "encoder_for"]

GCD_LIMIT_BITS = 100_000
PATTERN_LIMIT_CHARS = 10_000
ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}\Z")

_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_DELTA = struct.Struct(">iii")
_COMPLEX = struct.Struct(">dd")

# The real classes, whatever a test's frozen clock has put in their place.
_real = {name: getattr(dt, name) for name in ("date", "datetime", "time")}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def encode_int(value: int, _: Any = None) -> ExtType:
    return extension(f.INT, _int_bytes(value))


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


# Dates and times


def _delta_bytes(value: dt.timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def decode_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = _DELTA.unpack(data)
    if not (0 <= seconds < 86_400 and 0 <= microseconds < 1_000_000):
        raise ValueError("a timedelta out of its normal form")
    return dt.timedelta(days, seconds, microseconds)


def _is_zoneinfo(kind: type) -> bool:
    module = sys.modules.get("zoneinfo")
    return module is not None and kind is module.ZoneInfo


def zone_bytes(zone: dt.tzinfo | None) -> bytes | None:
    """Return the bytes of a zone, or None for one of a class that is not ours to know."""
    if zone is None:
        return b"\0"
    if zone is dt.timezone.utc:
        return b"\1"
    if type(zone) is dt.timezone:
        arguments: tuple[Any, ...] = zone.__getinitargs__()  # type: ignore[attr-defined]
        offset = _delta_bytes(arguments[0])
        return b"\2" + offset if len(arguments) == 1 else b"\3" + offset + arguments[1].encode("utf-8", "surrogatepass")
    if _is_zoneinfo(type(zone)):
        key: str | None = zone.key  # type: ignore[attr-defined]
        if key is None or not ZONE_KEY.match(key):
            raise Refused("a ZoneInfo without a key of the time zone database", "build it as ZoneInfo(key)")
        return b"\4" + key.encode("ascii")
    return None


def decode_zone(data: bytes) -> dt.tzinfo | None:
    kind, rest = data[0], data[1:]
    if kind == 0 and not rest:
        return None
    if kind == 1 and not rest:
        return dt.timezone.utc
    if kind == 2:
        return dt.timezone(decode_timedelta(rest))
    if kind == 3:
        return dt.timezone(decode_timedelta(rest[:12]), _text(rest[12:]))
    if kind == 4:
        from zoneinfo import ZoneInfo

        key = rest.decode("ascii")
        if not ZONE_KEY.match(key):
            raise ValueError("no key of the time zone database")
        return ZoneInfo(key)
    raise ValueError("an unknown kind of time zone")


def encode_tzinfo(value: dt.tzinfo, _: Any) -> ExtType:
    data = zone_bytes(value)
    assert data is not None
    return extension(f.TZINFO, data)


def decode_tzinfo(data: bytes) -> dt.tzinfo:
    zone = decode_zone(data)
    if zone is None:
        raise ValueError("no zone")
    return zone


def encode_date(value: dt.date, _: Any) -> ExtType:
    return extension(f.DATE, _DATE.pack(value.year, value.month, value.day))


def decode_date(data: bytes) -> dt.date:
    return dt.date(*_DATE.unpack(data))


def _time_bytes(value: dt.time | dt.datetime) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)


def _aware(value: dt.time | dt.datetime) -> list[Any]:
    # A zone of another class is a value of its own: a registered class, or refused at `.tzinfo`.
    return [extension(f.AWARE, b""), value.replace(tzinfo=None), value.tzinfo]


def encode_time(value: dt.time, _: Any) -> ExtType | list[Any]:
    zone = zone_bytes(value.tzinfo)
    return _aware(value) if zone is None else extension(f.TIME, _time_bytes(value) + zone)


def decode_time(data: bytes) -> dt.time:
    hour, minute, second, microsecond, fold = _TIME.unpack(data[:8])
    return dt.time(hour, minute, second, microsecond, decode_zone(data[8:]), fold=fold)


def encode_datetime(value: dt.datetime, _: Any) -> ExtType | list[Any]:
    zone = zone_bytes(value.tzinfo)
    if zone is None:
        return _aware(value)
    return extension(f.DATETIME, _DATE.pack(value.year, value.month, value.day) + _time_bytes(value) + zone)


def decode_datetime(data: bytes) -> dt.datetime:
    year, month, day = _DATE.unpack(data[:4])
    hour, minute, second, microsecond, fold = _TIME.unpack(data[4:12])
    return dt.datetime(year, month, day, hour, minute, second, microsecond, decode_zone(data[12:]), fold=fold)


def encode_timedelta(value: dt.timedelta, _: Any) -> ExtType:
    return extension(f.TIMEDELTA, _delta_bytes(value))


# Numbers and names of the standard library


def encode_decimal(value: Any, _: Any) -> ExtType:
    return extension(f.DECIMAL, str(value).encode("ascii"))


def decode_decimal(data: bytes) -> Any:
    from decimal import Context, Decimal

    # The exact constructor, under a context of our own: the caller's traps must not decide what is readable.
    value = Decimal(data.decode("ascii"), Context())
    if str(value).upper() != data.decode("ascii").upper():
        raise ValueError("a Decimal out of its normal form")
    return value


def encode_fraction(value: Any, _: Any) -> ExtType:
    numerator = _int_bytes(value.numerator)
    return extension(
        f.FRACTION, len(numerator).to_bytes(4, "big") + numerator + _int_bytes(value.denominator)
    )


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


PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
ADDRESSES = ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")


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


def encode_pattern(value: re.Pattern[Any], _: Any) -> ExtType:
    pattern = value.pattern
    if value.flags & re.DEBUG or len(pattern) > PATTERN_LIMIT_CHARS:
        raise Refused(
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
    pattern: re.Pattern[Any] = re.compile(source, flags)
    if pattern.flags != flags:
        raise ValueError("other flags than the pattern itself has")
    return pattern


def encode_array(value: Any, _: Any) -> ExtType:
    if value.typecode in "uw":
        raise Refused("an array of characters, whose item size depends on the platform", "store ''.join(it)")
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
    return extension(f.CONSTANT, bytes((0 if value is Ellipsis else 1,)))


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
    f.CONSTANT: decode_constant,
    f.INT: decode_int,
    f.COMPLEX: decode_complex,
    f.BYTEARRAY: bytearray,
    f.DATE: decode_date,
    f.TIME: decode_time,
    f.DATETIME: decode_datetime,
    f.TIMEDELTA: decode_timedelta,
    f.TZINFO: decode_tzinfo,
    f.DECIMAL: decode_decimal,
    f.FRACTION: decode_fraction,
    f.UUID: decode_uuid,
    f.PATH: decode_path,
    f.IPADDRESS: decode_address,
    f.PATTERN: decode_pattern,
    f.ARRAY: decode_array,
}

_EXACT: dict[type, Callable[..., Any]] = {
    int: encode_int,
    complex: encode_complex,
    bytearray: encode_bytearray,
    _real["date"]: encode_date,
    _real["time"]: encode_time,
    _real["datetime"]: encode_datetime,
    dt.timedelta: encode_timedelta,
    dt.timezone: encode_tzinfo,
    re.Pattern: encode_pattern,
    type(Ellipsis): encode_constant,
    type(NotImplemented): encode_constant,
}

# Public module · class name -> encoder; the class must be what that module holds under that name.
_NAMED: dict[tuple[str, str], Callable[..., Any]] = {
    ("decimal", "Decimal"): encode_decimal,
    ("fractions", "Fraction"): encode_fraction,
    ("uuid", "UUID"): encode_uuid,
    ("zoneinfo", "ZoneInfo"): encode_tzinfo,
    ("array", "array"): encode_array,
    # A frozen test clock's datetimes are datetimes: read back under the same clock they have its class again.
    ("freezegun.api", "FakeDatetime"): encode_datetime,
    ("freezegun.api", "FakeDate"): encode_date,
    **{("pathlib", name): encode_path for name in PATHS},
    **{("ipaddress", name): encode_address for name in ADDRESSES},
}


def encoder_for(kind: type) -> Callable[..., Any] | None:
    """Return the function that writes instances of exactly this class as one extension, if it is one of ours."""
    exact = _EXACT.get(kind)
    if exact is not None:
        return exact
    # pathlib's classes say "pathlib._local" on some versions, decimal's "decimal" whether in C or Python.
    module = kind.__module__ if kind.__module__ == "freezegun.api" else kind.__module__.partition(".")[0]
    found = _NAMED.get((module, kind.__name__))
    if found is None or getattr(sys.modules.get(module), kind.__name__, None) is not kind:
        return None
    return found
