"""The estimate of what a value takes in memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from memover.runtime.footprint import memory_of


@dataclass
class Row:
    name: str
    numbers: list[int]


def exactly(value: Any) -> int:
    """All parts, each once for every place in which it stands."""
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(exactly(key) + exactly(each) for key, each in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return sys.getsizeof(value) + sum(map(exactly, value))
    if isinstance(value, Row):
        return sys.getsizeof(value) + sys.getsizeof(vars(value)) + sum(map(exactly, vars(value).values()))
    return 0 if value is None or (isinstance(value, int) and -6 < value < 257) else sys.getsizeof(value)


@pytest.mark.parametrize(
    "value",
    [
        12345,
        "text" * 100,
        ("Alice", 7, 12.5),
        list(range(10_000)),
        [None] * 1000,
        [str(each) for each in range(3000)],
        {str(each): {"a": each, "b": [1, 2, 3]} for each in range(500)},
        {frozenset(("x", str(each))) for each in range(100)},
        [Row(str(each), list(range(each, each + 300))) for each in range(50)],
        [[[[300] * 20] * 20] * 20] * 20,
        [],
        {},
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_is_near_what_all_parts_take(value: Any) -> None:
    assert exactly(value) * 0.6 <= memory_of(value) <= exactly(value) * 1.4


def test_a_value_that_contains_itself_has_an_end() -> None:
    value: list[Any] = [1000]
    value.append(value)
    assert memory_of(value) > 0
