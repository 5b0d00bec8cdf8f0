"""The promises under every schedule: the real flows of the engine, each interleaving of readers, invalidators and faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.explorer.mutants import MUTANTS, real_rules
from tests.explorer.scenarios import LONG, SCENARIOS
from tests.explorer.search import explore
from tests.explorer.world import World

if TYPE_CHECKING:
    from tests.explorer.mutants import Mutant
    from tests.explorer.world import Scenario

BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *LONG)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_schedule_breaks_a_promise(scenario: Scenario) -> None:
    """Whatever the order of operations and faults, no promise falls and nobody waits for ever."""
    report = explore(World(scenario, real_rules(scenario)))
    assert report.violation is None, str(report.violation)
    assert report.schedules > 0
    print(f"{report.schedules:.2g} schedules in {report.moments} moments")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", LONG, ids=lambda scenario: scenario.name)
def test_no_schedule_of_many_breaks_a_promise(scenario: Scenario) -> None:
    """The same with more who act at once."""
    test_no_schedule_breaks_a_promise(scenario)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.wrong)
def test_every_rule_is_needed(mutant: Mutant) -> None:
    """The protocol with one rule broken is caught, in the scenario and by the promise that the rule is there for."""
    report = explore(World(BY_NAME[mutant.scenario], mutant.rules(BY_NAME[mutant.scenario])))
    assert report.violation is not None, f"nothing shows that {mutant.wrong}"
    print(f"{mutant.wrong}:\n{report.violation}")
    assert report.violation.promise == mutant.promise


def test_scenarios_are_told_apart() -> None:
    """A mutant finds its scenario by name."""
    assert len(BY_NAME) == len(SCENARIOS) + len(LONG)
    assert {mutant.scenario for mutant in MUTANTS} <= BY_NAME.keys()
