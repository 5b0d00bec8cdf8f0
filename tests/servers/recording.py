"""What a server was told to do, exactly: MONITOR between two marks.

Redis runs commands one after another and feeds MONITOR in that order, so every command that ran after MONITOR was
acknowledged and before the closing mark is in the list, and no other. Three things MONITOR does not show: commands
refused before they ran (NOAUTH, OOM, MOVED, unknown), administrative ones (CONFIG, SLOWLOG, ...), and AUTH's secrets.
"""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis
    from typing_extensions import Self

__all__ = ["Command", "Recording", "own_prefix"]

_LINE = re.compile(rb'[\d.]+ \[(\d+) (.*?)\] (".*")$', re.DOTALL)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}

# Commands whose first argument is part of their name.
_CONTAINERS = frozenset(
    (
        "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT", "PUBSUB",
        "SCRIPT", "XGROUP", "XINFO",
    )
)  # fmt: skip
# What a client says when it connects: no part of an operation's cost.
_HANDSHAKE = frozenset(
    ("AUTH", "HELLO", "INFO", "SELECT", "READONLY", "CLIENT SETINFO", "CLIENT SETNAME", "CLIENT MAINT_NOTIFICATIONS")
)


_PREFIX = re.compile(rb"t[0-9a-f]{12}")
_over: set[bytes] = set()


@contextmanager
def own_prefix() -> Iterator[str]:
    """A key prefix that no other test has. After the block no recording lists what a cache of that test still says of its keys
    behind the callers, as one that was not closed does for a while (a lease is released twice, a second apart)."""
    prefix = f"t{secrets.token_hex(6)}"
    try:
        yield prefix
    finally:
        _over.add(prefix.encode())


class Command(NamedTuple):
    """One command as the server ran it. `client` is its address, or "lua" for a script's own calls."""

    name: str
    args: tuple[bytes, ...]
    client: str
    db: int

    @property
    def late(self) -> bool:
        """Whether it is about the keys of a test that is over."""
        return any(not _over.isdisjoint(_PREFIX.findall(word)) for word in self.args)


def _unescape(word: bytes) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        return bytes.fromhex(escape[1:].decode()) if len(escape) == 3 else _NAMED.get(escape, escape)

    return _ESCAPE.sub(one, word)


def parse(line: bytes) -> Command:
    """A line of MONITOR: `1700000000.123456 [0 127.0.0.1:5000] "GET" "key"`."""
    match = _LINE.match(line)
    assert match is not None, f"not a line of MONITOR: {line!r}"
    name, *args = (_unescape(word) for word in _WORD.findall(match[3]))
    text = name.decode("ascii", "replace").upper()
    if text in _CONTAINERS and args:
        text = f"{text} {args.pop(0).decode('ascii', 'replace').upper()}"
    return Command(text, tuple(args), match[2].decode(), int(match[1]))


class Recording(list[str]):
    """The names of the commands run inside a `with`, in order: `assert calls == ["MGET"]`.

    The list itself leaves out what connections say when they open, which is in `handshake`, what scripts called,
    which is in `inner`, and what is about the prefix of a test that is over (`own_prefix`); `commands` has every command of the list with its arguments. Subcommands belong to the name:
    "SCRIPT LOAD". It is filled when the block ends, or by `settle()` inside it.
    """

    def __init__(self, client: Redis) -> None:
        super().__init__()
        self.commands: list[Command] = []
        self.handshake: list[Command] = []
        self.inner: list[Command] = []
        self._client = client
        self._marks: Any = None
        self._feed: Any = None

    def settle(self) -> None:
        """Take in everything that the server has run until now."""
        mark = secrets.token_hex(12).encode()
        self._marks.send_command("ECHO", mark)
        self._marks.read_response()
        while True:
            command = parse(self._feed.read_response())
            if command.name == "ECHO" and command.args == (mark,):
                return
            if command.late:
                continue
            if command.client == "lua":
                self.inner.append(command)
            elif command.name in _HANDSHAKE:
                self.handshake.append(command)
            else:
                self.commands.append(command)
                self.append(command.name)

    def __enter__(self) -> Self:
        pool: Any = self._client.connection_pool
        self._marks, self._feed = pool.make_connection(), pool.make_connection()
        self._marks.connect()
        self._feed.connect()
        self._feed.send_command("MONITOR")
        answer = self._feed.read_response()
        assert answer == b"OK", answer
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._feed.disconnect()
            self._marks.disconnect()
            self._client.close()
