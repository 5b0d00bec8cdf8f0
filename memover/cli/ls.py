"""`memover ls`: what a cache holds, a row for each version of each namespace."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console
from rich.text import Text

from memover.cli.census import Row, count, estimate, order, prefixes
from memover.cli.running import StoreContext, document, not_there, on_store, progress, step_option
from memover.cli.text import Column, ago, count_of, did_you_mean, size_of, table, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ls"]

_LOCKED = {"current": "green", "old": "yellow", "unknown": "dim"}


@click.command("ls")
@click.argument("pattern", required=False)
@on_store
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Estimate from about N keys of the store.")
@step_option
def ls(context: StoreContext, pattern: str | None, form: str, sample: int | None, step: int) -> None:
    """List the namespaces of a running cache with their versions, entries and sizes.

    PATTERN is a namespace, or a shell pattern: 'shop/*'. Entries of the key-value API are the namespace ~kv. Exit status 1 when
    there are none, as grep's.
    """
    total = context.survey.total() if sample is None else min(sample, context.survey.total())
    with progress("counting" if sample is None else "sampling", total) as on_step:
        if sample is None:
            counted = count(context, step=step, on_step=on_step)
        else:
            counted = estimate(context, sample, on_step=on_step)
    rows = sorted(
        (row for row in counted.values() if pattern is None or fnmatchcase(row.namespace, pattern)), key=order
    )
    estimated = any(row.estimated for row in rows)
    if form == "json":
        document({"rows": [row.facts() for row in rows], "estimated": estimated})
    elif rows:
        _show(rows, estimated)
    if not rows:
        _nothing(context, pattern, [row.namespace for row in counted.values()])


def _show(rows: Sequence[Row], estimated: bool) -> None:
    console = Console(soft_wrap=True)
    about = "≈" if estimated else ""
    columns = (
        Column("namespace", style="cyan"),
        Column("version", right=True),
        Column("entries", right=True, style="bold"),
        Column("size", right=True),
        Column("no ttl", right=True),
        Column("lock"),
        Column("generation moved"),
    )
    table(
        console,
        columns,
        [
            (
                visible(row.namespace),
                str(row.version),
                f"{about}{row.entries:,}",
                size_of(row.bytes),
                Text(f"{row.no_ttl:,}" if row.no_ttl else "–", style="yellow" if row.no_ttl else "dim"),
                Text(row.locked, style=_LOCKED[row.locked]),
                ago(row.moved_at),
            )
            for row in rows
        ],
    )
    names = len({row.namespace for row in rows})
    total = f"{count_of(names, 'namespace')}, {about}{count_of(sum(row.entries for row in rows), 'entry', 'entries')}, "
    console.print(
        Text(total + size_of(sum(row.bytes for row in rows)) + (" (an estimate)" if estimated else ""), style="dim")
    )


def _nothing(context: StoreContext, pattern: str | None, there: Sequence[str]) -> NoReturn:
    if pattern is not None and there:
        hint = did_you_mean(pattern, there)
        told = f"no namespace of prefix {context.prefix!r} fits {visible(pattern)!r}"
        not_there(f"{told}: {hint}" if hint else f"{told}.")
    told = f"there are no entries under the prefix {context.prefix!r} in {context.survey.address}."
    others = [visible(each) for each in prefixes(context.survey) if each != context.prefix]
    not_there(f"{told} Prefixes that have some: {', '.join(others[:10])}." if others else told)
