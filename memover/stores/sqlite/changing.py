"""Changing rows that processes may have kept: marked before and after, under the marks that are at the path (see `marks`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from memover.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.marks import MarkPage

__all__ = ["change", "changing"]

T = TypeVar("T")

_ATTEMPTS = 8


def change(file: File, places: Sequence[int], sql: str, parameters: Sequence[Any], deadline: float) -> int:
    """As `File.count`, of a statement that changes rows which processes may have kept; `places` are those of their marks."""
    return changing(file, places, lambda: file.count(sql, parameters, deadline), deadline)


def changing(file: File, places: Sequence[int], work: Callable[[], T], deadline: float) -> T:
    """Does what changes rows that processes may have kept. When this returns, nobody serves what they were before.

    Raises what `work` raises, and `StoreError` where there are marks that this process cannot change."""
    if not places:
        return work()
    page = _marks(file, deadline)
    if page is None:
        done = work()
    else:
        begun = page.begin(places)
        try:
            done = work()
        finally:
            page.end(places, begun)
    for _ in range(_ATTEMPTS):
        if page is file.page and file.unmoved():
            return done
        # Another file is at the path, or other marks: somebody may have kept under these what was there before.
        page = _marks(file, deadline)
        if page is not None:
            page.end(places)
    raise StoreUnavailable(f"{file.marks} is replaced all the time: by whom?", store=file.address)


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
