"""One connection of SQLite: how it is opened, and how a statement is performed on it without a transaction left open."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache
from itertools import starmap
from operator import itemgetter, methodcaller
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Connection", "Row", "changed", "connect", "is_open", "rows_of", "run_to_end"]

Row = tuple[Any, ...]

_CACHED_STATEMENTS = 256
_CACHE_KIB = 4096
"""Pages that each connection keeps in memory."""
_LOG_BYTES = 8 << 20
"""The log is cut down to this when it has been copied into the file and begins anew."""


class Connection(sqlite3.Connection):
    """As sqlite3's; weakly referable, and closed without a warning when an exception from outside has lost it."""

    def __del__(self) -> None:
        try:
            self.close()
        except sqlite3.Error:
            pass  # it was never opened


def connect(path: str) -> Connection:
    """A connection to a file that is there: it is not begun here, but by `opening`. Raises `sqlite3.Error`."""
    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection: Connection = sqlite3.connect(
        f"file:{name}?mode=rw",
        uri=True,
        timeout=0,  # SQLite's own waits are of 1 to 100 ms and count for each statement: `File` waits itself
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        factory=Connection,
    )
    # The file is not mapped into memory (mmap_size): a process that truncates it would end the others by SIGBUS.
    for pragma in (
        "synchronous=NORMAL",  # the log is synced at checkpoints, and by `File.sync` where something was promised
        "secure_delete=OFF",
        "recursive_triggers=ON",  # so that UPDATE OR REPLACE fires them for what it replaces
        "wal_autocheckpoint=0",  # it would be done by whoever comes across the mark: `tidy` does it
        f"cache_size=-{_CACHE_KIB}",
        f"journal_size_limit={_LOG_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def rows_of(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """All rows that a statement answers.

    From the first step of such a statement to its last one a transaction is open. Both are done by functions written in C,
    with no bytecode between them, so neither an exception from outside nor a signal handler, which may want to write itself,
    can come there."""
    text, ordered = _plain(sql)
    if ordered is not None:
        parameters = ordered(parameters)
    return next(map(_FETCHALL, starmap(connection.execute, ((text, parameters),))))


_FETCHALL: Callable[[Any], list[Row]] = methodcaller("fetchall")


def changed(connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
    """How many rows a statement changes."""
    text, ordered = _plain(sql)
    if ordered is not None:
        parameters = ordered(parameters)
    return connection.execute(text, parameters).rowcount


@lru_cache(maxsize=4096)
def _plain(sql: str) -> tuple[str, Callable[[Sequence[Any]], Sequence[Any]] | None]:
    """The statement with `?` alone in place of `?1`, and what puts the parameters in the order that it then has them in.

    Python 3.12.0 to 3.12.3 warn of each `?1` that gets its value from a sequence, as if it were a name."""
    if _NUMBERED.search(sql) is None:
        return sql, None
    places: list[int] = []
    greatest = 0
    for number in _PLACEHOLDER.findall(sql):
        place = int(number) if number else greatest + 1  # as SQLite numbers them
        greatest = max(greatest, place)
        places.append(place - 1)
    text = _PLACEHOLDER.sub("?", sql)
    return text, itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


_NUMBERED, _PLACEHOLDER = re.compile(r"\?[0-9]"), re.compile(r"\?([0-9]*)")


def run_to_end(connection: Connection, sql: str, parameters: Sequence[Any]) -> None:
    """Perform a statement of which `execute` would take one step: PRAGMA incremental_vacuum."""
    connection.executescript(sql)


def is_open(connection: Connection | None) -> bool:
    """Whether it has not been closed."""
    if connection is None:
        return False
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return False
    return True
