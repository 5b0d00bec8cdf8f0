"""The memory store: bounded, the least recently used entry leaves first, any thread may use it."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from memover import Cache, ConfigurationError, versioned_cache


def cached(cache: Cache, namespace: str = "memory") -> tuple[Any, list[int]]:
    runs: list[int] = []

    @versioned_cache(namespace=namespace, cache=cache)
    def f(x: int) -> int:
        runs.append(x)
        return x

    return f, runs


def test_no_more_than_max_entries_are_kept() -> None:
    """max_entries bounds all functions of the cache together; cache_info shows it."""
    cache = Cache(max_entries=10)
    f, _ = cached(cache, "one")
    g, _ = cached(cache, "two")
    for x in range(50):
        f(x)
        g(x)
        assert f.cache_info().currsize <= 10
    info = f.cache_info()
    assert (info.maxsize, info.currsize) == (10, 10)
    assert [x for x in range(50) if f.peek(x)] == [45, 46, 47, 48, 49]


def test_what_was_not_asked_for_again_leaves_first() -> None:
    """A hit is a use, of values handed out as they are and of those decoded anew."""
    for wrap in (lambda x: x, lambda x: [x]):
        cache = Cache(max_entries=3)

        @versioned_cache(namespace="lru", cache=cache)
        def f(x: int, wrap: Any = wrap) -> Any:
            return wrap(x)

        f = versioned_cache(namespace="lru2", cache=cache, ignore=("wrap",))(f.__wrapped__)
        for x in (1, 2, 3):
            f(x)
        f(1)
        f(4)
        assert [x for x in (1, 2, 3, 4) if f.peek(x)] == [1, 3, 4]


def test_a_scan_does_not_empty_the_cache() -> None:
    """What is asked for now and then stays, however many others are asked for once in between."""
    f, runs = cached(Cache(max_entries=20))
    for x in range(10):
        f(x)
    for x in range(1000, 1300):
        f(x % 10)
        f(x)
    assert runs[:10] == list(range(10))
    assert [x for x in runs if x < 10] == list(range(10))
    assert f.cache_info().currsize == 20


def test_a_cache_of_one_entry_works() -> None:
    """The smallest bound."""
    f, runs = cached(Cache(max_entries=1))
    assert [f(1), f(1), f(2), f(2), f(1)] == [1, 1, 2, 2, 1]
    assert runs == [1, 2, 1]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, "10"])
def test_a_wrong_bound_is_refused(wrong: Any) -> None:
    """A whole number of at least 1."""
    with pytest.raises(ConfigurationError, match="max_entries"):
        Cache(max_entries=wrong)


def test_caches_in_memory_are_apart() -> None:
    """Two memory caches share nothing, whatever their prefix."""

    def f(x: int) -> int:
        return x

    first = versioned_cache(namespace="apart", cache=Cache())(f)
    second = versioned_cache(namespace="apart", cache=Cache())(f)
    first(1)
    assert second.peek(1) is None


def test_threads_may_do_anything_at_once() -> None:
    """Calls, sets, invalidations and evictions from eight threads: every answer right, the bound kept, no error."""
    cache = Cache(max_entries=20)

    @versioned_cache(namespace="busy", cache=cache)
    def number(x: int) -> int:
        return x * 2

    @versioned_cache(namespace="busy/list", cache=cache)
    def numbers(x: int) -> list[int]:
        return [x, x * 2]

    errors: list[BaseException] = []
    gate = threading.Barrier(8)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            gate.wait(30)
            for _ in range(400):
                x = chance.randrange(40)
                assert number(x) == x * 2
                assert numbers(x) == [x, x * 2]
                act = chance.randrange(20)
                if act == 0:
                    number.invalidate_all()
                elif act < 3:
                    numbers.invalidate(x)
                elif act < 5:
                    number.set(x * 2, x)
                elif act < 7:
                    entry = numbers.peek(x)
                    assert entry is None or entry.value == [x, x * 2]
                elif act == 7:
                    assert number.refresh(x) == x * 2
                assert number.cache_info().currsize <= 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_threads_and_event_loops_share_one_cache() -> None:
    """A `def` and an `async def` function on one memory cache, from threads and loops at once."""
    cache = Cache(max_entries=50)

    @versioned_cache(namespace="mixed/sync", cache=cache)
    def plain(x: int) -> list[int]:
        return [x]

    @versioned_cache(namespace="mixed/async", cache=cache)
    async def awaited(x: int) -> list[int]:
        await asyncio.sleep(0)
        return [x]

    errors: list[BaseException] = []

    def work() -> None:
        async def loop() -> None:
            for x in range(100):
                assert await awaited(x % 10) == [x % 10]
                assert plain(x % 10) == [x % 10]
                if x % 30 == 0:
                    await awaited.invalidate_all()

        try:
            asyncio.run(loop())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
