"""The functions that the processes of a history call: what they are, what their loads do, and what a run may ask of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.testing.worker import Sources

__all__ = ["FEATURES", "MARK", "NAMESPACES", "Answer", "Functions", "SourceDown"]

NAMESPACES = ("threads", "tasks")
"""The namespace of the `def` function, and of the `async def` one. Each has `keys` sources of its own.

For each there is a second function that calls the first, `through-...`: what it has cached of the first is
invalidated with it (P11). The second of them carries a tag for each source."""

FEATURES = (
    "late-tags",
    "batches",
    "bulk-loaders",
    "errors",
    "failures",
    "max-age",
    "refreshes",
    "peeks",
    "soft",
    "upgrades",
)
"""What callers and functions do besides, by name; options that are plain data go in `function_options`.

late-tags: the first function has its tags from its result; batches: `map`; bulk-loaders: a `batch_load` function;
errors: a fifth of the loads raise an exception that is cached; failures: a tenth raise one that is not (it is no reading);
max-age, refreshes, peeks: those helpers; soft: some invalidations are soft ones, which bound nothing; upgrades: processes
with odd numbers run version 2, which takes over the entries of version 1."""

MARK: ContextVar[dict[int, tuple[str, int]]] = ContextVar("memover-history-mark")
"""For each source the load of this context, and when it began (monotonic nanoseconds): how a reader knows its own load."""


class Answer(Exception):
    """A reading that is raised: what the source held, the load it came from, and the source."""


class SourceDown(Exception):
    """A load that failed."""


class Functions:
    """A `def` and an `async def` function over the sources, and two that call them; `versions` are those in use at a time."""

    def __init__(self, told: dict[str, Any], cache: Cache, sources: Sources) -> None:
        self.told = told
        self.sources = sources
        self._serial = itertools.count()
        self.features: frozenset[str] = frozenset(told["features"])
        index: int = told["index"]
        options: dict[str, Any] = dict(told["function_options"])
        if "errors" in self.features:
            options["cache_errors"] = (Answer,)
        newer = self.newer = "upgrades" in self.features and index % 2 == 1
        if newer:
            options["version"] = 2
        self.versions = (1, 2) if "upgrades" in self.features else (1,)
        late: dict[str, Any] = {}
        if "late-tags" in self.features:
            late["tags"] = (lambda call, result: [f"source:{call.arguments['key']}"],)

        @cache.versioned(namespace=NAMESPACES[0], **late, **options)
        def by_thread(key: int) -> list[Any]:
            load = self._begin(key)
            time.sleep(self._nap())
            value = self.sources[key]
            time.sleep(self._nap())
            return self._loaded(key, value, load, self.newer)

        @cache.versioned(namespace=f"through-{NAMESPACES[0]}", **options)
        def through_thread(key: int) -> list[Any]:
            value = by_thread(key)
            time.sleep(self._nap())
            return list(value)

        @cache.versioned(namespace=NAMESPACES[1], tags=("source:{key}",), **options)
        async def by_task(key: int) -> list[Any]:
            load = self._begin(key)
            await asyncio.sleep(self._nap())
            value = self.sources[key]
            await asyncio.sleep(self._nap())
            return self._loaded(key, value, load, self.newer)

        @cache.versioned(namespace=f"through-{NAMESPACES[1]}", **options)
        async def through_task(key: int) -> list[Any]:
            value = await by_task(key)
            await asyncio.sleep(self._nap())
            return list(value)

        self.all = (by_thread, by_task, through_thread, through_task)
        if "bulk-loaders" in self.features:

            @by_thread.batch_load
            def many_by_thread(calls: Any) -> list[Any]:
                loads = [self._begin(call.arguments["key"]) for call in calls]
                time.sleep(self._nap())
                values = [self.sources[call.arguments["key"]] for call in calls]
                time.sleep(self._nap())
                return [[value, load, *[2] * self.newer] for value, load in zip(values, loads)]

            @by_task.batch_load
            async def many_by_task(calls: Any) -> list[Any]:
                loads = [self._begin(call.arguments["key"]) for call in calls]
                await asyncio.sleep(self._nap())
                values = [self.sources[call.arguments["key"]] for call in calls]
                await asyncio.sleep(self._nap())
                return [[value, load, *[2] * self.newer] for value, load in zip(values, loads)]

        if newer:
            for function in self.all:
                function.upgrade(from_version=1)(lambda old: [*old[:2], 2])

    # -- what a load does -------------------------------------------------------------------------------------------

    def _begin(self, key: int) -> str:
        load = f"{os.getpid()}.{next(self._serial)}"
        mark = MARK.get(None)
        if mark is not None:
            mark[key] = (load, time.monotonic_ns())
        return load

    def _loaded(self, key: int, value: int, load: str, newer: bool) -> list[Any]:
        chance = random.random()
        if "errors" in self.features and chance < 0.2:
            raise Answer(value, load, key)
        if "failures" in self.features and chance > 0.9:
            raise SourceDown
        return [value, load, *[2] * newer]

    def _nap(self) -> float:
        chance = random.random()
        slowest: float = self.told["slowest_load"]
        return 0.0 if chance < 0.5 else slowest * random.random() * (0.05 if chance < 0.9 else 1.0)
