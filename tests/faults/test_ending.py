"""The end of a process, and calls that wait for each other: bounded, whatever is under way."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memover import Cache

if TYPE_CHECKING:
    import redis

ROOT = Path(__file__).resolve().parents[2]
GUARD = 25.0

REFRESHING = """
import sys, time, threading
from memover import Cache
cache = Cache({url!r}, prefix={prefix!r})
began = threading.Event()
slow = False
@cache.versioned(namespace="f", ttl=0.05, stale_while_revalidate=3600)
def f(x):
    if slow:
        began.set()
        time.sleep(120)
    return x
f(1)
slow = True
deadline = time.monotonic() + 20
while not began.wait(0.01):
    assert f(1) == 1
    assert time.monotonic() < deadline, "no refresh has begun"
print("refreshing", flush=True)
{end}
"""


@pytest.mark.parametrize(("store", "end"), [("memory", ""), ("redis", "sys.exit(3)")])
def test_the_end_of_a_process_does_not_wait_for_a_refresh_without_end(
    store: str, end: str, redis_url: str, prefix: str
) -> None:
    """A refresh behind that takes two minutes: the interpreter goes long before."""
    url = "memory://" if store == "memory" else redis_url
    try:
        done = subprocess.run(
            [sys.executable, "-c", REFRESHING.format(url=url, prefix=prefix, end=end)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError("the process waits for its background refresh") from error
    assert done.stdout == "refreshing\n"
    assert done.returncode == (3 if "3" in end else 0), done.stderr
    assert "Traceback" not in done.stderr


LOADING = """
import sys, threading
from memover import Cache
cache = Cache({url!r}, prefix={prefix!r}, lease_ttl=600, socket_timeout=20, socket_connect_timeout=20)
began = threading.Event()
@cache.versioned(namespace="f")
def f(x):
    if x < 0:
        began.set()
        threading.Event().wait(600)
    return x
@f.batch_load
def many(calls):
    sys.exit(3)
{what}
"""
BULK = "f.map(range(3000))"
DAEMON = "threading.Thread(target=f, args=(-1,), daemon=True).start()\nassert began.wait(20)\nsys.exit(3)"


@pytest.mark.parametrize("what", [BULK, DAEMON], ids=["bulk loader", "daemon thread"])
def test_a_process_that_ends_in_the_middle_of_loads_leaves_no_lease(
    what: str, redis_client: redis.Redis, redis_url: str, prefix: str
) -> None:
    """SIGTERM and Ctrl-C end many a process in its loader: nobody waits for the end of three thousand leases."""
    program = LOADING.format(url=redis_url, prefix=prefix, what=what)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    leases = list(redis_client.scan_iter(f"{{{prefix}:*:lease", count=1000))
    assert [key for key in leases if (redis_client.get(key) or b"").startswith(b"L ")] == []


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_functions_that_call_each_other_from_two_threads_end(store: str, redis_url: str, prefix: str) -> None:
    """Each waits for the other's load: detected, or at the end of `wait_timeout`, one of them runs its function."""
    url = "memory://" if store == "memory" else redis_url
    options = {} if store == "memory" else {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
    cache = Cache(url, prefix=prefix, wait_timeout=1.5, lease_ttl=60, **options)
    both = threading.Barrier(2)
    first = threading.local()

    @cache.versioned(namespace="c")
    def c(x: int) -> int:
        _meet()
        return d_or_ten(x)

    @cache.versioned(namespace="d")
    def d(x: int) -> int:
        _meet()
        return c_or_ten(x)

    def d_or_ten(x: int) -> int:
        if getattr(first, "deep", 0) > 3:
            return 10
        first.deep = getattr(first, "deep", 0) + 1
        return d(x)

    def c_or_ten(x: int) -> int:
        if getattr(first, "deep", 0) > 3:
            return 10
        first.deep = getattr(first, "deep", 0) + 1
        return c(x)

    def _meet() -> None:
        if not getattr(first, "met", False):
            first.met = True
            both.wait(GUARD)

    answers: list[int] = []
    threads = [threading.Thread(target=lambda f=f: answers.append(f(1)), daemon=True) for f in (c, d)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    cache.close()
    assert answers == [10, 10]
    first.deep, first.met = 9, True
    assert c(1) == d(1) == 10
    cache.close()
