"""Which entry leaves when there is no room: SIEVE, for both tiers of this process (the memory store and the near cache).

SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU", NSDI 2024): a hit sets a flag on its item and moves
nothing; a hand goes from the oldest item to the newest and removes the first one without the flag, clearing flags on its
way. What was asked for once leaves before what was asked for again, so that a scan does not empty the cache.

The hand's way is a list of keys, and what it spares is the way of the next round: the dictionary is copied only when the hand sets
out, for that takes some 16 ms with a million. A key on the way that is not in the dictionary any more is passed over. After
an exception from outside between two steps some keys may be missing; then the dictionary is copied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["STEPS_LIMIT", "Sieve"]

STEPS_LIMIT = 10_000
"""How many items in a row are spared at most, some milliseconds: the owner's other callers wait meanwhile."""


class Sieve:
    """The order in which the items of a dictionary leave. Called inside its owner's latch alone.

    `spared(item)` says whether an item was asked for since it was asked about last, and clears the item's flag."""

    def __init__(self, items: dict[str, Any], spared: Callable[[Any], bool]) -> None:
        self._items = items
        self._spared = spared
        self._ahead: list[str] = []
        """The keys before the hand, the next one last."""
        self._behind: list[str] = []
        """The keys that it has spared in this round, the oldest first."""
        self._since: list[str] | None = None
        """What came in since the hand set out, the newest last. None while there is room: then nothing is noted."""

    def came(self, text: str) -> None:
        """An item came in that is not the successor of one under the same key."""
        since = self._since
        if since is None:
            return
        since.append(text)
        if len(since) + len(self._behind) > 2 * len(self._items) + 64:  # they came and were removed again
            self.clear()

    def next(self) -> str | None:
        """The key of the item that leaves; None where there are no items. The owner removes it."""
        items = self._items
        steps = min(2 * len(items) + 16, STEPS_LIMIT)
        while items:
            if not self._ahead:
                # On to what came in meanwhile, and only then back to the oldest.
                if ahead := self._since:
                    self._since = []
                else:
                    ahead = self._behind if len(self._behind) >= len(items) else list(items)
                    self._since, self._behind = [], []
                ahead.reverse()
                self._ahead = ahead
            try:
                text = self._ahead.pop()
            except IndexError as error:  # a signal handler was here in between
                if raised_beneath(error):
                    raise
                continue
            item = items.get(text)
            if item is None:
                continue
            if steps > 0 and self._spared(item):
                steps -= 1
                self._behind.append(text)
                continue
            return text
        return None

    def clear(self) -> None:
        """Begins again at the oldest item."""
        self._ahead, self._behind, self._since = [], [], None
