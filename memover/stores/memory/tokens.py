"""The tokens of the embedded store, and which of them are still needed.

Generations stay. A transient token (of a tag or of a call) ends by itself, later while a lease or an entry needs it. One that
would end late, because an entry that has been evicted needed it, is forgotten as soon as nobody can need it.

Everything here is called inside the latch of `entries`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.clocks import ACTUAL, monotonic
from memover.engine import lease as leases
from memover.engine.store import TOKEN_MARGIN_MS
from memover.keys.names import transient
from memover.stores.memory.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["MemoryTokens"]


class MemoryTokens:
    """Those of one store: `current` is the token of each name. `leases` are the leases of the store and when they end."""

    def __init__(self, leases: Mapping[bytes, tuple[bytes, float]]) -> None:
        self.current: dict[bytes, bytes] = {}
        self._ends: dict[bytes, float] = {}
        self._leases = leases
        self._carried: dict[bytes, int] = {}
        """How many items carry a token beside their generation. Too low after an interruption, at worst: that is a miss."""
        self._spare: list[bytes] = []
        """Tokens that no item carries any more, though they end late; a load under way may still need them."""
        self._rounds = Rounds(self._ends)

    def ensure(self, name: bytes, nonce: str, floor: int, lease_ms: int) -> bytes:
        """The token of a name, which exists from now on, is not behind `floor`, and outlives a lease of that length."""
        token = self.current.get(name)
        if token is None or (floor and _number(token) < floor):
            token = self._move(name, nonce, floor)
        if transient(name):
            self.keep(name, lease_ms)
        return token

    def keep(self, name: bytes, needed_ms: float) -> None:
        """Prolongs a transient token past what needs it: a lease or an entry."""
        ends = self._ends.get(name)
        if ends is not None:
            self._ends[name] = max(ends, monotonic() + (needed_ms + TOKEN_MARGIN_MS) / 1000)

    def move(self, names: Sequence[bytes], nonce: str, floors: Sequence[int]) -> list[bytes]:
        """New tokens for these names, none of them behind the first."""
        floor = 0
        moved = []
        for name, own in zip(names, floors):
            moved.append(self._move(name, nonce, max(own, floor)))
            floor = floor or _number(moved[0]) - 1
        return moved

    def move_along(self, names: Sequence[bytes], nonce: str) -> None:
        """New tokens for those of these names that have one."""
        for name in names:
            if name in self.current:
                self._move(name, nonce, 0)

    def _move(self, name: bytes, nonce: str, floor: int, _clock: Callable[[], int] = ACTUAL.nanoseconds) -> bytes:
        token = self.current.get(name)
        if token is not None and token.endswith(nonce.encode()):
            return token
        least = max(_number(token), floor) + 1
        new = self.current[name] = b"%d-%b" % (max(least, _clock() // 1000), nonce.encode())
        if transient(name):
            if name not in self._ends:
                self._rounds.came(name)
            self._ends[name] = monotonic() + TOKEN_MARGIN_MS / 1000
            self._sweep()
        return new

    # -- what is still needed -----------------------------------------------------------------------------------------------

    def came(self, marked: Sequence[bytes]) -> None:
        """An item came that carries the tokens of these names."""
        for name in marked:
            self._carried[name] = self._carried.get(name, 0) + 1
            self._rounds.stayed()
        if marked:
            self._sweep()

    def left(self, marked: Sequence[bytes]) -> None:
        """An item that carried them has left."""
        for name in marked:
            uses = self._carried.pop(name, 1) - 1
            if uses > 0:
                self._carried[name] = uses

    def _sweep(self) -> None:
        now = monotonic()
        for name in self._rounds.due():
            ends = self._ends.get(name)
            if ends is None or ends <= now:
                self._forget(name)
            elif name not in self._carried:
                self._spare.append(name)
        # With as many leases as there may be to look through, it is worth doing for many tokens at once.
        if len(self._spare) <= 256 + len(self._leases) // 2:
            return
        spare, self._spare = self._spare, []
        # What ends soon leaves by itself, and a load under way may need it. Of the rest, entries that were evicted need none.
        held = [(lease, ends) for lease, ends in list(self._leases.values()) if ends > now]
        soon = max([now, *(ends for _, ends in held)]) + TOKEN_MARGIN_MS / 1000
        under = {token for lease, _ in held for token in leases.taken_under(lease)}
        for name in spare:
            late = self._ends.get(name, 0.0) > soon
            if late and name not in self._carried and self.current.get(name) not in under:
                self._forget(name)

    def _forget(self, name: bytes) -> None:
        if self._ends.pop(name, None) is not None:
            self._rounds.left(name)
        self.current.pop(name, None)


def _number(token: bytes | None) -> int:
    """The number of a token, 0 for what is none."""
    digits = token.partition(b"-")[0] if token is not None else b""
    return int(digits) if digits.isdigit() else 0
