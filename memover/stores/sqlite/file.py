"""The file of a store: its connections, and what may happen to it while processes use it.

**Connections** are in a pool, last in first out, and whoever uses one takes it out of the list, so that none is used
twice at a time, neither by two threads nor by a signal handler in the middle of a call. One that does not come back (an
exception from outside, P17) is closed when nobody refers to it any more.

**Whether the file is still the one** that is open here is asked once a millisecond by reads, and after each
invalidation: the path's inode and its log's are compared with those of the connections. A file that was deleted or
replaced is left, and the one at the path is opened, or begun, by `opening`.

**A lock that somebody else holds** is waited for here, in short random pauses and within the budget of the whole call.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from memover.clocks import monotonic
from memover.errors import StoreTimeout, StoreUnavailable, raised_beneath
from memover.latch import section
from memover.stores.sqlite.connections import changed, is_open, rows_of, run_to_end
from memover.stores.sqlite.failures import ERRORS, Failure, failure_of
from memover.stores.sqlite.marks import beside
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.opening import Opening, may_write, sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.stores.sqlite.connections import Connection, Row
    from memover.stores.sqlite.marks import MarkPage

__all__ = ["RECENT_MS", "Busy", "File"]

_random = random.Random()
"""For pauses. Its own, because background threads draw from it and the program's may be seeded."""

_IDLE_CONNECTIONS = 32
"""When there are more, all are closed."""
_YIELDS = 12
"""How often somebody else is let run before a wait for the lock begins: a writer has it for some tens of microseconds."""
_PAUSE_FIRST_SECONDS, _PAUSE_LAST_SECONDS = 0.0002, 0.004
_FORK_PATIENCE_SECONDS, _FORK_WAIT_SECONDS = 0.05, 1.0
_FAILURES_IN_A_ROW = 20

RECENT_MS = 5000
"""How often it is written down which entries were read."""
_RECENT_ROWS = 100_000


class Busy(Exception):
    """What was asked cannot be answered without waiting; raised only to those who said that they will not wait."""


Identity = tuple[int, int, int, int, int, int]
"""Device and inode of the file, of its log, and of its marks (0, 0 where there are none)."""


class File:
    """One per path and process, whoever uses it; any thread may call. All methods raise `StoreError`."""

    forking: ClassVar[bool] = False
    """Whether this process is being forked: nothing is opened meanwhile."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = path + "-wal"
        self.marks = beside(path)
        self.address = f"sqlite:///{path}"
        self.idle: list[Connection] = []
        """The pool; another list takes its place when all its connections are to be left."""
        self.page: MarkPage | None = None
        """The marks, and the rows kept under them; None where nothing is kept."""
        self.moment = 0
        """The millisecond in which the file was last looked at."""
        self.left = 0
        """Counts `leave`: what was written before may be in a file that is not at the path any more."""
        self.recent: dict[int, None] = {}
        """The rows read since that was last written down: see `tidy`."""
        self.recent_before: dict[int, None] = {}
        """Those of the time before that."""
        self.recent_due = 0
        """The millisecond from which on that should be done."""
        self.behind: Callable[[], object] | None = None
        """Has it done in another thread."""
        self._identity: Identity | None = None
        self._opened: list[weakref.ref[Connection]] = []
        self._underway: list[object] = []
        """A mark for each opening and closing that is going on: SQLite's own locks are held then."""
        self._opening = Opening(path, self.address)
        self._tainted = False
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
        if self._identity is not None:
            self.left += 1
        self._identity = None
        # After that, so that no page is there without an identity that `look` compares.
        page, self.page = self.page, None
        if page is not None:
            page.forget()
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
            self._close(connection)

    def give_back(self, pool: list[Connection], connection: Connection) -> None:
        """Puts a connection back where it was taken from."""
        pool.append(connection)
        if pool is not self.idle or len(pool) > _IDLE_CONNECTIONS:
            self.drain(pool)

    @property
    def keeps(self) -> bool:
        """Whether rows of the file that was opened last may be kept."""
        return self._opening.keeps

    def unmoved(self) -> bool:
        """Whether what was just written is in the file that is at the path; if not, the file is left."""
        if self._identity is not None and self._identity == self._identity_now():
            return True
        self.leave()
        return False

    def _identity_now(self) -> Identity | None:
        try:
            file = os.stat(self.path)
            log = os.stat(self.log)
        except OSError:
            return None
        try:
            marks = os.stat(self.marks)
        except OSError:
            return file.st_dev, file.st_ino, log.st_dev, log.st_ino, 0, 0
        return file.st_dev, file.st_ino, log.st_dev, log.st_ino, marks.st_dev, marks.st_ino

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
        pause = _PAUSE_FIRST_SECONDS
        lost = tries = 0
        while True:
            moment = time_ms()
            if moment != self.moment:
                self.look(moment)
            idle = self.idle
            try:
                connection = idle.pop()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                if deadline is None:
                    raise Busy from None
                idle, connection = self.open(deadline)
            try:
                answer = perform(connection, sql, parameters)
            except ERRORS as error:
                failure = failure_of(error)
                if failure is Failure.BUSY:
                    self.give_back(idle, connection)
                    if deadline is None:
                        raise Busy from None
                    left = deadline - monotonic()
                    if left <= 0:
                        raise StoreTimeout(
                            f"{self.address} is locked by another connection for longer than this call may wait ({error}); who "
                            f"has a transaction open on it?",
                            store=self.address,
                        ) from error
                    tries += 1
                    if tries < _YIELDS:
                        _yield()
                        continue
                    time.sleep(min(left, pause * (0.5 + _random.random())))
                    pause = min(pause * 2, _PAUSE_LAST_SECONDS)
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
        moved = self._identity is None or self._identity != self._identity_now()
        self._close(connection)
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

    def _close(self, connection: sqlite3.Connection) -> None:
        mark = object()
        self._underway.append(mark)
        try:
            connection.close()
        except sqlite3.Error:
            pass  # it ends with its last reference
        finally:
            self._underway.remove(mark)

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

    # -- opening --------------------------------------------------------------------------------------------------------------

    def open(self, deadline: float) -> tuple[list[Connection], Connection]:
        """A new connection, and the pool that it belongs to."""
        mark = object()
        while True:
            self._underway.append(mark)
            if not self.forking:
                break
            self._underway.remove(mark)
            time.sleep(_PAUSE_FIRST_SECONDS)
        try:
            return self._open(deadline)
        finally:
            self._underway.remove(mark)

    @section
    def _open(self, deadline: float) -> tuple[list[Connection], Connection]:
        if self._tainted:
            raise StoreUnavailable(
                f"{self.address} was in use by another thread when this process was forked: its locks cannot be had here. "
                f"Fork before the first use, or start a new process (spawn).",
                store=self.address,
            )
        try:
            with self._opening.lock(deadline):
                connection = self._opening.connect(deadline)
                page = self._opening.page()
                identity = self._identity_now()
                if identity is None or (page is not None and page.identity != identity[4:]):
                    raise StoreUnavailable(f"{self.address} was removed while it was being opened.", store=self.address)
                if identity != self._identity:
                    self.leave()  # others of this process's connections are to a file that is not there any more
                    self.page = page
                    self._identity = identity
                    self._directory_synced = False
                self._opened = [known for known in self._opened if known() is not None]
                self._opened.append(weakref.ref(connection))
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
            with self._opening.lock(deadline):
                self.leave()
                try:
                    now = os.stat(self.path)
                except FileNotFoundError:
                    return
                if identity is not None and identity[:2] == (now.st_dev, now.st_ino):
                    self._opening.rename_damaged(error)
        except OSError as failure:
            raise StoreUnavailable(
                f"{self.address} is damaged ({error}) and cannot be moved aside: {failure}: remove it.",
                store=self.address,
            ) from failure

    # -- forks ----------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Closes every connection; those in use are waited for, a moment."""
        began = monotonic()
        while True:
            self.leave()
            self._opened = [known for known in self._opened if is_open(known())]
            if not (self._opened or self._underway) or monotonic() > began + _FORK_WAIT_SECONDS:
                return
            if monotonic() > began + _FORK_PATIENCE_SECONDS:  # a checkpoint, which goes on another time
                for known in self._opened:
                    connection = known()
                    if connection is not None:
                        try:
                            connection.interrupt()
                        except sqlite3.Error:
                            pass  # it has been closed meanwhile
            time.sleep(_PAUSE_FIRST_SECONDS)

    def after_fork_in_child(self) -> None:
        """What is still open is the parent's."""
        self.leave()  # nothing, unless the fork did not ask the hooks before it: uWSGI's
        self._tainted = bool(self._underway) or any(is_open(known()) for known in self._opened)
        self._opened = []
        self._underway = []
        self._opening.after_fork_in_child()


_yield: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))
