"""The table of benchmarks: memover beside other caches, with ratios, everything measured in one run.

    python benchmarks/table.py [--quick] [--only hits,tasks,...] [--page docs/speed.md] [--pictures docs/plots]

Needs the extra `bench` (`pip install -e ".[bench]"`); a contender that is not installed is left out. Rounds are interleaved: in
each, every contender of a row is measured once, one straight after another and in turning order, so that a slow spell of the
machine hits all. A ratio is the median of the rounds' own ratios to the row's first contender, so below 1 is faster than it; a
throughput is turned into seconds per call. It starts a redis-server of its own that saves nothing; every contender uses the same one by
TCP on loopback, with hiredis where that is installed. What each has to do is the same: the result of one function, a dict of five
fields where it is not said otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import functools
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PROFILE = {"id": 7, "name": "Alice", "email": "alice@example.org", "roles": ["admin", "editor"], "score": 12.5}
FIELDS = {f"field{number}": number * 1.5 if number % 3 else f"value {number}" for number in range(13)}
PEERS = (
    "cachetools", "cachebox", "redis", "hiredis", "django-redis", "dogpile.cache", "cashews", "aiocache", "diskcache", "msgpack",
)  # fmt: skip
Measure = Callable[[], float]
"""Measures once: seconds per call (or another quantity of which less is better)."""


class Row(NamedTuple):
    """One row: what is measured, its unit, and for each contender what each round gave."""

    group: str
    name: str
    unit: str
    rounds: dict[str, list[float]]

    def middle(self, contender: str) -> float:
        return median(self.rounds[contender])

    def ratio(self, contender: str) -> float:
        first = next(iter(self.rounds.values()))
        return median(own / base for own, base in zip(self.rounds[contender], first))


def interleaved(group: str, name: str, contenders: dict[str, Measure], rounds: int, unit: str = "µs") -> Row:
    """Measure all contenders `rounds` times, each round in another order."""
    found: dict[str, list[float]] = {contender: [] for contender in contenders}
    names = list(contenders)
    for measure in contenders.values():
        measure()  # nothing is cold when it counts
    for turn in range(rounds):
        at = turn % len(names)
        for contender in names[at:] + names[:at]:
            found[contender].append(contenders[contender]())
    row = Row(group, name, unit, found)
    print(line_of(row), flush=True)
    return row


def line_of(row: Row) -> str:
    scale = {"µs": 1e6, "ns": 1e9, "ms": 1e3, "s": 1.0, "bytes": 1.0}[row.unit]
    cells = [f"{name} {row.middle(name) * scale:,.4g} ({row.ratio(name):.2f})" for name in row.rounds]
    return f"{row.name} [{row.unit}]: {' · '.join(cells)}"


def repeated(function: Callable[[], Any], calls: int) -> Measure:
    def measure() -> float:
        began = perf_counter()
        for _ in range(calls):
            function()
        return (perf_counter() - began) / calls

    return measure


def there(*modules: str) -> bool:
    """Whether modules can be imported."""
    try:
        for module in modules:
            __import__(module)
    except ImportError:
        return False
    return True


class Bench:
    """What every row needs: a server, how long to measure, and what is to be closed at the end."""

    def __init__(self, url: str, port: int, stack: ExitStack, *, quick: bool) -> None:
        self.url = url
        self.port = port
        self.stack = stack
        self.rounds = 3 if quick else 7
        self.calls = 300 if quick else 1500
        self.quick = quick
        self.loop = asyncio.new_event_loop()
        stack.callback(self.loop.close)

    def cache(self, url: str | None = None, **options: Any) -> Any:
        import memover

        cache = memover.Cache(url or self.url, **{"prefix": f"bench{time.monotonic_ns()}", "ttl": 3600, **options})
        self.stack.callback(lambda: self.loop.run_until_complete(cache.aclose()))
        return cache


# -- in memory ----------------------------------------------------------------------------------------------------------------


def memory(bench: Bench) -> list[Row]:
    cache = bench.cache("memory://")
    calls = bench.calls * 20

    def square(x: int) -> int:
        return x * x

    number: dict[str, Any] = {"lru_cache": functools.lru_cache(square)}
    if there("cachetools"):
        import cachetools

        number["cachetools"] = cachetools.cached(cachetools.LRUCache(1000), lock=threading.Lock())(square)
    if there("cachebox"):
        import cachebox

        number["cachebox"] = cachebox.cached(cachebox.LRUCache(1000))(square)
    number["memover"] = cache.versioned(namespace="square")(square)

    class Shop:
        def __memover_key__(self) -> str:
            return "shop"

        def plain(self, x: int) -> int:
            return x * x

        quick = functools.lru_cache(plain)
        kept = cache.versioned(namespace="method")(plain)

    shop = Shop()

    @cache.versioned(namespace="fields")
    def fields(x: int) -> dict[str, Any]:
        return dict(FIELDS)

    import msgpack

    packed = msgpack.packb(FIELDS)
    return [
        interleaved("memory", "hit in memory, an int", {n: repeated(lambda f=f: f(7), calls) for n, f in number.items()}, bench.rounds, "ns"),
        interleaved("memory", "hit through a bound method", {
            "lru_cache": repeated(lambda: shop.quick(7), calls), "memover": repeated(lambda: shop.kept(7), calls),
        }, bench.rounds, "ns"),
        interleaved("memory", "hit in memory, a dict of 13 fields, a new one for each caller", {
            "msgpack.unpackb": repeated(lambda: msgpack.unpackb(packed), calls // 4), "memover": repeated(lambda: fields(7), calls // 4),
        }, bench.rounds, "ns"),
    ]  # fmt: skip


# -- on Redis, one caller -----------------------------------------------------------------------------------------------------


def one_caller(bench: Bench) -> list[Row]:
    import msgpack
    import redis

    client = bench.stack.enter_context(redis.Redis.from_url(bench.url))
    client.set("table:profile", msgpack.packb(PROFILE))
    cache = bench.cache()

    @cache.versioned(namespace="profile")
    def profile(x: int) -> dict[str, Any]:
        return PROFILE

    def get_or_set(x: int) -> Any:
        raw = client.get(f"table:miss:{x}")
        if raw is None:
            client.set(f"table:miss:{x}", msgpack.packb(PROFILE), ex=3600)
            return PROFILE
        return msgpack.unpackb(raw)

    hits: dict[str, Callable[[], Any]] = {"redis-py": lambda: msgpack.unpackb(client.get("table:profile"))}
    misses: dict[str, Callable[[int], Any]] = {"redis-py": get_or_set}
    if there("django_redis"):
        from django.conf import settings

        if not settings.configured:
            settings.configure()
        from django_redis.cache import RedisCache

        django = RedisCache(bench.url, {})
        django.set("profile", PROFILE, 3600)
        hits["django-redis"] = lambda: django.get("profile")
        misses["django-redis"] = lambda x: django.get_or_set(f"miss:{x}", PROFILE, 3600)
    if there("dogpile.cache"):
        from dogpile.cache import make_region

        arguments = {"url": bench.url, "distributed_lock": True, "thread_local_lock": False}
        region = make_region().configure("dogpile.cache.redis", expiration_time=3600, arguments=arguments)

        @region.cache_on_arguments(namespace="table")
        def dogpile(x: int) -> dict[str, Any]:
            return PROFILE

        hits["dogpile"] = lambda: dogpile(7)
        misses["dogpile"] = dogpile
    if there("diskcache"):
        import diskcache

        disk = diskcache.Cache(bench.stack.enter_context(tempfile.TemporaryDirectory()))
        kept = disk.memoize()(lambda x: PROFILE)
        hits["diskcache (a file)"] = lambda: kept(7)
    hits["memover"] = lambda: profile(7)
    misses["memover"] = profile
    numbers = iter(range(10**9))
    return [
        interleaved("redis", "hit on Redis, one caller", {n: repeated(f, bench.calls) for n, f in hits.items()}, bench.rounds),
        interleaved(
            "redis", "miss, a function that returns at once",
            {n: repeated(lambda f=f: f(1000 + next(numbers)), bench.calls // 3) for n, f in misses.items()}, bench.rounds,
        ),
    ]  # fmt: skip


# -- many callers -------------------------------------------------------------------------------------------------------------


def _coroutines(bench_url: str, port: int) -> tuple[dict[str, Callable[[int], Awaitable[Any]]], list[Any]]:
    """The contenders of asyncio, each an `async` function of one argument; and what is to be closed."""
    import msgpack
    import redis.asyncio

    import memover

    client = redis.asyncio.Redis.from_url(bench_url)
    raw = msgpack.packb(PROFILE)

    async def plain(x: int) -> Any:
        found = await client.get(f"table:async:{x}")
        if found is None:
            await client.set(f"table:async:{x}", raw)
            return PROFILE
        return msgpack.unpackb(found)

    contenders: dict[str, Callable[[int], Awaitable[Any]]] = {"redis.asyncio": plain}
    closing: list[Any] = [client.aclose]
    if there("cashews"):
        import cashews

        theirs = cashews.Cache()
        theirs.setup(bench_url)

        @theirs(ttl="1h", key="table:cashews:{x}")
        async def by_cashews(x: int) -> dict[str, Any]:
            return PROFILE

        contenders["cashews"] = by_cashews
        closing.append(theirs.close)
    if there("aiocache"):
        import aiocache
        from aiocache.serializers import PickleSerializer

        @aiocache.cached(
            cache=aiocache.Cache.REDIS, endpoint="127.0.0.1", port=port, serializer=PickleSerializer(), ttl=3600,
            key_builder=lambda function, x: f"table:aiocache:{x}",
        )  # fmt: skip
        async def by_aiocache(x: int) -> dict[str, Any]:
            return PROFILE

        contenders["aiocache"] = by_aiocache
    cache = memover.Cache(bench_url, prefix="tableasync", ttl=3600)

    @cache.versioned(namespace="profile")
    async def by_memover(x: int) -> dict[str, Any]:
        return PROFILE

    contenders["memover"] = by_memover
    closing.append(cache.aclose)
    return contenders, closing


async def _storm(function: Callable[[int], Awaitable[Any]], tasks: int, calls: int) -> float:
    async def work(at: int) -> None:
        for number in range(calls):
            await function((at * 31 + number) % 64)

    began = perf_counter()
    await asyncio.gather(*(work(at) for at in range(tasks)))
    return (perf_counter() - began) / (tasks * calls)


def tasks(bench: Bench) -> list[Row]:
    contenders, closing = _coroutines(bench.url, bench.port)
    run = bench.loop.run_until_complete
    calls = max(bench.calls // 15, 20)
    row = interleaved(
        "many", "hits of 64 tasks on one event loop",
        {name: lambda f=f: run(_storm(f, 64, calls)) for name, f in contenders.items()}, bench.rounds,
    )  # fmt: skip
    for close in closing:
        run(close())
    return [row]


def _worker(url: str, port: int, name: str) -> None:
    """A process of the row with four of them: says when it is ready, and measures when it is told to."""

    async def work() -> None:
        contenders, closing = _coroutines(url, port)
        function = contenders[name]
        await _storm(function, 16, 8)
        print("ready", flush=True)
        for line in sys.stdin:
            print(await _storm(function, 16, int(line)), flush=True)
        for close in closing:
            await close()

    asyncio.run(work())


def processes(bench: Bench) -> list[Row]:
    contenders, closing = _coroutines(bench.url, bench.port)
    for close in closing:
        bench.loop.run_until_complete(close())
    workers: dict[str, list[Any]] = {}
    for name in contenders:
        command = [sys.executable, __file__, "--worker", f"{bench.url} {bench.port} {name}"]
        workers[name] = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        for each in workers[name]:
            bench.stack.callback(each.kill)
    for group in workers.values():
        for each in group:
            assert each.stdout.readline().strip() == "ready"
    calls = max(bench.calls // 8, 40)

    def measure(name: str) -> float:
        began = perf_counter()
        for each in workers[name]:
            each.stdin.write(f"{calls}\n")
            each.stdin.flush()
        for each in workers[name]:
            each.stdout.readline()
        return (perf_counter() - began) / (4 * 16 * calls)

    return [
        interleaved(
            "many", "hits of 4 processes with 16 tasks each",
            {name: lambda name=name: measure(name) for name in workers}, bench.rounds,
        )
    ]  # fmt: skip


def threads(bench: Bench) -> list[Row]:
    import msgpack
    import redis

    client = bench.stack.enter_context(redis.Redis.from_url(bench.url))
    client.set("table:profile", msgpack.packb(PROFILE))
    cache = bench.cache()

    @cache.versioned(namespace="threads")
    def profile(x: int) -> dict[str, Any]:
        return PROFILE

    pool = bench.stack.enter_context(concurrent.futures.ThreadPoolExecutor(8))
    calls = bench.calls // 4

    def storm(function: Callable[[], Any]) -> Measure:
        def work() -> None:
            for _ in range(calls):
                function()

        def measure() -> float:
            began = perf_counter()
            list(pool.map(lambda _: work(), range(8)))
            return (perf_counter() - began) / (8 * calls)

        return measure

    return [
        interleaved(
            "many", "hits of 8 threads",
            {"redis-py": storm(lambda: msgpack.unpackb(client.get("table:profile"))), "memover": storm(lambda: profile(7))},
            bench.rounds,
        )
    ]  # fmt: skip


def stampede(bench: Bench) -> list[Row]:
    """200 callers of one cold call that takes 200 ms; what is measured is how long the slowest waits."""
    run = bench.loop.run_until_complete
    numbers = iter(range(10**9))
    loads: dict[str, list[int]] = {}
    cache = bench.cache()

    def loading(name: str) -> Callable[[int], Awaitable[Any]]:
        async def slow(x: int) -> dict[str, Any]:
            loads.setdefault(name, []).append(x)
            await asyncio.sleep(0.2)
            return PROFILE

        return slow

    contenders: dict[str, Callable[[int], Awaitable[Any]]] = {"the function alone": loading("the function alone")}
    closing = []
    if there("cashews"):
        import cashews

        theirs = cashews.Cache()
        theirs.setup(bench.url)
        contenders["cashews, lock=True"] = theirs(ttl="1h", key="table:stampede:{x}", lock=True)(
            loading("cashews, lock=True")
        )
        closing.append(theirs.close)
    contenders["memover"] = cache.versioned(namespace="stampede")(loading("memover"))

    async def once(function: Callable[[int], Awaitable[Any]]) -> float:
        number = next(numbers)
        began = perf_counter()
        await asyncio.gather(*(function(number) for _ in range(200)))
        return perf_counter() - began

    rounds = 3 if bench.quick else 5
    row = interleaved(
        "many", "200 callers of a cold call that takes 200 ms, the slowest",
        {name: lambda f=f: run(once(f)) for name, f in contenders.items()}, rounds, "ms",
    )  # fmt: skip
    for name, found in loads.items():
        print(f"  loads a stampede: {name} {len(found) / (rounds + 1):.3g}")
    for close in closing:
        run(close())
    return [row]


def batches(bench: Bench) -> list[Row]:
    cache = bench.cache()

    def function(namespace: str, **options: Any) -> Any:
        @cache.versioned(namespace=namespace, **options)
        def profile(x: int) -> dict[str, Any]:
            return PROFILE

        profile.map(range(200))
        profile.map(range(200))
        return profile

    plain, tagged = function("plain"), function("tagged", tags=("x:{x}",))
    rounds = max(bench.calls // 300, 1)

    def single(f: Any) -> Callable[[], Any]:
        return lambda: [f(x) for x in range(200)]

    def per_call(work: Callable[[], Any]) -> Measure:
        measure = repeated(work, rounds)
        return lambda: measure() / 200

    return [
        interleaved("redis", f"{name} of 200, each call", {
            "one by one": per_call(single(f)), "memover's map": per_call(lambda f=f: f.map(range(200))),
        }, bench.rounds)
        for name, f in (("hits", plain), ("tagged hits", tagged))
    ]  # fmt: skip


# -- what it takes ------------------------------------------------------------------------------------------------------------

_FOOTPRINT = """
import functools, gc, sys
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def square(x): return x * x
name, count = sys.argv[1], int(sys.argv[2])
if name == "lru_cache":
    f = functools.lru_cache(None)(square)
elif name == "cachetools":
    import cachetools
    f = cachetools.cached(cachetools.LRUCache(count * 2))(square)
elif name == "cachebox":
    import cachebox
    f = cachebox.cached(cachebox.LRUCache(count * 2))(square)
else:
    import memover
    f = memover.Cache("memory://", max_entries=count * 2).versioned(namespace="f")(square)
for x in range(-1000, 0): f(x)
gc.collect()
before = resident()
for x in range(count): f(x)
gc.collect()
print((resident() - before) / count)
"""


def _child(code: str, *arguments: str) -> float:
    # Bytecode is on disk after the first import, as it is where a program is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    said = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return float(said.stdout)


def footprint(bench: Bench) -> list[Row]:
    count = "50000" if bench.quick else "200000"
    names = ["lru_cache", *(name for name in ("cachetools", "cachebox") if there(name)), "memover"]
    entry = interleaved(
        "footprint", "resident memory of an entry, int to int",
        {name: lambda name=name: _child(_FOOTPRINT, name, count) for name in names}, 1 if bench.quick else 3, "bytes",
    )  # fmt: skip

    def importing(statement: str) -> Measure:
        code = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
        return lambda: _child(code)

    started = interleaved("footprint", "import, and a cache", {
        "json, asyncio, inspect": importing("import json, asyncio, inspect"),
        "redis-py": importing("import redis; redis.Redis()"),
        "memover": importing("from memover import versioned_cache, Cache; Cache()"),
    }, bench.rounds, "ms")  # fmt: skip
    return [entry, started]


# -- growth -------------------------------------------------------------------------------------------------------------------


class Growth(NamedTuple):
    """Seconds of one operation for each size of something."""

    name: str
    points: dict[int, float]


def grown(name: str, sizes: list[int], make: Callable[[int], Callable[[], Any]], calls: int) -> Growth:
    """The median of several rounds over all sizes, one size after another."""
    functions = {size: make(size) for size in sizes}
    found: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(5):
        for size, function in functions.items():
            found[size].append(repeated(function, calls)())
    result = Growth(name, {size: median(each) for size, each in found.items()})
    print(
        f"{name}: " + " · ".join(f"{size:,} {seconds * 1e6:.4g} µs" for size, seconds in result.points.items()),
        flush=True,
    )
    return result


def growth(bench: Bench) -> list[Growth]:
    import redis

    # A million keys made by one script take longer than redis-py waits by default, where the machine is slow.
    client = bench.stack.enter_context(redis.Redis.from_url(bench.url, socket_timeout=120))
    sizes = [1000, 10_000, 100_000] if bench.quick else [1000, 10_000, 100_000, 1_000_000]
    calls = bench.calls // 3

    def filled(prefix: str, start: bytes, size: int) -> None:
        """Copies of an entry under other keys, as many: what a hit costs must not depend on them."""
        (key,) = [key for key in client.keys(f"{prefix}:*") if start in key][:1]
        client.eval(
            "local raw = redis.call('GET', KEYS[1]) for i = 1, ARGV[1] do redis.call('SET', KEYS[1] .. i, raw) end", 1, key, size
        )  # fmt: skip

    def on_redis(size: int, **options: Any) -> Any:
        cache = bench.cache()

        @cache.versioned(namespace="f", **options)
        def f(x: int) -> dict[str, Any]:
            return PROFILE

        f(7)
        filled(cache.prefix, b":1:f:", size)
        return f

    def in_memory(size: int) -> Callable[[], Any]:
        cache = bench.cache("memory://", max_entries=2 * size)

        @cache.versioned(namespace="f")
        def f(x: int) -> int:
            return x

        for x in range(size):
            f(x)
        return lambda: f(7)

    def of_tags(size: int) -> Callable[[], Any]:
        cache = bench.cache()

        @cache.versioned(namespace="f", tags=("x:{x}",))
        def f(x: int) -> dict[str, Any]:
            return PROFILE

        f(7)
        filled(cache.prefix, b":tag:", size)
        return lambda: f(7)

    def of_namespaces(size: int) -> Callable[[], Any]:
        cache = bench.cache()

        @cache.versioned(namespace="f")
        def f(x: int) -> dict[str, Any]:
            return PROFILE

        f(7)
        filled(cache.prefix, b":gen:f", size)
        return lambda: f(7)

    def of_dependencies(size: int) -> Callable[[], Any]:
        cache = bench.cache()

        @cache.versioned(namespace="inner")
        def inner(x: int) -> int:
            return x

        @cache.versioned(namespace="outer")
        def outer(x: int) -> int:
            return sum(inner(each) for each in range(size))

        outer(7)
        outer(7)
        return lambda: outer(7)

    on_memory = [size for size in sizes if size <= 100_000] if bench.quick else sizes
    hits, invalidations = {}, {}
    for size in sizes:
        f = on_redis(size)
        hits[size], invalidations[size] = (lambda f=f: f(7)), f.invalidate_all
    return [
        grown("hit in memory, by entries", on_memory, in_memory, calls * 5),
        grown("hit on Redis, by entries", sizes, hits.__getitem__, calls),
        grown("hit on Redis, by tags", sizes, of_tags, calls),
        grown("hit on Redis, by namespaces", sizes, of_namespaces, calls),
        grown("hit on Redis, by calls that its load used", [1, 10, 100, 1000], of_dependencies, calls),
        grown("invalidate_all on Redis, by entries", sizes, invalidations.__getitem__, max(calls // 5, 20)),
    ]


# -- output -------------------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "memory": memory,
    "redis": one_caller,
    "tasks": tasks,
    "processes": processes,
    "threads": threads,
    "stampede": stampede,
    "batches": batches,
    "footprint": footprint,
}


def machine() -> str:
    """What it ran on, for the head of the table."""
    versions = []
    for peer in PEERS:
        try:
            versions.append(f"{peer} {version(peer)}")
        except PackageNotFoundError:
            versions.append(f"{peer} not installed")
    server = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    redis_version = server.partition("v=")[2].partition(" ")[0] or "?"
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), {platform.python_implementation()} "
        f"{platform.python_version()}, Redis {redis_version} on the same machine; {', '.join(versions)}"
    )


def markdown(rows: list[Row], grown_rows: list[Growth]) -> str:
    lines = [machine() + ".", ""]
    if rows:
        lines += ["| work | contender | median | ratio |", "|---|---|---|---|"]
    for row in rows:
        scale = {"µs": 1e6, "ns": 1e9, "ms": 1e3, "bytes": 1.0}[row.unit]
        for at, contender in enumerate(row.rounds):
            name = row.name if at == 0 else ""
            bold = "**" if contender.startswith("memover") else ""
            median_of = f"{row.middle(contender) * scale:,.4g} {row.unit}"
            lines.append(f"| {name} | {bold}{contender}{bold} | {median_of} | {bold}{row.ratio(contender):.2f}{bold} |")
    if grown_rows:
        lines += ["", "| growth | sizes | µs | largest to smallest |", "|---|---|---|---|"]
    for each in grown_rows:
        sizes, values = list(each.points), list(each.points.values())
        lines.append(
            f"| {each.name} | {', '.join(f'{size:,}' for size in sizes)} | {', '.join(f'{value * 1e6:.3g}' for value in values)} "
            f"| {values[-1] / values[0]:.2f} |"
        )
    return "\n".join(lines) + "\n"


FIRST, LAST = "<!-- benchmarks/table.py -->\n", "<!-- as it printed it -->\n"


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text().partition(FIRST)
    _, found, after = rest.partition(LAST)
    if not found:
        raise SystemExit(
            f"{page} has no place for the table: write {FIRST.strip()} and {LAST.strip()} on lines of their own."
        )
    page.write_text(f"{before}{FIRST}\n{text}\n{LAST}{after}")


def draw(rows: list[Row], grown_rows: list[Growth], directory: Path) -> None:
    from benchmarks.plots import ACCENTS, figure, save

    if rows:
        bars = [(row.name, contender, row.ratio(contender)) for row in rows for contender in row.rounds]
        drawn, axes = figure(1, width=9, height=0.24 * len(bars) + 1)
        plot = axes[0][0]
        at, ticks, labels = 0.0, [], []
        for row in reversed(rows):
            for contender in reversed(row.rounds):
                own = contender.startswith("memover")
                ratio = row.ratio(contender)
                plot.barh(at, ratio, color=ACCENTS[0] if own else ACCENTS[5], height=0.75)
                plot.text(ratio * 1.05, at, f"{ratio:.2f}", va="center", fontsize=8)
                ticks.append(at)
                labels.append(contender)
                at += 1
            plot.text(plot.get_xlim()[0], at - 0.1, row.name, va="center", fontsize=9, fontweight="bold", clip_on=False)
            at += 1.3
        plot.set_yticks(ticks, labels, fontsize=8)
        plot.set(xscale="log", xlabel="ratio to the first of each row; less is faster, or smaller", ylim=(-1, at))
        left = plot.get_xlim()[0]
        for text in plot.texts:
            if text.get_fontweight() == "bold":
                text.set_x(left)
        plot.axvline(1, color=ACCENTS[5], linewidth=0.8, linestyle="--")
        drawn.set_size_inches(9, 0.2 * at + 1)
        said = "; ".join(f"{name}: {contender} {ratio:.2f}" for name, contender, ratio in bars)
        save(drawn, directory / "benchmarks.svg", f"Ratios to the first of each row. {said}.")
    if grown_rows:
        drawn, axes = figure(1, width=8, height=4.2)
        plot = axes[0][0]
        for number, each in enumerate(grown_rows):
            values = [value * 1e6 for value in each.points.values()]
            plot.plot(list(each.points), values, "o-", color=ACCENTS[number % len(ACCENTS)], label=each.name)
        plot.set(xscale="log", yscale="log", xlabel="how many there are", ylabel="µs")
        plot.grid(visible=True, which="major", linewidth=0.6)
        plot.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        said = "; ".join(
            f"{each.name}: {', '.join(f'{value * 1e6:.3g}' for value in each.points.values())} µs"
            for each in grown_rows
        )
        save(drawn, directory / "growth.svg", f"What operations cost as a cache grows. {said}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls, about a minute")
    parser.add_argument("--only", default="", help=f"some of: {', '.join([*ROWS, 'growth'])}")
    parser.add_argument("--page", type=Path, help="put the table into this page, between its two marks")
    parser.add_argument("--pictures", type=Path, help="write benchmarks.svg and growth.svg into this directory")
    parser.epilog = "A quick run, and one of a part, changes neither page nor pictures that are there."
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        url, port, name = args.worker.split(" ", 2)
        _worker(url, int(port), name)
        return
    wanted = args.only.split(",") if args.only else [*ROWS, "growth"]
    if unknown := [name for name in wanted if name not in ROWS and name != "growth"]:
        parser.error(f"--only has no {', '.join(unknown)}: give {', '.join([*ROWS, 'growth'])}")
    from tests.servers import RedisServer

    print(machine(), flush=True)
    rows: list[Row] = []
    grown_rows: list[Growth] = []
    for name in wanted:
        with RedisServer() as server, ExitStack() as stack:
            bench = Bench(server.url, server.port, stack, quick=args.quick)
            if name == "growth":
                grown_rows = growth(bench)
            else:
                rows += ROWS[name](bench)
    text = markdown(rows, grown_rows)
    print("\n" + text)
    whole = not args.quick and not args.only
    if args.page is not None and whole:
        put_into(args.page, text)
    if args.pictures is not None and (whole or not (args.pictures / "benchmarks.svg").exists()):
        draw(rows, grown_rows, args.pictures)


if __name__ == "__main__":
    main()
