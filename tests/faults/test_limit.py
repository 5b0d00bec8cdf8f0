"""The time limit of the asyncio store: it ends what takes too long, and blames nobody for a loop that was held up."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from memover.stores.redis.limit import Limit


def test_what_takes_too_long_is_ended() -> None:
    """A wait beyond the limit is an `asyncio.TimeoutError`, and the task goes on unharmed."""

    async def whole() -> str:
        began = time.monotonic()
        with pytest.raises(asyncio.TimeoutError), Limit(0.05):
            await asyncio.sleep(30)
        assert 0.05 <= time.monotonic() - began < 10
        await asyncio.sleep(0)
        return "on"

    assert asyncio.run(whole()) == "on"


def test_what_ends_in_time_is_left_alone() -> None:
    """Neither the work nor what follows it hears of the limit; errors of the work come out as they are."""

    async def whole() -> None:
        with Limit(0.05):
            await asyncio.sleep(0)
        with pytest.raises(LookupError), Limit(0.05):
            raise LookupError
        await asyncio.sleep(0.1)

    asyncio.run(whole())


@pytest.mark.parametrize("held_up", [0.06, 0.11, 0.5])
def test_an_answer_that_came_while_the_loop_was_held_up_counts(held_up: float) -> None:
    """Whether the loop was held up for half the limit, just beyond it or for long, what has come in is handed out."""

    async def whole() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        for _ in range(5):

            async def ask() -> bytes:
                with Limit(0.1):
                    return await reader.readexactly(1)

            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            theirs.send(b"x")
            time.sleep(held_up)
            assert await asking == b"x"
        writer.close()
        theirs.close()
        return b""

    asyncio.run(whole())


def test_limits_nest() -> None:
    """The inner one's end is an error of the work for the outer one, and the other way round the inner is passed."""

    async def whole() -> None:
        with Limit(20), pytest.raises(asyncio.TimeoutError), Limit(0.02):
            await asyncio.sleep(30)
        with pytest.raises(asyncio.TimeoutError), Limit(0.02), Limit(20):
            await asyncio.sleep(30)

    asyncio.run(whole())


def test_a_cancellation_of_the_caller_is_none_of_the_limits() -> None:
    """Whoever is cancelled inside a limit is cancelled, and does not time out."""

    async def whole() -> None:
        async def work() -> None:
            with Limit(20):
                await asyncio.sleep(30)

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(whole())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot tell two cancellations apart")
def test_a_cancellation_that_comes_with_the_end_is_not_swallowed() -> None:
    """Both at once: the caller's own cancellation wins."""

    async def whole() -> None:
        async def work() -> None:
            limit = Limit(20)
            with limit:
                asyncio.get_running_loop().call_soon(limit._last)
                asyncio.get_running_loop().call_soon(task.cancel)
                await asyncio.sleep(30)

        task = asyncio.ensure_future(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(whole())
