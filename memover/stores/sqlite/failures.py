"""What an error of sqlite3 means for a store."""

from __future__ import annotations

import sqlite3
from enum import Enum

__all__ = ["ERRORS", "Failure", "failure_of"]


class Failure(Enum):
    """What to do about it."""

    BUSY = "somebody else holds the lock: try again within the budget"
    LOST = "the connection was closed meanwhile: take another"
    DAMAGED = "the file is not an intact database: move it aside and begin a new one"
    READ_ONLY = "the file cannot be written"
    FULL = "nothing can be written for want of room, or because the disk fails; what is open can still be read"
    UNAVAILABLE = "the file cannot be read or opened"
    OURS = "a mistake in memover: it goes on to the caller"


_CODES = {
    5: Failure.BUSY,  # SQLITE_BUSY
    6: Failure.BUSY,  # SQLITE_LOCKED
    8: Failure.READ_ONLY,
    9: Failure.BUSY,  # SQLITE_INTERRUPT: by a fork, see `file`
    10: Failure.UNAVAILABLE,  # SQLITE_IOERR
    11: Failure.DAMAGED,  # SQLITE_CORRUPT
    13: Failure.FULL,
    14: Failure.UNAVAILABLE,  # SQLITE_CANTOPEN
    15: Failure.BUSY,  # SQLITE_PROTOCOL: lost a race for the locks of the log, again and again
    17: Failure.BUSY,  # SQLITE_SCHEMA
    18: Failure.DAMAGED,  # SQLITE_TOOBIG: nothing of ours is
    26: Failure.DAMAGED,  # SQLITE_NOTADB
}
_NOT_WRITTEN = {778, 1034, 1546}  # SQLITE_IOERR_WRITE, _FSYNC, _TRUNCATE: over quota, a failing disk
_TEXTS = (  # Python 3.10 does not say the code
    ("is locked", Failure.BUSY),
    ("locking protocol", Failure.BUSY),
    ("schema has changed", Failure.BUSY),
    ("interrupted", Failure.BUSY),
    ("readonly", Failure.READ_ONLY),
    ("disk I/O error", Failure.FULL),  # most likely
    ("Could not decode", Failure.DAMAGED),
    ("too big", Failure.DAMAGED),
    ("malformed", Failure.DAMAGED),
    ("not a database", Failure.DAMAGED),
    ("is full", Failure.FULL),
    ("unable to open", Failure.UNAVAILABLE),
)


ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises; the latter for texts and messages out of a damaged file."""


def failure_of(error: Exception) -> Failure:
    """What this error means."""
    if isinstance(error, UnicodeDecodeError):
        return Failure.DAMAGED
    text = str(error)
    if isinstance(error, sqlite3.ProgrammingError):
        return Failure.LOST if "closed database" in text else Failure.OURS
    code = getattr(error, "sqlite_errorcode", None)
    if code in _NOT_WRITTEN:
        return Failure.FULL
    if code is not None and (known := _CODES.get(code & 0xFF)) is not None:
        return known
    for part, failure in _TEXTS:
        if part in text:
            return failure
    if type(error) is sqlite3.DatabaseError:
        return Failure.DAMAGED  # of this very class are SQLITE_CORRUPT and SQLITE_NOTADB; its text may be unreadable
    if "no such table" in text or "no such column" in text:
        return Failure.DAMAGED  # its header says that it is ours, and its tables are not
    return Failure.OURS
