"""A panel for django-debug-toolbar: the cached calls of one request, with where each answer came from.

    DEBUG_TOOLBAR_PANELS = [..., "memover.django.panels.MemoverPanel"]

It sees the functions that are decorated when the request begins, in the thread or task of the request and in tasks begun
there. Without the panel nothing is recorded.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from debug_toolbar.panels import Panel
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from memover.django.aliases import places_of_functions

if TYPE_CHECKING:
    from memover.model import Event

__all__ = ["MemoverPanel"]

_HITS = ("near", "fresh", "stale", "stale-if-error")


class MemoverPanel(Panel):
    """Calls of decorated functions during a request."""

    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lookups: list[list[Event]] = []

    @property
    def title(self) -> str:
        """The panel's heading, and its name in the list of panels."""
        return "memover"

    def process_request(self, request: Any) -> Any:
        """Records the lookups of every cache that decorated functions use, until the response is made."""
        stack = ExitStack()
        caches = {id(cache): cache for cache, _ in places_of_functions()}
        self._lookups = [stack.enter_context(cache.detect()) for cache in caches.values()]
        try:
            toolbar: Any = super()
            response = toolbar.process_request(request)
        except BaseException:
            stack.close()
            raise
        if not isawaitable(response):
            stack.close()
            return response

        async def later() -> Any:
            with stack:
                return await response

        return later()

    def generate_stats(self, request: Any, response: Any) -> None:
        """What the panel shows, as plain data."""
        calls: list[dict[str, Any]] = [
            {
                "namespace": each.namespace,
                "key": each.key,
                "source": str(each.source),
                "milliseconds": round(each.elapsed * 1000, 2),
                "load_milliseconds": round(each.load_time * 1000, 2),
            }
            for lookups in self._lookups
            for each in lookups
        ]
        counts = Counter(str(each["source"]) for each in calls)
        hits = sum(counts[source] for source in _HITS)
        total = round(sum(each["milliseconds"] for each in calls), 2)
        panel: Any = self
        panel.record_stats({"calls": calls, "hits": hits, "sources": dict(counts), "milliseconds": total})

    @property
    def nav_subtitle(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Beside the panel's name: how many calls, and how many were hits."""
        stats = self._stats()
        calls = len(stats.get("calls", ()))
        return f"{calls} call{'' if calls == 1 else 's'}, {stats.get('hits', 0)} hits"

    @property
    def content(self) -> str:
        """The panel: one row for each call, in the order in which they ended."""
        stats = self._stats()
        calls = stats.get("calls", ())
        if not calls:
            return str(mark_safe("<p>No cached function was called.</p>"))  # still marked: str() of safe text is itself
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{} ms</td><td>{} ms</td><td><code>{}</code></td></tr>",
            (
                (each["namespace"], each["source"], each["milliseconds"], each["load_milliseconds"], each["key"])
                for each in calls
            ),
        )
        summary = ", ".join(f"{count} {source}" for source, count in sorted(stats["sources"].items()))
        page: Any = format_html(
            "<p>{} in {} ms: {}.</p><table><thead><tr><th>namespace</th><th>source</th><th>call</th><th>load</th>"
            "<th>key</th></tr></thead><tbody>{}</tbody></table>",
            f"{len(calls)} calls",
            stats["milliseconds"],
            summary,
            rows,
        )
        return str(page)

    def _stats(self) -> dict[str, Any]:
        panel: Any = self
        stats: dict[str, Any] = panel.get_stats()
        return stats
