"""What the commands on running caches have in common: the store they look at, progress bars, and tables.

Text that comes from a store may hold anything, escape sequences of terminals included: it goes through `visible` before
it is shown, and is never read as markup.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from memover.cli.project import CannotRun, Project
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from memover.schema.lock import Lock
    from memover.stores.survey import Survey

__all__ = [
    "Column",
    "StoreContext",
    "ago",
    "count_of",
    "did_you_mean",
    "document",
    "nearest",
    "not_there",
    "on_store",
    "progress",
    "size_of",
    "step_option",
    "table",
    "visible",
]

_NEAREST_LIMIT = 3


class StoreContext(NamedTuple):
    """The store and the prefix that a command looks at, and the project around it. `lock` is None if the project has none."""

    url: str
    prefix: str
    survey: Survey
    project: Project
    lock: Lock | None

    @classmethod
    def find(cls, url: str | None, prefix: str | None, lockfile: str | None, command: str) -> StoreContext:
        """From options and environment, then from [tool.memover]. Raises `CannotRun` if none of them names a store."""
        project = Project.find(lockfile=lockfile)
        where = url or project.url
        if not where or where.startswith("memory"):
            raise CannotRun(
                f"Say which store: memover {command} --url redis://host:6379/0, or set MEMOVER_URL. "
                f"It must be one that other processes can look into, so not memory://."
            )
        chosen = project.prefix if prefix is None else prefix
        return cls(where, chosen, open_survey(where), project, project.lock())

    def named_in_lock(self) -> dict[str, int]:
        """The namespaces that the lock knows, each with its version; where several functions share one, the lowest."""
        named: dict[str, int] = {}
        for name, block in (self.lock.functions if self.lock is not None else {}).items():
            namespace = name.partition(" ")[0]
            named[namespace] = min(block.version, named.get(namespace, block.version))
        return named

    def removed_in_lock(self) -> dict[str, int]:
        """The namespaces of functions that are gone, with the last version of each."""
        if self.lock is None:
            return {}
        return {name.partition(" ")[0]: version for name, version in self.lock.removed.items()}


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that every command on a running cache has; the command gets their `context`, and `form`."""

    @wraps(command)
    def placed(*, url: str | None, prefix: str | None, lockfile: str | None, **options: Any) -> None:
        name = click.get_current_context().command.name or ""
        command(StoreContext.find(url, prefix, lockfile, name), **options)

    placing: Any = placed
    for option in reversed(
        (
            click.option("--url", envvar="MEMOVER_URL", help="The store, as in Cache(url). Default: MEMOVER_URL."),
            click.option(
                "--prefix",
                envvar="MEMOVER_PREFIX",
                help="As in Cache(prefix=...). Default: MEMOVER_PREFIX, or memover.",
            ),
            click.option(
                "--format",
                "form",
                type=click.Choice(["table", "json"]),
                default="table",
                show_default=True,
                help="A table for people, or one JSON document.",
            ),
            click.option("--lockfile", help="The lock, if not memover.lock."),
        )
    ):
        placing = option(placing)
    return placing  # type: ignore[no-any-return]


step_option = click.option(
    "--step", type=click.IntRange(10, 100_000), default=1000, show_default=True, help="Keys a SCAN looks at."
)


def document(facts: Any) -> None:
    """Prints one JSON document to stdout, in ASCII: nothing in it can reach a terminal as a control character."""
    click.echo(json.dumps(facts, indent=2, default=str))


def not_there(message: str) -> NoReturn:
    """Ends the command with exit status 1: what was named does not exist."""
    click.echo(f"memover: {message}", err=True)
    sys.exit(1)


# -- showing ---------------------------------------------------------------------------------------------------------------


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
    listed = [[each if isinstance(each, Text) else Text(each) for each in row] for row in rows]
    if console.is_terminal:
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
        for column in columns:
            shown.add_column(
                column.head, justify="right" if column.right else "left", style=column.style, overflow="fold"
            )
        for row in listed:
            shown.add_row(*row)
        console.print(shown)
        return
    lines = [[column.head for column in columns], *([each.plain for each in row] for row in listed)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        cells = [
            each.rjust(width) if column.right else each.ljust(width)
            for each, width, column in zip(line, widths, columns)
        ]
        click.echo("  ".join(cells).rstrip())


class Bar:
    """How far a scan is; `advance` takes the number of keys looked at in one step.

    A step is asked for by number and may be answered with fewer, so the bar ends at its total."""

    def __init__(self, shown: Progress, task: Any, total: int) -> None:
        self._shown = shown
        self._task = task
        self._left = total

    def advance(self, looked_at: int) -> None:
        step = min(looked_at, self._left)
        self._left -= step
        self._shown.advance(self._task, step)


@contextmanager
def progress(what: str, total: int) -> Generator[Bar, None, None]:
    """A bar on stderr while a scan goes on, in a terminal; nothing in a pipe."""
    console = Console(stderr=True)
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} keys", style="dim"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with shown:
        yield Bar(shown, shown.add_task(what, total=max(1, total)), max(1, total))


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names most like this one, the likest first."""
    import difflib

    return difflib.get_close_matches(name, sorted(set(known)), n=_NEAREST_LIMIT, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest known names; "" where none is near."""
    near = nearest(name, known)
    return f"did you mean {', '.join(near)}?" if near else ""
