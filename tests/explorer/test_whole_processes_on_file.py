"""The promises under every schedule of whole processes on one SQLite file: the real store, a real file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("greenlet")

from tests.explorer.on_file import file_world
from tests.explorer.on_file_scenarios import LONG, MUTANTS, SCENARIOS
from tests.explorer.test_whole_processes import SLOW
from tests.explorer.whole_scenarios import explore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.explorer.on_file import OnFile
    from tests.explorer.whole_mutants import Mutant
    from tests.explorer.whole_scenarios import Report

STANDING = 300
"""Moments of each scenario in the standing suite."""
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *LONG)}


def explored(
    path: Path, scenario: OnFile, breaks: Callable[[], Callable[[], None]] | None, enough: int | None
) -> Report:
    return explore(scenario, breaks, enough=enough, world=partial(file_world, str(path)))


def _holds(path: Path, scenario: OnFile, enough: int | None) -> None:
    report = explored(path, scenario, None, enough)
    assert report.violation is None, str(report.violation)
    assert report.moments > 10
    print(f"{report.moments} moments, {report.replays} schedules replayed")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_schedule_breaks_a_promise(tmp_path: Path, scenario: OnFile) -> None:
    """Whatever the order of statements: no answer is too old, no load too many, and leases and what is owed come to rest."""
    _holds(tmp_path, scenario, STANDING)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [*SCENARIOS, *LONG], ids=lambda scenario: scenario.name)
def test_no_longer_schedule_breaks_a_promise(tmp_path: Path, scenario: OnFile) -> None:
    """The same to the end, and where more happens at once."""
    _holds(tmp_path, scenario, SLOW if scenario in LONG else None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.wrong)
def test_every_rule_is_needed(tmp_path: Path, mutant: Mutant) -> None:
    """The store with one rule broken is caught, in the scenario and by the promise that the rule is there for."""
    report = explored(tmp_path, BY_NAME[mutant.scenario], mutant.breaks, None)
    assert report.violation is not None, f"nothing shows that {mutant.wrong}"
    print(f"{mutant.wrong}:\n{report.violation}")
    assert report.violation.promise == mutant.promise


def test_scenarios_are_told_apart() -> None:
    """A mutant finds its scenario by name."""
    assert len(BY_NAME) == len(SCENARIOS) + len(LONG)
    assert {mutant.scenario for mutant in MUTANTS} <= BY_NAME.keys()
