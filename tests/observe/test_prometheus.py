"""The Prometheus collector: counters as they are when it is asked, under the names of the table."""

from __future__ import annotations

from typing import Any

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from memover import Cache  # noqa: E402
from memover.observe.prometheus import Collector  # noqa: E402
from memover.runtime.counters import COUNTERS, Counters  # noqa: E402


class Function:
    def __init__(self, namespace: str, version: int = 1) -> None:
        self.namespace = namespace
        self.version = version
        self.counters = Counters()


class Cached:
    def __init__(self, prefix: str, *functions: Function) -> None:
        self.prefix = prefix
        self._functions = functions

    def functions(self) -> tuple[Function, ...]:
        return self._functions


def scraped(*caches: Cached) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(Collector(*caches))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Any, name: str, **labels: str) -> float:
    number: float = found[
        name, tuple(sorted({"prefix": "shop", "namespace": "profiles", "version": "1", **labels}.items()))
    ]
    return number


def test_hits_by_source_and_loads_by_time() -> None:
    """The parts add up to the whole; the histogram is cumulative."""
    function = Function("profiles")
    counters = function.counters
    counters.own_hits, counters.own_near_hits, counters.stale = 100, 60, 5
    counters.misses, counters.waits = 10, 4
    counters.store_errors = 3
    counters.loaded(0.002)
    counters.loaded(7.0, failed=True)
    found = scraped(Cached("shop", function))
    assert [value(found, "memover_hits_total", source=each) for each in ("fresh", "near", "stale")] == [35, 60, 5]
    assert [value(found, "memover_misses_total", source=each) for each in ("loaded", "waited")] == [6, 4]
    assert value(found, "memover_loads_total") == 2
    assert value(found, "memover_load_errors_total") == 1
    assert value(found, "memover_store_errors_total") == 3
    assert value(found, "memover_load_seconds_bucket", le="0.001") == 0
    assert value(found, "memover_load_seconds_bucket", le="0.0025") == 1
    assert value(found, "memover_load_seconds_bucket", le="+Inf") == 2
    assert value(found, "memover_load_seconds_count") == 2
    assert value(found, "memover_load_seconds_sum") == pytest.approx(7.002)


def test_every_counter_has_a_metric() -> None:
    """All of the table, and each is there from the start, at nought."""
    names = {name for name, _ in scraped(Cached("shop", Function("profiles")))}
    for counter in COUNTERS:
        if counter.metric:
            assert f"memover_{counter.metric}_total" in names


def test_series_that_meet_are_added_up() -> None:
    """Two caches under one prefix with one namespace are one series; another prefix is another."""
    one, two, other = Function("profiles"), Function("profiles"), Function("profiles")
    one.counters.own_hits, two.counters.own_hits, other.counters.own_hits = 1, 2, 4
    first = Cached("shop", one)
    found = scraped(first, first, Cached("shop", two), Cached("blog", other))
    assert value(found, "memover_hits_total", source="fresh") == 3
    assert value(found, "memover_hits_total", source="fresh", prefix="blog") == 4


def test_a_cache_as_it_is() -> None:
    """`Collector(cache)` on a real one."""
    with Cache("memory://", prefix="shop") as cache:
        cached = cache.versioned(namespace="profiles")(lambda n: n)
        for n in (1, 1, 2):
            cached(n)
        registry = CollectorRegistry()
        registry.register(Collector(cache))
        labels = {"prefix": "shop", "namespace": "profiles", "version": "1"}
        assert registry.get_sample_value("memover_hits_total", {**labels, "source": "fresh"}) == 1
        assert registry.get_sample_value("memover_misses_total", {**labels, "source": "loaded"}) == 2
        assert registry.get_sample_value("memover_load_seconds_count", labels) == 2


def test_registering_scrapes_nothing() -> None:
    """A cache may be there before its functions."""

    class Unready:
        prefix = "shop"

        def functions(self) -> Any:
            raise AssertionError("asked at registration")

    CollectorRegistry().register(Collector(Unready()))


def test_names_from_the_source_cannot_break_the_format() -> None:
    """Labels are escaped by the client."""
    assert scraped(Cached('sh"op\n', Function("a\\b")))
