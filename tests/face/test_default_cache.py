"""The default cache: configured before or after decoration, from the environment, swapped, disabled; namespaces."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover import Cache, ConfigurationError, versioned_cache
from tests.servers import run_python

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_default")


def decorated(namespace: str, **options: Any) -> tuple[Any, list[int]]:
    runs: list[int] = []

    @versioned_cache(namespace=namespace, **options)
    def f(x: int) -> list[int]:
        runs.append(x)
        return [x, len(runs)]

    return f, runs


def test_without_configuration_results_are_kept_in_memory() -> None:
    """memory://, prefix memover, 300 s: a decorated function works with no line of set-up."""
    f, _ = decorated("unconfigured")
    assert f(1) == f(1) == [1, 1]
    assert f.key(1).startswith("memover:1:unconfigured:")
    assert f.cache is memover.default_cache()
    assert f.cache.address.startswith("memory://")
    assert f.cache_parameters()["ttl"] == 300


def test_configure_before_decoration(redis_url: str, prefix: str) -> None:
    """It returns the cache that decorators then use."""
    cache = memover.configure(redis_url, prefix=prefix, ttl="1h")
    f, _ = decorated("before")
    assert f(1) == f(1) == [1, 1]
    assert f.cache is cache is memover.default_cache()
    assert f.key(1).startswith(f"{prefix}:1:before:")
    assert f.cache_parameters()["ttl"] == 3600


def test_configure_after_decoration(redis_url: str, redis_client: Any, prefix: str) -> None:
    """Decoration at import, configuration in main(): nothing was connected or stored elsewhere before."""
    f, _ = decorated("after")
    memover.configure(redis_url, prefix=prefix)
    assert f(1) == [1, 1]
    assert redis_client.exists(f.key(1)) == 1
    assert f.key(1).startswith(f"{prefix}:1:after:")


def test_configure_again_moves_functions_that_were_called(prefix: str) -> None:
    """The former cache is left at once, its entries with it; helpers and counters follow."""
    f, _ = decorated("again")
    memover.configure(prefix="one")
    assert f(1) == [1, 1]
    memover.configure(prefix="two")
    assert f.key(1).startswith("two:")
    assert f(1) == [1, 2]
    assert f.cache_info()[:2] == (0, 1)


def test_what_configure_refuses_changes_nothing() -> None:
    """A wrong URL or option raises, and the former default stays."""
    cache = memover.configure(prefix="kept")
    with pytest.raises(ConfigurationError):
        memover.configure("mysql://localhost")
    with pytest.raises(ConfigurationError):
        memover.configure(prefix="a b")
    with pytest.raises(TypeError):
        memover.configure(colour="red")
    assert memover.default_cache() is cache


def test_a_decorator_with_a_cache_ignores_the_default() -> None:
    """cache= is for good."""
    own = Cache(prefix="own")
    f, _ = decorated("own", cache=own)
    memover.configure(prefix="default")
    assert f.key(1).startswith("own:")
    with memover.using(Cache(prefix="swapped")):
        assert f.key(1).startswith("own:")


# The environment


ENVIRONMENT = """
import memover
from memover import versioned_cache
@versioned_cache(namespace="env")
def f(x): return x
cache = memover.configure(**args[0]) if args else memover.default_cache()
f(1); f(1)
result = [f.key(1).rpartition(":")[0], f.cache_parameters()["ttl"], cache.version, cache.address, list(f.cache_info()[:2]),
          f.cache_info().bypasses]
"""


def test_unset_fields_come_from_the_environment(redis_url: str, prefix: str) -> None:
    """MEMOVER_URL, MEMOVER_PREFIX, MEMOVER_VERSION, MEMOVER_TTL; what is given to configure() wins."""
    environment = {
        "MEMOVER_URL": redis_url,
        "MEMOVER_PREFIX": prefix,
        "MEMOVER_VERSION": "3",
        "MEMOVER_TTL": "1h30m",
    }
    (found,) = run_python(ENVIRONMENT, env=environment)
    assert found == [f"{prefix}:1:env", 5400, 3, redis_url.rstrip("/"), [1, 1], 0]
    (found,) = run_python(ENVIRONMENT, {"prefix": f"{prefix}.two", "ttl": 5}, env=environment)
    assert found == [f"{prefix}.two:1:env", 5, 3, redis_url.rstrip("/"), [1, 1], 0]
    (found,) = run_python(ENVIRONMENT, {"url": "memory://"}, env={**environment, "MEMOVER_TTL": "90"})
    assert found[1] == 90
    assert found[3].startswith("memory://")


@pytest.mark.parametrize(
    ("name", "text"),
    [("URL", "mysql://x"), ("PREFIX", "a b"), ("VERSION", "0"), ("VERSION", "two"), ("TTL", "soon"), ("TTL", "-5")],
)
def test_a_wrong_environment_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """At the first use, and it says which value."""
    monkeypatch.setenv(f"MEMOVER_{name}", text)
    f, _ = decorated("wrong-environment")
    with pytest.raises(ConfigurationError) as caught:
        f(1)
    assert text.partition(":")[0] in str(caught.value) or name.lower() in str(caught.value)
    monkeypatch.delenv(f"MEMOVER_{name}")
    assert f(1) == [1, 1]


@pytest.mark.parametrize("never", ["none", "never", "None"])
def test_a_ttl_of_the_environment_may_be_never(monkeypatch: pytest.MonkeyPatch, never: str) -> None:
    """MEMOVER_TTL=never."""
    monkeypatch.setenv("MEMOVER_TTL", never)
    assert memover.default_cache().ttl == float("inf")


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_memover_disabled_turns_caching_off(redis_url: str, redis_client: Any, prefix: str, value: str) -> None:
    """MEMOVER_DISABLED=1: every call runs the function, and nothing is read or written."""
    environment = {"MEMOVER_URL": redis_url, "MEMOVER_PREFIX": prefix, "MEMOVER_DISABLED": value}
    (found,) = run_python(ENVIRONMENT, env=environment)
    assert found[4:] == [[0, 0], 2]
    assert list(redis_client.scan_iter(f"*{prefix}*")) == []


@pytest.mark.parametrize("value", ["0", "", "false", "no"])
def test_memover_disabled_can_be_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """MEMOVER_DISABLED=0 leaves caching on; enabled= decides over it."""
    monkeypatch.setenv("MEMOVER_DISABLED", value)
    f, _ = decorated("not-disabled")
    assert f(1) == f(1) == [1, 1]
    monkeypatch.setenv("MEMOVER_DISABLED", "1")
    g, _ = decorated("enabled", cache=Cache(enabled=True))
    assert g(1) == g(1)
    h, _ = decorated("disabled", cache=Cache())
    assert h(1) != h(1)


# using


def test_using_swaps_the_default_inside_a_with() -> None:
    """Nested too; afterwards the former is back, and its entries with it."""
    first, second = Cache(prefix="first"), Cache(prefix="second")
    f, runs = decorated("swapped")
    assert f(1) == [1, 1]
    with memover.using(first) as entered:
        assert entered is first is memover.default_cache()
        assert f(1) == [1, 2]
        with memover.using(second):
            assert f.cache is second
            assert f(1) == [1, 3]
        assert f(1) == [1, 2]
        with pytest.raises(LookupError), memover.using(second):
            raise LookupError
        assert f.cache is first
    assert f(1) == [1, 1]
    assert len(runs) == 3


def test_using_holds_for_every_thread() -> None:
    """It is the process's default that is swapped; blocks of several threads may overlap and end in any order."""
    f, _ = decorated("threads")
    outer, inner = Cache(prefix="outer"), Cache(prefix="inner")
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        with memover.using(inner):
            entered.set()
            assert leave.wait(30)
        left.set()

    thread = threading.Thread(target=other)
    with memover.using(outer):
        thread.start()
        assert entered.wait(30)
        assert f.key(1).startswith("inner:")
    assert f.key(1).startswith("inner:"), "the other block is still open"
    leave.set()
    assert left.wait(30)
    thread.join()
    assert f.key(1).startswith("memover:")


def test_using_swaps_under_calls_of_other_threads() -> None:
    """A function called all the while always finds one cache or the other, and its right result."""
    f, _ = decorated("busy")
    first, second = Cache(prefix="first"), Cache(prefix="second")
    stop, errors = threading.Event(), []

    def caller() -> None:
        try:
            while not stop.is_set():
                assert f(1)[0] == 1
                assert f.cache_info().misses >= 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        with memover.using(first), memover.using(second):
            f(1)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []


# Namespaces


def test_two_functions_cannot_share_a_namespace() -> None:
    """The second is refused when it is decorated, with both names in the error."""
    f, _ = decorated("taken")
    f(1)

    def another(x: int) -> int:
        return x

    with pytest.raises(ConfigurationError, match=r"(?s)'taken'.*decorated.*another"):
        versioned_cache(namespace="taken")(another)
    cache = Cache()
    kept = versioned_cache(namespace="taken", cache=cache)(another)
    with pytest.raises(ConfigurationError, match="taken"):
        decorated("taken", cache=cache)
    assert kept(1) == 1


def test_a_namespace_is_free_under_another_prefix_or_store() -> None:
    """Prefixes and stores are apart, so one namespace may be used in each."""
    kept = [decorated("apart", cache=Cache("redis://localhost:1/0", prefix="one"))]

    def another(x: int) -> int:
        return x

    options = [
        {"prefix": "two"},
        {"url": "redis://localhost:1/1"},
        {"url": "redis://localhost:2/0"},
        {"url": "memory://"},
    ]
    for option in options:
        cache = Cache(**{"url": "redis://localhost:1/0", "prefix": "one", **option})
        kept.append(versioned_cache(namespace="apart", cache=cache)(another))
    with pytest.raises(ConfigurationError, match="apart"):
        versioned_cache(namespace="apart", cache=Cache("redis://localhost:1/0", prefix="one"))(another)


def test_a_namespace_of_a_function_that_is_gone_is_free() -> None:
    """Another may have it; what the former one left there is not the other's."""
    f, _ = decorated("gone")
    f(1)
    del f
    gc.collect()

    def another(x: int) -> list[int]:
        return [x]

    g = versioned_cache(namespace="gone")(another)
    assert g(1) == [1]


def test_the_same_function_decorated_again_is_no_clash() -> None:
    """A factory called twice, another version of it included: the entries are the same function's."""
    runs: list[int] = []

    def decorated(**options: Any) -> Any:
        @versioned_cache(namespace="factory", **options)
        def f(x: int) -> list[int]:
            runs.append(x)
            return [x, len(runs)]

        return f

    assert decorated()(1) == decorated()(1) == [1, 1]
    assert decorated(version=2)(1) == [1, 2]


def test_a_module_may_be_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """importlib.reload, and the same file under another name (a script that is imported too), are no clash."""
    source = "from memover import versioned_cache\n@versioned_cache(namespace='reloaded')\ndef f(x): return x\n"
    (tmp_path / "reloaded_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reloaded_module")
    try:
        before = module.f
        assert before(1) == 1
        importlib.reload(module)
        assert module.f is not before
        assert module.f(1) == 1
        assert module.f.cache_info().hits == 1
        spec = importlib.util.spec_from_file_location("__main__2", tmp_path / "reloaded_module.py")
        assert spec is not None
        assert spec.loader is not None
        other = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(other)
        assert other.f(1) == 1
    finally:
        del sys.modules["reloaded_module"]


def test_importing_decorated_functions_connects_to_nothing() -> None:
    """Decoration and construction open no connection: a URL that nobody serves is found out at the first call."""
    cache = Cache("redis://192.0.2.1:6379/0", socket_connect_timeout=0.05, socket_timeout=0.05)
    f, _ = decorated("unconnected", cache=cache)
    assert f.key(1).startswith("memover:1:unconnected:")
    assert f.cache_info().store_errors == 0
    assert f(1) == [1, 1]
    assert f.cache_info().store_errors > 0
    cache.close()
