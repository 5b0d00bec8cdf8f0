"""The files that this process has open, one for each path, and what becomes of them at a fork and at exit.

Before a fork all connections are closed (see `handles`), in the parent too, which opens new ones.
"""

from __future__ import annotations

import atexit
import os
import weakref

from memover.stores.sqlite.file import File
from memover.stores.sqlite.guards import let_go_after_fork
from memover.stores.sqlite.handles import Handles

__all__ = ["file_at"]

_files: weakref.WeakValueDictionary[str, File] = weakref.WeakValueDictionary()


def file_at(path: str) -> File:
    """The file at this path, the same object for everybody in this process."""
    made = File(path)
    return _files.setdefault(path, made)


def _before_fork() -> None:
    Handles.forking = True
    for file in list(_files.values()):
        file.before_fork()


def _after_fork_in_parent() -> None:
    Handles.forking = False


def _after_fork_in_child() -> None:
    Handles.forking = False
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
