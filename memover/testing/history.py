"""Histories: what callers did and saw, and the report on it.

Every source is a counter that only grows, so "older" is a comparison of two integers. Every instant is of one
monotonic clock (one machine), taken before a call is made and after it has returned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

__all__ = ["FailedCall", "Invalidation", "Read", "Report", "Violation"]


class Read(NamedTuple):
    """One call: who made it, for which source, what it got, when (ns), and what the source held when it returned.

    `load` names the load that the value came from; `loaded` says that it was this very call's, and `load_began` when
    (ns). A value is what the source held at some moment of its load.
    """

    process: int
    client: int
    key: int
    value: int
    load: str
    loaded: bool
    load_began: int
    began: int
    returned: int
    source: int
    max_age: float = 0.0
    """The greatest age in seconds that the caller accepted, 0 for any."""


class Invalidation(NamedTuple):
    """One invalidation: of one key, or of all that `floors` names; what each source held when it began.

    `acknowledged` is False when it raised `InvalidationFailed`.
    """

    process: int
    client: int
    what: str
    floors: dict[int, int]
    began: int
    returned: int
    acknowledged: bool


class FailedCall(NamedTuple):
    """A call that raised what it must not."""

    process: int
    client: int
    what: str
    error: str
    at: int


class Violation(NamedTuple):
    """One breach of a rule; `text` says it in a sentence."""

    rule: str
    key: int
    process: int
    client: int
    text: str


@dataclass
class Report:
    """What was done and what was found. `str(report)` is for people, `as_dict()` for machines.

    `ok`: no violation, and the run tried something: reads were answered from the store and invalidations
    were acknowledged. A run that could not reach its store is not ok, it is `inconclusive`.
    """

    store: str = ""
    processes: int = 0
    seconds: float = 0.0
    reads: int = 0
    hits: int = 0
    loads: int = 0
    shared: int = 0
    writes: int = 0
    invalidations: dict[str, int] = field(default_factory=dict)
    unacknowledged: int = 0
    store_errors: int = 0
    """How often a call went without the store; "single-load" is not judged when it did."""
    near_hits: int = 0
    """Answers of near caches, which `hits` includes."""
    most_loads: int = 0
    """The most loads of one key between two invalidations that concern it; 1 in a run without faults."""
    violations: dict[str, int] = field(default_factory=dict)
    examples: list[Violation] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return self.reads + self.writes + sum(self.invalidations.values()) + self.unacknowledged

    @property
    def inconclusive(self) -> bool:
        return self.hits == 0 or sum(self.invalidations.values()) == 0

    @property
    def ok(self) -> bool:
        return not self.violations and not self.inconclusive

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        plain = asdict(self)
        plain["examples"] = [violation._asdict() for violation in self.examples]
        return {**plain, "operations": self.operations, "inconclusive": self.inconclusive, "ok": self.ok}

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} by {what}" for what, count in sorted(self.invalidations.items())) or "none"
        lines = [
            f"history of {self.store}: {self.processes} processes, {self.seconds:.1f} s",
            f"  operations     {self.operations:,}",
            (
                f"  reads          {self.reads:,} ({self.hits:,} from the store, {self.loads:,} loaded, "
                f"{self.shared:,} shared a load{f'; {self.near_hits:,} near' if self.near_hits else ''})"
            ),
            f"  writes         {self.writes:,}",
            f"  invalidations  {kinds}; {self.unacknowledged:,} not acknowledged",
            f"  loads          at most {self.most_loads} of one key between two invalidations of it",
            f"  store errors   {self.store_errors:,}" + (": single-load is not judged" if self.store_errors else ""),
        ]
        if self.violations:
            found = ", ".join(f"{rule} {count:,}" for rule, count in self.violations.items())
            lines.append(f"  VIOLATIONS     {found}")
            lines += [f"    {violation.rule}: {violation.text}" for violation in self.examples]
        elif self.inconclusive:
            lines.append("  INCONCLUSIVE   nothing was answered from the store, or no invalidation was acknowledged")
        else:
            lines.append("  violations     none")
        return "\n".join(lines)
