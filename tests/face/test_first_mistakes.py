"""What newcomers write first and wrongly, and what they are told; and what a decorated function says of itself."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import memover
from memover import Cache, ConfigurationError, UnkeyableArgument, versioned_cache

MISSING = object()


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda: versioned_cache(lambda n: n), r"takes options and no function: write @versioned_cache\(namespace="),
        (versioned_cache, r"needs namespace=: write @versioned_cache\(namespace="),  # type: ignore[call-arg]
        (lambda: Cache().versioned(ttl="5m"), r"needs namespace=: write @versioned_cache\(namespace="),
        (lambda: Cache().versioned(lambda n: n), r"takes options and no function: write @versioned_cache\(namespace="),
        (lambda: versioned_cache("n"), "takes 'n' only by name"),
        (lambda: versioned_cache(namespace="n", tll=5), r"no option tll=: did you mean ttl=\?"),
        (lambda: versioned_cache(namespace="n", colour=5), "no option colour=: there are .*namespace, "),
        (lambda: Cache(max_entrys=1), r"no option max_entrys=: did you mean max_entries=\?"),
        (lambda: memover.configure(prefx="shop"), r"no option prefx=: did you mean prefix=\?"),
        (lambda: Cache(PurePosixPath("data/x.db")), "must be text such as 'sqlite:///data/x.db'"),  # type: ignore[arg-type]
    ],
    ids=[
        "bare",
        "empty",
        "empty, of a cache",
        "bare, of a cache",
        "positional",
        "typing error",
        "unknown",
        "of Cache",
        "of configure",
        "a path",
    ],
)
def test_wrong_options_are_answered_with_what_to_write(write: Any, told: str) -> None:
    """A `ConfigurationError` at decoration or construction."""
    with pytest.raises(ConfigurationError, match=told):
        write()


def decorate(**options: Any) -> Any:
    return versioned_cache(**{"namespace": "first-mistakes", "cache": Cache(), **options})(lambda n: n)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"version": "2"}, "write version=2"),
        ({"version": "v3"}, "write version=3"),
        ({"version": 2.0}, "write version=2"),
        ({"version": b"4"}, "write version=4"),
        ({"version": "0"}, "write version=1"),
        ({"version": "two"}, "write version=1"),
        ({"version": True}, "write version=1"),
        ({"ttl": "60"}, 'write 60 (seconds) or "60s"'),
        ({"ttl": "0.5"}, 'write 0.5 (seconds) or "0.5s"'),
        ({"ttl": "5 minutes"}, 'write "5m"'),
        ({"ttl": "1 hour, 30 min"}, 'write "1h30m"'),
        ({"ttl": "None"}, "write None"),
        ({"ttl": "-5"}, 'text such as "1h30m"'),
        ({"ttl": "5 fortnights"}, 'text such as "1h30m"'),
        ({"error_ttl": "5"}, "write 5 (seconds)"),
        ({"stale_if_error": "5"}, "write 5 (seconds)"),
        ({"near": "1"}, "write 1 (seconds)"),
        ({"near": "True"}, "write near=True"),
        ({"near": "0.01"}, 'text such as "1h30m"'),
        ({"jitter": "0.1"}, "write jitter=0.1"),
        ({"jitter": "10"}, "0 to below 1."),
        ({"audit": "0.01"}, "write audit=0.01"),
        ({"early_refresh": "True"}, "write early_refresh=True"),
        ({"early_refresh": "2.5"}, "write early_refresh=2.5"),
        ({"cache_errors": "KeyError"}, "write cache_errors=(KeyError,)"),
        ({"cache_errors": 3}, "write cache_errors=(KeyError,), say"),
        ({"ignore": 3}, 'write ignore=("session",), say'),
        ({"tags": 3}, 'write tags=("user:{user_id}",), say'),
        ({"track_dependencies": "no"}, "write track_dependencies=False"),
        ({"follow_code": "yes"}, "write follow_code=True"),
        ({"codec": "json"}, "codec='json' is not a codec"),
        ({"cache": "redis://:secret@localhost"}, "write cache=Cache(url)"),
        ({"cache": Cache}, "not the class Cache: call it first"),
        ({"cache": {}}, "takes a Cache, not a builtins.dict"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else None,
)
def test_an_option_of_the_wrong_form_is_answered_with_the_right_one(options: dict[str, Any], told: str) -> None:
    """Numbers and switches as text, times with other words, and caches that are none: refused at decoration."""
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        decorate(**options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"version": "2"}, "write version=2"),
        ({"ttl": "60"}, "write 60 (seconds)"),
        ({"socket_timeout": "1"}, "write 1 (seconds)"),
        ({"max_entries": "100"}, "write max_entries=100"),
        ({"max_entries": "many"}, "at least 1."),
        ({"max_entry_bytes": "64MiB"}, "write max_entry_bytes=67108864"),
        ({"max_entry_bytes": "1.5 MB"}, "write max_entry_bytes=1500000"),
        ({"near_max_entries": 10.0}, "write near_max_entries=10"),
        ({"wait_replicas": "1"}, "write wait_replicas=1"),
        ({"generation_shards": "2"}, "write generation_shards=2"),
        ({"enabled": "0"}, "write enabled=False"),
        ({"observers": print}, "write observers=(print,), say"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else None,
)
def test_an_option_of_a_cache_of_the_wrong_form_is_answered_with_the_right_one(
    options: dict[str, Any], told: str
) -> None:
    """The same at construction."""
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        Cache(**options)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("localhost:6379", "redis://localhost:6379"),
        ("localhost", "redis://localhost"),
        ("127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
        ("redis:6379", "redis://redis:6379"),
        ("redis:localhost", "redis://localhost"),
        ("rediss:/cache.example.org:6380", "rediss://cache.example.org:6380"),
        ("[::1]:6379", "redis://[::1]:6379"),
        ("tcp://localhost:6379", "redis://localhost:6379"),
        ("redis-cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
        ("valkey+sentinal://a:1/main", "valkey+sentinel://a:1/main"),
        ("a.example.org:6379,b.example.org:6379", "redis+cluster://a.example.org:6379,b.example.org:6379"),
        ("cache.db", "sqlite:///cache.db"),
        ("/run/redis.sock", "unix:///run/redis.sock"),
        (":memory:", "memory://"),
        ("user:secret@host:6379", "redis://...@host:6379"),
        ("redi://:secret@host:6379/1", "redis://...@host:6379/1"),
        ("redi://host?password=secret", "redis://host"),
        ("redi://u:se?c@secret@host?password=secret@host", "redis://..."),
    ],
)
def test_an_address_that_is_no_url_is_answered_with_the_url(
    url: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one that a `Cache` takes, but for a user name and a password, which are not repeated."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        Cache(url)
    assert f"did you mean {meant}?" in str(caught.value)
    assert "secret" not in str(caught.value)
    if "..." not in meant:
        Cache(meant).close()


@pytest.mark.parametrize("url", ["", "default", "postgres://u:cret@h/shop", "user:se/cret@host:6379", "cret@cache.db"])
def test_an_address_that_could_be_anything_is_answered_with_what_there_is(url: str) -> None:
    """No guess, and nothing of what may be a password."""
    with pytest.raises(ConfigurationError, match=r"use memory://, sqlite:///file\.db, redis://") as caught:
        Cache(url)
    assert "did you mean" not in str(caught.value)
    assert "cret" not in str(caught.value)


def test_seconds_in_the_environment_may_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """There every value is text: MEMOVER_REPORT=5 is 5 seconds, as MEMOVER_TTL=5 is."""
    monkeypatch.setenv("MEMOVER_REPORT", "5")
    Cache().close()
    monkeypatch.setenv("MEMOVER_REPORT", "often")
    with pytest.raises(ConfigurationError, match="report='often' is not a duration"):
        Cache()


def test_a_decorated_function_says_that_it_is_cached_and_where() -> None:
    """Its text names the function, its namespace and version, and the cache, however it is printed."""

    @Cache(prefix="shop").versioned(namespace="prices", version=3)
    def price(sku: str) -> int:
        return 1

    told = repr(price)
    assert "cached" in told
    assert f"{__name__}.{price.__qualname__}" in told
    assert "'prices' version=3" in told
    assert "memory://" in told
    assert "prefix='shop'" in told
    assert str(price) == f"{price}" == f"{price!s}" == told


def test_a_method_says_that_it_is_cached() -> None:
    """Of the class and of an instance."""

    class Shop:
        @Cache().versioned(namespace="shop-prices", ignore=("self",))
        def price(self, sku: str) -> int:
            return 1

    for method in (Shop.price, Shop().price):
        assert str(method) == f"{method}" == repr(method)
        assert "cached" in repr(method)


def test_its_repr_makes_no_cache() -> None:
    """A function on the default cache or an alias says so, and nothing is configured by looking."""

    @versioned_cache(namespace="repr-of-an-alias", cache="nowhere")
    def aliased(n: int) -> int:
        return n

    assert "in the alias 'nowhere'" in repr(aliased)


@pytest.mark.parametrize("key", [None, "{n}:{default}"])
def test_an_argument_that_was_left_out_is_a_value_of_its_own(key: str | None) -> None:
    """`default=MISSING` with a bare `object()`: no other value shares its entry, and another `object()` is refused."""

    @Cache().versioned(namespace="n", key=key)
    def get(n: int, default: Any = MISSING) -> Any:
        return ["missing"] if default is MISSING else [default]

    assert [get(1), get(1), get(1, None), get(1, "left out"), get(1, MISSING)] == [
        ["missing"], ["missing"], [None], ["left out"], ["missing"],
    ]  # fmt: skip
    assert get.cache_info().loads == 3
    with pytest.raises(UnkeyableArgument):
        get(1, object())


def test_a_field_of_self_that_is_no_key_is_not_answered_with_ignoring_self() -> None:
    """Without `self` in the key all objects would share: another tenant's too."""

    @dataclasses.dataclass(frozen=True)
    class Repository:
        tenant: str
        connection: Any

        @Cache().versioned(namespace="rows")
        def rows(self, table: str) -> list[str]:
            return [self.tenant]

    with pytest.raises(UnkeyableArgument, match=r"self\.connection.*__memover_key__") as caught:
        Repository("a", object()).rows("t")
    assert "ignore=" not in str(caught.value)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'cache.db'}"
    found: str = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    return found


@pytest.mark.parametrize("helper", ["call", "refresh", "set", "invalidate", "peek"])
def test_under_trio_a_call_says_that_only_asyncio_will_do(url: str, helper: str, prefix: str) -> None:
    """Instead of "no running event loop", on every store; a helper that has nothing to wait for may just work."""
    trio = pytest.importorskip("trio")

    with Cache(url, prefix=prefix) as cache:

        @cache.versioned(namespace="n")
        async def f(n: int) -> int:
            return n

        call = f if helper == "call" else getattr(f, helper)
        if url == "memory://" and helper in ("peek", "invalidate"):
            assert trio.run(call, 1) is None
            return
        with pytest.raises(RuntimeError, match=r"under asyncio only.*not under trio") as caught:
            trio.run(call, 1, *([1] if helper == "set" else []))
        assert not isinstance(caught.value, memover.StoreError)


AT_EXIT = """
import asyncio, atexit, logging, sys
from memover import Cache
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("asyncio").setLevel(logging.CRITICAL)
cache = Cache(sys.argv[1], prefix=sys.argv[2])

@cache.versioned(namespace="at-exit")
async def f(n):
    return n

@cache.versioned(namespace="at-exit-sync")
def g(n):
    return n

@atexit.register
def last():
    async def main():
        return [await f(1), await f(1), await f.refresh(1), await f.invalidate(1), await f.map([1, 2, 3])]
    print(asyncio.run(main()), [g(1), g(1), g.map([1, 2, 3])])
    print(f.cache_info().hits, f.cache_info().store_errors, g.cache_info().hits, g.cache_info().store_errors, flush=True)

if sys.argv[3] == "before":
    asyncio.run(f(1))
    g(1)
"""


@pytest.mark.parametrize("first", ["before", "only-then"])
def test_calls_while_the_interpreter_ends_do_not_blame_the_store(url: str, prefix: str, first: str) -> None:
    """No thread can be started then; the calls are made, cached and invalidated, and nothing is logged."""
    ended = subprocess.run(
        # Python 3.12.0 to 3.12.3 warn of what `sqlite3` documents.
        [sys.executable, "-W", "error", "-W", "ignore:Binding:DeprecationWarning", "-c", AT_EXIT, url, prefix, first],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    results, counted = ended.stdout.splitlines()
    assert results == "[1, 1, 1, None, [1, 2, 3]] [1, 1, [1, 2, 3]]"
    assert counted.split()[1::2] == ["0", "0"], counted
    assert ended.returncode == 0
