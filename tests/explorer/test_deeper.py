"""More actors and more faults than can be gone through: schedules drawn at random, each from a seed that replays it.

`MEMOVER_SEED=<n>` begins the drawing there, so that the first schedule is the one a failure has named.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from memover.engine import flows
from tests.explorer.mutants import changed, stands_under_required
from tests.explorer.scenarios import DEEP
from tests.explorer.search import wander
from tests.explorer.world import Rules, World

if TYPE_CHECKING:
    from tests.explorer.world import Scenario

FIRST_SEED = int(os.environ.get("MEMOVER_SEED", "0"))
SCHEDULES = 3000


@pytest.mark.slow
@pytest.mark.parametrize("scenario", DEEP, ids=lambda scenario: scenario.name)
def test_no_drawn_schedule_breaks_a_promise(scenario: Scenario) -> None:
    """No promise falls when everybody acts at once and everything goes wrong."""
    world = World(scenario, Rules(flows))
    steps = 0
    for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
        length, violation = wander(world, seed)
        assert violation is None, str(violation)
        steps += length
    print(f"seeds {FIRST_SEED} to {FIRST_SEED + SCHEDULES - 1}: {steps} steps")
    assert steps > SCHEDULES


def test_a_seed_replays_its_schedule() -> None:
    """The same seed, the same schedule, the same violation, in a world that has seen others as in a new one."""
    scenario = next(scenario for scenario in DEEP if scenario.name == "everything goes wrong, tag by tag")
    rules = Rules(changed({"stands": stands_under_required}))
    world = World(scenario, rules)
    found = next(violation for seed in range(20_000) if (violation := wander(world, seed)[1]) is not None)
    assert found.seed is not None
    _, again = wander(World(scenario, rules), found.seed)
    assert str(again) == str(found)
    assert f"seed {found.seed}" in str(found)
