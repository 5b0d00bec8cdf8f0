"""A namespace that is misspelt in an invalidation is not taken for one that there is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from memover import Cache, MemoverWarning

if TYPE_CHECKING:
    from tests.face.ways import Way


def test_a_namespace_that_no_function_has_is_warned_of_with_the_nearest(way: Way) -> None:
    """It is invalidated all the same: another process may have it."""
    way.run(way.cached(namespace="profiles")(lambda x: x)(1))

    async def awaited() -> None:
        await way.cache.ainvalidate_namespace("profilez")

    def invalidate() -> None:
        if way.is_async:
            way.run(awaited())
        else:
            way.cache.invalidate_namespace("profilez")

    with pytest.warns(MemoverWarning, match="did you mean 'profiles'"):
        invalidate()


def test_the_namespaces_of_its_functions_are_known(way: Way) -> None:
    """And nothing is said by a process that has no functions: it invalidates for others."""
    way.run(way.cached(namespace="profiles")(lambda x: x)(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way.cache.invalidate_namespace("profiles")
        Cache(prefix="none").invalidate_namespace("whatever")
