"""Invalidations that the store has not acknowledged are repeated until it has (P8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.interrupts.striking import places, strike
from tests.servers import wait_until

if TYPE_CHECKING:
    from memover.engine.steps import Flow


def test_an_interruption_while_it_is_noted_does_not_end_the_repeating(prefix: str) -> None:
    """At whatever bytecode: what is owed after that is repeated."""

    class Later:
        running = True
        asked = 0

        def later(self, seconds: float, run: Any) -> None:
            self.asked += 1

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Cache(prefix=prefix) as cache:
        state: Any = cache._state
        repeat: Any = lambda: None  # noqa: E731
        state.background = Later()
        record = places(lambda: state.owe(b"name", repeat))
        for at in range(len(record)):
            state._repeating = False
            state.background = Later()
            with pytest.raises(KeyboardInterrupt):
                strike(lambda: state.owe(b"name", repeat), at, interrupt)
            state.owe(b"other", repeat)
            assert state.background.asked, record[at]
        state.witness.owed.clear()


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
