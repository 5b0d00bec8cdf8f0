"""What a hit costs, beside the least it could cost: a plain Redis GET with msgpack, and `functools.lru_cache`.

    python benchmarks/bench_hits.py [--rounds 15] [--url redis://localhost:6379/0] [--check]

Everything is measured in one run. Rounds are interleaved, each contender a moment after the other, so that a slow spell
of the machine hits all; a ratio is the median of the rounds' own ratios. Without --url it starts a redis-server of its
own on a free loopback port that saves nothing. The rows without hiredis are measured in a
child process in which it cannot be imported. With --check the exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# A memory hit is to take under 1 µs where lru_cache takes 65 ns: as a ratio, so that a slow machine tells the same.
REDIS_TARGET, MEMORY_TARGET = 1.15, 1000 / 65
CALLS, MEMORY_CALLS = 1000, 50_000
PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}

Row = dict[str, Any]


def timed(function: Callable[[], Any], calls: int) -> float:
    """Seconds per call."""
    began = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - began) / calls


async def atimed(function: Callable[[], Awaitable[Any]], calls: int) -> float:
    began = perf_counter()
    for _ in range(calls):
        await function()
    return (perf_counter() - began) / calls


def row(name: str, ours: list[float], theirs: list[float], beside: str) -> Row:
    ratios = [a / b for a, b in zip(ours, theirs)]
    return {
        "name": name,
        "ours": median(ours) * 1e6,
        "theirs": median(theirs) * 1e6,
        "beside": beside,
        "ratio": median(ratios),
    }


def redis_sync(url: str, rounds: int) -> Row:
    import msgpack
    import redis

    import memover

    client = redis.Redis.from_url(url)
    client.set("bench:plain", msgpack.packb(PROFILE))
    with memover.Cache(url, prefix="bench") as cache:

        @memover.versioned_cache(namespace="profile", cache=cache)
        def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        def plain() -> Any:
            return msgpack.unpackb(client.get("bench:plain"))

        assert profile(7) == profile(7) == plain()
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(timed(plain, CALLS))
            ours.append(timed(lambda: profile(7), CALLS))
        assert profile.cache_info().loads <= 1
    client.close()
    return row("Redis hit, def", ours, theirs, "redis.Redis.get + unpackb")


async def redis_async(url: str, rounds: int) -> Row:
    import msgpack
    import redis.asyncio

    import memover

    client = redis.asyncio.Redis.from_url(url)
    await client.set("bench:plain", msgpack.packb(PROFILE))
    async with memover.Cache(url, prefix="bench") as cache:

        @memover.versioned_cache(namespace="aprofile", cache=cache)
        async def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        async def plain() -> Any:
            return msgpack.unpackb(await client.get("bench:plain"))

        assert await profile(7) == await profile(7) == await plain()
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(await atimed(plain, CALLS))
            ours.append(await atimed(lambda: profile(7), CALLS))
        assert profile.cache_info().loads <= 1
    await client.aclose()
    return row("Redis hit, async def", ours, theirs, "redis.asyncio get + unpackb")


def memory(rounds: int) -> list[Row]:
    import memover

    cache = memover.Cache()

    @memover.versioned_cache(namespace="memory", cache=cache)
    def price(sku: str, count: int = 1) -> float:
        return 4.5

    @memover.versioned_cache(namespace="memory/list", cache=cache)
    def prices(sku: str, count: int = 1) -> list[float]:
        return [4.5, 5.5]

    @functools.lru_cache
    def remembered(sku: str, count: int = 1) -> float:
        return 4.5

    contenders: list[tuple[str, Callable[..., Any]]] = [
        ("memory hit, immutable", price),
        ("memory hit, list of 2", prices),
    ]
    found: dict[str, list[float]] = {name: [] for name, _ in contenders}
    theirs = []
    for warmed in (price, prices, remembered):
        warmed("tea", 2)

    def each(function: Callable[..., Any]) -> float:
        # timeit, because the call of a lambda would cost as much as lru_cache does.
        return timeit.timeit("f('tea', 2)", globals={"f": function}, number=MEMORY_CALLS) / MEMORY_CALLS

    for _ in range(rounds):
        theirs.append(each(remembered))
        for name, function in contenders:
            found[name].append(each(function))
    return [row(name, ours, theirs, "functools.lru_cache") for name, ours in found.items()]


@contextmanager
def a_redis() -> Iterator[str]:
    """A redis-server of our own."""
    binary = shutil.which("redis-server")
    if binary is None:
        sys.exit("bench_hits: no redis-server here; install one, or give --url")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or server.poll() is not None:
                        sys.exit("bench_hits: redis-server did not start")
                    time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def over_redis(url: str, rounds: int) -> list[Row]:
    return [redis_sync(url, rounds), asyncio.run(redis_async(url, rounds))]


def without_hiredis(url: str, rounds: int) -> list[Row]:
    """The same in a process in which `import hiredis` fails, as where it is not installed."""
    command = [sys.executable, __file__, "--child", "--url", url, "--rounds", str(rounds)]
    rows: list[Row] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--url")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        sys.modules["hiredis"] = None  # type: ignore[assignment]
        print(json.dumps(over_redis(asked.url, asked.rounds)))
        return 0
    rows = memory(asked.rounds)
    parser_here = "Python parser" if importlib.util.find_spec("hiredis") is None else "hiredis"
    if asked.url:
        over = [(parser_here, over_redis(asked.url, asked.rounds))]
        if parser_here == "hiredis":
            over.append(("Python parser", without_hiredis(asked.url, asked.rounds)))
    else:
        with a_redis() as url:
            over = [(parser_here, over_redis(url, asked.rounds))]
            if parser_here == "hiredis":
                over.append(("Python parser", without_hiredis(url, asked.rounds)))
    for name, more in over:
        rows += [{**one, "name": f"{one['name']} ({name})"} for one in more]

    missed = False
    print(f"{'':38}{'memover':>10}{'plain':>10}  ratio  target")
    for one in rows:
        if "Redis" in one["name"]:
            met, target = one["ratio"] <= REDIS_TARGET, f"ratio ≤ {REDIS_TARGET}"
        elif "immutable" in one["name"]:
            met, target = one["ratio"] <= MEMORY_TARGET, f"ratio ≤ {MEMORY_TARGET:.1f}"
        else:
            met, target = True, "none"
        missed |= not met
        verdict = "" if target == "none" else ("  met" if met else "  MISSED")
        print(
            f"{one['name']:38}{one['ours']:7.3g} µs{one['theirs']:7.3g} µs{one['ratio']:7.2f}  {target}{verdict}"
            f"   (beside {one['beside']})"
        )
    print(f"medians of {asked.rounds} interleaved rounds; {sys.implementation.name} {sys.version.split()[0]}")
    return int(missed and asked.check)


if __name__ == "__main__":
    sys.exit(main())
