"""Hits answered together beside hits answered one by one, on Redis: `python benchmarks/bench_map.py`.

1,000 calls of `map` against 1,000 calls, in rounds that take turns: without tags, with two tags known from the arguments
(one of them of each call alone), with a stale window, and with what each entry depends on. Ratios of medians.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import memover
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS, ROUNDS = 1_000, 9
PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}


def show(title: str, ones: list[float], many: list[float]) -> None:
    one, together = statistics.median(ones) / CALLS, statistics.median(many) / CALLS
    print(f"{title:34} a call {one * 1e6:7.1f} us   in a map {together * 1e6:6.1f} us   x {one / together:5.1f}")


def kinds(cache: memover.Cache) -> dict[str, Callable[..., Any]]:
    @memover.versioned_cache(namespace="used", cache=cache)
    def used(user_id: int) -> int:
        return user_id

    @memover.versioned_cache(namespace="plain", cache=cache)
    def plain(user_id: int) -> dict[str, Any]:
        return PROFILE

    @memover.versioned_cache(namespace="tagged", cache=cache, tags=("user:{user_id}", "all"))
    def tagged(user_id: int) -> dict[str, Any]:
        return PROFILE

    @memover.versioned_cache(namespace="stale", cache=cache, stale_while_revalidate=30)
    def stale(user_id: int) -> dict[str, Any]:
        return PROFILE

    @memover.versioned_cache(namespace="dependent", cache=cache)
    def dependent(user_id: int) -> dict[str, Any]:
        used(user_id % 10)
        return PROFILE

    return {"plain": plain, "two tags": tagged, "a stale window": stale, "depends on another": dependent}


def main() -> None:
    numbers = range(CALLS)
    with RedisServer(unix_socket=True) as server, memover.Cache(server.url, socket_timeout=10) as cache:
        for title, function in kinds(cache).items():
            called: Any = function
            called.map(numbers)
            ones, many = [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for number in numbers:
                    called(number)
                ones.append(time.perf_counter() - began)
                began = time.perf_counter()
                assert called.map(numbers) == [PROFILE] * CALLS
                many.append(time.perf_counter() - began)
            assert called.cache_info().loads == CALLS
            show(title, ones, many)

        @memover.versioned_cache(namespace="atagged", cache=cache, tags=("user:{user_id}", "all"))
        async def atagged(user_id: int) -> dict[str, Any]:
            return PROFILE

        async def of_tasks() -> None:
            await atagged.map(numbers)
            ones, many = [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for number in numbers:
                    await atagged(number)
                ones.append(time.perf_counter() - began)
                began = time.perf_counter()
                await atagged.map(numbers)
                many.append(time.perf_counter() - began)
            show("async def, two tags", ones, many)
            await cache.aclose()

        asyncio.run(of_tasks())


if __name__ == "__main__":
    main()
