"""What a near tier asks of a SQLite file: the tokens, by the reads that every hit makes.

A statement sees every commit that was answered before it began, so the heartbeat's bound holds as on a server. Nobody tells
of changes: another process's invalidation is heard of by the next beat.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from memover.engine.store import TOKEN_MARGIN_MS
from memover.model import Key
from memover.stores.sqlite.moments import time_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.stores.feed import Feed
    from memover.stores.sqlite.store import SqliteStore

__all__ = ["SqliteFeed"]

_AT_ONCE = 100


class SqliteFeed:
    """The `memover.stores.feed.Feed` of a file. It has no connection of its own: those of the store wait for nobody."""

    commands = 1

    def __init__(self, store: SqliteStore, coarse: bytes) -> None:
        self._store = store
        self._pulse = Key("~near", (coarse,))

    def pulse(self) -> bytes | None:
        return self._store.fetch(self._pulse).tokens[0]

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for at in range(0, len(names), _AT_ONCE):
            found += self._store.fetch(Key("~near", tuple(names[at : at + _AT_ONCE]))).tokens
        return found

    def keep(self, names: Sequence[bytes]) -> None:
        store, floors, nonce = self._store, [0] * len(names), os.urandom(8).hex()
        until = time_ms() + TOKEN_MARGIN_MS
        store._guarded(lambda deadline: store._tokens.ensured(names, floors, nonce, until, deadline), store._writes)

    def pushed(self) -> tuple[list[bytes], bool]:
        return [], False

    def waiting(self) -> bool:
        return False

    def sources(self) -> list[Any]:
        return []

    def close(self) -> None:
        """Nothing is open."""


if TYPE_CHECKING:

    def _is_one(feed: SqliteFeed) -> Feed:  # pyright: ignore[reportUnusedFunction]
        return feed
