"""Looking through a dictionary a few keys at a time, round and round, so that no caller pays for all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rounds"]

K = TypeVar("K")

_FIRST = 256
"""So many keys are never looked at."""
_EVERY = 128
_AT_ONCE = 256


class Rounds(Generic[K]):
    """Which keys of a dictionary are looked at next, by an owner that removes those that have ended. Inside its latch alone.

    For each `_EVERY` keys that the dictionary has grown by, `_AT_ONCE` are looked at. So a round is over before the dictionary
    has become half larger, and at most about two thirds of it are keys that have ended.
    """

    __slots__ = ("_among", "_at", "_left")

    def __init__(self, among: Mapping[K, object]) -> None:
        self._among = among
        self._at = _FIRST
        self._left: list[K] = []

    def due(self) -> list[K]:
        """The keys to look at now, mostly none; some may have left the dictionary. Called whenever a key has come."""
        among = self._among
        size = len(among)
        if size <= self._at:
            if size < self._at - 2 * _EVERY:
                self._at = max(size + _EVERY, _FIRST)  # it has become smaller
            return []
        self._at = size + _EVERY
        if not self._left:
            left = list(among)
            left.reverse()  # the oldest comes last, and is looked at first
            self._left = left
        some: list[K] = []
        try:
            while len(some) < _AT_ONCE:
                some.append(self._left.pop())
        except IndexError as error:  # the end of the round, or a signal handler was here in between
            if raised_beneath(error):
                raise
        return some
