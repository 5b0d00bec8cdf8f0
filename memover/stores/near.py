"""The near tier: entries of a shared store in this process, each under the tokens that it was judged by.

What is here decides nothing about time but the fence. Tokens decide what may be served:

* A `Cell` is a name with the newest token that this process has seen under it. It lives until the tier hears that the
  token moved, or may have; a dead cell never lives again. A `NearItem` is served while all its cells live, which is what
  `engine.judge` asks of an entry's marks, and while its instants say so. What was found to stand is not asked again in
  the same `round`: one ends when a token has moved, and with every beat.
* The `fence` is the send time of the last question to the store that confirmed every cell. A hit is served only if
  `boottime() - fence <= max_staleness`: an invalidation that had returned when the question was sent is in its answer.
* An item enters with the `Ticket` that was taken before its entry was read. `moves` is replaced whenever any token moved
  or was in doubt, so a ticket from before that is refused: a slow answer cannot bring back what has been dropped.

**One call is one token.** Every item also stands under the call's own token (`keys.names.stripe_key`), which
`invalidate(*args)` moves if it exists. The heartbeat makes it exist, and it is known here before the entry is read; so
tokens alone decide, and there is no log of single invalidations that could have a gap. It is shared by a thousandth of the
namespace's calls, which then go to the store once more.

`moved`, `end_reading` and hits take no lock. Filling holds the latch. Which item leaves when there is no room, `sieve` says. An
item that has left is dead, as one whose token moved: the calls that `runtime.hot` makes refer to items too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from memover.engine.judge import VERSION
from memover.engine.tokens import parse
from memover.keys.names import of_calls
from memover.latch import Latch
from memover.living import Living
from memover.stores.near_items import DEAD_CELL, ITEM_BYTES, Cell, NearItem, spared
from memover.stores.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tier", "Ticket", "moved"]

_WANTED_LIMIT = 4096


class Ticket(NamedTuple):
    """The right to bring in one entry that is read from now on."""

    moves: object
    cell: Cell


class Tier:
    """Items and cells of one cache in this process. Any thread may call anything."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.items: dict[str, NearItem] = {}
        self.cells: dict[bytes, Cell] = {}
        self.wanted: dict[bytes, None] = {}
        """Call tokens that the heartbeat is to make sure of."""
        self.fence = -math.inf
        self.ready = False
        """Whether every invalidation from now on will be noticed by the heartbeat."""
        self.moves = object()
        self.round = object()
        """Replaced after a token has moved: see `NearItem`."""
        self.asked = self.served = False
        """Whether a call has looked here in vain, and whether one was answered, since the heartbeat last looked."""
        self.bytes = 0
        self.evicted = 0
        self._latch = Latch()
        self._sieve = Sieve(self.items, spared)
        _tiers.add(self)

    # -- what moved ---------------------------------------------------------------------------------------------------------

    def moved(self, names: Sequence[bytes]) -> None:
        """These tokens have moved, or are about to: nothing under them is served, and no read under way comes in."""
        self.moves = object()
        for name in names:
            cell = self.cells.pop(name, None)
            if cell is not None:
                cell.alive = False
        self.round = object()  # last: until now an item may have been found to stand

    def end_round(self) -> bool:
        """Whether anybody has looked here in this round. The next hit of each item asks everything anew: so it is noticed, and
        so is a wall clock that has been set."""
        looked = self.asked or self.served
        self.asked = self.served = False
        self.round = object()
        return looked

    def fall(self) -> None:
        """The fence falls: nothing is served or taken in until the store has confirmed every token."""
        self.fence = -math.inf
        self.ready = False
        self.moves = object()

    def begin_reading(self) -> list[Cell]:
        """The cells to be read anew. Until `end_reading` nothing comes in: what came in meanwhile would not be among them."""
        self.ready = False
        self.moves = object()
        return list(self.cells.values())

    def end_reading(self, cells: Sequence[Cell], tokens: Sequence[bytes | None]) -> None:
        """What the store answered for the cells."""
        for cell, token in zip(cells, tokens):
            if cell.token != token:
                cell.alive = False
                self.moved((cell.name,))
        self.ready = True

    def know(self, names: Sequence[bytes], tokens: Sequence[bytes]) -> None:
        """Tokens that the store has just given. Called by the heartbeat alone, between two of its questions."""
        for name, token in zip(names, tokens):
            self.cells.setdefault(name, Cell(name, token))
            self.wanted.pop(name, None)

    def reset(self) -> None:
        """In a forked child, or after the end: as if new."""
        self.fall()
        for cell in list(self.cells.values()):
            cell.alive = False
        self.cells.clear()
        self.wanted.clear()
        self._clear()

    # -- coming in ----------------------------------------------------------------------------------------------------------

    def ticket(self, call_name: bytes) -> Ticket | None:
        """Taken before an entry is read; None when it cannot come in, because its call's token is not known yet."""
        moves = self.moves
        cell = self.cells.get(call_name)
        if not self.ready:
            return None
        if cell is None or not cell.alive:
            if len(self.wanted) < _WANTED_LIMIT:
                self.wanted[call_name] = None
            return None
        return Ticket(moves, cell)

    def fill(self, ticket: Ticket, item: NearItem, generation_name: bytes) -> bool:
        """Brings in an entry that was read after the ticket was taken and judged FRESH; whether it came in."""
        if item.cost > self.max_bytes // 8:
            return False
        header = item.header
        latch = self._latch
        try:
            with latch:
                nested = latch.entries
                first = self._cell(generation_name, header.generation)
                more = [self._cell(name, token) for name, token in header.marks if not name.startswith(VERSION)]
                # Registered first, then looked: who moves a token replaces `moves` first and then looks for its cell.
                if self.moves is not ticket.moves or not ticket.cell.alive or None in (first, *more):
                    self._sweep((first, ticket.cell, *more))
                    return False
                item.first, item.second, item.more = (
                    first or DEAD_CELL,
                    ticket.cell,
                    tuple(each for each in more if each),
                )
                former = self.items.get(item.text)
                for cell in item.cells():
                    cell.uses += 1
                if former is not None:
                    self._remove(former)
                self.items[item.text] = item
                self._sieve.came(item.text)
                self.bytes += item.cost
                self._evict()
                if latch.entries != nested:
                    self._clear()  # a signal handler was here in between
            return True
        except BaseException:
            self._clear()  # interrupted in the middle; what is here can always be had from the store
            raise

    def grow(self, item: NearItem, cost: int) -> bool:
        """Counts a new cost of what an item keeps; False, and nothing is changed, where it is too much for one item."""
        cost += ITEM_BYTES
        if cost > self.max_bytes // 8:
            return False
        try:
            with self._latch:
                nested = self._latch.entries
                if self.items.get(item.text) is item:
                    self.bytes += cost - item.cost
                    item.cost = cost
                    self._evict()
                if self._latch.entries != nested:
                    self._clear()  # a signal handler was here in between
            return True
        except BaseException:
            self._clear()
            raise

    def forget(self, item: NearItem) -> None:
        """Drops one item."""
        try:
            with self._latch:
                if self.items.get(item.text) is item:
                    self._remove(item)
        except BaseException:
            self._clear()
            raise

    def empty(self) -> None:
        """Drops every item, and lets the fence fall."""
        self.fall()
        with self._latch:
            self._clear()
        self.cells.clear()
        self.wanted.clear()

    def _cell(self, name: bytes, token: bytes) -> Cell | None:
        """The living cell of this token; None where another is known. Of two the one with the greater number is newer."""
        cell = self.cells.get(name)
        if cell is None:
            cell = self.cells.setdefault(name, Cell(name, token))
        if cell.token == token:
            return cell
        ours, theirs = parse(token), parse(cell.token)
        if ours is not None and theirs is not None and ours.number >= theirs.number:
            self.moved((name,))
        return None

    def _sweep(self, cells: Sequence[Cell | None]) -> None:
        for cell in cells:
            if cell is not None and not cell.uses and not of_calls(cell.name) and self.cells.get(cell.name) is cell:
                cell.alive = False
                self.cells.pop(cell.name, None)

    # -- going out ----------------------------------------------------------------------------------------------------------

    def _remove(self, item: NearItem) -> None:
        if self.items.get(item.text) is item:
            self.items.pop(item.text, None)
        self.bytes -= item.cost
        cells = item.cells()
        for cell in cells:
            cell.uses -= 1
        self._sweep(cells)
        item.end()

    def _evict(self) -> None:
        while len(self.items) > self.max_entries or self.bytes > self.max_bytes:
            text = self._sieve.next()
            item = None if text is None else self.items.get(text)
            if item is None:
                self._clear()
                return
            self._remove(item)
            self.evicted += 1

    def _clear(self) -> None:
        self._sieve.clear()
        self.bytes = 0
        for item in list(self.items.values()):
            item.end()
        self.items.clear()
        for cell in list(self.cells.values()):
            cell.uses = 0

    def unused(self, before: set[bytes]) -> set[bytes]:
        """The names without an item; those among them that were in `before` already are dropped."""
        found = {name for name, cell in self.cells.copy().items() if not cell.uses}
        for name in found & before:
            cell = self.cells.pop(name, None)
            if cell is not None:
                cell.alive = False
        return found - before


_tiers: Living[Tier] = Living()


def moved(names: Sequence[bytes]) -> None:
    """Tells every tier of this process that these tokens have moved, or are about to."""
    for tier in list(_tiers):
        tier.moved(names)
