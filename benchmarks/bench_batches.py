"""1,000 hits by `map` beside 1,000 calls, for `def` and `async def` functions, plain and with tags.

    python benchmarks/bench_batches.py [--rounds 15] [--url redis://localhost:6379/0] [--check]

Rounds are interleaved, each contender a moment after the other, so that a slow spell of the machine hits both; a ratio is
the median of the rounds' own ratios. Without --url it starts a redis-server of its own on a free loopback port, nothing
saved. With --check the exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import memover

CALLS, TARGET = 1000, 8.0
PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}

Row = tuple[str, float, float, float, bool]


def row(name: str, calls: list[float], maps: list[float], judged: bool) -> Row:
    ratios = [one / many for one, many in zip(calls, maps)]
    return name, median(calls) * 1e3, median(maps) * 1e3, median(ratios), judged


def in_threads(url: str, rounds: int, tags: tuple[str, ...]) -> Row:
    with memover.Cache(url, prefix="bench", socket_timeout=10) as cache:

        @memover.versioned_cache(namespace=f"batch{len(tags)}", cache=cache, tags=tags)
        def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        numbers = range(CALLS)
        expected = profile.map(numbers)
        assert [profile(number) for number in numbers] == expected == [PROFILE] * CALLS
        calls, maps = [], []
        for _ in range(rounds):
            began = perf_counter()
            for number in numbers:
                profile(number)
            calls.append(perf_counter() - began)
            began = perf_counter()
            profile.map(numbers)
            maps.append(perf_counter() - began)
        assert profile.cache_info().loads == CALLS
    return row(f"def, {len(tags) or 'no'} tags", calls, maps, not tags)


async def in_tasks(url: str, rounds: int, tags: tuple[str, ...]) -> Row:
    async with memover.Cache(url, prefix="bench", socket_timeout=10) as cache:

        @memover.versioned_cache(namespace=f"abatch{len(tags)}", cache=cache, tags=tags)
        async def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        numbers = range(CALLS)
        expected = await profile.map(numbers)
        assert [await profile(number) for number in numbers] == expected == [PROFILE] * CALLS
        calls, maps = [], []
        for _ in range(rounds):
            began = perf_counter()
            for number in numbers:
                await profile(number)
            calls.append(perf_counter() - began)
            began = perf_counter()
            await profile.map(numbers)
            maps.append(perf_counter() - began)
        assert profile.cache_info().loads == CALLS
    return row(f"async def, {len(tags) or 'no'} tags", calls, maps, not tags)


@contextmanager
def a_redis() -> Iterator[str]:
    """A redis-server of our own."""
    binary = shutil.which("redis-server")
    if binary is None:
        sys.exit("bench_batches: no redis-server here; install one, or give --url")
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
                        sys.exit("bench_batches: redis-server did not start")
                    time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def measured(url: str, rounds: int) -> list[Row]:
    rows = []
    for tags in ((), ("user:{user_id}", "all")):
        rows.append(in_threads(url, rounds, tags))
        rows.append(asyncio.run(in_tasks(url, rounds, tags)))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--url")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.url:
        rows = measured(asked.url, asked.rounds)
    else:
        with a_redis() as url:
            rows = measured(url, asked.rounds)
    missed = False
    print(f"{f'{CALLS:,} hits':24}{'one by one':>12}{'map':>12}   ratio  target")
    for name, calls, maps, ratio, judged in rows:
        missed |= judged and ratio < TARGET
        verdict = f"≥ {TARGET:g}  {'met' if ratio >= TARGET else 'MISSED'}" if judged else "none"
        print(f"{name:24}{calls:9.1f} ms{maps:9.1f} ms{ratio:8.1f}  {verdict}")
    print(f"medians of {asked.rounds} interleaved rounds; {sys.implementation.name} {sys.version.split()[0]}")
    return int(missed and asked.check)


if __name__ == "__main__":
    sys.exit(main())
