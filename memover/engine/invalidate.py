"""The flows of invalidation. A store error is thrown on: whoever asked must know that it may not have happened."""

from __future__ import annotations

from collections.abc import Sequence

from memover.engine.ops import Bump, Drop, DropOlder, Flow

__all__ = ["invalidate", "move"]


def move(names: Sequence[bytes], nonce: str) -> Flow[list[bytes]]:
    """Move names to new tokens: a namespace's generation, its soft mark, or tags with their clock."""
    tokens: list[bytes] = yield Bump(names, nonce)
    return tokens


def invalidate(nonce: str, *, older: bool = False) -> Flow[None]:
    """Remove this call's entry, and its lease with it, so that no load under way can store.

    Entries it could be upgraded from go first: after the last step nothing is left to make it from."""
    if older:
        yield DropOlder(nonce)
    yield Drop(nonce)
