"""What the store holds: the names of the seed word for word, and nobody else's touched."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, versioned_cache
from memover.codec.envelope import KIND_KEY_VALUE, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisCluster, RedisServer


def redis_cli(server: RedisServer, *words: str) -> list[str]:
    ended = subprocess.run(["redis-cli", "-p", str(server.port), *words], capture_output=True, text=True, check=True)
    return ended.stdout.split()


def test_the_scenarios_of_the_seed(start_redis: Callable[..., RedisServer]) -> None:
    """Prefix, version and incr_version as redis-cli sees them."""
    server = start_redis()
    with Cache(server.url, prefix="shop", version=2) as cache:
        cache.set("my_key", "data", version=2)
        assert cache.get("my_key", version=2) == "data"
        assert "shop:2:my_key" in redis_cli(server, "KEYS", "*")
        assert cache.incr_version("my_key") == 3
        assert cache.get("my_key", version=2) is None
        assert cache.get("my_key", version=3) == "data"
        keys = redis_cli(server, "KEYS", "shop:*my_key")
        assert keys == ["shop:3:my_key"]
    with Cache(server.url, prefix="shop", version=3) as cache:
        cache.set("product_456", {"price": 9})
        assert redis_cli(server, "EXISTS", "shop:3:product_456") == ["1"]
        assert 0 < int(redis_cli(server, "PTTL", "shop:3:product_456")[0]) <= 300_000
    with Cache(server.url, prefix="myapp_dev") as dev, Cache(server.url, prefix="myapp_prod") as prod:
        dev.set("k", 1)
        prod.set("k", 2)
        dev.clear()
        assert dev.get("k") is None and prod.get("k") == 2


def test_the_profile_that_grew_a_field(start_redis: Callable[..., RedisServer]) -> None:
    """Raising VERSION leaves the old structure unread and untouched, and needs no cleaning."""
    server = start_redis()
    with Cache(server.url, prefix="shop", version=1) as old, Cache(server.url, prefix="shop", version=2) as new:
        old.set("profile:7", {"name": "Alice"})
        assert new.get("profile:7") is None
        new.set("profile:7", {"name": "Alice", "avatar_url": "/a.png"})
        assert old.get("profile:7") == {"name": "Alice"}
        assert sorted(redis_cli(server, "KEYS", "*:profile:7")) == ["shop:1:profile:7", "shop:2:profile:7"]


def test_an_entry_is_in_the_envelope(make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis) -> None:
    """Every entry has a header of the key-value kind with its own key and the key-value generation; so has a counter."""
    cache = make(redis_url)
    cache.set("k", ["v"])
    cache.set("n", 41)
    cache.incr("n")
    cache.touch("n", 50)
    cache.incr_version("n")
    for text in (f"{cache.prefix}:1:k", f"{cache.prefix}:2:n"):
        raw = redis_client.get(text)
        assert isinstance(raw, bytes)
        header = read_header(raw, text.encode())
        assert header.kind == KIND_KEY_VALUE
        assert header.generation == redis_client.get(f"{cache.prefix}:gen:~kv")
    assert raw.endswith(b"42")


def test_the_store_ends_what_the_header_ends(
    make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis
) -> None:
    """PX is the hard limit: kept by incr and incr_version, changed by touch, none for None."""
    cache = make(redis_url)
    cache.set("n", 1, 1000)
    cache.incr("n")
    cache.incr_version("n")
    cache.set("x", 1.5, 1000)
    cache.incr("x")
    for text in ("2:n", "1:x"):
        assert 900_000 < redis_client.pttl(f"{cache.prefix}:{text}") <= 1_000_000
    cache.touch("n", 50, version=2)
    assert 0 < redis_client.pttl(f"{cache.prefix}:2:n") <= 50_000
    cache.touch("n", None, version=2)
    assert redis_client.pttl(f"{cache.prefix}:2:n") == -1
    cache.decr_version("n", version=2)
    assert redis_client.pttl(f"{cache.prefix}:1:n") == -1


def test_clear_touches_only_the_key_value_entries_of_its_prefix(url: str, make: Callable[..., Cache]) -> None:
    """Decorated functions' entries, and other prefixes' entries, stay; and their invalidation leaves keys and values."""
    cache = make(url)
    other = make(url, prefix=cache.prefix + "x")
    runs: list[int] = []

    @versioned_cache(namespace="squares", cache=cache)
    def square(n: int) -> int:
        runs.append(n)
        return n * n

    cache.set("k", 1)
    other.set("k", 2)
    square(3)
    cache.clear()
    assert square(3) == 9 and runs == [3]
    assert other.get("k") == 2
    cache.set("k", 3)
    square.invalidate_all()
    assert cache.get("k") == 3
    square.invalidate(3)
    square(3)
    assert runs == [3, 3]


def test_names_of_others_are_refused(make: Callable[..., Cache]) -> None:
    """A key that reads as the entry of a decorated call is refused, by every method, and the message says what to do."""
    cache = make("memory://")

    @versioned_cache(namespace="profiles", cache=cache)
    def profile(user: int) -> int:
        return user

    stored = profile.key(7)
    key = stored.removeprefix(f"{cache.prefix}:1:")
    for refuse in (cache.get, cache.delete, cache.incr, cache.incr_version, cache.has_key, cache.touch):
        with pytest.raises(ConfigurationError, match="word of your own"):
            refuse(key)
    with pytest.raises(ConfigurationError, match="word of your own"):
        cache.set_many({"a": 1, key: 2})
    assert "a" not in cache
    cache.set("page:" + key, 1)
    cache.set(key[:-1], 1)


def test_a_key_function_makes_the_stored_key(
    make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis
) -> None:
    """`key_function(key, prefix, version)` is the stored key; what would be somebody else's is refused."""
    names: dict[str, str] = {}
    cache = make(redis_url, key_function=lambda key, prefix, version: names.get(key, f"{prefix}-{version}-{key}"))
    cache.set("k", 1)
    assert redis_client.exists(f"{cache.prefix}-1-k")
    assert cache.incr_version("k") == 2
    assert cache.get("k", version=2) == 1
    names |= {
        "gen": f"{cache.prefix}:gen:squares",
        "tag": "other:tag:x",
        "lease": "{p:1:k}:lease",
        "kv": f"{cache.prefix}:gen:~kv",
    }
    for key in names:
        with pytest.raises(ConfigurationError):
            cache.set(key, 1)
    with pytest.raises(ConfigurationError, match="callable"):
        make(redis_url, key_function="{prefix}")


def test_a_key_that_looks_like_a_human_key_is_never_read_as_one(url: str, make: Callable[..., Cache]) -> None:
    """`users:7` may be both a key and the entry of a call keyed by a template: one replaces the other, no more."""
    cache = make(url)

    @versioned_cache(namespace="users", key="{user}", cache=cache)
    def user(user: int) -> str:
        return f"user {user}"

    assert user.key(7) == f"{cache.prefix}:1:users:7"
    cache.set("users:7", "a value")
    assert user(7) == "user 7"
    assert cache.get("users:7") is None
    with pytest.raises(ValueError, match="set"):
        cache.incr("users:7")
    assert cache.add("users:7", "another") is True
    assert user(7) == "user 7"


def test_braces_that_cluster_cannot_place_are_refused_there(cluster: RedisCluster, make: Callable[..., Cache]) -> None:
    """Where a lease could not be beside its entry, the message says which character to leave out."""
    cache = make(cluster.url)
    for key in ("a}b", "a{}b"):
        with pytest.raises(ConfigurationError, match="brace"):
            cache.set(key, 1)


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "type"])
def test_damage_is_absence(damage: str, make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis) -> None:
    """Bytes that are not exactly an entry of this key are nothing to any method, and no step signs them over."""
    cache = make(redis_url)
    for key in ("n", "m", "k"):
        cache.set(key, 5)
        name = f"{cache.prefix}:1:{key}"
        raw: Any = redis_client.get(name)
        if damage == "flip":
            redis_client.set(name, raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])
        elif damage == "cut":
            redis_client.set(name, raw[:-1])
        elif damage == "foreign":
            redis_client.set(name, "42")
        else:
            redis_client.delete(name)
            redis_client.rpush(name, raw)
    assert cache.get("n") is None and "n" not in cache and cache.get_many(["n"]) == {}
    for count in (cache.incr, cache.incr_version):
        with pytest.raises(ValueError, match="set"):
            count("n")
    assert cache.touch("n") is False
    assert cache.add("n", 6) is True and cache.get("n") == 6
    assert cache.delete("m") is False and "m" not in cache
    assert cache.get_or_set("k", 7) == 7 and cache.get("k") == 7


def test_a_damaged_payload_is_not_counted_up(
    make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis
) -> None:
    """The digits of a counter carry a check of their own, which incr looks at before it makes another."""
    cache = make(redis_url)
    cache.set("n", 5)
    name = f"{cache.prefix}:1:n"
    raw: Any = redis_client.get(name)
    redis_client.set(name, raw[:-1] + b"6")
    with pytest.raises(ValueError, match="set"):
        cache.incr("n")
    assert cache.get("n") is None


def test_an_entry_of_another_key_is_absence(
    make: Callable[..., Cache], redis_url: str, redis_client: redis.Redis
) -> None:
    """Bytes copied from another key are not that key's value."""
    cache = make(redis_url)
    cache.set("a", 1)
    copied: Any = redis_client.get(f"{cache.prefix}:1:a")
    redis_client.set(f"{cache.prefix}:1:b", copied)
    assert cache.get("b") is None
    with pytest.raises(ValueError, match="set"):
        cache.incr("b")
