"""When a server has taken too long on a connection of an event loop."""

from __future__ import annotations

import pytest

from memover.stores.redis.limits import FLOOR_BYTES, FLOOR_COMMANDS
from memover.stores.redis.overdue import Overdue, Turn

BUDGET = 10.0


def test_a_turn_has_one_budget_from_when_it_was_written() -> None:
    """The first turn counts until all of it is over; then the next one's own time does."""
    overdue = Overdue(BUDGET)
    assert overdue.first is None
    assert overdue.due(0, 0, 0) == 0.0
    overdue.written(Turn(last=2, at=100.0, answered=0, received=0, size=0))
    overdue.written(Turn(last=3, at=105.0, answered=0, received=0, size=0))
    assert overdue.due(1, 0, 0) == 110.0
    assert overdue.due(2, 0, 0) == 115.0
    assert overdue.due(3, 0, 0) == 0.0
    assert overdue.first is None


@pytest.mark.parametrize(
    ("answered", "received", "size", "more"),
    [
        (FLOOR_COMMANDS, 0, 0, BUDGET),
        (0, FLOOR_BYTES, 0, BUDGET),
        (0, 0, FLOOR_BYTES * 3, BUDGET * 3),
        (FLOOR_COMMANDS // 2, FLOOR_BYTES, 0, BUDGET * 1.5),
    ],
)
def test_what_moves_prolongs_the_time(answered: int, received: int, size: int, more: float) -> None:
    """What was answered and received since it was written, and what the kernel had still to send then."""
    overdue = Overdue(BUDGET)
    overdue.written(Turn(last=9, at=100.0, answered=7, received=70, size=size))
    assert overdue.due(8, 7 + answered, 70 + received) == pytest.approx(110.0 + more)


def test_a_loop_that_was_held_up_is_spared_once_for_each_turn() -> None:
    """By as much as its timer was late, one budget at most, and not when the timer came on time."""
    overdue = Overdue(BUDGET)
    overdue.written(Turn(last=1, at=100.0, answered=0, received=0, size=0))
    overdue.written(Turn(last=2, at=100.0, answered=0, received=0, size=0))
    assert overdue.due(0, 0, 0) == 110.0
    assert overdue.spare(0.1) == 0.0
    assert overdue.spare(4.0) == 4.0
    assert overdue.due(0, 0, 0) == 114.0
    assert overdue.spare(4.0) == 0.0, "the second time it is the server"
    assert overdue.due(1, 0, 0) == 110.0
    assert overdue.spare(1000.0) == BUDGET
