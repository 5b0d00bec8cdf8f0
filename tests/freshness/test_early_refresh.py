"""Early refresh: somebody loads a hot entry before it ends, so that nobody waits when it does."""

from __future__ import annotations

import random
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, versioned_cache
from memover.engine.reading import early
from tests.servers import INDEX, run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


class Header:
    """What `early` looks at."""

    def __init__(self, created_at: float, fresh_until: float, load_time: float) -> None:
        self.created_at = created_at
        self.fresh_until = fresh_until
        self.load_time = load_time


def test_the_lead_grows_with_the_load_and_is_capped() -> None:
    """XFetch: delta * beta * -log(chance), at most half the life; never for an entry that does not end."""
    slow, quick = Header(0, 100, 10), Header(0, 100, 0.1)
    chance = 0.05  # -log is about 3
    assert not early(slow, 69, 1.0, chance)  # type: ignore[arg-type]
    assert early(slow, 71, 1.0, chance)  # type: ignore[arg-type]
    assert not early(quick, 99, 1.0, chance)  # type: ignore[arg-type]
    assert not early(slow, 49, 99.0, 1e-12)  # type: ignore[arg-type]
    assert early(slow, 51, 99.0, 1e-12)  # type: ignore[arg-type]
    assert not early(Header(0, float("inf"), 1e9), 1e12, 99.0, 1e-12)  # type: ignore[arg-type]
    assert not early(slow, 99.9, 1.0, 1.0), "nobody is elected with a chance of 1"  # type: ignore[arg-type]
    assert early(slow, 50.5, 99.0, 0.0), "a chance of 0 is no error"  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0, -1, float("nan"), "1", 100, None])
def test_a_beta_that_cannot_be_meant_is_refused(beta: Any) -> None:
    """True, or a number above 0."""
    with pytest.raises(ConfigurationError, match="early_refresh"):
        versioned_cache(namespace="n", early_refresh=beta)


def test_the_elected_refresh_behind_and_everybody_hits(
    way: Way, clock: Any, settle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry in hand is served; the next one is there before it ends."""
    runs: list[int] = []

    @way.cached(ttl=60, early_refresh=99)
    def f() -> int:
        runs.append(1)
        return len(runs)

    chance = [1.0]
    monkeypatch.setattr(random, "random", lambda: chance[0])
    assert way.run(f()) == 1
    clock.forward(31)
    assert way.run(f()) == 1
    settle(way)
    assert len(runs) == 1, "not elected"
    clock.forward(27.5)
    chance[0] = 1e-12
    assert way.run(f()) == 1
    settle(way)
    assert len(runs) == 2
    clock.forward(1)
    chance[0] = 1.0
    assert way.run(f()) == 2
    assert f.cache_info().misses == 1


def test_the_elected_of_one_process_are_one(
    sync_way: Way, clock: Any, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty callers that are all elected begin one load."""
    go_on, runs = threading.Event(), []

    monkeypatch.setattr(random, "random", lambda: 1e-12)

    @sync_way.cached(ttl=60, early_refresh=99)
    def f() -> int:
        runs.append(1)
        if len(runs) > 1:
            assert go_on.wait(30)
        return len(runs)

    f()
    clock.forward(58.5)
    for caller in [start(f) for _ in range(50)]:
        assert caller.result(30) == 1
    go_on.set()
    sync_way.cache.close()
    assert len(runs) == 2


def test_a_refresh_behind_never_brings_back_what_was_invalidated(
    sync_way: Way, clock: Any, start: Callable[..., Any]
) -> None:
    """An invalidation while it runs: what it stores is of before, and is not served."""
    began, go_on = threading.Event(), threading.Event()
    value, runs = [1], []

    @sync_way.cached(ttl=10, stale_while_revalidate=100)
    def f() -> int:
        found = value[0]
        runs.append(1)
        if len(runs) == 2:
            began.set()
            assert go_on.wait(30)
        return found

    for invalidate in (f.invalidate, f.invalidate_all):
        runs.clear()
        began.clear()
        go_on.clear()
        value[0] = 1
        f()
        clock.forward(11)
        assert f() == 1
        assert began.wait(30)
        value[0] = 2
        invalidate()
        after = start(f)
        assert after.result(30) == 2
        go_on.set()
        sync_way.cache.close()
        assert f() == 2
        f.invalidate()


LOAD_SECONDS = 0.05


def hot(url: str, prefix: str, index: int) -> dict[str, Any]:
    """In one of many processes: fifty threads that call a hot function until it has ended several times."""
    cache = Cache(url, prefix=prefix, socket_timeout=10)
    loads: list[tuple[float, float]] = []

    @versioned_cache(namespace="hot", cache=cache, ttl=1.5, early_refresh=3.0, stale_while_revalidate=0)
    def f() -> float:
        began = time.monotonic()
        time.sleep(LOAD_SECONDS)
        loads.append((began, time.monotonic()))
        return began

    f()
    before = f.cache_info()
    until = time.monotonic() + 4.0

    def caller() -> None:
        while time.monotonic() < until:
            f()

    threads = [threading.Thread(target=caller) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = f.cache_info()
    cache.close()
    return {
        "loads": loads,
        "hits": after.hits - before.hits,
        "misses": after.misses - before.misses,
        "errors": after.store_errors,
    }


@pytest.mark.slow
def test_nobody_waits_at_the_end_of_a_hot_entry(redis_url: str, prefix: str) -> None:
    """8 processes of 50 callers each: one load at a time, and every call but the first is a hit."""
    found = run_python(hot, redis_url, prefix, INDEX, n=8, timeout=120)
    loads = sorted(load for one in found for load in one["loads"])
    assert sum(one["errors"] for one in found) == 0
    assert len(loads) >= 3, "it ended more than once"
    assert all(end <= begin for (_, end), (begin, _) in pairwise(loads)), "two loads at a time"
    assert sum(one["hits"] for one in found) > 1000
    assert sum(one["misses"] for one in found) == 0
