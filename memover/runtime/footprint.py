"""How many bytes of memory a value takes, about: `sys.getsizeof` of all its parts, of long containers by samples.

A bound in bytes that went by the length of stored bytes would be off by ten: a list of short strings takes that much more in
memory than encoded. What several parts share is counted for each of them, so that the error is on the safe side.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["memory_of"]

WIDTHS = (16, 4, 3, 2, 1, 1, 1, 1)
"""So many parts of a container are looked at, by its depth; the others are taken to be like these. Deeper ones count as they
are, without their parts."""
_PLAIN = frozenset((str, bytes, int, float, complex))


def memory_of(value: Any, depth: int = 0) -> int:
    """The estimate, in bytes. Takes a fraction of a millisecond at most, and runs no code of the value's class but its
    `__sizeof__`."""
    kind = type(value)
    if value is None or kind is bool or (kind is int and -6 < value < 257):
        return 0  # CPython has one of each
    own = sys.getsizeof(value, 64)
    if kind in _PLAIN or depth == len(WIDTHS):
        return own
    width = WIDTHS[depth]
    # The builtins' own methods: a subclass may have others.
    for row in (list, tuple):
        if issubclass(kind, row):
            count = row.__len__(value)
            return own + _sampled(row.__getitem__(value, slice(0, count, count // width + 1)), count, depth)
    for group in (set, frozenset):
        if issubclass(kind, group):
            return own + _sampled(islice(group.__iter__(value), width), group.__len__(value), depth)
    if issubclass(kind, dict):
        keys, values = islice(dict.__iter__(value), width), islice(dict.values(value), width)
        return own + _sampled(keys, dict.__len__(value), depth) + _sampled(values, dict.__len__(value), depth)
    attributes = getattr(value, "__dict__", None)
    return own if type(attributes) is not dict else own + memory_of(attributes, depth)


def _sampled(parts: Iterable[Any], count: int, depth: int) -> int:
    sizes = [memory_of(part, depth + 1) for part in parts]
    return sum(sizes) * count // len(sizes) if sizes else 0
