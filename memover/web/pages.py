"""The HTML of the page. Text from a store may be anything, so every value goes through `text`, without exception."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from memover.cli.reports import time_text
from memover.cli.running import ago, count_of, size_of, visible
from memover.web.overview import AGES, SIZES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.cli.health import Check
    from memover.cli.look import Look
    from memover.cli.reports import Line, Reports
    from memover.cli.running import Place
    from memover.web.overview import Contents, Namespace

__all__ = ["Page", "text"]

_VERDICTS = {"fresh": "good", "ok": "good", "stale": "fair", "warn": "fair"}
_MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}
COLUMNS = (
    ("version", "version"),
    ("processes", "processes"),
    ("calls", "calls/s"),
    ("ratio", "hits"),
    ("near", "near/s"),
    ("loads", "loads/s"),
    ("p50", "load p50"),
    ("p95", "load p95"),
    ("waits", "waits/s"),
    ("stale", "stale/s"),
    ("errors", "errors/s"),
    ("agreement", "agreement"),
)


def text(value: object) -> str:
    """A value as text that is safe between tags and in quoted attributes, every character of it visible."""
    return escape(visible(str(value)), quote=True)


def grade(line: Line) -> str:
    """How the hit ratio is coloured."""
    ratio = line.hit_ratio
    return "" if ratio is None else "good" if ratio >= 0.9 else "fair" if ratio >= 0.5 else "bad"


def path_of(namespace: str) -> str:
    return f"/namespace/{quote(namespace, safe='')}"


class Page:
    """Makes the pages of one server; `csrf` is "" where nothing can be invalidated."""

    def __init__(self, place: Place, csrf: str) -> None:
        self._place = place
        self._csrf = csrf

    def whole(self, title: str, body: str, here: str = "", note: str = "") -> str:
        """A whole document around a body that is HTML already."""
        links = "".join(
            f'<a href="{path}"{current}>{name}</a>'
            for path, name in (("/", "Functions"), ("/contents", "Contents"), ("/doctor", "Doctor"))
            for current in (' aria-current="page"' if path == here else "",)
        )
        shown = f'<p class="note" role="status">{text(note)}</p>' if note else ""
        mode = "" if self._csrf else '<span class="badge">read-only</span>'
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{text(title)} · memover</title>"
            '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'
            '<link rel="stylesheet" href="/static/page.css"><script src="/static/page.js" defer></script></head>'
            '<body><a class="skip" href="#main">Skip to content</a>'
            f'<header><a class="name" href="/">memover</a><nav aria-label="Pages">{links}</nav>'
            f'<span class="where" title="The store and the prefix">{text(self._place.survey.address)} · {text(self._place.prefix)}</span>'
            f'{mode}<span id="live" class="live" role="status" aria-live="polite"></span></header>'
            f'<main id="main" tabindex="-1">{shown}{body}</main></body></html>\n'
        )

    def form(self, namespace: str | None, known: Sequence[str] = ()) -> str:
        """The button that invalidates; nothing where the page only reads."""
        if not self._csrf:
            return ""
        if namespace is None:
            options = "".join(f'<option value="{text(each)}">' for each in known)
            field = (
                '<label for="which">Invalidate a namespace</label>'
                '<input id="which" name="namespace" list="known" required autocomplete="off" placeholder="namespace">'
                f'<datalist id="known">{options}</datalist>'
            )
        else:
            field = f'<input type="hidden" name="namespace" value="{text(namespace)}">'
        return (
            '<form method="post" action="/invalidate" class="invalidate">'
            f'<input type="hidden" name="csrf" value="{text(self._csrf)}">{field}'
            '<button type="submit" class="danger">Invalidate</button></form>'
        )

    # -- functions -----------------------------------------------------------------------------------------------------

    def functions(self, found: Reports | None, error: str) -> str:
        lines = () if found is None else found.lines
        rows = "".join(self._row(line) for line in lines)
        head = "".join(
            f'<th scope="col" class="num"><button type="button" data-sort="{name}">{title}</button></th>'
            for name, title in COLUMNS
        )
        empty = "hidden" if lines else ""
        names = sorted({line.namespace for line in lines})
        body = (
            '<section class="figures" aria-label="Now">'
            '<div><b id="f-calls">–</b><span>calls/s</span></div><div><b id="f-ratio">–</b><span>hits</span></div>'
            '<div><b id="f-loads">–</b><span>loads/s</span></div><div><b id="f-processes">–</b><span>processes</span></div></section>'
            f'<p id="error" class="bad" role="alert"{"" if error else " hidden"}>{text(error)}</p>'
            '<section class="charts"><figure><figcaption>Calls per second</figcaption>'
            '<div id="chart-calls" class="chart" data-history="" data-field="calls"></div></figure>'
            "<figure><figcaption>Hit ratio</figcaption>"
            '<div id="chart-ratio" class="chart" data-history="" data-field="hit_ratio"></div></figure></section>'
            '<div class="bar"><label for="filter">Filter</label>'
            '<input id="filter" type="search" placeholder="namespace ( / )" autocomplete="off" spellcheck="false">'
            f"{self.form(None, names)}</div>"
            f'<p id="empty" class="empty" {empty}>No process reports under this prefix. Set <code>MEMOVER_REPORT=5s</code> in the '
            "application’s environment, or <code>Cache(report=5)</code>; its functions appear here within an interval.</p>"
            '<div class="scroll"><table id="functions"><thead><tr><th scope="col"><button type="button" data-sort="name">function</button></th>'
            f'{head}<th scope="col">last minute</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
        return self.whole("Functions", body, "/")

    def _row(self, line: Line) -> str:
        shown = line.texts()
        tds = "".join(
            f'<td class="num{" " + grade(line) if name == "ratio" else ""}" data-label="{title}">{text(shown[name])}</td>'
            for name, title in COLUMNS
        )
        return (
            f'<tr><th scope="row"><a href="{path_of(line.namespace)}">{text(line.namespace)}</a></th>{tds}'
            '<td class="spark" data-label="last minute"></td></tr>'
        )

    # -- contents ------------------------------------------------------------------------------------------------------

    def contents(self, found: Contents) -> str:
        rows = "".join(
            f'<tr><th scope="row"><a href="{path_of(row.namespace)}">{text(row.namespace)}</a></th>'
            f'<td class="num" data-label="version">{text(row.version)}</td>'
            f'<td class="num" data-label="entries">{row.entries:,}</td>'
            f'<td class="num" data-label="size">{size_of(row.bytes)}</td>'
            f'<td class="num{" fair" if row.no_ttl else ""}" data-label="no ttl">{row.no_ttl or "–"}</td>'
            f'<td data-label="lock" class="{ {"current": "good", "old": "fair"}.get(row.locked, "dim") }">{row.locked}</td>'
            f'<td data-label="moved">{text(ago(row.moved_at))}</td></tr>'
            for each in found.namespaces.values()
            for row in each.rows
        )
        entries = sum(row.entries for each in found.namespaces.values() for row in each.rows)
        taken = sum(row.bytes for each in found.namespaces.values() for row in each.rows)
        about = "About " if found.estimated else ""
        body = (
            f"<p>{about}{count_of(entries, 'entry', 'entries')} of {count_of(len(found.namespaces), 'namespace')}, "
            f"{size_of(taken)}; counted {text(ago(found.at))}.</p>"
            '<div class="scroll"><table><thead><tr><th scope="col">namespace</th><th scope="col" class="num">version</th>'
            '<th scope="col" class="num">entries</th><th scope="col" class="num">size</th><th scope="col" class="num">no ttl</th>'
            f'<th scope="col">lock</th><th scope="col">generation moved</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
        return self.whole("Contents", body, "/contents")

    # -- a namespace -----------------------------------------------------------------------------------------------------

    def namespace(self, name: str, found: Namespace | None, reports: Reports | None, note: str = "") -> str:
        lines = [line for line in (reports.lines if reports is not None else ()) if line.namespace == name]
        generation = next((row.generation for row in (found.rows if found is not None else ()) if row.generation), None)
        parts = [f'<h1>{text(name)}</h1><div class="bar">']
        if generation is not None:
            parts.append(f'<span class="dim">generation <code>{text(generation)}</code></span>')
        parts.append(f"{self.form(name)}</div>")
        if lines:
            history = f'data-history="{text(name)}"'
            parts.append(
                '<section class="charts"><figure><figcaption>Calls per second</figcaption>'
                f'<div class="chart" {history} data-field="calls"></div></figure>'
                f'<figure><figcaption>Hit ratio</figcaption><div class="chart" {history} data-field="hit_ratio"></div></figure></section>'
            )
        parts.append(self._versions(found, lines))
        if found is not None:
            parts.append(
                '<section class="charts"><figure><figcaption>Entries by size</figcaption>'
                f"{_bars(found.sizes, [size_of(each) for each in SIZES])}</figure>"
                "<figure><figcaption>Entries by age</figcaption>"
                f"{_bars(found.ages, ['1 min', '10 min', '1 h', '6 h', '1 d', '7 d'])}</figure></section>"
            )
            parts.append(self._samples(found))
        parts.append(self._who(name, reports))
        return self.whole(name, "".join(parts), "", note)

    def _versions(self, found: Namespace | None, lines: Sequence[Line]) -> str:
        rows = {row.version: row for row in (found.rows if found is not None else ())}
        running = {line.version: line for line in lines}
        listed = []
        for version in sorted({*rows, *running}, key=lambda each: str(each).rjust(20)):
            row, line = rows.get(version), running.get(version)
            ratio = "–" if line is None or line.hit_ratio is None else f"{line.hit_ratio:.1%}"
            listed.append(
                f'<tr><th scope="row">version {text(version)}</th>'
                f'<td class="num" data-label="entries">{row.entries if row else 0:,}</td>'
                f'<td class="num" data-label="size">{size_of(row.bytes if row else 0)}</td>'
                f'<td class="num" data-label="no ttl">{row.no_ttl if row and row.no_ttl else "–"}</td>'
                f'<td data-label="lock">{row.locked if row else "–"}</td>'
                f'<td class="num" data-label="processes">{line.processes if line else "–"}</td>'
                f'<td class="num" data-label="calls/s">{line.texts()["calls"] if line else "–"}</td>'
                f'<td class="num" data-label="hits">{ratio}</td></tr>'
            )
        return (
            '<h2>Versions</h2><div class="scroll"><table><thead><tr><th scope="col">version</th><th scope="col" class="num">entries</th>'
            '<th scope="col" class="num">size</th><th scope="col" class="num">no ttl</th><th scope="col">lock</th>'
            '<th scope="col" class="num">processes</th><th scope="col" class="num">calls/s</th><th scope="col" class="num">hits</th>'
            f"</tr></thead><tbody>{''.join(listed)}</tbody></table></div>"
        )

    def _samples(self, found: Namespace) -> str:
        now = time.time()
        largest = {key for _, key in found.largest}
        by_key = {key: (size, made) for key, size, made in found.samples}
        chosen = sorted(found.samples, key=lambda each: each[0])[:20]
        listed: list[tuple[bytes, int, float | None, bool]] = [
            (key, size, made, key in largest) for key, size, made in chosen
        ]
        listed += [
            (key, size, by_key.get(key, (0, None))[1], True)
            for size, key in sorted(found.largest, reverse=True)[:5]
            if key not in {each[0] for each in listed}
        ]
        rows = "".join(
            f'<tr><th scope="row" class="key"><a href="/entry?{urlencode({"key": key.decode("utf-8", "surrogateescape")}, errors="surrogateescape")}">'
            f'{text(key.decode("utf-8", "backslashreplace"))}</a></th><td class="num" data-label="size">{size_of(size)}</td>'
            f'<td data-label="made">{"" if made is None else text(ago(made, now))}</td>'
            f'<td data-label="why">{"one of the largest" if large else ""}</td></tr>'
            for key, size, made, large in listed
        )
        return (
            '<h2>Some entries</h2><div class="scroll"><table><thead><tr><th scope="col">key</th><th scope="col" class="num">size</th>'
            f'<th scope="col">made</th><th scope="col"></th></tr></thead><tbody>{rows}</tbody></table></div>'
        )

    def _who(self, name: str, reports: Reports | None) -> str:
        rows = "".join(
            f'<tr><th scope="row">{text(report.host)}</th><td class="num" data-label="pid">{report.pid}</td>'
            f'<td data-label="version">{text(each.version)}</td><td data-label="memover">{text(report.memover)}</td>'
            f'<td data-label="started">{text(ago(report.started))}</td></tr>'
            for report in (reports.reports if reports is not None else ())
            for each in report.functions
            if each.namespace == name
        )
        if not rows:
            return '<h2>Who runs it</h2><p class="empty">No process reports it.</p>'
        return (
            '<h2>Who runs it</h2><div class="scroll"><table><thead><tr><th scope="col">host</th><th scope="col" class="num">pid</th>'
            '<th scope="col">version</th><th scope="col">memover</th><th scope="col">started</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    # -- an entry, the checks, a failure -----------------------------------------------------------------------------------

    def entry(self, found: Look) -> str:
        header: dict[str, Any] = found.header or {}
        facts = [
            ("verdict", f'<b class="{_VERDICTS.get(found.verdict, "bad")}">{text(found.verdict)}</b>'),
            ("why", text(found.why)),
        ]
        if found.namespace is not None:
            link = f'<a href="{path_of(found.namespace)}">{text(found.namespace)}</a>'
            facts.insert(0, ("namespace", f"{link}, version {text(found.version)}"))
        if header:
            expires = header["expires_in"]
            facts += [
                ("made", text(ago(header["created_at"]))),
                ("load time", text(time_text(header["load_time"]))),
                ("fresh until", text("for ever" if header["fresh_until"] is None else ago(header["fresh_until"]))),
                ("usable until", text("for ever" if header["usable_until"] is None else ago(header["usable_until"]))),
                ("expires", text("never" if expires is None else ago(time.time() + expires))),
                ("kind", text(f"{header['kind']}, codec {header['codec']}, compression {header['compression']}")),
                ("size", text(f"{size_of(header['size'])}, {size_of(header['stored_bytes'])} in the store")),
                ("shape", text(header["fingerprint"] or "not recorded")),
            ]
        tokens = "".join(
            f'<tr><th scope="row" class="key">{text(each.name)}</th><td data-label="in the entry"><code>{text(each.stored)}</code></td>'
            f'<td data-label="now" class="{"good" if each.holds else "bad"}"><code>{text(each.current or "gone")}</code></td></tr>'
            for each in found.tokens
        )
        listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
        value = "" if found.value is None else "\n".join(text(line) for line in found.value.splitlines())
        body = (
            f'<h1 class="key">{text(found.key)}</h1><dl>{listed}</dl>'
            '<h2>Tokens</h2><div class="scroll"><table><thead><tr><th scope="col">token</th><th scope="col">in the entry</th>'
            f'<th scope="col">now</th></tr></thead><tbody>{tokens}</tbody></table></div>'
            f'<h2>Value</h2><pre tabindex="0">{value or "not readable"}</pre>'
        )
        return self.whole("Entry", body)

    def doctor(self, checks: Sequence[Check]) -> str:
        rows = "".join(
            f'<li class="{each.status}"><span class="mark" aria-hidden="true">{_MARKS.get(each.status, "")}</span>'
            f'<b>{text(each.name)}</b> <span class="badge {_VERDICTS.get(each.status, "bad")}">{text(each.status)}</span>'
            f"<p>{text(each.value)}</p>{f'<p class=dim>{text(each.advice)}</p>' if each.advice else ''}</li>"
            for each in checks
        )
        return self.whole("Doctor", f'<h1>Doctor</h1><ul class="checks">{rows}</ul>', "/doctor")

    def failure(self, title: str, told: str, hints: Sequence[str] = ()) -> str:
        links = ", ".join(f'<a href="{path_of(each)}">{text(each)}</a>' for each in hints)
        more = f"<p>Did you mean {links}?</p>" if links else ""
        return self.whole(title, f"<h1>{text(title)}</h1><p>{text(told)}</p>{more}")


def _bars(numbers: Sequence[int], bounds: Sequence[str]) -> str:
    """A small bar chart as SVG: one bar for each bound, one for what is beyond."""
    names = [f"≤ {bounds[0]}", *(f"≤ {each}" for each in bounds[1:]), f"> {bounds[-1]}"]
    highest = max(numbers, default=0) or 1
    width, height, gap = 100 / len(numbers), 110, 1.2
    parts = []
    for at, (number, name) in enumerate(zip(numbers, names)):
        tall = 0 if not number else max(1.5, number / highest * (height - 34))
        x = at * width
        parts.append(
            f'<g><title>{text(name)}: {number:,}</title><rect class="bar-fill" x="{x + gap / 2:.2f}%" y="{height - tall - 14:.1f}" '
            f'width="{width - gap:.2f}%" height="{tall:.1f}" rx="2"/>'
            f'<text class="bar-name" x="{x + width / 2:.2f}%" y="{height - 2}">{text(name)}</text>'
            f'<text class="bar-number" x="{x + width / 2:.2f}%" y="{height - tall - 17:.1f}">{f"{number:,}" if number else ""}</text></g>'
        )
    described = ", ".join(f"{name}: {number:,}" for name, number in zip(names, numbers))
    return f'<svg class="bars" role="img" aria-label="{text(described)}" height="{height}" width="100%">{"".join(parts)}</svg>'


assert len(AGES) == 6, "the names of the bars of ages are written out"
