"""Work that another thread may do, and that must not begin once its caller has been told that it was not done."""

from __future__ import annotations

from _thread import allocate_lock, get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

from memover.errors import StoreUnavailable, raised_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job"]

T = TypeVar("T")

_LONGEST_SECONDS = 5.0


class Job(Generic[T]):
    """Calls a function once, or never if it was called off before it began."""

    __slots__ = ("_bell", "_thread", "_unbegun", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._unbegun = [True]  # `pop` is the atomic step
        self._thread = 0
        self._bell = allocate_lock()
        self._bell.acquire()

    def __call__(self) -> T:
        self._thread = get_ident()
        if not self.call_off():
            raise StoreUnavailable("nobody waits for this any more")
        try:
            return self._work()
        finally:
            self._bell.release()

    def call_off(self) -> bool:
        """Whether it had not begun, and now nobody else begins it."""
        try:
            self._unbegun.pop()
        except IndexError as error:
            if raised_beneath(error):
                raise
            return False
        return True

    def elsewhere(self) -> bool:
        """Whether it has begun in another thread than the caller's."""
        return self._thread != get_ident()

    def wait(self) -> None:
        """Waits until it has ended."""
        if self._bell.acquire(True, _LONGEST_SECONDS):
            self._bell.release()
