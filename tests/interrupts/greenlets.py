"""A program for `test_storms`: greenlets call memover under `gevent.Timeout`; prints one line of JSON on what became of it."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from memover import Cache  # noqa: E402

KEYS = 30
GUARD = 15.0


def main(url: str, prefix: str, seconds: float) -> dict[str, Any]:
    """The storm, and what is left after it."""
    cache = Cache(
        url,
        prefix=prefix,
        lease_ttl=120,
        wait_timeout=120,
        socket_timeout=20,
        socket_connect_timeout=20,
        max_connections=8,
    )

    @cache.versioned(namespace="greenlets", tags=("x:{x}",))
    def f(x: int) -> list[int]:
        gevent.sleep(random.random() * 0.002)
        return [x]

    end = time.monotonic() + seconds
    struck = 0
    wrong: list[Any] = []
    foreign: list[str] = []

    def caller(seed: int) -> None:
        nonlocal struck
        rng = random.Random(seed)
        while time.monotonic() < end:
            x = rng.randrange(KEYS)
            limit = gevent.Timeout(rng.uniform(0.0001, 0.004))
            limit.start()
            try:
                kind = rng.random()
                if kind < 0.6:
                    value = f(x)
                    if value != [x]:
                        wrong.append([x, value])
                elif kind < 0.8:
                    f.invalidate(x)
                elif kind < 0.9:
                    values = f.map(range(x, x + 4), concurrency=1)
                    if values != [[n] for n in range(x, x + 4)]:
                        wrong.append([x, values])
                elif kind < 0.95:
                    cache.set(f"k{x}", x)
                else:
                    f.refresh(x)
            except gevent.Timeout as error:
                if error is not limit:
                    foreign.append(repr(error))
                struck += 1
            except Exception as error:
                foreign.append(repr(error)[:300])
            finally:
                limit.close()
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(caller, seed) for seed in range(12)], timeout=seconds + 40)
    # Fresh greenlets: whoever waits for a lease, a flight or a lock that was left behind does not end in time.
    slow: list[int] = []

    def after(x: int) -> None:
        if f(x) != [x]:
            wrong.append(x)

    for x in range(KEYS + 4):
        one = gevent.spawn(after, x)
        one.join(timeout=GUARD if len(slow) < 2 else 0.5)
        if not one.dead:
            slow.append(x)
    leases = 0
    if url != "memory://":
        import redis

        client = redis.Redis.from_url(url)
        names = list(client.scan_iter(f"{{{prefix}:*:lease"))
        leases = sum((client.get(name) or b"").startswith(b"L ") for name in names)
    loads = f.cache_info().loads
    hits = False
    if not slow:
        f(1)
        loads = f.cache_info().loads
        f(1)
        hits = f.cache_info().loads == loads
    return {"struck": struck, "wrong": wrong[:5], "foreign": foreign[:5], "slow": slow, "leases": leases, "hits": hits}


if __name__ == "__main__":
    said = main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    import os

    os._exit(0)
