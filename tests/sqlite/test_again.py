"""Values that are copied because their row is answered again: nobody could tell them from values that were decoded."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import freezegun
import pytest

from memover import Cache, MemoverWarning, versioned_cache
from memover.stores.sqlite import marks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HITS = 5
"""From the third on they are copied."""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(f"sqlite:///{tmp_path}/x.db", prefix="p") as cache:
        yield cache


def test_what_a_caller_does_to_its_value_is_its_own(cache: Cache) -> None:
    @versioned_cache(namespace="lists", cache=cache)
    def numbers(x: int) -> list[list[int]]:
        return [[x]]

    for _ in range(HITS + 1):
        mine = numbers(1)
        assert mine == [[1]]
        mine[0].append(2)
        mine.append([])
    assert numbers.cache_info().loads == 1


@pytest.mark.parametrize("tags", [(), ("a",)], ids=["plain", "tagged"])
def test_a_copy_is_no_longer_fresh_than_its_entry(cache: Cache, tags: tuple[str, ...]) -> None:
    """Freshness follows the wall clock, which a test may move, and not only the row's end."""

    @versioned_cache(namespace="short", cache=cache, ttl=60, tags=tags)
    def number(x: int) -> list[int]:
        return [x]

    with freezegun.freeze_time() as clock:
        for _ in range(HITS + 1):
            assert number(1) == [1]
        assert number.cache_info().loads == 1
        clock.tick(61)
        assert number(1) == [1]
        assert number.cache_info().loads == 2


CLASS = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Point:\n    x: int\n"
FUNCTION = "def point(x) -> Point:\n    return Point(x)\n"


def test_a_class_that_has_been_made_anew(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its module was reloaded hits are of the class that there is now."""
    points: Any = ModuleType("points")
    monkeypatch.setitem(sys.modules, "points", points)
    exec(CLASS + FUNCTION, points.__dict__)
    point = versioned_cache(namespace="points", cache=cache)(points.point)
    for _ in range(HITS + 1):
        assert type(point(1)) is points.Point
    before = points.Point
    exec(CLASS, points.__dict__)
    assert points.Point is not before
    for _ in range(HITS):
        assert type(point(1)) is points.Point


def test_marks_that_were_just_made_serve_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens them waits until every process has had to look for the marks that were there before."""
    slept = list[float]()
    now = 1_800_000_000_000
    monkeypatch.setattr(marks, "time_ms", lambda: now)
    monkeypatch.setattr(marks.time, "sleep", slept.append)
    path = tmp_path / "x.db"
    path.touch()
    assert marks.open_page(str(path)) is not None
    now += 1
    assert marks.open_page(str(path)) is not None
    now += marks._NOTICED_MS
    assert marks.open_page(str(path)) is not None
    assert slept == pytest.approx([(marks._NOTICED_MS + 1) / 1000, marks._NOTICED_MS / 1000])


@pytest.mark.parametrize("asked", [[1], [2, 1]], ids=["the kept entry first", "after an entry of its own shape"])
def test_a_function_that_was_redefined_with_another_shape(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    """A cell that is run again with another result: what is kept is of the shape before, and a miss."""
    cell: Any = ModuleType("cell")
    monkeypatch.setitem(sys.modules, "cell", cell)
    exec("def f(x) -> dict[str, int]:\n    return {'x': x}\n", cell.__dict__)
    before = versioned_cache(namespace="cell", cache=cache)(cell.f)
    for _ in range(HITS):
        assert before(1) == {"x": 1}
    exec("def f(x) -> list[int]:\n    return [x]\n", cell.__dict__)
    with pytest.warns(MemoverWarning, match="was defined again"):
        after = versioned_cache(namespace="cell", cache=cache)(cell.f)
    for x in asked:
        for _ in range(HITS):
            assert after(x) == [x]
