"""The file of a store: its connections, and what may happen to it while processes use it.

**Connections** are in a pool, last in first out, and whoever uses one takes it out of the list, so that none is used
twice at a time, neither by two threads nor by a signal handler in the middle of a call. One that does not come back (an
exception from outside, P17) is closed when nobody refers to it any more.

**Whether the file is still the one** that is open here is asked once a millisecond by reads, and after each
invalidation: the path's inode and its log's are compared with those of the connections. A file that was deleted or
replaced is left, and the one at the path is opened, or begun, by `opening`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memover.errors import StoreTimeout, StoreUnavailable, raised_beneath
from memover.latch import FramePresence, section
from memover.stores.sqlite.connections import changed, rows_of, run_to_end
from memover.stores.sqlite.failures import ERRORS, Failure, failure_of
from memover.stores.sqlite.handles import Handles
from memover.stores.sqlite.marks import beside
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.opening import FileOpener, may_write, sync_directory
from memover.stores.sqlite.pauses import Pauses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.stores.sqlite.connections import Connection, Row
    from memover.stores.sqlite.marks import MarkPage

__all__ = ["RECENT_MS", "Busy", "File"]

_IDLE_CONNECTIONS = 32
"""When there are more, all are closed."""
_FAILURES_IN_A_ROW = 20

RECENT_MS = 5000
"""How often it is written down which entries were read."""
_RECENT_ROWS = 100_000


class Busy(Exception):
    """What was asked cannot be answered without waiting; raised only to those who said that they will not wait."""


Inode = tuple[int, int]
"""A device and the number of a file on it."""
Identity = tuple[Inode, Inode, Inode]
"""The inodes of the file, of its log, and of its marks (0, 0 where there are none)."""


class File:
    """One per path and process, whoever uses it; any thread may call. All methods raise `StoreError`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = path + "-wal"
        self.marks = beside(path)
        self.address = f"sqlite:///{path}"
        self.idle: list[Connection] = []
        """The pool; another list takes its place when all its connections are to be left."""
        self.page: MarkPage | None = None
        """The marks, and the rows kept under them; None where nothing is kept."""
        self.words: memoryview | None = None
        """The words of the page."""
        self.moment = 0
        """The millisecond in which the file was last looked at."""
        self.era = object()
        """Another one when a file is left: what was written before may be in one that is not at the path any more."""
        self.recent: dict[int, None] = {}
        """The rows read since that was last written down: see `tidy`."""
        self.recent_before: dict[int, None] = {}
        """Those of the time before that."""
        self.recent_due = 0
        """The millisecond from which on that should be done."""
        self.behind: Callable[[], object] | None = None
        """Has it done in another thread."""
        self.turn: FramePresence | None = None
        """Of the call that writes a long entry, if one does: see `writing`."""
        self.piece_written = 0.0
        self._identity: Identity | None = None
        self._handles = Handles()
        self._opener = FileOpener(path, self.address)
        self._failing = 0
        self._directory_synced = False

    # -- whether it is still there ------------------------------------------------------------------------------------------

    def look(self, moment: int) -> None:
        """Leaves the file if another is in its place. For reads, once a millisecond."""
        identity = self._identity
        if identity is None:
            if self.page is not None:
                self.leave()  # as another thread is just doing
        elif identity != self._identity_now():
            self.leave()
        self.moment = moment  # now: what another thread answers in this millisecond without a look is of this file
        if moment >= self.recent_due and self.recent and self.behind is not None:
            self.recent_due = moment + RECENT_MS
            self.behind()
            if len(self.recent) > _RECENT_ROWS:
                self.recent = {}

    def leave(self) -> None:
        """Closes what is open: the next call opens what is at the path."""
        if self._identity is not None or self.page is not None:
            self.era = object()
        self._identity = None
        # After that, so that no page is there without an identity that `look` compares.
        page, self.page, self.words = self.page, None, None
        if page is not None:
            page.forget()
            self.era = object()  # once more: whoever finds the page that has been left has read the other one before
        left, self.idle = self.idle, []
        self.drain(left)

    def drain(self, pool: list[Connection]) -> None:
        """Closes what is in a pool that has been left."""
        while pool:
            try:
                connection = pool.pop()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                break
            self._handles.close(connection)

    def give_back(self, pool: list[Connection], connection: Connection) -> None:
        """Puts a connection back where it was taken from."""
        pool.append(connection)
        if pool is not self.idle or len(pool) > _IDLE_CONNECTIONS:
            self.drain(pool)

    @property
    def keeps(self) -> bool:
        """Whether rows of the file that was opened last may be kept."""
        return self._opener.keeps

    def unmoved(self) -> bool:
        """Whether what was just written is in the file that is at the path; if not, the file is left."""
        there = self._is_there()
        if not there:
            self.leave()
        return there

    def _is_there(self) -> bool:
        return self._identity is not None and self._identity == self._identity_now()

    def _identity_now(self) -> Identity | None:
        try:
            file, log = _inode(self.path), _inode(self.log)
        except OSError:
            return None
        try:
            return file, log, _inode(self.marks)
        except OSError:
            return file, log, (0, 0)

    # -- statements -----------------------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: Sequence[Any], deadline: float | None) -> list[Row]:
        """Performs one statement and returns all its rows. Without a deadline it never waits and raises `Busy` instead."""
        rows: list[Row] = self._perform(rows_of, sql, parameters, deadline)
        return rows

    def count(self, sql: str, parameters: Sequence[Any], deadline: float | None) -> int:
        """Performs one statement and returns how many rows it changed."""
        count: int = self._perform(changed, sql, parameters, deadline)
        return count

    def script(self, sql: str, deadline: float | None) -> None:
        """Performs one statement to its end, of which sqlite3 would otherwise take one step: PRAGMA incremental_vacuum."""
        self._perform(run_to_end, sql, (), deadline)

    def _perform(
        self,
        perform: Callable[[Connection, str, Sequence[Any]], Any],
        sql: str,
        parameters: Sequence[Any],
        deadline: float | None,
    ) -> Any:
        pauses: Pauses | None = None
        lost = 0
        while True:
            moment = time_ms()
            if moment != self.moment:
                self.look(moment)
            idle = self.idle
            connection = None
            try:
                connection = idle.pop()
            except IndexError as error:
                if raised_beneath(error):
                    raise
            # Not above: what is raised while it is opened would have the IndexError as its context.
            if connection is None:
                if deadline is None:
                    raise Busy
                idle, connection = self.open(deadline)
            try:
                answer = perform(connection, sql, parameters)
            except ERRORS as error:
                failure = failure_of(error)
                if failure is Failure.BUSY:
                    self.give_back(idle, connection)
                    if deadline is None:
                        raise Busy from None
                    pauses = pauses or Pauses(deadline)
                    if not pauses.another():
                        raise StoreTimeout(
                            f"{self.address} is locked by another connection for longer than this call may wait ({error}); who "
                            f"has a transaction open on it?",
                            store=self.address,
                        ) from error
                    continue
                if failure is Failure.FULL:
                    # The connection stays: with no room, another could not even be opened to read.
                    self.give_back(idle, connection)
                    self._failing += 1
                    if self._failing > _FAILURES_IN_A_ROW and not hasattr(error, "sqlite_errorcode"):
                        self.leave()  # Python 3.10 cannot tell a full disk from a connection that is broken
                    raise StoreUnavailable(
                        f"{self.address}: {error}: nothing can be written: make room on the disk.", store=self.address
                    ) from error
                lost += 1
                self._failed(failure, connection, error, deadline, lost)
                continue
            self.give_back(idle, connection)
            self._failing = 0
            return answer

    def _failed(
        self, failure: Failure, connection: Connection, error: Exception, deadline: float | None, times: int
    ) -> None:
        """Returns if the statement is to be tried again: it has changed nothing."""
        if failure is Failure.OURS:
            raise error
        moved = not self._is_there()
        self._handles.close(connection)
        if (moved or failure is Failure.LOST) and times < 3:
            if moved:
                self.leave()
            return
        if failure is Failure.DAMAGED and times < 3:
            if deadline is None:
                raise Busy from error
            self._move_aside(error, deadline)
            return
        # Connections that were opened while the file could not be written keep the whole process from writing, even when
        # it can be written again: they share what SQLite knows of the file. So all are closed.
        self.leave()
        if failure is Failure.READ_ONLY and times == 1 and may_write(self.path):
            return
        raise StoreUnavailable(
            f"{self.address}: {error}: see that its directory is there, and that this process may write it and the file.",
            store=self.address,
        ) from error

    def sync(self) -> None:
        """Has what was committed on the disk: it survives a power loss then, as far as the disk keeps its word.

        The log is opened anew as a plain file: it carries no POSIX locks that closing it could drop."""
        try:
            with open(self.log, "r+b", buffering=0) as log:
                getattr(os, "fdatasync", os.fsync)(log.fileno())
            if not self._directory_synced:
                sync_directory(self.path)
                self._directory_synced = True
        except FileNotFoundError:
            pass  # the log has gone with its file, which `unmoved` notices
        except OSError as error:
            raise StoreUnavailable(f"{self.address}: {error}: is the disk in order?", store=self.address) from error

    def log_bytes(self) -> int:
        """How long the log is."""
        try:
            return os.stat(self.log).st_size
        except OSError:
            return 0

    def open(self, deadline: float) -> tuple[list[Connection], Connection]:
        """A new connection, and the pool that it belongs to."""
        return self._handles.opening(lambda: self._open(deadline))

    @section
    def _open(self, deadline: float) -> tuple[list[Connection], Connection]:
        if self._handles.tainted:
            raise StoreUnavailable(
                f"{self.address} was in use by another thread when this process was forked: its locks cannot be had here. "
                f"Fork before the first use, or start a new process (spawn).",
                store=self.address,
            )
        try:
            with self._opener.lock(deadline):
                connection = self._opener.connect(deadline)
                page = self._opener.page()
                identity = self._identity_now()
                if identity is None or (page is not None and page.identity != identity[2]):
                    raise StoreUnavailable(f"{self.address} was removed while it was being opened.", store=self.address)
                if identity != self._identity:
                    self.leave()  # others of this process's connections are to a file that is not there any more
                    self.page, self.words = page, None if page is None else page.words
                    self._identity = identity
                    self._directory_synced = False
                self._handles.add(connection)
                return self.idle, connection
        except OSError as error:
            raise StoreUnavailable(
                f"{self.address} cannot be opened: {error}: see that this process may write to its directory.",
                store=self.address,
            ) from error

    @section
    def _move_aside(self, error: Exception, deadline: float) -> None:
        """A statement found the file damaged: unless another process has moved it aside already, do so."""
        identity = self._identity
        try:
            with self._opener.lock(deadline):
                self.leave()
                if identity is not None and identity[0] == _inode(self.path):
                    self._opener.rename_damaged(error)
        except FileNotFoundError:
            pass
        except OSError as failure:
            raise StoreUnavailable(
                f"{self.address} is damaged ({error}) and cannot be moved aside: {failure}: remove it.",
                store=self.address,
            ) from failure

    def before_fork(self) -> None:
        """Closes every connection; those in use are waited for, a moment."""
        self._handles.before_fork(self.leave)

    def after_fork_in_child(self) -> None:
        """What is still open is the parent's."""
        self.leave()  # nothing, unless the fork did not ask the hooks before it: uWSGI's
        self._handles.after_fork_in_child()


def _inode(path: str) -> Inode:
    found = os.stat(path)
    return found.st_dev, found.st_ino
