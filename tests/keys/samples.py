"""Values of every known type of the standard library, no two of which may share a key."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import re
import types
import uuid
import zoneinfo
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.keys import binding

if TYPE_CHECKING:
    from collections.abc import Callable


class Binding(binding.Binding):
    """With the text of a call, made anew each time."""

    @property
    def text(self) -> Callable[..., str]:
        return self.compile(str, memo_size=0)


UTC = dt.timezone.utc
ROME = zoneinfo.ZoneInfo("Europe/Rome")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


class Spot(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class User:
    name: str
    friends: list[User] = field(default_factory=list)
    note: str = field(default="", compare=False)


@dataclass
class Client:
    name: str
    friends: list[User] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Derived(User):
    extra: int = 0


class Keyed:
    def __init__(self, key: Any) -> None:
        self.key = key

    def __memover_key__(self) -> Any:
        return self.key

    def method(self) -> None: ...


class KeyedToo(Keyed): ...


def function() -> None: ...


def other() -> None: ...


def anything(*args: Any, **kwargs: Any) -> None: ...


def distinct() -> list[Any]:
    """Values of which no two may share a key; new objects at each call."""
    values: list[Any] = [
        *(None, True, False, 0, 1, -1, 2, 255, 2**63, -(2**63), 2**200, 2**15000),
        *(0.0, -0.0, 1.0, 0.1, -1.5, 1e300, 5e-324, float("inf"), float("-inf"), float("nan")),
        *(1j, 0j, complex(1, 0), complex(-0.0, 0.0), complex(0.0, -0.0)),
        *(
            "",
            "1",
            "True",
            "None",
            "a",
            "A",
            "a b",
            "é",
            "e\u0301",
            "\ud800",
            "\ud83d\ude00",
            "😀",
            "\x00",
            "i0x1;",
        ),
        *(b"", b"1", b"a", b"\x00", bytearray(b"a"), memoryview(b"a"), memoryview(b"abcd").cast("H")),
        *((), (1,), (1, 2), (2, 1), ((1,), 2), (1, (2,)), ((1, 2),), ("a", "b"), ("ab",), (None,)),
        *([], [1], [1, 2], [[1], 2], [1, [2]], [[1, 2]], [[]], [()], ([],)),
        *(set(), {1}, {"1"}, {1, 2}, frozenset(), frozenset({1}), {frozenset({1})}),
        *({}, {1: 2}, {2: 1}, {"1": 2}, {1: 2, 2: 1}, {"a": {"b": 1}}, {"a": {}, "b": 1}, {None: None}),
        *(
            range(3),
            range(0, 3, 2),
            range(0, 4, 2),
            slice(3),
            slice(0, 3),
            slice(None, None, 1),
            ...,
            NotImplemented,
        ),
        *(array.array("i", [1]), array.array("d", [1.0]), array.array("h", [1])),
        *(
            dt.date(2024, 1, 2),
            dt.time(1, 2, 3),
            dt.time(1, 2, 3, tzinfo=UTC),
            dt.timedelta(1),
            dt.timedelta(0, 1),
        ),
        *(dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 2, 1), dt.datetime(2024, 1, 2, tzinfo=UTC)),
        *(
            dt.datetime(2024, 1, 2, 1, tzinfo=ROME),
            dt.datetime(2024, 1, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        ),
        *(
            dt.datetime(2024, 10, 27, 2, 30, tzinfo=ROME),
            dt.datetime(2024, 10, 27, 2, 30, tzinfo=ROME, fold=1),
        ),
        *(UTC, ROME, dt.timezone(dt.timedelta(0), "GMT"), zoneinfo.ZoneInfo("UTC")),
        *(decimal.Decimal(1), decimal.Decimal("1.0"), decimal.Decimal("1.00"), decimal.Decimal("-0")),
        *(
            decimal.Decimal("NaN"),
            decimal.Decimal("sNaN"),
            decimal.Decimal("inf"),
            decimal.Decimal("1E+2"),
        ),
        *(fractions.Fraction(1, 3), fractions.Fraction(1), uuid.UUID(int=1), uuid.UUID(int=2)),
        *(pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.PurePosixPath("b")),
        *(
            ipaddress.ip_address("1.2.3.4"),
            ipaddress.ip_network("1.2.3.4"),
            ipaddress.ip_interface("1.2.3.4"),
        ),
        *(re.compile("a"), re.compile("b"), re.compile("a", re.IGNORECASE), re.compile(b"a")),
        *(
            Color.RED,
            Color.BLUE,
            Shade.RED,
            Level.LOW,
            Level.HIGH,
            Word.RED,
            Access.READ,
            Access.READ | Access.WRITE,
        ),
        *(Color, Shade, int, str, User, Point, Level),
        *(
            Point(1, 2),
            Spot(1, 2),
            Point(2, 1),
            User("a"),
            User("b"),
            User("a", [User("b")]),
            User("a", note="n"),
        ),
        *(Client("a"), Derived("a")),
        *(collections.OrderedDict([(1, 2), (3, 4)]), collections.OrderedDict([(3, 4), (1, 2)]), {1: 2, 3: 4}),
        *(
            collections.deque([1]),
            collections.deque([1], 3),
            collections.Counter("ab"),
            collections.Counter("aab"),
        ),
        *(collections.defaultdict(list), collections.defaultdict(int), collections.defaultdict(None)),
        *(collections.ChainMap({1: 2}), collections.ChainMap({1: 2}, {}), collections.UserDict({1: 2})),
        *(types.MappingProxyType({1: 2}), types.SimpleNamespace(a=1)),
        *(
            function,
            other,
            len,
            "a".upper,
            "b".upper,
            str.upper,
            Keyed(1).method,
            Keyed(2).method,
            dict.fromkeys,
        ),
        *(functools.partial(function), functools.partial(anything, 1), functools.partial(anything, a=1)),
        *(Keyed(1), Keyed("1"), KeyedToo(1), Keyed((1, [2])), Keyed(Keyed(1))),
    ]
    return values
