"""Caches of their own for tests of Django projects: empty at the beginning of each test, and in no other test's way.

    class ShopTests(IsolatedCaches, TestCase): ...

    with isolated_caches(): ...

With pytest the fixture `memover_cache` does the same.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches as connections
from django.core.cache.backends.locmem import LocMemCache
from django.test.utils import override_settings
from django.utils.module_loading import import_string

from memover import Cache, using
from memover.django.backend import MemoverCache
from memover.django.caches import kept

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["IsolatedCaches", "isolated_caches"]

_NOT_IN_MEMORY = ("wait_replicas",)


@contextmanager
def isolated_caches(cache: Cache | None = None, url: str = "memory://") -> Generator[Cache, None, None]:
    """Inside, decorated functions use `cache` (default: an empty one in memory), whatever alias or default cache they name,
    and each alias that is memover's, or Django's in this process's memory, is empty, with memover's at `url`.

    Functions that were decorated with a `Cache` of their own keep it."""
    prefix = f"test-{secrets.token_hex(6)}"
    caches: dict[str, Any] = {}
    in_memory: list[str] = []
    for alias, configured in settings.CACHES.items():
        caches[alias] = configured
        backend = import_string(configured["BACKEND"])
        if isinstance(backend, type) and issubclass(backend, MemoverCache):
            given = configured.get("OPTIONS", {})
            options = {name: value for name, value in given.items() if name not in _NOT_IN_MEMORY}
            # Aliases that share a place in the settings share one here.
            place = configured.get("KEY_PREFIX", "")
            caches[alias] = {
                **configured,
                "LOCATION": url,
                "KEY_PREFIX": f"{prefix}-{place}" if place else prefix,
                "OPTIONS": options,
            }
        elif isinstance(backend, type) and issubclass(backend, LocMemCache):
            caches[alias] = {**configured, "LOCATION": f"test-{configured.get('LOCATION', '')}"}
            in_memory.append(alias)
    with ExitStack() as stack:
        # Last of all: what was in this process's memory before is there again afterwards.
        stack.enter_context(kept())
        stack.enter_context(override_settings(CACHES=caches))
        for alias in in_memory:
            connections[alias].clear()
            stack.callback(connections[alias].clear)
        if cache is None:
            cache = stack.enter_context(Cache("memory://", prefix=prefix, enabled=True))
        stack.enter_context(using(cache))
        yield cache


class IsolatedCaches:
    """A mixin for Django's test cases, before `TestCase` among the bases: each test has caches of its own, its `setUp` and
    `tearDown` included. What `setUpClass` and `setUpTestData` put into a cache, tests do not see.

    `self.memover_cache` is the cache that decorated functions use."""

    memover_cache: Cache

    # Around the whole test, not in `setUp`: a test case that has one of its own and calls no `super().setUp()` has caches too.

    def run(self, result: Any = None) -> Any:
        """Runs the test inside `isolated_caches`."""
        with isolated_caches() as self.memover_cache:
            above: Any = super()
            return above.run(result)

    def debug(self) -> None:
        """As `run`, for runners that let a test's errors through."""
        with isolated_caches() as self.memover_cache:
            above: Any = super()
            above.debug()
