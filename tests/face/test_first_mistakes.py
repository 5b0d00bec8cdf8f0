"""What newcomers write first and wrongly, and what they are told; and what a decorated function says of itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import memover
from memover import Cache, ConfigurationError, UnkeyableArgument, versioned_cache

MISSING = object()


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda: versioned_cache(lambda n: n), r"takes options and no function: write @versioned_cache\(namespace="),
        (lambda: Cache().versioned(lambda n: n), r"takes options and no function: write @versioned_cache\(namespace="),
        (lambda: versioned_cache("n"), "takes 'n' only by name"),
        (lambda: versioned_cache(namespace="n", tll=5), r"no option tll=: did you mean ttl=\?"),
        (lambda: versioned_cache(namespace="n", colour=5), "no option colour=: there are .*namespace, "),
        (lambda: Cache(max_entrys=1), r"no option max_entrys=: did you mean max_entries=\?"),
        (lambda: memover.configure(prefx="shop"), r"no option prefx=: did you mean prefix=\?"),
    ],
    ids=["bare", "bare, of a cache", "positional", "typing error", "unknown", "of Cache", "of configure"],
)
def test_wrong_options_are_answered_with_what_to_write(write: Any, told: str) -> None:
    """A `ConfigurationError` at decoration or construction."""
    with pytest.raises(ConfigurationError, match=told):
        write()


def test_a_decorated_function_says_that_it_is_cached_and_where() -> None:
    """Its `repr` names the function, its namespace and version, and the cache."""

    @Cache(prefix="shop").versioned(namespace="prices", version=3)
    def price(sku: str) -> int:
        return 1

    told = repr(price)
    assert "cached" in told
    assert f"{__name__}.{price.__qualname__}" in told
    assert "'prices' version=3" in told
    assert "memory://" in told
    assert "prefix='shop'" in told


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
