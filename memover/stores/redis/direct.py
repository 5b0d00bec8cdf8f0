"""The two steps of a plain miss on one server, each an exchange in the calling thread: see `runtime.direct`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.steps import POSTED

if TYPE_CHECKING:
    from memover.engine.answers import Sealed
    from memover.engine.call import CachedCall
    from memover.engine.store import Granted, Seen
    from memover.model import Key
    from memover.stores.redis.store import RedisStore

__all__ = ["Direct"]


class Direct:
    """The direct steps of one store. Methods raise `StoreError`."""

    most = 1 << 30

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._exchange = store.link.exchange

    def take(self, call: CachedCall, token: str, seen: Seen) -> Granted:
        """Asks for the lease, and reads the tokens and the entry with it."""
        step = self._store.asking(call.request(token), b"0")
        return step.read(self._exchange(step))

    def put(self, call: CachedCall, token: str, sealed: Sealed) -> bool | None:
        """Stores an entry if `token` has the lease, and gives the lease back. The answer may be waited for later: see `RedisLink.single`."""
        step = call.storing(token, sealed)
        answers: Any = self._exchange(step)
        kept: bool = POSTED if answers is POSTED else step.read(answers)
        return kept

    def presumed(self, key: Key, token: bytes | None) -> None:
        """What is not read is not known."""
