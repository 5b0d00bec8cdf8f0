"""A load that takes longer than its lease keeps it, or loses it and stores nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.clocks import monotonic
from memover.engine.call import CachedCall
from memover.engine.store import Renewal
from memover.errors import StoreUnavailable
from memover.latch import FramePresence
from memover.runtime import renewal, tasks
from memover.runtime.flights import Flight
from memover.runtime.renewal import Leases
from memover.runtime.run import run
from memover.runtime.state import all_states
from tests.interrupts.striking import places, strike
from tests.servers import await_until, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis


LEASE_SECONDS = 3.0
"""Long enough that a busy machine renews it in time: that is asked for every half second."""
HELD_SECONDS = 1.5 * LEASE_SECONDS


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, prefix=prefix, lease_ttl=LEASE_SECONDS) as cache:
        yield cache


def slot(function: Any, key: Any) -> bytes | None:
    lease: bytes | None = run(function.store.look(key)).lease
    return lease


def long_load(cache: Cache, function: Callable[..., Any], call: Callable[[], Any]) -> set[bytes | None]:
    """What was in the lease's slot while a call loaded for longer than its lease."""
    resident = function._self_definition.now()  # type: ignore[attr-defined]
    key = resident.lookup(7)
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(call()))
    caller.start()
    wait_until(lambda: slot(resident.function, key) is not None, "the lease to be taken")
    began, seen = monotonic(), set()
    while monotonic() - began < HELD_SECONDS:
        seen.add(slot(resident.function, key))
        release.wait(0.02)
    release.set()
    caller.join()
    assert answers == [14]
    assert resident.function.counters.stores == 1
    assert slot(resident.function, key) is None
    return seen


release = threading.Event()


@pytest.fixture(autouse=True)
def _hold() -> Iterator[None]:
    release.clear()
    yield
    release.set()


def test_a_load_longer_than_its_lease_keeps_it(cache: Cache) -> None:
    """The background thread prolongs the lease for as long as the function runs: one token holds it, and the result is stored."""

    @cache.versioned(namespace="slow", version=1)
    def slow(number: int) -> int:
        assert release.wait(60)
        return number * 2

    seen = long_load(cache, slow, lambda: slow(7))
    assert len(seen) == 1 and None not in seen
    assert slow.cache_info().loads == 1


def test_an_awaited_load_longer_than_its_lease_keeps_it(cache: Cache) -> None:
    """The same for `async def`, also while the function holds up its event loop."""

    @cache.versioned(namespace="slow", version=1)
    async def slow(number: int) -> int:
        assert release.wait(60)  # blocking on purpose: renewals have a thread of their own
        return number * 2

    async def call() -> int:
        try:
            return await slow(7)
        finally:
            await cache.aclose()

    seen = long_load(cache, slow, lambda: asyncio.run(call()))
    assert len(seen) == 1 and None not in seen


def test_leases_are_looked_through_again_whatever_happened(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that no store raises (want of memory) costs one look and not the leases of all loads from then on."""
    store, failures = cache._state.store, [MemoryError()]
    renew = store.renew

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return renew(*args, **kwargs)

    monkeypatch.setattr(store, "renew", fail_once)

    @cache.versioned(namespace="slow", version=1)
    def slow(number: int) -> int:
        assert release.wait(60)
        return number * 2

    seen = long_load(cache, slow, lambda: slow(7))
    assert not failures
    assert len(seen) == 1 and None not in seen


def test_a_lease_that_was_lost_stays_lost(cache: Cache) -> None:
    """Renewal prolongs a lease that is held and never takes one back: after an invalidation nothing is stored."""
    begun = threading.Event()

    @cache.versioned(namespace="slow", version=1)
    def slow(number: int) -> int:
        begun.set()
        assert release.wait(60)
        return number * 2

    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(slow(7)))
    caller.start()
    assert begun.wait(60)
    slow.invalidate(7)
    ((token, call),) = cache._state.leases._held.items()
    assert run(cache._state.store.renew([Renewal(call.key, token, 1000)])) == [False]
    release.set()
    caller.join()
    assert answers == [14]
    assert slow.peek(7) is None
    assert (slow.cache_info().stores, slow.cache_info().refused_stores) == (0, 1)


class Later:
    """A background thread that only notes what it is asked to do."""

    running = True

    def __init__(self) -> None:
        self.asked: list[Callable[[], float | None]] = []

    def later(self, seconds: float, run: Callable[[], float | None]) -> None:
        self.asked.append(run)


def leases_of(cache: Cache) -> tuple[Leases, Later]:
    """The leases of a cache, looked through only when the test says so."""
    later = Later()
    leases = cache._state.leases = Leases(cache._state.store, later)  # type: ignore[arg-type]
    return leases, later


def held_call(cache: Cache) -> tuple[CachedCall, str]:
    """A call that has taken its lease."""

    @cache.versioned(namespace=f"held{len(cache._state.leases)}", version=1)
    def function(number: int) -> int:
        return number

    resident = function._self_definition.now()
    call = CachedCall(resident.function, resident.lookup(7), (7,), {}, flight=Flight())
    token = resident.function.new_token()
    assert run(call.acquire(token)).ours
    return call, token


def test_many_leases_are_renewed_in_few_round_trips(redis_url: str, prefix: str, redis_client: redis.Redis) -> None:
    """Thousands of loads may be under way in a busy process: renewals that go one by one come too late for most of them."""
    with Cache(redis_url, prefix=prefix, lease_ttl=30, socket_timeout=10, socket_connect_timeout=10) as cache:
        leases, _ = leases_of(cache)
        resident = cache.versioned(namespace="f")(lambda number: number)._self_definition.now()
        calls = []
        for number in range(450):
            calls.append(CachedCall(resident.function, resident.lookup(number), (number,), {}, flight=Flight()))
            run(calls[-1].acquire(resident.function.new_token()))
        for call in leases._held.values():
            call.renewed -= 20
            redis_client.pexpire(call.key.lease, 10_000)
        store: Any = cache._state.store
        link, exchange, trips = store.link, store.link.exchange, list[int]()

        def counted(step: Any) -> Any:
            trips.append(len(step.commands))
            return exchange(step)

        link.exchange = counted
        leases._look()
        assert sum(trips) == 450
        assert len(trips) <= 5
        assert all(redis_client.pttl(call.key.lease) > 20_000 for call in calls)


def test_a_lease_noted_while_the_looking_ends_is_looked_at() -> None:
    """Whoever finds nothing to renew must not stop over a lease that has just been noted."""
    with Cache("memory://", lease_ttl=LEASE_SECONDS) as cache:
        leases, later = leases_of(cache)
        noted: list[CachedCall] = []

        class Held(dict[str, Any]):
            def __bool__(self) -> bool:
                found = len(self) > 0
                if not noted:  # just now, a call notes its lease
                    noted.append(held_call(cache)[0])
                return found

        leases._held = Held()
        again = leases._look()
        assert (again is None) == (later.asked != [])
        assert leases._looking


def test_an_abandoned_lease_is_released_for_the_next_caller(cache: Cache) -> None:
    """A call that was interrupted while it held the lease is finished, its lease given back, its followers woken."""
    leases, later = leases_of(cache)

    def interrupted() -> tuple[CachedCall, str]:
        call, token = held_call(cache)
        call.presence = call.flight.presence = FramePresence()
        return call, token

    call, _ = interrupted()
    woken: list[int] = []
    assert call.flight.join(lambda: woken.append(1))
    assert slot(call.function, call.key) is not None
    leases._look()
    assert woken == [1]
    assert call.flight.ended
    assert call.flight.outcome is None
    later.asked[-1]()
    assert slot(call.function, call.key) is None
    assert len(leases) == 0
    assert run(CachedCall(call.function, call.key, (7,), {}, flight=Flight()).acquire("0" * 15 + "f")).ours


def test_the_next_caller_need_not_wait_for_the_background_thread() -> None:
    """Who finds the lease held by a call of this process that is gone takes it from there himself."""
    with Cache("memory://") as cache:
        leases, _ = leases_of(cache)

        def interrupted() -> tuple[CachedCall, str]:
            call, token = held_call(cache)
            call.presence = FramePresence()
            return call, token

        call, token = interrupted()
        present, kept = held_call(cache)
        assert leases.orphan(token)
        assert not leases.orphan(token)
        assert not leases.orphan(kept)
        assert call.flight.ended
        assert not present.flight.ended


def test_a_lease_of_a_closed_event_loop_is_released() -> None:
    """A load that an event loop was closed upon is finished, and its task let go of."""
    with Cache("memory://") as cache:
        leases, later = leases_of(cache)
        begun = threading.Event()

        @cache.versioned(namespace="slow", version=1)
        async def slow(number: int) -> int:
            begun.set()
            await asyncio.sleep(3600)
            return number

        loop = asyncio.new_event_loop()
        caller = loop.create_task(slow(7))
        loop.run_until_complete(await_until(begun.is_set, "the load"))
        assert len(leases) == 1
        caller._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        resident = slow._self_definition.now()
        assert slot(resident.function, resident.lookup(7)) is not None
        leases._look()
        later.asked[-1]()
        assert slot(resident.function, resident.lookup(7)) is None
        assert len(leases) == 0
        assert [task for task in tasks._tasks if task.get_loop() is loop] == []


def test_a_release_that_may_have_overtaken_its_request_is_repeated_once() -> None:
    """The background thread has no connection in common with the call that was interrupted."""
    with Cache("memory://") as cache:
        leases, later = leases_of(cache)
        _, token = held_call(cache)
        released: list[str] = []

        def release_many(held: Any) -> Any:
            released.extend(token for _, token in held)
            return
            yield

        leases._store = type("Shared", (), {"local": False, "release_many": staticmethod(release_many)})()
        leases.abandon(token)
        leases._release()
        assert released == [token]
        assert later.asked[-1]() is None
        assert released == [token, token]
        leases._release()
        assert released == [token, token]


def test_a_release_that_fails_is_tried_again_until_it_is_acknowledged() -> None:
    """A store that stands still takes the request for the lease when it goes on, however long that is: so must the release be."""
    with Cache("memory://") as cache:
        leases, later = leases_of(cache)
        tokens = {held_call(cache)[1] for _ in range(3)}
        tries, down = 0, 20

        def release_many(held: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries <= down:
                raise StoreUnavailable("not now: this is a test", store="memory://")
            tokens.difference_update(token for _, token in held)
            return
            yield

        leases._store = type("Down", (), {"local": False, "release_many": staticmethod(release_many)})()
        begun = len(later.asked)
        for token in list(tokens):
            leases.abandon(token)
        while tries < down:
            later.asked[-1]()
        assert len(leases) == 3
        assert len(later.asked) - begun == 1 + down, "one for all of them, and then one after another"
        later.asked[-1]()
        assert tokens == set()
        assert len(leases) == 0


def test_an_interrupted_call_leaves_the_leases_of_the_next_looked_through() -> None:
    """At whatever bytecode of its noting a call is interrupted: that of the next one is looked at."""
    with Cache("memory://") as cache:
        call, _ = held_call(cache)
        record = places(partial(leases_of(cache)[0].hold, call, "first"))
        for at in range(len(record)):
            leases, later = leases_of(cache)

            def interrupt() -> None:
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                strike(partial(leases.hold, call, "first"), at, interrupt)
            leases.hold(call, "second")
            assert leases._look in later.asked, record[at]


def test_an_interrupted_release_does_not_hold_up_the_next() -> None:
    """At whatever bytecode of its handing over a call is interrupted, and at whatever bytecode another one hands over: whoever
    comes last has asked for the release of all."""
    with Cache("memory://") as cache:
        _, first = held_call(cache)
        call, second = held_call(cache)

        def interrupt() -> None:
            raise KeyboardInterrupt

        record = places(partial(abandoning(cache, call, first, second)[0].abandon, first))
        for at in range(len(record)):
            leases, later = abandoning(cache, call, first, second)
            with pytest.raises(KeyboardInterrupt):
                strike(partial(leases.abandon, first), at, interrupt)
            noted = {*leases._held, *(each.token for each in leases._to_release)}
            assert {first, second} <= noted, f"a lease is lost until it ends by itself: {record[at]}"
            leases.abandon(second)
            assert leases._release in later.asked, record[at]
            leases, later = abandoning(cache, call, first, second)
            strike(partial(leases.abandon, first), at, partial(leases.abandon, second))
            assert leases._release in later.asked, record[at]


def abandoning(cache: Cache, call: CachedCall, *tokens: str) -> tuple[Leases, Later]:
    """Leases that a call holds, of which none has been handed over yet."""
    leases, later = leases_of(cache)
    for token in tokens:
        leases.hold(call, token)
    return leases, later


def test_a_release_that_is_never_acknowledged_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease has ended by itself then, and nothing piles up: leases beyond a bound are not noted."""
    with Cache("memory://") as cache:
        leases, later = leases_of(cache)
        call, token = held_call(cache)
        tries: list[str] = []

        def release_many(held: Any) -> Any:
            tries.extend(token for _, token in held)
            raise StoreUnavailable("not now: this is a test", store="memory://")
            yield

        leases._store = type("Down", (), {"local": False, "release_many": staticmethod(release_many)})()
        leases.abandon(token)
        while len(leases):
            later.asked[-1]()
        assert tries == [token] * renewal._ATTEMPTS
        monkeypatch.setattr(renewal, "_RETURNED_LIMIT", 1000)
        for _ in range(renewal._RETURNED_LIMIT + 5):
            leases.hold(call, "again")
            leases._hand_over("again")
        assert len(leases._to_release) == renewal._RETURNED_LIMIT


def test_sweep_lets_go_of_the_tasks_of_closed_loops_alone() -> None:
    """Tasks of a loop that runs stay; those of a closed one would be kept for ever."""
    with Cache("memory://") as cache:
        state = cache._state
        open_loop, closed_loop = asyncio.new_event_loop(), asyncio.new_event_loop()

        async def begin() -> asyncio.Task[None]:
            task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
            tasks.keep(task, state)
            return task

        kept = open_loop.run_until_complete(begin())
        left = closed_loop.run_until_complete(begin())
        closed_loop.close()
        tasks.sweep()
        assert kept in tasks._tasks
        assert left not in tasks._tasks
        kept.cancel()
        with pytest.raises(asyncio.CancelledError):
            open_loop.run_until_complete(kept)
        assert kept not in tasks._tasks
        open_loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_does_not_renew_what_its_parent_loads(cache: Cache) -> None:
    """After fork the parent's loads are the parent's; the child renews loads of its own."""
    begun = threading.Event()

    parent = os.getpid()

    @cache.versioned(namespace="slow", version=1, lease_ttl=60)
    def slow(number: int) -> int:
        if os.getpid() != parent:
            return number * 2  # without the events: a thread of the parent may have held their locks
        begun.set()
        assert release.wait(60)
        return number * 2

    caller = threading.Thread(target=slow, args=(7,))
    caller.start()
    assert begun.wait(60)
    leases = cache._state.leases
    assert len(leases) == 1
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # Caches of one store share a background, and one that an earlier test left may owe an invalidation.
            own = cache._state.background
            running = any(each.witness.owed for each in all_states() if each.background is own)
            inherited = (len(leases), leases._looking, cache._state.background.running)
            status = 0 if inherited == (0, False, running) and slow(8) == 16 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(leases) == 1
    release.set()
    caller.join()
    assert slow.cache_info().stores == 1
