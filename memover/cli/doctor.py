"""`memover doctor`: whether a running cache is in order, a row for each check, and what to do about what is not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memover.cli.health import MARKS, Check, examine
from memover.cli.running import StoreContext, document, on_store, step_option
from memover.cli.text import Column, count_of, table, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command("doctor")
@on_store
@step_option
def doctor(context: StoreContext, form: str, step: int) -> None:
    """Check a running cache: the store, this machine's clock, what is stored, and the processes that report.

    Nothing is changed. Exit status 1 when a check fails; 0 with warnings alone.
    """
    checks = examine(context, step=step)
    if form == "json":
        document({"checks": [each._asdict() for each in checks]})
    else:
        _show(checks)
    sys.exit(1 if any(each.status == "fail" for each in checks) else 0)


def _show(checks: Sequence[Check]) -> None:
    console = Console(highlight=False)
    if console.is_terminal:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for each in checks:
            style = _STYLES[each.status]
            found = Text(visible(each.value))
            if each.advice:
                found.append(f"\n{each.advice}", style="dim" if each.status == "ok" else style)
            grid.add_row(Text(MARKS[each.status], style=style), Text(visible(each.name), style="bold"), found)
        console.print(grid)
    else:
        columns = (Column("check"), Column("status"), Column("found"), Column("what to do"))
        table(console, columns, [(each.name, each.status, visible(each.value), each.advice) for each in checks])
    bad = sum(each.status == "fail" for each in checks)
    warned = sum(each.status == "warn" for each in checks)
    parts = [part for number, part in ((bad, f"{bad} failed"), (warned, count_of(warned, "warning"))) if number]
    console.print(Text(", ".join(parts) or "all in order", style="red" if bad else "yellow" if warned else "green"))
