"""How the standard library's types enter a key; found by name, so that nothing is imported for their sake.

    label                 parts
    --------------------  ---------------------------------------------------------------------------
    bytearray             its bytes
    memoryview            format, shape, bytes in C order
    array                 typecode, the items as a list
    range, slice          start, stop, step, as written: range(0, 3, 2) and range(0, 4, 2) differ
    Ellipsis, NotImplemented    nothing
    date                  year, month, day
    time                  hour, minute, second, microsecond, fold, tzinfo or None
    datetime              year ... microsecond, fold, tzinfo or None
    timedelta             days, seconds, microseconds
    timezone              offset in microseconds, name
    ZoneInfo              key
    pytz, dateutil        what names the zone, and for pytz the offset in force
    Decimal               sign, digits, exponent: 1.0 and 1.00 differ, every nan of one kind is equal
    Fraction              numerator, denominator
    UUID                  its integer
    Path classes          class name, text: PurePosixPath("a") and PosixPath("a") differ
    ipaddress classes     class name, text
    re.Pattern            pattern, flags
    deque                 maxlen, items
    OrderedDict           pairs in their order
    Counter               as a dict
    defaultdict           default factory, as a dict
    mappingproxy          as a dict
    ChainMap              the maps
    SimpleNamespace       its attributes as a dict
    functools.partial     function, positional arguments, keyword arguments

A datetime is its wall clock and its zone: the same instant in two zones makes two keys, because a function can
see the difference. fold always counts. Convert to UTC before the call to share an entry across zones.
`freezegun`'s stand-ins for date and datetime pass for the real ones, so that a test sees production's keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.classes.kinds import ADDRESSES, PATHS
from memover.errors import raised_beneath

from . import qualified
from .canonical import Active, composite, encode_part, pairs
from .forms import encoded, entered, fields, inside
from .refusal import Unkeyable, type_name

if TYPE_CHECKING:
    from .canonical import Encoder

__all__ = ["find"]


def find(kind: type) -> Encoder | None:
    """The encoder of a type of the standard library, or None."""
    encoder = _KNOWN.get(type_name(kind))
    if encoder is None and kind.__module__.partition(".")[0] == "pytz" and hasattr(kind, "zone"):
        return _pytz  # every zone has a class of its own
    return encoder if encoder is not None else qualified.find(kind)


def _memoryview(value: Any, active: Active) -> bytes:
    try:
        if "P" in value.format or "O" in value.format:
            raise Unkeyable(value, "it holds pointers")
        parts = (value.format, value.shape, value.tobytes())
    except ValueError as error:
        if raised_beneath(error):
            raise
        raise Unkeyable(value, str(error)) from error
    return composite("memoryview", *encoded(active, *parts))


@entered
def _ordered(value: Any, active: Active) -> bytes:
    return composite("OrderedDict", *pairs(list(value.items()), active))


def _as_dict(value: Any) -> tuple[Any, ...]:
    return (dict(value.items()),)


@entered
def _partial(value: Any, active: Active) -> bytes:
    names = ("func", "args", "keywords")
    return composite("partial", *[inside(f".{name}", encode_part, getattr(value, name), active) for name in names])


def _micros(delta: Any) -> int | None:
    return None if delta is None else (delta.days * 86400 + delta.seconds) * 10**6 + delta.microseconds


def _zoneinfo(value: Any) -> tuple[Any, ...]:
    if not isinstance(value.key, str):
        raise Unkeyable(
            value, "a ZoneInfo without a key has no name; open it by its name, like ZoneInfo('Europe/Rome')"
        )
    return (value.key,)


def _pytz(value: Any, active: Active) -> bytes:
    offset = getattr(value, "_utcoffset", None)
    if value.zone is None:  # pytz.FixedOffset
        offset = value.utcoffset(None)
    parts = (value.zone, _micros(offset), _micros(getattr(value, "_dst", None)), getattr(value, "_tzname", None))
    return composite("pytz", *encoded(active, *parts))


def _dateutil_file(value: Any) -> tuple[Any, ...]:
    name = getattr(value, "_filename", None)
    if not isinstance(name, str):
        raise Unkeyable(value, "a dateutil zone that was not read from a file has no name; use zoneinfo.ZoneInfo")
    return (name,)


def _date(value: Any) -> tuple[Any, ...]:
    return (value.year, value.month, value.day)


def _time(value: Any) -> tuple[Any, ...]:
    return (value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo)


def _path(value: Any) -> tuple[Any, ...]:
    return (type(value).__name__, str(value))


def _range(value: Any) -> tuple[Any, ...]:
    return (value.start, value.stop, value.step)


def _decimal(value: Any) -> tuple[Any, ...]:
    sign, digits, exponent = value.as_tuple()
    return (sign, "".join(map(str, digits)), exponent)


_datetime = fields("datetime", lambda value: (*_date(value), *_time(value)))
_plain_date = fields("date", _date)

_KNOWN: dict[str, Encoder] = {
    "bytearray": fields("bytearray", lambda value: (bytes(value),)),
    "memoryview": _memoryview,
    "array.array": fields("array", lambda value: (value.typecode, value.tolist())),
    "range": fields("range", _range),
    "slice": fields("slice", _range),
    "ellipsis": fields("Ellipsis", lambda value: ()),
    "NotImplementedType": fields("NotImplemented", lambda value: ()),
    "datetime.date": _plain_date,
    "freezegun.api.FakeDate": _plain_date,
    "datetime.datetime": _datetime,
    "freezegun.api.FakeDatetime": _datetime,
    "datetime.time": fields("time", _time),
    "datetime.timedelta": fields("timedelta", lambda value: (value.days, value.seconds, value.microseconds)),
    "datetime.timezone": fields("timezone", lambda value: (_micros(value.utcoffset(None)), value.tzname(None))),
    "zoneinfo.ZoneInfo": fields("ZoneInfo", _zoneinfo),
    "dateutil.tz.tz.tzutc": fields("dateutil.tzutc", lambda value: ()),
    "dateutil.tz.tz.tzoffset": fields(
        "dateutil.tzoffset", lambda value: (_micros(value.utcoffset(None)), value.tzname(None))
    ),
    "dateutil.tz.tz.tzfile": fields("dateutil.tzfile", _dateutil_file),
    "decimal.Decimal": fields("Decimal", _decimal),
    "fractions.Fraction": fields("Fraction", lambda value: (value.numerator, value.denominator)),
    "uuid.UUID": fields("UUID", lambda value: (value.int,)),
    "re.Pattern": fields("re.Pattern", lambda value: (value.pattern, int(value.flags))),
    "collections.deque": fields("deque", lambda value: (value.maxlen, list(value))),
    "collections.OrderedDict": _ordered,
    "collections.Counter": fields("Counter", _as_dict),
    "collections.defaultdict": fields("defaultdict", lambda value: (value.default_factory, dict(value.items()))),
    "collections.ChainMap": fields("ChainMap", lambda value: (value.maps,)),
    "mappingproxy": fields("mappingproxy", _as_dict),
    "types.SimpleNamespace": fields("SimpleNamespace", lambda value: (vars(value),)),
    "pydantic_core._pydantic_core.Url": fields("pydantic_core.Url", lambda value: (str(value),)),
    "pydantic_core._pydantic_core.MultiHostUrl": fields("pydantic_core.Url", lambda value: (str(value),)),
    "functools.partial": _partial,
    **{f"pathlib.{name}": fields("Path", _path) for name in PATHS},
    **{f"pathlib._local.{name}": fields("Path", _path) for name in PATHS},  # as 3.13 alone says
    **{f"ipaddress.{name}": fields("ipaddress", _path) for name in ADDRESSES},
}
