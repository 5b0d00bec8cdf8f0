"""One reply among sound ones is of a type that nobody expects, on a real Redis: every command in turn, every type in turn.

A server between client and Redis replaces the n-th reply. A call is then answered by its function or by a sound entry; what
changes something raises a `StoreError` or has been done; nothing raises anything else."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import hiredis
import pytest

from memover import InvalidationFailed, StoreError
from tests.face.ways import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

REPLIES = {
    "status": b"+WHATEVER\r\n",
    "ok": b"+OK\r\n",
    "error": b"-ERR what\r\n",
    "integer": b":7\r\n",
    "negative": b":-7\r\n",
    "large integer": b":9223372036854775807\r\n",
    "bulk": b"$3\r\nabc\r\n",
    "empty bulk": b"$0\r\n\r\n",
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "empty array": b"*0\r\n",
    "integers": b"*2\r\n:1\r\n:2\r\n",
    "three integers": b"*3\r\n:1\r\n:1\r\n:1\r\n",
    "nested": b"*1\r\n*1\r\n*0\r\n",
    "an error inside": b"*2\r\n-ERR what\r\n$-1\r\n",
    "mixed": b"*4\r\n:1\r\n$-1\r\n*1\r\n+OK\r\n$1\r\nx\r\n",
    "a grant of odd kinds": b"*3\r\n:1\r\n:1\r\n$3\r\nabc\r\n",
    "RESP3 null": b"_\r\n",
    "RESP3 true": b"#t\r\n",
    "RESP3 double": b",1.5\r\n",
    "RESP3 big number": b"(3492890328409238509324850943850943825024385\r\n",
    "RESP3 verbatim": b"=7\r\ntxt:abc\r\n",
    "RESP3 error": b"!8\r\nERR what\r\n",
    "RESP3 map": b"%1\r\n+a\r\n:1\r\n",
    "RESP3 set": b"~1\r\n:1\r\n",
    "RESP3 push": b">2\r\n+a\r\n:1\r\n",
}

STANDING = ("integer", "nil", "three integers")


class OneOdd:
    """Between clients and a Redis: forwards everything, but the `at`-th reply from `begin()` on is `reply`. A context manager.

    `before(words)` is called before a command is forwarded, and may take its time."""

    def __init__(self, server: RedisServer) -> None:
        self._upstream = (server.host, server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.before: Callable[[list[bytes]], object] = bool
        self.begin(b"", -1)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def begin(self, reply: bytes, at: int) -> None:
        """Count from here. `struck` says which command it was."""
        self.reply, self.at, self.count, self.struck = reply, at, 0, b""

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                upstream = socket.create_connection(self._upstream)
                self._connections += [connection, upstream]
                threading.Thread(target=self._serve, args=(connection, upstream), daemon=True).start()

    def _serve(self, connection: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as stream:
            while line := stream.readline():
                whole, words = line, []
                for _ in range(int(line[1:])):
                    head = stream.readline()
                    body = stream.read(int(head[1:]) + 2)
                    whole += head + body
                    words.append(body[:-2])
                self.before(words)
                upstream.sendall(whole)
                reader, answer = hiredis.Reader(), b""
                while reader.gets() is False:
                    data = upstream.recv(65536)
                    if not data:
                        return
                    answer += data
                    reader.feed(data)
                if words[0].upper() not in (b"INFO", b"CLIENT", b"HELLO", b"AUTH", b"SELECT", b"PING"):
                    self.count += 1
                    if self.count - 1 == self.at:
                        answer, self.struck = self.reply, words[0]
                connection.sendall(answer)
        connection.close()
        upstream.close()

    def __enter__(self) -> OneOdd:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def between(redis_server: RedisServer) -> Iterator[OneOdd]:
    with OneOdd(redis_server) as between:
        yield between


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest, between: OneOdd, prefix: str) -> Iterator[Way]:
    way = Way(between.url, is_async=request.param == "async", prefix=prefix)
    # The circuit lets every call through, and what is owed is repeated by the scenario alone.
    way.cache = way.new_cache(breaker_first=0.001, breaker_last=0.001, wait_timeout=0.2, socket_timeout=5, lease_ttl=1)
    yield way
    between.begin(b"", -1)
    with contextlib.suppress(InvalidationFailed):
        way.close()


def scenario(way: Way, name: str) -> Callable[[], None]:
    """Every kind of call, each of which checks what it says."""
    source = {"value": 0}
    tagged = way.cached(f"{name}-tagged", tags=("x:{x}",))(lambda x: [x, source["value"]])
    plain = way.cached(f"{name}-plain")(lambda x: [x, source["value"]])
    parent = way.cached(f"{name}-parent")(lambda x: plain(x))  # noqa: PLW0108 - a function of its own
    prefix = "a" if way.is_async else ""
    keyvalue = lambda method, *args: way.run(getattr(way.cache, prefix + method)(*args))  # noqa: E731

    def changed(invalidate: Callable[[], Any], read: Callable[[], Any]) -> None:
        """A change of the source, its invalidation, and a read that must see it if that was acknowledged."""
        source["value"] += 1
        try:
            way.run(invalidate())
        except InvalidationFailed:
            source["value"] -= 1  # the change is called off: either answer is right
            return
        assert way.run(read())[1] == source["value"], "acknowledged, and not done"

    def whole() -> None:
        for f in (tagged, plain):
            assert way.run(f(1))[0] == 1
            assert way.run(f(1))[0] == 1
            assert [each[0] for each in way.run(f.map([1, 2, 3]))] == [1, 2, 3]
            assert way.run(f.refresh(1))[0] == 1
            entry = way.run(f.peek(1))
            assert entry is None or entry.value[0] == 1
            with contextlib.suppress(StoreError):
                way.run(f.set([1, source["value"]], 1))
            changed(lambda f=f: f.invalidate(1), lambda f=f: f(1))
            changed(f.invalidate_all, lambda f=f: f(1))
        assert way.run(parent(1))[0] == 1
        tags = way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags
        changed(lambda: tags("x:1"), lambda: tagged(1))
        with contextlib.suppress(StoreError, InvalidationFailed):
            keyvalue("set", f"{name}-k", 1)
        assert keyvalue("get", f"{name}-k") in (None, 1)
        assert set(keyvalue("get_many", [f"{name}-k", "no"])) <= {f"{name}-k"}
        for method, arguments in (("add", (2,)), ("incr", ()), ("touch", (60,))):
            with contextlib.suppress(StoreError, InvalidationFailed, ValueError):
                keyvalue(method, f"{name}-k", *arguments)
        with contextlib.suppress(StoreError, InvalidationFailed):
            keyvalue("delete", f"{name}-k")
            assert keyvalue("get", f"{name}-k") is None, "acknowledged, and not done"

    return whole


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply, id=name, marks=() if name in STANDING else pytest.mark.slow)
        for name, reply in REPLIES.items()
    ],
)
def test_any_one_reply_may_be_odd(way: Way, between: OneOdd, reply: bytes) -> None:
    """Every reply of a scenario in turn; the scenario itself checks what each call says."""
    whole = scenario(way, "s")
    whole()
    at = 0
    while True:
        between.begin(reply, at)
        try:
            whole()
        except Exception as error:
            raise AssertionError(f"reply {at}, to {between.struck!r}: {error!r}") from error
        if not between.struck:
            break
        at += 1
    assert at > 30
