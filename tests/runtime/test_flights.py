"""Loads that the callers of one process share, found by lease token, or by entry while the store cannot be asked."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from memover import Cache
from memover.clocks import monotonic
from memover.engine.answers import Outcome
from memover.engine.steps import Await
from memover.latch import FramePresence
from memover.runtime.flights import Flight, Flights, UnleasedLoads, arrive
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.engine.steps import Flow

ENTRY = b"x:1:f:k"


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)` to `work(count - 1)` answer, run in threads that start at once."""
    start = threading.Barrier(count)
    answers: list[Any] = [None] * count

    def go(index: int) -> None:
        start.wait()
        answers[index] = work(index)

    threads = [threading.Thread(target=go, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def waiting(flight: Flight, seconds: float = 30.0) -> Flow[Outcome | None]:
    yield from Await(flight, seconds)
    return flight.outcome


def test_everyone_who_joined_is_called_once() -> None:
    """The end calls every caller's `wake`, once, and only then is there an outcome; the first outcome counts."""
    flight, woken = Flight(), []
    outcome = Outcome(7)
    for name in "abc":
        assert flight.join(lambda name=name: woken.append((name, flight.outcome)))  # type: ignore[misc]
    assert not flight.ended
    flight.end(outcome)
    flight.end(Outcome(8))
    assert woken == [("a", outcome), ("b", outcome), ("c", outcome)]
    assert flight.ended
    assert flight.outcome is outcome


def test_nobody_joins_what_has_ended() -> None:
    """Who comes too late knows at once, and is not counted."""
    flight = Flight()
    flight.end(Outcome(7))
    assert not flight.join(lambda: None)
    assert flight.callers == 1


def test_the_last_follower_of_a_load_whose_owner_left_abandons_it() -> None:
    """A load that nobody wants any more is given up; one that somebody wants, or that is over, is not."""
    flight, abandoned = Flight(), []
    flight.abandon = lambda: abandoned.append(1)

    def wake() -> None: ...

    assert flight.join(wake)
    flight.leave()  # its owner goes, the other still waits
    assert abandoned == []
    flight.leave(wake)
    assert abandoned == [1]
    ended = Flight()
    ended.abandon = lambda: abandoned.append(2)
    assert ended.join(wake)
    ended.leave()
    ended.end(None)
    ended.leave(wake)
    assert abandoned == [1]


def test_every_caller_is_woken_or_turned_away() -> None:
    """Joining while it ends: nobody waits for a flight that will not wake him."""
    for _ in range(200):
        flight = Flight()
        woken: list[int] = []

        def go(index: int, flight: Flight = flight, woken: list[int] = woken) -> bool:
            if index == 0:
                flight.end(Outcome(1))
                return False
            return flight.join(lambda: woken.append(index))

        joined = together(4, go)
        assert {index for index in range(4) if joined[index]} <= set(woken)
        assert len(woken) == len(set(woken))


def test_threads_and_event_loops_wait_for_one_load() -> None:
    """A thread and two event loops that wait for one flight all get the same outcome."""
    flight, outcome = Flight(), Outcome(7)

    def work(index: int) -> Any:
        if index == 3:
            end = monotonic() + 30
            while flight.callers < 4:
                assert monotonic() < end
            flight.end(outcome)
            return outcome
        return run(waiting(flight)) if index == 0 else asyncio.run(arun(waiting(flight)))

    assert together(4, work) == [outcome] * 4


def test_an_orphan_is_waited_for_no_longer() -> None:
    """A flight whose owner was interrupted will not end: whoever waits for it, or comes to, goes on without an outcome."""

    def interrupted() -> Flight:
        flight = Flight()
        flight.presence = FramePresence()
        return flight

    flight = interrupted()
    assert not flight.present()
    began = monotonic()
    assert run(waiting(flight, 3600.0)) is None
    assert asyncio.run(arun(waiting(flight, 3600.0))) is None
    assert monotonic() - began < 60
    loads = UnleasedLoads()
    assert loads.begin(ENTRY, flight) is flight
    mine = Flight()
    assert loads.begin(ENTRY, mine) is mine


def test_a_flight_is_found_by_its_token_while_it_lasts() -> None:
    """The first under a token is who is found; another's closing does not hide it; closed, the token is free."""
    flights, first, second = Flights(), Flight(), Flight()
    assert flights.share("t", first) is first
    assert flights.share("t", second) is first
    assert flights.share("u", second) is second
    flights.close("t", second)
    assert flights.share("t", second) is first
    flights.close("t", first)
    flights.close("u", second)
    assert len(flights) == 0
    assert flights.share("t", second) is second


def test_one_of_many_threads_leads() -> None:
    """Threads that share under one token at once agree on whose flight it is."""
    for turn in range(200):
        flights = Flights()
        shared = together(4, lambda _, flights=flights, turn=turn: flights.share(f"t{turn}", Flight()))  # type: ignore[misc]
        assert len(set(map(id, shared))) == 1


def test_an_unleased_load_is_numbered_between_its_callers() -> None:
    """A load has a greater number than every caller that came before it began, and a smaller one than those after."""
    loads, flight = UnleasedLoads(), Flight()
    before = arrive()
    assert loads.begin(ENTRY, flight) is flight
    after = arrive()
    assert before < flight.number < after


def test_one_unleased_load_runs_at_a_time() -> None:
    """Whoever would load meanwhile gets that flight; entries do not hold one another up; afterwards the way is free."""
    loads, first, second, other = UnleasedLoads(), Flight(), Flight(), Flight()
    assert loads.begin(ENTRY, first) is first
    assert loads.begin(ENTRY, second) is first
    assert loads.begin(b"another", other) is other
    loads.end(ENTRY, second)
    assert loads.begin(ENTRY, Flight()) is first
    loads.end(ENTRY, first)
    again = Flight()
    assert loads.begin(ENTRY, again) is again
    assert again.number > first.number


def test_threads_take_turns_to_load() -> None:
    """Many threads at once: never two loads of an entry under way, and nobody takes a load that began before it came."""
    loads = UnleasedLoads()
    running = threading.Semaphore(1)
    mistakes: list[str] = []

    def call(_: int) -> int:
        own = 0
        for _ in range(50):
            arrival = arrive()
            while True:
                mine = Flight()
                flight = loads.begin(ENTRY, mine)
                if flight is mine:
                    if not running.acquire(blocking=False):
                        mistakes.append("two at once")
                    if mine.number <= arrival:
                        mistakes.append("numbered before its caller came")
                    own += 1
                    running.release()
                    loads.end(ENTRY, mine)
                    mine.end(Outcome(mine.number))
                    break
                run(waiting(flight))
                if flight.outcome is None:
                    mistakes.append("not woken")
                if flight.number > arrival:
                    break
        return own

    counts = together(4, call)
    assert mistakes == []
    assert 0 < sum(counts) <= 200


def test_two_functions_that_call_each_other_from_two_threads_end() -> None:
    """Each thread's load waits for the other's: the circle is seen, and both end long before `wait_timeout`."""
    both_load = threading.Barrier(2)
    with Cache("memory://", wait_timeout=3600) as cache:
        threads = threading.local()

        def first_of_its_thread() -> bool:
            first = not getattr(threads, "loads", False)
            threads.loads = True
            return first

        @cache.versioned(namespace="even", version=1)
        def even(number: int) -> bool:
            if first_of_its_thread():
                both_load.wait(60)
                return odd(number)
            return True

        @cache.versioned(namespace="odd", version=1)
        def odd(number: int) -> bool:
            if first_of_its_thread():
                both_load.wait(60)
                return even(number)
            return True

        began = monotonic()
        assert together(2, lambda index: (even, odd)[index](7)) == [True, True]
        assert monotonic() - began < 600
        assert len(cache._state.flights) == 0
        assert all(function.cache_info().loads for function in (even, odd))
