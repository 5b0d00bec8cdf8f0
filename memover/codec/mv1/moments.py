"""Dates, times and time zones.

Classes are looked up in `datetime` when a value is made, so that under a test's frozen clock a hit has the clock's
class as the miss has; the tables of writers hold the real ones.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Unencodable, extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

__all__ = ["DECODERS", "ENCODERS", "encode_date", "encode_datetime", "encode_tzinfo"]

ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]{1,40}(/[A-Za-z0-9_+\-]{1,40}){0,3}\Z")

_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_DELTA = struct.Struct(">iii")


def _delta_bytes(value: dt.timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def decode_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = _DELTA.unpack(data)
    if not (0 <= seconds < 86_400 and 0 <= microseconds < 1_000_000):
        raise ValueError("a timedelta out of its normal form")
    return dt.timedelta(days, seconds, microseconds)


def zone_bytes(zone: dt.tzinfo | None) -> bytes | None:
    """The bytes of a zone; None for one of a class that is not ours to know."""
    if zone is None:
        return b"\0"
    if zone is dt.timezone.utc:
        return b"\1"
    if type(zone) is dt.timezone:
        arguments: tuple[Any, ...] = zone.__getinitargs__()  # type: ignore[attr-defined]
        offset = _delta_bytes(arguments[0])
        return b"\2" + offset if len(arguments) == 1 else b"\3" + offset + arguments[1].encode("utf-8", "surrogatepass")
    zoneinfo = sys.modules.get("zoneinfo")
    if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo:
        key: str | None = zone.key  # type: ignore[attr-defined]
        if key is None or not ZONE_KEY.match(key):
            raise Unencodable("a ZoneInfo without a key of the time zone database", "build it as ZoneInfo(key)")
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
        return dt.timezone(decode_timedelta(rest[:12]), rest[12:].decode("utf-8", "surrogatepass"))
    if kind == 4:
        from zoneinfo import ZoneInfo

        key = rest.decode("ascii")
        if not ZONE_KEY.match(key):
            raise ValueError("no key of the time zone database")
        try:
            return ZoneInfo(key)
        except TimeoutError:  # a time limit's, and none of the file system's
            raise
        except OSError as error:  # the name of a directory of the database, or a file that cannot be read
            raise ValueError(f"no zone of this machine's time zone database: {error}") from None
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


ENCODERS: dict[type, Callable[..., Any]] = {
    dt.date: encode_date,
    dt.time: encode_time,
    dt.datetime: encode_datetime,
    dt.timedelta: lambda value, _: extension(f.TIMEDELTA, _delta_bytes(value)),
    dt.timezone: encode_tzinfo,
}

DECODERS: dict[int, Callable[[bytes], Any]] = {
    f.DATE: lambda data: dt.date(*_DATE.unpack(data)),
    f.TIME: decode_time,
    f.DATETIME: decode_datetime,
    f.TIMEDELTA: decode_timedelta,
    f.TZINFO: decode_tzinfo,
}
