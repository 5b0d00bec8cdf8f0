"""RESP, the protocol of Redis: commands to bytes, and bytes to answers.

hiredis does both where it is installed (the extra `memover[hiredis]`); otherwise what is here does, at a few times the
cost. An error that the server answers is an answer: an exception object of redis-py's, returned and not raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from redis import exceptions

from memover.errors import raised_beneath, raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NOT_ENOUGH", "PureReader", "Push", "Reader", "Reader3", "new_reader", "pack", "pack_all", "server_error"]


class _NotEnough:
    def __repr__(self) -> str:
        return "NOT_ENOUGH"


NOT_ENOUGH = _NotEnough()
"""What `Reader.gets` returns while the next answer has not come in completely."""

_LINE_LIMIT = 1 << 16
_DEPTH_LIMIT = 32
"""Arrays within arrays. Our commands are answered with two levels at most."""

_ERRORS: dict[str, type[exceptions.ResponseError | exceptions.ConnectionError]] = {
    "ASK": exceptions.AskError,
    "CLUSTERDOWN": exceptions.ClusterDownError,
    "CROSSSLOT": exceptions.ClusterCrossSlotError,
    "LOADING": exceptions.BusyLoadingError,
    "MASTERDOWN": exceptions.MasterDownError,
    "MOVED": exceptions.MovedError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "TRYAGAIN": exceptions.TryAgainError,
    "WRONGPASS": exceptions.AuthenticationError,
}


def server_error(text: str) -> Exception:
    """The exception for an error that the server answered, by its first word."""
    code, _, rest = text.partition(" ")
    kind = _ERRORS.get(code)
    if kind is None:
        return exceptions.ResponseError(rest if code == "ERR" else text)
    try:
        return kind(rest)
    except (ValueError, TypeError) as error:
        if raised_by_handler(error):
            raise
        return exceptions.ResponseError(text)  # MOVED or ASK without an address


class Reader(Protocol):
    """Turns bytes into answers; one for each connection, used by one thread at a time."""

    def feed(self, data: bytes, /) -> None:
        """Takes in what was received."""
        ...

    def gets(self) -> Any:
        """The next answer, or NOT_ENOUGH. Raises redis-py's `InvalidResponse` for bytes that are not RESP2."""
        ...


class _Short(Exception):
    """The answer goes on beyond what has been received; `need` is how many bytes there must be at least."""

    def __init__(self, need: int) -> None:
        self.need = need


class PureReader:
    """`Reader` without hiredis."""

    __slots__ = ("_buffer", "_need")

    kinds = b"+-:$*"
    """What answers begin with."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 1

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def gets(self) -> Any:
        if len(self._buffer) < self._need:
            return NOT_ENOUGH
        try:
            answer, end = self._parse(0, 0)
        except _Short as short:
            self._need = short.need
            return NOT_ENOUGH
        del self._buffer[:end]
        self._need = 1
        return answer

    def _parse(self, at: int, depth: int) -> tuple[Any, int]:
        buffer = self._buffer
        end = buffer.find(b"\r\n", at)
        kind = bytes(buffer[at : at + 1])
        if kind not in self.kinds:
            raise exceptions.InvalidResponse(f"an answer begins with {kind!r}")
        if end < 0:
            if len(buffer) - at > _LINE_LIMIT:
                raise exceptions.InvalidResponse("an answer without an end")
            raise _Short(len(buffer) + 1)
        line, end = bytes(buffer[at + 1 : end]), end + 2
        if kind in b"+-,(#_":
            said = server_error(line.decode("utf-8", "replace")) if kind == b"-" else None if kind == b"_" else line
            return said, end
        try:
            number = int(line)
        except ValueError as error:
            if raised_beneath(error):
                raise
            raise exceptions.InvalidResponse(f"an answer begins with {kind!r}") from None
        if kind == b":":
            return number, end
        if number < 0:
            return None, end
        if kind in b"$=!":
            if len(buffer) < end + number + 2:
                raise _Short(end + number + 2)
            whole = bytes(buffer[end : end + number])
            return (server_error(whole.decode("utf-8", "replace")) if kind == b"!" else whole), end + number + 2
        if depth >= _DEPTH_LIMIT:
            raise exceptions.InvalidResponse(f"an answer is {depth} levels deep")
        answers: list[Any] = Push() if kind == b">" else []
        for _ in range(2 * number if kind == b"%" else number):
            answer, end = self._parse(end, depth + 1)
            answers.append(answer)
        return answers, end


class Push(list[Any]):
    """What the server said without being asked."""


class Reader3(PureReader):
    """RESP3 (github.com/redis/redis-specifications), as far as the connection of a near tier needs it, and RESP2."""

    __slots__ = ()

    kinds = b"+-:$*,(#_=!>~%"

    def whole(self) -> bool:
        """Whether there is, or may be, a whole answer among what was fed."""
        return len(self._buffer) >= self._need


def _pure_pack(args: Sequence[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts += (b"$%d\r\n" % len(arg), arg, b"\r\n")
    return b"".join(parts)


pack: Callable[[tuple[bytes, ...]], bytes]
"""A command as bytes."""

try:
    import hiredis
except ImportError:
    pack = _pure_pack

    def new_reader() -> Reader:
        """A reader for a new connection."""
        return PureReader()
else:
    pack = cast("Any", hiredis.pack_command)

    def new_reader() -> Reader:
        """A reader for a new connection."""
        reader: Reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=server_error, notEnoughData=NOT_ENOUGH
        )
        return reader


def pack_all(commands: Sequence[tuple[bytes, ...]]) -> bytes:
    """Several commands, to be sent together."""
    return pack(commands[0]) if len(commands) == 1 else b"".join(map(pack, commands))
