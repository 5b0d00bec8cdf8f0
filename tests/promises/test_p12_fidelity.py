"""P12: a hit equals the miss, value and type, to any depth; what cannot be kept so is refused when stored.

(Every type: tests/codec.)"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import uuid
from collections import OrderedDict, namedtuple
from typing import TYPE_CHECKING, Any

import pytest

from memover import UnencodableValue

if TYPE_CHECKING:
    from tests.face.ways import Way


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Person:
    name: str
    friends: list[Any]


Point = namedtuple("Point", "x y")

VALUES: list[Any] = [
    None,
    True,
    1,
    1.0,
    -0.0,
    math.inf,
    2**200,
    "ä\0",
    b"\0",
    (1, (2,)),
    [1, [2]],
    {1: "a", "1": "b", (1,): "c"},
    {1, 2},
    frozenset({1}),
    OrderedDict(a=1, b=2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
    datetime.date(2026, 1, 2),
    datetime.timedelta(1, 2, 3),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=7),
    pathlib.PurePosixPath("/a"),
    Colour.RED,
    Point(1, [2]),
    Person("a", [Person("b", [])]),
    range(3),
    complex(1, -2),
]


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one.hex() == other.hex()
    if isinstance(one, dict):
        return list(map(repr, one.items())) == list(map(repr, other.items()))
    return bool(one == other) and repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_a_hit_equals_the_miss(value: Any, way: Way) -> None:
    """Value and type, on every store: the second caller cannot tell that the function did not run."""
    f = way.cached()(lambda: value)
    miss, hit, again = way.run(f()), way.run(f()), way.run(f())
    assert f.cache_info().loads == 1
    assert same(miss, value)
    assert same(hit, value)
    assert same(again, value)
    assert same(way.run(f.peek()).value, value)


def test_no_caller_can_change_what_another_gets(way: Way) -> None:
    """A caller that changes its result changes nobody else's, the loader's included."""
    f = way.cached()(lambda: {"list": [1]})
    for _ in range(3):
        result = way.run(f())
        assert result == {"list": [1]}
        result["list"].append(2)


def test_what_cannot_be_kept_is_refused_when_stored(way: Way) -> None:
    """An `UnencodableValue` that says where it is, at the first call and not at the first hit."""
    f = way.cached()(lambda: {"a": [1, object()]})
    with pytest.raises(UnencodableValue) as refused:
        way.run(f())
    assert refused.value.path.startswith("$")
    assert "object" in refused.value.kind
    g = way.cached()(lambda: iter([1]))
    with pytest.raises(UnencodableValue):
        way.run(g())
