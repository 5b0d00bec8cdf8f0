"""What the transport of Redis costs beside redis-py, interleaved in one run: `python benchmarks/bench_transport.py`.

A hit's read (two tokens and a value of 100 bytes, one MGET) against GET by redis-py and redis.asyncio, in rounds that
take turns, so that both meet the same noise. Ratios hold better than times. Nothing is decoded on either side.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import redis
import redis.asyncio

from memover.model import Key
from memover.stores.redis import RedisStore
from memover.stores.redis.limits import Limits
from memover.stores.redis.url import parse_url
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key("bench:1:f:0123456789abcdef", (b"bench:gen:f", b"bench:tag:x"))
ROUNDS = 7


def threads(number: int, calls: int, one: Callable[[], Any]) -> float:
    """Calls per second of `number` threads together."""

    def work() -> None:
        start.wait()
        for _ in range(calls // number):
            one()

    start = threading.Barrier(number + 1)
    workers = [threading.Thread(target=work) for _ in range(number)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return calls / (time.perf_counter() - began)


def alone(calls: int, one: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        one()
    return calls / (time.perf_counter() - began)


async def tasks(number: int, calls: int, one: Callable[[], Any]) -> float:
    """Calls per second of `number` tasks together."""

    async def work() -> None:
        for _ in range(calls // number):
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(number)))
    return calls / (time.perf_counter() - began)


def show(name: str, ours: list[float], theirs: list[float]) -> None:
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{name:22} memover {mine:9,.0f}/s   redis-py {other:9,.0f}/s   x {mine / other:5.2f}   time x {other / mine:4.2f}"
    )


def whole(url: str, path: str | None) -> None:
    limits = Limits(5.0, 5.0, 600, 0.25, 2.0)
    store = RedisStore(parse_url(url), limits)
    options: Any = {"unix_socket_path": path} if path else {"port": parse_url(url).options["port"]}
    client = redis.Redis(protocol=2, **options)
    for name in (*KEY.names, KEY.entry):
        client.set(name, b"x" * 100)
    store.fetch(KEY)
    for number in (1, 8):
        mine, other = [], []
        for _ in range(ROUNDS):
            if number == 1:
                mine.append(alone(4000, lambda: store.fetch(KEY)))
                other.append(alone(4000, lambda: client.get(KEY.entry)))
            else:
                mine.append(threads(number, 16000, lambda: store.fetch(KEY)))
                other.append(threads(number, 16000, lambda: client.get(KEY.entry)))
        show(f"{number} thread(s)", mine, other)

    async def loop() -> None:
        client = redis.asyncio.Redis(protocol=2, max_connections=600, **options)
        await store.afetch(KEY)
        for number, calls in ((1, 4000), (8, 16000), (64, 32000), (512, 32768)):
            mine, other = [], []
            for _ in range(ROUNDS):
                mine.append(await tasks(number, calls, lambda: store.afetch(KEY)))
                other.append(await tasks(number, calls // 4, lambda: client.get(KEY.entry)))
            show(f"{number} task(s)", mine, other)
        await client.aclose()
        await store.aclose()

    asyncio.run(loop())
    client.close()
    store.close()


PROCESSES, TASKS, CALLS = 4, 16, 4_000


def work(url: str, options: dict[str, Any], start: Any, answers: Any) -> None:
    """One of several processes: rounds of both sides, begun together."""

    async def rounds() -> None:
        store = RedisStore(parse_url(url), Limits(5.0, 5.0, 600, 0.25, 2.0))
        client = redis.asyncio.Redis(protocol=2, max_connections=600, **options)
        await store.afetch(KEY)
        await client.get(KEY.entry)
        for _ in range(ROUNDS):
            for one, share in ((lambda: store.afetch(KEY), 1), (lambda: client.get(KEY.entry), 4)):
                start.wait()
                answers.put((share == 1, await tasks(TASKS, CALLS // share, one)))
        await client.aclose()
        await store.aclose()

    asyncio.run(rounds())


def processes(url: str, path: str | None) -> None:
    """Several processes of several tasks each: the sum of what they do a second."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.Queue()
    options: dict[str, Any] = {"unix_socket_path": path} if path else {"port": parse_url(url).options["port"]}
    workers = [context.Process(target=work, args=(url, options, start, answers)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _ in range(2 * ROUNDS * PROCESSES)]
    for worker in workers:
        worker.join()
    mine, other = ([rate * PROCESSES for ours, rate in found if ours is side] for side in (True, False))
    show(f"{PROCESSES} processes x {TASKS} tasks", mine, other)


if __name__ == "__main__":
    with RedisServer(unix_socket="--tcp" not in sys.argv) as server:
        path = None if server.socket is None else str(server.socket)
        whole(server.url, path)
        processes(server.url, path)
