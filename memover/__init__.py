"""memover: memoization that is shared between processes, versioned in the source, and invalidated in one command.

from memover import versioned_cache

@versioned_cache(namespace="profiles", version=2, ttl="5m")
def profile(user_id: int) -> Profile: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.later import late_names

if TYPE_CHECKING:
    from memover.api import Cache, configure, default_cache, using, versioned_cache
    from memover.cached import AsyncCachedFunction, CachedFunction
    from memover.classes.registered import register_value
    from memover.errors import (
        ConfigurationError,
        InvalidationFailed,
        MemoverError,
        MemoverWarning,
        StoreError,
        StoreTimeout,
        StoreUnavailable,
        UnencodableValue,
        UnkeyableArgument,
    )
    from memover.keys.canonical import register_key
    from memover.model import CacheInfo, Call, Entry, Event, Generation, NotCached, Source
    from memover.runtime.dependencies import depends_on

__version__ = "0.1.0"

# Names are loaded when first asked for: a program that imports memover pays for what it uses of it.
_NAMES = {
    "memover.api": "Cache configure default_cache using versioned_cache",
    "memover.cached": "AsyncCachedFunction CachedFunction",
    "memover.classes.registered": "register_value",
    "memover.errors": "ConfigurationError InvalidationFailed MemoverError MemoverWarning StoreError StoreTimeout StoreUnavailable "
    "UnencodableValue UnkeyableArgument",
    "memover.keys.canonical": "register_key",
    "memover.model": "CacheInfo Call Entry Event Generation NotCached Source",
    "memover.runtime.dependencies": "depends_on",
}

__all__ = [
    "AsyncCachedFunction",
    "Cache",
    "CacheInfo",
    "CachedFunction",
    "Call",
    "ConfigurationError",
    "Entry",
    "Event",
    "Generation",
    "InvalidationFailed",
    "MemoverError",
    "MemoverWarning",
    "NotCached",
    "Source",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "UnencodableValue",
    "UnkeyableArgument",
    "configure",
    "depends_on",
    "default_cache",
    "register_key",
    "register_value",
    "using",
    "versioned_cache",
]

__getattr__ = late_names(__name__, {name: home for home, names in _NAMES.items() for name in names.split()})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
