"""What the decorated call costs on a memory store: hits beside `lru_cache`, `cachetools` and `msgpack.unpackb`, and bytes per entry.

    python benchmarks/bench_face.py [--rounds 400] [--entries 200000] [--check]

Contenders take turns, a few hundred calls at a time, and each has the least of its times: on a busy machine that is the one that
nobody disturbed. Bytes per entry are what the process grew by (RSS, Linux), each contender in a process of its own, with a
result that is an int. With --check the exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import functools
import gc
import subprocess
import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 600
RECORD = {
    **{f"field_{number}": number for number in range(6)},
    "name": "Ada Lovelace", "email": "ada@example.com", "score": 1.5, "active": True, "none": None,
    "tags": ["mathematics", "engines"], "settings": {"theme": "dark", "zone": "Europe/London"},
}  # fmt: skip
ROWS = (
    # name, ours, beside, the greatest ratio
    ("hit, int, one argument", "one", "lru one", 5.0),
    ("hit, int, two arguments", "two", "lru two", 5.0),
    ("hit, method, self by __memover_key__", "method", "lru method", 15.0),
    ("hit, dict of 13 fields, a new one each", "record", "unpackb", 0.9),
)
BYTES_TARGET = 260


def contenders() -> dict[str, tuple[str, Any]]:
    """What is timed, by name: a statement and the `f` in it."""
    import msgpack

    import memover

    cache = memover.Cache()

    def number(x: int) -> int:
        return 4

    def numbers(sku: str, count: int = 1) -> int:
        return 4

    @memover.versioned_cache(namespace="record", cache=cache)
    def record(x: int) -> dict[str, Any]:
        return RECORD

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def __memover_key__(self) -> str:
            return self.name

        @memover.versioned_cache(namespace="method", cache=cache)
        def ours(self, x: int) -> int:
            return 4

        @functools.lru_cache  # noqa: B019  # that is what is compared
        def theirs(self, x: int) -> int:
            return 4

    packed, shop, unpackb = msgpack.packb(RECORD), Shop("tea"), msgpack.unpackb
    one = cache.versioned(namespace="one")(number)
    found: dict[str, tuple[str, Any]] = {
        "one": ("f(2)", one),
        "two": ("f('tea', 2)", cache.versioned(namespace="two")(numbers)),
        "method": ("f.ours(2)", shop),
        "record": ("f(2)", record),
        "lru one": ("f(2)", functools.lru_cache(number)),
        "lru two": ("f('tea', 2)", functools.lru_cache(numbers)),
        "lru method": ("f.theirs(2)", shop),
        "unpackb": ("f()", functools.partial(unpackb, packed)),
    }
    try:
        import cachetools
    except ImportError:
        return found
    found["cachetools one"] = ("f(2)", cachetools.cached(cachetools.LRUCache(1000))(number))
    return found


def timed(rounds: int) -> dict[str, float]:
    """The least nanoseconds a call of each."""
    timers = {name: timeit.Timer(statement, globals={"f": f}) for name, (statement, f) in contenders().items()}
    least = dict.fromkeys(timers, float("inf"))
    for timer in timers.values():
        timer.timeit(10)  # until a call has been made for the function
    for _ in range(rounds):
        for name, timer in timers.items():
            least[name] = min(least[name], timer.timeit(CALLS) / CALLS * 1e9)
    return least


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def filler(kind: str, entries: int) -> Callable[[int], int]:
    """A function with a cache of that kind around it."""

    def number(x: int) -> int:
        return x * 1000 + 1

    if kind == "lru_cache":
        return functools.lru_cache(entries + 10)(number)
    if kind == "cachetools":
        import cachetools

        made: Callable[[int], int] = cachetools.cached(cachetools.LRUCache(entries + 10))(number)
        return made
    import memover

    return memover.Cache(max_entries=entries + 10).versioned(namespace="memory")(number)


def grown(kind: str, entries: int) -> float:
    """Bytes per entry, measured in this process."""
    f = filler(kind, entries)
    f(-1), f(-1)
    gc.collect()
    before = resident_bytes()
    for number in range(entries):
        f(number)
    gc.collect()
    return (resident_bytes() - before) / entries


def bytes_per_entry(kind: str, entries: int) -> float | None:
    """The same in a process of its own; None where it cannot be measured."""
    command = [sys.executable, __file__, "--child", kind, "--entries", str(entries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(grown(asked.child, asked.entries))
        return 0
    times, missed = timed(asked.rounds), False
    print(f"{'':42}{'memover':>9}{'beside':>9}{'ratio':>8}{'target':>8}")
    for name, ours, beside, target in ROWS:
        ratio = times[ours] / times[beside]
        missed |= ratio > target
        print(f"{name:42}{times[ours]:6.0f} ns{times[beside]:6.0f} ns{ratio:8.2f}{target:8.1f}  (beside {beside})")
    if "cachetools one" in times:
        print(f"{'cachetools, int, one argument':42}{'':9}{times['cachetools one']:6.0f} ns")
    for kind in ("memover", "lru_cache", "cachetools"):
        found = bytes_per_entry(kind, asked.entries)
        if found is not None:
            missed |= kind == "memover" and found > BYTES_TARGET
            limit = f"{BYTES_TARGET:8}" if kind == "memover" else ""
            print(f"{f'bytes per entry, int, {kind}':42}{found:9.0f}{'':17}{limit}")
    return int(missed and asked.check)


if __name__ == "__main__":
    sys.exit(main())
