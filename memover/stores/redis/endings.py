"""Sockets that are closed when what they belong to is dropped, by functions written in C.

Not by `__del__` or `weakref.finalize`, which run bytecode: what a signal handler raises in there reaches nobody. And the socket is
kept alive until it is closed: in a cycle that is collected it might be finalized first, which warns of it as unclosed.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from operator import methodcaller
from socket import SocketType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ending"]

_NUMBERS = count()
_ENDINGS: dict[int, ReferenceType[Any]] = {}
"""The weak references to owners that are still there: one that is dropped itself calls nothing."""


class Ending:
    """Closes a socket when its owner, which must be weakly referable, is collected; unless it was detached before."""

    __slots__ = ("_number",)

    def __init__(self, owner: object, sock: Any) -> None:
        self._number = number = next(_NUMBERS)
        close: Callable[[Any], object] = SocketType.close
        if not isinstance(sock, SocketType):  # gevent's are made in Python
            close = methodcaller("close")
        # One step of `zip` calls both. The reference, which `next` is called with, is what it would answer at the end.
        both = zip(map(_ENDINGS.pop, (number,)), map(close, (sock,)))
        _ENDINGS[number] = ReferenceType(owner, partial(next, both))

    def detach(self) -> None:
        """Leaves the socket to whoever has taken or closed it. May be repeated."""
        _ENDINGS.pop(self._number, None)
