"""The memory store: `items` (an entry as it is kept), `entries` (what a decorated function needs), `direct` (the steps of a plain miss), `tokens` (theirs, and which are still
needed), `rounds` (which of many is looked at next), `keyvalue` (the key-value API's side)."""

from __future__ import annotations

from memover.stores.memory.keyvalue import MemoryKeyValues

__all__ = ["MemoryStore"]


class MemoryStore(MemoryKeyValues):
    """A bounded store in this process; see `memover.engine.store.Store`."""
