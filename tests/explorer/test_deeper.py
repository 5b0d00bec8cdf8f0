"""More actors and more faults than can be gone through: schedules drawn at random, each from a seed that replays it.

`MEMOVER_SEED=<n>` begins the drawing there, so that the first schedule is the one a failure has named.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.explorer.mutants import MUTANTS, real_rules
from tests.explorer.scenarios import DEEP
from tests.explorer.search import wander
from tests.explorer.world import World

if TYPE_CHECKING:
    from tests.explorer.search import Violation
    from tests.explorer.world import Rules, Scenario

FIRST_SEED = int(os.environ.get("MEMOVER_SEED", "0"))
SCHEDULES = 1500
SCHEDULES_IN_ONE_WORLD = 250
"""A world remembers every flow it has run; a new one now and then keeps that within bounds."""

BY_NAME = {scenario.name: scenario for scenario in DEEP}
PLANTED = {
    "the entry is stamped with what is read after the load": "everything goes wrong",
    "whoever has loaded stores, lease or not": "everything goes wrong, call by call",
    "entry and lease are removed one after the other": "everything goes wrong, call by call",
}
"""Mutants, and where a few hundred schedules are enough to come upon them."""


def draw(scenario: Scenario, rules: Rules, count: int) -> tuple[int, Violation | None]:
    """The steps of `count` schedules, or the first violation among them."""
    world = World(scenario, rules)
    steps = 0
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        if seed % SCHEDULES_IN_ONE_WORLD == 0:
            world = World(scenario, rules)
        length, violation = wander(world, seed)
        steps += length
        if violation is not None:
            return steps, violation
    return steps, None


@pytest.mark.slow
@pytest.mark.parametrize("scenario", DEEP, ids=lambda scenario: scenario.name)
def test_no_drawn_schedule_breaks_a_promise(scenario: Scenario) -> None:
    """No promise falls when everybody acts at once and everything goes wrong."""
    steps, violation = draw(scenario, real_rules(scenario), SCHEDULES)
    assert violation is None, str(violation)
    print(f"seeds {FIRST_SEED} to {FIRST_SEED + SCHEDULES - 1}: {steps} steps")
    assert steps > SCHEDULES


@pytest.mark.slow
@pytest.mark.parametrize("wrong", PLANTED)
def test_the_drawing_is_not_blind(wrong: str) -> None:
    """What is planted is come upon: the schedules drawn do leave slow loads behind."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.wrong == wrong)
    scenario = BY_NAME[PLANTED[wrong]]
    _, violation = draw(scenario, mutant.rules(scenario), 2 * SCHEDULES)
    assert violation is not None and violation.promise in ("P1", "P2")


def test_a_seed_replays_its_schedule() -> None:
    """The same seed, the same schedule, the same violation, in a world that has seen others as in a new one."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.wrong == "whoever has loaded stores, lease or not")
    scenario = BY_NAME["everything goes wrong, call by call"]
    rules = mutant.rules(scenario)
    _, found = draw(scenario, rules, 5000)
    assert found is not None and found.seed is not None
    _, again = wander(World(scenario, rules), found.seed)
    assert str(again) == str(found)
    assert f"(seed {found.seed})" in str(found)
