"""P17 under the real thing: signals in the main thread, `PyThreadState_SetAsyncExc` in others, greenlets that are timed out."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interrupts.bench import Bench, CtrlC, Limit, guarded
from tests.interrupts.striking import Unraisable

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
STRIKES = 80
"""In the standing suite; ten times as many in the slow one."""


class Steps:
    """Random operations of one caller on few keys; each answer is compared with the source."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.rng = random.Random(seed)
        self.wrong: list[Any] = []

    def step(self) -> None:
        bench, rng = self.bench, self.rng
        x = rng.randrange(40)
        f = rng.choice((bench.plain, bench.tagged, bench.parent, bench.bulky, bench.lenient))
        kind = rng.random()
        if kind < 0.6:
            self.compare(x, f(x))
        elif kind < 0.7:
            f.invalidate(x)
        elif kind < 0.75:
            f.invalidate_all()
        elif kind < 0.8:
            self.compare(x, f.refresh(x))
        elif kind < 0.9:
            for n, value in enumerate(f.map(range(x, x + 5))):
                self.compare(x + n, value)
        elif kind < 0.95:
            bench.cache.set(f"k{x}", x)
            got = bench.cache.get(f"k{x}")
            if got != x and threading.current_thread() is threading.main_thread():
                self.wrong.append((f"k{x}", got))
        else:
            bench.cache.invalidate_tags(f"x:{x}")

    def until(self, enough: Callable[[], bool]) -> None:
        """Steps until one was struck, also where that was swallowed: after the value was there, or by the interpreter."""
        while not enough():
            self.step()

    def compare(self, x: int, value: Any) -> None:
        if value != {"x": x, "v": 0}:  # the source does not move here: only a value of another call can be wrong
            self.wrong.append((x, value))


def _afterwards(bench: Bench) -> None:
    """Every key of every function answers, from here and from elsewhere, is kept, and can be invalidated."""
    for x in range(0, 45, 4):
        for f in (bench.plain, bench.tagged, bench.parent, bench.bulky, bench.lenient):
            bench.whole_function(f, x, (0, 1, 2, 3))
            # `parent` has moved the source of `plain` too: each begins anew.
            bench.source.pop(x, None)
            for g in bench.functions:
                g.invalidate(x)
    bench.well()


def _signals(error: type[BaseException], make: Callable[..., Bench], strikes: int) -> None:
    bench = make()
    steps = Steps(bench, 1)
    with guarded("the first steps", 60):
        for _ in range(200):
            steps.step()
    rng = random.Random(2)
    armed = False
    rung = 0
    sent: list[BaseException] = []
    foreign: list[BaseException] = []

    def ring(*_: object) -> None:
        nonlocal rung
        rung += 1
        if rung > 100 * strikes:
            raise AssertionError("too many alarms")
        if armed:
            sent.append(error("from outside"))
            raise sent[-1]

    before = signal.signal(signal.SIGALRM, ring)
    stop = time.monotonic() + 30 + strikes / 10
    try:
        with Unraisable():
            while len(sent) < strikes:
                assert time.monotonic() < stop, (
                    f"{len(sent)} of {strikes} in all that time: calls hang, or take too long"
                )
                known = len(sent)
                signal.setitimer(
                    signal.ITIMER_REAL, rng.uniform(2e-5, 2e-3), 5.0
                )  # again, where the first was swallowed
                try:
                    armed = True
                    steps.until(lambda known=known: len(sent) > known)
                except error as caught:
                    if caught not in sent:
                        raise
                except Exception as other:
                    foreign.append(other)
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert foreign == [], f"{len(foreign)} calls raised something else, such as {foreign[0]!r}"
    assert steps.wrong == []
    _afterwards(bench)


@pytest.mark.parametrize("error", [Limit, CtrlC])
def test_a_storm_of_signals_leaves_everything_whole(error: type[BaseException], make: Callable[..., Bench]) -> None:
    """`setitimer` with random delays: RQ's and Celery's time limits, Ctrl-C."""
    _signals(error, make, STRIKES)


@pytest.mark.slow
@pytest.mark.parametrize("error", [Limit, CtrlC])
def test_a_long_storm_of_signals_leaves_everything_whole(
    error: type[BaseException], make: Callable[..., Bench]
) -> None:
    """The same for longer."""
    _signals(error, make, 10 * STRIKES)


class Victim:
    """A thread that takes steps until it is told to stop, and survives what is thrown into it."""

    def __init__(self, bench: Bench, seed: int, before: Victim | None = None) -> None:
        self.steps = Steps(bench, seed)
        self.stopping = False
        self.inside = False
        self.interrupted = 0
        self.foreign: list[BaseException] = []
        if before is not None:  # it takes over what its predecessor found
            self.interrupted, self.foreign, self.steps.wrong = before.interrupted, before.foreign, before.steps.wrong
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        while not self.stopping:
            try:
                while not self.stopping:
                    self.inside = True
                    try:
                        self.steps.step()
                    finally:
                        self.inside = False
            except Limit:
                self.interrupted += 1
            except Exception as error:
                self.foreign.append(error)


def _throw_until(victims: list[Victim], bench: Bench, strikes: int, stop: float) -> None:
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    rng = random.Random(3)
    died = 0
    while sum(victim.interrupted for victim in victims) < strikes:
        assert time.monotonic() < stop, "threads hang, or what is thrown into them is swallowed"
        for at, victim in enumerate(victims):
            if not victim.thread.is_alive():  # struck between two steps, in the test's own loop
                died += 1
                victims[at] = Victim(bench, died + 100, victim)
            elif victim.inside:
                throw(ctypes.c_ulong(victim.thread.ident or 0), ctypes.py_object(Limit))
        time.sleep(rng.uniform(1e-4, 3e-3))


def _thrown_into_threads(make: Callable[..., Bench], strikes: int) -> None:
    bench = make()
    victims = [Victim(bench, seed) for seed in range(3)]
    stop = time.monotonic() + 30 + strikes / 10
    try:
        with Unraisable():
            _throw_until(victims, bench, strikes, stop)
    finally:
        for victim in victims:
            victim.stopping = True
    for victim in victims:
        victim.thread.join(30)
    assert not any(victim.thread.is_alive() for victim in victims), "a thread hangs"
    foreign = [error for victim in victims for error in victim.foreign]
    assert foreign == [], f"{len(foreign)} calls raised something else, such as {foreign[0]!r}"
    assert [victim.steps.wrong for victim in victims] == [[]] * len(victims)
    _afterwards(bench)


# A victim may be struck in the test's own loop, and then its thread is over.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_exceptions_thrown_into_threads_leave_everything_whole(make: Callable[..., Bench]) -> None:
    """`PyThreadState_SetAsyncExc`, as thread-based time limits (dramatiq, Celery's gevent and solo pools) throw."""
    _thrown_into_threads(make, STRIKES)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.slow
def test_exceptions_thrown_into_threads_for_long_leave_everything_whole(make: Callable[..., Bench]) -> None:
    """The same for longer."""
    _thrown_into_threads(make, 10 * STRIKES)


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize("seconds", [1.0, pytest.param(10.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_storm_of_gevent_timeouts_leaves_everything_whole(
    store: str, seconds: float, prefix: str, request: pytest.FixtureRequest
) -> None:
    """Greenlets on a patched socket, each call under a `gevent.Timeout` that often strikes."""
    url = "memory://" if store == "memory" else request.getfixturevalue("redis_url")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.interrupts.greenlets", url, prefix, str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["struck"] > 10, said
    assert said["wrong"] == [], said
    assert said["foreign"] == [], said
    assert said["slow"] == [], "calls after the storm waited for what an interrupted one had left"
    assert said["leases"] == 0, said
    assert said["hits"], "after the storm nothing is answered from the store"
