"""`memover gc`: what nobody reads any more: entries of versions that are over, tokens that no entry carries, reports left behind.

Removing a token can only cause misses, never bring an old entry back (a reader that finds none makes a new one), so a token
that a load under way has captured may go as well.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console

from memover.cli.census import KEY_VALUES, entries
from memover.cli.invalidate import marks_of
from memover.cli.project import CannotRun
from memover.cli.running import Place, count_of, document, on_store, progress, size_of, visible
from memover.keys.names import STRIPES, generation_key, report_key, tag_key
from memover.stores.survey import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.schema.lock import Lock
    from memover.stores.survey import Facts

__all__ = ["Removed", "collect", "gc", "unwanted_by"]

_REPORT_LIMIT_MS = 24 * 3600 * 1000
"""No report is kept for so long; one that says so, or does not expire at all, is of the past."""


class Removed(NamedTuple):
    """What was removed of one kind: "entries" of one version of a namespace, "tags", "calls" or "reports"."""

    kind: str
    namespace: str
    version: int | None
    removed: int
    bytes: int


def unwanted_by(lock: Lock, prefix: str) -> Callable[[bytes], bool]:
    """Whether a key is that of an entry whose version is over: lower than the lock's, and no upgrade reads from it."""
    entry = re.compile(rb"%b:([1-9][0-9]*)(?:~[0-9a-f]{8})?:([^:]+):[^:]" % re.escape(prefix).encode())
    ends = {name.partition(" ")[0]: block.version for name, block in lock.functions.items()}
    kept = {(name.partition(" ")[0], version) for name, block in lock.functions.items() for version in block.upgrades}
    ends.update({name: version + 1 for name, version in lock.removed.items() if name not in ends})
    # Two functions that share a namespace on different caches: which of them is here, the key does not say.
    for name, block in lock.functions.items():
        ends[name.partition(" ")[0]] = min(ends[name.partition(" ")[0]], block.version)

    def unwanted(key: bytes) -> bool:
        hit = entry.match(key)
        if hit is None:
            return False
        namespace, version = hit[2].decode("latin-1"), int(hit[1])
        return version < ends.get(namespace, 0) and (namespace, version) not in kept

    return unwanted


def collect(
    place: Place, *, dry_run: bool, step: int, pause: float, on_step: Callable[[int], None] = lambda looked_at: None
) -> list[Removed]:
    """Remove it, or only count it: a scan for entries and their tokens, then one for tokens and reports.

    `pause` is seconds between two steps. Raises `CannotRun` without a lock, `StoreError`."""
    survey, prefix = place.survey, place.prefix
    unwanted = unwanted_by(_lock_of(place), prefix)
    count: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    carried: set[int] = set()
    for found in entries(survey, prefix, step=step, head=HEAD_LIMIT_BYTES, on_step=on_step):
        gone = [each for each in found if each.namespace != KEY_VALUES and unwanted(each.facts.key)]
        if gone:
            done = [True] * len(gone) if dry_run else survey.unlink([each.facts.key for each in gone])
            for each, removed in zip(gone, done):
                if removed:
                    count[each.namespace, _number(each.version)] += 1
                    size[each.namespace, _number(each.version)] += each.facts.size
        leaving = {each.facts.key for each in gone}
        for each in found:
            if each.facts.key not in leaving:
                carried.update(map(hash, marks_of(survey, each)))
        if pause:
            time.sleep(pause)
    rows = [
        Removed("entries", namespace, version, count[namespace, version], size[namespace, version])
        for namespace, version in sorted(count)
    ]
    tags = tag_key(prefix, "x")[:-1]
    calls = generation_key(prefix, "*@call*")
    stripe = re.compile(rb".*@call([0-9]{1,4})\Z", re.DOTALL)

    def is_call(key: bytes) -> bool:
        found = stripe.match(key)
        return found is not None and int(found[1]) < STRIPES

    for kind, pattern, over in (
        ("tags", f"{tags}*", lambda facts: facts.expires_ms is None and hash(facts.key) not in carried),
        (
            "calls",
            calls,
            lambda facts: facts.expires_ms is None and is_call(facts.key) and hash(facts.key) not in carried,
        ),
        (
            "reports",
            report_key(prefix, "*"),
            lambda facts: facts.expires_ms is None or facts.expires_ms > _REPORT_LIMIT_MS,
        ),
    ):
        number, taken = 0, 0
        for facts in _others(place, pattern, over, dry_run=dry_run, step=step, pause=pause, on_step=on_step):
            number, taken = number + 1, taken + facts.size
        if number:
            rows.append(Removed(kind, "", None, number, taken))
    return rows


def _lock_of(place: Place) -> Lock:
    if place.lock is None:
        raise CannotRun(
            f"There is no {place.project.lockfile} in {place.project.root}, which says what is over: write it with `memover lock`."
        )
    return place.lock


def _number(version: int | str) -> int:
    return version if isinstance(version, int) else int(version.partition("~")[0])


def _others(
    place: Place,
    pattern: str,
    over: Callable[[Facts], bool],
    *,
    dry_run: bool,
    step: int,
    pause: float,
    on_step: Callable[[int], None],
) -> Iterator[Facts]:
    for page in place.survey.keys(pattern.encode(), step):
        facts = [each for each in place.survey.facts(page.keys, 1) if each is not None and over(each)]
        done = [True] * len(facts) if dry_run or not facts else place.survey.unlink([each.key for each in facts])
        yield from (each for each, removed in zip(facts, done) if removed)
        on_step(page.looked_at)
        if pause:
            time.sleep(pause)


@click.command("gc")
@on_store
@click.option("--dry-run", is_flag=True, help="Count, and remove nothing.")
@click.option(
    "--step", type=click.IntRange(10, 100_000), default=1000, show_default=True, help="Keys looked at per command."
)
@click.option("--pause", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds between two steps.")
def gc(
    url: str | None,
    prefix: str | None,
    form: str,
    lockfile: str | None,
    dry_run: bool,
    step: int,
    pause: float,
) -> None:
    """Remove the entries of versions that are no longer in the lock, and tokens that no entry carries.

    Only namespaces that the lock knows, or knew, are touched; newer versions than the lock's never are, nor versions
    that an upgrade reads from. While old processes still run they load again what is removed.
    """
    place = Place.find(url, prefix, lockfile, "gc")
    _lock_of(place)
    # Four scans: entries, tags, call tokens, reports.
    with progress("looking" if dry_run else "removing", 4 * place.survey.total()) as bar:
        rows = collect(place, dry_run=dry_run, step=step, pause=pause, on_step=bar.advance)
    removed, free = sum(each.removed for each in rows), sum(each.bytes for each in rows)
    if form == "json":
        document({"removed": removed, "bytes": free, "dry_run": dry_run, "rows": [_facts(each) for each in rows]})
        return
    console = Console(highlight=False, soft_wrap=True)
    for each in rows:
        click.echo(f"{_what(each)}, {size_of(each.bytes)}")
    entries_removed = sum(each.removed for each in rows if each.kind == "entries")
    done = "would come free" if dry_run else "came free"
    others = f" and {count_of(removed - entries_removed, 'other key')}" if removed > entries_removed else ""
    console.print(f"{_entries(entries_removed)}{others}, {free} bytes ({size_of(free)}) {done}", markup=False)


def _facts(row: Removed) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "namespace": row.namespace or None,
        "version": row.version,
        "removed": row.removed,
        "bytes": row.bytes,
    }


def _what(row: Removed) -> str:
    if row.kind == "entries":
        return f"{visible(row.namespace)} version {row.version}: {_entries(row.removed)}"
    word = {"tags": "tag key", "calls": "call token", "reports": "report"}[row.kind]
    return count_of(row.removed, word)


def _entries(number: int) -> str:
    return f"{number} entr{'y' if number == 1 else 'ies'}"
