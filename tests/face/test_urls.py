"""Every form of URL, with a real server behind it, sync and async; and the wrong ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, StoreUnavailable, versioned_cache
from tests.ids import steady_repr

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisCluster, RedisServer, SentinelGroup


def works(url: str, prefix: str, **options: Any) -> tuple[str, str]:
    """Miss, hit, invalidate, miss, as `def` and as `async def`; the two share one generation. The entries' keys."""
    runs: list[str] = []
    options = {"on_store_error": "raise", **options}
    with Cache(url, prefix=prefix) as cache:

        @versioned_cache(namespace="url/sync", cache=cache, **options)
        def plain(x: int) -> dict[str, int]:
            runs.append("sync")
            return {"x": x}

        @versioned_cache(namespace="url/async", cache=cache, **options)
        async def awaited(x: int) -> dict[str, int]:
            runs.append("async")
            return {"x": x}

        assert plain(1) == plain(1) == {"x": 1}
        assert runs == ["sync"]
        plain.invalidate(1)
        plain.invalidate_all()
        assert plain(1) == plain(1) == {"x": 1}
        assert runs == ["sync"] * 2

        async def whole() -> None:
            try:
                assert await awaited(1) == await awaited(1) == {"x": 1}
                await awaited.invalidate(1)
                await awaited.invalidate_all()
                assert await awaited(1) == await awaited(1) == {"x": 1}
            finally:
                await cache.aclose()

        asyncio.run(whole())
        assert runs == ["sync"] * 2 + ["async"] * 2
        return plain.key(1), awaited.key(1)


def held(server: RedisServer, db: int, *keys: str) -> int:
    with server.client(db=db) as client:
        return int(client.exists(*keys))


def test_the_database_is_in_the_path_or_the_query(redis_server: RedisServer, prefix: str) -> None:
    """redis://host:port/3, redis://host:port?db=3, and 0 without either."""
    base = f"redis://{redis_server.host}:{redis_server.port}"
    spellings = ((f"{base}/3", 3), (f"{base}?db=4", 4), (base, 0), (f"{base}/", 0), (f"REDIS{base[5:]}/5", 5))
    for n, (url, db) in enumerate(spellings):
        keys = works(url, f"{prefix}.{n}")
        assert held(redis_server, db, *keys) == 2
        assert held(redis_server, 9, *keys) == 0


def test_valkey_spellings_are_synonyms(redis_server: RedisServer, prefix: str) -> None:
    """valkey:// is redis://."""
    works(redis_server.url.replace("redis://", "valkey://"), prefix)


def test_a_unix_socket(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """unix:///path?db=2."""
    server = start_redis(unix_socket=True)
    keys = works(f"unix://{server.socket}?db=2", prefix)
    assert held(server, 2, *keys) == 2


def test_tls_and_credentials(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """rediss:// with a private authority, a user name and a password full of reserved characters."""
    server = start_redis(tls=True, username="shop", password="p@ss:w/rd?#%&")
    works(server.url, prefix)
    cache = Cache(server.url, prefix=prefix)
    for text in (repr(cache), cache.address):
        assert "p@ss" not in text
        assert "p%40ss" not in text
    cache.close()


def test_a_certificate_that_is_not_trusted_is_refused(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """Without the authority the connection is refused, and TLS is never left out quietly."""
    server = start_redis(tls=True)
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        works(f"rediss://{server.host}:{server.port}/0", prefix)
    with pytest.raises(StoreUnavailable):
        works(f"redis://{server.host}:{server.port}/0", prefix)


@pytest.mark.parametrize("wrong", ["redis://:wrong@", "redis://shop:wrong@", "redis://"])
def test_wrong_credentials_are_a_store_failure(
    start_redis: Callable[..., RedisServer], prefix: str, wrong: str
) -> None:
    """StoreUnavailable that repeats what the server said and never the password."""
    server = start_redis(password="secret")
    with pytest.raises(StoreUnavailable, match=r"(?i)auth|pass") as caught:
        works(f"{wrong}{server.host}:{server.port}/0", prefix)
    assert "wrong@" not in str(caught.value)
    assert caught.value.store == f"redis://{server.host}:{server.port}/0"


def test_a_password_without_a_user_name(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """redis://:secret@host, as redis-py has it."""
    works(start_redis(password="secret").url, prefix)


RIGHTS = "+mget +set +del +exists +pttl +pexpire +time +eval +evalsha"


def test_a_user_with_no_more_rights_than_needed(start_redis: Callable[..., RedisServer], prefix: str) -> None:
    """The rights and the keys that docs/deploying.md names are enough."""
    assert f"`{RIGHTS}`" in (Path(__file__).resolve().parents[2] / "docs" / "deploying.md").read_text(encoding="utf-8")
    server = start_redis(username="shop", password="secret", acl=f"resetkeys ~{prefix}:* ~{{{prefix}:* -@all {RIGHTS}")
    works(server.url, prefix)


@pytest.mark.parametrize(
    "habit",
    [
        "decode_responses=true",
        "protocol=3",
        "decode_responses=True&protocol=3&max_connections=1",
        "health_check_interval=1&retry_on_timeout=true",
        "client_name=shop",
        "encoding=latin-1",
    ],
)
def test_an_applications_habits_in_the_url_harm_nothing(redis_server: RedisServer, prefix: str, habit: str) -> None:
    """decode_responses and the like are ours to decide: entries are bytes, whatever the URL says of others' clients."""
    works(f"{redis_server.url}?{habit}", prefix)


def test_sentinel(sentinel_group: SentinelGroup, prefix: str) -> None:
    """redis+sentinel://h1,h2/service?db=1, and the database in the path."""
    works(sentinel_group.url, prefix)
    keys = works(sentinel_group.url.replace("db=0", "db=1"), f"{prefix}.1")
    assert held(sentinel_group.primary, 1, *keys) == 2
    hosts = sentinel_group.url.partition("?")[0]
    keys = works(f"{hosts}/2", f"{prefix}.2")
    assert held(sentinel_group.primary, 2, *keys) == 2


def test_cluster(redis_cluster: RedisCluster, prefix: str) -> None:
    """redis+cluster://h1,h2,h3: any node will do to begin with, and entries are where their slots are."""
    works(redis_cluster.url, prefix)
    keys = works(f"redis+cluster://127.0.0.1:{redis_cluster.nodes[-1].port}", f"{prefix}.1")
    with redis_cluster.client() as client:
        assert all(client.exists(key) for key in keys)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres://localhost/0", "postgres"),
        ("http://localhost", "http"),
        ("localhost:6379", "localhost"),
        ("", "scheme"),
        ("redis", "redis"),
        ("redis:/localhost", "redis"),
        ("redis+proxy://localhost", "redis"),
        ("unix+cluster:///run/redis.sock", "unix"),
        ("redis://localhost:port/0", "URL"),
        ("redis://localhost:70000/0", "URL"),
        ("redis://[::1/0", "URL"),
        ("unix://", "path"),
        ("redis+sentinel://localhost:26379", "service"),
        ("redis+sentinel:///main", "host"),
        ("redis+sentinel://localhost:port/main", "port"),
        ("redis+cluster://", "host"),
        ("redis+cluster://localhost:7000/3", "one database"),
        ("redis+cluster://localhost:7000?db=3", "one database"),
        ("redis://localhost/0?socket_timeout=5", "socket_timeout"),
        ("redis://:secret@localhost:port/0", "URL"),
        (None, "URL"),
        (5, "URL"),
        (b"redis://localhost", "URL"),
    ],
    ids=str,
)
def test_a_wrong_url_is_refused_at_construction(url: Any, message: str) -> None:
    """ConfigurationError that says what is wrong with it, and never the password."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        Cache(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": "a:b"},
        {"prefix": "{a}"},
        {"prefix": "p" * 65},
        {"prefix": None},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"ttl": 0},
        {"socket_timeout": 0},
        {"socket_timeout": None},
        {"socket_timeout": -1},
        {"socket_connect_timeout": "fast"},
        {"max_connections": 0},
        {"breaker_first": 5, "breaker_last": 1},
        {"wait_timeout": None},
        {"lease_ttl": 0},
        {"compress_from": 0},
        {"expanded_limit": 0},
        {"on_unencodable": "ignore"},
        {"codec": object()},
    ],
    ids=steady_repr,
)
def test_a_wrong_option_is_refused_at_construction(options: dict[str, Any]) -> None:
    """Every limit is checked when the cache is made, not at three in the morning."""
    with pytest.raises(ConfigurationError):
        Cache("redis://localhost:6379/0", **options)
    with pytest.raises(TypeError):
        Cache("redis://localhost:6379/0", colour="red")  # type: ignore[call-arg]
