"""The options of `versioned_cache`: ttl in every form, cache_if, jitter, and what happens when the store fails."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, StoreError, StoreUnavailable, versioned_cache
from tests.ids import steady_repr
from tests.servers import FaultyProxy, RedisServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover import Call
    from tests.face.ways import Way

SPELLINGS = [
    (90, 90),
    (0.5, 0.5),
    (timedelta(minutes=1, milliseconds=500), 60.5),
    ("90", None),
    ("90s", 90),
    ("1h30m", 5400),
    ("1h 30m", 5400),
    ("250ms", 0.25),
    ("1.5h", 5400),
    ("1w2d3h4m5s6ms", 788_645.006),
    (None, float("inf")),
    (float("inf"), float("inf")),
]


def lifetime(entry: Any) -> float:
    return entry.fresh_until - entry.created_at  # type: ignore[no-any-return]


@pytest.mark.parametrize(("ttl", "seconds"), [(t, s) for t, s in SPELLINGS if s is not None], ids=str)
def test_a_ttl_in_every_form_is_kept(redis_way: Way, redis_client: Any, ttl: Any, seconds: float) -> None:
    """Seconds, timedelta, text, None for never: in the entry's header, and as the store's own limit."""

    @redis_way.cached(ttl=ttl)
    def f() -> int:
        return 1

    redis_way.run(f())
    entry = redis_way.run(f.peek())
    assert lifetime(entry) == pytest.approx(seconds, abs=1e-5)
    assert entry.usable_until == entry.fresh_until
    left = redis_client.pttl(f.key())
    if seconds == float("inf"):
        assert left == -1
    else:
        assert 0 < left <= seconds * 1000 + 1
        assert left > seconds * 1000 - 60_000


@pytest.mark.parametrize(
    "ttl", [0, -1, timedelta(0), timedelta(seconds=-1), "", "5", "5 parsecs", "-5s", "1h-5m", True]
)
def test_a_wrong_ttl_is_refused_at_decoration(ttl: Any) -> None:
    """What is no duration, or none above zero, is a ConfigurationError that says which forms there are."""
    with pytest.raises(ConfigurationError, match=r"ttl=.*seconds, a timedelta"):
        versioned_cache(namespace="n", ttl=ttl)
    with pytest.raises(ConfigurationError, match="ttl="):
        Cache(ttl=ttl)


@pytest.mark.parametrize(
    "ttl", [float("nan"), b"5s", Decimal(5), [5], {}, object()], ids=lambda ttl: type(ttl).__name__
)
def test_a_ttl_of_another_type_is_refused_at_decoration(ttl: Any) -> None:
    """A type that is none of the forms, and nan, likewise."""
    with pytest.raises(ConfigurationError, match="ttl="):
        versioned_cache(namespace="n", ttl=ttl)


def test_without_a_ttl_the_caches_applies(way: Way) -> None:
    """300 s by default, or what the cache was given."""

    @way.cached()
    def f() -> int:
        return 1

    @way.cached(cache=way.new_cache(ttl="2m"))
    def g() -> int:
        return 1

    way.run(f())
    way.run(g())
    assert lifetime(way.run(f.peek())) == pytest.approx(300)
    assert lifetime(way.run(g.peek())) == pytest.approx(120)
    assert f.cache_parameters()["ttl"] == 300
    assert g.cache_parameters()["ttl"] == 120


def test_a_ttl_may_depend_on_the_result_and_the_call(way: Way) -> None:
    """A callable (result, call) -> ttl is asked after each load, with the arguments as bound."""
    calls: list[Call] = []

    def ttl(result: int, call: Call) -> Any:
        calls.append(call)
        return {1: 60, 2: timedelta(minutes=2), 3: "3m", 4: None}[result]

    @way.cached("asked", version=4, ttl=ttl, ignore=("db",))
    def f(x: int, db: object = None, *, y: int = 5) -> int:
        return x

    for x, seconds in ((1, 60), (2, 120), (3, 180), (4, float("inf"))):
        way.run(f(x, "db"))
        assert lifetime(way.run(f.peek(x))) == pytest.approx(seconds)
    call = calls[0]
    assert call.arguments == {"x": 1, "y": 5}
    assert (call.args, dict(call.kwargs)) == ((1, "db"), {})
    assert (call.namespace, call.version, call.key) == ("asked", 4, f.key(1))


@pytest.mark.parametrize("ttl", [0, -5, timedelta(0), "0s"])
def test_a_ttl_callable_may_decline(way: Way, ttl: Any) -> None:
    """Zero or less from it: the result is returned and not stored."""
    runs = []

    @way.cached(ttl=lambda result, call: ttl)
    def f() -> int:
        runs.append(1)
        return 1

    assert [way.run(f()), way.run(f())] == [1, 1]
    assert len(runs) == 2
    assert way.run(f.peek()) is None
    assert f.cache_info().refused_stores == 2


def test_an_error_in_a_callable_reaches_the_caller_and_stores_nothing(way: Way) -> None:
    """What ttl= or cache_if= raises, and a ttl of a wrong form, is the caller's to see; the next call runs again."""
    runs = []

    def broken(result: Any, call: Any) -> Any:
        raise LookupError("in the callable")

    def f() -> int:
        runs.append(1)
        return 1

    for options in ({"ttl": broken}, {"cache_if": broken}):
        g = way.cached(**options)(f)
        for _ in range(2):
            with pytest.raises(LookupError, match="in the callable"):
                way.run(g())
    h = way.cached(ttl=lambda result, call: "soon")(f)
    with pytest.raises(ConfigurationError, match="soon"):
        way.run(h())
    assert len(runs) == 5


def test_cache_if_decides_what_is_stored(way: Way) -> None:
    """It sees the result and the call; what it declines is returned, and asked for again."""
    runs = []

    @way.cached(cache_if=lambda result, call: result is not None and call.arguments["x"] != 2)
    def f(x: int) -> int | None:
        runs.append(x)
        return x or None

    for x in (1, 2, 0):
        assert way.run(f(x)) == way.run(f(x)) == (x or None)
    assert runs == [1, 2, 2, 0, 0]


def test_none_and_false_are_results_like_any_other(way: Way) -> None:
    """They are cached; there is no value that means "not cached"."""
    runs = []

    @way.cached()
    def f(value: Any) -> Any:
        runs.append(value)
        return value

    for value in (None, False, 0, "", [], {}):
        assert way.run(f(value)) == way.run(f(value)) == value
        assert way.run(f.peek(value)).value == value
    assert len(runs) == 6


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999_999])
def test_jitter_only_shortens(way: Way, monkeypatch: pytest.MonkeyPatch, chance: float) -> None:
    """jitter=0.2 takes away at most a fifth, by chance, and never adds."""

    @way.cached(ttl=100, jitter=0.2)
    def f() -> int:
        return 1

    monkeypatch.setattr(random, "random", lambda: chance)
    way.run(f())
    entry = way.run(f.peek())
    assert lifetime(entry) == pytest.approx(100 * (1 - 0.2 * chance))
    assert 80 <= lifetime(entry) <= 100.001


def test_jitter_leaves_never_alone(way: Way) -> None:
    """An entry that never ends is not shortened."""

    @way.cached(ttl=None, jitter=0.5)
    def f() -> int:
        return 1

    way.run(f())
    assert lifetime(way.run(f.peek())) == float("inf")


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": 1},
        {"jitter": -0.1},
        {"jitter": True},
        {"jitter": "0.1"},
        {"jitter": float("nan")},
        {"cache_if": True},
        {"on_store_error": "ignore"},
        {"on_store_error": None},
        {"wait_timeout": None},
        {"wait_timeout": -1},
        {"wait_timeout": "soon"},
        {"lease_ttl": 0},
        {"lease_ttl": None},
        {"lease_ttl": float("inf")},
        {"version": 0},
        {"version": -1},
        {"version": True},
        {"version": "2"},
        {"version": 1.0},
        {"version": None},
        {"version": 2**63},
        {"namespace": ""},
        {"namespace": "a b"},
        {"namespace": "a:b"},
        {"namespace": "é"},
        {"namespace": "n" * 201},
        {"namespace": None},
        {"namespace": 5},
        {"codec": "json5"},
        {"codec": object()},
    ],
    ids=steady_repr,
)
def test_what_cannot_be_meant_is_refused_at_decoration(options: dict[str, Any]) -> None:
    """Each wrong option is a ConfigurationError, which is a ValueError, when the function is decorated."""
    with pytest.raises(ConfigurationError) as caught:

        @versioned_cache(**{"namespace": "refused", "cache": Cache(), **options})
        def f() -> int:
            return 1

    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) > 20, "it says what to do"


def test_an_unknown_option_is_a_type_error() -> None:
    """As for any function."""
    with pytest.raises(TypeError, match="time_to_live"):
        versioned_cache(namespace="n", time_to_live=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="namespace"):
        versioned_cache()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        versioned_cache("n")  # type: ignore[call-arg]


def test_the_settings_are_shown(way: Way) -> None:
    """cache_parameters(): as declared, the cache's defaults filled in."""

    @way.cached("shown", version=3, ttl="5m", key="{x}", ignore=("db",), jitter=0.1, on_store_error="raise")
    def f(x: int, db: object = None) -> int:
        return x

    shown = f.cache_parameters()
    assert shown["namespace"] == "shown"
    assert shown["version"] == 3
    assert shown["ttl"] == "5m"
    assert shown["key"] == "{x}"
    assert shown["ignore"] == ("db",)
    assert shown["jitter"] == 0.1
    assert shown["on_store_error"] == "raise"
    assert shown["wait_timeout"] == 30
    assert shown["lease_ttl"] == 10
    shown["namespace"] = "changed"
    assert f.cache_parameters()["namespace"] == "shown"


# Waiting


def test_whoever_has_waited_long_enough_runs_the_function(sync_way: Way) -> None:
    """wait_timeout: the second caller gives up on the first one's load, and its own result is its own."""
    began, release = threading.Event(), threading.Event()
    runs = []

    @sync_way.cached(wait_timeout=0.05)
    def slow() -> int:
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert release.wait(30)
        return len(runs)

    first = threading.Thread(target=slow)
    first.start()
    assert began.wait(30)
    assert slow() == 2, "the first is still at it"
    release.set()
    first.join(30)
    assert len(runs) == 2


def test_with_no_wait_timeout_nobody_waits(sync_way: Way) -> None:
    """wait_timeout=0 is allowed: every caller runs the function at once."""
    began, release = threading.Event(), threading.Event()

    @sync_way.cached(wait_timeout=0)
    def slow(first: bool = True) -> int:
        if not began.is_set():
            began.set()
            assert release.wait(30)
        return 1

    thread = threading.Thread(target=slow)
    thread.start()
    assert began.wait(30)
    assert slow() == 1
    release.set()
    thread.join(30)


def test_a_load_holds_its_lease_for_the_declared_time(redis_way: Way, redis_client: Any) -> None:
    """lease_ttl is the lease key's limit in Redis while the function runs, and the key is gone when it has."""
    seen: list[int] = []

    @redis_way.cached(lease_ttl="5s")
    def f() -> int:
        seen.append(redis_client.pttl(f"{{{f.key()}}}:lease"))
        return 1

    redis_way.run(f())
    assert 0 < seen[0] <= 5000
    assert redis_client.pttl(f"{{{f.key()}}}:lease") == -2


# A store that fails


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(redis_server) as proxy:
        yield proxy


def failing(way_of: Callable[[str], Way], proxy: FaultyProxy, **options: Any) -> tuple[Way, Any, list[int]]:
    way = way_of(proxy.url)
    runs: list[int] = []

    @way.cached(**options)
    def f(x: int) -> list[int]:
        runs.append(x)
        return [x, len(runs)]

    return way, f, runs


def back(way: Way, f: Any, proxy: FaultyProxy) -> None:
    proxy.restore()

    def hits() -> bool:
        before = f.cache_info().hits
        way.run(f(99))
        return bool(f.cache_info().hits > before)

    wait_until(hits, "hits once the store is back", passing=(StoreError,))


def test_load_runs_the_function_when_the_store_fails(way_of: Callable[[str], Way], proxy: FaultyProxy) -> None:
    """The default: the failure changes what a call costs, never what it returns; then caching goes on by itself."""
    way, f, runs = failing(way_of, proxy)
    assert way.run(f(1)) == [1, 1]
    proxy.refuse()
    assert way.run(f(1)) == [1, 2]
    assert way.run(f(2)) == [2, 3]
    assert way.run(f.peek(1)) is None
    assert way.run(f.refresh(3)) == [3, 4]
    assert f.cache_info().store_errors > 0
    back(way, f, proxy)
    assert way.run(f(1)) == [1, 1], "the entry was there all along"
    assert runs.count(1) == 2


def test_raise_raises_when_the_store_fails(way_of: Callable[[str], Way], proxy: FaultyProxy) -> None:
    """on_store_error="raise": the function is not run, peek and refresh raise too."""
    way, f, runs = failing(way_of, proxy, on_store_error="raise")
    assert way.run(f(1)) == [1, 1]
    proxy.refuse()
    for what in (f, f.peek, f.refresh, f.max_age(5)):
        with pytest.raises(StoreUnavailable) as caught:
            way.run(what(1))
        assert str(proxy.port) in caught.value.store
    assert runs == [1]
    back(way, f, proxy)
    assert way.run(f(1)) == [1, 1]


def test_stale_serves_the_last_answer_when_the_store_fails(way_of: Callable[[str], Way], proxy: FaultyProxy) -> None:
    """on_store_error="stale": what this process had last, its own copy each; what it never had is loaded."""
    way, f, runs = failing(way_of, proxy, on_store_error="stale")
    assert way.run(f(1)) == [1, 1]
    proxy.refuse()
    first = way.run(f(1))
    assert first == [1, 1]
    first.append("mine")
    assert way.run(f(1)) == [1, 1]
    assert way.run(f(2)) == [2, 2]
    assert f.cache_info().stale == 2
    back(way, f, proxy)
    assert runs[:2] == [1, 2]


def test_what_was_invalidated_is_not_the_last_answer(way_of: Callable[[str], Way], proxy: FaultyProxy) -> None:
    """on_store_error="stale" never serves across an invalidation that this process made."""
    way, f, runs = failing(way_of, proxy, on_store_error="stale")
    for x in (1, 2):
        way.run(f(x))
    way.run(f.invalidate(1))
    proxy.refuse()
    assert way.run(f(1)) == [1, 3]
    assert way.run(f(2)) == [2, 2]
    proxy.restore()
    wait_until(lambda: way.run(f.invalidate_all()) or True, "the store to be back", passing=(Exception,))
    proxy.refuse()
    assert way.run(f(2)) == [2, 4]
    assert runs == [1, 2, 1, 2]


def test_set_is_loud_when_the_store_fails(way_of: Callable[[str], Way], proxy: FaultyProxy) -> None:
    """A value that was not stored must not be thought stored, whatever on_store_error says."""
    way, f, runs = failing(way_of, proxy)
    proxy.refuse()
    with pytest.raises(StoreError):
        way.run(f.set([1, 1], 1))
    assert runs == []
