"""An entry in the near tier, and the tokens that it stands under; see `near`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from memover.engine.judge import VERSION
from memover.model import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memover.codec.envelope import Header

__all__ = ["DEAD_CELL", "ITEM_BYTES", "Cell", "NearItem", "spared"]

ITEM_BYTES = 900
"""What an item takes besides its value, about: objects, names and its places in dictionaries."""


class Cell:
    """A name with the newest token known. `uses` counts the items under it; changed under the latch alone."""

    __slots__ = ("alive", "name", "token", "uses")

    def __init__(self, name: bytes, token: bytes) -> None:
        self.name = name
        self.token = token
        self.alive = True
        self.uses = 0


class NearItem:
    """An entry in the tier.

    `value` is the object itself where any caller may have it at any time, else MISSING: `make()` then makes what a caller gets,
    while `moved(places)` is False. `first` and `second` are the cells of the generation and of the call, `more` all others.
    In `round` it was last found to stand, and until `until`, by `clocks.boottime`, it is fresh by the wall clock of that moment.
    `versions` are the marks that are not in the store. `decodes` counts hits that decoded; `visited` is the flag of `sieve`.
    `raw` are the entry's bytes where somebody compares them with the source, else b""."""

    __slots__ = (
        "cost", "decodes", "first", "fresh_until", "header", "make", "more", "places", "raw", "round", "second",
        "text", "until", "value", "versions", "visited",
    )  # fmt: skip

    def __init__(
        self, text: str, header: Header, value: Any, make: Callable[[], Any] | None, places: tuple[Any, ...], cost: int
    ) -> None:
        self.text = text
        self.header = header
        self.fresh_until = header.fresh_until
        self.value = value
        self.make = make
        self.places = places
        self.cost = ITEM_BYTES + cost
        self.versions = tuple(mark for mark in header.marks if mark[0].startswith(VERSION)) if header.marks else ()
        self.first = self.second = DEAD_CELL
        self.more: tuple[Cell, ...] = ()
        self.round: object = None
        self.until = -math.inf
        self.visited = False
        self.decodes = 0
        self.raw = b""

    def stands(self) -> bool:
        """Whether every token of it is the newest known."""
        if not (self.first.alive and self.second.alive):
            return False
        return not self.more or all(cell.alive for cell in self.more)

    def of_versions(self, versions: Mapping[bytes, bytes]) -> bool:
        """Whether it was made with the versions of other functions that this process has."""
        return all(versions.get(name, token) == token for name, token in self.versions)

    def cells(self) -> tuple[Cell, ...]:
        return (self.first, self.second, *self.more)

    def end(self) -> None:
        """It has left the tier. First what every hit asks for, then what it keeps."""
        self.round = None
        self.first = DEAD_CELL
        self.value = MISSING
        self.make = None


def spared(item: NearItem) -> bool:
    """Whether it was asked for since the hand of `sieve` was here; clears the flag. What is dead is not worth a round."""
    visited, item.visited = item.visited, False
    return visited and item.stands()


DEAD_CELL = Cell(b"", b"")
DEAD_CELL.alive = False
