"""The two steps of a plain miss in this process's memory, without generators: see `runtime.direct`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memover.engine.answers import Sealed
    from memover.engine.call import CachedCall
    from memover.engine.store import Granted, Seen
    from memover.model import Key
    from memover.stores.memory.entries import MemoryEntries

__all__ = ["Direct"]


class Direct:
    """The direct steps of one store."""

    most = 1 << 30

    def __init__(self, store: MemoryEntries) -> None:
        self._store = store

    def take(self, call: CachedCall, token: str, seen: Seen) -> Granted:
        """Takes the lease, unless another has it, and reads the tokens and the entry with it."""
        return self._store.acquired(call.request(token), False)

    def put(self, call: CachedCall, token: str, sealed: Sealed) -> bool:
        """Stores an entry if `token` has the lease, and gives the lease back."""
        return self._store.stored(call.entry(token, sealed))

    def presumed(self, key: Key, token: bytes | None) -> None:
        """What is not read is not known."""
