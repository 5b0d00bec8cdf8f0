"""P15: what is stored grows with what lives, and not with what has been: keys, tags, namespaces, caches, threads, loops.

Thousands of each in the standing suite, up to a million in the slow one, in processes of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.growth import programs
from tests.growth.counting import grown, kinds_of_keys, without_expiry
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

STANDING, SLOW = "standing", "slow"
SIZES = [STANDING, pytest.param(SLOW, marks=pytest.mark.slow)]
SLOW_SIZES = [pytest.param(each, marks=pytest.mark.slow) for each in (STANDING, SLOW)]
MINUTE = 60.0
GUARD = 3000.0
"""Seconds that a slow program may take."""


def _size(size: str, standing: int, slow: int) -> int:
    return standing if size == STANDING else slow


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.mark.parametrize("size", SLOW_SIZES)
def test_keys_and_tags_leave_the_server(size: str, server: RedisServer, prefix: str) -> None:
    """Calls that each have a tag and a parent: when their time is over, all that is left are the generations."""
    count = _size(size, 1_500, 1_000_000)
    ((before, after),) = run_python(programs.keys_and_tags, server.url, prefix, count, 2.0, timeout=GUARD)
    with server.client() as client:
        endless = without_expiry(client, prefix)
        assert endless.get("tag", 0) <= 1, f"tag keys without expiry (the clock of late tags may be one): {endless}"
        assert endless.get("call token", 0) == 0, f"call tokens without expiry: {endless}"
        assert sum(endless.values()) <= 6, f"keys without expiry: {endless}"
        wait_until(
            lambda: kinds_of_keys(client, prefix).get("entry", 0) == 0,
            "the entries to expire",
            timeout=60,
            interval=0.2,
        )
        latest = max([client.pttl(key) for key in client.scan_iter(count=5000)], default=0) / 1000
        assert latest <= MINUTE + 1, "something outlives the last entry by more than a minute"
        if size == SLOW:
            left = wait_until(
                lambda: client.dbsize() <= 8 and kinds_of_keys(client, prefix),
                "the tokens to expire",
                timeout=90,
                interval=0.5,
            )
            assert set(left) <= {"gen", "tag", "soft", "coarse", "clock"}, left
    # Objects of the process are bounded by its own limits: the second half of the calls adds little to the first.
    assert grown(before, after, allowed=count // 2 if size == STANDING else 20_000) == {}


@pytest.mark.parametrize("size", SLOW_SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_keys_and_tags_leave_the_process(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """A store of a thousand entries holds no more of ten times as many calls gone by."""
    if store == "redis" and size == STANDING:
        pytest.skip("the server's test measures this")
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 4_000, 1_000_000)
    ((before, after),) = run_python(programs.keys_and_tags, url, prefix, count, 3600.0, timeout=GUARD)
    assert grown(before, after, allowed=count // 10) == {}


@pytest.mark.parametrize("size", SLOW_SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_functions_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """Decorated, called, invalidated, dropped: their namespaces are free and forgotten."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 80, 100_000)
    ((before, after, bytes_each),) = run_python(programs.functions_and_namespaces, url, prefix, count, timeout=GUARD)
    leaks = grown(before, after, allowed=count // 5)
    assert leaks == {}, f"{count} functions have gone, and left: {leaks}"
    assert bytes_each < 500, f"{bytes_each:.0f} bytes stay of each function that is gone"


@pytest.mark.parametrize("size", SLOW_SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_caches_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """Made, used from threads and loops, closed, dropped."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 15, 10_000)
    ((before, after),) = run_python(programs.caches, url, prefix, count, timeout=GUARD)
    leaks = grown(before, after, allowed=count // 5 + 2)
    leaks.pop("objects", None)  # what Python itself remembers of types and code that were made
    assert leaks == {}, f"{count} caches have gone, and left: {leaks}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_threads_that_are_gone_leave_nothing(store: str, size: str, server: RedisServer, prefix: str) -> None:
    """No connection, no descriptor, no object of theirs stays."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 300, 100_000)
    with server.client() as client:
        ((before, after),) = run_python(programs.threads, url, prefix, count, timeout=GUARD)
        leaks = grown(before, after, allowed=15)
        # A few connections may be kept for whoever comes next.
        assert leaks.pop("objects", 0) < 500, f"{count} threads have gone"
        assert leaks.pop("descriptors", 0) <= 64, f"{count} threads have gone, and their connections stay"
        assert all("onnection" in kind for kind in leaks), f"{count} threads have gone, and left: {leaks}"
        wait_until(lambda: len(client.client_list()) <= 2, "the connections to end with their process")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["run", "plainly", "in flight"])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_event_loops_that_are_gone_leave_nothing(
    store: str, how: str, size: str, server: RedisServer, prefix: str
) -> None:
    """`asyncio.run`; `run_until_complete` and `close`, as in Celery tasks; the same with a load in flight.

    No loop, task, client or descriptor of theirs stays, and whoever calls next does not wait for a load that is nobody's."""
    url = "memory://" if store == "memory" else server.url
    count = _size(size, 40, 10_000) if how != "in flight" else _size(size, 12, 500)
    said: Any = run_python(programs.loops, url, prefix, count, how, timeout=GUARD if size == SLOW else 60)
    ((before, after, alive, value, seconds),) = said
    leaks = grown(before, after, allowed=6)
    objects = leaks.pop("objects", 0)
    assert leaks == {}, f"{count} loops have gone, and left: {leaks}"
    assert objects < 10 * count + 50, f"{objects} objects stay of {count} loops"
    assert alive <= 3, f"{alive} of {count} closed loops are still there"
    assert value == 2
    assert seconds < 20, f"the next call waited {seconds:.0f} s for a load that was abandoned"
