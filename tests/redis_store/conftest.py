"""Redis stores without a cache in front of them, and what their transport is tested with."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

from memover.engine.store import Request, StoredEntry
from memover.model import MISSING, Key
from memover.runtime.run import run
from memover.stores.redis import RedisStore
from memover.stores.redis.limits import Limits
from memover.stores.redis.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUDGET = 0.25


def limits(**options: Any) -> Limits:
    wanted: dict[str, Any] = {
        "socket_timeout": BUDGET,
        "socket_connect_timeout": BUDGET,
        "max_connections": 64,
        "breaker_first_seconds": 0.25,
        "breaker_last_seconds": 2.0,
        **options,
    }
    return Limits(**wanted)


@pytest.fixture
def open_store() -> Iterator[Callable[..., RedisStore]]:
    """`open_store(url, max_connections=4)`: a store of the test's own, closed with it."""
    with ExitStack() as stack:

        def opened(url: str, **options: Any) -> RedisStore:
            store = RedisStore(parse_url(url), limits(**options))
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def key(prefix: str) -> Key:
    return a_key(prefix)


def a_key(prefix: str, text: str = "a") -> Key:
    return Key(f"{prefix}:1:f:{text}", (f"{prefix}:gen:f".encode(),))


def request_for(key: Key) -> Request:
    return Request(key, secrets.token_hex(8), 20_000, (), [0] * key.required)


def entry_for(request: Request, raw: bytes = b"raw", names: tuple[bytes, ...] = ()) -> StoredEntry:
    # A Redis store looks at no header.
    return StoredEntry(request.key, request.token, raw, 600_000, cast("Any", None), MISSING, names)


def filled(store: RedisStore, prefix: str, number: int) -> list[Key]:
    """Keys whose entries are their own names."""
    keys = [a_key(prefix, f"k{n}") for n in range(number)]
    for key in keys:
        request = request_for(key)
        run(store.acquire(request))
        run(store.store(entry_for(request, key.entry)))
    return keys


def lasted(began: float) -> float:
    return time.monotonic() - began


class OddServer:
    """What answers as no Redis does: `answer(words)` gives the bytes, or None to say nothing. A context manager.

    A real server cannot be made to answer wrongly, or byte by byte."""

    def __init__(self, answer: Callable[[list[bytes]], bytes | None], pause: float = 0.0) -> None:
        self._answer = answer
        self._pause = pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(self._serve, connection)
        except OSError:
            pass

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            while line := stream.readline():
                words = []
                for _ in range(int(line[1:])):
                    words.append(stream.read(int(stream.readline()[1:]) + 2)[:-2])
                answer = b"-NOPERM no\r\n" if words[0] == b"INFO" else self._answer(words)
                if answer is None:
                    continue
                if not self._pause or words[0] == b"INFO":
                    connection.sendall(answer)
                    continue
                for at in range(len(answer)):
                    connection.sendall(answer[at : at + 1])
                    time.sleep(self._pause)
        except (OSError, ValueError):
            pass
        finally:
            stream.close()
            connection.close()

    def __enter__(self) -> OddServer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
