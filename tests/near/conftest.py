"""Caches of one test, closed at its end."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.near.actors import open_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover import Cache


@pytest.fixture
def cache_of(prefix: str) -> Iterator[Callable[..., Cache]]:
    """`cache_of(url)`: a patient cache under the test's prefix."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(open_cache(url, prefix, **options))
