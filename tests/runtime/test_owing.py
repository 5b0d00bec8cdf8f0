"""Invalidations that the store has not acknowledged are repeated until it has (P8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover import Cache
from tests.servers import wait_until

if TYPE_CHECKING:
    from memover.engine.steps import Flow


def test_what_is_owed_is_repeated_whatever_happened(prefix: str) -> None:
    """An exception that no store raises (want of memory) ends one attempt and not the repeating."""
    attempts: list[str] = []

    def repeat() -> Flow[object]:
        attempts.append("made")
        if len(attempts) == 1:
            raise MemoryError
        return acknowledged()

    def acknowledged() -> Any:
        return None
        yield

    with Cache(prefix=prefix) as cache:
        state = cache._state
        state.owe(b"name", repeat)
        wait_until(lambda: not state.witness.owed, "the invalidation to be repeated")
    assert len(attempts) == 2
