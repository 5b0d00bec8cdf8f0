"""What the processes of the races run; importable by a child, arguments and results are JSON."""

from __future__ import annotations

import os
from typing import Any

from memover import Cache
from tests.servers import hear, say


def _cache(url: str, prefix: str) -> Cache:
    return Cache(url, prefix=prefix, socket_timeout=30.0, socket_connect_timeout=30.0)


def count_up(url: str, prefix: str, times: int) -> list[Any]:
    """Count a plain integer and a float; the integers that were answered."""
    with _cache(url, prefix) as cache:
        answers = []
        for _ in range(times):
            answers.append(cache.incr("n"))
            cache.decr("down", 2)
            if len(answers) % 4 == 0:
                cache.incr("x", 0.5)
        return answers


def add_all(url: str, prefix: str, keys: int, index: int) -> list[int]:
    """Add to every key; the keys that this process was told are its own."""
    with _cache(url, prefix) as cache:
        return [key for key in range(keys) if cache.add(f"k{key}", index)]


def compute_all(url: str, prefix: str, keys: int, index: int) -> list[list[Any]]:
    """`get_or_set` on every key: what was got, and which keys were computed here."""
    computed: list[int] = []
    got: list[Any] = []
    with _cache(url, prefix) as cache:
        for key in range(keys):

            def compute(key: int = key) -> list[int]:
                computed.append(key)
                return [key, index, os.getpid()]

            got.append(cache.get_or_set(f"k{key}", compute))
    return [got, computed]


def move_all(url: str, prefix: str, keys: int) -> list[int]:
    """`incr_version` on every key; the keys that this process was told it moved."""
    moved = []
    with _cache(url, prefix) as cache:
        for key in range(keys):
            try:
                assert cache.incr_version(f"k{key}") == 2
                moved.append(key)
            except ValueError:
                pass
    return moved


def move_back_and_forth(url: str, prefix: str, times: int) -> int:
    """Move one key up and down; how often it was in neither place for us to move."""
    missed = 0
    with _cache(url, prefix) as cache:
        for _ in range(times):
            for move in (cache.incr_version, cache.decr_version):
                version = 1 if move == cache.incr_version else 2
                try:
                    move("k", version=version)
                except ValueError:
                    missed += 1
    return missed


def compute_slowly(url: str, prefix: str) -> Any:
    """A `get_or_set` whose computation waits for a word."""

    def compute() -> str:
        say("computing")
        hear("go on")
        return "computed"

    with _cache(url, prefix) as cache:
        return cache.get_or_set("k", compute)


def clear_over_and_over(url: str, prefix: str, times: int, index: int) -> int:
    """Set under an own key, clear now and then; how often one's own set was missing though nobody cleared since."""
    with _cache(url, prefix) as cache:
        for turn in range(times):
            cache.set(f"k{index}", turn)
            cache.clear()
            if cache.get(f"k{index}") is not None:
                return turn
    return -1
