"""Generations as this process knows them: which it has seen, and which it still owes to the store.

A token is `<n>-<nonce>` (16 hex digits of nonce). n is ordered, so a token with a smaller n than one already
seen, or none at all, means that the store lost a bump: it must be healed before anything is trusted.
n at or above `GARBAGE` is nobody's token: it is treated as missing and never becomes a floor, else one hostile
write would push every later generation to the end of the number line.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING

from memover.errors import raised_beneath
from memover.keys.shards import unsharded
from memover.model import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.engine.steps import Flow

__all__ = ["GARBAGE", "Witness", "parse"]

GARBAGE = 1 << 52
"""Microseconds since the epoch reach this in the year 2112; doubles count exactly to twice as far (Lua's numbers)."""

FLOOR_LIMIT = GARBAGE - (1 << 40)
"""From here on a token is believed, being well-formed, and yet makes no floor: beyond a floor that is nearly garbage only
garbage is left, while without one the next bump goes back to the server's clock."""

SEEN_LIMIT = 20_000
"""How many names a witness remembers the tokens of, some 250 bytes each; the one that was not seen for longest goes first."""

_TOKEN = re.compile(rb"([0-9]{1,16})-([0-9a-f]{16})\Z")


def parse(token: bytes | None) -> Generation | None:
    """The generation in stored bytes, or None for what no script of ours has written."""
    found = _TOKEN.match(token) if token is not None else None
    if found is None:
        return None
    number = int(found[1])
    return None if number >= GARBAGE else Generation(number, found[2].decode(), getattr(token, "replicas", None))


class Witness:
    """What one process has seen of the generations and tags of one cache, and owes to them.

    `owed` maps names whose invalidation was not acknowledged to what repeats it: while a name is there, nothing
    under it is served or stored in this process. `versions` are the schema versions in this process's source, by
    mark. Plain dict operations only, so any thread may call;
    a floor lost to a race or to the bound costs the ability to heal, never a wrong answer.
    """

    __slots__ = ("_limit", "_seen", "owed", "versions")

    def __init__(self, limit: int | None = None) -> None:
        self._seen: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        self._limit = SEEN_LIMIT if limit is None else limit
        self.owed: dict[bytes, Callable[[], Flow[object]]] = {}
        self.versions: dict[bytes, bytes] = {}

    def trusts(self, names: Sequence[bytes], tokens: Sequence[bytes | None]) -> bool:
        """Whether every token read may be believed; what is newer than seen before is remembered."""
        for name, token in zip(names, tokens):
            known = self._seen.get(name)
            if known is not None and known[0] == token:
                continue
            generation = parse(token)
            if generation is None or token is None:
                return False
            if known is not None and generation.number < known[1]:
                return False
            self._remember(name, token, generation.number)
        return True

    def floor(self, name: bytes) -> int:
        """The greatest number seen under this name, 0 when none was."""
        known = self._seen.get(name)
        return 0 if known is None else known[1]

    def last(self, name: bytes) -> bytes | None:
        """The token last believed under this name."""
        known = self._seen.get(name)
        return None if known is None else known[0]

    @property
    def believed(self) -> Mapping[bytes, tuple[bytes, int]]:
        """The tokens last believed, with their numbers, by name; always the same object."""
        return self._seen

    def doubt(self, *names: bytes) -> None:
        """These tokens are being moved, to what is not known yet: what was last believed is not current."""
        for name in names:
            self._remember(name, b"", self.floor(name))

    def owes(self, names: Sequence[bytes], *more: bytes) -> bool:
        """Whether an invalidation of any of these names is still to be acknowledged; that of a generation is that of all
        its shards."""
        owed = self.owed
        return bool(owed) and any(name in owed or unsharded(name) in owed for name in (*names, *more))

    def _remember(self, name: bytes, token: bytes, number: int) -> None:
        if number >= FLOOR_LIMIT:
            return
        self._seen.pop(name, None)  # to the young end: what is in use is forgotten last
        self._seen[name] = (bytes(token), number)
        while len(self._seen) > self._limit:
            try:
                self._seen.popitem(last=False)
            except KeyError as error:
                if raised_beneath(error):
                    raise
                break
