"""What becomes of a load that an invalidation overtakes, in memover and in other caches.

    python benchmarks/race.py [redis://localhost:6379/0]

A thread, or a task, loads the old value and is held up inside the function; the truth changes and an invalidation returns; the
load goes on and ends; then the same call is made again. "stored" means that it is answered with the old value, although the
invalidation had returned. A cache that is not installed is left out. The database of that Redis is emptied: without an address
a server is started for it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import redis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import memover  # noqa: E402

Source = Callable[[int], int]
Made = tuple[Callable[[int], Any], Callable[[], Any]]
"""The cached function, and its invalidation."""
SECONDS = 30.0


class Race(NamedTuple):
    """One race: the cache, its distribution, what invalidates in it, and the maker of its function and invalidation."""

    name: str
    package: str
    invalidation: str
    make: Callable[..., Any]
    asynchronous: bool = False


def held(make: Callable[[Source], Made]) -> str:
    """The race among threads. Its answer is "stored" or "not stored"."""
    truth, go, began = [1], threading.Event(), threading.Event()

    def source(number: int) -> int:
        value = truth[0]
        if not began.is_set():
            began.set()
            go.wait(SECONDS)
        return value

    function, invalidate = make(source)
    loader = threading.Thread(target=function, args=(1,))
    loader.start()
    assert began.wait(SECONDS)
    truth[0] = 2
    invalidate()
    go.set()
    loader.join()
    return "stored" if function(1) == 1 else "not stored"


async def aheld(make: Callable[[Any], Awaitable[Made]]) -> str:
    """The same among tasks."""
    truth, go, began = [1], asyncio.Event(), asyncio.Event()

    async def source(number: int) -> int:
        value = truth[0]
        if not began.is_set():
            began.set()
            await go.wait()
        return value

    function, invalidate = await make(source)
    loader = asyncio.create_task(function(1))
    await began.wait()
    truth[0] = 2
    await invalidate()
    go.set()
    await loader
    return "stored" if await function(1) == 1 else "not stored"


# -- the contenders -----------------------------------------------------------------------------------------------------------


def lru_cache(source: Source) -> Made:
    from functools import lru_cache

    @lru_cache
    def read(number: int) -> int:
        return source(number)

    return read, read.cache_clear


def cachetools(source: Source) -> Made:
    from cachetools import TTLCache, cached

    read = cached(TTLCache(10, 300), lock=threading.Lock())(source)
    return read, read.cache_clear


def django(url: str) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        from django.conf import settings

        backend = "django.core.cache.backends.redis.RedisCache"
        settings.configure(CACHES={"default": {"BACKEND": backend, "LOCATION": url}})
        from django.core.cache import cache

        return lambda number: cache.get_or_set("key", lambda: source(number)), lambda: cache.delete("key")

    return make


def dogpile(url: str, whole: bool) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        from dogpile.cache import make_region

        region = make_region().configure("dogpile.cache.redis", expiration_time=300, arguments={"url": url})

        @region.cache_on_arguments(namespace="read")
        def read(number: int) -> int:
            return source(number)

        return read, region.invalidate if whole else lambda: read.invalidate(1)

    return make


def flask_caching(url: str, whole: bool) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        from flask import Flask
        from flask_caching import Cache

        app = Flask("race")
        cache = Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url})

        @cache.memoize()
        def memoized(number: int) -> int:
            return source(number)

        def read(number: int) -> Any:
            with app.app_context():
                return memoized(number)

        def invalidate() -> None:
            with app.app_context():
                cache.delete_memoized(memoized, *([] if whole else [1]))

        return read, invalidate

    return make


def diskcache(whole: bool) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        from diskcache import Cache

        cache = Cache(tempfile.mkdtemp())
        read = cache.memoize(name="read", tag="tag")(source)
        return read, lambda: cache.evict("tag") if whole else cache.delete(read.__cache_key__(1))

    return make


_joblibs: list[Source] = []


def _joblib_read(number: int) -> int:
    return _joblibs[-1](number)  # joblib takes a function of a module, and the source changes with the race


def joblib(source: Source) -> Made:
    from joblib import Memory

    _joblibs.append(source)
    read = Memory(tempfile.mkdtemp(), verbose=0).cache(_joblib_read)
    return read, lambda: read.clear(warn=False)


def cashews(url: str, tags: bool) -> Callable[[Any], Awaitable[Made]]:
    async def make(source: Any) -> Made:
        from cashews import Cache

        cache = Cache()
        cache.setup(url)

        @cache(ttl="5m", key="read:{number}", tags=["all"])
        async def read(number: int) -> Any:
            return await source(number)

        return read, lambda: cache.delete_tags("all") if tags else cache.delete("read:1")

    return make


def fastapi_cache(url: str) -> Callable[[Any], Awaitable[Made]]:
    async def make(source: Any) -> Made:
        from fastapi_cache import FastAPICache
        from fastapi_cache.backends.redis import RedisBackend
        from fastapi_cache.decorator import cache
        from redis.asyncio import Redis

        FastAPICache.init(RedisBackend(Redis.from_url(url)), prefix="race")

        @cache(namespace="read", expire=300)
        async def read(number: int) -> int:
            found: int = await source(number)
            return found

        return read, lambda: FastAPICache.clear(namespace="read")

    return make


def of_memover(url: str, whole: bool) -> Callable[[Source], Made]:
    def make(source: Source) -> Made:
        cache = memover.Cache(url, prefix="race-all" if whole else "race")

        @cache.versioned(namespace="read", version=1)
        def read(number: int) -> int:
            return source(number)

        return read, read.invalidate_all if whole else lambda: read.invalidate(1)

    return make


def races(url: str) -> list[Race]:
    """All of them, in the order of the README's table."""
    return [
        Race("lru_cache", "", "cache_clear()", lru_cache),
        Race("cachetools", "cachetools", "cache_clear()", cachetools),
        Race("Django's cache", "Django", "cache.delete(key)", django(url)),
        Race("dogpile.cache", "dogpile.cache", "read.invalidate(1)", dogpile(url, False)),
        Race("dogpile.cache", "dogpile.cache", "region.invalidate()", dogpile(url, True)),
        Race("cashews", "cashews", "cache.delete(key)", cashews(url, False), True),
        Race("cashews", "cashews", "cache.delete_tags(tag)", cashews(url, True), True),
        Race("Flask-Caching", "Flask-Caching", "cache.delete_memoized(read, 1)", flask_caching(url, False)),
        Race("Flask-Caching", "Flask-Caching", "cache.delete_memoized(read)", flask_caching(url, True)),
        Race("fastapi-cache2", "fastapi-cache2", "FastAPICache.clear(namespace=...)", fastapi_cache(url), True),
        Race("diskcache", "diskcache", "cache.delete(key)", diskcache(False)),
        Race("diskcache", "diskcache", "cache.evict(tag)", diskcache(True)),
        Race("joblib.Memory", "joblib", "read.clear()", joblib),
        Race("memover", "memover", "read.invalidate(1)", of_memover(url, False)),
        Race("memover", "memover", "read.invalidate_all()", of_memover(url, True)),
    ]


def main(url: str) -> list[str]:
    """The table's rows, of what is installed."""
    server = redis.Redis.from_url(url)
    rows = ["| cache | version | invalidated by | the overtaken load is |", "|---|---|---|---|"]
    for race in races(url):
        try:
            of = version(race.package) if race.package else f"Python {sys.version_info[0]}.{sys.version_info[1]}"
        except PackageNotFoundError:
            of = memover.__version__ if race.package == "memover" else ""
        if not of:
            continue
        server.flushdb()
        outcome = asyncio.run(aheld(race.make)) if race.asynchronous else held(race.make)
        rows.append(f"| {race.name} | {of} | `{race.invalidation}` | {outcome} |")
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("\n".join(main(sys.argv[1])))
    else:
        from tests.servers import RedisServer

        with RedisServer() as started:
            print("\n".join(main(started.url)))
