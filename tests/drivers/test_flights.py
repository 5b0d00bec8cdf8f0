"""Loads that the callers of one process share, known by lease token, or by turn while the store cannot be asked."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from memover.drivers.flights import Flight, Flights, Trains
from memover.engine.ops import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY = b"x:1:f:k"


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)` to `work(count - 1)` answer, run in threads that start at once."""
    start = threading.Barrier(count)
    answers: list[Any] = [None] * count

    def run(index: int) -> None:
        start.wait()
        answers[index] = work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_whoever_boarded_is_told_once() -> None:
    """Landing tells every caller on board, once, and only then is there an outcome."""
    flight, told = Flight(), []
    outcome = Outcome(7)
    for name in "abc":
        assert flight.board(lambda name=name: told.append((name, flight.outcome)))  # type: ignore[misc]
    assert not flight.landed
    flight.land(outcome)
    flight.land(Outcome(8))
    assert told == [("a", outcome), ("b", outcome), ("c", outcome)]
    assert flight.landed and flight.outcome is outcome


def test_nobody_boards_what_has_landed() -> None:
    """Who comes too late knows at once, and is not counted."""
    flight = Flight()
    flight.land(Outcome(7))
    assert not flight.board(lambda: None)
    assert flight.callers == 1


def test_the_last_to_leave_a_load_under_way_is_told_so() -> None:
    """A load that nobody wants any more can be given up; one that somebody wants, or that is over, cannot."""
    flight, told = Flight(), []

    def tell() -> None:
        told.append(1)

    assert flight.board(tell)
    assert not flight.leave()  # its first caller goes, the other still waits
    assert flight.leave(tell)
    flight.land(None)
    assert told == []
    assert not flight.leave()


def test_every_caller_is_told_or_turned_away() -> None:
    """Boarding while it lands: nobody waits for a flight that will not tell."""
    for _ in range(200):
        flight = Flight()
        told: list[int] = []

        def go(index: int, flight: Flight = flight, told: list[int] = told) -> bool:
            if index == 0:
                flight.land(Outcome(1))
                return False
            return flight.board(lambda: told.append(index))

        boarded = together(4, go)
        assert sorted(told) == [index for index in range(4) if boarded[index]]


def test_threads_and_event_loops_wait_for_one_load() -> None:
    """A thread and two event loops on board of one flight are all told of the same outcome."""
    flight, outcome = Flight(), Outcome(7)
    boarded = [threading.Event() for _ in range(3)]

    def in_thread(index: int) -> Any:
        landed = threading.Event()
        assert flight.board(landed.set)
        boarded[index].set()
        assert landed.wait(30)
        return flight.outcome

    async def in_loop(index: int) -> Any:
        loop = asyncio.get_running_loop()
        landed = asyncio.Event()
        assert flight.board(lambda: loop.call_soon_threadsafe(landed.set))
        boarded[index].set()
        await asyncio.wait_for(landed.wait(), 30)
        return flight.outcome

    def work(index: int) -> Any:
        if index == 3:
            assert all(each.wait(30) for each in boarded)
            flight.land(outcome)
            return outcome
        return in_thread(index) if index == 0 else asyncio.run(in_loop(index))

    assert together(4, work) == [outcome] * 4


def test_a_flight_is_known_by_its_token_while_it_lasts() -> None:
    """The first under a token is who is found; another's closing does not hide it; closed, the token is free."""
    flights, first, second = Flights(), Flight(), Flight()
    assert flights.open("t", first) is first
    assert flights.open("t", second) is first
    assert flights.open("u", second) is second
    flights.close("t", second)
    assert flights.find("t") is first
    flights.close("t", first)
    assert flights.find("t") is None
    assert flights.open("t", second) is second


def test_one_of_many_threads_leads() -> None:
    """Threads that open one token at once agree on whose flight it is."""
    for turn in range(200):
        flights = Flights()
        opened = together(4, lambda _, flights=flights, turn=turn: flights.open(f"t{turn}", Flight()))
        assert len(set(map(id, opened))) == 1


def test_a_train_that_left_before_is_not_for_me() -> None:
    """A load has a greater number than every ticket taken before it began, and a smaller one than those taken after."""
    trains, flight = Trains(), Flight()
    before = trains.arrive()
    assert trains.depart(ENTRY, flight) is flight
    after = trains.arrive()
    assert before < flight.number < after


def test_one_train_runs_at_a_time() -> None:
    """Whoever would drive while one runs is told which; entries do not hold one another up; afterwards the way is free."""
    trains, first, second, other = Trains(), Flight(), Flight(), Flight()
    assert trains.depart(ENTRY, first) is first
    assert trains.depart(ENTRY, second) is first
    assert trains.depart(b"another", other) is other
    trains.arrived(ENTRY, second, Outcome(0))
    assert trains.depart(ENTRY, Flight()) is first
    outcome = Outcome(7)
    trains.arrived(ENTRY, first, outcome)
    assert first.landed and first.outcome is outcome
    again = Flight()
    assert trains.depart(ENTRY, again) is again
    assert again.number > first.number


def test_threads_take_turns_to_drive() -> None:
    """Many threads at once: never two loads of an entry under way, and nobody takes a load that began before it came."""
    trains = Trains()
    running = threading.Semaphore(1)
    mistakes: list[str] = []

    def call(_: int) -> int:
        drives = 0
        for _ in range(50):
            ticket = trains.arrive()
            while True:
                mine = Flight()
                flight = trains.depart(ENTRY, mine)
                if flight is mine:
                    if not running.acquire(blocking=False):
                        mistakes.append("two at once")
                    if mine.number <= ticket:
                        mistakes.append("numbered before its driver came")
                    drives += 1
                    running.release()
                    trains.arrived(ENTRY, mine, Outcome(mine.number))
                    break
                landed = threading.Event()
                if flight.board(landed.set) and not landed.wait(30):
                    mistakes.append("not told")
                if flight.number > ticket:
                    break
        return drives

    drives = together(4, call)
    assert mistakes == []
    assert 0 < sum(drives) <= 200
