"""What `cache_if=` and `ttl=` answer is not awaited: a coroutine is true, so that every result would be stored."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from memover import Cache, ConfigurationError


async def awaited(result: Any, call: Any) -> bool:
    return False


class Awaited:
    async def __call__(self, result: Any, call: Any) -> bool:
        return False


@pytest.mark.parametrize("option", ["cache_if", "ttl"])
@pytest.mark.parametrize(
    "decide",
    [awaited, partial(awaited), Awaited(), Awaited().__call__],
    ids=["function", "partial", "object", "method"],
)
def test_a_callable_that_is_to_be_awaited_is_refused_at_decoration(option: str, decide: Any) -> None:
    """For functions of either kind."""
    options: Any = {option: decide}

    async def slow() -> int:
        return 1

    for function in (slow, lambda: 1):
        with pytest.raises(ConfigurationError, match=f"{option}= takes a callable that is not awaited: write def"):
            Cache().versioned(namespace="f", **options)(function)
