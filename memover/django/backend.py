"""`MemoverCache`: the key-value API under Django's names.

What differs from Django's own Redis backend: `clear()` removes this KEY_PREFIX's entries and nobody else's, in one step;
`incr`, `incr_version`, `add` and `get_or_set` are atomic across processes; a store that cannot be reached makes reads find
nothing, while writes and deletions raise (see `memover.engine.keyvalue`); pickles are signed.
"""

# Parameters are called timeout here, as Django does, and ttl in the class below.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheBackendError

from memover.django.caches import DjangoCache, shared_cache
from memover.durations import seconds_of
from memover.errors import ConfigurationError
from memover.keys.keyvalue import check_stored
from memover.keyvalue import KeyValueFace

__all__ = ["InvalidMemoverCache", "MemoverCache"]

_DJANGOS_OWN = ("MAX_ENTRIES", "CULL_FREQUENCY", "cull_frequency")


class InvalidMemoverCache(ConfigurationError, InvalidCacheBackendError):
    """A `ConfigurationError` in CACHES, which Django knows as its own."""


class MemoverCache(KeyValueFace, BaseCache):
    """A cache backend for Django's `CACHES`.

    * `LOCATION`: a URL as `memover.Cache` takes it, `memory://` when empty.
    * `KEY_PREFIX`: letters, digits, `_ . -`; may be empty, the stored key is then `:version:key`.
    * `VERSION`, `TIMEOUT`, `KEY_FUNCTION`: as in Django; OPTIONS `MAX_ENTRIES` bounds a `memory://` store.
    * `OPTIONS`: the options of `memover.Cache` (`socket_timeout`, `observers`, ...), and `codec`: "pickle" (default: any
      value that pickle takes, signed with SECRET_KEY and verified with SECRET_KEY_FALLBACKS too), "msgpack" (memover's own:
      no code in stored bytes, values it knows), or the dotted path of a codec.

    Raises `InvalidMemoverCache` (a `ConfigurationError`) if a setting is wrong or settings contradict each
    other. Threads have backends of their own that share one connection pool.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        given = params.get("OPTIONS", {})
        options = {name: value for name, value in given.items() if name not in _DJANGOS_OWN}
        if "MAX_ENTRIES" in given or "max_entries" in given:
            options["max_entries"] = self._max_entries
        if not isinstance(server, str):
            raise InvalidMemoverCache(
                f"LOCATION={server!r}: give one URL. Several servers are redis+sentinel://host,host/service or redis+cluster://host,host."
            )
        try:
            self.cache: DjangoCache = shared_cache(server or "memory://", self.key_prefix, options)
        except ConfigurationError as error:
            raise InvalidMemoverCache(str(error)) from error
        self._entries = self.cache._entries
        self.prefix = self.key_prefix

    def __repr__(self) -> str:
        return f"<MemoverCache {self.cache.address} prefix={self.prefix!r} version={self.version}>"

    # -- names and times, Django's way ----------------------------------------------------------------------------------

    def _text(self, key: Any, version: int | None) -> str:
        return check_stored(str(self.make_and_validate_key(key, version=version)))

    def _fresh_for(self, ttl: Any) -> float:
        if ttl is DEFAULT_TIMEOUT or ttl is ...:
            ttl = self.default_timeout
        return math.inf if ttl is None else seconds_of(ttl, "timeout", least=-math.inf)

    def _versions(self, version: int | None, delta: int) -> tuple[int, int]:
        source = self.version if version is None else version
        return source, source + delta

    # -- what takes a timeout -------------------------------------------------------------------------------------------

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """As `KeyValueFace.set`; `UnencodableValue` is also a `pickle.PicklingError`."""
        super().set(key, value, timeout, version)

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """As `KeyValueFace.set_many`."""
        return super().set_many(data, timeout, version)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """As `KeyValueFace.add`."""
        return super().add(key, value, timeout, version)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """As `KeyValueFace.touch`."""
        return super().touch(key, timeout, version)

    def get_or_set(
        self, key: str, default: Any | Callable[[], Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """As `KeyValueFace.get_or_set`."""
        return super().get_or_set(key, default, timeout, version)

    async def aset(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """`set`, awaited."""
        await super().aset(key, value, timeout, version)

    async def aset_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """`set_many`, awaited."""
        return await super().aset_many(data, timeout, version)

    async def aadd(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """`add`, awaited."""
        return await super().aadd(key, value, timeout, version)

    async def atouch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """`touch`, awaited."""
        return await super().atouch(key, timeout, version)

    async def aget_or_set(
        self, key: str, default: Any | Callable[[], Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """`get_or_set`, awaited."""
        return await super().aget_or_set(key, default, timeout, version)

    # -- everything ---------------------------------------------------------------------------------------------------------

    def clear_all(self) -> None:
        """`clear()`, and every namespace that functions of this process have on this alias. See `memover.django.clear_all`."""
        self.clear()
        for namespace in self._namespaces():
            self.cache.invalidate_namespace(namespace)

    async def aclear_all(self) -> None:
        """`clear_all`, awaited."""
        await self.aclear()
        for namespace in self._namespaces():
            await self.cache.ainvalidate_namespace(namespace)

    def _namespaces(self) -> list[str]:
        from memover.django.aliases import places_of_functions

        return [namespace for cache, namespace in places_of_functions() if cache is self.cache]

    # -- the end of a request ---------------------------------------------------------------------------------------------

    def close(self, **_: Any) -> None:
        """Nothing: Django calls it after each request, and connections outlive requests."""

    async def aclose(self, **_: Any) -> None:
        """Nothing, as `close`."""
