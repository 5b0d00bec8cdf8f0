"""One exchange: an answer that comes at once is looked for before anybody sleeps, a command leaves whole however little the kernel
takes at once."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from memover.stores.redis import connection as of_threads
from memover.stores.redis import looks
from memover.stores.redis.connection import Connection
from memover.stores.redis.mux import Mux
from memover.stores.redis.opening import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED, ANSWER = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
BUDGET = 30.0


class Strike(BaseException):
    """An exception from outside."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def yields(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often a thread has given way to others, which it does after each look in vain."""
    counted: Counter[str] = Counter()
    monkeypatch.setattr(looks, "give_way", lambda: counted.update(["yields"]))
    return counted


def test_a_thread_takes_what_is_there(pair: tuple[socket.socket, socket.socket], yields: Counter[str]) -> None:
    ours, theirs = pair
    connection = Connection(Line(ours, None), BUDGET, 0)
    for _ in range(3):
        theirs.sendall(ANSWER)
        assert connection.single(ASKED) == b"PONG"
    assert yields["yields"] == 0
    connection.close()


@pytest.mark.parametrize("taken", [-1, 0, 1, 13, 14])
def test_what_the_kernel_does_not_take_at_once_follows(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    ours, theirs = pair

    def reluctant(fd: int, packed: bytes, size: int, flags: int) -> int:
        assert (fd, packed, size) == (ours.fileno(), ASKED, len(ASKED))
        return taken if taken < 1 else ours.send(packed[:taken])

    monkeypatch.setattr(of_threads, "_send", reluctant)
    connection = Connection(Line(ours, None), BUDGET, 0)
    theirs.sendall(ANSWER)
    assert connection.single(ASKED) == b"PONG"
    assert theirs.recv(100) == ASKED
    connection.close()


def test_a_command_longer_than_the_kernel_has_room_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    command = random.Random(1).randbytes(of_threads.WHOLE_BYTES)
    connection = Connection(Line(ours, None), BUDGET, 0)
    received = bytearray()

    def serve() -> None:
        while len(received) < len(command):
            received.extend(theirs.recv(1000))
        theirs.sendall(ANSWER)

    server = threading.Thread(target=serve)
    server.start()
    assert connection.single(command) == b"PONG"
    server.join()
    assert received == command
    connection.close()


def test_an_end_that_is_noticed_when_sending_is_raised(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    connection = Connection(Line(ours, None), BUDGET, 0)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        connection.single(ASKED)
    assert connection.owed == 1
    connection.close()
    with pytest.raises(OSError, match="file descriptor"):
        connection.single(ASKED)


class Late:
    """A poll object in whose time the answer comes: at the look with this number, or only after all of them."""

    def __init__(self, theirs: socket.socket, at: int) -> None:
        self.theirs, self.at, self.looks = theirs, at, 0

    def __call__(self, milliseconds: int) -> bool:
        assert milliseconds == 0, "nobody sleeps in a look"
        self.looks += 1
        if self.looks == self.at:
            self.theirs.sendall(ANSWER)
        return self.looks >= self.at


def test_a_thread_looks_for_a_moment_only(
    pair: tuple[socket.socket, socket.socket], yields: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes soon is found; after one that does not, the next hundred exchanges wait without a look."""
    monkeypatch.setattr(looks, "SECONDS", 3600.0)  # the number of looks decides, whatever else the machine does
    ours, theirs = pair
    connection = Connection(Line(ours, None), BUDGET, 0)
    connection._look = late = Late(theirs, 7)
    assert connection.single(ASKED) == b"PONG"
    assert (late.looks, yields["yields"]) == (7, 6)

    connection._look = late = Late(theirs, 1000)
    for number in range(1, 102):
        theirs.sendall(ANSWER)
        assert connection.single(ASKED) == b"PONG"
        assert late.looks == 64, number
    theirs.sendall(ANSWER)
    assert connection.single(ASKED) == b"PONG"
    assert late.looks == 128
    connection.close()


def test_a_thread_looks_no_longer_than_its_time(
    pair: tuple[socket.socket, socket.socket], yields: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine so busy that each look takes long, one is enough."""
    monkeypatch.setattr(looks, "SECONDS", -1.0)
    ours, theirs = pair
    connection = Connection(Line(ours, None), BUDGET, 0)
    connection._look = late = Late(theirs, 1000)
    theirs.sendall(ANSWER)
    assert connection.single(ASKED) == b"PONG"
    assert late.looks == yields["yields"] == 1
    connection.close()


def test_an_exception_during_a_look_leaves_a_connection_that_nobody_uses_again(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(*_: object) -> None:
        raise Strike

    ours, _ = pair
    connection = Connection(Line(ours, None), BUDGET, 0)
    monkeypatch.setattr(looks, "give_way", lambda: signal.raise_signal(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(Strike):
            connection.single(ASKED)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert connection.owed == 1
    connection.close()


def test_a_loop_sleeps_after_some_turns(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An awaited answer keeps its loop awake for fifty turns, and after one in vain the next hundred writes for none."""
    turns = 0
    turn = looks.Awake._turn

    def counted(self: looks.Awake) -> None:
        nonlocal turns
        turns += 1
        turn(self)

    monkeypatch.setattr(looks.Awake, "_turn", counted)
    ours, theirs = pair

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        mux = Mux(Line(ours, None), BUDGET)

        async def asked(late: bool) -> Any:
            future = mux.submit(ASKED)
            if late:
                for _ in range(2 * looks.TURNS):  # turns in which the answer does not come
                    await asyncio.sleep(0)
            else:
                loop.call_soon(theirs.sendall, ANSWER)
                return await future
            theirs.sendall(ANSWER)
            return await future

        assert await asked(late=False) == b"PONG"
        assert 1 <= turns <= looks.TURNS
        before = turns
        assert await asked(late=True) == b"PONG"
        assert turns - before == looks.TURNS + 1
        before = turns
        for _ in range(100):
            assert await asked(late=True) == b"PONG"
        assert turns == before
        assert await asked(late=True) == b"PONG"
        assert turns - before == looks.TURNS + 1
        mux.close()

    asyncio.run(whole())
