"""What the growth tests run in processes of their own; each returns what was held before and after."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
import warnings
import weakref
from typing import Any

from memover import Cache, definition
from memover.engine import tokens
from memover.keys import binding, places
from memover.runtime import state
from tests.growth.counting import held, settled

PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}


def keys_and_tags(url: str, prefix: str, count: int, ttl: float, bound: int) -> Any:
    """`count` calls with a tag each and a parent each, their tags invalidated now and then; the most of each kind of object
    that was held in each half.

    What is bounded is emptied now and then, so that two moments cannot be compared: its peaks can."""

    _bounded(bound)

    async def whole() -> Any:
        cache = Cache(url, prefix=prefix, max_entries=bound or 1000, ttl=ttl, **PATIENT)

        @cache.versioned(namespace="child", tags=("item:{x}",))
        async def child(x: int) -> int:
            return x

        @cache.versioned(namespace="parent")
        async def parent(x: int) -> int:
            return await child(x)

        async def some(first: int, last: int) -> dict[str, int]:
            most: dict[str, int] = {}
            for number, start in enumerate(range(first, last, 250)):
                await asyncio.gather(*(parent(x) for x in range(start, min(start + 250, last))))
                await cache.ainvalidate_tags(f"item:{start}", f"nobody:{start}")
                await child.invalidate(start)
                if number % max((last - first) // 10_000, 1) == 0:
                    most = {kind: max(number, most.get(kind, 0)) for kind, number in {**most, **held()}.items()}
            return most

        before = await some(0, count // 2)
        after = await some(count // 2, count)
        await cache.aclose()
        return [before, after]

    return asyncio.run(whole())


def _bounded(bound: int) -> None:
    """Lower the bounds of what is remembered of what is gone, so that a few of them go past it; 0 leaves them as they are."""
    if bound:
        binding.MEMO_LIMIT = places.GONE_LIMIT = bound
        tokens.SEEN_LIMIT = bound
        definition.VERSIONS_LIMIT = state.VERSIONS_LIMIT = bound


def functions_and_namespaces(url: str, prefix: str, count: int, bound: int) -> Any:
    """`count` functions, each with a namespace of its own, decorated, called, invalidated and dropped.

    What stays of each is looked at up to three times, and the least counts: what is imported or kept once is no leak."""
    _bounded(bound)
    cache = Cache(url, prefix=prefix, max_entries=30, **PATIENT)

    def one(number: int) -> None:
        @cache.versioned(namespace=f"gone{number}", tags=("t:{x}",))
        def f(x: int) -> int:
            return x

        @cache.versioned(namespace=f"user{number}")
        def g(x: int) -> int:
            return f(x)

        assert g(1) == f(1) == 1
        f.invalidate(1)
        f.invalidate_all()

    warm = bound or count // 10  # past every bound
    tracemalloc.start()

    def one_after_another(first: int, last: int) -> None:
        for number in range(first, last):
            one(number)
            # A function is in a cycle with its call, and that it is gone is seen when the next one is decorated.
            if number % 200 == 0 or number >= last - 2:
                gc.collect()

    one_after_another(0, warm)
    rounds: list[Any] = []
    for first in range(warm, warm + 3 * count, count):
        before, bytes_before = held(), tracemalloc.get_traced_memory()[0]
        one_after_another(first, first + count)
        after = settled(lambda now, was=before: now["objects"] - was["objects"] < count, 5)
        rounds.append([before, after, (tracemalloc.get_traced_memory()[0] - bytes_before) / count])
        if rounds[-1][2] < 500:
            break
    return min(rounds, key=lambda each: float(each[2]))


def caches(url: str, prefix: str, count: int, bound: int) -> Any:
    """`count` caches, used by threads and by a loop, closed and dropped."""
    _bounded(bound)
    made: list[Any] = []

    def one(number: int) -> None:
        cache = Cache(url, prefix=f"{prefix}{number}", **PATIENT)
        made.append(weakref.ref(cache._state.store))

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            return x

        @cache.versioned(namespace="g")
        async def g(x: int) -> int:
            return x

        async def awaited() -> None:
            await g(1)
            await cache.aclose()

        f(1)
        cache.set("k", 1)
        asyncio.run(awaited())
        cache.close()

    def some(first: int, last: int) -> dict[str, int]:
        for number in range(first, last):
            one(number)
        settled(lambda _: all(each() is None for each in made))
        made.clear()
        one(last)  # what is gone is forgotten when the next function is decorated
        return settled(lambda _: all(each() is None for each in made))

    warm = bound or count // 10  # past every bound
    return [some(0, warm), some(warm + 1, warm + count)]


def threads(url: str, prefix: str, count: int) -> Any:
    """`count` threads that each call once and end."""
    cache = Cache(url, prefix=prefix, **PATIENT)

    @cache.versioned(namespace="f", tags=("t:{x}",))
    def f(x: int) -> int:
        return x

    def some(number: int) -> None:
        together = [threading.Thread(target=f, args=(number % 7,)) for _ in range(10)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()

    for number in range(3):
        some(number)
    before = held()
    for number in range(count // 10):
        some(number)
    after = settled(
        lambda now: now["threads"] <= before["threads"] and now["descriptors"] <= before["descriptors"] + 12
    )
    loads = f.cache_info().loads
    f(1)
    assert f.cache_info().loads == loads, "the entry is there, and the function ran"
    return [before, after]


def loops(url: str, prefix: str, count: int, how: str) -> Any:
    """`count` event loops, ended in one of four ways: `asyncio.run`, closed plainly, closed with a load in flight, or
    dropped without being closed."""
    warnings.simplefilter("ignore")  # what asyncio says of loops that are left like this
    cache = Cache(url, prefix=prefix, lease_ttl=1.0, wait_timeout=60.0, **PATIENT)
    slow = False

    @cache.versioned(namespace="f")
    async def f(x: int) -> int:
        if slow and x == 2:
            await asyncio.sleep(3600)
        return x

    async def leave_it() -> None:
        task = asyncio.get_running_loop().create_task(f(2))
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert not task.done()

    seen: list[Any] = []

    def one() -> None:
        nonlocal slow
        if how == "run":
            asyncio.run(f(1))
            return
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(f(1)) == 1
        if how == "in flight":
            slow = True
            loop.run_until_complete(leave_it())
            slow = False
        if how != "dropped":
            loop.close()
        seen.append(weakref.ref(loop))

    # Whoever is left waiting for a load of an abandoned loop polls for its lease: its end is waited for, not the minute.
    for _ in range(3):
        one()
    before = held()
    for _ in range(count):
        one()
    if how == "dropped":
        gc.collect()
        asyncio.run(f(1))  # what the dropped ones had open is closed when another loop first uses the store
    after = settled(
        lambda now: now["objects"] - before["objects"] < 10 * count and now["descriptors"] <= before["descriptors"] + 2,
        5,
    )
    alive = sum(one() is not None for one in seen)
    began = time.monotonic()
    value = asyncio.run(f(2))
    return [before, after, alive, value, time.monotonic() - began]
