"""From an alias of `CACHES` to the `memover.Cache` behind it: what `versioned_cache(cache="default")` means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.cache import InvalidCacheBackendError, caches

from memover.default import resolve_aliases_with
from memover.django.backend import MemoverCache
from memover.errors import ConfigurationError

if TYPE_CHECKING:
    from memover.cache import Cache

__all__ = ["cache_of"]


def cache_of(alias: str) -> Cache:
    """The cache of an alias: its connection, prefix and codec. Raises `ConfigurationError` when it is none of memover's."""
    try:
        backend = caches[alias]
    except InvalidCacheBackendError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cache={alias!r} names no alias of Django's CACHES: {error}") from None
    if not isinstance(backend, MemoverCache):
        raise ConfigurationError(
            f"cache={alias!r} is a {type(backend).__name__}: set its BACKEND to 'memover.django.MemoverCache', or name another alias."
        )
    return backend.cache


resolve_aliases_with(cache_of)
