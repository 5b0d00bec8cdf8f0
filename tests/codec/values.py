"""The values that every test of fidelity runs over."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import pathlib
import re
import struct
import types
import uuid
from array import array
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import msgpack

from tests.codec import things as t

UTC = dt.timezone.utc
PARIS = ZoneInfo("Europe/Paris")
SHARED = [1, 2]


def noted(error: BaseException, note: str) -> BaseException:
    error.__notes__ = [note]  # type: ignore[attr-defined]
    return error


def without(value: Any, name: str) -> Any:
    delattr(value, name)
    return value


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus one": -1,
    "int 64": 2**63 - 1,
    "uint 64": 2**64 - 1,
    "int min": -(2**63),
    "int 65": 2**64,
    "int below": -(2**63) - 1,
    "int huge": 3**5000,
    "int huge negative": -(3**5000),
    "float": 0.1,
    "nan": float("nan"),
    "nan with payload": struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0],
    "inf": float("-inf"),
    "minus zero": -0.0,
    "complex": complex(-0.0, float("inf")),
    "str": "naïve \U0001f600 \0 text",
    "str of bin bytes": "Ä Å ģ Ɓ",
    "lone surrogate": "a\ud800b",
    "surrogate pair": "\ud83d\ude00",
    "surrogates below": {"k\udcff": ["\udcff", t.Friend("\ud800")]},
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"\x00\xff"),
    "empty bytearray below": {"a": [bytearray(), b""]},
    "bytearray in tuple": (1, [bytearray(b"x"), {"k": bytearray(b"y")}]),
    "bytearray in dataclass": t.Friend("x", [bytearray(b"x")]),
    "bytearray with surrogates": ["\ud800", bytearray(b"x")],
    "tuple": (1, (2, [3, (4,)])),
    "empty tuple": (),
    "list": [1, "a", None, [[]]],
    "tuple in list of tuples": [(1, 2), [1, 2], (1, 2)],
    "set": {1, "a", (2, 3), None},
    "set of equal numbers": {1},
    "frozenset": frozenset({frozenset({1}), 2.5}),
    "dict": {"b": 1, "a": {"z": [], "y": ()}},
    "dict of keys": {1: "int", "1": "str", (1, 2): "tuple", None: "none", 2.5: "float", b"1": "bytes"},
    "dict of bool": {True: 1, False: 0},
    "dict of keys deep": {frozenset({1}): {(1, (2, "x")): {t.Point(1, 2): t.Colour.RED}}},
    "dict keyed by dates": {dt.date(2024, 2, 29): 1, dt.timedelta(1): 2, Decimal("1.50"): 3},
    "deque": deque([1, (2,)], maxlen=5),
    "deque without limit": deque([[1]]),
    "counter": Counter({"a": 3, "b": -1, "c": 0}),
    "defaultdict": defaultdict(list, {"a": [1]}),
    "defaultdict of none": defaultdict(None, {1: 2}),
    "defaultdict nested": defaultdict(dict, {"a": defaultdict(int, {"b": 1})}),
    "defaultdict of partial": defaultdict(functools.partial(defaultdict, int), {"a": defaultdict(int)}),
    "ordereddict": OrderedDict([("z", 1), ("a", (2,))]),
    "chainmap": ChainMap({"a": 1}, OrderedDict(b=2)),
    "mappingproxy": types.MappingProxyType({"a": [1]}),
    "namespace": types.SimpleNamespace(a=1, b=(2,)),
    "range": range(10, -10, -3),
    "range huge": range(0, 2**70, 7),
    "slice": slice(None, 5, (1,)),
    "ellipsis": ...,
    "notimplemented": NotImplemented,
    "date": dt.date(1, 1, 1),
    "datetime": dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
    "datetime utc": dt.datetime(2024, 1, 1, tzinfo=UTC),
    "datetime fixed": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=7))),
    "datetime fixed named": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    "datetime utc named": dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "UTC")),
    "datetime zone": dt.datetime(2024, 10, 27, 2, 30, tzinfo=PARIS),
    "datetime fold": dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=PARIS),
    "time": dt.time(23, 59, 59, 1, fold=1),
    "time aware": dt.time(1, 2, tzinfo=UTC),
    "timedelta": dt.timedelta(days=-999999999, microseconds=1),
    "timezone": dt.timezone(dt.timedelta(minutes=-1), "odd"),
    "utc": UTC,
    "zoneinfo": PARIS,
    "decimal": Decimal("-0E+5"),
    "decimal digits": Decimal("1." + "0" * 60),
    "decimal snan": Decimal("-sNaN123"),
    "decimal nan": Decimal("NaN7"),
    "decimal inf": Decimal("-Infinity"),
    "decimal exponent": Decimal("1E+999999"),
    "fraction": Fraction(-(10**40), 3),
    "uuid": uuid.UUID(int=5),
    "uuid safe": uuid.UUID(int=5, is_safe=uuid.SafeUUID.unsafe),
    "pure posix path": pathlib.PurePosixPath("/a/../b"),
    "pure windows path": pathlib.PureWindowsPath("C:\\a\\b"),
    "path": pathlib.Path("rel/a\udcff"),
    "empty path": pathlib.Path(),
    "ipv4": ipaddress.IPv4Address("10.0.0.1"),
    "ipv6": ipaddress.IPv6Address("fe80::1%eth0"),
    "ip network": ipaddress.IPv4Network("10.0.0.0/8"),
    "ip6 network": ipaddress.IPv6Network("2001:db8::/32"),
    "ip interface": ipaddress.IPv4Interface("10.0.0.1/8"),
    "ip6 interface": ipaddress.IPv6Interface("2001:db8::1/32"),
    "pattern": re.compile(r"(?i)a+\d", re.MULTILINE),
    "pattern bytes": re.compile(rb"\w", re.ASCII),
    "array": array("d", [1.5, -0.0]),
    "array of ints": array("q", [-1, 2**62]),
    "msgpack ext": msgpack.ExtType(5, b"x"),
    "msgpack exts": [msgpack.ExtType(0, b""), (msgpack.ExtType(127, b"\x01"),), msgpack.Timestamp(1, 5)],
    "enum": t.Colour.GREEN,
    "enum alias": t.Colour.CRIMSON,
    "int enum": t.Level.HIGH,
    "str enum": t.Word.A,
    "flag": t.Right.READ,
    "flag combined": t.Right.READ | t.Right.RUN,
    "flag named combination": t.Right.ALL,
    "flag none": t.Right(0),
    "int flag": t.Bits.ONE | t.Bits.TWO,
    "int flag unknown bits": t.Bits(9),
    "enums": [t.Level.LOW, 1, t.Word.A, "a", True],
    "namedtuple": t.Pair(1, (2, t.Pair(3))),
    "old namedtuple": t.OldPair([1], None),
    "namedtuple beside tuple": [t.Pair(1, 2), (1, 2), [1, 2]],
    "dataclass": t.Profile(7, "Ada", [t.Friend("Bob"), t.Friend("Cy", b"jpg")], t.Colour.GREEN, frozenset({"x"})),
    "dataclass frozen": t.Point(1, 2),
    "dataclass slots": t.Slotted(1, [t.FrozenSlotted(2, t.Slotted(3))]),
    "dataclass inherited": t.Derived(1, "c"),
    "dataclass slots below dict": t.SlottedBelow(1, 2),
    "plain class below": t.PlainBelow(4),
    "dataclass generic": t.Box((1, t.Box("x"))),
    "dataclass generic alias": t.Box[int](3),
    "dataclass computed": t.Computed(2, 5),
    "dataclass empty": t.Empty(),
    "dataclass guarded": t.Strict(5),
    "dataclass with extra": t.attribute(t.Friend("x"), added=(1,)),
    "dataclass frozen with extra": t.attribute(t.Point(1, 2), added=[1]),
    "dataclass lacking": without(t.Friend("x"), "name"),
    "dataclass slots lacking": without(t.Slotted(1), "x"),
    "typeddict": t.Row(id=1, who=t.Friend("x")),
    "dict subclass": t.MyDict(a=1, b=t.MyDict()),
    "list subclass": t.MyList([1, t.MyList()]),
    "tuple subclass": t.MyTuple((1, 2)),
    "set subclass": t.MySet({1}),
    "frozenset subclass": t.MyFrozenSet({1}),
    "str subclass": t.attribute(t.MyStr("x"), note=1),
    "str subclass with slots": t.SlottedStr("x"),
    "int subclass": t.MyInt(2**70),
    "float subclass": t.MyFloat("-0.0"),
    "bytes subclass": t.MyBytes(b"x"),
    "bytearray subclass": t.MyByteArray(b"x"),
    "complex subclass": t.MyComplex(1, 2),
    "deque subclass": t.MyDeque([1], 3),
    "ordereddict subclass": t.MyOrdered([("b", 1), ("a", 2)]),
    "counter subclass": t.MyCounter("aab"),
    "defaultdict subclass": t.MyDefault(list, {"a": [1]}),
    "exception": t.NotFound("x", hint="y"),
    "builtin exception": ValueError("a", 1, (2,)),
    "key error": KeyError(("a", 1)),
    "exception with notes": noted(ValueError("x"), "a note"),
    "os error": FileNotFoundError(2, "No such file", "/tmp/x"),
    "os error subclass": t.Slow(110, "slow"),
    "import error": ImportError("no", name="shop", path="/shop"),
    "unicode error": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "stop iteration": StopIteration(5),
    "shared references": [SHARED, SHARED, (SHARED,)],
    "many classes": [t.Friend(1), t.Point(1, 2), t.Friend(2), t.Colour.RED, t.Colour.GREEN, t.Point(3, 4)],
    "deep": functools.reduce(lambda inner, _: [inner], range(400), 1),
    "deep tuples": functools.reduce(lambda inner, _: (inner,), range(400), 1),
}
