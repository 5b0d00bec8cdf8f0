"""Looking through a Redis from outside, in bounded steps: SCAN node by node, and pipelines for what each page holds.

A step is one SCAN and, for the keys it found, one pipeline: Redis is never held up for longer than a SCAN of `step` keys
takes. KEYS is never sent. `CLIENT NO-TOUCH` (Redis 7.2) goes before what reads values, so that looking does not make every
key recently used; older servers refuse it, and then a look counts as a use (Redis docs, "CLIENT NO-TOUCH").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, ResponseError

from memover.clocks import monotonic
from memover.stores.redis.failures import translated
from memover.stores.redis.journey import performed, routed
from memover.stores.redis.limits import Limits
from memover.stores.redis.store import RedisStore
from memover.stores.redis.url import parse_url
from memover.stores.survey import HEAD_LIMIT_BYTES, Facts, Page, Right, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.stores.redis.url import Node

__all__ = ["RedisSurvey"]

_NO_TOUCH = (b"CLIENT", b"NO-TOUCH", b"ON")
_TOUCH = (b"CLIENT", b"NO-TOUCH", b"OFF")
_KEYS_A_PIPELINE = 500
"""So that a page of a large step, with the heads of its values, stays some hundred kilobytes."""

_ALLOWED = b"""
if not redis.acl_check_cmd then return {} end
local refused = {}
for at, each in ipairs({{'set', KEYS[1], 'x'}, {'get', KEYS[1]}, {'mget', KEYS[1]}, {'del', KEYS[1]}, {'unlink', KEYS[1]},
                        {'pexpire', KEYS[1], '1'}, {'pttl', KEYS[1]}, {'exists', KEYS[1]}, {'time'}}) do
  if not redis.acl_check_cmd(unpack(each)) then refused[#refused + 1] = each[1] end
end
return refused
"""
"""KEYS a name of ours · answer: the commands that this user may not send, none from servers older than 7.0."""


class RedisSurvey:
    """A Redis or Valkey, standalone, behind Sentinel, or a Cluster; see `memover.stores.survey.Survey`."""

    hashed = True

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.address = store.address
        self._no_touch = True

    @classmethod
    def at(cls, url: str, answer_seconds: float) -> RedisSurvey:
        """A survey with connections of its own."""
        limits = Limits(
            socket_timeout=answer_seconds,
            socket_connect_timeout=answer_seconds,
            max_connections=4,
            breaker_first_seconds=0.25,
            breaker_last_seconds=2.0,
        )
        return cls(RedisStore(parse_url(url), limits))

    def close(self) -> None:
        self._store.close()

    def total(self) -> int:
        return sum(int(self._one(node, b"DBSIZE")) for node in self._store.nodes())

    def keys(self, pattern: bytes, step: int = 1000) -> Iterator[Page]:
        for node in self._store.nodes():
            cursor = b"0"
            while True:
                answer = self._one(node, b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % step)
                cursor = bytes(answer[0])
                yield Page(step, tuple(answer[1]))
                if cursor == b"0":
                    break

    def facts(self, keys: Sequence[bytes], head: int = HEAD_LIMIT_BYTES) -> list[Facts | None]:
        last = b"%d" % (head - 1)
        commands: list[tuple[bytes, tuple[bytes, ...]]] = [
            each
            for key in keys
            for each in (
                (key, (b"PTTL", key)),
                (key, (b"MEMORY", b"USAGE", key)),
                (key, (b"GETRANGE", key, b"0", last)),
            )
        ]
        answers = self._sent(commands)
        return [_facts(key, *answers[3 * at : 3 * at + 3]) for at, key in enumerate(keys)]

    def value(self, key: bytes) -> bytes | None:
        (answer,) = self._sent([(key, (b"GET", key))])
        return answer if isinstance(answer, bytes) else None

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        # MGET, which answers nil for a key of another type, one name each: in a Cluster they are in many slots.
        answers = self._sent([(name, (b"MGET", name)) for name in names])
        return [answer[0] if isinstance(answer, list) else None for answer in answers]

    def servers(self) -> list[Server]:
        return [self._server(node) for node in self._store.nodes()]

    def _server(self, node: Node | None) -> Server:
        notes = []
        info: dict[str, str] = {}
        for section in (b"server", b"memory", b"replication", b"stats"):
            (answer,) = self._store.visit(node, [(b"INFO", section)])
            if isinstance(answer, ResponseError):
                notes.append(f"INFO is refused: {answer}")
                break
            for line in answer.decode("utf-8", "replace").splitlines():
                name, colon, value = line.partition(":")
                if colon:
                    info[name] = value
        (time,) = self._store.visit(node, [(b"TIME",)])
        clock = None if isinstance(time, Exception) else int(time[0]) + int(time[1]) / 1e6
        product = info.get("server_name", "redis")
        version = info.get("valkey_version" if product == "valkey" else "redis_version", "")
        return Server(
            address=self.address if node is None else f"{node[0]}:{node[1]}",
            product=product.capitalize(),
            version=version,
            role={"master": "primary", "slave": "replica"}.get(info.get("role", ""), info.get("role", "")),
            memory_used=_int(info.get("used_memory")),
            memory_limit=_int(info.get("maxmemory")),
            policy=info.get("maxmemory_policy"),
            evicted=_int(info.get("evicted_keys")),
            replicas=_int(info.get("connected_slaves")),
            clock=clock,
            notes=tuple(notes),
        )

    def rights(self, prefix: str) -> list[Right]:
        name = f"{prefix}:report:doctor".encode()
        reads, scripted = self._sent([(name, (b"MGET", name)), (name, (b"EVAL", _ALLOWED, b"1", name))])
        refused = [each.decode() for each in scripted] if isinstance(scripted, list) else []
        found = [
            _right("read keys", reads),
            _right("run scripts", scripted),
            Right("write keys", not refused, f"refused: {', '.join(refused)}" if refused else ""),
        ]
        for node in self._store.nodes()[:1]:
            for word, command in (
                ("scan", (b"SCAN", b"0", b"MATCH", name, b"COUNT", b"1")),
                ("measure keys", (b"MEMORY", b"USAGE", name)),
            ):
                answer = self._store.visit(node, [command])[0]
                # MovedError is an AskError too: the server would have done it, for keys of its own.
                found.append(Right(word, True) if isinstance(answer, AskError) else _right(word, answer))
        return found

    def latency(self, count: int) -> list[float]:
        nodes = self._store.nodes()
        for node in nodes:
            self._store.visit(node, [(b"PING",)])  # the connection is not what is measured
        took = []
        for at in range(count):
            began = monotonic()
            self._store.visit(nodes[at % len(nodes)], [(b"MGET", b"memover:latency")])
            took.append(monotonic() - began)
        return took

    def unlink(self, keys: Sequence[bytes]) -> list[bool]:
        # One command for each: in a Cluster the keys of one node are in many slots.
        return [answer == 1 for answer in self._sent([(key, (b"UNLINK", key)) for key in keys], looking=False)]

    def put(self, key: bytes, value: bytes, expire_ms: int) -> None:
        for answer in self._sent([(key, (b"SET", key, value, b"PX", b"%d" % expire_ms))], looking=False):
            if isinstance(answer, Exception):
                raise translated(answer, self.address)

    def drop(self, entry: bytes, lease: bytes, along: Sequence[bytes], nonce: str) -> None:
        self._store.link.complete(self._store.drop(entry, lease, nonce, along))

    def _one(self, node: Node | None, *command: bytes) -> Any:
        (answer,) = self._store.visit(node, [command])
        if isinstance(answer, Exception):
            raise translated(answer, self.address)
        return answer

    def _sent(self, commands: list[tuple[bytes, tuple[bytes, ...]]], *, looking: bool = True) -> list[Any]:
        """The answers to commands, each with the key it is routed by; errors of the server are answers."""
        answers: list[Any] = []
        for at in range(0, len(commands), 3 * _KEYS_A_PIPELINE):
            hops = routed(commands[at : at + 3 * _KEYS_A_PIPELINE], self._store.link.topology)
            answers += performed(hops, lambda visits: [self._pipeline(*visit, looking) for visit in visits])
        return answers

    def _pipeline(self, node: Node | None, commands: list[tuple[bytes, ...]], looking: bool) -> list[Any]:
        if not (looking and self._no_touch):
            return self._store.visit(node, commands)
        first, *answers = self._store.visit(node, [_NO_TOUCH, *commands, _TOUCH])
        if isinstance(first, Exception):
            self._no_touch = False
        return answers[:-1]


def _facts(key: bytes, ttl: Any, size: Any, head: Any) -> Facts | None:
    if ttl == -2:
        return None
    text = head if isinstance(head, bytes) else b""
    # A user that may not ask for MEMORY USAGE still sees roughly how much there is.
    taken = size if isinstance(size, int) else len(key) + len(text)
    expires = ttl if isinstance(ttl, int) and ttl >= 0 else None
    return None if size is None else Facts(key, taken, expires, text)


def _right(name: str, answer: Any) -> Right:
    """Whether the server did it; if not, what it said."""
    refused = isinstance(answer, Exception)
    return Right(name, not refused, str(answer) if refused else "")


def _int(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) else None
