"""`memover.django.MemoverCache`: settings, timeouts, codecs, secrets, and what its instances share."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import CacheKeyWarning, InvalidCacheBackendError, cache, caches
from django.core.checks import run_checks
from django.test.utils import override_settings

from memover import ConfigurationError, UnencodableValue
from tests.django.conftest import Money

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.servers import RedisServer


def test_the_settings_have_djangos_names(backend: Any, expires_ms: Any, location: str) -> None:
    """KEY_PREFIX, VERSION, TIMEOUT and KEY_FUNCTION mean what they mean to Django; the stored key is prefix:version:key."""
    configured = backend(VERSION=2, TIMEOUT=None)
    cache.set("k", Money(3))
    assert cache.get("k") == Money(3)
    assert cache.get("k", version=1) is None
    assert cache.incr_version("k") == 3 and cache.get("k", version=3) == Money(3)
    if location:
        assert expires_ms(f"{configured.prefix}:3:k") is None
    configured = backend(KEY_FUNCTION=lambda key, prefix, version: f"{prefix}/{version}/{key}", TIMEOUT=50)
    cache.set("k", 1)
    if location:
        assert 0 < expires_ms(f"{configured.prefix}/1/k") <= 50_000
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
    backend(OPTIONS={"codec": "memover.codec.ValueCodec"})
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
    if not location.startswith("redis"):
        pytest.skip("writes to a Redis; a file's entries are signed in the same way")
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
    if params["LOCATION"] == "" and not configured.cache.address.startswith("memory"):
        params["LOCATION"] = configured.cache.address
    options = {"socket_timeout": 10, "socket_connect_timeout": 10}
    v2 = backend(others={"v2": {**own, **params, "VERSION": 2, "TIMEOUT": None, "OPTIONS": options}})
    v2 = caches["v2"]
    cache.set("k", 1)
    assert v2.get("k") is None and v2.get("k", version=1) == 1
    assert cache.incr_version("k") == 2 and v2.get("k") == 1
