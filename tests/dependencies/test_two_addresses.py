"""P11 across `Cache` objects: one server under two spellings is one store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
HOW: dict[str, Callable[[Any, Cache], Any]] = {
    "namespace": lambda child, cache: child.invalidate_all(),
    "key": lambda child, cache: child.invalidate(1),
    "tag": lambda child, cache: cache.invalidate_tags("t:1"),
}


@pytest.mark.parametrize("how", HOW)
def test_a_child_at_another_spelling_of_the_address_invalidates_its_parent(
    how: str, redis_server: RedisServer, prefix: str
) -> None:
    """`localhost` and `127.0.0.1` are one server; so is the same with another option in the URL."""
    with (
        Cache(f"redis://127.0.0.1:{redis_server.port}/0", prefix=prefix, **PATIENT) as here,
        Cache(f"redis://localhost:{redis_server.port}/0", prefix=prefix, **PATIENT) as there,
    ):
        source = ["old"]

        @here.versioned(namespace="child", tags=("t:{x}",))
        def child(x: int) -> str:
            return source[0]

        @there.versioned(namespace="parent")
        def parent(x: int) -> str:
            return child(x)

        for _ in range(2):
            assert parent(1) == "old"
        source[0] = "new"
        HOW[how](child, here)
        assert parent(1) == "new"
