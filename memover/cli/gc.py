"""`memover gc`: what nobody reads any more: entries of versions that are over, tokens that no entry carries, reports left behind.

Removing a token can only cause misses, never bring an old entry back (a reader that finds none makes a new one), so a token
that a load under way has captured may go as well.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import click

from memover.cli.census import KEY_VALUES, entries, lock_states, marks_of, number_of
from memover.cli.project import CannotRun
from memover.cli.running import StoreContext, document, on_store, progress, step_option
from memover.cli.text import count_of, size_of, visible
from memover.keys.names import STRIPES, generation_key, report_key, token_prefixes
from memover.schema.lock import namespace_of
from memover.stores.survey import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.cli.census import Version
    from memover.stores.survey import Facts

__all__ = ["gc"]

_REPORT_LIMIT_MS = 24 * 3600 * 1000
"""No report is kept for so long; one that says so, or does not expire at all, is of the past."""


class Removed(NamedTuple):
    """What was removed of one kind: "entries" of one version of a namespace, "tags", "calls" or "reports"."""

    kind: str
    namespace: str | None
    version: int | None
    removed: int
    bytes: int


def _unread(context: StoreContext) -> Callable[[str, Version], bool]:
    """Whether nobody reads a version of a namespace: it is over by the lock, and no upgrade reads from it."""
    if context.lock is None:
        raise CannotRun(
            f"There is no {context.project.lockfile} in {context.project.root}, which says what is over: write it with `memover lock`."
        )
    blocks = context.lock.functions.items()
    upgraded = {(namespace_of(name), version) for name, block in blocks for version in block.upgrades}
    state = lock_states(context)
    return lambda namespace, version: (
        state(namespace, version) == "old" and (namespace, number_of(version)) not in upgraded
    )


def _collect(
    context: StoreContext,
    unread: Callable[[str, Version], bool],
    *,
    dry_run: bool,
    step: int,
    on_step: Callable[[int], None],
) -> list[Removed]:
    """Removes it, or only counts it: a scan for entries and their tokens, then one for tokens and reports. Raises `StoreError`."""
    survey, prefix = context.survey, context.prefix
    count: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    carried: set[int] = set()
    for found in entries(survey, prefix, step=step, head=HEAD_LIMIT_BYTES, on_step=on_step):
        over = {
            each.facts.key: each
            for each in found
            if each.namespace != KEY_VALUES and unread(each.namespace, each.version)
        }
        for facts in _removed(context, [each.facts for each in over.values()], dry_run):
            entry = over[facts.key]
            at = entry.namespace, number_of(entry.version)
            count[at] += 1
            size[at] += facts.size
        for each in found:
            if each.facts.key not in over:
                carried.update(map(hash, marks_of(survey, each)))
    rows = [Removed("entries", *at, count[at], size[at]) for at in sorted(count)]
    stripe = re.compile(rb".*@call([0-9]{1,4})\Z", re.DOTALL)

    def is_call(key: bytes) -> bool:
        found = stripe.match(key)
        return found is not None and int(found[1]) < STRIPES

    def unused(facts: Facts) -> bool:
        return facts.expires_ms is None and hash(facts.key) not in carried

    def left_behind(facts: Facts) -> bool:
        return facts.expires_ms is None or facts.expires_ms > _REPORT_LIMIT_MS

    for kind, pattern, is_over in (
        ("tags", token_prefixes(prefix)[1] + b"*", unused),
        ("calls", generation_key(prefix, "*@call*").encode(), lambda facts: is_call(facts.key) and unused(facts)),
        ("reports", report_key(prefix, "*").encode(), left_behind),
    ):
        sizes = []
        for page in survey.keys(pattern, step):
            there = [each for each in survey.facts(page.keys, 1) if each is not None and is_over(each)]
            sizes += [each.size for each in _removed(context, there, dry_run)]
            on_step(page.looked_at)
        if sizes:
            rows.append(Removed(kind, None, None, len(sizes), sum(sizes)))
    return rows


def _removed(context: StoreContext, unwanted: list[Facts], dry_run: bool) -> list[Facts]:
    """Those of the keys that were there to be removed."""
    if dry_run or not unwanted:
        return unwanted
    done = context.survey.unlink([each.key for each in unwanted])
    return [each for each, removed in zip(unwanted, done) if removed]


@click.command("gc")
@on_store
@click.option("--dry-run", is_flag=True, help="Count, and remove nothing.")
@step_option
@click.option("--pause", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds between two steps.")
def gc(context: StoreContext, form: str, dry_run: bool, step: int, pause: float) -> None:
    """Remove the entries of versions that are no longer in the lock, and tokens that no entry carries.

    Only namespaces that the lock knows, or knew, are touched; newer versions than the lock's never are, nor versions
    that an upgrade reads from. While old processes still run they load again what is removed.
    """
    unread = _unread(context)
    # Four scans: entries, tags, call tokens, reports.
    with progress("looking" if dry_run else "removing", 4 * context.survey.total()) as advance:

        def on_step(looked_at: int) -> None:
            advance(looked_at)
            if pause:
                time.sleep(pause)

        rows = _collect(context, unread, dry_run=dry_run, step=step, on_step=on_step)
    removed, free = sum(each.removed for each in rows), sum(each.bytes for each in rows)
    if form == "json":
        document({"removed": removed, "bytes": free, "dry_run": dry_run, "rows": [each._asdict() for each in rows]})
        return
    for each in rows:
        click.echo(f"{_what(each)}, {size_of(each.bytes)}")
    entries_removed = sum(each.removed for each in rows if each.kind == "entries")
    done = "would come free" if dry_run else "came free"
    others = f" and {count_of(removed - entries_removed, 'other key')}" if removed > entries_removed else ""
    click.echo(f"{count_of(entries_removed, 'entry', 'entries')}{others}, {free} bytes ({size_of(free)}) {done}")


def _what(row: Removed) -> str:
    if row.namespace is not None:
        return f"{visible(row.namespace)} version {row.version}: {count_of(row.removed, 'entry', 'entries')}"
    word = {"tags": "tag key", "calls": "call token", "reports": "report"}[row.kind]
    return count_of(row.removed, word)
