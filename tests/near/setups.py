"""What happens in a history's process before anything else does."""

from __future__ import annotations

from typing import Any

from memover.stores.redis.resp import Reader3
from memover.testing.worker import Callers
from tests.near import mutants


def deaf(index: int) -> None:
    """No push is ever taken in: every message is lost, and heartbeats alone keep the bound. And process 1 only reads: by its
    own invalidations it would hear of what it is to be late with, or close its tier while they fail."""
    real = Reader3._parse
    if index == 1:
        make = Callers.__init__

        def init(self: Callers, told: dict[str, Any]) -> None:
            make(self, {**told, "changes": 0.0})

        Callers.__init__ = init  # type: ignore[method-assign]

    def parse(self: Reader3, at: int, depth: int) -> object:
        answer, end = real(self, at, depth)
        if depth == 0 and type(answer).__name__ == "Push":
            answer[:] = [b"lost"]
        return answer, end

    Reader3._parse = parse  # type: ignore[assignment, method-assign]


def deaf_and_never_falling(index: int) -> None:
    deaf(index)
    mutants.fence_never_falls(index)


def deaf_and_by_message_only(index: int) -> None:
    deaf(index)
    mutants.own_invalidation_by_message_only(index)


def deaf_and_blind(index: int) -> None:
    deaf(index)
    mutants.the_token_of_all_is_not_looked_at(index)


def without_the_call_s_token(index: int) -> None:
    mutants.without_the_call_s_token(index)
