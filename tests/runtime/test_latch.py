"""The latch: exclusive between threads, re-entrant for one, and nobody's once its holder was interrupted (P17)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover.latch import FramePresence, Latch, TaskPresence, inside_section

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Interruption(BaseException):
    """What a signal handler raises."""


def struck(work: Callable[[], Any], at: int) -> bool:
    """Run `work` with an exception raised at its `at`-th bytecode, in this test's code and in the latch's; whether it came
    to that."""
    left = at

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (__file__, Latch.__enter__.__code__.co_filename):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise Interruption
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interruption:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_section_interrupted_at_any_bytecode_leaves_the_latch_free() -> None:
    """Whatever bytecode of enter, section or exit it is: the next thread gets in."""

    def section(latch: Latch, inside: list[int]) -> None:
        with latch:
            inside.append(1)

    at = entered = 0
    while True:
        at += 1
        latch, inside = Latch(), list[int]()
        if not struck(lambda latch=latch, inside=inside: section(latch, inside), at):  # type: ignore[misc]
            break
        entered += len(inside)
        other = threading.Thread(target=section, args=(latch, inside), daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive(), f"interrupted at bytecode {at}, it stays locked"
    assert at > 50
    assert 0 < entered < at


def test_one_thread_at_a_time() -> None:
    """Many threads that count in sections lose no count, with switches as often as they can be had."""
    latch, count, inside = Latch(), [0], [0]
    mistakes: list[str] = []

    def once() -> None:
        with latch:
            inside[0] += 1
            if inside[0] != 1:
                mistakes.append("two at once")
            before = count[0]
            sum(range(20))
            count[0] = before + 1
            inside[0] -= 1

    def work() -> None:
        for _ in range(300):
            once()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(interval)
    assert mistakes == []
    assert count == [1800]
    assert latch.entries == 0


def test_threads_that_are_interrupted_block_nobody() -> None:
    """Half of the sections end by an exception that skips `__exit__`; the others all run."""
    latch, ran = Latch(), []

    def left_behind() -> None:
        latch.__enter__()
        raise Interruption

    def work(own: int) -> None:
        for number in range(100):
            if number % 2:
                with pytest.raises(Interruption):
                    left_behind()
            else:
                whole(own, number)

    def whole(own: int, number: int) -> None:
        with latch:
            ran.append((own, number))

    threads = [threading.Thread(target=work, args=(own,), daemon=True) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(ran) == 4 * 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_nobody_holds_it_in_a_forked_child() -> None:
    """The thread that held it in the parent is not in the child, which enters at once, and again."""
    latch = Latch()
    entered, go_on = threading.Event(), threading.Event()

    def section() -> None:
        with latch:
            entered.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=section)
    thread.start()
    assert entered.wait(60)

    def enter() -> bool:
        with latch:
            return True

    child = os.fork()
    if child == 0:
        signal.alarm(30)  # which ends a child that waits
        os._exit(0 if enter() and enter() else 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_nested_entry_is_let_through_and_counted() -> None:
    """A handler that runs inside the section of its own thread enters at once, the section sees that, and still holds on."""
    latch = Latch()
    entered, go_on = threading.Event(), threading.Event()

    def handler() -> bool:
        with latch:
            return inside_section()

    def section() -> None:
        with latch:
            before = latch.entries
            assert handler()
            assert latch.entries == before + 1
            entered.set()
            assert go_on.wait(60)

    def other() -> None:
        with latch:
            done.set()

    done = threading.Event()
    holder = threading.Thread(target=section)
    holder.start()
    assert entered.wait(60)
    waiter = threading.Thread(target=other)
    waiter.start()
    assert not done.wait(0.05)  # the nested exit has not let go of the section around it
    go_on.set()
    assert done.wait(60)
    holder.join()
    waiter.join()
    assert not inside_section()


def test_a_call_is_present_while_it_runs() -> None:
    """Running, waiting in another thread, returned, left by an exception: only the first two are at work."""
    left: list[FramePresence] = []
    begun, go_on = threading.Event(), threading.Event()

    def returns() -> FramePresence:
        presence = FramePresence()
        assert presence.present()
        assert called_by(presence)
        return presence

    def called_by(presence: FramePresence) -> bool:
        own = FramePresence()
        return presence.beneath(own) and not own.beneath(presence)

    def raises() -> None:
        left.append(FramePresence())
        raise Interruption

    def waits() -> None:
        left.append(FramePresence())
        begun.set()
        assert go_on.wait(60)

    assert not returns().present()
    with pytest.raises(Interruption):
        raises()
    assert not left[0].present()
    thread = threading.Thread(target=waits)
    thread.start()
    assert begun.wait(60)
    assert left[1].present()
    assert not left[1].beneath(FramePresence())  # it is on another thread's stack
    go_on.set()
    thread.join()
    assert not left[1].present()


def test_a_presence_that_is_forgotten_keeps_nothing_alive() -> None:
    """After `forget` it is absent, though its call still runs."""
    presence = FramePresence()
    assert presence.present()
    presence.forget()
    assert not presence.present()
    assert not FramePresence().beneath(presence)


def test_a_task_is_present_until_it_is_done_or_its_loop_closed() -> None:
    """Tasks that ended, and those that a closed loop will never run, are gone."""

    async def begin() -> tuple[TaskPresence, TaskPresence]:
        loop = asyncio.get_running_loop()
        done = loop.create_task(asyncio.sleep(0))
        pending = loop.create_task(asyncio.sleep(3600))
        first, second = TaskPresence(done, loop), TaskPresence(pending, loop)
        assert first.present()
        assert TaskPresence.of_current().present()
        await done
        pending._log_destroy_pending = False  # type: ignore[attr-defined]
        return first, second

    loop = asyncio.new_event_loop()
    done, pending = loop.run_until_complete(begin())
    assert not done.present()
    assert pending.present()
    assert not pending.beneath(FramePresence())
    loop.close()
    assert not pending.present()
