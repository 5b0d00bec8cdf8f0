"""memover: memoization that is shared between processes, versioned in the source, and invalidated in one command.

    from memover import versioned_cache

    @versioned_cache(namespace="profiles", version=2, ttl="5m")
    def profile(user_id: int) -> Profile: ...
"""

from memover.cache import Cache
from memover.cached import AsyncCachedFunction, CachedFunction
from memover.codec import register_value
from memover.config import configure, default_cache, using
from memover.decorator import versioned_cache
from memover.drivers.tracking import depends_on
from memover.errors import (
    ConfigurationError,
    InvalidationFailed,
    MemoverError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UnencodableValue,
    UnkeyableArgument,
)
from memover.keys.canonical import register_key
from memover.model import CacheInfo, Call, Entry, Event, Generation, NotCached, Source

__version__ = "0.1.0"

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
