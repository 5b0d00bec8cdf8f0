"""A blocking connection that says by its own state whether it may be used again: see `pool`.

The kernel keeps the time limits (SO_RCVTIMEO), which saves a system call for each exchange. A limit begins anew when a
signal interrupts the wait, because Python repeats the call after its handler has run (PEP 475): with one every 10 ms a wait
would never end. So where a timer's signal has a handler (SIGALRM, SIGPROF), the main thread, which is the one that signals
interrupt, waits by `poll` first. What remains are signals that another process sends more often than the time limit.

Before a thread waits, it looks for the answer for a moment: see `looks`. A short command is sent without letting go of the
interpreter's lock: among eight threads that compete for it an exchange waits for it once instead of twice, and takes 0.8 of the
time. It cannot keep others waiting, because what the kernel does not take at once is sent in the usual way.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what the signal module is made of
import select
import socket
import struct
import threading
from _thread import get_ident
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from memover.clocks import monotonic
from memover.errors import raised_by_handler
from memover.readable import readable
from memover.stores.redis import looks
from memover.stores.redis.endings import Ending
from memover.stores.redis.limits import FLOOR_BYTES
from memover.stores.redis.resp import NOT_ENOUGH, new_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.stores.redis.opening import Line

__all__ = ["WHOLE_BYTES", "Connection"]

_CHUNK = 1 << 16
WHOLE_BYTES = 1 << 15
"""What is not longer than this is sent by one call; the kernel has room for it, since all before it was answered."""
_NEARLY = 0.9
"""The kernel is given another limit when less than this share of the usual one is left: it costs two system calls."""
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
_ALARM, _PROFILE = (int(getattr(_signal, name, 0)) for name in ("SIGALRM", "SIGPROF"))
_getsignal = _signal.getsignal  # that of `signal` makes an enum member first
_KERNEL = hasattr(socket, "SO_RCVTIMEO") and hasattr(select, "poll")

_send: Callable[[int, bytes, int, int], int] | None = None
"""The system's `send`, called with the interpreter's lock held."""
if _KERNEL:
    with suppress(ImportError, AttributeError, OSError):  # a Python that was built without ctypes
        import ctypes

        _system = ctypes.PyDLL(None).send
        _system.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        _system.restype = ctypes.c_ssize_t
        _send = _system


class Connection:
    """A blocking connection with time limits that the kernel keeps; `recv` needs no `poll` before it.

    Where that cannot be (TLS, gevent, Windows) the limits are those of Python's sockets."""

    __slots__ = (
        "__weakref__", "_blind", "_budget", "_ending", "_kernel", "_limited", "_look", "_main", "_reader", "_sock",
        "era", "owed", "posted", "posted_at", "ref", "used",
    )  # fmt: skip

    def __init__(self, line: Line, budget: float, era: int) -> None:
        self._ending = Ending(self, line.socket)
        self._sock = line.socket
        self._budget = budget
        self._reader = new_reader()
        self._kernel = _KERNEL and type(line.socket) is socket.socket and _is_native(line.socket)
        self._limited = False
        self._main = threading.main_thread().ident if self._kernel else None
        self._blind = 0
        self._look: Callable[[int], Any] | None = None
        self.era = era
        self.owed = 0
        self.posted: Callable[[Any], None] | None = None
        """Who is to be told the answer that comes first and that nobody waited for; `posted_at` is when it was asked for."""
        self.posted_at = 0.0
        self.used = False
        self.ref: Any = None
        """What the pool counts it by."""
        if self._kernel:
            self._sock.settimeout(None)
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            self._look = poll.poll
        self._limit(budget)

    def close(self) -> None:
        """Closes it. May be repeated."""
        self.owed = 1
        self._sock.close()
        self._ending.detach()
        posted, self.posted = self.posted, None
        if posted is not None:
            posted(RedisConnectionError("the connection was closed before the server answered"))

    def single(self, packed: bytes) -> Any:
        """Sends one short command and returns its answer, the server's error as an answer: the exchange of every hit."""
        if self._limited:
            self._limit(self._budget)
        self.owed = 1
        self._put(packed)
        reader = self._reader
        if not self._comes() and get_ident() == self._main and _timed():
            self._wait(select.POLLIN, self._budget)
        data = self._sock.recv(_CHUNK)
        reader.feed(data)
        answer = reader.gets()
        if answer is NOT_ENOUGH:
            if not data:
                raise RedisConnectionError("the server closed the connection")
            answer = self._next(monotonic() + self._budget * (1 + len(data) / FLOOR_BYTES))
        self.owed = 0
        self.used = True
        return answer

    def post(self, packed: bytes, posted: Callable[[Any], None]) -> bool:
        """Sends one short command whose answer nobody waits for; False where that cannot be told from a closed end."""
        if not self._kernel:
            return False
        if self._limited:
            self._limit(self._budget)
        self.owed = 1
        self.posted, self.posted_at = posted, monotonic()
        self._put(packed)
        self.owed = 0
        return True

    def single_after(self, packed: bytes) -> tuple[Any, Any]:
        """As `single`, on a connection with a posted command: the answer to that one, and the answer."""
        return self.single(packed), self.settle()

    def settle(self) -> Any:
        """The answer to the posted command."""
        self.owed = 1
        answer = self._reader.gets()
        if answer is NOT_ENOUGH:
            answer = self._next(monotonic() + self._budget)
        self.posted = None
        self.owed = 0
        self.used = True
        return answer

    def settles(self, seconds: float) -> bool:
        """Whether something is to be read within `seconds`: the answer to the posted command, or the connection's end."""
        return readable([self._sock], seconds)

    def overdue(self) -> bool:
        """Whether the posted command should have been answered long ago."""
        return monotonic() - self.posted_at > self._budget

    def send(self, packed: bytes, count: int, end: float) -> None:
        """Sends commands that will have `count` answers, until the time `end`."""
        self._limit_until(end)
        self.owed = count
        if len(packed) <= WHOLE_BYTES:
            self._put(packed)
            return
        rest = memoryview(packed)
        while rest:
            if get_ident() == self._main and _timed():
                self._wait(select.POLLOUT, end - monotonic())
            rest = rest[self._sock.send(rest[:FLOOR_BYTES]) :]
            self._limit_until(end)

    def receive(self, end: float) -> list[Any]:
        """The answers that are owed, until the time `end`; what is received prolongs it (see limits.FLOOR_BYTES)."""
        self._limit_until(end)
        answers: list[Any] = []
        while self.owed:
            answer = self._reader.gets()
            if answer is NOT_ENOUGH:
                answer, end = self._more(end)
            answers.append(answer)
            if self.owed == len(answers):
                self.owed = 0
        self.used = True
        return answers

    def last_words(self) -> Exception | None:
        """The error that the server answered before it closed the connection, if any."""
        try:
            self._limit(0.001)
            for _ in range(16):
                data = self._sock.recv(_CHUNK)
                if not data:
                    return None
                self._reader.feed(data)
                while (answer := self._reader.gets()) is not NOT_ENOUGH:
                    if isinstance(answer, ResponseError):
                        return answer
        except (OSError, RedisConnectionError):
            pass
        return None

    def hung_up(self) -> bool:
        """Whether there is anything to be read on this idle connection: its end, or an answer that nobody waits for."""
        try:
            if not self._kernel:
                return readable([self._sock])
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:  # a ValueError is a socket that has been closed
            if raised_by_handler(error):
                raise
        return True

    def _next(self, end: float) -> Any:
        return self._more(end)[0]

    def _more(self, end: float) -> tuple[Any, float]:
        while True:
            self._limit_until(end)
            if not self._comes() and get_ident() == self._main and _timed():
                self._wait(select.POLLIN, end - monotonic())
            data = self._sock.recv(_CHUNK)
            if not data:
                raise RedisConnectionError("the server closed the connection")
            end += self._budget * len(data) / FLOOR_BYTES
            self._reader.feed(data)
            answer = self._reader.gets()
            if answer is not NOT_ENOUGH:
                return answer, end

    def _put(self, packed: bytes) -> None:
        """Sends a short command."""
        sock = self._sock
        if _send is None or not self._kernel:
            sock.sendall(packed)
            return
        sent = _send(sock.fileno(), packed, len(packed), _AT_ONCE)
        if sent != len(packed):  # -1 where nothing was: if that was an error, it is raised here
            sock.sendall(packed[max(sent, 0) :])

    def _comes(self) -> bool:
        """Looks for the answer for a moment: whether there is something to be read."""
        look = self._look
        if look is None:
            return False
        if self._blind:
            self._blind -= 1
            return False
        until = monotonic() + looks.SECONDS
        for _ in looks.LOOKS:
            if look(0):
                return True
            looks.give_way()
            if monotonic() > until:
                break
        self._blind = looks.BLIND
        return False

    def _wait(self, event: int, seconds: float) -> None:
        """Waits until the socket is ready; `poll` goes on with what is left of the time after a signal."""
        poll = select.poll()
        poll.register(self._sock, event)
        if not poll.poll(max(seconds, 0.0) * 1000):
            raise TimeoutError("the time is over")

    def _limit_until(self, end: float) -> None:
        left = end - monotonic()
        if left < self._budget * _NEARLY:
            self._limit(left)
        elif self._limited:
            self._limit(self._budget)

    def _limit(self, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError("the time is over")
        self._limited = seconds != self._budget
        if self._kernel:
            value = _timeval(seconds)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        else:
            self._sock.settimeout(seconds)


def _timed() -> bool:
    """Whether a signal that a timer of this process sends has a handler in Python."""
    return _getsignal(_ALARM).__class__ is not int or _getsignal(_PROFILE).__class__ is not int


def _timeval(seconds: float) -> bytes:
    micros = max(1, int(seconds * 1_000_000))
    return struct.pack("ll", micros // 1_000_000, micros % 1_000_000)


def _is_native(sock: Any) -> bool:
    # gevent and eventlet put classes of their own in the module's place, whose descriptors never block.
    import _socket

    return isinstance(sock, _socket.socket)
