"""The file of a store: its connections, and what may happen to it while processes use it.

**Connections** are in a pool, last in first out, and whoever uses one takes it out of the list, so that none is used
twice at a time, neither by two threads nor by a signal handler in the middle of a call. One that does not come back (an
exception from outside, P17) is closed when nobody refers to it any more.

**Opening** happens under a lock of its own file, `<path>-lock`: whether the file is a store, beginning one, moving a
damaged one aside, and the first read, which opens the log beside the file by its name.

**Whether the file is still the one** that is open here is asked once a millisecond by reads, and after each
invalidation: the path's inode and its log's are compared with those of the connections. A file that was deleted or
replaced is left, and the one at the path is opened, or begun.

**Forks.** POSIX locks do not survive one, and SQLite in the child would believe to hold them; so all connections are
closed before a fork, in the parent too, which opens new ones.

The file's first bytes are read as a plain file's, to know whether it is a store before SQLite may change anything. The
descriptor stays open, because closing it would drop the locks of every connection of this process.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import secrets
import sqlite3
import stat
import time
import weakref
from collections.abc import Callable
from itertools import starmap
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.errors import ConfigurationError, StoreTimeout, StoreUnavailable
from memover.stores.sqlite.failures import ERRORS, Failure, failure_of
from memover.stores.sqlite.guards import check_file_system, let_go_after_fork, lock
from memover.stores.sqlite.statements import APPLICATION_ID, SCHEMA, TABLES, USER_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RECENT_MS", "Busy", "Connection", "File", "file_at", "time_ms", "time_us"]

logger = logging.getLogger("memover")

_random = random.Random()
"""For pauses. Its own, because background threads draw from it and the program's may be seeded."""

Row = tuple[Any, ...]

_IDLE_CONNECTIONS = 32
"""When there are more, all are closed."""
_CACHED_STATEMENTS = 256
_LOG_BYTES = 16 << 20
"""The log is cut down to this when it has been copied into the file and begins anew."""
_CACHE_KIB = 4096
"""Pages that each connection keeps in memory."""
_YIELDS = 12
"""How often somebody else is let run before a wait for the lock begins: a writer has it for some tens of microseconds."""
_PAUSE_FIRST_SECONDS, _PAUSE_LAST_SECONDS = 0.0002, 0.004
_FORK_PATIENCE_SECONDS, _FORK_WAIT_SECONDS = 0.05, 1.0
_OLDEST_SQLITE = (3, 35, 0)
_HEADER_BYTES = 100
_FAILURES_IN_A_ROW = 20
_MAGIC = b"SQLite format 3\0"


RECENT_MS = 5000
"""How often it is written down which entries were read."""
_RECENT_ROWS = 100_000


class Busy(Exception):
    """What was asked cannot be answered without waiting; raised only to those who said that they will not wait."""


class Connection(sqlite3.Connection):
    """As sqlite3's; weakly referable, and closed without a warning when an exception from outside has lost it."""

    def __del__(self) -> None:
        try:
            self.close()
        except sqlite3.Error:
            pass  # it was never opened


Identity = tuple[int, int, int, int]
"""Device and inode of the file, and of its log."""


class File:
    """One per path and process, whoever uses it; any thread may call. All methods raise `StoreError`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = path + "-wal"
        self.address = f"sqlite:///{path}"
        self.idle: list[Connection] = []
        """The pool; another list takes its place when all its connections are to be left."""
        self.kept: list[tuple[list[Connection], Connection, int]] = []
        """Connections that are in no pool, each with the one it would be in and a number of its own."""
        self.moment = 0
        """The millisecond in which the file was last looked at."""
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
        self._header: tuple[int, int, int] | None = None
        self._tainted = False
        self._failing = 0
        self._checked = False
        self._directory_synced = False

    # -- whether it is still there ------------------------------------------------------------------------------------------

    def look(self, moment: int) -> None:
        """Leave the file if another is in its place. For reads, once a millisecond."""
        self.moment = moment
        if moment >= self.recent_due and self.recent and self.behind is not None:
            self.recent_due = moment + RECENT_MS
            self.behind()
            if len(self.recent) > _RECENT_ROWS:
                self.recent = {}
        if self._identity is not None and self._identity != self._identity_now():
            self.leave()

    def leave(self) -> None:
        """Close what is open: the next call opens what is at the path."""
        self._identity = None
        left, self.idle = self.idle, []
        self.drain(left)
        while self.kept:
            try:
                self._close(self.kept.pop()[1])
            except IndexError:
                break

    def drain(self, pool: list[Connection]) -> None:
        """Close what is in a pool that has been left."""
        while pool:
            try:
                connection = pool.pop()
            except IndexError:
                break
            self._close(connection)

    def give_back(self, pool: list[Connection], connection: Connection) -> None:
        """Put a connection back where it was taken from."""
        pool.append(connection)
        if pool is not self.idle or len(pool) > _IDLE_CONNECTIONS:
            self.drain(pool)

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
        return file.st_dev, file.st_ino, log.st_dev, log.st_ino

    # -- statements -----------------------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: Sequence[Any], deadline: float | None) -> list[Row]:
        """Perform one statement and return all its rows. Without a deadline it never waits and raises `Busy` instead."""
        rows: list[Row] = self._perform(_rows, sql, parameters, deadline)
        return rows

    def count(self, sql: str, parameters: Sequence[Any], deadline: float | None) -> int:
        """Perform one statement and return how many rows it changed."""
        count: int = self._perform(_count, sql, parameters, deadline)
        return count

    def script(self, sql: str, deadline: float | None) -> None:
        """Perform one statement to its end, of which sqlite3 would otherwise take one step: PRAGMA incremental_vacuum."""
        self._perform(_script, sql, (), deadline)

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
            except IndexError:
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
                            f"{self.address} is locked by another process for longer than this call may wait ({error}); who "
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
        if failure is Failure.READ_ONLY and times == 1 and _may_write(self.path):
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
        """Have what was committed on the disk: it survives a power loss then, as far as the disk keeps its word.

        The log is opened anew as a plain file: it carries no POSIX locks that closing it could drop."""
        try:
            with open(self.log, "r+b", buffering=0) as log:
                getattr(os, "fdatasync", os.fsync)(log.fileno())
            if not self._directory_synced:
                _sync_directory(self.path)
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
            if not _forking:
                break
            self._underway.remove(mark)
            time.sleep(_PAUSE_FIRST_SECONDS)
        try:
            return self._open(deadline)
        finally:
            self._underway.remove(mark)

    def _open(self, deadline: float) -> tuple[list[Connection], Connection]:
        if self._tainted:
            raise StoreUnavailable(
                f"{self.address} was in use by another thread when this process was forked: its locks cannot be had here. "
                f"Fork before the first use, or start a new process (spawn).",
                store=self.address,
            )
        if not self._checked:
            if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
                raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old: memover needs 3.35 or newer.")
            check_file_system(self.path)
            self._checked = True
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with lock(self.path + "-lock", deadline):
                return self._open_locked(deadline)
        except OSError as error:
            raise StoreUnavailable(
                f"{self.address} cannot be opened: {error}: see that this process may write to its directory.",
                store=self.address,
            ) from error

    def _open_locked(self, deadline: float) -> tuple[list[Connection], Connection]:
        pause = _PAUSE_FIRST_SECONDS
        damaged = 0
        while True:
            self._inspect()
            connection = None
            self._mend_modes()
            try:
                connection = self._connect()
                self._check_tables(connection)
            except ERRORS as error:
                if connection is not None:
                    self._close(connection)
                failure = failure_of(error)
                if failure is Failure.BUSY and monotonic() < deadline:
                    time.sleep(pause)
                    pause = min(pause * 2, _PAUSE_LAST_SECONDS)
                    continue
                if failure is Failure.DAMAGED and not damaged:
                    damaged += 1
                    self._rename_damaged(error)
                    continue
                kind = StoreTimeout if failure is Failure.BUSY else StoreUnavailable
                raise kind(
                    f"{self.address} cannot be opened: {error}: see that this process may read and write the file and its "
                    f"directory, and who has it locked.",
                    store=self.address,
                ) from error
            identity = self._identity_now()
            if identity is None:
                raise StoreUnavailable(f"{self.address} was removed while it was being opened.", store=self.address)
            if identity != self._identity:
                self.leave()  # others of this process's connections are to a file that is not there any more
                self._identity = identity
            self._opened = [known for known in self._opened if known() is not None]
            self._opened.append(weakref.ref(connection))
            return self.idle, connection

    def _connect(self) -> Connection:
        # mode=rw: a file that has gone is not begun by SQLite, but by `_begin`.
        path = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection: Connection = sqlite3.connect(
            f"file:{path}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
            factory=Connection,
        )
        for pragma in (
            "synchronous=NORMAL",  # the log is synced at checkpoints, and by `sync` where something was promised
            "secure_delete=OFF",
            "recursive_triggers=ON",  # so that UPDATE OR REPLACE fires them for what it replaces
            "wal_autocheckpoint=0",  # it would be done by whoever comes across the mark: `tidy` does it
            f"cache_size=-{_CACHE_KIB}",
            f"journal_size_limit={_LOG_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def _mend_modes(self) -> None:
        # A log that was begun while the file could not be written has the file's mode of then.
        if _may_write(self.path):
            for name in (self.log, self.path + "-shm"):
                if os.path.exists(name) and not _may_write(name):
                    with contextlib.suppress(OSError):
                        os.chmod(name, stat.S_IMODE(os.stat(self.path).st_mode))

    def _check_tables(self, connection: Connection) -> None:
        ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
        if mode != "wal":
            ((mode,),) = connection.execute("PRAGMA journal_mode=WAL").fetchall()
            if mode != "wal":
                raise sqlite3.OperationalError("unable to open its log (WAL): shared memory is not supported there")
        tables = {
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            ).fetchall()
        }
        if not tables >= TABLES:
            raise sqlite3.DatabaseError("malformed: tables are missing")
        connection.execute("SELECT 1 FROM tokens LIMIT 1").fetchall()
        connection.execute("SELECT 1 FROM entries LIMIT 1").fetchall()

    # -- beginning, moving aside; under the lock ----------------------------------------------------------------------------------

    def _inspect(self) -> None:
        """See that a store is at the path, or begin one. Raises `ConfigurationError` for a file that is not one of ours."""
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            self._begin(None)
            return
        if not stat.S_ISREG(state.st_mode):
            raise ConfigurationError(f"{self.path} is not a file: give the path of a file, or of none yet.")
        if state.st_size == 0:
            self._begin(state.st_mode)
            return
        if self._header is not None and self._header[:2] == (state.st_dev, state.st_ino):
            head = _head(self._header[2])
        else:
            if self._header is not None and os.fstat(self._header[2]).st_nlink == 0:
                os.close(self._header[2])  # gone for everybody: there are no locks to lose
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self._header = (state.st_dev, state.st_ino, descriptor)
            head = _head(descriptor)
        if not head.startswith(_MAGIC):
            raise ConfigurationError(
                f"{self.path} is no memover store (it does not begin as an SQLite file does), and was not touched: give another "
                f"path, or remove the file."
            )
        if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
            raise ConfigurationError(
                f"{self.path} is an SQLite database of another application, and was not touched: give another path."
            )
        version = int.from_bytes(head[60:64], "big")
        if version > USER_VERSION:
            raise ConfigurationError(
                f"{self.path} is a memover store of format {version}, newer than this memover's ({USER_VERSION}), and was not "
                f"touched: give another path, or upgrade memover."
            )

    def _begin(self, mode: int | None) -> None:
        # Made under another name and put in place whole: whoever is killed in the middle leaves no half of a store.
        directory, name = os.path.split(self.path)
        for found in os.listdir(directory):
            if found.startswith(f"{name}.new-"):
                _remove(os.path.join(directory, found))
        # A log without its file would be read into the new one.
        for ending in ("-wal", "-shm", "-journal"):
            _remove(self.path + ending)
        made = f"{self.path}.new-{secrets.token_hex(4)}"
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("BEGIN")
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={USER_VERSION}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except ERRORS as error:
            raise StoreUnavailable(
                f"{self.address} cannot be begun: {error}: see that there is room and that this process may write there.",
                store=self.address,
            ) from error
        finally:
            connection.close()
        if mode is not None:
            os.chmod(made, stat.S_IMODE(mode))
        os.replace(made, self.path)
        _sync_directory(self.path)
        self._directory_synced = False

    def _move_aside(self, error: Exception, deadline: float) -> None:
        """A statement found the file damaged: unless another process has moved it aside already, do so."""
        identity = self._identity
        try:
            with lock(self.path + "-lock", deadline):
                self.leave()
                try:
                    now = os.stat(self.path)
                except FileNotFoundError:
                    return
                if identity is not None and identity[:2] == (now.st_dev, now.st_ino):
                    self._rename_damaged(error)
        except OSError as failure:
            raise StoreUnavailable(
                f"{self.address} is damaged ({error}) and cannot be moved aside: {failure}: remove it.",
                store=self.address,
            ) from failure

    def _rename_damaged(self, error: Exception) -> None:
        aside = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        while os.path.exists(aside):
            aside += "x"
        os.rename(self.path, aside)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + ending, aside + ending)
        logger.error(
            "%s is damaged (%s): it was moved to %s, and a new store is begun; everything is loaded anew",
            self.path,
            error,
            aside,
        )

    # -- forks ----------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close every connection; those in use are waited for, a moment."""
        began = monotonic()
        while True:
            self.leave()
            self._opened = [known for known in self._opened if _is_open(known())]
            if not (self._opened or self._underway) or monotonic() > began + _FORK_WAIT_SECONDS:
                return
            if monotonic() > began + _FORK_PATIENCE_SECONDS:  # a checkpoint, which goes on another time
                for known in self._opened:
                    connection = known()
                    if connection is not None:
                        with contextlib.suppress(sqlite3.Error):
                            connection.interrupt()
            time.sleep(_PAUSE_FIRST_SECONDS)

    def after_fork_in_child(self) -> None:
        """What is still open is the parent's."""
        self.leave()  # nothing, unless the fork did not ask the hooks before it: uWSGI's
        self._tainted = bool(self._underway) or any(_is_open(known()) for known in self._opened)
        self._opened = []
        self._underway = []
        self._header = None  # the descriptor stays open, too


def _rows(connection: Connection, sql: str, parameters: Sequence[Any]) -> list[Row]:
    # From the first step of a statement that answers rows to its last one a transaction is open. Both are done by functions
    # written in C, with no bytecode between them, so neither an exception from outside nor a signal handler, which may want
    # to write itself, can come there.
    return next(map(_FETCHALL, starmap(connection.execute, ((sql, parameters),))))


_FETCHALL: Callable[[Any], list[Row]] = methodcaller("fetchall")


def _count(connection: Connection, sql: str, parameters: Sequence[Any]) -> int:
    return connection.execute(sql, parameters).rowcount


def _script(connection: Connection, sql: str, parameters: Sequence[Any]) -> None:
    connection.executescript(sql)


def _is_open(connection: Connection | None) -> bool:
    if connection is None:
        return False
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return False
    return True


_yield: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))


def _head(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _HEADER_BYTES)


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _sync_directory(path: str) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def time_ms(_clock: Callable[[], int] = time.time_ns) -> int:
    """Milliseconds since the epoch of the machine's clock, frozen by nothing."""
    return _clock() // 1_000_000


def time_us(_clock: Callable[[], int] = time.time_ns) -> int:
    """Microseconds since the epoch of the machine's clock, frozen by nothing."""
    return _clock() // 1000


# -- one per path -------------------------------------------------------------------------------------------------------------

_files: weakref.WeakValueDictionary[str, File] = weakref.WeakValueDictionary()
_forking = False


def file_at(path: str) -> File:
    """The file at this path, the same object for everybody in this process."""
    made = File(path)
    return _files.setdefault(path, made)


def _before_fork() -> None:
    global _forking  # noqa: PLW0603
    _forking = True
    for file in list(_files.values()):
        file.before_fork()


def _after_fork_in_parent() -> None:
    global _forking  # noqa: PLW0603
    _forking = False


def _after_fork_in_child() -> None:
    global _forking  # noqa: PLW0603
    _forking = False
    let_go_after_fork()
    for file in list(_files.values()):
        file.after_fork_in_child()


def _at_exit() -> None:
    # The last one to close a file copies the log into it and removes the log.
    for file in list(_files.values()):
        file.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
