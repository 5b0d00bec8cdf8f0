"""The SQLite store beside diskcache, in one run: hits, misses, batches, four processes, invalidation at any size, the loop's lag.

    python benchmarks/bench_sqlite.py [--rounds 15] [--seconds 4] [--rows 1000,1000000] [--check]

Rounds are interleaved, each contender a moment after the other, so that a slow spell of the machine hits both; a ratio is
the median of the rounds' own ratios. Both have their files in one temporary directory (--directory). With --check the exit
status is 1 when a target is missed. The processor time of each call is shown beside the time that passed: on a machine that
others use, it is the steadier of the two.

Both sides write to a log (WAL) with synchronous=NORMAL: what was stored last may be lost with the machine's power, not with
the process. Our invalidations are synced besides. Of ours, a hit of an entry that the process has read before is answered from its
memory, as long as no process has changed it; diskcache asks SQLite each time. All others ask SQLite.

* hit, miss: `diskcache.Cache.memoize` with its defaults, a dict of five fields.
* map: 1,000 calls at once, by a bulk loader where they are misses; per call.
* processes: four, each calling one function with arguments of which 90 % are in the file; calls per second, all together, and
  the processor time of a call. The arguments are drawn before the time begins.
* invalidate_all: the time of one call at each number of rows; it moves one token, whatever there is. Most rows are copies
  of one that was stored, under keys of their own.
* lag: how late a timer of 5 ms fires on an event loop that reads and writes while four processes write; beside it, how late on a
  loop that does nothing, beside four processes that do nothing but calculate.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HIT_TARGET, MISS_TARGET, PROCESSES_TARGET, LAG_TARGET_MS, FLAT_TARGET = 0.5, 1.0, 3.0, 20.0, 3.0
CALLS, MISSES, BATCH = 2000, 300, 1000
PROCESSES = 4
HOT = 2000
PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}


class Spent(NamedTuple):
    """Seconds per call: those that passed, and those of the processor."""

    passed: float
    processor: float


def timed(function: Callable[[], Any], calls: int) -> Spent:
    """What a call takes."""
    began, used = perf_counter(), process_time()
    for _ in range(calls):
        function()
    return Spent((perf_counter() - began) / calls, (process_time() - used) / calls)


def functions(directory: str, kind: str) -> Callable[[int], Any]:
    """The same function, cached by the one or the other."""

    def profile(user_id: int) -> dict[str, Any]:
        return PROFILE

    if kind == "diskcache":
        import diskcache

        theirs: Callable[[int], Any] = diskcache.Cache(f"{directory}/diskcache").memoize(expire=300)(profile)
        return theirs
    import memover

    cache = memover.Cache(f"sqlite:///{directory}/memover.db", prefix="bench", socket_timeout=5.0)
    ours: Callable[[int], Any] = memover.versioned_cache(namespace="profile", cache=cache)(profile)
    return ours


def single(directory: str, rounds: int) -> dict[str, tuple[Compared, Compared]]:
    """A hit and a miss: time passed, and time of the processor."""
    ours, theirs = functions(directory, "memover"), functions(directory, "diskcache")
    assert ours(7) == ours(7) == theirs(7) == theirs(7) == PROFILE
    hits: list[tuple[Spent, Spent]] = []
    misses: list[tuple[Spent, Spent]] = []
    fresh = iter(range(1_000_000, 1 << 62))
    for _ in range(rounds):
        hits.append((timed(lambda: ours(7), CALLS), timed(lambda: theirs(7), CALLS)))
        misses.append((timed(lambda: ours(next(fresh)), MISSES), timed(lambda: theirs(next(fresh)), MISSES)))
    return {
        name: (
            summary([(a.passed, b.passed) for a, b in pairs]),
            summary([(a.processor, b.processor) for a, b in pairs]),
        )
        for name, pairs in (("hit", hits), ("miss", misses))
    }


class Compared(NamedTuple):
    """Medians of ours and theirs, and the median of the ratios."""

    ours: float
    theirs: float
    ratio: float


def summary(pairs: list[tuple[float, float]]) -> Compared:
    return Compared(median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs))


def batches(directory: str, rounds: int) -> dict[str, Spent]:
    """`map` of 1,000 misses and of 1,000 hits, per call."""
    import memover

    with memover.Cache(f"sqlite:///{directory}/batches.db", prefix="bench", socket_timeout=5.0) as cache:

        @memover.versioned_cache(namespace="batch", cache=cache)
        def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        @profile.batch_load
        def profiles(calls: Any) -> list[Any]:
            return [PROFILE] * len(calls)

        made: dict[str, list[Spent]] = {"misses": [], "hits": []}
        for number in range(rounds):
            numbers = range(number * BATCH, (number + 1) * BATCH)
            for spent in made.values():
                passed, processor = timed(lambda numbers=numbers: profile.map(numbers), 1)  # type: ignore[misc]
                spent.append(Spent(passed / BATCH, processor / BATCH))
        assert profile.cache_info().loads == rounds * BATCH
        return {
            name: Spent(median(one.passed for one in spent), median(one.processor for one in spent))
            for name, spent in made.items()
        }


# -- processes ----------------------------------------------------------------------------------------------------------------


def worker(directory: str, kind: str, number: int, seconds: float) -> None:
    """A process of the comparison: calls until the time is over, and prints how many there were."""
    call = functions(directory, kind)
    chance = random.Random(number)
    for user in range(HOT):
        if user % PROCESSES == number:
            call(user)
    fresh = iter(range((number + 1) * 100_000_000 + int(time.time() * 1000) % 10_000_000 * 10, 1 << 62))
    drawn = [[chance.randrange(HOT) if chance.random() < 0.9 else None for _ in range(20)] for _ in range(5000)]
    print("ready", flush=True)
    sys.stdin.readline()
    made = 0
    used, end = process_time(), perf_counter() + seconds
    while perf_counter() < end:
        for user in drawn[made // 20 % len(drawn)]:
            call(next(fresh) if user is None else user)
        made += 20
    print(made, process_time() - used, flush=True)


def started(directory: str, kind: str, seconds: float) -> list[subprocess.Popen[str]]:
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", kind, str(number), str(seconds), "--directory", directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline().strip() == "ready"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


class Together(NamedTuple):
    """What the processes of one contender did, all together."""

    calls_per_second: float
    processor: float
    """Seconds of the processor for one call."""


def together(directory: str, kind: str, seconds: float) -> Together:
    said = [child.communicate()[0].split() for child in started(directory, kind, seconds)]
    made = sum(int(calls) for calls, _ in said)
    return Together(made / seconds, sum(float(used) for _, used in said) / made)


# -- invalidation, lag ----------------------------------------------------------------------------------------------------------


def invalidation(directory: str, rows: list[int], rounds: int) -> dict[int, float]:
    """Seconds of one `invalidate_all` with so many rows in the file."""
    import memover

    found = {}
    path = f"{directory}/rows.db"
    with memover.Cache(f"sqlite:///{path}", prefix="bench", socket_timeout=60.0, ttl=None) as cache:

        @memover.versioned_cache(namespace="rows", cache=cache)
        def number(x: int) -> int:
            return x

        number(0)
        for count in rows:
            connection = sqlite3.connect(path)
            connection.execute(
                f"""WITH RECURSIVE copies (number) AS (
                SELECT count(*) FROM entries UNION ALL SELECT number + 1 FROM copies WHERE number + 1 < {count})
                INSERT INTO entries (key, expires, used, size, raw)
                SELECT 'bench:1:rows:' || printf('%032x', number), e.expires, e.used, e.size, e.raw
                FROM copies JOIN entries e ON e.id = 1"""  # a number of this program's
            )
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.close()
            found[count] = median(timed(number.invalidate_all, 5).passed for _ in range(rounds))
    return found


async def lag(directory: str, seconds: float) -> float:
    """The 99th percentile of a timer's lateness in milliseconds, while this loop reads and writes and others write."""
    import memover

    late: list[float] = []
    async with memover.Cache(f"sqlite:///{directory}/memover.db", prefix="bench", socket_timeout=5.0) as cache:

        @memover.versioned_cache(namespace="aprofile", cache=cache)
        async def profile(user_id: int) -> dict[str, Any]:
            return PROFILE

        async def calls(number: int) -> None:
            end = perf_counter() + seconds
            fresh = iter(range(number * 1_000_000, 1 << 62))
            while perf_counter() < end:
                await profile(next(fresh))
                await profile(number)
                await asyncio.sleep(0.001)

        async def timer() -> None:
            end = perf_counter() + seconds
            while perf_counter() < end:
                due = perf_counter() + 0.005
                await asyncio.sleep(0.005)
                late.append(perf_counter() - due)

        await asyncio.gather(timer(), *(calls(number) for number in range(4)))
    return sorted(late)[int(len(late) * 0.99)] * 1000


def idle_lag(seconds: float) -> float:
    """The same on a loop that does nothing else, beside as many processes that calculate: what the machine itself adds."""

    async def timer() -> list[float]:
        late = []
        end = perf_counter() + seconds
        while perf_counter() < end:
            due = perf_counter() + 0.005
            await asyncio.sleep(0.005)
            late.append(perf_counter() - due)
        return late

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(PROCESSES)]
    try:
        late = asyncio.run(timer())
    finally:
        for each in busy:
            each.kill()
            each.wait()
    return sorted(late)[int(len(late) * 0.99)] * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rows", default="1000,1000000", help="numbers of rows, ascending")
    parser.add_argument("--directory", default=None)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--worker", nargs=3, metavar=("KIND", "NUMBER", "SECONDS"))
    asked = parser.parse_args()
    if asked.worker:
        kind, number, seconds = asked.worker
        worker(asked.directory, kind, int(number), float(seconds))
        return 0
    missed = []

    def tell(name: str, text: str, within: bool) -> None:
        print(f"{name:<34} {text}{'' if within else '   MISSED'}")
        if not within:
            missed.append(name)

    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        for name, (passed, processor) in single(directory, asked.rounds).items():
            target = HIT_TARGET if name == "hit" else MISS_TARGET
            text = (
                f"{passed.ours * 1e6:7.1f} µs, diskcache {passed.theirs * 1e6:7.1f} µs: {passed.ratio:.2f} × (target {target} ×); "
                f"processor {processor.ours * 1e6:.1f} and {processor.theirs * 1e6:.1f} µs: {processor.ratio:.2f} ×"
            )
            tell(name, text, passed.ratio <= target)
        for name, spent in batches(directory, asked.rounds).items():
            text = f"{spent.passed * 1e6:7.1f} µs a call, processor {spent.processor * 1e6:.1f} µs"
            tell(f"map of {BATCH:,} {name}", text, True)
        rounds = [[together(directory, kind, asked.seconds) for kind in ("memover", "diskcache")] for _ in range(3)]
        ours, theirs, ratio = summary([(a.calls_per_second, b.calls_per_second) for a, b in rounds])
        used = summary([(a.processor, b.processor) for a, b in rounds])
        text = (
            f"{ours:7,.0f}/s, diskcache {theirs:7,.0f}/s: {ratio:.1f} × (target {PROCESSES_TARGET:.0f} ×); "
            f"processor {used.ours * 1e6:.1f} and {used.theirs * 1e6:.1f} µs: {used.ratio:.2f} ×"
        )
        tell(f"{PROCESSES} processes, 90 % hits", text, ratio >= PROCESSES_TARGET)
        rows = [int(count) for count in asked.rows.split(",")]
        found = invalidation(directory, rows, asked.rounds)
        text = ", ".join(f"{count:,} rows {seconds * 1e6:,.0f} µs" for count, seconds in found.items())
        tell("invalidate_all", text, found[rows[-1]] <= FLAT_TARGET * found[rows[0]])
        writers = started(directory, "memover", asked.seconds + 2)
        late = asyncio.run(lag(directory, asked.seconds))
        for writer in writers:
            writer.communicate()
        idle = idle_lag(asked.seconds)
        text = f"p99 {late:.1f} ms while {PROCESSES} processes write (target {LAG_TARGET_MS:.0f} ms; an idle loop beside {PROCESSES} that calculate {idle:.1f} ms)"
        tell("lag of an event loop", text, late < LAG_TARGET_MS)
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
