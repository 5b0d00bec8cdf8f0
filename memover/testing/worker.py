"""One process of a history: callers in threads and on event loops, each recording what it did and saw.

Started by `workload`, told by a line of JSON on its standard input what to do, and ended by a second line or by the end of
its input. What it records goes to its file every few milliseconds, so that a process which is killed leaves a history.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import pickle
import random
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from memover.cache import Cache
from memover.errors import InvalidationFailed
from memover.testing.functions import MARK, NAMESPACES, Answer, Functions, SourceDown
from memover.testing.history import FailedCall, Invalidation, Read

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["main"]

KINDS = ("write", "key", "namespace", "other-namespace", "tag")
"""What a change is; a `write` invalidates nothing."""

FLUSH_SECONDS = 0.05


class Sources:
    """The counters all processes share: eight bytes each, read and written whole. A source is written by one process."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._cells = memoryview(self._map).cast("q")
        self._lock = threading.Lock()

    def __getitem__(self, key: int) -> int:
        return int(self._cells[key])

    def count_up(self, key: int) -> None:
        with self._lock:
            self._cells[key] += 1


class Callers:
    """All callers of this process: the two functions, and one loop of calls per client."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.index: int = told["index"]
        self.processes: int = told["processes"]
        self.keys: int = told["keys"]
        self.seed: int = told["seed"]
        self.told = told
        self.sources = Sources(told["sources"])
        self.records: deque[Any] = deque()
        self.stopping = threading.Event()
        self.cache = Cache(told["url"], prefix=told["prefix"], **told["options"])
        self.features: frozenset[str] = frozenset(told["features"])
        self.functions = Functions(told, self.cache, self.sources)

    # -- one step of a client ---------------------------------------------------------------------------------------

    def step(self, rng: random.Random, home: int) -> tuple[str, int, dict[int, int]]:
        """What a client does next: its word, the source, and what the sources it concerns hold now."""
        key = home * self.keys + rng.randrange(self.keys)
        chance = rng.random()
        told = self.told
        if chance >= told["changes"]:
            return ("through" if rng.random() < told["through"] else "read"), key, {}
        kind = rng.choices(KINDS, told["kinds"])[0]
        # An error has no result that a tag could be known from.
        if kind == "tag" and ("late-tags" not in self.features or "errors" in self.features):
            key = self.keys + key % self.keys
        if kind == "namespace" and "soft" in self.features and rng.random() < 0.3:
            return "soft", key, {}
        if key % self.processes == self.index:
            self.sources.count_up(key)
        elif kind == "write":
            return "read", key, {}
        if kind == "write":
            self.records.append("write")
            return kind, key, {}
        if kind in ("key", "tag"):
            return kind, key, {key: self.sources[key]}
        concerned = home if kind == "namespace" else 1 - home
        first = concerned * self.keys
        return kind, key, {one: self.sources[one] for one in range(first, first + self.keys)}

    def way(self, rng: random.Random, kind: str, key: int) -> tuple[str, list[int], float]:
        """How a reading is made: its word, the sources it is of, and the greatest age in seconds that it accepts (0: any)."""
        others = [word for word in ("batches", "max-age", "refreshes", "peeks") if word in self.features]
        if not others or rng.random() < 0.5:
            return "call", [key], 0.0
        word = rng.choice(others)
        if word == "batches":
            first = key - key % self.keys
            return word, sorted(rng.sample(range(first, first + self.keys), min(3, self.keys))), 0.0
        # What a parent is made of may be older than itself, so only the first function's answers have an age to judge.
        return word, [key], rng.choice((0.05, 0.2, 1.0)) if word == "max-age" and kind == "read" else 0.0

    def read(self, client: int, key: int, began: int, result: Any, mark: dict[int, Any], max_age: float = 0.0) -> None:
        returned = time.monotonic_ns()
        value, load = (result.args if isinstance(result, Answer) else result)[:2]
        own = mark.get(key, ("", 0))
        loaded = own[0] == load
        self.records.append(
            Read(
                self.index,
                client,
                key,
                value,
                load,
                loaded,
                own[1] if loaded else 0,
                began,
                returned,
                self.sources[key],
                max_age,
            )
        )

    def invalidated(self, client: int, kind: str, floors: dict[int, int], began: int, acknowledged: bool) -> None:
        returned = time.monotonic_ns()
        what = "namespace" if kind == "other-namespace" else kind
        self.records.append(Invalidation(self.index, client, what, floors, began, returned, acknowledged))

    def failed(self, client: int, what: str, error: BaseException) -> None:
        self.records.append(FailedCall(self.index, client, what, repr(error), time.monotonic_ns()))

    # -- clients ----------------------------------------------------------------------------------------------------

    def turns(self, client: int, home: int) -> Generator[Any, Any, None]:
        """What a client does, turn by turn: it yields what each helper returned, and is sent the result of that."""
        rng = random.Random(f"{self.seed}-{self.index}-{client}")
        function, through = self.functions.all[home], self.functions.all[2 + home]
        namespace = (self.cache.invalidate_namespace, self.cache.ainvalidate_namespace)[home]
        tags = (self.cache.invalidate_tags, self.cache.ainvalidate_tags)[home]
        sleep = (time.sleep, asyncio.sleep)[home]
        while not self.stopping.is_set():
            kind, key, floors = self.step(rng, home)
            began = time.monotonic_ns()
            try:
                if kind in ("read", "through"):
                    yield from self.reading(rng, client, kind, function if kind == "read" else through, key, began)
                elif kind == "soft":
                    yield function.invalidate_all(soft=True)
                elif kind == "key":
                    # The older version first: an upgrade that has read it is refused by the second.
                    for version in self.functions.versions:
                        yield function.at(version).invalidate(key)
                elif kind == "namespace":
                    yield function.invalidate_all()
                elif kind == "other-namespace":
                    yield namespace(NAMESPACES[1 - home])
                elif kind == "tag":
                    yield tags(f"source:{key}")
                if floors:
                    self.invalidated(client, kind, floors, began, True)
            except InvalidationFailed:
                self.invalidated(client, kind, floors, began, False)
            except Exception as error:
                self.failed(client, kind, error)
            yield sleep(self.told["pause"] * rng.random())

    def reading(
        self, rng: random.Random, client: int, kind: str, function: Any, key: int, began: int
    ) -> Generator[Any, Any, None]:
        """One reading, and the record of it."""
        mark: dict[int, Any] = {}
        MARK.set(mark)
        way, keys, max_age = self.way(rng, kind, key)
        results: list[Any]
        try:
            if way == "batches":
                results = yield function.map(keys)
            elif way == "max-age":
                results = [(yield function.max_age(max_age or 0.2)(key))]
            elif way == "refreshes":
                results = [(yield function.refresh(key))]
            elif way == "peeks":
                results = [entry.value for entry in ((yield function.peek(key)),) if entry is not None]
            else:
                results = [(yield function(key))]
        except Answer as answer:
            keys, results = [answer.args[2]], [answer]
        except SourceDown:
            results = []
        for one, result in zip(keys, results):
            self.read(client, one, began, result, mark, max_age)

    def thread(self, client: int) -> None:
        turns, result = self.turns(client, 0), None
        with suppress(StopIteration):
            while True:
                result = turns.send(result)

    async def task(self, client: int) -> None:
        turns = self.turns(client, 1)
        with suppress(StopIteration):
            awaited = next(turns)
            while True:
                try:
                    result = await awaited
                except Exception as error:
                    awaited = turns.throw(error)
                else:
                    awaited = turns.send(result)

    async def loop(self, first: int) -> None:
        await asyncio.gather(*(self.task(first + number) for number in range(self.told["tasks"])))

    def flush(self, path: str) -> None:
        """Appends what was recorded since the last time."""
        records = [self.records.popleft() for _ in range(len(self.records))]
        if records:
            with open(path, "ab") as file:
                pickle.dump(records, file)

    def run(self) -> None:
        threads = [
            threading.Thread(target=self.thread, args=(number,), daemon=True) for number in range(self.told["threads"])
        ]
        for number in range(self.told["loops"]):
            first = 1000 * (number + 1)
            threads.append(threading.Thread(target=lambda n=first: asyncio.run(self.loop(n)), daemon=True))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(FLUSH_SECONDS)
            self.flush(self.told["records"])
        infos = [function.cache_info() for function in self.functions.all]
        self.records.append(
            {
                "store_errors": sum(info.store_errors for info in infos),
                "near_hits": sum(info.near_hits for info in infos),
                "names": list(self.cache._state.witness._seen),
            }
        )
        self.flush(self.told["records"])


def main() -> None:
    """The whole life of a worker."""
    told = json.loads(sys.stdin.readline())
    sys.path[:0] = [entry for entry in told["path"] if entry not in sys.path]
    if told["setup"]:
        resolve_name(told["setup"])(told["index"])
    callers = Callers(told)
    print("ready", flush=True)  # noqa: T201 - read by the parent
    sys.stdin.readline()

    def wait_for_the_end() -> None:
        sys.stdin.readline()
        callers.stopping.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    callers.run()
    with suppress(InvalidationFailed):
        callers.cache.close()
    print("done", flush=True)  # noqa: T201
    os._exit(0)  # the thread that reads standard input cannot be joined
