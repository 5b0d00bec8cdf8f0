"""The store of the explorer's world: each command is one step on what is held, as `stores.base` says it must be.

Leases are the bytes of `memover.stores.leases`; tokens follow the script in `stores/redis/scripts.py`, on a server
whose clock stands still: the worst clock, because then only the number and the nonce keep generations apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.generations import parse
from memover.stores import leases
from tests.explorer.state import Held

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Shelf"]

Answer = Any


class Shelf:
    """Commands are tuples: their name, then their arguments. `perform` answers one."""

    def perform(self, held: Held, command: tuple[Any, ...]) -> tuple[Held, Answer]:
        name, *arguments = command
        answered: tuple[Held, Answer] = getattr(self, name)(held, *arguments)
        return answered

    def read(self, held: Held) -> tuple[Held, Answer]:
        return held, ("reading", held.tokens, held.entry, None)

    def look(self, held: Held) -> tuple[Held, Answer]:
        return held, ("reading", held.tokens, held.entry, held.lease)

    def acquire(self, held: Held, token: str, force: bool, floors: Sequence[int]) -> tuple[Held, Answer]:
        for at, floor in enumerate(floors):
            held, _ = self.token(held, at, token, floor)
        return self.lease(held, token, force, held.tokens)

    def token(self, held: Held, at: int, nonce: str, floor: int) -> tuple[Held, Answer]:
        """A token, put back first when it is missing or behind."""
        return self._move(held, at, nonce, floor, force=False)

    def lease(
        self, held: Held, token: str, force: bool, under: tuple[bytes | None, ...]
    ) -> tuple[Held, Answer]:
        """The lease, unless another holds it under the same tokens."""
        stamp = leases.stamp(under)
        holder = "" if force else self.holder(held.lease, stamp)
        if holder and holder != token:
            return held, ("grant", False, holder, ("reading", under, held.entry, None))
        granted = held._replace(lease=leases.held(token, stamp))
        return granted, ("grant", True, "", ("reading", under, held.entry, None))

    def holder(self, lease: bytes | None, stamp: bytes) -> str:
        return leases.holder_of(lease, stamp)

    def mine(self, lease: bytes | None, token: str) -> bool:
        return lease is not None and lease.startswith(leases.held(token, b""))

    def store(self, held: Held, token: str, entry: tuple[int, tuple[bytes, ...]]) -> tuple[Held, Answer]:
        if not self.mine(held.lease, token):
            return held, False
        return held._replace(entry=entry, lease=None), True

    def release(self, held: Held, token: str, failed: bool) -> tuple[Held, Answer]:
        if not self.mine(held.lease, token):
            return held, None
        return held._replace(lease=leases.failed(token) if failed else None), None

    def bump(self, held: Held, at: int, nonce: str, floor: int) -> tuple[Held, Answer]:
        return self._move(held, at, nonce, floor, force=True)

    def drop(self, held: Held) -> tuple[Held, Answer]:
        return held._replace(entry=None, lease=None), None

    def _move(self, held: Held, at: int, nonce: str, floor: int, *, force: bool) -> tuple[Held, Answer]:
        current = held.tokens[at]
        number = 0
        known = parse(current)
        if known is not None:
            number = known.number
            if known.nonce == nonce or (not force and number >= floor):
                return held, current
        token = self.new(number, floor, nonce)
        return held._replace(tokens=(*held.tokens[:at], token, *held.tokens[at + 1 :])), token

    def new(self, number: int, floor: int, nonce: str) -> bytes:
        return b"%d-%b" % (max(number, floor) + 1, nonce.encode())
