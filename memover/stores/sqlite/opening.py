"""Opening the file at a path, and what may be found there: nothing, a store, a damaged one, somebody else's file.

All of it happens under a lock of its own file, `<path>-lock`: whether the file is a store, beginning one, moving a damaged
one aside, and the first read, which opens the log beside the file by its name.

The file's first bytes are read as a plain file's, to know whether it is a store before SQLite may change anything. The
descriptor stays open, because closing it would drop the locks of every connection of this process. A forked child has it too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import stat
import time
import weakref
from typing import TYPE_CHECKING

from memover.errors import ConfigurationError, StoreTimeout, StoreUnavailable, raised_by_handler
from memover.stores.sqlite.connections import connect
from memover.stores.sqlite.failures import ERRORS, Failure, failure_of
from memover.stores.sqlite.guards import check_file_system, lock
from memover.stores.sqlite.marks import open_page
from memover.stores.sqlite.pauses import Pauses
from memover.stores.sqlite.schema import APPLICATION_ID, SCHEMA, TABLES, USER_VERSION

if TYPE_CHECKING:
    from io import FileIO

    from memover.stores.sqlite.connections import Connection
    from memover.stores.sqlite.marks import MarkPage

__all__ = ["FileOpener", "may_write", "sync_directory"]

logger = logging.getLogger("memover")

_OLDEST_SQLITE = (3, 35, 0)
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"

_headers: dict[tuple[int, int], tuple[int, weakref.ref[FileOpener]]] = {}
"""The descriptor by which a file's first bytes can be read, and who asked for it last, by the file's device and inode: one for each file
that this process has had open, whatever has become of who had it."""


class FileOpener:
    """One per `File`. Its methods are called under its lock."""

    def __init__(self, path: str, address: str) -> None:
        self.path = path
        self.address = address
        self._checked = False
        self.keeps = False
        """Whether all who write the file mark what they change, so that rows may be kept."""

    def lock(self, deadline: float) -> FileIO:
        """The lock, held until what is returned is closed. Makes the directory if it is missing.

        To be used in `with`: a file's own `__exit__` is written in C, and no exception from outside comes between an
        interrupted block and the end of the lock. Raises `StoreTimeout`, `ConfigurationError`, OSError."""
        if not self._checked:
            if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
                raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old: memover needs 3.35 or newer.")
            check_file_system(self.path)
            self._checked = True
        beside = self.path + "-lock"
        if not os.path.exists(beside):
            self._is_there()  # before anything is made beside a file that is not ours
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        return lock(beside, deadline, 2)

    def connect(self, deadline: float) -> Connection:
        """A connection to a store that has been looked at; it is begun if there is none."""
        pauses = Pauses(deadline)
        damaged = False
        while True:
            head = self._first_bytes()
            if head is not None and _is_cut_off(head):
                self.rename_damaged(sqlite3.DatabaseError("its first bytes are missing"))
            if not self._is_there():
                self._begin()
            self.keeps = self._is_current() or self._upgraded()
            self._mend_modes()
            connection = None
            try:
                connection = connect(self.path)
                self._check_tables(connection)
            except ERRORS as error:
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
                failure = failure_of(error)
                if failure is Failure.BUSY and pauses.another():
                    continue
                if failure is Failure.DAMAGED and not damaged:
                    damaged = True
                    self.rename_damaged(error)
                    continue
                kind = StoreTimeout if failure is Failure.BUSY else StoreUnavailable
                raise kind(
                    f"{self.address} cannot be opened: {error}: see that this process may read and write the file and its "
                    f"directory, and who has it locked.",
                    store=self.address,
                ) from error
            return connection

    def page(self) -> MarkPage | None:
        """The marks beside the file that was opened last."""
        return open_page(self.path) if self.keeps else None

    def _mend_modes(self) -> None:
        # A log that was begun while the file could not be written has the file's mode of then.
        if may_write(self.path):
            for name in (self.path + "-wal", self.path + "-shm"):
                if os.path.exists(name) and not may_write(name):
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

    def _is_current(self) -> bool:
        head = self._first_bytes()
        return head is not None and _version(head) == USER_VERSION

    def _upgraded(self) -> bool:
        """Makes a file of format 1 one of the current format, if no process has it open: one that runs an older memover would
        go on to change rows without marking them. Otherwise it stays as it is, and nothing is kept."""
        connection = None
        try:
            connection = connect(self.path)
            # The log can be left by the only user of a file, and by nobody else.
            if connection.execute("PRAGMA journal_mode=DELETE").fetchall() == [("delete",)]:
                connection.execute(f"PRAGMA user_version={USER_VERSION}")
        except ERRORS:
            return False
        finally:
            if connection is not None:
                connection.close()
        return self._is_current()

    def _is_there(self) -> bool:
        """Whether a store is at the path; False where one is to be begun. Raises `ConfigurationError` for a file that is none."""
        head = self._first_bytes()
        if head is None:
            return False
        if not head.startswith(_MAGIC):
            raise ConfigurationError(
                f"{self.path} is not a memover store (it does not begin as an SQLite file does), and was not touched: give another "
                f"path, or remove the file."
            )
        if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
            raise ConfigurationError(
                f"{self.path} is an SQLite database of another application, and was not touched: give another path."
            )
        version = _version(head)
        if version > USER_VERSION:
            raise ConfigurationError(
                f"{self.path} is a memover store of format {version}, newer than this memover's ({USER_VERSION}), and was not "
                f"touched: give another path, or upgrade memover."
            )
        return True

    def _first_bytes(self) -> bytes | None:
        """The header of what is at the path, None where there is nothing or an empty file. Raises `ConfigurationError` for
        what is no file."""
        try:
            state = os.stat(self.path)
            if not stat.S_ISREG(state.st_mode):
                raise ConfigurationError(f"{self.path} is not a file: give the path of a file, or of none yet.")
            if state.st_size == 0:
                return None
            file = state.st_dev, state.st_ino
            known = _headers.get(file)
            if known is None:
                self._close_unlinked()
                descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            else:
                descriptor, _ = known
            _headers[file] = descriptor, weakref.ref(self)
        except FileNotFoundError:
            return None
        return _head(descriptor)

    def _close_unlinked(self) -> None:
        """Closes the descriptors of files that are gone for everybody, so that there are no locks to lose, and for whoever else in this
        process may be about to read them."""
        for file, (descriptor, user) in _headers.copy().items():
            try:
                gone = os.fstat(descriptor).st_nlink == 0
            except OSError as error:  # another thread has closed it
                if raised_by_handler(error):
                    raise
                continue
            if gone and user() in (None, self) and _headers.pop(file, None) is not None:
                os.close(descriptor)

    def _begin(self) -> None:
        mode = stat.S_IMODE(os.stat(self.path).st_mode) if os.path.exists(self.path) else None  # that of an empty file
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
            os.chmod(made, mode)
        os.replace(made, self.path)
        sync_directory(self.path)

    def rename_damaged(self, error: Exception) -> None:
        """Puts the file and its log aside, under names that nobody has."""
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


def _head(descriptor: int) -> bytes:
    if hasattr(os, "pread"):  # any thread may look
        return os.pread(descriptor, _HEADER_BYTES, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _HEADER_BYTES)


def _version(head: bytes) -> int:
    return int.from_bytes(head[60:64], "big")


def _is_cut_off(head: bytes) -> bool:
    """Whether a header ends, or goes on in zeros, before it says whose the file is.

    Asked where the lock file is beside it, so it was a store: `lock` refuses what was there before its lock file. A whole
    database names its text encoding, at 56 to 59."""
    said = head.rstrip(b"\0")
    return _MAGIC.startswith(said[: len(_MAGIC)]) and (len(said) < 60 or len(head) < _HEADER_BYTES)


def may_write(path: str) -> bool:
    """Whether this process may write that file."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def sync_directory(path: str) -> None:
    """Has the directory of a file on the disk, with the file's name in it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
