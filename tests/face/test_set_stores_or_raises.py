"""`f.set` stores, or says that it has not: also when its lease is lost between its two steps."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, StoreError
from tests.face.ways import url_of
from tests.servers import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.face.ways import Way
    from tests.servers import RedisServer


@pytest.mark.parametrize("times", [1, 1000], ids=["once", "again and again"])
def test_a_set_whose_lease_was_lost_is_repeated_or_raises(
    times: int, start_redis: Callable[..., RedisServer], way_of: Callable[[str], Way]
) -> None:
    """Evicted or expired before the value came: it is stored in the end, or the caller is told."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = way_of(proxy.url)
        f = way.cached()(lambda x: ["loaded"])
        way.run(f(1))
        lease = f"{{{f.key(1)}}}:lease"
        stop = threading.Event()
        lost = 0

        def lose() -> None:
            nonlocal lost
            with server.client() as client:
                while not stop.is_set() and lost < times:
                    lost += client.delete(lease)

        thread = threading.Thread(target=lose)
        thread.start()
        proxy.delay(0.05)  # an answer takes longer than it takes to see the lease
        raised: list[BaseException] = []
        try:
            way.run(f.set(["set"], 1))
        except StoreError as error:
            raised.append(error)
        finally:
            stop.set()
            thread.join(30)
            proxy.restore()
        if lost == 0:
            return  # its two steps are one: nothing can come between
        entry: Any = way.run(f.peek(1))
        stored = entry is not None and entry.value == ["set"]
        assert stored or raised, "set() returned as if it had stored"


def test_a_set_that_loses_to_an_invalidation_returns(redis_url: str, prefix: str) -> None:
    """Whoever invalidates while a value is being set comes after it: that is no failure to store."""
    with Cache(redis_url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10) as cache:

        @cache.versioned(namespace="f")
        def f(x: int) -> list[str]:
            return ["loaded"]

        wrong: list[Any] = []
        done = threading.Event()

        def invalidate() -> None:
            while not done.is_set():
                f.invalidate(1)

        thread = threading.Thread(target=invalidate)
        thread.start()
        for _ in range(100):
            try:
                f.set(["set"], 1)
            except StoreError as error:
                wrong.append(error)
        done.set()
        thread.join(30)
        # The two cannot always be told apart: a set that gives up after many attempts may say so.
        assert len(wrong) < 50
        f.set(["set"], 1)
        assert f(1) == ["set"]


def lease_loser(url: str, cache: Cache, key: str, request: pytest.FixtureRequest) -> Callable[[], object]:
    """What takes the lease on an entry away, as eviction or its end would."""
    if url.startswith("memory:"):
        leases: Any = cache._state.store
        clear: Callable[[], object] = leases._leases.clear
        return clear
    if url.startswith("sqlite:"):

        def delete() -> None:
            with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as file, file:
                assert file.execute("DELETE FROM leases").rowcount == 1

        return delete
    client = request.getfixturevalue("redis_cluster" if "cluster" in url else "redis_server").client()
    request.addfinalizer(client.close)
    return lambda: client.delete(f"{{{key}}}:lease")


Between = Callable[[int, Callable[[], object]], object]


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
def between_the_steps(
    request: pytest.FixtureRequest, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Any, Between], Any]]:
    """A function on each store whose `set` has its two steps held apart: between them, something is called with the number of
    the attempt and with what takes the lease away."""
    caches: list[Cache] = []

    def make(load: Any, between: Between) -> Any:
        url = url_of(request, request.param)
        cache = Cache(url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10)
        caches.append(cache)
        f: Any = cache.versioned(namespace="f")(load)
        store: Any = f.cache._state.store
        plain = store.store

        def set_(value: Any) -> None:
            attempts = count(1)

            def held_apart(entry: Any) -> Any:
                with monkeypatch.context() as patch:
                    patch.setattr(store, "store", plain)
                    between(next(attempts), lease_loser(url, cache, f.key(1), request))
                return plain(entry)

            with monkeypatch.context() as patch:
                patch.setattr(store, "store", held_apart)
                f.set(value, 1)

        f.set_held_apart = set_
        return f

    yield make
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("there", [False, True], ids=["no entry before", "an entry before"])
def test_a_lost_lease_is_taken_again(there: bool, between_the_steps: Callable[[Any, Between], Any]) -> None:
    """Whether or not there was an entry before."""
    f = between_the_steps(lambda x: ["loaded"], lambda attempt, lose: attempt == 1 and lose())
    if there:
        f(1)
    f.set_held_apart(["set"])
    entry = f.peek(1)
    assert entry is not None and entry.value == ["set"]
    assert f(1) == f(1) == ["set"]
    f.invalidate(1)
    assert f(1) == ["loaded"]


@pytest.mark.parametrize("there", [False, True], ids=["no entry before", "an entry before"])
def test_a_lease_that_is_lost_every_time_raises(there: bool, between_the_steps: Callable[[Any, Between], Any]) -> None:
    """The caller is told that nothing was stored."""
    f = between_the_steps(lambda x: ["loaded"], lambda attempt, lose: lose())
    if there:
        f(1)
    with pytest.raises(StoreError, match="not stored"):
        f.set_held_apart(["set"])
    assert f(1) == ["loaded"]


@pytest.mark.parametrize("what", ["call", "namespace"])
def test_what_is_set_does_not_come_back_after_an_invalidation(
    what: str, between_the_steps: Callable[[Any, Between], Any]
) -> None:
    """The lease is lost and the call is invalidated: nothing is stored, and that is no failure."""

    def both(attempt: int, lose: Callable[[], object]) -> None:
        assert attempt == 1
        lose()
        f.invalidate(1) if what == "call" else f.invalidate_all()

    f = between_the_steps(lambda x: ["loaded"], both)
    f(1)
    f.set_held_apart(["set"])
    assert f.peek(1) is None


def test_a_set_that_another_followed_is_superseded(between_the_steps: Callable[[Any, Between], Any]) -> None:
    """The value that came later stays."""

    def another(attempt: int, lose: Callable[[], object]) -> None:
        if attempt == 1:
            lose()
            f.set(["later"], 1)

    f = between_the_steps(lambda x: ["loaded"], another)
    f.set_held_apart(["set"])
    assert f(1) == ["later"]


@pytest.mark.parametrize("fails", [False, True], ids=["refresh succeeds", "refresh fails"])
def test_what_is_to_be_replaced_is_gone_though_a_refresh_that_came_between_fails(
    fails: bool, between_the_steps: Callable[[Any, Between], Any]
) -> None:
    """`set` returns while the refresh that superseded it is under way: whatever becomes of that, the older value is not served."""
    began, go = threading.Event(), threading.Event()
    answers: list[str] = ["older"]

    def load(x: int) -> list[str]:
        if len(answers) == 1:
            return answers
        began.set()
        assert go.wait(30)
        if fails:
            raise LookupError
        return ["refreshed"]

    def refresh(attempt: int, lose: Callable[[], object]) -> None:
        answers.append("set")
        thread.start()
        assert began.wait(30)

    def refreshed() -> None:
        with contextlib.suppress(LookupError):
            f.refresh(1)

    thread = threading.Thread(target=refreshed)
    f = between_the_steps(load, refresh)
    assert f(1) == ["older"]
    try:
        f.set_held_apart(["set"])
        assert f.peek(1) is None or f.peek(1).value != ["older"]
    finally:
        go.set()
        thread.join(30)
    entry = f.peek(1)
    assert entry is None or entry.value != ["older"]


def test_tokens_that_were_lost_with_the_lease_are_no_invalidation(prefix: str, redis_server: RedisServer) -> None:
    """Nobody can say whether the call was invalidated before they were lost, so the caller is told."""
    with Cache(redis_server.url, prefix=prefix, socket_timeout=10, socket_connect_timeout=10) as cache:
        f: Any = cache.versioned(namespace="f")(lambda x: ["loaded"])
        store: Any = cache._state.store
        plain = store.store

        def all_lost(entry: Any) -> Any:
            with redis_server.client() as client:
                client.delete(*client.keys(f"*{prefix}:*"))
            return plain(entry)

        store.store = all_lost
        with pytest.raises(StoreError, match="not stored"):
            f.set(["set"], 1)
