"""What other processes do in the tests of promises. The source of truth is a counter in the same Redis, read at the
beginning of a load, so that a load that takes long ends with what was true when it began."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import redis

from memover import Cache
from tests.servers import as_another_process, hear, say

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = "answers"
PATIENT: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
"""What is promised here holds while the store answers in time, and the machine may be busy."""


class Source:
    """`source(x)`: what the source holds for x now. An object, so that no key says where it is."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix

    def __call__(self, x: int) -> int:
        with redis.Redis.from_url(self.url) as client:
            return int(client.get(f"{self.prefix}-source-{x}") or 0)


def source(url: str, prefix: str) -> Callable[[int], int]:
    """The source, for a process that did not know of it."""
    as_another_process()
    return Source(url, prefix)


def change(url: str, prefix: str, x: int = 1) -> int:
    """Count the source up; what it holds now."""
    with redis.Redis.from_url(url) as client:
        return int(client.incr(f"{prefix}-source-{x}"))


def function(cache: Cache, load: Callable[[int], Any], **options: Any) -> Any:
    """The decorated function that all processes of a test share."""

    @cache.versioned(**{"namespace": NAMESPACE, "tags": ("x:{x}",), **options})
    def answer(x: int) -> Any:
        return load(x)

    return answer


def call(url: str, prefix: str, x: int = 1, options: dict[str, Any] | None = None) -> Any:
    """One call in a process of its own."""
    with Cache(url, prefix=prefix, **PATIENT) as cache:
        return function(cache, source(url, prefix), **(options or {}))(x)


def invalidate(url: str, prefix: str, how: str, x: int = 1) -> None:
    """One invalidation in a process of its own."""
    with Cache(url, prefix=prefix, **PATIENT) as cache:
        answer = function(cache, source(url, prefix))
        if how == "key":
            answer.invalidate(x)
        elif how == "tag":
            cache.invalidate_tags(f"x:{x}")
        elif how == "namespace by name":
            cache.invalidate_namespace(NAMESPACE)
        else:
            answer.invalidate_all()


def load_slowly(url: str, prefix: str, flavour: str, options: dict[str, Any] | None = None) -> Any:
    """A call whose load says "loading" when it has read the source, and ends when it hears "finish"."""
    read = source(url, prefix)

    def load(x: int) -> int:
        value = read(x)
        say("loading", value)
        hear("finish")
        return value

    cache = Cache(url, prefix=prefix, **PATIENT)
    own = {"namespace": NAMESPACE, "tags": ("x:{x}",), **(options or {})}
    if flavour == "sync":
        return cache.versioned(**own)(load)(1)

    @cache.versioned(**own)
    async def awaited(x: int) -> int:
        # In another thread, so that its lease is renewed and its loop goes on.
        return await asyncio.get_running_loop().run_in_executor(None, load, x)

    return asyncio.run(awaited(1))


def crowd(url: str, prefix: str, flavour: str, callers: int, counter: str) -> list[Any]:
    """Many callers of one cold key at once; each load counts itself."""
    client = redis.Redis.from_url(url)
    cache = Cache(url, prefix=prefix, **PATIENT)

    if flavour == "async":

        @cache.versioned(namespace=NAMESPACE)
        async def awaited(x: int) -> int:
            client.incr(counter)
            await asyncio.sleep(0.1)
            return x

        async def all_of_them() -> list[int]:
            return list(await asyncio.gather(*(awaited(1) for _ in range(callers))))

        return asyncio.run(all_of_them())

    @cache.versioned(namespace=NAMESPACE)
    def answer(x: int) -> int:
        client.incr(counter)
        threading.Event().wait(0.1)
        return x

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(answer(1))) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
