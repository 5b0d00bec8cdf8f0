"""Facts as text: sizes, ages, tables, and names that are nearly those of others.

Text that comes from a store may hold anything, escape sequences of terminals included: it goes through `visible` before
it is shown, and is never read as markup.
"""

from __future__ import annotations

import difflib
import io
import time
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Column", "ago", "count_of", "did_you_mean", "nearest", "size_of", "table", "visible"]

_WIDEST = 100_000


def visible(text: str | bytes) -> str:
    """The text on one line, in which every character can be seen: control and format characters as escapes."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() and unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode()
        for char in text
    )


def size_of(count: int | None) -> str:
    """Bytes as people read them: 3.2 MB; a dash where they are not known."""
    return "–" if count is None else decimal(count)


def count_of(number: int, one: str, many: str = "") -> str:
    """`1 entry`, `12,345 entries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ago(instant: float | None, now: float | None = None) -> str:
    """How long ago an instant was, in the largest unit that fits; a dash where there is none."""
    if instant is None:
        return "–"
    seconds = (time.time() if now is None else now) - instant
    if seconds < 0:
        return f"in {_span(-seconds)}"
    return f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


class Column(NamedTuple):
    """One column: its head, whether numbers stand in it, and its style in a terminal."""

    head: str
    right: bool = False
    style: str = ""


def table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
    """Rows under their heads: as wide as the terminal in one, and never cut or coloured in a pipe."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for column in columns:
        shown.add_column(column.head, justify="right" if column.right else "left", style=column.style, overflow="fold")
    for row in rows:
        shown.add_row(*(each if isinstance(each, Text) else Text(each) for each in row))
    if console.is_terminal:
        console.print(shown)
    else:
        plain = io.StringIO()
        Console(file=plain, width=_WIDEST).print(shown)
        for line in plain.getvalue().splitlines():
            click.echo(line.rstrip())


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names most like this one, the likest first."""
    return difflib.get_close_matches(name, sorted(set(known)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known names; "" where none is near."""
    near = nearest(name, known)
    return f"did you mean {', '.join(near)}?" if near else ""
