"""The default cache: the one that a decorator without `cache=` uses, whenever it is configured.

Functions on the default cache ask for it when they are first called, and again after `configure` or `using` has
changed it; in between they hold on to it, so that a call costs nothing extra.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

from memover.cache import Cache
from memover.errors import ConfigurationError, InvalidationFailed

__all__ = ["changed", "configure", "default_cache", "follow", "named", "using"]


class Follower(Protocol):
    """Whoever holds on to the default cache and must let go of it when it changes."""

    def let_go(self) -> None: ...


logger = logging.getLogger("memover")

_lock = threading.RLock()
_configured: Cache | None = None
_swapped: list[Cache] = []
_followers: weakref.WeakSet[Any] = weakref.WeakSet()


def configure(url: str | None = None, **options: Any) -> Cache:
    """Set the default cache and return it; the arguments are those of `Cache`.

    What is not given comes from `MEMOVER_URL`, `MEMOVER_PREFIX`, `MEMOVER_VERSION` and `MEMOVER_TTL`, then from `Cache`'s
    own defaults; `MEMOVER_DISABLED=1` turns caching off. It may be called before or after functions are decorated, and
    again: the former default is closed. Raises `ConfigurationError`.
    """
    global _configured  # there is one default cache
    if url is not None:
        options["url"] = url
    cache = Cache(**{**_environment(), **options})
    with _lock:
        former, _configured = _configured, cache
        _changed()
    if former is not None:
        try:
            former.close()
        except InvalidationFailed:
            logger.exception("the former default cache was replaced")
    return cache


def default_cache() -> Cache:
    """The cache that decorators without `cache=` use now; made from the environment if nothing was configured."""
    global _configured  # noqa: PLW0603  # there is one default cache
    with _lock:
        if _swapped:
            return _swapped[-1]
        if _configured is None:
            _configured = Cache(**_environment())
        return _configured


@contextmanager
def using(cache: Cache) -> Generator[Cache, None, None]:
    """Make `cache` the default inside the `with`, for every thread of the process; it is not closed at the end."""
    with _lock:
        _swapped.append(cache)
        _changed()
    try:
        yield cache
    finally:
        with _lock:
            # By identity and from the end: blocks of several threads may overlap.
            for at in range(len(_swapped) - 1, -1, -1):
                if _swapped[at] is cache:
                    del _swapped[at]
                    break
            _changed()


def settled() -> bool:
    """Whether there is a default cache already; asking does not make one."""
    with _lock:
        return bool(_swapped) or _configured is not None


def named(alias: str) -> Cache:
    """The cache behind an alias of Django's CACHES. Raises `ConfigurationError`."""
    try:
        from memover.django.aliases import cache_of
    except ImportError as error:
        raise ConfigurationError(
            f"cache={alias!r} names an alias of Django's CACHES, and Django is not to be had ({error}): install memover[django], "
            f"or give a Cache."
        ) from None
    return cache_of(alias)


def changed() -> None:
    """What an alias stands for has changed: who holds on to it asks again."""
    with _lock:
        _changed()


def follow(follower: Follower) -> None:
    """Have `follower.let_go()` called whenever the default cache changes."""
    with _lock:
        _followers.add(follower)


def followers() -> list[Any]:
    """Whoever follows the default cache."""
    with _lock:
        return list(_followers)


def _changed() -> None:
    for follower in list(_followers):
        follower.let_go()


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in ("url", "prefix", "ttl", "version"):
        text = os.environ.get(f"MEMOVER_{option.upper()}")
        if text:
            found[option] = text
    if "version" in found:
        try:
            found["version"] = int(found["version"])
        except ValueError:
            raise ConfigurationError(f"MEMOVER_VERSION={found['version']!r} must be a positive whole number.") from None
    if "ttl" in found:
        if found["ttl"].lower() in ("none", "never"):
            found["ttl"] = None
        else:
            try:
                found["ttl"] = float(found["ttl"])
            except ValueError:
                pass  # text such as "1h30m", which Cache reads itself
    return found
