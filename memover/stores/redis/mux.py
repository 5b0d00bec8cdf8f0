"""Connections of one event loop to one server, shared by all its tasks: commands of one loop turn leave in one write.

    submit ─▶ pending ──end of the turn: one write──▶ in flight (a FIFO of futures) ──an answer each──▶ done

A command that comes while nothing is in flight, after one that was alone in its turn, does not wait for the end of its own: a task
that asks one thing after another needs a turn less for each. Where others come in the same turn, they leave in one write after it.
After a write the loop does not sleep for some turns: see `looks`.
Answers come in the order of the commands, so the head of the FIFO is whose the next one is. A caller that was cancelled
keeps its place, and its answer is dropped. One timer for each connection looks at the head: what is overdue there while
nothing can be read is the server's silence; what can be read is read first, so that a loop that was held up is not taken
for a silent server. `_inside` says that the FIFO is being changed: an exception from outside at that moment leaves it set,
and the connection is given up, because its next answer could be anybody's.

Nothing here keeps the loop: a loop that is closed and dropped takes its connections with it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from redis.exceptions import InvalidResponse, ResponseError

from memover.clocks import monotonic
from memover.errors import raised_by_handler
from memover.readable import readable
from memover.stores.redis.endings import Ending
from memover.stores.redis.failures import Lost, ValueFault
from memover.stores.redis.limits import FLOOR_BYTES
from memover.stores.redis.looks import Awake
from memover.stores.redis.overdue import Overdue, Turn
from memover.stores.redis.resp import NOT_ENOUGH, new_reader

if TYPE_CHECKING:
    from memover.stores.redis.opening import Line

__all__ = ["Mux"]

_CHUNK = 1 << 18
_BACKLOG_BYTES = 1 << 24
"""How many bytes wait for the kernel at most before callers wait in turn."""
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Mux:
    """One connection and whatever is in flight on it. Every method is for the loop that made it."""

    sock: Any = None

    def __init__(self, line: Line, budget: float) -> None:
        self.sock = line.socket
        # For a loop that is gone, closed or a parent's: to close the socket is all that is left to do.
        self._ending = Ending(self, line.socket)
        self.answered = 0
        self.backlog = 0
        self._budget = budget
        self._reader = new_reader()
        self._tls = isinstance(line.socket, ssl.SSLSocket)
        self._pending: list[Any] = []
        """What waits for the end of the turn, each command's bytes followed by what `_flying` will hold for it."""
        self._flying: deque[Any] = deque()
        """What is in flight: a future each, or a future and the number of its answers."""
        self._partial: list[Any] = []
        self._overdue = Overdue(budget)
        self._unsent: deque[memoryview] = deque()
        self._sent = 0
        self._received = 0
        self._inside = False
        self._refused = False
        """Whether the server refused a command as too long: it hangs up, and does nothing of what was sent behind it."""
        self._flushing = False
        self._alone = False
        """Whether the last write was of one command only."""
        self._due = 0.0
        """When the timer comes; 0.0 while there is none."""
        self._room: list[asyncio.Future[None]] = []
        self.sock.setblocking(False)
        # `asyncio.get_running_loop` asks the system for the process each time, up to Python 3.11.
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._awake = Awake(self._loop, self._flying)
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._readable)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._flying and not self._pending

    def submit(self, packed: bytes, count: int = 1) -> asyncio.Future[Any]:
        """Sends commands with the others of this turn; answers: the one answer, or a list if `count` is not 1. Where nothing is in
        flight and the last command was alone in its turn, this one is taken to be alone too, and sent at once.

        The future raises `Lost`, `TimeoutError` or redis-py's `InvalidResponse`."""
        loop: Any = self._loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.extend((packed, future if count == 1 else (future, count)))
        if self._alone and not self._flying and not self._flushing:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return future

    async def room(self) -> None:
        """Returns when not too much waits for the kernel to be sent."""
        while self.backlog > _BACKLOG_BYTES and self.sock is not None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(turn)
            await turn

    def hung_up(self) -> bool:
        """Whether there is anything to be read on this idle connection: its end, or an answer that nobody waits for."""
        if self.sock is None:
            return True
        try:
            if self._tls:
                return readable([self.sock])
            self.sock.recv(1, socket.MSG_PEEK)
        except _NOT_NOW:
            return False
        except (OSError, ValueError) as error:
            if raised_by_handler(error):
                raise
        return True

    def close(self, error: Exception | None = None) -> None:
        """Closes the connection now; what is in flight fails with `error` (a `Lost` where there is none)."""
        sock, self.sock = self.sock, None
        if sock is not None:
            loop = asyncio.get_running_loop()
            fd = sock.fileno()
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            sock.close()
            self._ending.detach()
        self._fail(error)

    def abandon(self) -> None:
        """Closes the socket of a loop that is closed, from whichever thread."""
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()
        self._ending.detach()

    # -- out --------------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        if self._inside or self.sock is None:
            self.close()
            return
        self._inside = True
        try:
            data, size = self._take_off()
            self.backlog += size
            now = monotonic()
            self._overdue.written(Turn(self._sent, now, self.answered, self._received, self.backlog))
            if self._unsent:
                self._unsent.append(memoryview(data))
            else:
                try:
                    done = self.sock.send(data)
                except _NOT_NOW:
                    done = 0
                self.backlog -= done
                if done < size:
                    self._unsent.append(memoryview(data)[done:])
                    asyncio.get_running_loop().add_writer(self.sock.fileno(), self._writable)
            if not self._due:
                self._arm(now + self._budget)
            self._awake.written()
            self._inside = False
        except OSError as error:
            self._inside = False
            self._broken(error)
        except BaseException:
            self.close()  # an exception from outside: what was sent is not known
            raise

    def _take_off(self) -> tuple[bytes, int]:
        """What is pending as bytes, its futures now in flight."""
        pending = self._pending
        futures = pending[1::2]
        self._flying.extend(futures)  # first, so that whatever interrupts this leaves no future that nobody fails
        self._pending = []
        self._sent += len(futures)
        self._alone = len(futures) == 1
        data = b"".join(pending[::2])
        return data, len(data)

    def _writable(self) -> None:
        sock = self.sock
        if sock is None:
            return
        try:
            while self._unsent:
                data = self._unsent[0]
                done = sock.send(data[:FLOOR_BYTES])
                self.backlog -= done
                if done < len(data):
                    self._unsent[0] = data[done:]
                else:
                    self._unsent.popleft()
        except _NOT_NOW:
            pass
        except OSError as error:
            self._broken(error)
            return
        else:
            asyncio.get_running_loop().remove_writer(sock.fileno())
        if self._room and self.backlog < _BACKLOG_BYTES // 2:
            self._let_in()

    def _let_in(self) -> None:
        turns, self._room = self._room, []
        for turn in turns:
            if not turn.done():
                turn.set_result(None)

    # -- in ---------------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._inside:
            self.close()
            return
        sock = self.sock
        if sock is None:
            return
        self._inside = True
        data: bytes | None = None
        try:
            data = sock.recv(_CHUNK)
            while data:
                self._received += len(data)
                self._reader.feed(data)
                self._hand_out()
                # What TLS has decrypted already shows in no selector.
                data = sock.recv(_CHUNK) if self._tls and sock.pending() else None
        except _NOT_NOW:
            pass
        except InvalidResponse as error:
            self.close(error)
            return
        except OSError as error:
            self._inside = False
            self._broken(error)
            return
        except BaseException:
            self.close()  # an exception from outside: to which command the next answer belongs is not known
            raise
        self._inside = False
        if data == b"":
            self._broken(None)

    def _hand_out(self) -> None:
        gets, flying = self._reader.gets, self._flying
        while (answer := gets()) is not NOT_ENOUGH:
            if not flying:
                raise InvalidResponse("the server answered what was not asked")
            self.answered += 1
            if answer.__class__ is ResponseError and "Protocol error" in str(answer):
                self._refused = True
            future = flying.popleft()
            if future.__class__ is tuple:
                self._partial.append(answer)
                if len(self._partial) < future[1]:
                    flying.appendleft(future)
                    continue
                future, answer, self._partial = future[0], self._partial, []
            if not future.done():
                future.set_result(answer)

    # -- time -------------------------------------------------------------------------------------------------------------

    def _arm(self, due: float) -> None:
        # The timer's handle is not kept: it refers to the loop, which would then refer to itself.
        self._due = due
        asyncio.get_running_loop().call_later(max(due - monotonic(), 0.0), self._check)

    def _first_due(self) -> float:
        return self._overdue.due(self._sent - len(self._flying), self.answered, self._received)

    def _check(self) -> None:
        expected, self._due = self._due, 0.0
        if self.sock is None:
            return
        now, due = monotonic(), self._first_due()
        if due and due <= now:
            self._readable()
            if self.sock is None:
                return
            due = self._first_due()
            first = self._overdue.first
            if first is not None and due <= now:
                more = self._overdue.spare(now - expected)
                if not more:
                    message = f"{now - first.at:.3g} s"
                    large = first.size >= FLOOR_BYTES
                    self.close(ValueFault(f"not taken in {message}") if large else TimeoutError(message))
                    return
                due = now + more
        if due:
            self._arm(due)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def _broken(self, error: OSError | None) -> None:
        if error is not None and self._overdue.first is not None:
            # A server that refuses a value for its size says so before it hangs up in the middle of our sending.
            try:
                while data := self.sock.recv(_CHUNK):
                    self._received += len(data)
                    self._reader.feed(data)
                    self._hand_out()
            except (*_NOT_NOW, OSError, InvalidResponse):
                pass
        self.close(Lost(str(error) if error else "the server closed the connection"))

    def _fail(self, error: Exception | None) -> None:
        used = self.answered > 0
        flying = [*self._flying]
        self._flying.clear()
        pending, self._pending = self._pending, []
        self._partial = []
        self._overdue.clear()
        self._unsent.clear()
        self.backlog = 0
        for future in flying:
            _give_up(future, error, used, not self._refused)
        for future in pending[1::2]:
            _give_up(future, None, used, False)
        self._let_in()


def _give_up(future: Any, error: Exception | None, used: bool, sent: bool) -> None:
    if future.__class__ is tuple:
        future = future[0]
    if future.done():
        return
    # One exception for each caller: they go different ways from here.
    if error is None or isinstance(error, Lost):
        lost = Lost(str(error or "the connection was closed"))
        lost.used, lost.sent = used, sent
        future.set_exception(lost)
    else:
        future.set_exception(type(error)(*error.args))
