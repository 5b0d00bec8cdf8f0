"""Changing the file at the path: marked, before and after, where processes may have kept a row (see `marks`); lasting, where it
invalidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from memover.errors import StoreUnavailable
from memover.stores.sqlite.reading import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.marks import MarkPage

__all__ = ["change", "changing", "lasting"]

T = TypeVar("T")


def change(file: File, places: Sequence[int], sql: str, parameters: Sequence[Any], deadline: float) -> int:
    """As `File.count`, of a statement that changes rows which processes may have kept; `places` are those of their marks."""
    return changing(file, places, lambda: file.count(sql, parameters, deadline), deadline)


def changing(file: File, places: Sequence[int], work: Callable[[], T], deadline: float) -> T:
    """Does what changes rows that processes may have kept. When this returns, nobody serves what they were before.

    Raises what `work` raises, and `StoreError` where there are marks that this process cannot change."""
    if not places:
        return work()
    done: list[T] = []

    def marked() -> None:
        page = _marks(file, deadline)
        if done:
            # Another file is at the path, or other marks: somebody may have kept under these what was there before.
            if page is not None:
                page.end(places)
        elif page is None:
            done.append(work())
        else:
            begun = page.begin(places)
            try:
                done.append(work())
            finally:
                page.end(places, begun)

    _in_place(file, marked)
    return done[0]


def lasting(file: File, work: Callable[[], T]) -> T:
    """Does what invalidates, and answers when it is on the disk, in the file that is at the path."""

    def synced() -> T:
        done = work()
        file.sync()
        return done

    return _in_place(file, synced)


def _in_place(file: File, work: Callable[[], T]) -> T:
    """Does what has to be done on the file at the path: again, when another has come there meanwhile."""
    for _ in range(ATTEMPTS):
        era = file.era
        done = work()
        if file.unmoved() and file.era is era:
            return done
    raise StoreUnavailable(f"{file.address} is replaced all the time: by whom?", store=file.address)


def _marks(file: File, deadline: float) -> MarkPage | None:
    """The marks that are at the path; None for a file in which nothing is kept."""
    if file.page is None:
        pool, connection = file.open(deadline)
        file.give_back(pool, connection)
        if file.page is None and file.keeps:
            file.leave()
            raise StoreUnavailable(
                f"{file.marks} cannot be mapped: see that it is a file, or that there is none, and that this process may write "
                f"it and its directory.",
                store=file.address,
            )
    return file.page
