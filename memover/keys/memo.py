"""What the functions that `compiler` writes keep by their arguments, as long as these are simple: of builtin types, and short."""

from __future__ import annotations

from itertools import count
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


def noting(memo: dict[Any, dict[Any, Any]], size: int) -> Callable[[Any, Any, tuple[Any, ...], R], R]:
    """The function that notes a record in the memo if the call may be in it, and returns it.

    The memo is emptied at every `size`-th record noted, so it never holds more. Without the GIL a tick may be lost,
    which lets it grow to the next multiple.
    """
    ticks = count(1)

    def keep(types: Any, values: Any, flat: tuple[Any, ...], record: R) -> R:
        if not _simple(flat):
            return record
        if not next(ticks) % size or len(memo) > _TYPES_LIMIT:
            memo.clear()
        known = memo.get(types)
        if known is None:
            known = memo.setdefault(types, {})
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

    Emptied at every `size`-th thing kept, as the memo is. Every step is one operation of a dict."""

    def __init__(self, size: int, same: Callable[[Any, Any, tuple[Any, ...], Any], bool] | None) -> None:
        self.known: dict[Any, Any] = {}
        self._size = size
        self._ticks = count(1)
        self._kinds = 0
        self._same = same

    def keep(self, types: tuple[Any, ...], values: Any, flat: tuple[Any, ...], item: Any) -> None:
        """Keeps an item for these arguments, if they are simple."""
        if not _simple(flat):
            return
        if not next(self._ticks) % self._size or self._kinds > _TYPES_LIMIT:
            self.clear()
        known = self.known
        for kind in types:
            inner = known.get(kind)
            if inner is None:
                inner = known.setdefault(kind, {})
                self._kinds += 1
            known = inner
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
