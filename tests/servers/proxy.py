"""A TCP proxy in front of a server, to break the network between it and a client in every way that networks break.

It runs on an event loop in a thread of its own. A fault is in force when the method that asked for it returns, for
the connections that are open as well as for those to come, until `restore()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import weakref
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from typing_extensions import Self

    from .redis import RedisServer

__all__ = ["FaultyProxy"]

T = TypeVar("T")
_CHUNK = 65536


class _Flow(Enum):
    FORWARD = "forward"
    HOLD = "hold"
    SWALLOW = "swallow"


class _Connection:
    """One client's connection and ours to the server."""

    def __init__(self, accepted: socket.socket) -> None:
        self.accepted = accepted
        self.client: asyncio.StreamWriter | None = None
        self.server: asyncio.StreamWriter | None = None
        self.lost_bytes = False
        self.stranded = False

    def reset(self) -> None:
        """Close both ends with RST: what a crashed host or an impatient firewall sends."""
        if self.client is None:
            with contextlib.suppress(OSError):
                self.accepted.shutdown(socket.SHUT_RDWR)
        for writer in (self.client, self.server):
            if writer is not None:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.close()


class FaultyProxy:
    """A port in front of `server`; a context manager. `url` is the server's, through this port.

    `connections` counts those accepted since the start, `bytes_up` what was forwarded to the server, `bytes_down`
    what was forwarded to clients, and `bytes_held` what of answers was held back, be it for a moment.
    """

    def __init__(self, server: RedisServer) -> None:
        assert server.socket is None, "a unix socket has no network to break"
        self._server = server
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.bytes_held = 0
        self._requests = _Flow.FORWARD
        self._answers = _Flow.FORWARD
        self._delay = 0.0
        self._drip = 0.0
        self._rate = 0.0
        self._cut_after: int | None = None
        self._open: set[_Connection] = set()
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None
        # Bound but not listening while connections are refused, so that nobody else takes the port.
        self._placeholder: socket.socket | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self._do(self._listen())

    @property
    def url(self) -> str:
        return self._server.url_at(self.port)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return self._call(lambda: len(self._open))

    # Faults

    def delay(self, seconds: float) -> None:
        """Hand on every piece of an answer `seconds` late."""

        def change() -> None:
            self._delay = seconds

        self._call(change)

    def drip(self, seconds: float) -> None:
        """Hand on answers a byte at a time, `seconds` apart: a link that is alive and useless."""

        def change() -> None:
            self._drip = seconds

        self._call(change)

    def throttle(self, bytes_per_second: float) -> None:
        """Hand on requests no faster than this."""

        def change() -> None:
            self._rate = bytes_per_second

        self._call(change)

    def blackhole(self) -> None:
        """Accept connections and swallow what they send: a host behind a firewall that drops.

        The swallowed bytes are lost, so `restore()` resets the connections that lost some.
        """
        self._set(_Flow.SWALLOW, _Flow.SWALLOW)

    def half_open(self) -> None:
        """Requests reach the server and are carried out, answers do not come: `restore()` delivers them, late."""
        self._set(_Flow.FORWARD, _Flow.HOLD)

    def partition(self) -> None:
        """Hold both directions, as TCP does while packets are lost: `restore()` delivers everything, late."""
        self._set(_Flow.HOLD, _Flow.HOLD)

    def strand(self) -> None:
        """Swallow, for ever, what goes over the connections that are open now; new ones are served.

        What a client sees when its peer's machine was replaced, or a firewall forgot its connections."""

        def change() -> None:
            for connection in self._open:
                connection.stranded = True

        self._call(change)

    def cut(self) -> None:
        """Reset every open connection; new ones are served."""
        self._call(self._reset_all)

    def cut_mid_reply(self, after_bytes: int = 0) -> None:
        """Close, once, the connection whose answer comes next, when `after_bytes` of it have been handed on.

        The request has been carried out by then; with 0 the client learns nothing of it.
        """

        def change() -> None:
            self._cut_after = after_bytes

        self._call(change)

    def refuse(self) -> None:
        """Nobody listens on the port: open connections are reset and new ones refused."""
        self._do(self._stop_listening())

    def restore(self) -> None:
        """End every fault. Held bytes are delivered; connections that lost bytes are reset."""
        self._do(self._restore())

    # Life

    def close(self) -> None:
        """End it and every connection through it. May be repeated."""
        if self._loop.is_closed():
            return
        self._do(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside: everything below runs on the proxy's loop, but for these two

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, change: Callable[[], T]) -> T:
        async def work() -> T:
            return change()

        return self._do(work())

    def _set(self, requests: _Flow, answers: _Flow) -> None:
        def change() -> None:
            self._requests, self._answers = requests, answers
            self._wake()

        self._call(change)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset_all(self) -> None:
        for connection in tuple(self._open):
            connection.reset()

    async def _listen(self) -> None:
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self._placeholder = socket.socket()
            self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._placeholder.bind(("127.0.0.1", self.port))
        self._reset_all()

    async def _restore(self) -> None:
        for connection in tuple(self._open):
            if connection.lost_bytes:
                connection.reset()
        self._requests = self._answers = _Flow.FORWARD
        self._delay = 0.0
        self._drip = 0.0
        self._rate = 0.0
        self._cut_after = None
        self._wake()
        if self._listener is None:
            await self._listen()

    async def _shut_down(self) -> None:
        await self._stop_listening()
        if self._placeholder is not None:
            self._placeholder.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        for writer in tuple(self._writers):  # those, too, that wait for a peer to read the rest
            writer.transport.abort()
        await asyncio.sleep(0)  # the loop closes what is aborted in its next turn
        for connection in self._open:
            connection.accepted.close()  # those whose task never began

    def _accept(self, listener: socket.socket) -> None:
        # Not asyncio.start_server(): a connection that it is accepting while the server is closed is left open.
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.connections += 1
        connection = _Connection(accepted)
        self._open.add(connection)
        self._begin(self._serve(connection))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, connection: _Connection) -> None:
        requests, connection.client = await asyncio.open_connection(sock=connection.accepted)
        self._writers.add(connection.client)
        with contextlib.suppress(OSError):
            answers, connection.server = await asyncio.open_connection(self._server.host, self._server.port)
            self._writers.add(connection.server)
            await self._until_either_ends(
                self._pump_requests(connection, requests, connection.server),
                self._pump_answers(connection, answers, connection.client),
            )
        connection.close()
        self._open.discard(connection)

    async def _until_either_ends(self, *pumps: Coroutine[Any, Any, None]) -> None:
        tasks = [self._begin(pump) for pump in pumps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump_requests(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            while self._requests is _Flow.HOLD:
                await self._changed.wait()
            if connection.stranded:
                continue
            if self._requests is _Flow.SWALLOW:
                connection.lost_bytes = True
                continue
            if self._rate:
                await asyncio.sleep(len(chunk) / self._rate)
            writer.write(chunk)
            self.bytes_up += len(chunk)
            await writer.drain()

    async def _pump_answers(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            if self._answers is _Flow.HOLD:
                self.bytes_held += len(chunk)
            while self._answers is _Flow.HOLD:
                await self._changed.wait()
            if connection.stranded:
                continue
            if self._answers is _Flow.SWALLOW:
                connection.lost_bytes = True
                continue
            cut = self._cut_after is not None and len(chunk) >= self._cut_after
            if self._cut_after is not None:
                chunk = chunk[: self._cut_after]
                self._cut_after = None if cut else self._cut_after - len(chunk)
            while self._drip and len(chunk) > 1:
                writer.write(chunk[:1])
                chunk = chunk[1:]
                self.bytes_down += 1
                await asyncio.sleep(self._drip)
            writer.write(chunk)
            self.bytes_down += len(chunk)
            await writer.drain()
            if cut:
                return
