"""Metrics and spans through the OpenTelemetry API, with whatever SDK the application has set up (`memover[otel]`).

    cache = Cache(url, observers=[OpenTelemetryObserver()])

Metrics have the names of the Prometheus ones with dots, and the attributes `cache.namespace` and (hits and misses)
`cache.source`: `memover.hits`, `memover.misses`, `memover.loads`, `memover.load.duration` (a histogram, seconds),
`memover.invalidations`, `memover.store_errors`, and one for each further event that counts something.

    span                 when                                   attributes besides cache.namespace and cache.key
    -------------------  -------------------------------------  ------------------------------------------------
    memover.get          a call                                 cache.hit, cache.source
    memover.load         the function runs; its own spans are   –
                         children of this one
    memover.invalidate   an invalidation                        cache.detail ("soft", tags)

`server.address` is the store's. A span that ends with an error records it; what a function raises is an error of
`memover.load`, and of the `memover.get` of a caller who got it. Calls of an application without an SDK cost what the API's
no-operation objects cost.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from memover.model import Event, Source
from memover.runtime.counters import COUNTERS, LOAD_BUCKETS_SECONDS
from memover.runtime.events import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryObserver"]

_HITS = frozenset(("near", "fresh", "stale", "stale-if-error"))
_SPANS = {"lookup": "get", "load": "load", "invalidate": "invalidate"}
_ABOUT = {each.name: each.sentence for each in COUNTERS}


class OpenTelemetryObserver:
    """An observer of `Cache(observers=...)` that makes metrics and spans; any thread and event loop may call it.

    * `tracer_provider`, `meter_provider`: the application's global ones unless given.
    * `spans=False` leaves the spans out, `keys=False` the attribute `cache.key` (a key may hold what a user typed).
    * `address`: `server.address` where the runtime does not say it.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        spans: bool = True,
        keys: bool = True,
        address: str = "",
    ) -> None:
        from memover import __version__

        self._tracer = trace.get_tracer("memover", __version__, tracer_provider=tracer_provider)
        meter = metrics.get_meter("memover", __version__, meter_provider=meter_provider)
        self._spans = spans
        self._keys = keys
        self._address = address
        self._hits = meter.create_counter("memover.hits", "{call}", _ABOUT["hits"])
        self._misses = meter.create_counter("memover.misses", "{call}", _ABOUT["misses"])
        self._loads = meter.create_counter("memover.loads", "{load}", _ABOUT["loads"])
        self._load_errors = meter.create_counter("memover.load_errors", "{load}", _ABOUT["load_errors"])
        self._disagreements = meter.create_counter("memover.disagreements", "{call}", _ABOUT["disagreements"])
        options: dict[str, Any] = {"explicit_bucket_boundaries_advisory": LOAD_BUCKETS_SECONDS}
        try:
            self._durations = meter.create_histogram(
                "memover.load.duration", "s", "How long the function ran.", **options
            )
        except TypeError:  # an API older than 1.24 takes no advice on bounds
            self._durations = meter.create_histogram("memover.load.duration", "s", "How long the function ran.")
        self._counters = {
            each.name: meter.create_counter(
                f"memover.{each.counted}", "{event}", _ABOUT.get(each.counted, f"Times that {each.when}.")
            )
            for each in EVENTS
            if each.counted
        }

    # -- after the fact ------------------------------------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        """Counts an event, and ends its span, or makes one that ends now."""
        attributes: dict[str, Any] = {"cache.namespace": event.namespace}
        if event.name == "lookup":
            source = str(event.source)
            if event.source is not Source.BYPASSED:
                (self._hits if source in _HITS else self._misses).add(1, {**attributes, "cache.source": source})
        elif event.name == "load":
            self._loads.add(1, attributes)
            self._durations.record(event.load_time, attributes)
            if event.error is not None:
                self._load_errors.add(1, attributes)
        else:
            counter = self._counters.get(event.name)
            if counter is not None and (event.error is None or event.name != "invalidate"):
                counter.add(1, attributes)
            if event.name == "audit" and event.detail.startswith("differ"):
                self._disagreements.add(1, attributes)
        if self._spans and event.name in _SPANS:
            begun = _OPEN.get()
            if begun is not None and begun.observer is self and begun.name == event.name and not begun.ended:
                begun.end(event)
                return
            took = event.load_time if event.name == "load" else event.elapsed
            now = time_ns()
            span = self._tracer.start_span(
                f"memover.{_SPANS[event.name]}", kind=_kind(event.name), start_time=now - int(took * 1e9)
            )
            if self._address:
                span.set_attribute("server.address", self._address)
            self.describe(span, event)
            span.end(now)

    # -- around what happens -------------------------------------------------------------------------------------------

    def begin(self, name: str, namespace: str, key: str, address: str = "") -> Callable[[Event | None], None]:
        """Starts the span of a "lookup", "load" or "invalidate" in the context that runs it.

        What runs in this context until it ends has the span as its parent. It ends with the next event of that name that this
        observer is given in the context, or with a call of the answer (None: it was cut short) in the same context. What was
        not begun, the calls of a batch say, gets a span of its own when its event comes.
        """
        if not self._spans or name not in _SPANS:
            return lambda event: None
        span = self._tracer.start_span(f"memover.{_SPANS[name]}", kind=_kind(name))
        if address or self._address:
            span.set_attribute("server.address", address or self._address)
        return _Begun(self, name, span, Event(name, namespace, key)).end

    def describe(self, span: Span, event: Event) -> None:
        """Writes what an event says on its span."""
        if not span.is_recording():
            return
        span.set_attribute("cache.namespace", event.namespace)
        if event.key and self._keys:
            span.set_attribute("cache.key", event.key)
        if event.source is not None:
            span.set_attribute("cache.source", str(event.source))
            span.set_attribute("cache.hit", str(event.source) in _HITS)
        if event.detail:
            span.set_attribute("cache.detail", event.detail)
        if event.error is not None:
            span.record_exception(event.error)
            span.set_status(Status(StatusCode.ERROR, type(event.error).__name__))


class _Begun:
    """A span under way in a context, current there until it ends."""

    __slots__ = ("_event", "_outer", "_span", "_token", "ended", "name", "observer")

    def __init__(self, observer: OpenTelemetryObserver, name: str, span: Span, event: Event) -> None:
        self.observer = observer
        self.name = name
        self.ended = False
        self._span = span
        self._event = event
        self._outer = _OPEN.get()
        self._token = context.attach(trace.set_span_in_context(span))
        _OPEN.set(self)

    def end(self, event: Event | None) -> None:
        """Ends it, once; `event` says how it went."""
        if self.ended:
            return
        self.ended = True
        _OPEN.set(self._outer)
        context.detach(self._token)
        self.observer.describe(self._span, event or self._event)
        self._span.end()


_OPEN: ContextVar[_Begun | None] = ContextVar("memover-spans", default=None)


def _kind(name: str) -> SpanKind:
    return SpanKind.INTERNAL if name == "load" else SpanKind.CLIENT
