"""The ways of using memover, `def` and `async def` functions on each store, and the fixtures that run a test in several of them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ASYNC",
    "EVERY",
    "REDIS",
    "SYNC",
    "PatientWay",
    "Way",
    "counted",
    "url_of",
    "waiting_threads",
    "way_of_fixture",
    "ways",
]

SYNC = ("memory-sync", "sqlite-sync", "redis-sync")
ASYNC = ("memory-async", "sqlite-async", "redis-async")
REDIS = ("redis-sync", "redis-async")
EVERY = ("memory-sync", "memory-async", "sqlite-sync", "sqlite-async", *REDIS)


def url_of(request: pytest.FixtureRequest, store: str) -> str:
    """Where a test's store is: memory, a file of the test's own, or the Redis that tests share."""
    if store == "memory":
        return "memory://"
    if store == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/store.db"
    url: str = (
        request.getfixturevalue("redis_cluster").url if store == "cluster" else request.getfixturevalue("redis_url")
    )
    return url


class Way:
    """One way: a cache, and decorators that make of each `def` function what the way is about.

    `run` turns what a call or a helper gives into its result, so that one test is written for all the ways:
    `run(f(1))`, `run(f.peek(1))`. Its event loop is one for the whole test.
    """

    def __init__(self, url: str, *, is_async: bool, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.is_async = is_async
        self.is_shared = not url.startswith("memory:")
        self.is_redis = not url.startswith(("memory:", "sqlite:"))
        self.loop = asyncio.new_event_loop() if is_async else None
        self._caches: list[Cache] = []
        self.cache = self.new_cache()

    def new_cache(self, **options: Any) -> Cache:
        """Another cache on the same Redis and prefix; on the memory store, one of its own."""
        cache = Cache(self.url, **{"prefix": self.prefix, **options})
        self._caches.append(cache)
        return cache

    def cached(self, namespace: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """`versioned_cache(...)` on this way's cache, over the function in its flavour."""
        options = {"cache": self.cache, "namespace": namespace or f"n{secrets.token_hex(4)}", **options}
        from memover import versioned_cache

        decorate = versioned_cache(**options)
        return lambda function: decorate(self.flavoured(function))

    def flavoured(self, function: Any) -> Any:
        """The function itself, or a coroutine function that does the same."""
        if not self.is_async:
            return function
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self.flavoured(function.__func__))

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return awaited

    def run(self, value: Any) -> Any:
        """The result of a call or helper, awaited if it must be."""
        if not inspect.isawaitable(value):
            return value
        assert self.loop is not None, "a `def` function's helper gave something to await"

        async def whole() -> Any:
            return await value

        return self.loop.run_until_complete(whole())

    def close(self) -> None:
        for cache in self._caches:
            if self.loop is not None:
                self.loop.run_until_complete(cache.aclose())
            else:
                cache.close()
        if self.loop is not None:
            self.loop.close()


def waiting_threads() -> int:
    """How many threads wait for another's load."""

    def waits(frame: Any) -> bool:
        while isinstance(frame, FrameType):  # a thread goes on while it is looked at
            if frame.f_code.co_name == "await_flight":
                return True
            frame = frame.f_back
        return False

    return sum(map(waits, sys._current_frames().values()))


def counted(way: Way, **options: Any) -> tuple[Any, list[int]]:
    """A function of one argument, and the arguments of its loads so far."""
    loads: list[int] = []

    @way.cached(**options)
    def f(x: int) -> list[int]:
        loads.append(x)
        return [x, len(loads)]

    return f, loads


class PatientWay(Way):
    """A way whose caches wait for the store for as long as a test may take: a busy machine is no outage."""

    def new_cache(self, **options: Any) -> Cache:
        if self.is_shared:
            options = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0, **options}
        return super().new_cache(**options)


def ways(kind: type[Way], params: tuple[str, ...]) -> Any:
    """A fixture that runs a test in each of these ways."""

    @pytest.fixture(params=params)
    def way(request: pytest.FixtureRequest, prefix: str) -> Iterator[Way]:
        store, flavour = request.param.split("-")
        way = kind(url_of(request, store), is_async=flavour == "async", prefix=prefix)
        yield way
        way.close()

    return way


def way_of_fixture(kind: type[Way]) -> Any:
    """The fixture `way_of(url)`: a way in both flavours on a store of the test's own."""

    @pytest.fixture(params=["sync", "async"])
    def way_of(request: pytest.FixtureRequest, prefix: str) -> Iterator[Callable[[str], Way]]:
        made: list[Way] = []

        def make(url: str) -> Way:
            made.append(kind(url, is_async=request.param == "async", prefix=prefix))
            return made[-1]

        yield make
        for way in made:
            way.close()

    return way_of
