"""How long the slowest of many callers waits for one load: `python benchmarks/bench_stampede.py [seconds of the load]`.

200 callers at once of a function that takes 200 ms, and how often it ran: tasks and threads of one process, and four
processes of 50 tasks each, on Redis and on the memory store. The load itself is the least that anybody can wait.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from memover import Cache, versioned_cache
from tests.servers import RedisServer

CALLERS, PROCESSES = 200, 4
ROUNDS = 5
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 and __name__ == "__main__" else 0.2


async def of_tasks(function: Any, argument: int, callers: int) -> list[float]:
    async def one() -> float:
        began = time.perf_counter()
        await function(argument)
        return time.perf_counter() - began

    return await asyncio.gather(*(one() for _ in range(callers)))


def of_threads(function: Any, argument: int, callers: int) -> list[float]:
    times: list[float] = []
    start = threading.Barrier(callers)

    def one() -> None:
        start.wait()
        began = time.perf_counter()
        function(argument)
        times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=one) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def functions(url: str, prefix: str, seconds: float) -> tuple[Any, Any, Cache, list[int]]:
    cache, loads = Cache(url, prefix=prefix), []

    @versioned_cache(namespace="tasks", version=1, ttl=60, cache=cache)
    async def afunction(number: int) -> int:
        loads.append(number)
        await asyncio.sleep(seconds)
        return number

    @versioned_cache(namespace="threads", version=1, ttl=60, cache=cache)
    def function(number: int) -> int:
        loads.append(number)
        time.sleep(seconds)
        return number

    return afunction, function, cache, loads


def show(title: str, slowest: list[float], loads: int, seconds: float) -> None:
    print(
        f"{title:42} slowest {statistics.median(slowest) * 1e3:6.1f} ms (worst round {max(slowest) * 1e3:6.1f}), "
        f"load {seconds * 1e3:.0f} ms, {loads / len(slowest):.1f} loads a round"
    )


def one_process(title: str, url: str, seconds: float) -> None:
    afunction, function, cache, loads = functions(url, "stampede" + uuid.uuid4().hex[:6], seconds)

    async def tasks() -> list[float]:
        await afunction(-1)
        slowest = [max(await of_tasks(afunction, turn, CALLERS)) for turn in range(ROUNDS)]
        await cache.aclose()
        return slowest

    slowest = asyncio.run(tasks())
    show(f"{title}, {CALLERS} tasks", slowest, len(loads) - 1, seconds)
    loads.clear()
    slowest = [max(of_threads(function, turn, CALLERS)) for turn in range(ROUNDS)]
    show(f"{title}, {CALLERS} threads", slowest, len(loads), seconds)
    cache.close()


def work(url: str, prefix: str, seconds: float, start: Any, answers: Any) -> None:
    afunction, _, cache, loads = functions(url, prefix, seconds)

    async def rounds() -> None:
        await afunction(-1)
        for turn in range(ROUNDS):
            before = len(loads)
            start.wait()
            times = await of_tasks(afunction, turn, CALLERS // PROCESSES)
            answers.put((max(times), len(loads) - before))
        await cache.aclose()

    asyncio.run(rounds())


def several_processes(url: str, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.Queue()
    prefix = "stampede" + uuid.uuid4().hex[:6]
    workers = [context.Process(target=work, args=(url, prefix, seconds, start, answers)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _ in range(PROCESSES * ROUNDS)]
    for worker in workers:
        worker.join()
    slowest = [max(each[0] for each in found[at : at + PROCESSES]) for at in range(0, len(found), PROCESSES)]
    show(
        f"Redis, {PROCESSES} processes x {CALLERS // PROCESSES} tasks", slowest, sum(each[1] for each in found), seconds
    )


if __name__ == "__main__":
    with RedisServer(unix_socket=True) as server:
        one_process("Redis", server.url, SECONDS)
        several_processes(server.url, SECONDS)
    one_process("memory", "memory://", SECONDS)
