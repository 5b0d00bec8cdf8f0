"""The OpenTelemetry observer: metrics of every event, spans whose children are the function's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from memover import Cache, Event
from memover.model import Source
from memover.observe.opentelemetry import OpenTelemetryObserver


class Telemetry:
    """An SDK of the test's own, and an observer on it."""

    def __init__(self, **options: Any) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.tracers, meter_provider=MeterProvider([self._reader]), **options
        )

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._spans.get_finished_spans()}

    def finished(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    def metrics(self) -> dict[tuple[str, Any], Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            (metric.name, point.attributes.get("cache.source")): point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


def test_metrics_of_a_cache() -> None:
    """Hits and misses by source, loads with their durations, invalidations."""
    telemetry = Telemetry()
    with Cache("memory://", observers=[telemetry.observer]) as cache:
        cached: Any = cache.versioned(namespace="profiles")(lambda n: n)
        cached(1)
        cached(1)
        cached(1)
        cached.invalidate_all()
    found = telemetry.metrics()
    assert found["memover.hits", "fresh"].value == 2
    assert found["memover.misses", "loaded"].value == 1
    assert found["memover.loads", None].value == 1
    assert found["memover.load.duration", None].count == 1
    assert found["memover.load.duration", None].explicit_bounds[0] == 0.001
    assert found["memover.invalidations", None].value == 1
    assert dict(found["memover.hits", "fresh"].attributes) == {"cache.namespace": "profiles", "cache.source": "fresh"}


def test_spans_of_a_cache() -> None:
    """One for each call, load and invalidation, with what is known of it."""
    telemetry = Telemetry()
    with Cache("memory://", observers=[telemetry.observer]) as cache:
        cached: Any = cache.versioned(namespace="profiles")(lambda n: n)
        cached(1)
        key, address = cached.key(1), cache.address
        cached.invalidate_all()
    spans = telemetry.spans()
    assert set(spans) == {"memover.get", "memover.load", "memover.invalidate"}
    got = dict(spans["memover.get"].attributes)
    assert got["cache.namespace"] == "profiles"
    assert (got["cache.key"], got["cache.hit"], got["cache.source"]) == (key, False, "loaded")
    assert got["server.address"] == address


def test_the_functions_own_spans_are_children_of_the_load() -> None:
    """And the load's is a child of the call's, when the runtime announces them."""
    telemetry = Telemetry()
    tracer = trace.get_tracer("app", tracer_provider=telemetry.tracers)
    got = telemetry.observer.begin("lookup", "profiles", "k", "redis://x")
    load = telemetry.observer.begin("load", "profiles", "k", "redis://x")
    with tracer.start_as_current_span("query"):
        pass
    load(Event("load", "profiles", "k", load_time=0.1, error=KeyError("x")))
    got(Event("lookup", "profiles", "k", Source.LOADED))
    spans = telemetry.spans()
    assert spans["query"].parent.span_id == spans["memover.load"].context.span_id
    assert spans["memover.load"].parent.span_id == spans["memover.get"].context.span_id
    assert spans["memover.load"].status.status_code is trace.StatusCode.ERROR
    assert spans["memover.load"].attributes["server.address"] == "redis://x"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_span_that_was_begun_is_made_once() -> None:
    """Its event ends it; what was cut short ends without one."""
    telemetry = Telemetry()
    end = telemetry.observer.begin("load", "profiles", "k")
    telemetry.observer(Event("load", "profiles", "k", load_time=0.1))
    end(None)
    assert list(telemetry.spans()) == ["memover.load"]
    assert telemetry.metrics()["memover.loads", None].value == 1
    assert trace.get_current_span() is trace.INVALID_SPAN
    telemetry.observer.begin("lookup", "profiles", "k")(None)
    assert set(telemetry.spans()) == {"memover.load", "memover.get"}


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_spans_nest_as_the_work_does(way: str, store: str, redis_url: str, prefix: str) -> None:
    """The request's span, the call's, the load's, and what the function does inside, across cached functions; a hit has no load."""
    telemetry = Telemetry()
    tracer = trace.get_tracer("app", tracer_provider=telemetry.tracers)
    with Cache("memory://" if store == "memory" else redis_url, prefix=prefix, observers=[telemetry.observer]) as cache:
        address = cache.address
        if way == "sync":
            inner: Any = cache.versioned(namespace="inner")(lambda: 1)

            @cache.versioned(namespace="outer")
            def outer() -> int:
                with tracer.start_as_current_span("query"):
                    value: int = inner()
                    return value + 1

            def request() -> None:
                with tracer.start_as_current_span("request"):
                    outer()

            request()
            first = telemetry.finished()
            request()
        else:

            @cache.versioned(namespace="inner")
            async def ainner() -> int:
                return 1

            @cache.versioned(namespace="outer")
            async def aouter() -> int:
                with tracer.start_as_current_span("query"):
                    return await ainner() + 1

            async def main() -> list[Any]:
                with tracer.start_as_current_span("request"):
                    await aouter()
                seen = telemetry.finished()
                with tracer.start_as_current_span("request"):
                    await aouter()
                await cache.aclose()
                return seen

            first = asyncio.run(main())
        second = telemetry.finished()[len(first) :]
    by_id = {span.context.span_id: span for span in first}

    def chain(span: Any) -> list[str]:
        names = [span.name]
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            names.append(span.name)
        return names

    innermost = max(first, key=lambda span: len(chain(span)))
    assert chain(innermost) == [
        "memover.load",
        "memover.get",
        "query",
        "memover.load",
        "memover.get",
        "request",
    ]
    assert len(first) == 6
    assert [span.name for span in second] == ["memover.get", "request"]
    assert second[0].attributes["cache.hit"] is True
    assert second[0].attributes["server.address"] == address


def test_a_failed_invalidation_is_not_counted() -> None:
    """It is an error of its span."""
    telemetry = Telemetry()
    telemetry.observer(Event("invalidate", "profiles", "", error=OSError("away")))
    telemetry.observer(Event("invalidate", "", "", detail="a, b"))
    assert telemetry.metrics()["memover.invalidations", None].value == 1


def test_keys_and_spans_may_be_left_out() -> None:
    """A key may hold what a user typed."""
    telemetry = Telemetry(keys=False)
    telemetry.observer(Event("lookup", "profiles", "k", Source.FRESH))
    assert "cache.key" not in telemetry.spans()["memover.get"].attributes
    silent = Telemetry(spans=False)
    silent.observer(Event("lookup", "profiles", "k", Source.FRESH))
    silent.observer.begin("load", "profiles", "k")(None)
    assert silent.spans() == {}


def test_without_an_sdk_nothing_happens() -> None:
    """The API alone is enough."""
    observer = OpenTelemetryObserver()
    with Cache("memory://", observers=[observer]) as cache:
        assert cache.versioned(namespace="profiles")(lambda: 5)() == 5
