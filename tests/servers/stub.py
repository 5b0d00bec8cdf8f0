"""A server that shakes hands as Redis does and then answers every command with the same bytes.

For what no real Redis can be made to say: replies of a wrong type, from a proxy in between, a fork, or a desynchronised stream.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["StubServer"]

_HANDSHAKE = {
    b"AUTH": b"+OK\r\n",
    b"CLIENT": b"+OK\r\n",
    b"HELLO": b"-ERR unknown command 'HELLO'\r\n",
    b"PING": b"+PONG\r\n",
    b"ROLE": b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
    b"SELECT": b"+OK\r\n",
}


class StubServer:
    """A context manager; `reply` is what every command but those of the handshake is answered with, and may be changed."""

    def __init__(self, reply: bytes = b"+OK\r\n") -> None:
        self.reply = reply
        self.commands = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, name="stub-server", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)  # so that no connection comes after these
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as stream:
            while line := stream.readline():
                words = []
                for _ in range(int(line[1:])):  # an array of bulk strings: what clients send
                    length = int(stream.readline()[1:])
                    words.append(stream.read(length + 2)[:-2])
                name = words[0].upper()
                answer = _HANDSHAKE.get(name)
                if answer is None:
                    self.commands += 1
                    answer = self.reply
                connection.sendall(answer)
