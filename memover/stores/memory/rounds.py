"""Looking through a dictionary a few keys at a time, round and round, so that no caller pays for all of it at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rounds"]

K = TypeVar("K")

_EVERY = 128
_AT_ONCE = 256


class Rounds(Generic[K]):
    """Which keys of a dictionary are looked at next, by an owner that removes those that have ended. Inside its latch alone.

    For each `_EVERY` keys that came or left, `_AT_ONCE` are looked at. So a round is over before the dictionary has become half
    larger, and at most about two thirds of it are keys that have ended. The keys wait in a queue of their own: a copy of those
    of the dictionary, made for each round, would take some 16 ms for a million.
    """

    __slots__ = ("_among", "_changes", "_gone", "_queue")

    def __init__(self, among: Mapping[K, object]) -> None:
        self._among = among
        self._queue: deque[K] = deque()
        """Each key of the dictionary, and before it those places of the same key that have left since."""
        self._gone: dict[K, int] = {}
        """How many places of a key have left."""
        self._changes = 0

    def came(self, key: K) -> None:
        """A key is about to come that is not in the dictionary."""
        self._queue.append(key)
        self._changes += 1

    def left(self, key: K) -> None:
        """A key has left the dictionary."""
        self._gone[key] = self._gone.get(key, 0) + 1
        self._changes += 1

    def stayed(self) -> None:
        """A key was used that had come before: those that nobody uses are looked at though no new ones come."""
        self._changes += 1

    def due(self) -> list[K]:
        """The keys to look at now, mostly none; some may have left the dictionary. Called after keys have come or left."""
        if self._changes < _EVERY:
            return []
        self._changes = 0
        if len(self._queue) < len(self._among):  # an exception from outside came between two steps
            self._queue = deque(self._among)
            self._gone = {}
        queue, gone, some = self._queue, self._gone, []
        try:
            for _ in range(min(_AT_ONCE, len(queue))):
                key = queue[0]
                left = gone.pop(key, 0)
                if left > 1:
                    gone[key] = left - 1
                if left or key not in self._among:
                    queue.popleft()
                else:
                    queue.rotate(-1)
                    some.append(key)
        except IndexError as error:  # a signal handler was here in between
            if raised_beneath(error):
                raise
        return some
