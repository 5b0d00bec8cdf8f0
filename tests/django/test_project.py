"""What a project builds on the backend: sessions, pages, fragments, async views, functions by alias, system checks."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.core.checks import run_checks
from django.test import AsyncClient, Client
from django.test.utils import override_settings

from memover import ConfigurationError, versioned_cache
from memover.django import MemoverCache, cache_of
from tests.django.conftest import Money

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import RedisServer


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


def test_a_function_names_an_alias(backend: Any, expires_ms: Any, location: str) -> None:
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
        assert expires_ms(money.key(3)) > 0
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
    backend(
        others={"local": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "/nowhere"}}
    )

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
    gc.collect()  # functions of that namespace that an earlier test has left
    configured = backend()
    own = {"BACKEND": "memover.django.MemoverCache", "KEY_PREFIX": configured.prefix, "VERSION": 2, "LOCATION": ""}
    if not configured.cache.address.startswith("memory"):
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


def test_a_file_has_nothing_to_warn_of(backend: Any, tmp_path: Path) -> None:
    """An alias on SQLite: `check --deploy` looks at it as at a server."""
    backend(LOCATION=f"sqlite:///{tmp_path / 'cache.db'}")
    found = {str(message.id) for message in run_checks(include_deployment_checks=True)}
    assert not [identity for identity in found if identity.startswith("memover.W")]
