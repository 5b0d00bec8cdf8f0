"""The HTML of the page, from the files in `templates`.

Text from a store may be anything: every value that a template shows is escaped, and made visible, by `_safe`.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from memover.cli.health import MARKS
from memover.cli.reports import COLUMNS, time_text
from memover.cli.text import ago, count_of, size_of, visible
from memover.web.overview import AGES, SIZES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.cli.reports import Reports
    from memover.cli.running import StoreContext
    from memover.web.overview import Namespace

__all__ = ["Pages", "path_of"]

_SIZE_NAMES = [size_of(each) for each in SIZES]
_AGE_NAMES = ["1 min", "10 min", "1 h", "6 h", "1 d", "7 d"]
assert len(AGES) == len(_AGE_NAMES)


def path_of(namespace: str) -> str:
    """The address of a namespace's page."""
    return f"/namespace/{quote(namespace, safe='')}"


def _safe(value: Any) -> Any:
    """A value as text that is safe between tags and in quoted attributes, every character of it visible."""
    return value if isinstance(value, Markup) else Markup(escape(visible(str(value))))  # noqa: S704  # escaped here


def _lines(value: str) -> Markup:
    return Markup("\n".join(_safe(line) for line in value.splitlines()))  # noqa: S704  # escaped line by line


def _mood(word: str) -> str:
    return {"fresh": "good", "ok": "good", "stale": "fair", "warn": "fair"}.get(word, "bad")


_FILTERS: dict[str, Any] = {
    "ago": ago, "count_of": count_of, "lines": _lines, "mood": _mood, "path": path_of, "seconds": time_text, "size": size_of,
}  # fmt: skip


class Pages:
    """Makes the pages of one server; `csrf` is "" where nothing can be invalidated."""

    def __init__(self, context: StoreContext, csrf: str) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            finalize=_safe,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        names: dict[str, Any] = {"context": context, "csrf": csrf, "columns": COLUMNS, "marks": MARKS}
        self._templates.globals.update(names)
        self._templates.filters.update(_FILTERS)

    def made(self, template: str, title: str, here: str = "", **facts: Any) -> str:
        """A page; `here` is its address where it is in the menu, and `facts` are what its template shows."""
        return self._templates.get_template(f"{template}.html").render(title=title, here=here, **facts)

    def namespace(self, name: str, found: Namespace | None, reports: Reports, note: str = "") -> str:
        """One namespace; `found` is None where nothing of it is stored."""
        rows = {row.version: row for row in (found.rows if found is not None else ())}
        lines = {line.version: line for line in reports.lines if line.namespace == name}
        return self.made(
            "namespace",
            name,
            note=note,
            generation=next((row.generation for row in rows.values() if row.generation), None),
            reported=bool(lines),
            versions=[
                (version, rows.get(version), lines.get(version))
                for version in sorted({*rows, *lines}, key=lambda each: str(each).rjust(20))
            ],
            found=found,
            by_size=[] if found is None else _bars(found.sizes, _SIZE_NAMES),
            by_age=[] if found is None else _bars(found.ages, _AGE_NAMES),
            entries=[] if found is None else _some(found),
            runners=[
                (report, each.version)
                for report in reports.reports
                for each in report.functions
                if each.namespace == name
            ],
        )


def _bars(numbers: Sequence[int], bounds: Sequence[str]) -> list[dict[str, Any]]:
    """A bar for each bound, one for what is beyond: its name, its number, and its height as a share of the highest."""
    names = [*(f"≤ {each}" for each in bounds), f"> {bounds[-1]}"]
    highest = max(numbers) or 1
    return [{"name": name, "number": number, "share": number / highest} for name, number in zip(names, numbers)]


def _some(found: Namespace) -> list[dict[str, Any]]:
    """Twenty entries by chance, in order of their keys, and the largest that are not among them."""
    created = {key: (size, at) for key, size, at in found.samples}
    largest = {key: size for size, key in sorted(found.largest, reverse=True)}
    chosen = sorted(created)[:20]
    return [
        {
            "key": key.decode("utf-8", "backslashreplace"),
            "address": f"/entry?{urlencode({'key': key.decode('utf-8', 'surrogateescape')}, errors='surrogateescape')}",
            "size": created[key][0] if key in created else largest[key],
            "created_at": created[key][1] if key in created else None,
            "large": key in largest,
        }
        for key in dict.fromkeys([*chosen, *list(largest)[:5]])
    ]
