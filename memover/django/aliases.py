"""From an alias of `CACHES` to the `memover.Cache` behind it: what `versioned_cache(cache="default")` means.

    BACKEND                     the functions' cache
    --------------------------  ----------------------------------------------------------------------------
    memover.django.MemoverCache the backend's own: connection, prefix and codec
    Django's LocMemCache        one in this process's memory, for tests and development; `MAX_ENTRIES` and `TIMEOUT` count
    Django's DummyCache         one that is turned off: every call runs its function
    any other                   refused

Inside `memover.using(cache)` every alias is that cache; a function keeps its alias's codec. Settings that are overridden inside
that (`override_settings(CACHES=...)`) count again.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from memover import default
from memover.django.backend import MemoverCache
from memover.django.caches import overridden_within, stand_in
from memover.errors import ConfigurationError
from memover.keys.ownership import owners

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memover.cache import Cache

__all__ = ["aclear_all", "cache_of", "clear_all", "codec_of", "places_of_functions"]


def cache_of(alias: str) -> Cache:
    """The cache of an alias. Raises `ConfigurationError` for an unknown alias, or a backend that functions cannot use."""
    cache: Cache | None = default.swapped()
    return own_cache_of(alias) if cache is None or overridden_within(cache) else cache


def own_cache_of(alias: str) -> Cache:
    """The cache of an alias by its settings, whatever `memover.using` says."""
    try:
        backend: Any = caches[alias]
    except InvalidCacheBackendError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cache={alias!r} names no alias of Django's CACHES: {error}") from None
    if isinstance(backend, MemoverCache):
        return backend.cache
    if isinstance(backend, (LocMemCache, DummyCache)):
        return stand_in(alias, backend, enabled=not isinstance(backend, DummyCache))
    raise ConfigurationError(
        f"cache={alias!r} is a {type(backend).__name__}: set its BACKEND to 'memover.django.MemoverCache', or name another alias."
    )


def codec_of(alias: str) -> Any:
    """The codec that functions on an alias use; None where the settings do not name a cache of memover's."""
    try:
        return own_cache_of(alias).codec
    except ConfigurationError:
        return None


def places_of_functions() -> list[tuple[Cache, str]]:
    """The cache and the namespace of each function of this process, called or not."""
    found: dict[tuple[int, str], tuple[Cache, str]] = {}
    for owner in owners():
        with suppress(ConfigurationError):  # an alias that is none: the system check says so, and a call
            place = owner.cache, owner.policy.namespace
            found[id(place[0]), place[1]] = place
    return list(found.values())


def clear_all() -> None:
    """Empty the caches of this project: the key-value entries of every alias, and every namespace that this process knows.

    Tags, and functions that only other processes have, are not touched. One round trip for each alias and namespace.
    Raises `InvalidationFailed` when a store does not acknowledge it, after all the others were asked.
    """
    failed: Exception | None = None
    for clear in _clearing():
        try:
            clear()
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed


async def aclear_all() -> None:
    """`clear_all`, awaited: in a thread, as Django's own asynchronous methods."""
    from asgiref.sync import sync_to_async

    await sync_to_async(clear_all, thread_sensitive=True)()


def _clearing() -> Iterator[Any]:
    for alias in settings.CACHES:
        yield caches[alias].clear
    for cache, namespace in places_of_functions():
        yield partial(cache.invalidate_namespace, namespace)


default.resolve_aliases_with(cache_of, codec_of)
