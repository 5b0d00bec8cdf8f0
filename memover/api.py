"""The wiring: the default cache made from the environment, and the names that `memover` exports.

Everything below is a part; here the parts know one another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ParamSpec

from memover import default
from memover.cache import Cache
from memover.decorator import versioned_cache
from memover.durations import duration_in
from memover.errors import ConfigurationError, InvalidationFailed

__all__ = ["Cache", "configure", "default_cache", "using", "versioned_cache"]

logger = logging.getLogger("memover")
P = ParamSpec("P")


def _typed_as(cache: Callable[P, Cache]) -> Callable[[Callable[..., Cache]], Callable[P, Cache]]:
    """To type checkers, a function that takes what `cache` takes."""
    del cache
    return lambda function: function


@_typed_as(Cache)
def configure(url: str | None = None, **options: Any) -> Cache:
    """Sets the default cache and returns it; the arguments are those of `Cache`.

    What is not given comes from `MEMOVER_URL`, `MEMOVER_PREFIX`, `MEMOVER_VERSION` and `MEMOVER_TTL`, then from `Cache`'s
    own defaults; `MEMOVER_DISABLED=1` turns caching off. It may be called before or after functions are decorated, and
    again: the former default is closed. Raises `ConfigurationError`.
    """
    if url is not None:
        options["url"] = url
    cache = Cache(**{**_environment(), **options})
    former = default.set_default(cache)
    if former is not None:
        try:
            former.close()
        except InvalidationFailed:
            logger.exception("the former default cache was replaced")
    return cache


def default_cache() -> Cache:
    """The cache that decorators without `cache=` use now; made from the environment if nothing was configured."""
    cache: Cache = default.current()
    return cache


@contextmanager
def using(cache: Cache) -> Generator[Cache, None, None]:
    """Makes `cache` the default inside the `with`, for every thread of the process; it is not closed at the end.

    In a Django project every alias of CACHES is that cache inside; a function keeps the codec of its alias. Functions
    decorated with a `Cache` object keep it."""
    default.swap_in(cache)
    try:
        yield cache
    finally:
        default.swap_out(cache)


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
            raise ConfigurationError(
                f"MEMOVER_VERSION={found['version']!r} must be a positive whole number, such as MEMOVER_VERSION=2."
            ) from None
    if "ttl" in found:
        found["ttl"] = duration_in(found["ttl"])
    return found


default.make_with(lambda: Cache(**_environment()))
