"""The counters of caches as Prometheus metrics, read when they are scraped: a hit costs nothing more (`memover[prometheus]`).

    from prometheus_client import REGISTRY
    from memover.observe.prometheus import Collector

    REGISTRY.register(Collector(cache))

    metric                            labels besides prefix, namespace, version
    --------------------------------  -----------------------------------------------------
    memover_hits_total                source: fresh, near, stale
    memover_misses_total              source: loaded, waited
    memover_load_seconds              le (a histogram, with the bounds of `LOAD_BUCKETS_SECONDS`)
    memover_<counter>_total           none; a metric for each further counter of `COUNTERS`: loads, store_errors, …
    memover_info                      version of memover alone

Several caches, and functions that share a namespace under one prefix, are added up, so that no series comes twice. A function
that is gone takes its series along; Prometheus sees a counter that began anew. Any thread may scrape.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector as _Collector

from memover.runtime.counters import COUNTERS, LOAD_BUCKETS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

__all__ = ["Collector"]

_LABELS = ("prefix", "namespace", "version")
_PLAIN = tuple(each for each in COUNTERS if each.metric and each.name not in ("hits", "misses"))


class Collector(_Collector):
    """Yields the metrics of all functions of some caches; see the module for their names. Register it once."""

    def __init__(self, *caches: Any) -> None:
        self._caches = caches

    def describe(self) -> list[Metric]:
        """Nothing: names are known without looking at what caches there are, and registering scrapes nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        from memover import __version__

        series = _added_up(self._caches)
        hits = CounterMetricFamily("memover_hits", "Calls answered from an entry.", labels=[*_LABELS, "source"])
        misses = CounterMetricFamily("memover_misses", "Calls not answered from an entry.", labels=[*_LABELS, "source"])
        for labels, (totals, _, _) in series.items():
            near, stale, waits = totals["near_hits"], totals["stale"], totals["waits"]
            # Read one after the other while calls go on: a part may be ahead of the whole.
            hits.add_metric([*labels, "fresh"], max(0, totals["hits"] - near - stale))
            hits.add_metric([*labels, "near"], near)
            hits.add_metric([*labels, "stale"], stale)
            misses.add_metric([*labels, "loaded"], max(0, totals["misses"] - waits))
            misses.add_metric([*labels, "waited"], waits)
        yield hits
        yield misses
        for counter in _PLAIN:
            family = CounterMetricFamily(f"memover_{counter.metric}", counter.sentence, labels=_LABELS)
            for labels, (totals, _, _) in series.items():
                family.add_metric(labels, totals[counter.name])
            yield family
        loads = HistogramMetricFamily("memover_load_seconds", "How long the function ran.", labels=_LABELS)
        bounds = [*(str(float(bound)) for bound in LOAD_BUCKETS_SECONDS), "+Inf"]
        for labels, (_, buckets, seconds) in series.items():
            loads.add_metric(labels, list(zip(bounds, accumulate(buckets))), seconds)
        yield loads
        info = InfoMetricFamily("memover", "The release of memover.")
        info.add_metric([], {"version": __version__})
        yield info


Totals = tuple[Counter[str], list[int], float]


def _added_up(caches: tuple[Any, ...]) -> dict[tuple[str, str, str], Totals]:
    series: dict[tuple[str, str, str], Totals] = {}
    for cache in dict.fromkeys(caches):
        for function in cache.functions():
            labels = (cache.prefix, function.namespace, str(function.version))
            counters = function.counters
            totals, buckets, seconds = series.get(labels, (Counter(), [0] * (len(LOAD_BUCKETS_SECONDS) + 1), 0.0))
            totals.update(counters.as_dict())
            buckets = [a + b for a, b in zip(buckets, counters.load_buckets)]
            series[labels] = (totals, buckets, seconds + counters.load_seconds)
    return series
