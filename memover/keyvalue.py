"""The key-value API: Django's words with fixed meanings, which `Cache` and the Django backend share.

An entry is stored under exactly `prefix:version:key` and belongs to the generation of the key-value entries, so that
`clear()` is one step. Freshness follows this process's clock, as everywhere; the store's own expiry is the hard limit.

Times to live are seconds, a `timedelta`, text such as `"1h30m"`, None for never, and the cache's default where nothing is
said; 0 or less stores nothing, and removes what is there. Integers below 2**53 are kept as digits, which the store itself
can count up; all else goes through the codec. Any thread and any event loop may call anything here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from memover.durations import Duration, seconds_of
from memover.engine import keyvalue as flows
from memover.keys.keyvalue import check_stored, stored_key
from memover.keys.names import check_version
from memover.later import later
from memover.model import MISSING
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import EllipsisType

    from memover.runtime import keyvalue as entries
    from memover.runtime.keyvalue import KeyValueEntries
    from memover.runtime.state import CacheState

    Ttl = Duration | EllipsisType
    """A time to live, or `...` for the cache's default."""
else:
    entries = later(__name__, "memover.runtime.keyvalue", "entries")

__all__ = ["KeyValueFace"]


class EntriesOnDemand:
    """The key-value entries of a cache, made when they are first asked for."""

    def __get__(self, face: KeyValueFace, owner: type[KeyValueFace]) -> KeyValueEntries:
        made = entries.KeyValueEntries(face._state, face.codec, forget_failed_sets=face._forget_failed_sets)
        first: KeyValueEntries = vars(face).setdefault("_entries", made)  # where it is found from now on
        return first


class KeyValueFace:
    """The methods that `Cache` has for keys and values. `version` defaults to the cache's, `ttl` to the cache's."""

    prefix: str
    version: int
    ttl: float
    codec: Any
    _state: CacheState
    _forget_failed_sets: bool
    _key_function: Callable[[str, str, int], str] | None
    _entries = EntriesOnDemand()

    def _text(self, key: str, version: int | None) -> str:
        version = self.version if version is None else check_version(version)
        if self._key_function is not None:
            return check_stored(self._key_function(key, self.prefix, version))
        return check_stored(stored_key(self.prefix, version, key))

    def _texts(self, keys: Iterable[str], version: int | None) -> dict[str, str]:
        return {key: self._text(key, version) for key in keys}

    def _fresh_for(self, ttl: Ttl) -> float:
        return self.ttl if ttl is ... else seconds_of(ttl, "ttl", least=-math.inf)

    # -- reading ----------------------------------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """The value under a key, or `default`. One round trip; a store that cannot be asked has nothing."""
        text = self._text(key, version)
        value = self._entries.at_hand(text)
        return run(flows.get(self._entries, text, default)) if value is MISSING else value

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """The values of those keys that are there. One round trip for all."""
        return run(flows.get_many(self._entries, self._texts(keys, version)))

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Whether there is a value that `get` would return, None included. One round trip."""
        return run(flows.has_key(self._entries, self._text(key, version)))

    def __contains__(self, key: str) -> bool:
        return self.has_key(key)

    def get_or_set(self, key: str, default: Any, ttl: Ttl = ..., version: int | None = None) -> Any:
        """The value under a key; else `default`, or what it returns when called, stored for `ttl`.

        The call is made once, however many threads and processes ask at the same time (under a lease, as for decorated
        functions); what is set, added or deleted meanwhile is not overwritten. Raises what the call raises. One round trip
        for a value that is there, three otherwise. A store that cannot be asked means a call, and nothing is stored. Keys
        and values take no part in the dependencies of decorated functions: one that reads here does not follow what
        becomes of it."""
        return entries.get_or_set(self._entries, self._text(key, version), default, self._fresh_for(ttl))

    # -- writing --------------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Any, ttl: Ttl = ..., version: int | None = None) -> None:
        """Stores a value. One round trip.

        Raises `UnencodableValue`, and `StoreError` when the store has not acknowledged it: an older value may live on
        (unless the cache was made with `on_set_error="forget"`)."""
        run(flows.set_many(self._entries, {self._text(key, version): value}, self._fresh_for(ttl)))

    def set_many(self, data: Mapping[str, Any], ttl: Ttl = ..., version: int | None = None) -> list[str]:
        """Stores several values, all or none (Cluster: each for itself). One round trip. Raises as `set`.

        The answer is the list of keys that failed, which Django wants: it is empty, since failures raise."""
        values = {self._text(key, version): value for key, value in data.items()}
        run(flows.set_many(self._entries, values, self._fresh_for(ttl)))
        return []

    def add(self, key: str, value: Any, ttl: Ttl = ..., version: int | None = None) -> bool:
        """Stores a value unless there is one; whether it was stored. Of several callers one is told True.

        One round trip. Raises as `set`; after a timeout it may have been stored."""
        return run(flows.add(self._entries, self._text(key, version), value, self._fresh_for(ttl)))

    def touch(self, key: str, ttl: Ttl = ..., version: int | None = None) -> bool:
        """Gives a value a new time to live from now; whether there was one. One round trip. Raises `StoreError`."""
        return run(flows.touch(self._entries, self._text(key, version), self._fresh_for(ttl)))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Adds `delta` and returns the new value, which keeps its remaining time to live.

        Atomic across processes: no increment is lost. One round trip for integers below 2**53; other numbers
        (and integers under a codec of yours) are read, added to and put back unless they changed meanwhile, again until it
        succeeds. Raises `ValueError` when there is no value, `TypeError` when it is no number, and `StoreError`; what timed out
        may have been applied, and is never repeated."""
        return self._counted(key, run(flows.incr(self._entries, self._text(key, version), delta)))

    def decr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """As `incr` with `-delta`."""
        return self.incr(key, -delta, version)

    def incr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Moves a value to the version `delta` further on, over what may be there, and returns that version.

        The value keeps its remaining time to live, and may be anything, None included. One atomic step: nobody finds it
        under both versions or under neither, and of several callers one succeeds. In Redis Cluster the two keys are on
        different servers: the value is taken first and laid down second, so for that moment it is under neither, and a
        process that dies in between loses it. Raises `ValueError` when there is no value, and `StoreError`."""
        source, target = self._versions(version, delta)
        done = run(flows.move(self._entries, self._text(key, source), self._text(key, target)))
        return self._moved_to(key, target, done)

    def decr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """As `incr_version` with `-delta`."""
        return self.incr_version(key, -delta, version)

    # -- removing -------------------------------------------------------------------------------------------------------

    def delete(self, key: str, version: int | None = None) -> bool:
        """Removes a value; whether there was one. A `get_or_set` under way does not store. One round trip.

        Raises `InvalidationFailed` when the store does not acknowledge it; it is then repeated until it does."""
        return run(flows.delete(self._entries, self._text(key, version)))

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Removes several values. One round trip. Raises as `delete`."""
        run(flows.delete_many(self._entries, self._texts(keys, version).values()))

    def clear(self) -> None:
        """Removes every key-value entry of this prefix, all versions; decorated functions' entries stay.

        One command on one key, whatever their number; the bytes leave when their time is over. No `get_or_set` under way
        can bring an old value back. Raises `InvalidationFailed` as `delete`."""
        run(flows.clear(self._entries))

    # -- awaited --------------------------------------------------------------------------------------------------------

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """`get`, awaited."""
        text = self._text(key, version)
        value = self._entries.at_hand(text)
        return await arun(flows.get(self._entries, text, default)) if value is MISSING else value

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """`get_many`, awaited."""
        return await arun(flows.get_many(self._entries, self._texts(keys, version)))

    async def ahas_key(self, key: str, version: int | None = None) -> bool:
        """`has_key`, awaited."""
        return await arun(flows.has_key(self._entries, self._text(key, version)))

    async def aget_or_set(self, key: str, default: Any, ttl: Ttl = ..., version: int | None = None) -> Any:
        """`get_or_set`, awaited; the default may be an `async def` function or return an awaitable."""
        return await entries.aget_or_set(self._entries, self._text(key, version), default, self._fresh_for(ttl))

    async def aset(self, key: str, value: Any, ttl: Ttl = ..., version: int | None = None) -> None:
        """`set`, awaited."""
        await arun(flows.set_many(self._entries, {self._text(key, version): value}, self._fresh_for(ttl)))

    async def aset_many(self, data: Mapping[str, Any], ttl: Ttl = ..., version: int | None = None) -> list[str]:
        """`set_many`, awaited."""
        values = {self._text(key, version): value for key, value in data.items()}
        await arun(flows.set_many(self._entries, values, self._fresh_for(ttl)))
        return []

    async def aadd(self, key: str, value: Any, ttl: Ttl = ..., version: int | None = None) -> bool:
        """`add`, awaited."""
        return await arun(flows.add(self._entries, self._text(key, version), value, self._fresh_for(ttl)))

    async def atouch(self, key: str, ttl: Ttl = ..., version: int | None = None) -> bool:
        """`touch`, awaited."""
        return await arun(flows.touch(self._entries, self._text(key, version), self._fresh_for(ttl)))

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """`incr`, awaited."""
        return self._counted(key, await arun(flows.incr(self._entries, self._text(key, version), delta)))

    async def adecr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """`decr`, awaited."""
        return await self.aincr(key, -delta, version)

    async def aincr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """`incr_version`, awaited."""
        source, target = self._versions(version, delta)
        done = await arun(flows.move(self._entries, self._text(key, source), self._text(key, target)))
        return self._moved_to(key, target, done)

    async def adecr_version(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """`decr_version`, awaited."""
        return await self.aincr_version(key, -delta, version)

    async def adelete(self, key: str, version: int | None = None) -> bool:
        """`delete`, awaited."""
        return await arun(flows.delete(self._entries, self._text(key, version)))

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """`delete_many`, awaited."""
        await arun(flows.delete_many(self._entries, self._texts(keys, version).values()))

    async def aclear(self) -> None:
        """`clear`, awaited."""
        await arun(flows.clear(self._entries))

    # -- what is said of the answers ------------------------------------------------------------------------------------

    def _versions(self, version: int | None, delta: int) -> tuple[int, int]:
        source = self.version if version is None else check_version(version)
        return source, check_version(source + delta)

    @staticmethod
    def _counted(key: str, value: Any) -> int:
        if value is MISSING:
            raise ValueError(f"There is no value under the key {key!r} to count from: set or add one first.")
        counted: int = value  # or another number, where another was stored
        return counted

    @staticmethod
    def _moved_to(key: str, version: int, done: bool) -> int:
        if not done:
            raise ValueError(f"There is no value under the key {key!r} to give another version: set one first.")
        return version
