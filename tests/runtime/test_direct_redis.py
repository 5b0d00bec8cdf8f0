"""A plain miss that is written out, and the flow that says the same: one is held to the other, event by event."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, NotCached, depends_on
from memover.errors import InvalidationFailed, StoreUnavailable
from memover.runtime import direct
from memover.stores.redis import RedisStore
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer


class Missing(Exception):
    """What a function may raise."""


class Interrupted(BaseException):
    """What a signal handler may raise."""


def not_cached(x: int) -> Any:
    """A function that asks not to be cached this once."""
    return NotCached(x)


Told = dict[str, Any]


class Way:
    """One way of missing: functions of a cache of its own, and what was seen of them."""

    def __init__(self, server: RedisServer, prefix: str, **options: Any) -> None:
        self.cache = Cache(server.url, prefix=prefix, **options)
        self.server = server
        self.prefix = prefix

    def told(self, function: Any, *calls: Callable[[], Any], cold: bool = False) -> Told:
        """What each call comes to, the commands, the counters, and what is left in the server. There is a generation, unless
        it is `cold`."""
        if not cold:
            function.invalidate_all()
        results: list[Any] = []
        with self.server.recording() as commands:
            for call in calls:
                try:
                    results.append(call())
                except BaseException as error:
                    results.append(repr(error))
            wait_until(lambda: not self.cache._state.leases, "every lease is given back")
        assert not len(self.cache._state.flights), "a load that is over is found by nobody"
        info = function.cache_info()._asdict()
        with self.server.client() as client:
            keys = [key for key in client.keys(f"*{self.prefix}*") if not (client.get(key) or b"").startswith(b"F ")]
            kinds = sorted(
                key.replace(self.prefix.encode(), b"") for key in keys
            )  # without marks of failure, which end by themselves
        return {"results": results, "commands": list(commands), "info": timeless(info), "left": kinds}


def timeless(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if "seconds" not in name}


@pytest.fixture
def both(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`both(work)`: `work(way)` says the same of either way, and the first one has really been the direct one."""

    def compare(work: Callable[[Way], Told], server: RedisServer = redis_server, **options: Any) -> Told:
        taken: list[int] = []
        real = direct.FramePresence

        def noted(*args: Any) -> Any:
            taken.append(1)
            return real(1)

        with monkeypatch.context() as patched:
            patched.setattr(direct, "FramePresence", noted)
            one = work(Way(server, f"{prefix}a", **options))
        assert taken, "the miss was not the direct one"
        with monkeypatch.context() as patched:
            patched.setattr(RedisStore, "direct", lambda self: None)
            other = work(Way(server, f"{prefix}b", **options))
        assert one == other
        return one

    return compare


def test_a_result_is_stored(both: Any) -> None:
    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="n", version=3, ttl=60)
        def f(x: int) -> dict[str, int]:
            return {"x": x}

        f(0)
        return way.told(f, lambda: f(1), lambda: f(1), lambda: f(2))

    told = both(work)
    assert told["results"] == [{"x": 1}, {"x": 1}, {"x": 2}]
    assert told["commands"] == ["MGET", "EVALSHA", "EVALSHA", "MGET", "MGET", "EVALSHA", "EVALSHA"]
    assert (told["info"]["misses"], told["info"]["hits"], told["info"]["stores"], told["info"]["loads"]) == (3, 1, 3, 3)


@pytest.mark.parametrize("options", [{}, {"cache_errors": Missing, "error_ttl": 60}], ids=["raised", "cached"])
@pytest.mark.parametrize("error", [Missing, Interrupted], ids=lambda error: error.__name__)
def test_an_error_is_raised(both: Any, error: type[BaseException], options: dict[str, Any]) -> None:
    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="n", ttl=60, **options)
        def f(x: int) -> int:
            raise error(x)

        return way.told(f, lambda: f(1), lambda: f(1))

    told = both(work)
    assert told["results"] == [f"{error.__name__}(1)"] * 2
    assert told["info"]["loads"] == (1 if options and error is Missing else 2)


@pytest.mark.parametrize(
    "function",
    [
        not_cached,
        lambda x: object,
        lambda x: (each for each in (1, 2)),
        lambda x: "x" * 2_000_000,
    ],
    ids=["not cached", "a class", "a generator", "too large"],
)
def test_a_result_of_another_kind(both: Any, function: Any) -> None:
    def work(way: Way) -> Told:
        f: Any = way.cache.versioned(namespace="n", ttl=60)(function)
        return way.told(f, lambda: str(f(1))[:50], lambda: str(f(1))[:50])

    both(work, max_entry_bytes=1_000_000, compress_from=None)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": lambda result, call: 0},
        {"ttl": lambda result, call: 60 / call.args[0]},
        {"cache_if": lambda result, call: False},
        {"tags": ("all", "x:{x}")},
        {"on_store_error": "stale"},
        {"track_dependencies": False},
    ],
    ids=["no life", "a ttl that raises", "not to be cached", "tags", "last answers", "untracked"],
)
def test_a_function_with_options(both: Any, options: dict[str, Any]) -> None:
    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="n", **{"ttl": 60, **options})
        def f(x: int) -> int:
            return x

        return way.told(f, lambda: f(0), lambda: f(1), lambda: f(1), lambda: f.invalidate(1), lambda: f(1))

    both(work)


def test_tags_that_a_load_declares(both: Any) -> None:
    """Through a helper, so that nothing says before the first load that there may be some."""

    def helper() -> None:
        depends_on("tag")

    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="n", ttl=60)
        def f(x: int) -> int:
            helper()
            return x

        return way.told(
            f, lambda: f(1), lambda: f(1), lambda: way.cache.invalidate_tags("tag"), lambda: f(1), lambda: f(1)
        )

    both(work)


def test_a_load_that_uses_another(both: Any) -> None:
    """The outer entry carries the inner one's tokens."""

    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="inner", ttl=60)
        def inner(x: int) -> int:
            return x

        @way.cache.versioned(namespace="outer", ttl=60)
        def outer(x: int) -> int:
            return inner(x) + 1

        return way.told(outer, lambda: outer(1), lambda: outer(1), lambda: inner.invalidate(1), lambda: outer(1))

    assert both(work)["info"]["loads"] == 2


def test_a_recursive_function(both: Any) -> None:
    def work(way: Way) -> Told:
        @way.cache.versioned(namespace="n", ttl=60)
        def f(x: int) -> int:
            return x and f(x - 1) + 1

        return way.told(f, lambda: f(5), lambda: f(5), lambda: f(3))

    assert both(work)["results"] == [5, 5, 3]


def test_another_process_has_the_lease(both: Any) -> None:
    """Its result is waited for."""

    def work(way: Way) -> Told:
        begun, go = threading.Event(), threading.Event()
        other = Cache(way.server.url, prefix=way.prefix)

        def loaded(x: int) -> int:
            begun.set()
            assert go.wait(30)
            return x

        def scripts() -> int:
            calls: int = way.server.info("commandstats")["cmdstat_evalsha"]["calls"]
            return calls

        def release() -> None:
            wait_until(lambda: scripts() > before, "it asks for the lease")
            go.set()

        warm: Any = other.versioned(namespace="warm", ttl=60)(lambda x: x)
        warm(1), warm(2)  # its scripts are known by their names
        slow: Any = other.versioned(namespace="n", ttl=60)(loaded)
        f: Any = way.cache.versioned(namespace="n", ttl=60)(loaded)
        loads = threading.Thread(target=slow, args=(1,))
        loads.start()
        assert begun.wait(30)
        before = scripts()
        releases = threading.Thread(target=release)
        releases.start()
        told = way.told(f, lambda: f(1), cold=True)
        loads.join(30)
        releases.join(30)
        del told["commands"]  # how often it looks is a matter of time
        return told

    told = both(work)
    assert (told["info"]["waits"], told["info"]["loads"]) == (1, 0)


def test_an_entry_that_came_between_the_read_and_the_lease(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(way: Way) -> Told:
        other = Cache(way.server.url, prefix=way.prefix)

        def load(x: int) -> int:
            return x

        theirs: Any = other.versioned(namespace="n", ttl=60)(load)
        ours: Any = way.cache.versioned(namespace="n", ttl=60)(load)
        ours(0)
        fetch = RedisStore.fetch

        def overtaken(self: RedisStore, key: Any) -> Any:
            seen = fetch(self, key)
            if seen.raw is None and self is way.cache._state.store:
                theirs(1)
                theirs.cache_info()
            return seen

        with monkeypatch.context() as patched:
            patched.setattr(RedisStore, "fetch", overtaken)
            fresh: Any = way.cache.versioned(namespace="n", version=1, ttl=60)(load)
            return way.told(fresh, lambda: fresh(1))

    told = both(work)
    assert told["info"]["loads"] == 0


def test_an_invalidation_that_fails_during_the_load(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is owed, so what was loaded before it is not stored, although the server would take it."""

    def work(way: Way) -> Told:
        def unanswered(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("no answer", store=way.server.url)

        @way.cache.versioned(namespace="n", ttl=60)
        def f(x: int) -> int:
            with monkeypatch.context() as patched:
                patched.setattr(RedisStore, "bump", unanswered)
                with pytest.raises(InvalidationFailed):
                    f.invalidate_all()
                assert way.cache._state.witness.owed
            return x

        told = way.told(f, lambda: f(1))
        del told["commands"], told["info"]["invalidations"]  # it is repeated behind the call
        return told

    told = both(work)
    assert told["info"]["stores"] == 0
    assert not [key for key in told["left"] if b":n:" in key and b"lease" not in key]


@pytest.mark.parametrize("at", ["acquire", "store"])
def test_a_server_that_goes(both: Any, start_redis: Any, at: str) -> None:
    """The function's result is the caller's; the failure is counted once."""
    server = start_redis()

    def work(way: Way) -> Told:
        server.restart() if not server.alive else None
        cache = way.cache

        @cache.versioned(namespace="n", ttl=60)
        def f(x: int) -> int:
            if x == 1 and at == "store":
                server.kill()
            return x

        f(0)
        f.cache_info()
        if at == "acquire":
            fetch = cache._state.store.fetch

            def last(key: Any) -> Any:
                seen = fetch(key)
                server.kill()
                return seen

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(RedisStore, "fetch", lambda self, key: last(key))
                g: Any = cache.versioned(namespace="n", ttl=60)(f.__wrapped__)
                value = g(1)
                info = g.cache_info()
        else:
            value, info = f(1), f.cache_info()
        return {"value": value, "info": timeless(info._asdict())}

    told = both(work, server)
    assert told["value"] == 1
    assert told["info"]["store_errors"] == 1


def test_a_server_that_is_full(both: Any, start_redis: Any) -> None:
    """The entry is refused, the failure counted, and the lease given back."""
    server = start_redis()

    def work(way: Way) -> Told:
        with server.client() as client:
            client.config_set("maxmemory", 0)

            @way.cache.versioned(namespace="n", ttl=60)
            def f(x: int) -> int:
                if x == 1:
                    client.config_set("maxmemory", 1)
                return x

            f(0)
            return way.told(f, lambda: f(1))

    told = both(work, server)
    assert told["results"] == [1]
    assert told["info"]["store_errors"] > 0
    assert not [key for key in told["left"] if b"lease" in key]
