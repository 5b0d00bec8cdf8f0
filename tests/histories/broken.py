"""Builds with one option broken, from the outside: what is replaced is the face, so that they outlive any change inside."""

from __future__ import annotations

from typing import Any

import memover.cached
from memover.cache import Cache


def tags_from_results_are_dropped(index: int) -> None:
    """A tag that is known from the result does not enter the entry."""
    real = Cache.__dict__["versioned"]

    def versioned(self: Cache, **options: Any) -> Any:
        options["tags"] = tuple(tag for tag in options.get("tags", ()) if not callable(tag))
        return real(self, **options)

    Cache.versioned = versioned  # type: ignore[method-assign,assignment]


def max_age_is_ignored(index: int) -> None:
    """`max_age` accepts whatever is there."""
    for face in (memover.cached.CachedFunction, memover.cached.AsyncCachedFunction):
        face.max_age = lambda self, seconds: self  # type: ignore[method-assign,assignment]


def soft_for_hard(index: int) -> None:
    """Every invalidation of a namespace is a soft one."""
    for face in (memover.cached.CachedFunction, memover.cached.AsyncCachedFunction):
        real = face.invalidate_all

        def invalidate_all(self: Any, *, soft: bool = False, real: Any = real) -> Any:
            return real(self, soft=True)

        face.invalidate_all = invalidate_all  # type: ignore[method-assign]
