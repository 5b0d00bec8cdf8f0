"""What a near tier asks of Redis, on a connection of its own that nobody else waits for.

The connection speaks RESP3 where the server does (Redis 6), because there pushes come on the connection that asks
(redis.io, "Client-side caching": CLIENT TRACKING with BCAST tells of every key that begins with a prefix). A server or a
user to whom that is refused is asked by heartbeats alone. On a Cluster it is the node of the one token of `pulse`; other
tokens are read over the store's own connections, which know where they are.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from memover.clocks import monotonic
from memover.engine.store import TOKEN_MARGIN_MS
from memover.errors import StoreUnavailable
from memover.readable import readable
from memover.stores.redis import scripts
from memover.stores.redis.asking import Command, call
from memover.stores.redis.failures import translated
from memover.stores.redis.resp import NOT_ENOUGH, Push, Reader3, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.steps import Flow
    from memover.stores.feed import Feed
    from memover.stores.redis.store import RedisStore

__all__ = ["RedisFeed"]

_CHUNK = 1 << 16
_MINIMUM_SECONDS = 0.1


class RedisFeed:
    """The `memover.stores.feed.Feed` of a server. Opened when it is made, within about `seconds`, which also limit each answer."""

    def __init__(self, store: RedisStore, coarse: bytes, prefixes: Sequence[bytes], seconds: float) -> None:
        self._store = store
        self._coarse = coarse
        self._seconds = max(seconds, _MINIMUM_SECONDS)
        self._reader = Reader3()
        self._names: list[bytes] = []
        self._everything = False
        self._sentinel = store.link.servers.sentinel
        self.commands = 2 if self._sentinel else 1
        self._pulse = pack((b"MGET", coarse)) + (pack((b"ROLE",)) if self._sentinel else b"")
        self._socket: Any = None
        try:
            self._socket = _opened(store, coarse, self._seconds)
            self._socket.settimeout(self._seconds)
            (hello,) = self._asked(pack((b"HELLO", b"3")), 1)
            if not isinstance(hello, Exception):
                tracking = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"]
                for prefix in prefixes:
                    tracking += [b"PREFIX", prefix]
                self._asked(pack(tuple(tracking)), 1)  # refused: heartbeats alone
        except (RedisError, OSError) as error:
            self.close()
            raise translated(error, store.address) from None
        except BaseException:
            self.close()
            raise

    def pulse(self) -> bytes | None:
        try:
            answers = self._asked(self._pulse, self.commands)
            if self._sentinel and not (isinstance(answers[1], list) and answers[1][:1] == [b"master"]):
                self._store.link.servers.forget_primary()
                raise RedisConnectionError("the server that Sentinel named as the primary is none any more")
            return self._values(answers[0], 1)[0]
        except (RedisError, OSError) as error:
            raise self._translated(error) from None

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        if self._store.spread:
            return self._store.link.complete(self._apart(names))
        try:
            (answer,) = self._asked(pack((b"MGET", *names)), 1)
            return self._values(answer, len(names))
        except (RedisError, OSError) as error:
            raise self._translated(error) from None

    def _apart(self, names: Sequence[bytes]) -> Flow[list[bytes | None]]:
        answers = yield from self._store.asked([Command(name, (b"MGET", name)) for name in names])
        return [self._store.values(answer, 1)[0] for answer in answers]

    def keep(self, names: Sequence[bytes]) -> None:
        groups = [(name,) for name in names] if self._store.spread else [tuple(names)]
        self._store.link.complete(
            self._store.asked([call(scripts.KEEP, each, b"%d" % TOKEN_MARGIN_MS) for each in groups])
        )

    def pushed(self) -> tuple[list[bytes], bool]:
        try:
            while True:
                if self._next() is not NOT_ENOUGH:
                    raise InvalidResponse("an answer that nobody asked for")
                if not self._readable():
                    break
                self._receive()
        except (RedisError, OSError) as error:
            raise self._translated(error) from None
        names, everything = self._names, self._everything
        self._names, self._everything = [], False
        return names, everything

    def waiting(self) -> bool:
        return bool(self._names) or self._everything or self._reader.whole()

    def sources(self) -> list[Any]:
        return [] if self._socket is None else [self._socket]

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def _asked(self, packed: bytes, count: int) -> list[Any]:
        end = monotonic() + self._seconds
        self._socket.settimeout(self._seconds)
        self._socket.sendall(packed)
        answers: list[Any] = []
        while len(answers) < count:
            answer = self._next()
            if answer is NOT_ENOUGH:
                left = end - monotonic()
                if left <= 0:
                    raise TimeoutError("the heartbeat was not answered in time")
                self._socket.settimeout(left)
                self._receive()
            else:
                answers.append(answer)
        return answers

    def _next(self) -> Any:
        """The next answer; pushes before it are noted."""
        while True:
            answer = self._reader.gets()
            if answer.__class__ is not Push:
                return answer
            if answer[:1] == [b"invalidate"] and len(answer) == 2:
                if answer[1] is None:
                    self._everything = True  # FLUSHALL
                else:
                    self._names += answer[1]

    def _receive(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise RedisConnectionError("the server closed the connection")
        self._reader.feed(data)

    def _readable(self) -> bool:
        sock = self._socket
        pending = getattr(sock, "pending", None)
        if pending is not None and pending():
            return True
        return readable([sock])

    def _values(self, answer: Any, count: int) -> list[bytes | None]:
        if isinstance(answer, Exception):
            raise answer
        return self._store.values(answer, count)

    def _translated(self, error: BaseException) -> Exception:
        if self._store.spread:
            self._store.link.servers.forget_map()  # it may be another node's by now
        return translated(error, self._store.address)


def _opened(store: RedisStore, route: bytes, seconds: float) -> Any:
    """A connected socket to the node of a key, opened in the calling thread. Raises redis-py's errors, OSError and `StoreError`."""
    link, topology, node = store.link, store.link.topology, None
    if topology is not None:
        node = topology.owner(route)
        if node is None:  # it is learned by asking for the key
            link.complete(store.asked([Command(route, (b"MGET", route))]))
            node = topology.owner(route)
        if node is None:
            raise StoreUnavailable(f"{store.address}: no node answers for the slot of {route!r}.", store=store.address)
    return link.servers.open(node, seconds)


if TYPE_CHECKING:

    def _is_one(feed: RedisFeed) -> Feed:  # pyright: ignore[reportUnusedFunction]
        return feed
