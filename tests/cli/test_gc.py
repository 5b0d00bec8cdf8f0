"""`memover gc` removes what nobody reads any more, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from tests.servers import RedisCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisServer

    from .conftest import App

SOURCE = "from memover import versioned_cache\n"


def block(namespace: str, version: int, extra: str = "") -> str:
    name = namespace.replace("/", "_")
    return f"@versioned_cache(namespace={namespace!r}, version={version})\ndef {name}(n: int) -> int:\n    return n\n{extra}"


def fill(url: str, prefix: str, namespace: str, version: int, count: int = 3) -> list[str]:
    """Entries of a namespace under a version, as a process of that version would have stored them."""

    def function(n: int) -> int:
        return n

    with Cache(url, prefix=prefix) as cache:
        cached: Any = cache.versioned(namespace=namespace, version=version, ttl=None)(function)
        for n in range(count):
            cached(n)
        return [cached.key(n) for n in range(count)]


@pytest.fixture
def shop(app: App) -> App:
    app.write("shop/__init__.py", "")
    app.write(
        "shop/views.py",
        SOURCE
        + block("profiles", 3, "@profiles.upgrade(from_version=2)\ndef up(old): return old\n")
        + block("old/ones", 5),
    )
    app.lock()
    app.write("shop/views.py", app.read("shop/views.py").replace(block("old/ones", 5), ""))
    app.lock()
    return app


def test_entries_of_versions_that_are_over_are_removed(
    shop: App, redis_url: str, redis_client: redis.Redis, prefix: str
) -> None:
    """Lower versions and removed functions go; the current one, newer ones, and those upgraded from stay."""
    gone = [*fill(redis_url, prefix, "profiles", 1), *fill(redis_url, prefix, "old/ones", 5)]
    kept = [
        *fill(redis_url, prefix, "profiles", 2),
        *fill(redis_url, prefix, "profiles", 3),
        *fill(redis_url, prefix, "profiles", 4),
        *fill(redis_url, prefix, "old/ones", 6),
        *fill(redis_url, prefix, "elsewhere", 1),
        *fill(redis_url, f"{prefix}x", "profiles", 1),
    ]
    foreign = f"{prefix}:1:profiles:somebody-elses"
    redis_client.set(foreign, b"no entry")
    with Cache(redis_url, prefix=prefix) as cache:
        cache.set("profiles:7", "of the key-value API", version=1)
    taken = sum(redis_client.memory_usage(key) or 0 for key in gone)
    told = shop.run("gc", "--url", redis_url, "--prefix", prefix)
    assert "profiles version 1: 3 entries" in told
    assert "old/ones version 5: 3 entries" in told
    assert f"6 entries, {taken} bytes" in told
    assert redis_client.exists(*gone) == 0
    assert redis_client.exists(*kept, foreign, f"{prefix}:1:profiles:7") == len(kept) + 2


def test_a_dry_run_only_counts(shop: App, redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """The same words, and everything is still there."""
    keys = fill(redis_url, prefix, "profiles", 1)
    told = shop.run("gc", "--dry-run", env={"MEMOVER_URL": redis_url, "MEMOVER_PREFIX": prefix})
    assert "3 entries" in told
    assert "would come free" in told
    assert redis_client.exists(*keys) == 3


def test_steps_are_bounded(shop: App, start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """SCAN and UNLINK, never KEYS, FLUSHDB or DEL of many."""
    server = start_redis()
    keys = fill(server.url, prefix, "profiles", 1, count=200)
    with server.recording() as calls:
        shop.run("gc", "--url", server.url, "--prefix", prefix, "--step", "10")
    names = {str(call).split()[0].strip("<'\"[(").upper() for call in calls}
    scans = [call for call in calls if "SCAN" in str(call).upper()]
    assert len(scans) >= len(keys) // 20
    assert not any(word in name for name in names for word in ("KEYS", "FLUSH", "DEL"))


def test_it_says_what_it_needs(shop: App) -> None:
    """A place, that is a Redis; and a lock."""
    assert "MEMOVER_URL" in shop.run("gc", status=2)
    assert "MEMOVER_URL" in shop.run("gc", "--url", "memory://", status=2)
    (shop.root / "memover.lock").unlink()
    assert "memover lock" in shop.run("gc", "--url", "redis://localhost:1/0", status=2)


def test_a_redis_that_is_not_there_is_status_two(shop: App) -> None:
    """In one sentence."""
    told = shop.run("gc", "--url", "redis://localhost:1/0", status=2)
    assert told.startswith("memover: ")
    assert "Traceback" not in told


@pytest.mark.slow
def test_every_primary_of_a_cluster_is_gone_through(shop: App, prefix: str) -> None:
    """Each node's own keys, and only once."""
    with RedisCluster(3) as cluster, cluster.client() as client:
        gone = fill(cluster.url, prefix, "profiles", 1, count=30)
        kept = fill(cluster.url, prefix, "profiles", 3, count=30)
        assert "30 entries" in shop.run("gc", "--url", cluster.url, "--prefix", prefix)
        assert [client.exists(key) for key in gone] == [0] * 30
        assert [client.exists(key) for key in kept] == [1] * 30
