"""What the page shows: reports, read every second; counts and checks, made on request and kept for some seconds.

A survey is for one thread at a time, so each kind of look has a survey and a thread of its own (`_Looker`), and the event loop never
waits for a store. Counting goes through the store in steps, at most `_LOOKS_LIMIT` keys of it; beyond that, counts are estimates.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import struct
import time
from bisect import bisect_right
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from memover.cli.census import Row, complete, entries, order, tally
from memover.cli.health import examine
from memover.cli.invalidate import invalidate_namespace
from memover.cli.look import Look, look
from memover.cli.reports import Reports, Watcher
from memover.errors import ConfigurationError, StoreError
from memover.keys.names import check_namespace, generation_key
from memover.stores.survey import open_survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.cli.census import Version
    from memover.cli.running import StoreContext

__all__ = ["AGES", "SIZES", "Contents", "Namespace", "Overview"]

T = TypeVar("T")

_LOOKS_LIMIT = 500_000
_KEPT_SECONDS = 15.0
_HISTORY = 1800
_FUNCTIONS_LIMIT = 1000
_POINTS = 240
_SAMPLES = 40
_TIMES = struct.Struct("<d")
_CREATED_AT = 16

SIZES = (300, 1000, 3000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Upper bounds of the bars of sizes, in bytes."""
AGES = (60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600)
"""Upper bounds of the bars of ages, in seconds."""


@dataclass
class Namespace:
    """What there is of one namespace: its versions, how large and how old its entries are, and some of them by chance."""

    name: str
    rows: list[Row] = field(default_factory=list)
    sizes: list[int] = field(default_factory=lambda: [0] * (len(SIZES) + 1))
    ages: list[int] = field(default_factory=lambda: [0] * (len(AGES) + 1))
    samples: list[tuple[bytes, int, float]] = field(default_factory=list)
    """Key, bytes, and the instant it was made."""
    largest: list[tuple[int, bytes]] = field(default_factory=list)
    seen: int = 0


@dataclass
class Contents:
    """The whole prefix, as counted at `at`; estimated where there were too many keys to look at."""

    at: float
    namespaces: dict[str, Namespace]
    estimated: bool = False


class Overview:
    """Everything the page asks for. Methods that are awaited run their look in a thread."""

    def __init__(self, context: StoreContext, interval: float = 1.0) -> None:
        self.context = context
        self.interval = interval
        self.reports = Reports((), ())
        self.error = ""
        self.history: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._by_function: dict[tuple[str, Version], deque[tuple[float, float, float | None]]] = {}
        self._reports = _Looker("reports", context)
        self._watcher = Watcher(self._reports.context.survey, context.prefix)
        self._entry = _Looker("entry", context)
        self._invalidate = _Looker("invalidate", context)
        self.contents = _Kept("contents", context, _count)
        """The prefix, counted at most some seconds ago."""
        self.checks = _Kept("doctor", context, examine)
        """The doctor's checks, made at most some seconds ago."""
        self._changed = asyncio.Event()

    # -- what processes report -----------------------------------------------------------------------------------------

    async def go_on(self) -> None:
        """Looks at the reports every interval, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                self.reports = await self._reports.look(lambda _: self._watcher.look(whole=not self.history))
                self.error = ""
                self._remember(self.reports)
            except StoreError as error:
                self.error = str(error)
            self._changed.set()
            self._changed = asyncio.Event()
            await asyncio.sleep(max(0.05, self.interval - (time.monotonic() - began)))

    @property
    def reported(self) -> set[str]:
        """The namespaces that processes report."""
        return {line.namespace for line in self.reports.lines}

    async def change(self) -> None:
        """Returns after the next look."""
        await self._changed.wait()

    def _remember(self, found: Reports) -> None:
        now = time.time()
        calls = sum(line.calls_per_second for line in found.lines)
        hits = sum(line.rates["hits"] for line in found.lines)
        self.history.append(
            {
                "at": round(now, 1),
                "calls": calls,
                "hit_ratio": hits / calls if calls else None,
                "loads": sum(line.rates["loads"] for line in found.lines),
            }
        )
        for line in found.lines:
            place = line.namespace, line.version
            if place not in self._by_function and len(self._by_function) >= _FUNCTIONS_LIMIT:
                continue
            past = self._by_function.setdefault(place, deque(maxlen=_HISTORY))
            past.append((now, line.calls_per_second, line.hit_ratio))

    def spark(self, namespace: str, version: Version) -> list[float]:
        """The last calls per second of one function."""
        past = self._by_function.get((namespace, version), ())
        return [round(calls, 3) for _, calls, _ in list(past)[-60:]]

    def past(self, namespace: str = "") -> list[dict[str, Any]]:
        """Calls and hit ratio since the page was opened, at most some hundreds of points; of one namespace, or of all."""
        if not namespace:
            return _thinned(list(self.history))
        merged: dict[float, list[tuple[float, float | None]]] = {}
        for (name, _), past in self._by_function.items():
            if name == namespace:
                for at, calls, ratio in past:
                    merged.setdefault(round(at, 1), []).append((calls, ratio))
        points = []
        for at in sorted(merged):
            calls = sum(each for each, _ in merged[at])
            hits = sum(each * ratio for each, ratio in merged[at] if ratio is not None)
            points.append({"at": at, "calls": calls, "hit_ratio": hits / calls if calls else None})
        return _thinned(points)

    # -- looks on demand -----------------------------------------------------------------------------------------------

    async def entry(self, key: str) -> Look | None:
        """One entry, as it is now. Raises `StoreError`."""
        return await self._entry.look(partial(look, key=key))

    async def invalidate(self, namespace: str) -> str:
        """Moves a namespace to a new generation; returns it. Raises `InvalidationFailed`."""
        generation = await self._invalidate.look(partial(invalidate_namespace, namespace=namespace))
        self.contents.forget()
        return generation

    async def has_generation(self, namespace: str) -> bool:
        """Whether a namespace without entries has, or had, a generation. Raises `StoreError`."""
        try:
            name = generation_key(self.context.prefix, check_namespace(namespace)).encode()
        except ConfigurationError:
            return False
        (token,) = await self._entry.look(lambda context: context.survey.tokens([name]))
        return token is not None

    def close(self) -> None:
        """Lets go of threads and connections."""
        for each in (self._reports, self._entry, self._invalidate, self.contents, self.checks):
            each.close()


class _Looker:
    """A thread with a survey of its own, in which one look is made after the other."""

    def __init__(self, kind: str, context: StoreContext) -> None:
        self.context = context._replace(survey=open_survey(context.url))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"memover-serve-{kind}")

    async def look(self, work: Callable[[StoreContext], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self.context)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.context.survey.close()


class _Kept(_Looker, Generic[T]):
    """A look whose answer is kept for `_KEPT_SECONDS`; who asks meanwhile waits for the same answer."""

    def __init__(self, kind: str, context: StoreContext, make: Callable[[StoreContext], T]) -> None:
        super().__init__(kind, context)
        self._make = make
        self._lock = asyncio.Lock()
        self._answers: list[T] = []
        self._until = 0.0

    async def fresh(self) -> T:
        async with self._lock:
            if not self._answers or time.monotonic() > self._until:
                self._answers = [await self.look(self._make)]
                self._until = time.monotonic() + _KEPT_SECONDS
            return self._answers[0]

    def forget(self) -> None:
        self._until = 0.0


def _thinned(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most so many points, each the mean of those it stands for."""
    if len(points) <= _POINTS:
        return points
    size = -(-len(points) // _POINTS)
    thinned = []
    for at in range(0, len(points), size):
        group = points[at : at + size]
        thinned.append({name: _mean([each.get(name) for each in group]) for name in group[0]})
    return thinned


def _mean(values: list[float | None]) -> float | None:
    there = [each for each in values if each is not None]
    return sum(there) / len(there) if there else None


def _count(context: StoreContext) -> Contents:
    total, looked_at = context.survey.total(), 0
    sampled = context.survey.hashed
    now = time.time()
    rows: dict[tuple[str, Version], Row] = {}
    namespaces: dict[str, Namespace] = {}

    def on_step(keys: int) -> None:
        nonlocal looked_at
        looked_at += keys

    for found in entries(context.survey, context.prefix, on_step=on_step):
        for each in found:
            tally(rows, each)
            of = namespaces.setdefault(each.namespace, Namespace(each.namespace))
            facts = each.facts
            (created_at,) = _TIMES.unpack_from(facts.head, _CREATED_AT)
            of.seen += 1
            of.sizes[bisect_right(SIZES, facts.size)] += 1
            of.ages[bisect_right(AGES, max(0.0, now - created_at))] += 1
            sample = (facts.key, facts.size, created_at)
            # A sample by chance, each entry as likely as any (Vitter, "Random sampling with a reservoir", 1985).
            if len(of.samples) < _SAMPLES:
                of.samples.append(sample)
            elif (at := random.randrange(of.seen)) < _SAMPLES:
                of.samples[at] = sample
            if len(of.largest) < 10:
                heapq.heappush(of.largest, (facts.size, facts.key))
            else:
                heapq.heappushpop(of.largest, (facts.size, facts.key))
        if looked_at >= _LOOKS_LIMIT and sampled:
            break
    estimated = sampled and _LOOKS_LIMIT <= looked_at < total
    if estimated:
        for row in rows.values():
            row.scale(total / looked_at)
    complete(context, rows)
    for row in sorted(rows.values(), key=order):
        namespaces[row.namespace].rows.append(row)
    return Contents(now, dict(sorted(namespaces.items())), estimated)
