"""The promises under every schedule of whole processes: the near tier with its heartbeat, and callers who are interrupted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("greenlet")

from tests.explorer.whole_mutants import MUTANTS
from tests.explorer.whole_scenarios import LONG, SCENARIOS, explore

if TYPE_CHECKING:
    from tests.explorer.whole import Whole
    from tests.explorer.whole_mutants import Mutant

STANDING = 1_000
"""Moments of each scenario in the standing suite."""
SLOW = None if os.environ.get("MEMOVER_EVERY_SCHEDULE") else 4_000
"""Moments of each longer scenario in the slow suite; `MEMOVER_EVERY_SCHEDULE=1` has it go through all, which takes long."""
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *LONG)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_schedule_breaks_a_promise(scenario: Whole) -> None:
    """Whatever the order: no answer is too old, and leases, loads and what is owed come to rest."""
    _holds(scenario, STANDING)


def _holds(scenario: Whole, enough: int | None) -> None:
    report = explore(scenario, enough=enough)
    assert report.violation is None, str(report.violation)
    assert report.moments > 10
    print(f"{report.moments} moments, {report.replays} schedules replayed")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [*SCENARIOS, *LONG], ids=lambda scenario: scenario.name)
def test_no_longer_schedule_breaks_a_promise(scenario: Whole) -> None:
    """The same to the end, and where more happens at once."""
    _holds(scenario, SLOW if scenario in LONG else None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.wrong)
def test_every_rule_is_needed(mutant: Mutant) -> None:
    """The code with one rule broken is caught, in the scenario and by the promise that the rule is there for."""
    report = explore(BY_NAME[mutant.scenario], mutant.breaks)
    assert report.violation is not None, f"nothing shows that {mutant.wrong}"
    print(f"{mutant.wrong}:\n{report.violation}")
    assert report.violation.promise == mutant.promise
