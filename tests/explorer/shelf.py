"""The store of the explorer's world: each command is one atomic step on what is held, as `stores.base` says it must be.

Leases are the bytes of `memover.engine.lease`; tokens follow the script in `stores/redis/scripts.py`, on a server
whose clock stands still: the worst clock, because then only the number and the nonce keep generations apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine import lease as leases
from memover.engine.tokens import parse
from tests.explorer.state import Held, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.explorer.state import Marks

__all__ = ["Shelf"]

Answer = Any
Names = tuple[bytes, ...]


class Shelf:
    """Commands are tuples: their name, then their arguments. `names` are all the names there are tokens of."""

    def __init__(self, names: Names) -> None:
        self.at = {name: at for at, name in enumerate(names)}

    def perform(self, held: Held, command: tuple[Any, ...]) -> tuple[Held, Answer]:
        name, *arguments = command
        answered: tuple[Held, Answer] = getattr(self, name)(held, *arguments)
        return answered

    def first(self, at: int) -> bytes:
        """The token that a name has when it begins."""
        return b"1-%016x" % (0xA0 + at)

    # -- whole commands, each an atomic step where all keys are on one node ----------------------------------------------

    def read(self, held: Held, key: int, names: Names) -> tuple[Held, Answer]:
        return held, ("reading", key, names, self.tokens(held, names), held.slots[key].entry, None)

    def look(self, held: Held, key: int, names: Names) -> tuple[Held, Answer]:
        return held, ("reading", key, names, self.tokens(held, names), *held.slots[key])

    def acquire(
        self, held: Held, key: int, token: str, force: bool, names: Names, required: int, floors: Sequence[int]
    ) -> tuple[Held, Answer]:
        for name, floor in zip(names, floors):
            held, _ = self.ensure(held, name, floor, token)
        return self.lease(held, key, token, force, names, required, self.tokens(held, names))

    def store(self, held: Held, key: int, token: str, entry: tuple[int, Marks]) -> tuple[Held, Answer]:
        if not self.mine(held.slots[key].lease, token):
            return held, False
        return put(held, key, Slot(entry, None)), True

    def release(self, held: Held, key: int, token: str, failed: bool) -> tuple[Held, Answer]:
        entry, lease = held.slots[key]
        if not self.mine(lease, token):
            return held, None
        return put(held, key, Slot(entry, leases.failed(token) if failed else None)), None

    def bump(self, held: Held, names: Names, nonce: str, floors: Sequence[int], along: Names) -> tuple[Held, Answer]:
        moved = []
        least = 0
        for name, floor in zip(names, floors):
            held, token = self._move(held, name, nonce, max(floor, least), force=True)
            moved.append(token)
            least = least or number(token) - 1
        held, _ = self.along(held, along, nonce)
        return held, tuple(moved)

    def drop(self, held: Held, key: int, nonce: str, along: Names) -> tuple[Held, Answer]:
        held, _ = self.delete(held, key)
        return self.along(held, along, nonce)

    # -- parts of them, where keys are on different nodes ------------------------------------------------------------------

    def token(self, held: Held, name: bytes) -> tuple[Held, Answer]:
        return held, self.tokens(held, (name,))[0]

    def slot(self, held: Held, key: int) -> tuple[Held, Answer]:
        return held, held.slots[key]

    def ensure(self, held: Held, name: bytes, floor: int, nonce: str) -> tuple[Held, Answer]:
        """A token, put back first when it is missing or behind."""
        return self._move(held, name, nonce, floor, force=False)

    def lease(
        self, held: Held, key: int, token: str, force: bool, names: Names, required: int, tokens: tuple[Any, ...]
    ) -> tuple[Held, Answer]:
        """The lease, unless another holds it under the same required tokens."""
        stamp = leases.stamp(tokens[:required])
        entry, lease = held.slots[key]
        reading = ("reading", key, names, tokens, entry, None)
        holder = "" if force else self.holder(lease, stamp)
        if holder and holder != token:
            return held, ("grant", False, holder, reading)
        return put(held, key, Slot(entry, leases.held(token, stamp))), ("grant", True, "", reading)

    def delete(self, held: Held, key: int) -> tuple[Held, Answer]:
        return put(held, key, Slot()), None

    def along(self, held: Held, names: Names, nonce: str) -> tuple[Held, Answer]:
        """Move the tokens that exist."""
        for name in names:
            if self.tokens(held, (name,)) != (None,):
                held, _ = self._move(held, name, nonce, 0, force=True)
        return held, None

    # -- what they are made of ----------------------------------------------------------------------------------------------

    def tokens(self, held: Held, names: Names) -> tuple[bytes | None, ...]:
        return tuple(held.tokens[self.at[name]] for name in names)

    def holder(self, lease: bytes | None, stamp: bytes) -> str:
        return leases.holder_of(lease, stamp)

    def mine(self, lease: bytes | None, token: str) -> bool:
        return lease is not None and lease.startswith(leases.held(token, b""))

    def _move(self, held: Held, name: bytes, nonce: str, floor: int, *, force: bool) -> tuple[Held, Answer]:
        at = self.at[name]
        current = held.tokens[at]
        known = parse(current)
        if known is not None and (known.nonce == nonce or (not force and known.number >= floor)):
            return held, current
        token = self.new(number(current), floor, nonce)
        return held._replace(tokens=(*held.tokens[:at], token, *held.tokens[at + 1 :])), token

    def new(self, current: int, floor: int, nonce: str) -> bytes:
        return b"%d-%b" % (max(current, floor) + 1, nonce.encode())


def put(held: Held, key: int, slot: Slot) -> Held:
    return held._replace(slots=(*held.slots[:key], slot, *held.slots[key + 1 :]))


def number(token: bytes | None) -> int:
    generation = parse(token)
    return 0 if generation is None else generation.number
