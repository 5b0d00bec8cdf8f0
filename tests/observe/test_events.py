"""Events are one table: the documentation, the logging observer and what is emitted agree with it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import memover
from memover import Event
from memover.observe import LoggingObserver
from memover.observe.logging import level_of
from memover.runtime.counters import COUNTERS
from memover.runtime.counters import documented as counters_documented
from memover.runtime.events import EVENTS, documented

DOCS = Path(__file__).parents[2] / "docs" / "observing.md"


def test_every_event_is_documented() -> None:
    """The table in docs/observing.md is the one in the source."""
    assert documented() in DOCS.read_text()


def test_every_counter_is_documented() -> None:
    """So is that of the counters."""
    assert counters_documented() in DOCS.read_text()


def test_no_event_is_emitted_that_is_not_in_the_table() -> None:
    """Every name that the source gives to an event."""
    known = {each.name for each in EVENTS}
    emitted = set()
    for path in Path(memover.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if name in ("Event", "emit", "tell") and isinstance(first, ast.Constant) and isinstance(first.value, str):
                emitted.add(first.value)
    assert emitted <= known
    assert {"lookup", "load", "invalidate"} <= emitted


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_every_event_is_logged_at_its_level(kind: object, caplog: pytest.LogCaptureFixture) -> None:
    """With an error and without; one that is not known is a warning."""
    assert isinstance(kind, type(EVENTS[0]))
    with caplog.at_level(logging.DEBUG, "memover.events"):
        LoggingObserver()(Event(kind.name, "profiles", "k"))
        LoggingObserver()(Event(kind.name, "profiles", "k", error=OSError("x")))
    assert [record.levelname.lower() for record in caplog.records] == [kind.level, kind.failing]


def test_what_needs_a_look_is_a_warning() -> None:
    """An audit that differs, an invalidation that was lost, an event of a newer release."""
    assert level_of(Event("audit", "p", "k", detail="differ: …")) == logging.WARNING
    assert level_of(Event("audit", "p", "k", detail="agree: …")) == logging.DEBUG
    assert level_of(Event("invalidate", "", "", error=OSError())) == logging.ERROR
    assert level_of(Event("brand-new", "", "")) == logging.WARNING


def test_names_are_unique() -> None:
    """Of events and of counters."""
    assert len({each.name for each in EVENTS}) == len(EVENTS)
    assert len({each.name for each in COUNTERS}) == len(COUNTERS)
