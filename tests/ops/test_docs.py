"""docs/operations.md shows commands that exist, with options that they take and the tables that they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from memover.cli.app import memover
from memover.cli.top import _COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
COMMANDS = sorted(set(re.findall(r"^\$ (memover .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_can_be_typed(line: str) -> None:
    """The command and each of its options exist."""
    _, name, *args = shlex.split(line)
    command = memover.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {each for each in args if each.startswith("--")} <= known


def test_every_command_on_running_caches_is_shown() -> None:
    """With its output."""
    for name in ("ls", "inspect", "invalidate", "gc", "doctor", "top", "serve"):
        assert re.search(rf"^\$ memover {name}\b.*\n(?!\$|```)", PAGE, re.MULTILINE), name


def test_the_table_of_top_is_todays() -> None:
    """Its columns, in order."""
    assert re.search(r"\s+".join(re.escape(column.head) for column in _COLUMNS), PAGE)


def test_links_inside_the_page_lead_somewhere() -> None:
    """To its own headings."""
    headings = {
        re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
