"""The lock that processes take to open and to begin a file, and the file systems on which a file must not be."""

from __future__ import annotations

import logging
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.errors import ConfigurationError, StoreTimeout
from memover.latch import FramePresence

if TYPE_CHECKING:
    from io import FileIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_file_system", "let_go_after_fork", "lock"]

logger = logging.getLogger("memover")

_POLL_SECONDS = 0.002

_held: dict[int, tuple[weakref.ref[FileIO], FramePresence]] = {}
"""The lock files of this process that are open, each with the function call that it is for."""


def lock(path: str, deadline: float, depth: int = 1) -> FileIO:
    """The open file `path`, locked for this open file alone; closing it unlocks. Raises `StoreTimeout`, OSError.

    All processes (and threads) that open the database take it, so that nobody removes the log of a file that another is
    just beginning, and none reads the log of one file into another. It is a file of its own because POSIX drops all of a
    process's locks on a file when any descriptor of it is closed, and it is never removed.

    It is for the function that is `depth` calls up. Once that one is over, the next call here unlocks it: an exception from
    outside at the very moment of the return leaves it with nobody but the exception's traceback.

    What a signal handler or a finalizer opens while the call that it interrupted has the lock is opened under that one."""
    file: FileIO = open(path, "ab", buffering=0)  # noqa: SIM115  # the caller closes it
    number = id(file)
    # Nothing of Python's is called when the file goes, so nothing can be interrupted, and swallowed, there.
    _held[number] = weakref.ref(file, partial(_held.pop, number)), FramePresence(depth)
    try:
        while not (_try(file) or _held_beneath(file)):
            _let_go_of_the_left()
            if monotonic() >= deadline:
                raise StoreTimeout(
                    f"{path} is held by another process, which is beginning or opening the store; who has it open?",
                    store=path,
                )
            time.sleep(_POLL_SECONDS)
    except BaseException:
        file.close()
        raise
    return file


def _held_beneath(file: FileIO) -> bool:
    """Whether the lock is that of a call further down on this very stack, which cannot let go before this one returns."""
    here = FramePresence()
    for known, presence in list(_held.values()):
        other = known()
        if other is None or other is file or other.closed or other.name != file.name:
            continue
        # To lock a file that is locked already does nothing, and it may still have been waiting for another process.
        if presence.beneath(here) and _try(other):
            return True
    return False


def _let_go_of_the_left() -> None:
    for known, presence in list(_held.values()):
        if not presence.present() and (file := known()) is not None:
            file.close()


def let_go_after_fork() -> None:
    """In a forked child: close the parent's lock files, which would stay locked for as long as the child lives."""
    for known, _ in list(_held.values()):
        file = known()
        if file is not None:
            file.close()
    _held.clear()


def _try(file: FileIO) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            windows: Any = msvcrt
            windows.locking(file.fileno(), windows.LK_NBLCK, 1)
    except OSError as error:
        import errno

        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


_REFUSED = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2", "ncpfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs",
}  # fmt: skip
"""Shared by machines: SQLite's log is shared memory, which they do not have in common."""
_DOUBTFUL = {"9p", "vboxsf", "prl_fs", "virtiofs", "fuse.osxfs", "fuse.grpcfuse", "fakeowner"}
"""Files of a host seen from its guest: safe as long as only one of the two uses the store."""


def check_file_system(path: str, mounts: str = "/proc/self/mountinfo") -> None:
    """Raises `ConfigurationError` where the file would be on a network file system, and warns where it may be shared with
    another machine. Says nothing where the system does not tell."""
    kind = _file_system(path, mounts)
    if kind in _REFUSED:
        raise ConfigurationError(
            f"{path} is on a network file system ({kind}), where SQLite's locks and shared memory do not hold and "
            f"invalidations would be lost: use a local file, or Redis for several machines."
        )
    if kind in _DOUBTFUL:
        logger.warning(
            "%s is on a file system shared with another machine (%s): safe only while the processes of one of the two use it",
            path,
            kind,
        )


def _file_system(path: str, mounts: str) -> str:
    """The type of the file system, from Linux's list of mounts (proc(5)); "" where it is not known."""
    best, kind = "", ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields, _, rest = line.partition(" - ")
                parts, types = fields.split(), rest.split()
                if len(parts) < 5 or not types:
                    continue
                point = parts[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):  # a later mount hides an earlier one
                    best, kind = point, types[0]
    except OSError:
        return ""
    return kind
