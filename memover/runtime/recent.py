"""A dict of limited size, for several threads."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from memover.errors import raised_beneath

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """At most `limit` values: the one that was put longest ago leaves first."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def put(self, key: K, value: V) -> None:
        """Keeps a value. Any thread may call."""
        self[key] = value
        try:
            self.move_to_end(key)
            while len(self) > self.limit:
                self.popitem(last=False)
        except KeyError as error:  # removed by another thread since
            if raised_beneath(error):
                raise
