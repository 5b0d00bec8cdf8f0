"""P3: with a near cache, P1 and P2 hold for calls started more than `max_staleness` later, and at once in the invalidating
process. (Every fault: tests/near/test_falling.py; every read of long histories: tests/near/test_histories.py.)"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.clocks import boottime
from tests.near import mutants
from tests.near.actors import SILENT
from tests.promises.actors import change, invalidate, source
from tests.servers import FaultyProxy, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.face.ways import Way
    from tests.servers import RedisServer

HOW = pytest.mark.parametrize("how", ["key", "tag", "namespace", "namespace by name"])
BOUND = 1.0


def near(way: Way, load: Callable[[int], Any], bound: float = BOUND) -> Any:
    def answer(x: int) -> Any:
        return load(x)

    return way.cached(namespace="answers", tags=("x:{x}",), near=bound)(answer)


def comes_near(way: Way, f: Any) -> None:
    def is_near() -> bool:
        before = f.cache_info().near_hits
        way.run(f(1))
        return bool(f.cache_info().near_hits > before)

    wait_until(is_near, "a near hit", interval=0.01)


@pytest.fixture
def silent(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis(**SILENT)


@HOW
def test_another_process_s_invalidation_counts_within_the_bound(
    how: str, silent: RedisServer, way_of: Callable[[str], Way]
) -> None:
    """Without a single message: a call that begins `max_staleness` after the invalidation returned has the new value."""
    way = way_of(silent.url)
    f = near(way, source(silent.url, way.prefix))
    way.run(f(1))
    comes_near(way, f)
    new = change(silent.url, way.prefix)
    run_python(invalidate, silent.url, way.prefix, how)
    returned = began = boottime()
    while way.run(f(1)) != new:
        assert began - returned <= BOUND, "an old answer, to a call that began later than that"
        began = boottime()
    comes_near(way, f)
    assert way.run(f(1)) == new


@HOW
def test_the_invalidating_process_sees_it_at_once(how: str, silent: RedisServer, way_of: Callable[[str], Way]) -> None:
    """In every thread, with a bound of ten minutes and no message."""
    way = way_of(silent.url)
    f = near(way, source(silent.url, way.prefix), 600)
    way.run(f(1))
    comes_near(way, f)
    new = change(silent.url, way.prefix)
    if how == "key":
        way.run(f.invalidate(1))
    elif how == "tag":
        way.cache.invalidate_tags("x:1")
    elif how == "namespace":
        way.run(f.invalidate_all())
    else:
        way.cache.invalidate_namespace("answers")
    assert way.run(f(1)) == new
    if not way.is_async:
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(f(1))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [new] * 4


def late_answer(server: RedisServer, way: Way, bound: float) -> float:
    """A beat was answered before an invalidation, and the answer comes late: how old the last old answer is, in seconds
    after the invalidation returned; at most twice the bound is looked at."""
    other = way.new_cache()
    with (
        FaultyProxy(server) as proxy,
        Cache(proxy.url, prefix=way.prefix, socket_timeout=0.2, socket_connect_timeout=0.2) as cache,
    ):
        way.cache = cache
        f = near(way, source(server.url, way.prefix), bound)
        way.run(f(1))
        comes_near(way, f)
        tier = cache._state.heart.tier
        proxy.half_open()
        held = proxy.bytes_held
        wait_until(
            lambda: way.run(f(1)) is not None and proxy.bytes_held > held, "the answer to the next beat, held up"
        )
        new = change(server.url, way.prefix)
        tier.moved = lambda names: None  # `other` stands for another process
        other.invalidate_namespace("answers")
        del tier.moved
        returned = boottime()
        wait_until(lambda: boottime() - returned >= bound * 0.6, "an answer that is nearly too late")
        fence = tier.fence
        proxy.restore()
        wait_until(lambda: tier.fence > fence, "the late answer", interval=0.0005)
        proxy.partition()
        last = 0.0
        while boottime() - returned < 2 * bound:
            began = boottime()
            if way.run(f(1)) != new:
                last = began - returned
            time.sleep(0.005)
        return last


def test_the_fence_is_when_the_question_was_sent(silent: RedisServer, way_of: Callable[[str], Way]) -> None:
    """A late answer is worth no more than its question."""
    bound = 2.0
    assert late_answer(silent, way_of(silent.url), bound) <= bound


# -- the tests see a build that is broken ---------------------------------------------------------------------------------------


@pytest.fixture
def broken(request: pytest.FixtureRequest) -> Iterator[None]:
    undo = getattr(mutants, request.param)()
    yield
    undo()


@pytest.mark.parametrize("broken", ["fence_from_receive_time"], indirect=True)
def test_a_fence_from_receive_time_is_seen(broken: None, silent: RedisServer, way_of: Callable[[str], Way]) -> None:
    bound = 2.0
    assert late_answer(silent, way_of(silent.url), bound) > bound


@pytest.mark.parametrize("broken", ["own_invalidation_by_message_only"], indirect=True)
def test_an_own_invalidation_by_message_only_is_seen(
    broken: None, silent: RedisServer, way_of: Callable[[str], Way]
) -> None:
    with pytest.raises(AssertionError):
        test_the_invalidating_process_sees_it_at_once("namespace", silent, way_of)


@pytest.mark.parametrize("broken", ["without_the_call_s_token"], indirect=True)
def test_an_entry_without_its_call_s_token_is_seen(
    broken: None, silent: RedisServer, way_of: Callable[[str], Way]
) -> None:
    with pytest.raises(AssertionError):
        test_the_invalidating_process_sees_it_at_once("key", silent, way_of)
