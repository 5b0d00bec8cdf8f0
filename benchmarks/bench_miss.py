"""What a miss of an instant function costs, interleaved in one run: `python benchmarks/bench_miss.py`.

On Redis beside redis-py's GET and SET of the same bytes, by a unix socket and by TCP, with the three commands of a miss
sent bare on memover's own connection between them: what no Python code around the protocol can be faster than. On the
memory store beside functools.lru_cache. Rounds are short and take turns, so that all meet the same noise; both the best
and the median of each are shown. Ratios hold better than times, and those of the best rounds on a busy machine.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgpack
import redis
import redis.asyncio

from memover import Cache, versioned_cache
from memover.stores.redis import scripts
from memover.stores.redis.resp import pack
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 60
CALLS = 150


def seconds(one: Callable[[int], Any], first: int, calls: int) -> float:
    began = time.perf_counter()
    for number in range(first, first + calls):
        one(number)
    return (time.perf_counter() - began) / calls


def compare(title: str, ways: dict[str, Callable[[int], Any]], calls: int = CALLS) -> None:
    """Time each way in turn; the first is what the others are measured by."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, one in ways.items():
            times[name].append(seconds(one, turn * calls, calls))
    show(title, times)


def show(title: str, times: dict[str, list[float]]) -> None:
    first = next(iter(times.values()))
    print(title)
    for name, each in times.items():
        best, median = min(each), statistics.median(each)
        print(
            f"  {name:28} best {best * 1e6:8.1f} us  x {best / min(first):5.2f}   "
            f"median {median * 1e6:8.1f} us  x {median / statistics.median(first):5.2f}"
        )


def on_redis(title: str, url: str) -> None:
    client = redis.Redis.from_url(url, socket_timeout=10)
    cache = Cache(url, prefix="bench" + uuid.uuid4().hex[:6], socket_timeout=10, socket_connect_timeout=10)
    own = uuid.uuid4().hex

    @versioned_cache(namespace="miss", version=1, ttl=60, cache=cache)
    def function(number: int) -> dict[str, Any]:
        return {"id": number, "region": "eu"}

    def get_and_set(number: int) -> None:
        name = f"{own}:{number}"
        found = client.get(name)
        if found is None:
            client.set(name, msgpack.packb({"id": number, "region": "eu"}), ex=60)

    def hit(number: int) -> None:
        function(0)

    raw = msgpack.packb({"id": 1, "region": "eu"})
    client.set(f"{own}:value", raw)

    def get_and_unpack(number: int) -> None:
        msgpack.unpackb(client.get(f"{own}:value"))

    function(0)
    connection: Any = cache._state.store.link.servers.pools[None].idle.pop()  # for `bare` alone
    generation = function._self_definition.now().function.generation_name
    entry_bytes = client.get(function.key(0))
    for script in (scripts.ACQUIRE, scripts.STORE):
        client.script_load(script.text)

    def bare(number: int) -> None:
        entry, token = b"%b:bare:%d" % (own.encode(), number), b"%016x" % number
        lease = b"{%b}:lease" % entry
        connection.single(pack((b"MGET", generation, entry)))
        connection.single(
            pack(
                (
                    b"EVALSHA",
                    scripts.ACQUIRE.sha,
                    b"3",
                    lease,
                    entry,
                    generation,
                    token,
                    b"30000",
                    b"0",
                    b"1",
                    b"1",
                    b"0",
                    b"0",
                )
            )
        )
        connection.single(
            pack((b"EVALSHA", scripts.STORE.sha, b"2", lease, entry, token, entry_bytes, b"60000", b"90000"))
        )

    compare(
        f"miss, {title}", {"redis-py GET + SET": get_and_set, "memover": function, "the three commands alone": bare}
    )
    compare(f"hit, {title}", {"redis-py GET + unpack": get_and_unpack, "memover": hit})

    @versioned_cache(namespace="amiss", version=1, ttl=60, cache=cache)
    async def afunction(number: int) -> dict[str, Any]:
        return {"id": number, "region": "eu"}

    async def of_tasks() -> None:
        aclient = redis.asyncio.Redis.from_url(url)
        times: dict[str, list[float]] = {"redis.asyncio GET + SET": [], "memover": []}

        async def aget_and_set(number: int) -> None:
            name = f"{own}:a:{number}"
            if await aclient.get(name) is None:
                await aclient.set(name, msgpack.packb({"id": number, "region": "eu"}), ex=60)

        for turn in range(ROUNDS):
            for name, one in (("redis.asyncio GET + SET", aget_and_set), ("memover", afunction)):
                began = time.perf_counter()
                for number in range(turn * CALLS, turn * CALLS + CALLS):
                    await one(number)
                times[name].append((time.perf_counter() - began) / CALLS)
        show(f"miss of an async def function, {title}", times)
        await aclient.aclose()
        await cache.aclose()

    asyncio.run(of_tasks())
    client.close()
    cache.close()


def in_memory() -> None:
    @versioned_cache(namespace="miss", version=1, ttl=60, cache=Cache("memory://", max_entries=10_000))
    def function(number: int) -> dict[str, Any]:
        return {"id": number, "region": "eu"}

    @functools.lru_cache(maxsize=10_000)
    def plain(number: int) -> dict[str, Any]:
        return {"id": number, "region": "eu"}

    compare("miss, memory", {"functools.lru_cache": plain, "memover": function}, 500)


def main() -> None:
    for unix_socket in (True, False):
        with RedisServer(unix_socket=unix_socket) as server:
            on_redis("unix socket" if unix_socket else "TCP", server.url)
    in_memory()


if __name__ == "__main__":
    main()
