"""RESP3 (github.com/redis/redis-specifications), as far as the connection of a near tier needs it: answers, and pushes among them."""

from __future__ import annotations

from typing import Any

from redis.exceptions import InvalidResponse

from memover.stores.redis.resp import PureReader, _Short, server_error

__all__ = ["Push", "Reader3"]

_LINE_LIMIT = 1 << 16
_DEPTH_LIMIT = 8


class Push(list[Any]):
    """What the server said without being asked."""


class Reader3(PureReader):
    """RESP3 as far as it is needed here, and RESP2."""

    __slots__ = ()

    def whole(self) -> bool:
        """Whether there is, or may be, a whole answer among what was fed."""
        return len(self._buffer) >= self._need

    def _parse(self, at: int, depth: int) -> tuple[Any, int]:
        buffer = self._buffer
        end = buffer.find(b"\r\n", at)
        if end < 0:
            if len(buffer) - at > _LINE_LIMIT:
                raise InvalidResponse("an answer without an end")
            raise _Short(len(buffer) + 1)
        kind, line = bytes(buffer[at : at + 1]), bytes(buffer[at + 1 : end])
        end += 2
        if kind in (b"+", b",", b"(", b"#"):
            return line, end
        if kind == b"_":
            return None, end
        if kind == b"-":
            return server_error(line.decode("utf-8", "replace")), end
        try:
            number = int(line)
        except ValueError:
            raise InvalidResponse(f"an answer begins with {kind!r}") from None
        if kind == b":":
            return number, end
        if kind in (b"$", b"=", b"!"):
            if number < 0:
                return None, end
            if len(buffer) < end + number + 2:
                raise _Short(end + number + 2)
            whole = bytes(buffer[end : end + number])
            return (server_error(whole.decode("utf-8", "replace")) if kind == b"!" else whole), end + number + 2
        if kind not in (b"*", b">", b"~", b"%") or depth >= _DEPTH_LIMIT:
            raise InvalidResponse(f"an answer begins with {kind!r}")
        if number < 0:
            return None, end
        answers: list[Any] = Push() if kind == b">" else []
        for _ in range(2 * number if kind == b"%" else number):
            answer, end = self._parse(end, depth + 1)
            answers.append(answer)
        return answers, end
