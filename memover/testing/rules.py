"""The rules that no history may break. Pure: no I/O, no clock.

With sources that only grow and instants of one clock (`history`), no search for an order is needed; each rule is one sweep.

| rule        | no history may hold                                                                              |
|-------------|--------------------------------------------------------------------------------------------------|
| fresh       | a read that began after an acknowledged invalidation returned, with a value older than what the  |
|             | source held when that invalidation began (P1, P2)                                                |
| closed      | the same after an invalidation that failed, in the process that was told so (P8)                 |
| own         | "fresh" for the invalidations of the reading process alone, which holds during an outage too,    |
|             | when `on_store_error="stale"` answers with what this process last knew                           |
| max-age     | a read through `max_age` with a value whose load had been over for longer                        |
| no-future   | a value that its source had not reached when the read returned                                   |
| monotonic   | an answer from the store older than another answer from the store that had returned before       |
| single-load | a load while an entry or another load was good: no invalidation lies between the two (P6)        |
| error       | a read that raised (sources never do), or an invalidation that raised other than as documented   |

An invalidation that was not acknowledged may or may not have happened, so it bounds nothing outside its process.
"monotonic" and "single-load" suppose that the store forgets nothing and answers: they are for runs without faults.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from memover.testing.history import FailedCall, Report, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memover.testing.history import Invalidation, Read

__all__ = ["RULES", "judge_history"]

RULES = ("fresh", "closed", "own", "max-age", "no-future", "monotonic", "single-load", "error")
"""What no history may hold, by name.

fresh: a read that began after an acknowledged invalidation and was answered with something older; closed: the same after one that
failed, in the process that was told so; own: the same as fresh, for the invalidations of the reading process; max-age: a read through
`max_age` of something older; no-future: a value that the source had not reached; monotonic: an answer from the store that is
older than one before it; single-load: a load while another's result was good; error: an exception that is not documented."""
AGE_SLACK = 0.05
"""Seconds: ages go by the wall clock, the instants of a history by the monotonic one."""
SHOWN = 20
"""Violations kept in a report; all are counted."""


def judge_history(
    reads: Iterable[Read],
    invalidations: Iterable[Invalidation],
    failures: Iterable[FailedCall] = (),
    *,
    rules: Iterable[str] = RULES,
    max_staleness: float = 0.0,
) -> Report:
    """Looks for breaches of `rules`. `max_staleness` (seconds) is what a near cache was allowed, 0 without one."""
    found = _Findings(set(rules))
    by_key: dict[int, list[Read]] = defaultdict(list)
    concerning: dict[int, list[Invalidation]] = defaultdict(list)
    report = Report()
    done_at: dict[str, int] = {}
    for read in reads:
        by_key[read.key].append(read)
        if read.loaded:
            done_at[read.load] = read.returned
    kinds: Counter[str] = Counter()
    for invalidation in invalidations:
        if invalidation.acknowledged:
            kinds[invalidation.what] += 1
        else:
            report.unacknowledged += 1
        for key in invalidation.floors:
            concerning[key].append(invalidation)
    report.invalidations = dict(kinds)
    for key, own in sorted(by_key.items()):
        own.sort(key=lambda read: read.began)
        about = sorted(concerning[key], key=lambda one: one.returned)
        # What a read may have had from the store: it began when the load was over, so it cannot have shared it.
        stored = [read for read in own if not read.loaded and read.began > done_at.get(read.load, 1 << 63)]
        loads = [read for read in own if read.loaded]
        report.reads += len(own)
        report.loads += len(loads)
        report.hits += len(stored)
        report.shared += len(own) - len(loads) - len(stored)
        done = [one for one in about if one.acknowledged]
        failed = [one for one in about if not one.acknowledged]
        _too_old(found, "fresh", key, own, done, "an invalidation", round(max_staleness * 1e9))
        _in_one_process(found, "closed", key, own, failed, "a failed invalidation of its own process")
        _in_one_process(found, "own", key, own, done, "an invalidation of its own process")
        _max_age(found, own, done_at)
        _no_future(found, own)
        _monotonic(found, stored)
        report.most_loads = max(report.most_loads, _single_load(found, loads, about))
    for failure in failures:
        found.add("error", failure, f"{failure.what} raised {failure.error}")
    if report.inconclusive:
        found.leave_out("single-load")  # without the store every call loads, as it should
    report.violations = dict(found.counts)
    report.examples = found.examples
    return report


class _Findings:
    def __init__(self, rules: set[str]) -> None:
        assert rules <= set(RULES), f"no such rules: {rules - set(RULES)}"
        self.rules = rules
        self.counts: Counter[str] = Counter()
        self.examples: list[Violation] = []

    def add(self, rule: str, one: Read | FailedCall, text: str) -> None:
        """Notes a breach, if it is of a rule that is judged."""
        if rule not in self.rules:
            return
        self.counts[rule] += 1
        if self.counts[rule] <= SHOWN:
            key = -1 if isinstance(one, FailedCall) else one.key
            self.examples.append(Violation(rule, key, one.process, one.client, text))

    def leave_out(self, rule: str) -> None:
        self.counts.pop(rule, None)
        self.examples = [violation for violation in self.examples if violation.rule != rule]


def _too_old(
    found: _Findings,
    rule: str,
    key: int,
    reads: list[Read],
    invalidations: list[Invalidation],
    why: str,
    allowance_ns: int = 0,
) -> None:
    # The instants at which the least allowed value rises, and what it then is.
    instants: list[int] = []
    least: list[int] = []
    for one in invalidations:
        instants.append(one.returned)
        least.append(max(one.floors[key], least[-1] if least else 0))
    for read in reads:
        at = bisect_left(instants, read.began - allowance_ns)
        if at and read.value < least[at - 1]:
            found.add(
                rule,
                read,
                f"process {read.process} client {read.client} read {read.value} of source {read.key} (load {read.load}) at "
                f"{read.began / 1e9:.6f} s, after {why} at {least[at - 1]} had returned",
            )


def _in_one_process(
    found: _Findings, rule: str, key: int, reads: list[Read], invalidations: list[Invalidation], why: str
) -> None:
    for process in {one.process for one in invalidations}:
        mine = [one for one in invalidations if one.process == process]
        _too_old(found, rule, key, [read for read in reads if read.process == process], mine, why)


def _max_age(found: _Findings, reads: list[Read], done_at: dict[str, int]) -> None:
    # An entry is as old as its load's end, which comes no later than the return of the call that loaded it.
    for read in reads:
        done = done_at.get(read.load)
        if read.max_age and done is not None and read.began - done > (read.max_age + AGE_SLACK) * 1e9:
            found.add(
                "max-age",
                read,
                f"process {read.process} accepted {read.max_age:g} s and read a value of source {read.key} (load "
                f"{read.load}) that was {(read.began - done) / 1e9:.3f} s old",
            )


def _no_future(found: _Findings, reads: list[Read]) -> None:
    for read in reads:
        if read.value > read.source:
            found.add(
                "no-future",
                read,
                f"process {read.process} read {read.value} of source {read.key}, which had only reached {read.source}",
            )


def _monotonic(found: _Findings, stored: list[Read]) -> None:
    returned = sorted(stored, key=lambda read: read.returned)
    passed, highest, by = 0, -1, None
    for read in stored:
        while passed < len(returned) and returned[passed].returned < read.began:
            if returned[passed].value > highest:
                highest, by = returned[passed].value, returned[passed]
            passed += 1
        if by is not None and read.value < highest:
            found.add(
                "monotonic",
                read,
                f"process {read.process} had {read.value} of source {read.key} from the store (load {read.load}) after "
                f"process {by.process} had had {highest} (load {by.load})",
            )


def _single_load(found: _Findings, loads: list[Read], about: list[Invalidation]) -> int:
    # Two loads are explained by an invalidation that may have come between the moments at which they got their leases,
    # each somewhere between the beginning of its call and that of its load, and not always in the order of the loads.
    loads = sorted(loads, key=lambda read: read.load_began)
    begins = sorted(about, key=lambda one: one.began)
    instants = [one.began for one in begins]
    latest: list[int] = []
    for one in begins:
        latest.append(max(one.returned, latest[-1] if latest else 0))
    run = most = 1 if loads else 0
    for before, load in itertools.pairwise(loads):
        at = bisect_left(instants, load.load_began)
        if at and latest[at - 1] > min(before.began, load.began):
            run = 1
            continue
        run += 1
        most = max(most, run)
        found.add(
            "single-load",
            load,
            f"process {load.process} loaded source {load.key} (load {load.load}) though process {before.process} had "
            f"(load {before.load}) and nothing had been invalidated since",
        )
    return most
