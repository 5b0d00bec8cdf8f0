"""What a near hit costs beside a hit of the memory store and beside other caches in memory, how soon an invalidation is heard
of, and what the tier keeps beside an LRU of the same size.

    python benchmarks/bench_near.py [--rounds 15] [--check]

Timings are taken in interleaved rounds, each contender a moment after the other; a ratio is the median of the rounds' own
ratios. The rounds of the two targets are short and many, so that what else the machine does falls on both alike. It starts a redis-server of its own on a free loopback port. Traces: Zipf (exponent 1.0 over 100,000 keys), the same
with a scan of new keys, longer than the tier, after every 20,000 requests, and a loop. With --check the exit status is 1
when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import memover  # noqa: E402
from memover.codec.envelope import Header  # noqa: E402
from memover.stores.near import Tier, _tiers  # noqa: E402
from memover.stores.near_items import NearItem  # noqa: E402

TARGET = 1.2
CALLS, FEW_CALLS = 20_000, 2_000
PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}
GENERATION = b"1-0000000000000001"


@contextmanager
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        binary = os.environ.get("MEMOVER_TEST_REDIS_SERVER", "redis-server")  # redis-py's cache asks for Redis 7.4
        command = [binary, "--port", str(port), "--save", "", "--dir", directory, "--bind", "127.0.0.1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def timed(function: Callable[..., Any], calls: int = CALLS) -> float:
    began = perf_counter()
    for _ in range(calls):
        function(7)
    return (perf_counter() - began) / calls


def returning(value: Any) -> Callable[[int], Any]:
    """A function of one argument. (The value as a default argument would be part of every key, and most of what is measured.)"""

    def load(x: int) -> Any:
        return value

    return load


def until_near(function: Any) -> None:
    while function.cache_info().near_hits < 5:
        function(7)
        time.sleep(0.01)


def hits(url: str, rounds: int) -> bool:
    met = True
    with memover.Cache(url, prefix="bench") as far, memover.Cache() as memory:
        for name, value in (("immutable", ("Alice", 7, 12.5)), ("mutable", PROFILE)):
            near = far.versioned(namespace=name, near=5.0, ttl=3600)(returning(value))
            local = memory.versioned(namespace=name, ttl=3600)(returning(value))
            until_near(near)
            for _ in range(5):
                local(7)
            ours, theirs = [], []
            for _ in range(20 * rounds):
                theirs.append(timed(local, FEW_CALLS))
                ours.append(timed(near, FEW_CALLS))
            ratio = median(a / b for a, b in zip(ours, theirs))
            met = met and ratio <= TARGET
            print(
                f"near hit, {name:9}  {median(ours) * 1e9:7.0f} ns   memory store {median(theirs) * 1e9:7.0f} ns   "
                f"ratio {ratio:.2f} (target {TARGET})"
            )
        near = far.versioned(namespace="shared", near=5.0, ttl=3600)(lambda x: PROFILE)
        until_near(near)
        began = perf_counter()
        threads = [Thread(target=timed, args=(near,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"8 threads on one near entry   {8 * CALLS / (perf_counter() - began):10,.0f} hits/s")
        asyncio.run(tasks(far))
    return met


async def tasks(cache: Any) -> None:
    @cache.versioned(namespace="awaited", near=5.0, ttl=3600)
    async def near(x: int) -> Any:
        return PROFILE

    while near.cache_info().near_hits < 5:
        await near(7)
        await asyncio.sleep(0.01)

    async def many() -> None:
        for _ in range(CALLS // 8):
            await near(7)

    began = perf_counter()
    await asyncio.gather(*(many() for _ in range(64)))
    print(f"64 tasks on one near entry    {64 * (CALLS // 8) / (perf_counter() - began):10,.0f} hits/s")
    await cache.aclose()


def heard(url: str, count: int) -> None:
    """How long after an invalidation returned in one cache another one, told by pushes alone, has dropped the entry."""
    with memover.Cache(url, prefix="heard") as one, memover.Cache(url, prefix="heard") as two:
        f = one.versioned(namespace="heard", near=5.0, ttl=3600)(lambda x: ("v", x))
        until_near(f)
        tier = one._state.heart.tier
        delays = []
        for _ in range(count):
            near = f.cache_info().near_hits
            while f.cache_info().near_hits == near:
                f(7)
                time.sleep(0.001)
            item = tier.items[f.key(7)]
            _tiers._refs.pop(id(tier))  # what is one process here stands for two: a push alone tells the tier
            two.invalidate_namespace("heard")
            _tiers.add(tier)
            began = perf_counter()
            while item.stands():
                time.sleep(0)
            delays.append((perf_counter() - began) * 1e3)
        delays.sort()
        print(
            f"heard of after returning      p50 {median(delays):.2f} ms, p95 {delays[int(count * 0.95)]:.2f} ms, "
            f"most {delays[-1]:.2f} ms ({count} times)"
        )


def memory_of_an_entry(url: str) -> None:
    with memover.Cache(url, prefix="size", near_max_entries=5000) as cache:
        for name, load in (("immutable", lambda x: ("Alice", x, 12.5)), ("mutable", lambda x: {**PROFILE, "id": x})):
            f = cache.versioned(namespace=name, near=60, ttl=3600)(load)
            f.map(range(1000))
            f(0)
            while len(cache._state.heart.tier.items) == 0:
                f(0)
                time.sleep(0.01)
            tier = cache._state.heart.tier
            tracemalloc.start()
            before, counted, items = tracemalloc.get_traced_memory()[0], tier.bytes, len(tier.items)
            while len(tier.items) < items + 900:
                for x in range(1000):
                    f(x)
                time.sleep(0.05)
            taken, number = tracemalloc.get_traced_memory()[0] - before, len(tier.items) - items
            tracemalloc.stop()
            print(
                f"memory, {name:9}  {taken / number:6.0f} bytes an entry, keys and tokens included; "
                f"counted {(tier.bytes - counted) / number:.0f}"
            )


# -- beside others --------------------------------------------------------------------------------------------------------------


def peers(url: str, rounds: int) -> None:
    """A near hit beside what others answer from memory, for the same mutable value, in interleaved rounds: one thread, eight
    threads, and 64 tasks. lru_cache and cachebox hear of no other process; redis-py's and cashews' caches do."""
    with ExitStack() as stack:
        plain, awaited = contenders(url, stack)
        for what, contended in (("one thread", timed), ("8 threads", timed_by_threads)):
            report(what, plain, contended, rounds)
        with asyncio.Runner() as runner:
            for call in awaited.values():
                runner.run(warm(call))
            report("64 tasks", awaited, lambda call: runner.run(timed_by_tasks(call)), rounds)


def contenders(url: str, stack: ExitStack) -> tuple[dict[str, Callable[..., Any]], dict[str, Callable[..., Any]]]:
    """What can be called for the value, by name; what is not installed is left out."""
    far = stack.enter_context(memover.Cache(url, prefix="peers"))

    def load(x: int) -> Any:
        return PROFILE

    async def aload(x: int) -> Any:
        return PROFILE

    near = far.versioned(namespace="plain", near=5.0, ttl=3600)(load)
    until_near(near)
    plain: dict[str, Callable[..., Any]] = {"memover near": near, "lru_cache": lru_cache(load)}
    awaited: dict[str, Callable[..., Any]] = {
        "memover near": far.versioned(namespace="tasks", near=5.0, ttl=3600)(aload)
    }
    with suppress(ImportError):
        import cachebox

        for name, copy in (("shallow", cachebox.postprocess_copy_mutables), ("deep", cachebox.postprocess_deepcopy)):
            plain[f"cachebox, {name} copy"] = cachebox.cached(cachebox.LRUCache(1000), postprocess=copy)(load)
            awaited[f"cachebox, {name} copy"] = cachebox.cached(cachebox.LRUCache(1000), postprocess=copy)(aload)
    with suppress(ImportError):
        import redis
        from redis.cache import CacheConfig

        client = stack.enter_context(redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig()))
        try:
            client.set("peer:7", json.dumps(PROFILE))
        except redis.exceptions.ConnectionError as error:
            print(f"redis-py client-side: {error}")
        else:
            plain["redis-py client-side"] = lambda x: json.loads(client.get(f"peer:{x}"))
    with suppress(ImportError):
        import cashews

        cache = cashews.Cache()
        cache.setup(url, client_side=True)
        awaited["cashews client-side"] = cache(ttl="1h", key="peer:{x}")(aload)
    return plain, awaited


def timed_by_threads(function: Callable[..., Any]) -> float:
    function(7)
    threads = [Thread(target=timed, args=(function,)) for _ in range(8)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (perf_counter() - began) / (8 * CALLS)


async def warm(function: Callable[..., Any]) -> None:
    while True:
        await function(7)
        info = getattr(function, "cache_info", None)
        if not hasattr(function, "invalidate_all") or info is None or info().near_hits > 5:
            return
        await asyncio.sleep(0.01)


async def timed_by_tasks(function: Callable[..., Any]) -> float:
    await warm(function)

    async def many() -> None:
        for _ in range(CALLS // 64):
            await function(7)

    began = perf_counter()
    await asyncio.gather(*(many() for _ in range(64)))
    return (perf_counter() - began) / (64 * (CALLS // 64))


def report(what: str, contended: dict[str, Callable[..., Any]], take: Callable[..., float], rounds: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in contended}
    for _ in range(rounds):
        for name, function in contended.items():
            taken[name].append(take(function))
    ours = taken["memover near"]
    for name, seconds in taken.items():
        ratio = median(theirs / mine for theirs, mine in zip(seconds, ours))
        print(f"{what:10}  {name:22} {median(seconds) * 1e9:8.0f} ns a hit   {ratio:7.2f} of memover's")


# -- eviction -----------------------------------------------------------------------------------------------------------------


class Lru:
    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[int, None] = OrderedDict()

    def ask(self, key: int) -> bool:
        if key in self.kept:
            self.kept.move_to_end(key)
            return True
        self.kept[key] = None
        if len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return False


class Near:
    def __init__(self, size: int) -> None:
        self.tier = Tier(size, 1 << 40)
        self.tier.know([b"gen@call0"], [GENERATION])
        self.tier.ready = True

    def ask(self, key: int) -> bool:
        item = self.tier.items.get(str(key))
        if item is not None:
            item.visited = True
            return True
        header = Header(0, "", 0, GENERATION, b"", (), 0.0, 0.0, 1e18, 1e18, b"", 0, 0, 0)
        ticket = self.tier.ticket(b"gen@call0")
        assert ticket is not None
        self.tier.fill(ticket, NearItem(str(key), header, key, None, (), 0), b"gen")
        return False


def zipf(count: int, keys: int, seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, keys + 1)))
    for _ in range(count):
        yield bisect_left(weights, rng.random() * weights[-1])


def with_scans(count: int, keys: int, every: int, length: int) -> Iterator[tuple[int, bool]]:
    fresh = itertools.count(keys)
    for number, key in enumerate(zipf(count, keys, 2)):
        yield key, True
        if number % every == every - 1:
            for _ in range(length):
                yield next(fresh), False


def ratios() -> bool:
    met = True
    for size in (1_000, 10_000):
        traces: list[tuple[str, list[tuple[int, bool]]]] = [
            ("Zipf", [(key, True) for key in zipf(300_000, 100_000, 1)]),
            ("Zipf with scans", list(with_scans(200_000, 100_000, 20_000, 2 * size))),
            ("loop of 1.2 sizes", [(key, True) for _ in range(10) for key in range(size * 12 // 10)]),
        ]
        for name, trace in traces:
            found = {}
            for cache in (Near(size), Lru(size)):
                hit = asked = 0
                for key, counts in trace:
                    was = cache.ask(key)
                    hit += was and counts
                    asked += counts
                found[type(cache).__name__] = hit / asked
            print(f"hit ratio, {size:6,} entries, {name:17}  SIEVE {found['Near']:.3f}   LRU {found['Lru']:.3f}")
            met = met and (name.startswith("loop") or found["Near"] >= found["Lru"])
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    met = ratios()
    with server() as url:
        met = hits(url, asked.rounds) and met
        peers(url, max(asked.rounds // 3, 3))
        heard(url, 200)
        memory_of_an_entry(url)
    return int(asked.check and not met)


if __name__ == "__main__":
    sys.exit(main())
