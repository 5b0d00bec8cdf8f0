"""`memover.django.MemoverCache` in a project: settings, sessions, cached pages, fragments, async views, aliases, checks."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import CacheKeyWarning, InvalidCacheBackendError, cache, caches
from django.core.checks import run_checks
from django.test import AsyncClient, Client
from django.test.utils import override_settings

from memover import ConfigurationError, UnencodableValue, versioned_cache
from memover.django import MemoverCache, cache_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisServer

Backend = "Callable[..., MemoverCache]"


class Money:
    """A class of the project, which only pickle can keep."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.amount == self.amount

    __hash__ = None  # type: ignore[assignment]


def test_the_settings_have_djangos_names(backend: Any, redis_client: redis.Redis, location: str) -> None:
    """KEY_PREFIX, VERSION, TIMEOUT and KEY_FUNCTION mean what they mean to Django; the stored key is prefix:version:key."""
    configured = backend(VERSION=2, TIMEOUT=None)
    cache.set("k", Money(3))
    assert cache.get("k") == Money(3)
    assert cache.get("k", version=1) is None
    assert cache.incr_version("k") == 3 and cache.get("k", version=3) == Money(3)
    if location:
        assert redis_client.pttl(f"{configured.prefix}:3:k") == -1
    configured = backend(KEY_FUNCTION=lambda key, prefix, version: f"{prefix}/{version}/{key}", TIMEOUT=50)
    cache.set("k", 1)
    if location:
        assert 0 < redis_client.pttl(f"{configured.prefix}/1/k") <= 50_000
    assert cache.incr("k") == 2


def test_an_empty_prefix_is_allowed(start_redis: Callable[..., RedisServer], backend: Any) -> None:
    """Django's default: the key is `:1:key`, and clear removes what has no prefix alone."""
    server = start_redis()
    other = backend("other", LOCATION=server.url, KEY_PREFIX="other")
    other.set("k", "other's")
    backend(LOCATION=server.url, KEY_PREFIX="")
    cache.set("k", "ours")
    cache.set("p:q", "colons")
    assert server.run("EXISTS", ":1:k", ":1:p:q", "other:1:k") == 3
    cache.clear()
    assert cache.get("k") is None and other.get("k") == "other's"


def test_a_timeout_is_djangos(backend: Any) -> None:
    """The default is TIMEOUT, None is for ever, 0 and less nothing; add, touch, set_many, get_or_set alike."""
    backend(TIMEOUT=0)
    cache.set("k", 1)
    assert cache.get("k") is None
    cache.set("k", 1, None)
    assert cache.get("k") == 1
    assert cache.touch("k") is True and cache.get("k") is None
    cache.set_many({"k": 2}, timeout=50)
    assert cache.touch("k", timeout=-1) is True and cache.get("k") is None
    assert cache.get_or_set("k", 3, timeout=None) == 3
    assert cache.add("k", 4, timeout=50) is False


def test_what_pickle_refuses_is_both_errors(backend: Any) -> None:
    """Whoever catches `pickle.PickleError`, as with Django's own backends, catches it."""
    backend()
    for error in (pickle.PickleError, UnencodableValue):
        with pytest.raises(error):
            cache.set("k", lambda: None)


def test_msgpack_by_an_option(backend: Any) -> None:
    """OPTIONS codec "msgpack" keeps what memover's own codec keeps and refuses the rest; others are named by their path."""
    backend(OPTIONS={"codec": "msgpack"})
    cache.set("k", {"a": (1, {2})})
    assert cache.get("k") == {"a": (1, {2})}
    with pytest.raises(UnencodableValue):
        cache.set("k", Money(3))
    backend(OPTIONS={"codec": "memover.codec.values.ValueCodec"})
    cache.set("k", (1,))
    assert cache.get("k") == (1,)


def test_a_secret_is_replaced_by_putting_the_new_one_first(backend: Any, location: str) -> None:
    """SECRET_KEY signs, SECRET_KEY_FALLBACKS verify; without them entries of the old secret are absent."""
    backend()
    cache.set("k", Money(3))
    with override_settings(SECRET_KEY="the second secret", SECRET_KEY_FALLBACKS=["the first secret of the tests"]):
        backend()
        if location:
            assert cache.get("k") == Money(3)
        cache.set("new", Money(4))
        assert cache.get("new") == Money(4)
    if location:
        with override_settings(SECRET_KEY="the second secret"):
            backend()
            assert cache.get("k") is None and cache.get("new") == Money(4)
        backend()
        assert cache.get("new") is None and cache.get("k") == Money(3)


def test_bytes_that_nobody_signed_are_not_unpickled(backend: Any, location: str, redis_client: redis.Redis) -> None:
    """A pickle that somebody put into the store is damage, whatever its header says."""
    if not location:
        pytest.skip("only this process can write to its memory")
    from memover.codec.envelope import KIND_KEY_VALUE, seal

    configured = backend()
    cache.set("k", 1)
    generation: Any = redis_client.get(f"{configured.prefix}:gen:~kv")
    name = f"{configured.prefix}:1:evil"
    for payload in (pickle.dumps(Money(3)), b"\x01" + bytes(32) + pickle.dumps(Money(3))):
        raw = seal(
            payload, key=name.encode(), generation=generation, codec="pickle+hmac-sha256", created_at=0.0, load_time=0.0,
            fresh_until=1e12, usable_until=1e12, kind=KIND_KEY_VALUE,
        )  # fmt: skip
        redis_client.set(name, raw)
        assert cache.get("evil") is None


def test_keys_that_warn_elsewhere_warn_here(backend: Any) -> None:
    """Django's portability warnings stay: they are about memcached, and the key works."""
    backend()
    with pytest.warns(CacheKeyWarning):
        cache.set("a b", 1)
    with pytest.warns(CacheKeyWarning):
        assert cache.get("a b") == 1


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"KEY_PREFIX": "a:b"}, "prefix"),
        ({"LOCATION": ["redis://a", "redis://b"]}, "redis\\+cluster"),
        ({"LOCATION": "memcached://a"}, "scheme"),
        ({"OPTIONS": {"soket_timeout": 1}}, "soket_timeout"),
        ({"OPTIONS": {"ttl": 1}}, "TIMEOUT"),
        ({"OPTIONS": {"codec": "nowhere.Codec"}}, "nowhere"),
    ],
)
def test_settings_that_cannot_be_meant(params: dict[str, Any], complaint: str, backend: Any) -> None:
    """They raise an error that is Django's and memover's and says what to do; `manage.py check` ends with it too."""
    for error in (ConfigurationError, InvalidCacheBackendError):
        with pytest.raises(error, match=complaint):
            backend(**params)
    with pytest.raises(ConfigurationError, match=complaint):
        run_checks()


def test_threads_share_one_cache(backend: Any) -> None:
    """Django makes a backend for each thread; the connections and, in memory, the entries are shared."""
    configured = backend()
    cache.set("k", 1)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend([caches["default"], cache.get("k")]))
    thread.start()
    thread.join()
    assert found[0] is not configured and found[0].cache is configured.cache and found[1] == 1


def test_aliases_of_one_place_see_the_same_entries(backend: Any) -> None:
    """Two aliases that differ in VERSION and TIMEOUT only are two views of one store."""
    configured = backend()
    own = {"BACKEND": "memover.django.MemoverCache", "KEY_PREFIX": configured.prefix}
    params = {"LOCATION": configured._location if hasattr(configured, "_location") else ""}
    if params["LOCATION"] == "" and configured.cache.address.startswith("redis"):
        params["LOCATION"] = configured.cache.address
    options = {"socket_timeout": 10, "socket_connect_timeout": 10}
    v2 = backend(others={"v2": {**own, **params, "VERSION": 2, "TIMEOUT": None, "OPTIONS": options}})
    v2 = caches["v2"]
    cache.set("k", 1)
    assert v2.get("k") is None and v2.get("k", version=1) == 1
    assert cache.incr_version("k") == 2 and v2.get("k") == 1


# -- what Django builds on its cache ---------------------------------------------------------------------------------------


def pages() -> dict[str, int]:
    counts: dict[str, int] = sys.modules["memover_tests_urls"].counts
    counts.clear()
    return counts


def test_sessions(backend: Any) -> None:
    """The session engine `cache` keeps, changes, cycles and ends sessions."""
    backend()
    client = Client()
    assert [client.get("/visits").content for _ in range(3)] == [b"visits 1", b"visits 2", b"visits 3"]
    before = client.session.session_key
    session = client.session
    session.cycle_key()
    assert session.session_key != before and session["visits"] == 3
    assert not type(session)().exists(before)
    session.flush()
    assert client.get("/visits").content == b"visits 1"
    cache.clear()
    assert client.get("/visits").content == b"visits 1"


def test_cached_pages(backend: Any) -> None:
    """`cache_page` answers from the cache until it is cleared."""
    backend()
    pages()
    client = Client()
    assert [client.get("/page").content for _ in range(3)] == [b"plain 1"] * 3
    cache.clear()
    assert client.get("/page").content == b"plain 2"


def test_the_cached_site(backend: Any) -> None:
    """The per-site middleware answers every page from the cache."""
    backend()
    pages()
    both = ["django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware"]
    with override_settings(MIDDLEWARE=both):
        client = Client()
        assert [client.get("/plain").content for _ in range(3)] == [b"plain 1"] * 3
        assert client.get("/plain?other").content == b"plain 2"


def test_template_fragments(backend: Any) -> None:
    """`{% cache %}` keeps a part of a page for each of its arguments."""
    backend()
    pages()
    client = Client()
    assert [client.get(f"/fragment?who={who}").content for who in "aab"] == [b"1 of a", b"1 of a", b"2 of b"]


def test_async_views(backend: Any) -> None:
    """The awaited methods in an async view, from one event loop after another."""
    backend()
    counts = pages()

    async def ask() -> list[bytes]:
        return [answer.content for answer in await asyncio.gather(*(AsyncClient().get("/awaited") for _ in range(5)))]

    assert asyncio.run(ask()) + asyncio.run(ask()) == [b"awaited 1"] * 10
    assert counts["awaited"] == 1


def test_the_awaited_methods_are_memovers_own(backend: Any) -> None:
    """None of them goes through a thread as Django's default ones do, and all mean the same as the others."""
    backend()

    async def whole() -> None:
        await cache.aset("k", 1, timeout=50)
        assert await cache.aget("k") == 1 and await cache.ahas_key("k")
        assert await cache.aadd("k", 2, timeout=50) is False
        assert await cache.aincr("k") == 2 and await cache.adecr("k") == 1
        assert await cache.atouch("k", timeout=None) is True
        assert await cache.aset_many({"a": 1}, timeout=50) == []
        assert await cache.aget_many(["k", "a"]) == {"k": 1, "a": 1}
        assert await cache.aincr_version("k") == 2 and await cache.adecr_version("k", version=2) == 1
        assert await cache.aget_or_set("new", lambda: 5, timeout=50) == 5
        assert await cache.adelete("new") is True
        await cache.adelete_many(["a"])
        await cache.aclear()
        assert await cache.aget("k") is None
        await cache.aclose()

    asyncio.run(whole())
    own = {name for name in vars(MemoverCache) if name.startswith("a")}
    from memover.keyvalue import KeyValueFace

    own |= {name for name in vars(KeyValueFace) if name.startswith("a")}
    from django.core.cache.backends.base import BaseCache

    assert {name for name in vars(BaseCache) if name.startswith("a") and name != "add"} <= own


# -- decorated functions by alias ------------------------------------------------------------------------------------------


def test_a_function_names_an_alias(backend: Any, redis_client: redis.Redis, location: str) -> None:
    """`cache="default"` is that alias's store, prefix and codec, asked for when it is first called; clear leaves it alone."""
    runs: list[int] = []

    @versioned_cache(namespace="money", version=4, cache="default")
    def money(amount: int) -> Money:
        runs.append(amount)
        return Money(amount)

    configured = backend(VERSION=9)
    assert money(3) == money(3) == Money(3) and runs == [3]
    assert money.cache is configured.cache is cache_of("default")
    assert money.key(3).startswith(f"{configured.prefix}:4:money:")
    if location:
        assert redis_client.exists(money.key(3))
    cache.clear()
    assert money(3) == Money(3) and runs == [3]
    money.invalidate_all()
    assert money(3) == Money(3) and runs == [3, 3]


def test_an_async_function_names_an_alias(backend: Any) -> None:
    """The same for `async def`."""
    backend()

    @versioned_cache(namespace="awaited-money", cache="default")
    async def money(amount: int) -> Money:
        return Money(amount)

    async def whole() -> None:
        assert await money(3) == Money(3)
        entry = await money.peek(3)
        assert entry is not None and entry.value == Money(3)

    asyncio.run(whole())


def test_an_alias_follows_the_settings(backend: Any, prefix: str) -> None:
    """A test that overrides CACHES gets the cache it asked for."""

    @versioned_cache(namespace="followed", cache="default")
    def followed(n: int) -> int:
        return n

    backend(KEY_PREFIX=prefix + "a")
    assert followed.key(1).startswith(prefix + "a:")
    backend(KEY_PREFIX=prefix + "b")
    followed(1)
    assert followed.key(1).startswith(prefix + "b:")


def test_an_alias_that_is_none_of_memovers(backend: Any) -> None:
    """An unknown alias, or one of another backend, raises `ConfigurationError` at the first call, and `check` reports it."""
    backend(others={"local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})

    @versioned_cache(namespace="lost-1", cache="lost")
    def lost(n: int) -> int:
        return n

    @versioned_cache(namespace="lost-2", cache="local")
    def local(n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match="lost"):
        lost(1)
    with pytest.raises(ConfigurationError, match="MemoverCache"):
        local(1)
    assert [message.id for message in run_checks()].count("memover.E001") == 2


# -- system checks -----------------------------------------------------------------------------------------------------------


def test_a_namespace_used_twice_is_reported(backend: Any) -> None:
    """Two aliases of one place are one place: the second function of a namespace there is found before it is called."""
    configured = backend()
    own = {"BACKEND": "memover.django.MemoverCache", "KEY_PREFIX": configured.prefix, "VERSION": 2, "LOCATION": ""}
    if configured.cache.address.startswith("redis"):
        own["LOCATION"] = configured.cache.address
    options = {"socket_timeout": 10, "socket_connect_timeout": 10}
    backend(others={"again": {**own, "OPTIONS": options}})
    assert not [message for message in run_checks() if "twice" in str(message.msg)]

    @versioned_cache(namespace="twice", cache="default")
    def first(n: int) -> int:
        return n

    @versioned_cache(namespace="twice", cache="again")
    def second(n: int) -> int:
        return n

    found = [message for message in run_checks() if message.id == "memover.E001" and "twice" in str(message.msg)]
    assert len(found) == 1, (first, second)


@pytest.mark.parametrize(
    ("maxmemory", "policy", "expected"),
    [
        ("0", "noeviction", set()),
        ("100mb", "volatile-lru", set()),
        ("100mb", "allkeys-lru", {"memover.W001"}),
        ("100mb", "noeviction", {"memover.W002"}),
    ],
)
def test_a_risky_server_is_reported(
    maxmemory: str, policy: str, expected: set[str], start_redis: Callable[..., RedisServer], backend: Any
) -> None:
    """`check --deploy` asks the server what it does when it is full; without --deploy nothing is asked."""
    server = start_redis(config={"maxmemory": maxmemory, "maxmemory-policy": policy})
    backend(LOCATION=server.url)
    found = {str(message.id) for message in run_checks(include_deployment_checks=True)}
    assert {identity for identity in found if identity.startswith("memover.W")} == expected
    with server.recording() as calls:
        assert not [message for message in run_checks() if message.id and message.id.startswith("memover.W")]
    assert list(calls) == []


def test_a_server_that_is_down_and_a_missing_prefix_are_reported(backend: Any) -> None:
    """Both are warnings of `check --deploy`."""
    backend(LOCATION="redis://127.0.0.1:1/0", KEY_PREFIX="")
    found = {message.id for message in run_checks(include_deployment_checks=True)}
    assert {"memover.W003", "memover.W004"} <= found
