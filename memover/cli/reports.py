"""The reports of all processes, added up: a row for each version of each function."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.keys.names import report_key
from memover.runtime.counters import LOAD_BUCKETS_SECONDS, quantile
from memover.runtime.report import ProcessReport, read_report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.stores.survey import Survey

__all__ = ["COLUMNS", "VersionActivity", "Reports", "Watcher", "combined", "nines", "number_text", "time_text"]

COLUMNS = (
    ("version", "version"), ("processes", "processes"), ("calls", "calls/s"), ("ratio", "hits"), ("near", "near/s"),
    ("loads", "loads/s"), ("p50", "p50"), ("p95", "p95"), ("waits", "waits/s"), ("stale", "stale/s"), ("errors", "errors/s"),
    ("agreement", "agreement"),
)  # fmt: skip
"""In the order in which they are shown after the function: the names of `VersionActivity.texts`, and their heads."""

_SCAN_SECONDS = 0.1
"""For how long one look continues the scan for new processes; the next look continues where it ended."""
_GOOD, _FAIR = 0.9, 0.5
_REST = 10
"""After a whole scan the next one waits this many times as long as the scan took, which bounds the load on the store."""


@dataclass
class VersionActivity:
    """One version of one function over all the processes that report it. Rates are per second, times in seconds."""

    namespace: str
    version: int | str
    processes: int = 0
    rates: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    totals: Counter[str] = field(default_factory=Counter)
    loads: list[int] = field(default_factory=lambda: [0] * (len(LOAD_BUCKETS_SECONDS) + 1))

    @property
    def calls_per_second(self) -> float:
        return self.rates["hits"] + self.rates["misses"]

    @property
    def hit_ratio(self) -> float | None:
        """The share of the calls of the last interval that were answered from an entry; None without calls."""
        calls = self.calls_per_second
        return self.rates["hits"] / calls if calls else None

    @property
    def grade(self) -> str:
        """How good the hit ratio is: "good", "fair" or "bad"; "" without calls."""
        ratio = self.hit_ratio
        return "" if ratio is None else "good" if ratio >= _GOOD else "fair" if ratio >= _FAIR else "bad"

    @property
    def agreement(self) -> float | None:
        """The share of all audits that agreed; None without audits."""
        audits = self.totals["audits"]
        return 1 - self.totals["disagreements"] / audits if audits else None

    def facts(self) -> dict[str, Any]:
        """As `memover top --once --format json` has it."""
        return {
            "namespace": self.namespace,
            "version": self.version,
            "processes": self.processes,
            "calls_per_second": self.calls_per_second,
            "hit_ratio": self.hit_ratio,
            "near_hits_per_second": self.rates["near_hits"],
            "loads_per_second": self.rates["loads"],
            "load_p50": quantile(self.loads, 0.5),
            "load_p95": quantile(self.loads, 0.95),
            "waits_per_second": self.rates["waits"],
            "stale_per_second": self.rates["stale"],
            "errors_per_second": self.errors_per_second,
            "agreement": self.agreement,
        }

    @property
    def errors_per_second(self) -> float:
        """Loads that raised, and answers that the store did not give."""
        return self.rates["load_errors"] + self.rates["store_errors"]

    def texts(self) -> dict[str, str]:
        """The row as people read it, by column: in the terminal and on the page."""
        ratio, rates = self.hit_ratio, self.rates
        return {
            "version": str(self.version),
            "processes": str(self.processes),
            "calls": number_text(self.calls_per_second),
            "ratio": "–" if ratio is None else f"{ratio:.1%}",
            "near": number_text(rates["near_hits"]),
            "loads": number_text(rates["loads"]),
            "p50": time_text(quantile(self.loads, 0.5)),
            "p95": time_text(quantile(self.loads, 0.95)),
            "waits": number_text(rates["waits"]),
            "stale": number_text(rates["stale"]),
            "errors": number_text(self.errors_per_second),
            "agreement": nines(self.agreement, self.totals["audits"]),
        }


def number_text(value: float) -> str:
    """Three digits, or all before the point; a dash for zero."""
    if value == 0:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def time_text(seconds: float | None) -> str:
    """Seconds, or milliseconds below one; a dash where there are none."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def nines(agreement: float | None, audits: int) -> str:
    """A share as nines: 99.97 %; `100 %` of how many where none differed; a dash without audits."""
    if agreement is None:
        return "–"
    if agreement == 1:
        return f"100 % of {audits:,}"
    digits = 0
    while round(agreement * 100, digits) >= 100 and digits < 8:
        digits += 1
    return f"{agreement * 100:.{max(1, digits)}f} %"


@dataclass(frozen=True)
class Reports:
    """The reports at one moment; `interval` is the longest at which a process reports, 0 without any."""

    reports: tuple[ProcessReport, ...]
    lines: tuple[VersionActivity, ...]

    @property
    def interval(self) -> float:
        return max((each.interval for each in self.reports), default=0.0)

    def facts(self) -> dict[str, Any]:
        """As `memover top --once --format json` has it."""
        return {
            "interval": self.interval,
            "processes": len(self.reports),
            "functions": [line.facts() for line in self.lines],
        }


def combined(reports: Sequence[ProcessReport]) -> Reports:
    """The reports of several processes as one table, in order of namespace and version."""
    lines: dict[tuple[str, int | str], VersionActivity] = {}
    for report in reports:
        seen: set[tuple[str, int | str]] = set()
        for each in report.functions:
            place = each.namespace, each.version
            line = lines.setdefault(place, VersionActivity(*place))
            line.processes += place not in seen
            seen.add(place)
            for name, number in each.window.items() if report.window > 0 else ():
                line.rates[name] += number / report.window
            line.totals.update(each.totals)
            line.loads = [a + b for a, b in zip(line.loads, each.window_loads)]
    order = sorted(lines.values(), key=lambda line: (line.namespace, str(line.version).rjust(20)))
    return Reports(tuple(sorted(reports, key=lambda each: each.process)), tuple(order))


class Watcher:
    """Looks at the reports of a prefix again and again. It knows the keys it has seen, and goes on scanning for new ones."""

    def __init__(self, survey: Survey, prefix: str) -> None:
        self._survey = survey
        self._pattern = report_key(prefix, "*").encode()
        self._known: dict[bytes, None] = {}
        self._pages: Iterator[Any] | None = None
        self._spent = 0.0
        self._rests_until = 0.0

    def look(self, *, whole: bool = False) -> Reports:
        """The reports there are now; `whole` scans to the end first. Raises `StoreError`."""
        self._scan(whole)
        names = list(self._known)
        reports = []
        for name, raw in zip(names, self._survey.tokens(names) if names else ()):
            if raw is None:
                del self._known[name]
                continue
            report = read_report(raw)
            if report is not None:
                reports.append(report)
        return combined(reports)

    def _scan(self, whole: bool) -> None:
        began = monotonic()
        if self._pages is None and began < self._rests_until and not whole:
            return
        while whole or monotonic() - began < _SCAN_SECONDS:
            if self._pages is None:
                self._pages = iter(self._survey.keys(self._pattern, 1000))
                self._spent = 0.0
            page = next(self._pages, None)
            if page is None:
                self._pages = None
                self._rests_until = monotonic() + _REST * (self._spent + monotonic() - began)
                return
            self._known.update(dict.fromkeys(page.keys))
        self._spent += monotonic() - began
