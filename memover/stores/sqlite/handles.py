"""What this process has open of a file.

SQLite's POSIX locks belong to the process and do not survive a fork: a child would believe to hold them. So all connections are
closed before a fork, and where that could not be done in time, the file cannot be used in the child.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from typing import TYPE_CHECKING, ClassVar, TypeVar

from memover.clocks import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.stores.sqlite.connections import Connection

__all__ = ["Handles"]

T = TypeVar("T")

_PAUSE_SECONDS = 0.0002
_PATIENCE_SECONDS, _WAIT_SECONDS = 0.05, 1.0


class Handles:
    """The connections to one file, and the openings and closings that are going on. Any thread may call."""

    forking: ClassVar[bool] = False
    """Whether this process is being forked: nothing is opened meanwhile."""

    def __init__(self) -> None:
        self.tainted = False
        """Whether a parent's locks are open here, which cannot be closed."""
        self._connections: list[weakref.ref[Connection]] = []
        self._underway: list[object] = []
        """A mark for each opening and closing: SQLite's own locks are held then."""

    def opening(self, work: Callable[[], T]) -> T:
        """Does what opens a connection, when no fork is going on."""
        mark = object()
        while True:
            self._underway.append(mark)
            if not self.forking:
                break
            self._underway.remove(mark)
            time.sleep(_PAUSE_SECONDS)
        try:
            return work()
        finally:
            self._underway.remove(mark)

    def add(self, connection: Connection) -> None:
        """This connection is open."""
        self._connections = [known for known in self._connections if known() is not None]
        self._connections.append(weakref.ref(connection))

    def close(self, connection: Connection) -> None:
        mark = object()
        self._underway.append(mark)
        try:
            connection.close()
        except sqlite3.Error:
            pass  # it ends with its last reference
        finally:
            self._underway.remove(mark)

    def before_fork(self, leave: Callable[[], None]) -> None:
        """`leave()` closes every connection that is idle; those in use are waited for, a moment."""
        began = monotonic()
        while True:
            leave()
            self._connections = [known for known in self._connections if _is_open(known())]
            if not (self._connections or self._underway) or monotonic() > began + _WAIT_SECONDS:
                return
            if monotonic() > began + _PATIENCE_SECONDS:  # a checkpoint, which goes on another time
                for known in self._connections:
                    connection = known()
                    if connection is not None:
                        try:
                            connection.interrupt()
                        except sqlite3.Error:
                            pass  # it has been closed meanwhile
            time.sleep(_PAUSE_SECONDS)

    def after_fork_in_child(self) -> None:
        """What is still open is the parent's."""
        self.tainted = bool(self._underway) or any(_is_open(known()) for known in self._connections)
        self._connections = []
        self._underway = []


def _is_open(connection: Connection | None) -> bool:
    if connection is None:
        return False
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return False
    return True
