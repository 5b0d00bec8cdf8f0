"""Looking for an answer for a moment, before a thread or an event loop sleeps until it comes.

A server on the same machine answers in less time than it takes to put a thread to sleep and to wake it: on two cores a blocking
exchange took 45 to 63 µs, one that looks 17 to 20, with less of the processor's time. Between two looks the processor is given to
whoever wants it, above all to the server: on one core looking costs nothing. Where answers take longer, as from another machine,
one exchange in a hundred looks in vain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import weakref
    from collections import deque
    from collections.abc import Callable

__all__ = ["BLIND", "LOOKS", "SECONDS", "TURNS", "Awake", "give_way"]

LOOKS = range(64)
SECONDS = 60e-6
"""How often, and for how long, a thread looks."""
TURNS = 50
"""For how many of its turns an event loop looks."""
BLIND = 100
"""How many exchanges sleep at once, after one that looked in vain."""

give_way: Callable[[], Any] = getattr(os, "sched_yield", lambda: None)
"""Lets others run that wait for the processor."""


class Awake:
    """Keeps an event loop from sleeping for some turns after each write on a connection, while `flying` awaits answers.

    A loop that has something to do in its next turn only looks what there is to be read, and does not wait for it."""

    def __init__(self, loop: weakref.ref[Any], flying: deque[Any]) -> None:
        self._loop = loop
        self._flying = flying
        self._looks = 0
        """For how many turns it is still kept awake."""
        self._next = False
        """Whether the next turn is one of them."""
        self._blind = 0

    def written(self) -> None:
        """To be called after each write."""
        if self._blind:
            self._blind -= 1
        else:
            self._looks = TURNS
            if not self._next:
                loop: Any = self._loop()
                loop.call_soon(self._turn)
                self._next = True

    def _turn(self) -> None:
        self._next = False
        if not self._flying:
            return
        if self._looks:
            self._looks -= 1
            loop: Any = self._loop()
            loop.call_soon(self._turn)
            self._next = True
            give_way()
        else:
            self._blind = BLIND
