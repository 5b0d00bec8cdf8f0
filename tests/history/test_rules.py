"""The rules of the history checker, each with a history that breaks it and one that comes close."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memover.testing import judge_history
from memover.testing.history import FailedCall, Invalidation, Read
from memover.testing.rules import RULES


def read(
    value: int, began: int, returned: int, *, load: str = "L", loaded: bool = False, process: int = 0, source: int = 99
) -> Read:
    return Read(process, 0, 0, value, load, loaded, began if loaded else 0, began, returned, source)


def invalidation(
    floor: int, began: int, returned: int, *, acknowledged: bool = True, process: int = 1, what: str = "key"
) -> Invalidation:
    return Invalidation(process, 0, what, {0: floor}, began, returned, acknowledged)


def broken(reads: list[Read], invalidations: list[Invalidation], failures: Any = (), **options: Any) -> set[str]:
    return set(judge_history(reads, invalidations, failures, **options).violations)


LOADS = [read(1, 0, 5, load="L", loaded=True)]


def test_fresh_a_read_after_an_invalidation_may_not_be_older_than_it() -> None:
    """A read that began after an invalidation returned is at least what its source held when that began."""
    assert broken([*LOADS, read(1, 21, 22)], [invalidation(2, 10, 20)]) == {"fresh"}
    assert broken([*LOADS, read(2, 21, 22)], [invalidation(2, 10, 20)]) == set()


def test_fresh_a_read_that_began_before_the_invalidation_returned_may_be_older() -> None:
    """What overlaps an invalidation may come before it."""
    assert broken([*LOADS, read(1, 20, 30)], [invalidation(2, 10, 20)]) == set()


def test_fresh_a_near_cache_is_allowed_its_staleness_and_no_more() -> None:
    """With `max_staleness`, a read is bounded by what was invalidated longer ago than that."""
    late = read(1, 2_000_000_021, 2_000_000_022)
    assert broken([*LOADS, late], [invalidation(2, 10, 20)], max_staleness=3.0) == set()
    assert broken([*LOADS, late], [invalidation(2, 10, 20)], max_staleness=2.0) == {"fresh"}


def test_closed_a_failed_invalidation_bounds_its_own_process_only() -> None:
    """An ambiguous invalidation enters no bound but that of the process that was told it failed."""
    failed = invalidation(2, 10, 20, acknowledged=False, process=1)
    assert broken([*LOADS, read(1, 21, 22, process=1)], [failed]) == {"closed"}
    assert broken([*LOADS, read(1, 21, 22, process=0)], [failed]) == set()


def test_no_future_a_read_cannot_be_ahead_of_its_source() -> None:
    """A value that the source had not reached when the read returned was made up."""
    assert broken([read(5, 0, 1, source=4)], []) == {"no-future"}
    assert broken([read(4, 0, 1, source=4)], []) == set()


def test_monotonic_an_answer_from_the_store_is_not_older_than_an_earlier_one() -> None:
    """Answers of the store never go back; loads that were not stored may."""
    loads = [read(1, 0, 1, load="a", loaded=True), read(2, 0, 1, load="b", loaded=True)]
    back = [read(2, 10, 11, load="b"), read(1, 12, 13, load="a")]
    assert broken([*loads, *back], [], rules=("monotonic",)) == {"monotonic"}
    together = [read(2, 10, 13, load="b"), read(1, 12, 13, load="a")]
    assert broken([*loads, *together], [], rules=("monotonic",)) == set()
    not_stored = [read(3, 10, 11, load="c", loaded=True), read(2, 12, 13, load="b")]
    assert broken([*loads, *not_stored], [], rules=("monotonic",)) == set()


def test_single_load_a_second_load_needs_an_invalidation_between_the_two() -> None:
    """One load per key and generation: what nothing invalidated is not loaded again."""
    first, second = read(1, 0, 5, load="a", loaded=True), read(1, 10, 15, load="b", loaded=True)
    hit = read(1, 16, 17, load="b")
    report = judge_history([first, second, hit], [invalidation(1, 11, 12)])
    assert (set(report.violations), report.most_loads) == ({"single-load"}, 2)
    report = judge_history([first, second, hit], [invalidation(1, 6, 7)])
    assert (set(report.violations), report.most_loads) == (set(), 1)
    assert broken([first, second], []) == set(), "a store that never answered is no reason to complain of loads"


def test_error_a_call_that_raised_is_a_violation() -> None:
    """Reads fail open: whatever they raise is reported."""
    assert broken([], [], [FailedCall(0, 0, "read", "ValueError()", 1)]) == {"error"}


def test_a_run_that_reached_nothing_is_not_ok() -> None:
    """Without an answer from the store and an acknowledged invalidation there was nothing to find."""
    assert judge_history(LOADS, [invalidation(1, 10, 20)]).inconclusive
    assert judge_history([*LOADS, read(1, 6, 7)], []).inconclusive
    report = judge_history([*LOADS, read(1, 6, 7)], [invalidation(1, 10, 20)])
    assert report.ok
    assert not report.inconclusive


def test_a_rule_that_was_not_asked_for_finds_nothing() -> None:
    """`rules` leaves out what a run with faults cannot promise."""
    reads = [*LOADS, read(1, 21, 22)]
    assert broken(reads, [invalidation(2, 10, 20)], rules=("no-future", "error")) == set()
    with pytest.raises(AssertionError):
        judge_history([], [], rules=("no-such-rule",))


def test_a_report_says_what_was_found_to_people_and_machines() -> None:
    """Counts of everything, examples of a few."""
    many = [read(1, 21 + at, 22 + at) for at in range(50)]
    report = judge_history([*LOADS, *many], [invalidation(2, 10, 20)])
    assert report.violations == {"fresh": 50}
    assert len(report.examples) == 20
    assert "VIOLATIONS     fresh 50" in str(report)
    plain = report.as_dict()
    assert plain["violations"] == {"fresh": 50}
    assert plain["examples"][0]["rule"] == "fresh"
    assert not plain["ok"]
    assert set(RULES) > set(plain["violations"])


INSTANTS = st.tuples(st.integers(0, 30), st.integers(0, 10))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), INSTANTS, st.integers(0, 2)), max_size=12),
    st.lists(st.tuples(st.integers(0, 4), INSTANTS, st.integers(0, 2), st.booleans()), max_size=6),
)
def test_the_sweeps_find_what_comparing_everything_with_everything_finds(reads: Any, invalidations: Any) -> None:
    """The quick way through a history agrees with the definition of each rule."""
    rs = [read(value, began, began + took, process=process) for value, (began, took), process in reads]
    ins = [
        invalidation(floor, began, began + took, process=process, acknowledged=acknowledged)
        for floor, (began, took), process, acknowledged in invalidations
    ]
    fresh = sum(any(i.acknowledged and i.returned < r.began and r.value < i.floors[0] for i in ins) for r in rs)
    closed = sum(
        any(
            not i.acknowledged and i.process == r.process and i.returned < r.began and r.value < i.floors[0]
            for i in ins
        )
        for r in rs
    )
    found = judge_history(rs, ins).violations
    assert (found.get("fresh", 0), found.get("closed", 0)) == (fresh, closed)
