"""What an entry says for response headers: its age, what is left of its freshness, and an entity tag."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

from memover import Cache, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10) as made:
        yield made


def peeked(entry: Entry | None) -> Entry:
    assert entry is not None
    return entry


def test_age_and_max_age_follow_the_clock(cache: Cache) -> None:
    """Seconds since the load, and seconds left; an entry in its stale window has none left."""

    @cache.versioned(namespace="n", ttl=60, stale_if_error=60)
    def f(n: int) -> int:
        return n

    with freeze_time("2026-01-01") as clock:
        f(1)
        assert (peeked(f.peek(1)).age, peeked(f.peek(1)).max_age) == (0, 60)
        entry = peeked(f.peek(1))
        clock.tick(25)
        assert (entry.age, entry.max_age) == (25, 35)
        clock.tick(45)
        assert entry.max_age == 0


def test_an_entry_without_end_is_fresh_for_ever(cache: Cache) -> None:
    """Infinity, as its instants say."""

    @cache.versioned(namespace="n", ttl=None)
    def f(n: int) -> int:
        return n

    f(1)
    assert peeked(f.peek(1)).max_age == math.inf


def test_the_etag_changes_with_the_stored_value_and_only_with_it(cache: Cache) -> None:
    """Equal for the same value loaded again, in every process; another for another value, call or version."""
    values = {1: "a", 2: "a"}

    @cache.versioned(namespace="n", version=1)
    def f(n: int) -> str:
        return values[n]

    f(1)
    f(2)
    first = peeked(f.peek(1)).etag
    assert first.startswith('"')
    assert first.endswith('"')
    assert peeked(f.peek(1)).etag == first
    f.refresh(1)
    assert peeked(f.peek(1)).etag == first
    assert peeked(f.peek(2)).etag != first
    values[1] = "b"
    f.refresh(1)
    assert peeked(f.peek(1)).etag != first
    f.set("a", 1)
    assert peeked(f.peek(1)).etag == first
