"""Errors that are results, results that are not to be kept, and how long either lasts."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import NotCached, UnencodableValue
from memover.codec.envelope import read_header
from tests.face.ways import waiting_threads
from tests.servers import as_another_process, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


class NotFound(Exception):
    """An error with arguments of its own."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(what, status)
        self.what = what
        self.status = status


class Gone(NotFound):
    """A more particular one."""


def failing(way: Way, error: Callable[[], Exception], **options: Any) -> tuple[Any, list[int]]:
    runs: list[int] = []

    @way.cached(**options)
    def f() -> int:
        runs.append(1)
        raise error()

    return f, runs


def test_a_listed_error_is_a_result(way: Way) -> None:
    """Raised again in kind, with its arguments, a new one each time; the function is not run."""
    f, runs = failing(way, lambda: Gone("page", 410), cache_errors=NotFound)
    caught = []
    for _ in range(3):
        with pytest.raises(NotFound) as info:
            way.run(f())
        caught.append(info.value)
    assert runs == [1]
    assert [(type(e), e.args, e.what, e.status) for e in caught] == [(Gone, ("page", 410), "page", 410)] * 3
    assert len({id(e) for e in caught}) == 3
    assert f.cache_info().hits == 2
    assert isinstance(way.run(f.peek()).value, Gone)


def test_an_error_that_is_not_listed_is_not_kept(way: Way) -> None:
    """The next call runs the function again."""
    f, runs = failing(way, lambda: KeyError("x"), cache_errors=(NotFound, ValueError))
    for _ in range(3):
        with pytest.raises(KeyError):
            way.run(f())
    assert len(runs) == 3
    assert way.run(f.peek()) is None


def test_a_cached_error_lasts_for_error_ttl(way: Way, clock: Any) -> None:
    """10 s unless said otherwise; ttl and windows are for values."""
    f, runs = failing(way, lambda: NotFound("x", 1), cache_errors=NotFound, ttl=1000, stale_if_error=1000)
    g, _ = failing(way, lambda: NotFound("x", 1), cache_errors=NotFound, error_ttl="1m")
    for h in (f, g):
        with pytest.raises(NotFound):
            way.run(h())
    for h, seconds in ((f, 10), (g, 60)):
        entry = way.run(h.peek())
        assert entry.fresh_until - entry.created_at == pytest.approx(seconds)
        assert entry.usable_until == entry.fresh_until
    clock.forward(10.5)
    with pytest.raises(NotFound):
        way.run(f())
    assert len(runs) == 2


def test_an_invalidation_ends_a_cached_error(way: Way) -> None:
    """As it ends a value."""
    missing = [True]

    @way.cached(cache_errors=NotFound, tags="t")
    def f() -> int:
        if missing[0]:
            raise NotFound("x", 1)
        return 7

    for change in (f.invalidate, f.invalidate_all):
        missing[0] = True
        way.run(f.invalidate())
        with pytest.raises(NotFound):
            way.run(f())
        missing[0] = False
        with pytest.raises(NotFound):
            way.run(f())
        way.run(change())
        assert way.run(f()) == 7


def test_an_error_that_cannot_be_kept_is_raised_as_it_is(way: Way) -> None:
    """The function's own error is never replaced by one about storing it."""

    class Handle(Exception):
        def __init__(self) -> None:
            super().__init__(threading.Lock())

    f, runs = failing(way, Handle, cache_errors=Handle)
    for _ in range(2):
        with pytest.raises(Handle):
            way.run(f())
    assert len(runs) == 2

    @way.cached()
    def g() -> Any:
        return threading.Lock()

    with pytest.raises(UnencodableValue):
        way.run(g())


def test_an_error_of_a_class_that_is_gone_is_a_miss(redis_way: Way) -> None:
    """Another process listed it, or it was renamed: its bytes are damage here, counted, and the function runs."""

    class Local(Exception):
        pass

    writer, _ = failing(redis_way, lambda: Local("x"), namespace="renamed", cache_errors=Local)
    with pytest.raises(Local):
        redis_way.run(writer())
    as_another_process()
    reader = redis_way.cached("renamed", cache=redis_way.new_cache(), cache_errors=NotFound)(writer.__wrapped__)
    with pytest.raises(Local):
        redis_way.run(reader())
    assert reader.cache_info().damaged == 1
    assert reader.cache_info().loads == 1


def test_listed_errors_come_out_of_map(way: Way) -> None:
    """In their places, loaded once."""
    runs: list[int] = []

    @way.cached(cache_errors=NotFound)
    def f(x: int) -> int:
        runs.append(x)
        if x % 2:
            raise NotFound("odd", x)
        return x

    for _ in range(2):
        found = way.run(f.map(range(4), return_exceptions=True))
        assert [getattr(one, "status", one) for one in found] == [0, 1, 2, 3]
        assert isinstance(found[1], NotFound)
    assert sorted(runs) == [0, 1, 2, 3]
    assert tuple(way.run(f.warm(range(4)))) == (2, 0, 2)


def test_not_cached_opts_out_for_one_call(way: Way) -> None:
    """The caller gets the value inside, and the next call runs the function."""
    runs: list[int] = []

    @way.cached()
    def f(x: int) -> Any:
        runs.append(x)
        return NotCached([x]) if len(runs) < 3 else [x]

    assert [way.run(f(1)) for _ in range(4)] == [[1]] * 4
    assert len(runs) == 3
    runs.clear()
    assert way.run(f.refresh(2)) == [2]
    assert way.run(f.peek(2)) is None


def test_a_not_cached_result_is_opened_for_whoever_runs_the_function(way: Way) -> None:
    """With caching turned off and uncached, by itself and in a batch, the caller gets the value inside."""

    @way.cached()
    def f(x: int) -> Any:
        return NotCached([x])

    with f.cache.disabled():
        off = [way.run(f(1)), way.run(f.refresh(1)), *way.run(f.map([1]))]
    assert [*off, way.run(f.bypass(1))] == [[1]] * 4


def test_a_not_cached_result_is_opened_inside_a_load_of_its_own(sync_way: Way) -> None:
    """A function that calls itself with the same key is run, and gets the value inside."""

    @sync_way.cached(ignore=("again",))
    def f(x: int, again: bool = True) -> Any:
        return [f(x, False)] if again else NotCached(x)

    assert f(1) == [1]


def test_those_who_wait_for_a_not_cached_result_have_it(sync_way: Way, start: Callable[..., Any]) -> None:
    """One load for all who were there; each with a copy of its own."""
    began, go_on = threading.Event(), threading.Event()
    runs: list[int] = []

    @sync_way.cached()
    def f() -> Any:
        runs.append(1)
        began.set()
        assert go_on.wait(30)
        return NotCached([1])

    first = start(f)
    assert began.wait(30)
    others = [start(f) for _ in range(3)]
    wait_until(lambda: waiting_threads() == 3, "the others to wait")
    go_on.set()
    found = [first.result(30), *(other.result(30) for other in others)]
    assert found == [[1]] * 4
    assert len({id(one) for one in found}) == 4
    assert runs == [1]


def test_a_ttl_callable_and_jitter_work_together(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter shortens what the callable says, within the bounds; windows come after."""
    f = way.cached(ttl=lambda result, call: result, jitter=0.5, stale_while_revalidate=7)(lambda x: x)
    monkeypatch.setattr(random, "random", lambda: 0.5)
    for ttl in (10, 100):
        way.run(f(ttl))
        entry = way.run(f.peek(ttl))
        assert entry.fresh_until - entry.created_at == pytest.approx(ttl * 0.75)
        assert entry.usable_until - entry.fresh_until == pytest.approx(7)


def test_a_cached_error_says_so_in_its_header(redis_way: Way, redis_client: Any) -> None:
    """Kind 1, so that readers of bytes need not decode it."""
    f, _ = failing(redis_way, lambda: NotFound("x", 1), cache_errors=NotFound)
    with pytest.raises(NotFound):
        redis_way.run(f())
    assert read_header(redis_client.get(f.key()), f.key().encode()).kind == 1
