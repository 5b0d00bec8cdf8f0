"""The store does not answer: what a call costs, what it returns, what is said of it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover import InvalidationFailed, StoreError, StoreTimeout, StoreUnavailable
from memover.stores.memory.entries import immediate
from tests.face.conftest import way_of
from tests.face.ways import Way, counted
from tests.servers import FaultyProxy, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.model import Event
    from tests.servers import RedisServer

__all__ = ["way_of"]

FAULTS = ["blackhole", "half_open", "partition", "refuse", "delay"]
BUDGET = 0.25
SLACK = 8
"""A call is to cost one budget; what is checked is that it does not hang, on a machine that may be busy."""


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(redis_server) as proxy:
        yield proxy
        proxy.restore()


def break_it(proxy: FaultyProxy, fault: str) -> None:
    getattr(proxy, fault)(*([30.0] if fault == "delay" else []))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_adds_no_more_than_its_budget(fault: str, proxy: FaultyProxy, way_of: Callable[[str], Way]) -> None:
    """P7: whatever is wrong with the store, a call returns what the function returns, after a budget at most."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(socket_timeout=BUDGET, socket_connect_timeout=BUDGET)
    f, loads = counted(way)
    assert way.run(f(1)) == [1, 1]
    break_it(proxy, fault)
    began = time.monotonic()
    assert way.run(f(1)) == [1, 2]
    assert time.monotonic() - began < BUDGET * SLACK
    assert loads == [1, 1]


@pytest.mark.parametrize("fault", FAULTS)
def test_while_the_circuit_is_open_calls_leave_the_store_alone(
    fault: str, proxy: FaultyProxy, way_of: Callable[[str], Way]
) -> None:
    """After the first failure calls do not try, but for a probe now and then: hundreds cost a handful of attempts."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(breaker_first=60, breaker_last=60)
    f, loads = counted(way)
    way.run(f(1))
    break_it(proxy, fault)
    way.run(f(1))
    connections, sent = proxy.connections, proxy.bytes_up
    began = time.monotonic()
    for _ in range(300):
        way.run(f(1))
    assert time.monotonic() - began < 300 * BUDGET / 4, "each call waited for the store"
    assert (proxy.connections, proxy.bytes_up) == (connections, sent)
    assert len(loads) == 302


def test_one_probe_at_a_time_closes_the_circuit(start_redis: Callable[..., RedisServer], way_of: Any) -> None:
    """Half-open: when the while is over one ordinary call goes to the store, the others do not wait for it."""
    server = start_redis()
    with FaultyProxy(server) as proxy:
        way = way_of(proxy.url)
        way.cache = way.new_cache(breaker_first=0.2, breaker_last=0.2, socket_timeout=0.1, socket_connect_timeout=0.5)
        f, loads = counted(way)
        way.run(f(1))
        proxy.blackhole()
        way.run(f(1))
        before, began = proxy.connections, time.monotonic()
        for _ in range(3):
            seen = proxy.connections

            def probed(seen: int = seen) -> bool:
                way.run(f(1))
                return proxy.connections > seen

            wait_until(probed, "a probe")
        # The proxy counts a connection when it gets to it, so there may have been another probe by then.
        most = (time.monotonic() - began) / 0.2 + 1
        assert 3 <= proxy.connections - before <= most, "one connection for each probe, one probe in 0.2 s"
        proxy.restore()
        # The first call after recovery that is let through is answered from the store: nothing was lost.
        at = len(loads)

        def hit() -> bool:
            return bool(way.run(f(1)) == [1, 1])

        wait_until(hit, "a hit")
        assert way.run(f(1)) == [1, 1]
        assert f.cache_info().store_errors > 0
        assert len(loads) >= at


def test_failures_that_were_under_way_together_count_once(proxy: FaultyProxy, way_of: Any) -> None:
    """Fifty calls that fail side by side are one outage: the store is tried again after the first while, not the last."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(breaker_first=0.2, breaker_last=120, socket_timeout=0.1)
    f, _ = counted(way)
    way.run(f(1))
    together(way, f, [(n,) for n in range(50)])
    proxy.blackhole()
    together(way, f, [(n,) for n in range(50)])
    proxy.restore()
    wait_until(lambda: way.run(f.peek(1)) is not None, "the store to be asked again", timeout=20)


def test_connections_that_died_in_silence_cost_one_budget_together(proxy: FaultyProxy, way_of: Any) -> None:
    """When one idle connection turns out dead, the others are not tried one after another."""
    way = way_of(proxy.url)
    seen: list[Event] = []
    way.cache = way.new_cache(breaker_first=0.05, breaker_last=0.05, socket_timeout=0.3, observers=[seen.append])
    f, _ = counted(way)
    together(way, f, [(n,) for n in range(20)])
    # An event loop has one connection, or two, for all its tasks.
    wait_until(lambda: proxy.open >= (1 if way.is_async else 8), "several connections")
    seen.clear()
    proxy.strand()

    def hit() -> bool:
        hits = f.cache_info().hits
        way.run(f(1))
        return bool(f.cache_info().hits > hits)

    wait_until(hit, "a hit")
    assert sum(isinstance(event.error, StoreTimeout) for event in seen) <= 3


@pytest.mark.parametrize("after_bytes", [0, 1, 7])
def test_an_answer_cut_short_is_asked_for_again(after_bytes: int, proxy: FaultyProxy, way_of: Any) -> None:
    """A connection that dies under a command costs nobody anything: it is sent once more on a new one."""
    way = way_of(proxy.url)
    f, loads = counted(way)
    way.run(f(1))
    proxy.cut_mid_reply(after_bytes)
    assert way.run(f(1)) == [1, 1]
    proxy.cut_mid_reply(after_bytes)
    way.run(f.invalidate(1))
    proxy.cut_mid_reply(after_bytes)
    generation = way.run(f.invalidate_all())
    assert way.run(f(1)) == [1, 2]
    entry = way.run(f.peek(1))
    assert entry.generation == generation, "a bump that is sent twice is one bump"
    assert f.cache_info().store_errors == 0
    assert len(loads) == 2


def test_an_outage_is_one_line_in_the_log(proxy: FaultyProxy, way_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One warning when the store falls silent and one when it answers again, however many calls there are."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(breaker_first=0.05, breaker_last=0.05)
    f, _ = counted(way)
    way.run(f(1))
    caplog.set_level(logging.INFO, "memover")
    proxy.refuse()
    together(way, f, [(1,)] * 30)
    for _ in range(100):
        way.run(f(1))

    def levels() -> list[str]:
        """Of what is said of this store: caches of other tests may have something to say, too."""
        return [record.levelname for record in caplog.records if way.url in record.getMessage()]

    assert levels() == ["WARNING"]
    assert "does not answer" in caplog.text
    proxy.restore()
    wait_until(lambda: way.run(f.peek(1)) is not None, "the store to be asked again")
    assert levels() == ["WARNING", "WARNING"]
    assert "answers again" in caplog.text


# -- on_store_error -----------------------------------------------------------------------------------------------------


def test_load_runs_the_function_once_for_all_who_wait(proxy: FaultyProxy, prefix: str) -> None:
    """Without the store, one load of a call runs at a time in a process: the origin is protected."""
    way = Way(proxy.url, is_async=False, prefix=prefix)
    running, most, loads = 0, 0, 0
    lock = threading.Lock()

    @way.cached()
    def f(x: int) -> int:
        nonlocal running, most, loads
        with lock:
            running += 1
            loads += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return x

    proxy.refuse()
    assert together(way, f, [(1,)] * 20) == [1] * 20
    assert most == 1
    assert loads <= 4, "those who came while one ran share the next"
    way.close()


def test_raise_tells_the_caller(proxy: FaultyProxy, way_of: Any) -> None:
    """`on_store_error="raise"`: a `StoreError` that carries the store's address, and the function is not run."""
    way = way_of(proxy.url)
    f, loads = counted(way, on_store_error="raise")
    way.run(f(1))
    proxy.refuse()
    with pytest.raises(StoreUnavailable) as caught:
        way.run(f(1))
    assert caught.value.store == way.cache.address
    assert loads == [1]


def test_stale_gives_the_last_answer_of_this_process(proxy: FaultyProxy, way_of: Any) -> None:
    """`on_store_error="stale"`: the last answer, unless this process knows of its invalidation; else the function."""
    way = way_of(proxy.url)
    f, _loads = counted(way, on_store_error="stale")
    assert way.run(f(1)) == [1, 1]
    assert way.run(f(1)) == [1, 1]
    proxy.refuse()
    assert way.run(f(1)) == [1, 1]
    assert way.run(f(2)) == [2, 2], "nothing was known of this one"
    with pytest.raises(InvalidationFailed):
        way.run(f.invalidate(1))
    assert way.run(f(1)) == [1, 3], "an invalidation, acknowledged or not, is not followed by what it was to end"
    proxy.restore()
    wait_until(lambda: not way.cache._state.witness.owed, "the invalidation to be acknowledged")


# -- invalidations that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["blackhole", "half_open", "refuse"])
@pytest.mark.parametrize("what", ["key", "namespace"])
def test_an_invalidation_is_acknowledged_or_raises_and_is_repeated(
    fault: str, what: str, proxy: FaultyProxy, redis_url: str, way_of: Any
) -> None:
    """P8: unacknowledged, it raises; this process serves and stores nothing of it; and it is repeated until taken."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(breaker_first=0.05, breaker_last=0.1)
    other = way.new_cache()
    other._state.store.close()
    f, loads = counted(way, namespace="owed")
    way.run(f(1))
    break_it(proxy, fault)
    with pytest.raises(InvalidationFailed) as caught:
        way.run(f.invalidate(1) if what == "key" else f.invalidate_all())
    assert caught.value.what
    assert caught.value.store == way.cache.address
    at = len(loads)
    assert way.run(f(1)) == [1, at + 1], "a hit under an invalidation that is owed"
    assert way.run(f(1)) == [1, at + 2]
    assert way.run(f.peek(1)) is None
    proxy.restore()
    wait_until(lambda: not way.cache._state.witness.owed, "the invalidation to be acknowledged")
    first = way.run(f(1))
    assert first == [1, at + 3], "the old entry came back"
    assert way.run(f(1)) == first


def test_a_later_invalidation_does_not_settle_one_that_failed_meanwhile(way_of: Any, redis_url: str) -> None:
    """Only an invalidation that began after the failure was known makes its repeat unnecessary."""
    way = way_of(redis_url)
    state = way.cache._state
    before = state.owing((b"name",))
    repeats: list[int] = []
    state.owe(b"name", immediate(lambda: repeats.append(1)))
    state.settled(before)
    wait_until(lambda: repeats, "the repeat")
    wait_until(lambda: not state.witness.owed, "it to be settled")


def test_one_name_that_cannot_be_settled_does_not_hold_up_the_others(redis_url: str, way_of: Any) -> None:
    """Each round begins with other names, so that what can be acknowledged is."""
    way = way_of(redis_url)
    state = way.cache._state
    done: set[int] = set()
    down = True

    def repeat(n: int) -> Callable[[], Any]:
        @immediate
        def attempt() -> None:
            if n < 6 and down:
                raise StoreUnavailable("down", store="here")
            done.add(n)

        return attempt

    for n in range(12):
        state.owe(b"%d" % n, repeat(n))
    wait_until(lambda: done == set(range(6, 12)), "the others")
    assert set(state.witness.owed) == {b"%d" % n for n in range(6)}
    down = False
    wait_until(lambda: not state.witness.owed, "the rest")


def test_close_settles_what_is_owed_or_says_that_it_could_not(proxy: FaultyProxy, way_of: Any) -> None:
    """`close()` repeats owed invalidations; it raises when the store still does not take them, and may be repeated."""
    way = way_of(proxy.url)
    way.cache = cache = way.new_cache()
    f, _ = counted(way)
    way.run(f(1))
    proxy.refuse()
    with pytest.raises(InvalidationFailed):
        way.run(f.invalidate_all())

    def close() -> None:
        way.run(cache.aclose()) if way.is_async else cache.close()

    with pytest.raises(InvalidationFailed) as caught:
        close()
    assert caught.value.what == (f"{way.prefix}:gen:{f.namespace}",)
    proxy.restore()
    close()
    assert not cache._state.witness.owed
    assert way.run(f(1)) == [1, 2]


# -- pools ----------------------------------------------------------------------------------------------------------------


def together(way: Way, f: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    """The results of calls made at once: tasks of one loop, or a thread each. Raises what the first of them raised."""
    if way.is_async:

        async def all_of_them() -> list[Any]:
            return list(await asyncio.gather(*(f(*args) for args in calls)))

        return list(way.run(all_of_them()))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def call(at: int, args: tuple[Any, ...]) -> None:
        start.wait()
        try:
            results[at] = f(*args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(at, args)) for at, args in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def test_a_busy_pool_is_waited_for(redis_server: RedisServer, way_of: Any) -> None:
    """Callers beyond `max_connections` queue while connections come back; nobody runs a function for want of one."""
    way = way_of(redis_server.url)
    way.cache = way.new_cache(max_connections=2, socket_timeout=1.0, socket_connect_timeout=5.0)
    f, loads = counted(way)
    together(way, f, [(n,) for n in range(20)])
    assert len(loads) == 20
    assert together(way, f, [(n % 20,) for n in range(150)]) == [[n % 20, r] for n, r in _numbered(150, way, f)]
    assert len(loads) == 20
    assert f.cache_info().store_errors == 0


def _numbered(count: int, way: Way, f: Any) -> list[tuple[int, int]]:
    return [(n, way.run(f.peek(n % 20)).value[1]) for n in range(count)]


def test_thousands_of_tasks_hit_without_a_load(redis_url: str, prefix: str) -> None:
    """More tasks than a budget can serve still wait their turn: being busy is no failure of the store."""
    way = Way(redis_url, is_async=True, prefix=prefix)
    way.cache = way.new_cache(socket_timeout=1.0, socket_connect_timeout=5.0)
    f, loads = counted(way)
    together(way, f, [(n,) for n in range(10)])
    assert len(loads) == 10
    together(way, f, [(n % 10,) for n in range(12_000)])
    assert len(loads) == 10
    assert f.cache_info().store_errors == 0
    way.close()


def test_a_pool_that_is_stuck_fails_its_callers_within_budgets(proxy: FaultyProxy, way_of: Any) -> None:
    """All connections in use and none coming back: callers give up together, and run their functions."""
    way = way_of(proxy.url)
    way.cache = way.new_cache(max_connections=2, breaker_first=60, breaker_last=60)
    f, loads = counted(way)
    together(way, f, [(n,) for n in range(4)])
    proxy.blackhole()
    began = time.monotonic()
    together(way, f, [(100 + n,) for n in range(40)])
    assert time.monotonic() - began < BUDGET * SLACK * 2
    assert len(loads) == 44


def test_a_loop_that_was_held_up_is_no_failure_of_the_store(redis_url: str, prefix: str) -> None:
    """When something blocks the event loop beyond the budget, the answer that came meanwhile counts."""
    way = Way(redis_url, is_async=True, prefix=prefix)
    way.cache = way.new_cache(socket_timeout=0.05)
    f, loads = counted(way)
    way.run(f(1))

    async def while_blocked() -> None:
        for step in range(8):
            calls = [asyncio.ensure_future(f(1)) for _ in range(5)]
            for _ in range(step):
                await asyncio.sleep(0)
            time.sleep(0.15)  # the very thing that a coroutine must not do
            await asyncio.gather(*calls)

    way.run(while_blocked())
    assert len(loads) == 1
    assert f.cache_info().store_errors == 0
    way.close()


def test_a_silent_server_errors_in_its_own_words(start_redis: Callable[..., RedisServer], way_of: Any) -> None:
    """What the server says is in the error: LOADING, NOAUTH, and its kin are the store's, not the caller's."""
    server = start_redis(password="right")
    way = way_of(server.url.replace("right", "wrong"))
    f, loads = counted(way, on_store_error="raise")
    with pytest.raises(StoreError, match=r"(?i)password|WRONGPASS|auth"):
        way.run(f(1))
    assert loads == []
