"""The counters of a function: one table, from which `CacheInfo`, its documentation and the metrics are made.

A counter is an int that only grows, of one function in one process. Plain additions: exact with the GIL, close without it.
A hit adds one to one attribute and looks nothing up; a load also adds to the histogram of load times.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from memover.model import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["COUNTERS", "LOAD_BUCKETS_SECONDS", "NAMES", "Counter", "Counters", "documented", "quantile"]


class Counter(NamedTuple):
    """One counter: its name in `CacheInfo`, what it counts, and what it counts it for.

    `kind` is "answer" (how calls were answered), "load", "store", "invalidate", "upgrade" or "audit". `metric` is the name
    of the metric without `memover_` and `_total`; "" for one that is a part of another (the sources of hits and misses).
    """

    name: str
    counts: str
    kind: str
    metric: str

    @property
    def sentence(self) -> str:
        """What it counts, as metrics say it."""
        return f"{self.counts[0].upper()}{self.counts[1:]}."


COUNTERS = (
    Counter("hits", "calls answered from an entry: near, fresh or stale", "answer", "hits"),
    Counter("misses", "calls that were not: loaded, upgraded, or answered by another's load", "answer", "misses"),
    Counter("near_hits", "the hits that came from this process's near cache, without a round trip", "answer", ""),
    Counter("stale", "the hits on an entry past its ttl: while it was renewed, or because the load or the store failed", "answer", ""),
    Counter("waits", "the misses that were answered by another caller's load", "answer", "waits"),
    Counter("bypasses", "calls with caching off, or inside their own load", "answer", "bypasses"),
    Counter("loads", "runs of the function, those behind the caller's back included", "load", "loads"),
    Counter("load_errors", "the loads that raised", "load", "load_errors"),
    Counter("stores", "results stored", "store", "stores"),
    Counter("refused_stores", "results not stored: declined by cache_if, a ttl of zero, or a lease that was lost", "store", "refused_stores"),
    Counter("too_large", "results not stored because they were longer than max_entry_bytes, expanded_limit or half of max_bytes", "store", "too_large"),
    Counter("unencodable", "results not stored because the codec refused them", "store", "unencodable"),
    Counter("store_errors", "times that the store did not answer, or refused", "store", "store_errors"),
    Counter("damaged", "entries that were not whole, or not of this key; misses, each counted once until it is replaced", "store", "damaged"),
    Counter("other_shape", "entries of another shape under the same version; each a miss", "store", "other_shape"),
    Counter("coarse", "results that depend on too many others to list, and carry the one coarse token", "store", "coarse"),
    Counter("invalidations", "invalidations of the namespace or of one call, by this process, that were acknowledged", "invalidate", "invalidations"),
    Counter("upgrades", "entries of an older version made into this one's", "upgrade", "upgrades"),
    Counter("upgrade_errors", "upgrades that raised, or returned what cannot be stored", "upgrade", "upgrade_errors"),
    Counter("audits", "hits that were compared with the source (audit=)", "audit", "audits"),
    Counter("disagreements", "the audits whose result differed although nobody had invalidated", "audit", "disagreements"),
)  # fmt: skip
"""In the order in which they are documented. Counters are only ever added."""

NAMES = tuple(each.name for each in COUNTERS)

LOAD_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, inclusive, of the histogram of load times; one more bucket takes what is longer. Fixed: the histograms of
all processes and releases can be added up."""

_APART = ("hits", "near_hits")


class Counters:
    """What one function did in this process: an attribute for each counter, and a histogram of load times.

    `hits` and `near_hits` are sums: of `own_hits` (`own_near_hits`), to which whoever counts here adds, and of the hits of calls
    that count for themselves (`also`).

    `load_buckets` counts loads by duration: one number for each bound, and one for longer loads. `load_seconds` is
    the sum of all load times.
    """

    __slots__ = (
        *(name for name in NAMES if name not in _APART),
        *(f"own_{name}" for name in _APART),
        "_also",
        "load_buckets",
        "load_seconds",
    )

    if TYPE_CHECKING:
        misses: int
        stale: int
        waits: int
        bypasses: int
        loads: int
        load_errors: int
        stores: int
        refused_stores: int
        too_large: int
        unencodable: int
        store_errors: int
        damaged: int
        other_shape: int
        coarse: int
        invalidations: int
        upgrades: int
        upgrade_errors: int
        audits: int
        disagreements: int

    load_buckets: list[int]
    load_seconds: float

    own_hits: int
    own_near_hits: int
    _also: tuple[tuple[Callable[[], int], bool], ...]

    def __init__(self) -> None:
        self._also = ()
        for name in NAMES:
            setattr(self, f"own_{name}" if name in _APART else name, 0)
        self.load_buckets = [0] * (len(LOAD_BUCKETS_SECONDS) + 1)
        self.load_seconds = 0.0

    def also(self, hits: Callable[[], int], near: bool) -> None:
        """Counts the hits of a call that counts for itself, from now on; `near` when they are the near cache's."""
        self._also = (*self._also, (hits, near))

    @property
    def hits(self) -> int:
        return self.own_hits + sum(hits() for hits, _ in self._also)

    @property
    def near_hits(self) -> int:
        return self.own_near_hits + sum(hits() for hits, near in self._also if near)

    def looked_up(self, source: Source) -> None:
        """A call was answered from this source."""
        if source is Source.FRESH:
            self.own_hits += 1
        elif source is Source.NEAR:
            self.own_hits += 1
            self.own_near_hits += 1
        elif source is Source.BYPASSED:
            self.bypasses += 1
        elif source is Source.STALE or source is Source.STALE_IF_ERROR:
            self.own_hits += 1
            self.stale += 1
        else:
            self.misses += 1
            if source is Source.WAITED:
                self.waits += 1

    def loaded(self, seconds: float, failed: bool = False) -> None:
        """The function ran for so many seconds, and raised if it `failed`."""
        self.loads += 1
        if failed:
            self.load_errors += 1
        self.load_seconds += seconds
        self.load_buckets[bisect_left(LOAD_BUCKETS_SECONDS, seconds)] += 1

    def as_dict(self) -> dict[str, int]:
        """Every counter by name, as it is now."""
        return {name: getattr(self, name) for name in NAMES}


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """About the load time below which `share` (0 to 1) of the loads are, in seconds; None where there were none.

    Linear within its bucket, as Prometheus's `histogram_quantile` (Prometheus docs, "Histograms and summaries"); what is
    longer than the last bound counts as that bound.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    rank = share * total
    below = 0
    for at, number in enumerate(buckets):
        if below + number >= rank and number:
            if at >= len(LOAD_BUCKETS_SECONDS):
                break
            start = LOAD_BUCKETS_SECONDS[at - 1] if at else 0.0
            return start + (LOAD_BUCKETS_SECONDS[at] - start) * (rank - below) / number
        below += number
    return LOAD_BUCKETS_SECONDS[-1]


def documented() -> str:
    """The table as Markdown, for docs/observing.md and the docstring of `CacheInfo`."""
    lines = ["| counter | counts |", "|---|---|"]
    lines += [f"| `{each.name}` | {each.counts} |" for each in COUNTERS]
    return "\n".join(lines)
