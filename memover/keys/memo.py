"""What the functions that `compiler` writes keep by their arguments, as long as these are simple: of builtin types, and short.

Where there is no room, any one of those that are kept goes, at random. A program that goes through a few more arguments than there is
room for, again and again, finds most of them so; with the oldest going, or all of them, it would find none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallMemo", "noting"]

R = TypeVar("R")

_TYPES_LIMIT = 32
"""How many combinations of argument types one memo holds; more are a sign of calls that do not repeat."""

_LENGTH_LIMIT = 200
"""Longer strings and bytes (characters, bytes) are not kept in the memo, nor are larger ints."""

_INT_LIMIT = 2**60


_TAKEN_IN = 0.25
"""The share of what is taken in where something has to go for it. What is asked for often comes in soon enough, and the others cost less."""
_MODULUS, _MULTIPLIER = 2**31 - 1, 48271
"""Of the generator MINSTD: a key depends on nothing that is drawn, so nothing here imports what draws."""


class _Room:
    """The places of what is kept in some dictionaries, `size` of them: a dictionary and the key in it.

    Every step is one operation of a list or a dict. Two threads that take one place at once leave one thing that has none."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: list[tuple[dict[Any, Any], Any]] = []
        self._drawn = 1

    def _chance(self) -> float:
        """A number from 0 to 1, neither of them."""
        self._drawn = drawn = self._drawn * _MULTIPLIER % _MODULUS
        return drawn / _MODULUS

    def declines(self) -> bool:
        """Whether something is not to be kept this time."""
        return len(self._places) >= self._size and self._chance() >= _TAKEN_IN

    def give(self, known: dict[Any, Any], key: Any) -> bool:
        """Gives a place to what is about to be kept; whether there are things without one, so that all are to be forgotten."""
        places = self._places
        if len(places) < self._size:
            places.append((known, key))
            return False
        at = int(self._chance() * self._size)
        other, gone = places[at]
        other.pop(gone, None)  # first: an interruption leaves a place for nothing, and nothing without a place
        places[at] = known, key
        return len(known) > self._size

    def clear(self) -> None:
        """Every place is free again."""
        self._places = []


def noting(memo: dict[Any, dict[Any, Any]], size: int) -> Callable[[Any, Any, tuple[Any, ...], R], R]:
    """The function that notes a record in the memo if the call may be in it, and returns it.

    The memo holds `size` records at most.
    """
    room = _Room(size)

    def keep(types: Any, values: Any, flat: tuple[Any, ...], record: R) -> R:
        if room.declines() or not _simple(flat):
            return record
        known = memo.get(types)
        if known is None:
            if len(memo) > _TYPES_LIMIT:
                memo.clear()
                room.clear()
            known = memo.setdefault(types, {})
        if room.give(known, values):
            memo.clear()
            room.clear()
        else:
            known[values] = record
        return record

    return keep


def _simple(values: tuple[Any, ...]) -> bool:
    """Whether these values, each of its very type, are equal exactly where they come to the same text; and not long."""
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            if len(value) > _LENGTH_LIMIT:
                return False
        elif kind is int:
            if not -_INT_LIMIT < value < _INT_LIMIT:
                return False
        elif kind is float:
            if value != value or value == 0.0:
                return False
        elif value is not None and kind is not bool:
            return False
    return True


class CallMemo:
    """What a call of `Compiler.hot` keeps by its arguments: dictionaries by the type of each, then one by the values.

    It holds `size` things at most, as the memo does. Every step is one operation of a dict."""

    def __init__(self, size: int, same: Callable[[Any, Any, tuple[Any, ...], Any], bool] | None) -> None:
        self.known: dict[Any, Any] = {}
        self._room = _Room(size)
        self._kinds = 0
        self._same = same

    def keep(self, types: tuple[Any, ...], values: Any, flat: tuple[Any, ...], item: Any) -> None:
        """Keeps an item for these arguments, if they are simple. It takes the place of the one there is."""
        known: Any = self.known
        for kind in types:
            known = known.get(kind)
            if known is None:
                break
        if known is not None and values in known:
            known[values] = item
            return
        if self._room.declines() or not _simple(flat):
            return
        if self._kinds > _TYPES_LIMIT:
            self.clear()
        known = self.known
        for kind in types:
            inner = known.get(kind)
            if inner is None:
                inner = known.setdefault(kind, {})
                self._kinds += 1
            known = inner
        if self._room.give(known, values):
            self.clear()
        else:
            known[values] = item

    def keep_keyed(
        self, own: Any, types: tuple[Any, ...], values: tuple[Any, ...], flat: tuple[Any, ...], item: Any, key: Any
    ) -> None:
        """The same where the first argument counts by its `__memover_key__()`: what it says now must lead to `key`."""
        kind = type(own)
        if not _simple(flat) or not callable(getattr(kind, "__memover_key__", None)):
            return
        part = own.__memover_key__()
        if _simple((part,)) and self._same is not None and self._same(kind, part, flat, key):
            found = (part, *values) if values else part
            self.keep((kind, type(part), *types), found, (part, *flat), item)

    def clear(self) -> None:
        """Forgets all that was kept."""
        self._kinds = 0
        self.known.clear()
        self._room.clear()
