"""A load that takes longer than its lease keeps it, or loses it and stores nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.clocks import monotonic
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.drivers.plan import Plan

LEASE_SECONDS = 1.0


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, prefix=prefix, lease_ttl=LEASE_SECONDS) as cache:
        yield cache


def slot(plan: Plan, key: Any) -> bytes | None:
    return plan.shared.store.look(key).lease


def long_load(cache: Cache, function: Callable[..., Any], call: Callable[[], Any]) -> set[bytes | None]:
    """What was in the lease's slot while a call loaded for three times its lease."""
    resident = function._self_definition.now()  # type: ignore[attr-defined]
    key = resident.lookup(7)
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(call()))
    caller.start()
    wait_until(lambda: slot(resident.plan, key) is not None, "the lease to be taken")
    began, seen = monotonic(), set()
    while monotonic() - began < 3 * LEASE_SECONDS:
        seen.add(slot(resident.plan, key))
        release.wait(0.02)
    release.set()
    caller.join()
    assert answers == [14]
    assert resident.plan.counters.stores == 1
    assert slot(resident.plan, key) is None
    return seen


release = threading.Event()


@pytest.fixture(autouse=True)
def _hold() -> Iterator[None]:
    release.clear()
    yield
    release.set()


def test_a_load_three_times_its_lease_keeps_it(cache: Cache) -> None:
    """The keeper prolongs the lease for as long as the function runs: one token holds it, and the result is stored."""

    @cache.versioned(namespace="slow", version=1)
    def slow(number: int) -> int:
        assert release.wait(60)
        return number * 2

    seen = long_load(cache, slow, lambda: slow(7))
    assert len(seen) == 1 and None not in seen
    assert slow.cache_info().loads == 1


def test_an_awaited_load_three_times_its_lease_keeps_it(cache: Cache) -> None:
    """The same for `async def`, also while the function holds up its event loop."""

    @cache.versioned(namespace="slow", version=1)
    async def slow(number: int) -> int:
        assert release.wait(60)  # blocking on purpose: the keeper has a thread of its own
        return number * 2

    async def call() -> int:
        try:
            return await slow(7)
        finally:
            if cache._state.async_store is not None:
                await cache._state.async_store.close()

    seen = long_load(cache, slow, lambda: asyncio.run(call()))
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
    resident = slow._self_definition.now()
    (held,) = resident.plan._underway.values()
    assert not resident.plan.shared.store.renew(held[0], held[1], resident.plan.lease_ms)
    release.set()
    caller.join()
    assert answers == [14]
    assert slow.peek(7) is None
    assert (slow.cache_info().stores, slow.cache_info().refused_stores) == (0, 1)


def test_a_load_that_begins_while_the_renewing_ends_is_renewed() -> None:
    """The keeper that finds nothing to renew must not go to sleep over a load that has just begun."""
    with Cache("memory://", lease_ttl=LEASE_SECONDS) as cache:

        @cache.versioned(namespace="slow", version=1)
        def slow(number: int) -> int:
            return number

        resident = slow._self_definition.now()
        plan, key = resident.plan, resident.lookup(7)
        threads: list[threading.Thread] = []

        class Underway(dict[object, Any]):
            def items(self) -> Any:
                found = list(super().items())
                if not threads:  # just now, a load begins
                    threads.append(threading.Thread(target=plan.hold, args=("mark", key, "00000000000000ab")))
                    threads[0].start()
                    threads[0].join(0.2)  # it is through, or it waits for the keeper to be
                return found

        asked: list[float] = []
        plan.shared.keeper = type("Asked", (), {"later": lambda self, seconds, run: asked.append(seconds)})()
        plan._underway, plan._renewing = Underway(), True
        again = plan._renew()
        threads[0].join()
        assert (again is None) == (asked != [])
        assert plan._renewing
        plan.let_go("mark")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_does_not_renew_what_its_parent_loads(cache: Cache) -> None:
    """After fork the parent's loads are the parent's; the child renews loads of its own."""
    begun = threading.Event()

    @cache.versioned(namespace="slow", version=1)
    def slow(number: int) -> int:
        begun.set()
        assert release.wait(60)
        return number * 2

    caller = threading.Thread(target=slow, args=(7,))
    caller.start()
    assert begun.wait(60)
    plan = slow._self_definition.now().plan
    assert len(plan._underway) == 1
    parents = {id(task) for _, _, task in plan.shared.keeper._heap}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            release.set()
            # Not empty where a cache of an earlier test owes an invalidation: a child owes it too, by a task of its own.
            inherited = parents & {id(task) for _, _, task in plan.shared.keeper._heap}
            state = (plan._underway, plan._renewing, inherited)
            status = 0 if state == ({}, False, set()) and slow(8) == 16 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(plan._underway) == 1
    release.set()
    caller.join()
    assert slow.cache_info().stores == 1
