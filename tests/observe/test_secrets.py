"""No password of a store's URL is in a span or a metric, whatever is wrong with the URL or its server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")

import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from memover import Cache, ConfigurationError, MemoverError
from memover.observe.opentelemetry import OpenTelemetryObserver
from memover.observe.prometheus import Collector
from tests.face.test_secrets import SECRET, URLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.redis import RedisServer

ODD = ("s3cr3t", "s3cr3t/x", "x#s3cr3t", "s3cr3t?y", "a@s3cr3t", "100%s3cr3t", "s3cr3t word", ":s3cr3t:")


@pytest.mark.parametrize("url", [*URLS, *(f"redis://user:{quote(each, safe='')}@localhost:1/0" for each in ODD)])
def test_no_span_and_no_metric_shows_a_password(url: str, prefix: str) -> None:
    """Of calls, loads and invalidations that fail because nobody answers there."""
    spans, reader, observer = _telemetry()
    limits: dict[str, Any] = {"breaker_first": 60, "breaker_last": 60, "socket_timeout": 0.2}
    with suppress(ConfigurationError):
        cache = Cache(url, prefix=prefix, observers=[observer], socket_connect_timeout=0.2, **limits)
        _use(cache)
        asyncio.run(_use_awaited(cache))
        said = [*_said(spans, reader), *_scraped(cache)]
        assert [text for text in said if SECRET in text] == []
        assert any("memover.invalidate" in text for text in said)


@pytest.mark.parametrize("odd", ODD)
def test_no_span_shows_a_password_that_is_refused(
    odd: str, start_redis: Callable[..., RedisServer], prefix: str
) -> None:
    """The server's answer to a wrong password, in the exception of a span."""
    server = start_redis(password="right")
    spans, reader, observer = _telemetry()
    url = f"redis://:{quote(odd, safe='')}@{server.host}:{server.port}/0"
    cache = Cache(url, prefix=prefix, observers=[observer])
    _use(cache)
    asyncio.run(_use_awaited(cache))
    said = [*_said(spans, reader), *_scraped(cache)]
    assert [text for text in said if SECRET in text] == []
    assert any("invalid username-password pair" in text for text in said)


def _use(cache: Cache) -> None:
    @cache.versioned(namespace="n", tags=("t:{x}",))
    def f(x: int) -> int:
        return x

    @cache.versioned(namespace="raising", on_store_error="raise")
    def raising() -> int:
        return 1

    f(1)
    for call in (
        raising,
        f.invalidate_all,
        lambda: f.invalidate(1),
        lambda: f.set(1, 1),
        lambda: f.refresh(1),
        lambda: f.map([1, 2]),
        lambda: cache.set("k", 1),
        lambda: cache.get("k"),
        lambda: cache.invalidate_tags("t"),
        lambda: cache.invalidate_namespace("n"),
        cache.clear,
    ):
        with suppress(MemoverError):
            call()


async def _use_awaited(cache: Cache) -> None:
    @cache.versioned(namespace="awaited")
    async def f(x: int) -> int:
        return x

    await f(1)
    for call in (
        f.invalidate_all,
        lambda: f.invalidate(1),
        lambda: cache.aset("k", 1),
        lambda: cache.ainvalidate_tags("t"),
    ):
        with suppress(MemoverError):
            await call()
    with suppress(MemoverError):
        await cache.aclose()


def _telemetry() -> tuple[InMemorySpanExporter, InMemoryMetricReader, OpenTelemetryObserver]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    return spans, reader, OpenTelemetryObserver(tracer_provider=tracers, meter_provider=MeterProvider([reader]))


def _said(spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> list[str]:
    """All that an exporter would send: names, attributes, statuses, events with messages and stack traces."""
    data = reader.get_metrics_data()
    return [*(span.to_json() for span in spans.get_finished_spans()), *([data.to_json()] if data is not None else [])]


def _scraped(cache: Cache) -> list[str]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(cache))
    return [prometheus_client.generate_latest(registry).decode()]
