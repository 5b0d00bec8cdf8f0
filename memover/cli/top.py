"""`memover top`: what the processes report, live and full screen, or once.

Keys: q, Esc or Ctrl-C quit · s next column to sort by · r the other way round · arrows, page keys scroll · p pause. However it
ends, the terminal is as it was.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from memover.cli.reports import COLUMNS, Reports, VersionActivity, Watcher, number_text
from memover.cli.running import StoreContext, document, on_store
from memover.cli.text import Column, ago, count_of, table, visible
from memover.errors import StoreError
from memover.readable import readable
from memover.runtime.counters import quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Screen", "sparkline", "top"]

_TICK_SECONDS = 1.0
_HISTORY = 120
_SPARK_WIDTH = 16
_BARS = " ▁▂▃▄▅▆▇█"
_SCROLLED = {"\x1b[B": 1, "j": 1, "\x1b[A": -1, "k": -1, "\x1b[6~": 10, "\x1b[5~": -10}
"""By how many lines a key scrolls: arrows and page keys, as terminals send them."""
_GRADES = {"": "dim", "good": "green", "fair": "yellow", "bad": "red"}
_SORTS: tuple[tuple[str, Callable[[VersionActivity], Any]], ...] = (
    ("calls/s", lambda line: -line.calls_per_second),
    ("function", lambda line: (line.namespace, str(line.version))),
    ("hits", lambda line: -1.0 if line.hit_ratio is None else line.hit_ratio),
    ("loads/s", lambda line: -line.rates["loads"]),
    ("p95", lambda line: -(quantile(line.loads, 0.95) or 0.0)),
    ("errors/s", lambda line: -line.errors_per_second),
)
_NOTHING = (
    "No process reports under the prefix {prefix!r}. Set MEMOVER_REPORT=5s in the application's environment, or\n"
    "Cache(..., report=5), and its functions appear here within an interval."
)


@click.command("top")
@on_store
@click.option("--once", is_flag=True, help="Print what is reported now, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2),
    default=_TICK_SECONDS,
    show_default=True,
    help="Seconds between two looks.",
)
def top(context: StoreContext, form: str, once: bool, interval: float) -> None:
    """Watch the functions of all processes that report: calls, hit ratio, loads and their times, errors, versions in use.

    Processes report when MEMOVER_REPORT=5s is set, or Cache(report=...). In a pipe it is as with --once. Quit with q.
    """
    watcher = Watcher(context.survey, context.prefix)
    if form == "json":
        document(watcher.look(whole=True).facts())
    elif once or not sys.stdout.isatty():
        _print(context, watcher.look(whole=True))
    else:
        _live(context, watcher, interval)


# -- once ------------------------------------------------------------------------------------------------------------------


_COLUMNS = (
    Column("function", style="cyan"),
    *(Column(head, right=True, style="bold" if name == "calls" else "") for name, head in COLUMNS),
)


def _cells(line: VersionActivity) -> list[str | Text]:
    styles = {
        "ratio": _GRADES[line.grade],
        "errors": "bold red" if line.errors_per_second else "dim",
        "agreement": "bold red" if line.totals["disagreements"] else "",
    }
    texts = line.texts()
    cells: list[str | Text] = [visible(line.namespace)]
    for name, _ in COLUMNS:
        text = visible(texts[name])
        cells.append(Text(text, style=styles[name]) if name in styles else text)
    return cells


def _print(context: StoreContext, found: Reports) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not found.reports:
        click.echo(_NOTHING.format(prefix=context.prefix), err=True)
        return
    table(console, _COLUMNS, [_cells(line) for line in found.lines])
    console.print(Text(_summary(found), style="dim"))


def _summary(found: Reports) -> str:
    releases = ", ".join(sorted({visible(each.memover) for each in found.reports}))
    oldest = min((each.started for each in found.reports), default=None)
    calls = sum(line.calls_per_second for line in found.lines)
    return (
        f"{count_of(len(found.reports), 'process', 'processes')} (memover {releases}), the oldest started {ago(oldest)}; "
        f"{number_text(calls)} calls/s; reported every {found.interval:g} s"
    )


# -- live ------------------------------------------------------------------------------------------------------------------


def sparkline(values: deque[float] | list[float], width: int = _SPARK_WIDTH) -> str:
    """The last values as bars, as wide as asked for; the highest is a full bar."""
    last = list(values)[-width:]
    highest = max(last, default=0.0)
    if highest <= 0:
        return ("▁" * len(last)).rjust(width)
    steps = len(_BARS) - 1
    return "".join(_BARS[max(1, round(value / highest * steps))] for value in last).rjust(width)


class Screen:
    """The full-screen view: what was last seen, the history since it was opened, and how it is sorted."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self._found: Reports | None = None
        self._error = ""
        self._history: dict[tuple[str, int | str], deque[float]] = {}
        self._all: deque[float] = deque(maxlen=_HISTORY)
        self._sort = 0
        self._reverse = False
        self._first = 0
        self.paused = False

    def saw(self, found: Reports) -> None:
        """A look at the reports succeeded."""
        self._found, self._error = found, ""
        past, self._history = self._history, {}
        for line in found.lines:
            place = line.namespace, line.version
            self._history[place] = past.get(place, deque(maxlen=_HISTORY))
            self._history[place].append(line.calls_per_second)
        self._all.append(sum(line.calls_per_second for line in found.lines))

    def failed(self, error: StoreError) -> None:
        """The store did not answer; what was seen last stays on the screen."""
        self._error = str(error)

    def key(self, pressed: str) -> bool:
        """Reacts to a key; False to quit."""
        if pressed in ("q", "Q", "\x1b", "\x03"):
            return False
        if pressed == "s":
            self._sort = (self._sort + 1) % len(_SORTS)
        elif pressed == "r":
            self._reverse = not self._reverse
        elif pressed in ("p", " "):
            self.paused = not self.paused
        self._first = max(0, self._first + _SCROLLED.get(pressed, 0))
        return True

    def drawn(self, width: int, height: int) -> Group:
        """The screen as it is now."""
        head = Text("memover top", style="bold").append(
            f"  {self._context.survey.address}  prefix {self._context.prefix}", style="dim"
        )
        if self.paused:
            head.append("  paused", style="reverse")
        foot = Text("q quit  s sort  r reverse  p pause  ↑↓ scroll", style="dim")
        if self._error:
            told = Text(f"The store does not answer: {visible(self._error)}", style="bold red")
        elif self._found is None:
            told = Text("looking…", style="dim")
        elif not self._found.reports:
            return Group(head, Text(), Text(_NOTHING.format(prefix=self._context.prefix), style="yellow"), Text(), foot)
        else:
            told = Text(_summary(self._found))
            told.append(f"  {sparkline(self._all, 30)}", style="cyan")
        told.truncate(width, overflow="ellipsis")
        parts: list[Any] = [head, told, Text()]
        if self._found is not None:
            parts.append(self._table(self._found, width, max(1, height - 6)))
        return Group(*parts, foot)

    def _table(self, found: Reports, width: int, rows: int) -> Table:
        name, order = _SORTS[self._sort]
        lines = sorted(found.lines, key=order, reverse=self._reverse)
        self._first = min(self._first, max(0, len(lines) - rows))
        # What does not fit is left out from the end of the list of the less important.
        hidden = {"agreement"} if all(line.agreement is None for line in lines) else set()
        if all(not line.rates["near_hits"] for line in lines):
            hidden.add("near/s")
        for limit, head in ((130, "stale/s"), (120, "waits/s"), (110, "p50"), (90, "processes"), (80, "loads/s")):
            if width < limit:
                hidden.add(head)
        spark = width >= 100
        shown = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
        for column in _COLUMNS:
            if column.head not in hidden:
                arrow = ("▲" if self._reverse else "▼") if column.head == name else ""
                shown.add_column(
                    f"{column.head}{arrow}",
                    justify="right" if column.right else "left",
                    style=column.style,
                    no_wrap=True,
                    overflow="ellipsis",
                    ratio=1 if column.head == "function" else None,
                    header_style="bold" if column.head == name else "dim",
                )
        if spark:
            shown.add_column("calls", width=_SPARK_WIDTH, no_wrap=True, style="cyan", justify="right")
        for line in lines[self._first : self._first + rows]:
            cells = [cell for cell, column in zip(_cells(line), _COLUMNS) if column.head not in hidden]
            if spark:
                cells.append(sparkline(self._history.get((line.namespace, line.version), [])))
            shown.add_row(*cells)
        return shown


def _live(context: StoreContext, watcher: Watcher, interval: float) -> None:
    console = Console()
    screen = Screen(context)
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
            due = time.monotonic()
            going = True
            while going:
                if time.monotonic() >= due:
                    due = time.monotonic() + interval
                    if not screen.paused:
                        try:
                            screen.saw(watcher.look())
                        except StoreError as error:
                            screen.failed(error)
                live.update(screen.drawn(console.width, console.height), refresh=True)
                key = pressed(max(0.0, min(due - time.monotonic(), 0.5)))
                going = key is None or screen.key(key)
    except KeyboardInterrupt:
        pass  # an end like any other, wherever it came


@contextmanager
def _keys() -> Generator[Callable[[float], str | None], None, None]:
    """Single keys from the terminal, unechoed: a function that waits at most so many seconds for one."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield time.sleep  # Ctrl-C alone
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read(seconds: float) -> str | None:
        if not readable([descriptor], seconds):
            return None
        text = os.read(descriptor, 8).decode(errors="replace")
        return text if text.startswith("\x1b[") else text[:1] or "q"

    try:
        tty.setcbreak(descriptor)
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
