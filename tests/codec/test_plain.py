"""Stored instances as plain builtins: what an upgrade from an older version is given."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memover
from memover.codec.mv1.codec import ValueCodec
from memover.errors import DamagedEntry


class Colour(enum.Enum):
    RED = "r"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Spot(NamedTuple):
    lon: float
    lat: float


@dataclasses.dataclass
class Leaf:
    value: int


@dataclasses.dataclass
class Tree:
    leaves: list[Leaf]
    by_name: dict[str, Leaf]


@attrs.define
class Point:
    x: int


class Event(msgspec.Struct):
    name: str


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    item: str
    _note: str = pydantic.PrivateAttr("private")


class Amount(int):
    """A builtin with a name."""


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


memover.register_value(Money, lambda money: [money.cents], lambda cents: Money(cents[0]))


def opened() -> Leaf:
    leaf = Leaf(1)
    leaf.extra = 2  # type: ignore[attr-defined]
    return leaf


CASES: list[tuple[Any, Any]] = [
    ({"a": [1, (2, 3), {4}]}, {"a": [1, (2, 3), {4}]}),
    (date(2026, 1, 2), date(2026, 1, 2)),
    (Leaf(1), {"value": 1}),
    (opened(), {"value": 1, "extra": 2}),
    (
        Tree([Leaf(1), Leaf(2)], {"x": Leaf(3)}),
        {"leaves": [{"value": 1}, {"value": 2}], "by_name": {"x": {"value": 3}}},
    ),
    (Point(1), {"x": 1}),
    (Event("e"), {"name": "e"}),
    (Order(item="i", more=[1]), {"item": "i", "more": [1], "_note": "private"}),
    (Spot(1.0, 2.0), {"lon": 1.0, "lat": 2.0}),
    (Colour.RED, "RED"),
    (Access.READ | Access.WRITE, 3),
    (Amount(3), 3),
    (Money(5), [5]),
    (ValueError("no", 1), {"args": ["no", 1]}),
    ((Leaf(1), Leaf(2)), ({"value": 1}, {"value": 2})),
]


def returns() -> tuple[Tree, Point, Event, Order, Spot, Colour, Access, Amount]:
    raise NotImplementedError


@pytest.mark.parametrize(("value", "expected"), CASES, ids=lambda each: type(each).__name__)
def test_each_kind_becomes_what_it_holds(value: Any, expected: Any) -> None:
    """Instances are dicts of their fields, enum members their names, all else is itself."""
    found = ValueCodec().plain(ValueCodec(returns).encode(value))
    assert found == expected
    assert type(found) is type(expected)


def test_arrays_stay_arrays() -> None:
    """Large ones, which lie behind the payload, too."""
    array = np.arange(10_000)
    assert np.array_equal(ValueCodec().plain(ValueCodec().encode([array]))[0], array)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xc1\x00"]))
def test_any_bytes_are_at_most_damaged(data: bytes, head: bytes) -> None:
    """Whatever is stored, nothing else is raised."""
    try:
        ValueCodec().plain(head + data)
    except DamagedEntry:
        pass
