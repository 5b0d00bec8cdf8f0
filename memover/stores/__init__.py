"""The stores, and which of them a URL names: `memory`, `sqlite` and `redis`. What they must be able to do is in `engine.store`.

`near` is the tier before a shared store, `near_items` what is in it, and `feed` what it asks of a store; `sieve` says which entry
leaves where there is no room, `breaker` holds calls back from a server that does not answer, `survey` looks through a store from
outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.errors import ConfigurationError
from memover.keys.shards import check_shards
from memover.options import at_least
from memover.stores.memory import MemoryStore

if TYPE_CHECKING:
    from memover.engine.store import Store

__all__ = ["address_of", "store_kind", "open_store"]

_REDIS_SCHEMES = (
    "unix://",
    *(
        f"{family}{topology}://"
        for family in ("redis", "rediss", "valkey", "valkeys")
        for topology in ("", "+sentinel", "+cluster")
    ),
)


def store_kind(url: str) -> str:
    """The package of the store that a URL names: "memory", "sqlite" or "redis". Raises `ConfigurationError`."""
    text = url.lower()
    if text.startswith(_REDIS_SCHEMES):
        return "redis"
    if text.startswith("sqlite:"):
        return "sqlite"
    if text in ("memory://", "memory:///"):
        return "memory"
    raise unknown_scheme(url)


def open_store(
    url: str, *, max_entries: int, wait_replicas: int, max_bytes: int | None, generation_shards: int, **limits: Any
) -> Store:
    """The store that a URL names; nothing is connected yet. Raises `ConfigurationError`."""
    kind = store_kind(url)
    at_least(0, wait_replicas, "wait_replicas")
    check_shards(generation_shards)
    scheme = url.partition(":")[0]
    if max_bytes is not None and kind != "sqlite":
        raise ConfigurationError(f"max_bytes={max_bytes!r} bounds a SQLite file; {scheme} has none: leave it out.")
    if wait_replicas and kind != "redis":
        raise ConfigurationError(f"wait_replicas={wait_replicas!r}: {scheme}:// has no replicas; leave it out.")
    # Imported here so that `import memover` and the memory store need neither redis-py nor sqlite3.
    if kind == "redis":
        from memover.stores.redis import RedisStore
        from memover.stores.redis.limits import Limits
        from memover.stores.redis.url import parse_url

        if limits["breaker_last_seconds"] < limits["breaker_first_seconds"]:
            raise ConfigurationError("breaker_last= must not be less than breaker_first=.")
        return RedisStore(
            parse_url(url), Limits(wait_replicas=wait_replicas, generation_shards=generation_shards, **limits)
        )
    if kind == "sqlite":
        from memover.stores.sqlite import limits as sqlite_limits
        from memover.stores.sqlite.store import SqliteStore
        from memover.stores.sqlite.url import parse_url as parse_path

        return SqliteStore(
            parse_path(url),
            sqlite_limits.Limits(
                max_bytes=1 << 30 if max_bytes is None else max_bytes,
                lock_timeout=limits["socket_timeout"],
                breaker_first_seconds=limits["breaker_first_seconds"],
                breaker_last_seconds=limits["breaker_last_seconds"],
            ),
        )
    return MemoryStore(max_entries)


def address_of(url: str) -> str:
    """Where the store of a URL is, without credentials and without opening it. Raises `ConfigurationError`."""
    kind = store_kind(url)
    if kind == "redis":
        from memover.stores.redis.url import parse_url

        return parse_url(url).address
    if kind == "sqlite":
        from memover.stores.sqlite.url import parse_url as parse_path

        return f"sqlite:///{parse_path(url)}"
    return "memory://"


def unknown_scheme(url: str) -> ConfigurationError:
    """The error for a URL of another scheme."""
    from memover.spelling import url as spelled

    scheme = url.partition(":")[0].rpartition("@")[2][:20]  # and nothing around it, which may be a password
    meant = spelled(url)
    wrong = f"No store for the scheme {scheme!r}" if "://" in url or not meant else "The store's URL has no scheme"
    return ConfigurationError(
        f"{wrong}: {f'did you mean {meant}? There are' if meant else 'use'} memory://, sqlite:///file.db, redis://, rediss://, unix://, redis+sentinel:// or "
        f"redis+cluster:// (or the valkey spellings)."
    )
