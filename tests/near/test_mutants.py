"""The direct tests see a build that is broken. (Histories that see one: test_histories; P3's own: tests/promises.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.near import mutants, test_falling, test_moving

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Cache
    from tests.servers import RedisServer


def test_a_fill_without_tokens_is_seen(
    redis_url: str, cache_of: Callable[..., Cache], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = mutants.fill_without_tokens()
    try:
        with pytest.raises(AssertionError):
            test_moving.test_a_read_that_an_invalidation_overtook_does_not_come_in(
                redis_url, cache_of, prefix, monkeypatch
            )
    finally:
        undo()


def test_a_fence_kept_over_a_fork_is_seen(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    undo = mutants.fence_kept_over_a_fork()
    try:
        with pytest.raises(AssertionError):
            test_falling.test_a_forked_child_begins_anew(redis_url, cache_of)
    finally:
        undo()


def test_a_fence_that_never_falls_is_seen(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    undo = mutants.fence_never_falls()
    try:
        with pytest.raises(AssertionError):
            test_falling.test_no_answer_is_older_than_the_bound("partition", "namespace", start_redis, cache_of)
    finally:
        undo()


@pytest.mark.parametrize("how", ["key", "namespace", "tag"])
def test_an_own_invalidation_by_message_only_is_seen(
    how: str, start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    undo = mutants.own_invalidation_by_message_only()
    try:
        with pytest.raises(AssertionError):
            test_moving.test_the_process_s_own_invalidation_counts_at_once(how, start_redis, cache_of)
    finally:
        undo()
