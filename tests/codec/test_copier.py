"""Copies of a kept value are what decoding it would give, and share nothing that can be changed."""

from __future__ import annotations

import dataclasses
import sys
import types
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.codec.copier import PARTS_LIMIT, copier_of, moved
from memover.codec.mv1.codec import ValueCodec
from tests.codec import things as t
from tests.codec.same import same
from tests.codec.values import VALUES

CODEC = ValueCodec(t.anything)
ROW = {"id": 1, "name": "Ada", "price": Decimal("1.5"), "tags": ["a", "b"], "more": {"x": [1, {"y": (1, [2])}]}}
COPIED: dict[str, Any] = {
    "list": [1, "a", None],
    "dict": {"a": 1, (1, 2): "b"},
    "set": {1, 2},
    "bytearray": bytearray(b"x"),
    "row": ROW,
    "rows": [dict(ROW, tags=("a",), more=None) for _ in range(500)],
    "rows of lists": [[1, 2], [3]],
    "rows with lists": [ROW, ROW],
    "tuple with list": (1, [2], {"a": [3]}),
    "empty": [[], {}, set(), ()],
    "dataclass": t.Profile(1, "x", [t.Friend("a", [1]), t.Friend("b")]),
    "dataclass with an attribute": t.attribute(t.Friend("x"), added=[1]),
    "enum inside": [t.Colour.RED, [t.Point(1, 2)]],
}


def changeable(value: Any, found: dict[int, Any]) -> dict[int, Any]:
    """Everything in a value that can be changed, by id."""
    if isinstance(value, (list, dict, set, bytearray)) or (
        dataclasses.is_dataclass(value) and type(value) is not t.Point
    ):
        found[id(value)] = value
    inside: Any = ()
    if isinstance(value, (list, tuple, set)):
        inside = value
    elif isinstance(value, dict):
        inside = [*value, *value.values()]
    elif hasattr(value, "__dict__") and dataclasses.is_dataclass(value):
        inside = vars(value).values()
    for each in inside:
        changeable(each, found)
    return found


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_is_equal_and_private(name: str) -> None:
    """In value and type, to any depth; no list, dict, set or instance is in two copies, or in the value itself."""
    value = CODEC.decode(CODEC.encode(COPIED[name]))
    copier = copier_of(value)
    assert copier is not None
    one, other = copier.copy(), copier.copy()
    assert same(one, COPIED[name])
    assert same(other, COPIED[name])
    parts = [changeable(each, {}) for each in (value, one, other)]
    assert len(parts[0]) == len(parts[1]) == len(parts[2]) > 0
    assert len({*parts[0], *parts[1], *parts[2]}) == 3 * len(parts[0])


@pytest.mark.parametrize("name", VALUES)
def test_whatever_is_copied_is_what_was_decoded(name: str) -> None:
    """Of every kind of value that the codec keeps: a copier is right, or there is none."""
    value = CODEC.decode(CODEC.encode(VALUES[name]))
    copier = copier_of(value)
    if copier is not None:
        assert same(copier.copy(), VALUES[name])


TREES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=3), st.booleans(), st.binary(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=2), inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=2).map(lambda items: t.Friend("x", items)),
    ),
    max_leaves=25,
)


@given(TREES)
def test_any_tree_is_copied_or_left_alone(tree: Any) -> None:
    """Equal, in the same order, and private."""
    value = CODEC.decode(CODEC.encode(tree))
    copier = copier_of(value)
    if copier is None:
        return
    one = copier.copy()
    assert same(one, tree)
    assert repr(one) == repr(tree)
    assert not changeable(value, {}).keys() & changeable(one, {}).keys()


@pytest.mark.parametrize(
    "value",
    [
        t.MyDict(a=1), t.Slotted(1), object(), [object()], {"a": t.MyDict()}, {1: [iter([])]}, VALUES["deque"],
        [[[]] for _ in range(PARTS_LIMIT)],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_known_has_no_copier(value: Any) -> None:
    """Subclasses, slots, foreign classes, and values of very many parts are decoded for each caller."""
    assert copier_of(value) is None


def test_a_class_that_is_defined_again_ends_a_copier() -> None:
    """Its copies would be of the earlier class."""
    source = "import dataclasses\n@dataclasses.dataclass\nclass Page:\n    x: int\n"
    module: Any = types.ModuleType("memover_copied")
    sys.modules[module.__name__] = module
    try:
        exec(source, vars(module))
        copier = copier_of([module.Page(1)])
        assert copier is not None
        assert not moved(copier.places)
        assert copier.copy() == [module.Page(1)]
        exec(source, vars(module))
        assert moved(copier.places)
    finally:
        del sys.modules[module.__name__]


def test_a_copy_runs_no_code_of_its_class() -> None:
    """Neither constructors nor setters."""
    t.RUNS.clear()
    copier = copier_of(t.CanaryData(1))
    t.RUNS.clear()
    if copier is not None:
        copier.copy()
    assert t.RUNS == []
