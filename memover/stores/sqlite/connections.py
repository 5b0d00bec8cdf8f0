"""One connection of SQLite: how it is opened, and how a statement is performed on it without a transaction left open."""

from __future__ import annotations

import re
import sqlite3
import sys
from functools import lru_cache
from itertools import starmap
from operator import methodcaller
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Connection", "Row", "changed", "connect", "rows_of", "run_to_end"]

Row = tuple[Any, ...]

_CACHED_STATEMENTS = 256
_CACHE_KIB = 4096
"""Pages that each connection keeps in memory."""
_LOG_BYTES = 16 << 20
"""The log is cut down to this when it has been copied into the file and begins anew. As long as it mostly gets (see `tidy`):
writing over what is there takes a tenth less of a commit's time than making the file longer again."""


class Connection(sqlite3.Connection):
    """As sqlite3's; weakly referable, and closed without a warning when an exception from outside has lost it."""

    # By a function of C: what a signal handler raises in bytecode that the interpreter runs of itself reaches nobody.
    __del__: Any = sqlite3.Connection.close

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except sqlite3.Error:
            object.__setattr__(self, "__class__", _Unopened)  # there is nothing to close, which would be another error
            raise


class _Unopened(Connection):
    """A connection that could not be opened."""

    __del__: Any = object.__sizeof__  # does nothing


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
    if NUMBERS_ARE_NAMES:
        sql, parameters = _plain(sql, parameters)
    return next(map(_FETCHALL, starmap(connection.execute, ((sql, parameters),))))


_FETCHALL: Callable[[Any], list[Row]] = methodcaller("fetchall")


def changed(connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
    """How many rows a statement changes."""
    if NUMBERS_ARE_NAMES:
        sql, parameters = _plain(sql, parameters)
    return connection.execute(sql, parameters).rowcount


NUMBERS_ARE_NAMES = (3, 12) <= sys.version_info < (3, 12, 4)
"""Whether this Python warns of each `?1` that gets its value from a sequence, as if it were a name. Plain placeholders alone
would need some values twice, which a miss takes 5 to 10 µs longer for."""


def _plain(sql: str, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The statement with `?` alone in place of `?1`, and the parameters in the order that it then has them in."""
    text, places = _places(sql)
    return text, [parameters[place] for place in places]


@lru_cache(maxsize=4096)
def _places(sql: str) -> tuple[str, list[int]]:
    places: list[int] = []
    greatest = 0
    for number in _PLACEHOLDER.findall(sql):
        place = int(number) if number else greatest + 1  # as SQLite numbers them
        greatest = max(greatest, place)
        places.append(place - 1)
    return _PLACEHOLDER.sub("?", sql), places


_PLACEHOLDER = re.compile(r"\?([0-9]*)")


def run_to_end(connection: Connection, sql: str, parameters: Sequence[Any]) -> None:
    """Performs a statement of which `execute` would take one step: PRAGMA incremental_vacuum."""
    connection.executescript(sql)
