"""Only what nobody can change is handed to several callers as one object."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Any

import pytest

from memover.codec.mv1.codec import ValueCodec
from memover.codec.sharing import shareable
from tests.codec import things as t
from tests.codec.values import VALUES
from tests.ids import steady_repr

SHARED = {
    "none", "true", "zero", "int huge", "nan", "complex", "str", "bytes", "tuple of scalars", "empty tuple", "frozenset",
    "range", "ellipsis", "date", "datetime", "datetime zone", "time aware", "timedelta", "timezone", "zoneinfo", "decimal",
    "fraction", "uuid", "path", "pure posix path", "ipv4", "ip network", "pattern", "enum", "flag combined", "int enum",
    "old namedtuple empty", "dataclass frozen", "frozen slots",
}  # fmt: skip
MORE: dict[str, Any] = {
    "tuple of scalars": (1, ("a", (None,))),
    "old namedtuple empty": t.OldPair(1, None),
    "frozen slots": t.FrozenSlotted(1, (2, 3)),
    "frozen of list": t.FrozenSlotted(1, [2]),
    "named of list": t.Pair(1, [2]),
    "deep tuples of list": functools.reduce(lambda inner, _: (inner,), range(1000), [1]),
}


@dataclass(frozen=True)
class Lazy:
    a: int

    @functools.cached_property
    def items(self) -> list[int]:
        return []


class Thawed(t.Point):
    """Below a frozen class, but it takes attributes."""


def mutable(value: Any, depth: int = 0) -> bool:
    """Say whether something in the value is known to be changeable, as an independent check."""
    if isinstance(value, (list, dict, set, bytearray)) or hasattr(value, "appendleft"):
        return True
    if depth > 40 or isinstance(value, enum.Enum):
        return False
    inside = [*value] if isinstance(value, (tuple, frozenset)) else list(getattr(value, "__dict__", {}).values())
    return any(mutable(each, depth + 1) for each in inside)


@pytest.mark.parametrize("name", [*VALUES, *MORE])
def test_what_can_be_changed_is_not_shared(name: str) -> None:
    """No value with a mutable part is shareable; the common immutable ones are."""
    value = {**VALUES, **MORE}[name]
    if name in SHARED:
        assert shareable(value)
    elif mutable(value):
        assert not shareable(value)


@pytest.mark.parametrize(
    "value",
    [
        Lazy(1), Thawed(1, 2), t.MyTuple((1,)), t.MyStr("x"), t.MyInt(1), t.Slotted(1), t.Friend("x"), object(),
        t.NotFound("x"), t.attribute(t.Point(1, 2), added=1), (1, [2]), frozenset({Lazy(1)}), slice(1, [2]), VALUES["mappingproxy"],
        memoryview(b"x"), t.Canary(), ValueCodec,
    ],
    ids=steady_repr,
)  # fmt: skip
def test_when_in_doubt_not_shared(value: Any) -> None:
    """Subclasses, plain classes, caches on frozen classes, and views are decoded anew for each caller."""
    assert shareable(value) is False


def test_libraries_classes_are_judged() -> None:
    """Frozen attrs classes and Structs of immutable fields are shared; pydantic models and arrays are not."""
    pytest.importorskip("msgspec")
    lib = pytest.importorskip("tests.codec.libraries")
    np = pytest.importorskip("numpy")
    assert shareable(lib.AttrsFrozen(1, 2))
    assert not shareable(lib.AttrsFrozen([1], 2))
    assert not shareable(lib.Attrs(1))
    assert shareable(lib.StructFrozen(a=1))
    assert not shareable(lib.StructFrozen(a=[]))
    assert not shareable(lib.Struct(1))
    assert not shareable(lib.Frozen(a=(1,)))
    assert not shareable(np.arange(3))
    assert shareable(np.float64(1))
