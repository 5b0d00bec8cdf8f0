"""What each event loop has open: the lanes of its connections, closed with the loop.

Short commands share one connection, values of more than 64 KiB another, and commands that make the server wait for its
replicas have one each.

A loop that shuts down in order closes them through the one hook that loops have, asynchronous generators. A loop that is
just closed, or dropped without being closed, leaves them behind: they go with the loop when it is collected, or when another
loop first uses the store. Nothing here keeps a loop.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.errors import raised_beneath, raised_by_handler
from memover.loops import running_loop
from memover.stores.redis.mux import Mux
from memover.stores.redis.opening import Crowded, Opening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from memover.stores.redis.limits import Limits
    from memover.stores.redis.opening import Line
    from memover.stores.redis.url import Node

__all__ = ["Home", "Homes", "Lane"]


class _Open:
    """The connections of a `Home`, in an object of their own so that they can be closed when it is gone."""

    def __init__(self) -> None:
        self.muxes: set[Mux] = set()
        self.left = False
        """Whether the home has gone, so that a connection that is made now is wanted by nobody."""


class Lane:
    """A place for one connection at a time: opened when it is needed, again after it was lost."""

    def __init__(self, make: Callable[[Opening], Line], limits: Limits, open_here: _Open) -> None:
        self.mux: Mux | None = None
        self.crowded_until = 0.0
        self._here = open_here
        self._make = make
        self._limits = limits
        self._opening: Opening | None = None
        self._turns: list[asyncio.Future[None]] = []
        self._closed = False

    async def ready(self, end: float) -> Mux:
        """The connection, opened if need be, until the time `end`. Raises redis-py's errors and OSError."""
        mux = self.mux
        while mux is None or mux.sock is None:
            opening = self._opening
            if opening is None:
                opening = self._opening = self._open()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turns.append(turn)
            while not opening.done and not turn.done():
                left = end - monotonic()
                if left <= 0:
                    await asyncio.sleep(0)  # a loop that was held up has one more turn for what has come in
                    if opening.done or turn.done():
                        break
                    if self._opening is opening:
                        self._opening = None
                        opening.abandon()
                    raise TimeoutError("no connection in time")
                await asyncio.wait({turn}, timeout=left)
            if not opening.done:
                continue  # it was for an opening before this one
            self._take_over(opening)
            if opening.error is not None:
                if isinstance(opening.error, Crowded):
                    self.crowded_until = monotonic() + 10.0
                raise opening.error
            mux = self.mux
        return mux

    def _open(self) -> Opening:
        loop = asyncio.get_running_loop()

        def ended(opening: Opening) -> None:
            try:
                loop.call_soon_threadsafe(self._take_over, opening)
            except RuntimeError as error:
                opening.close()  # that loop has been closed
                if raised_by_handler(error):
                    raise

        opening = Opening(self._make, ended)
        opening.start()
        return opening

    def _take_over(self, opening: Opening) -> None:
        line = opening.take()
        if line is not None:
            if self._unwanted(opening):
                line.socket.close()
            else:
                self._leave()
                self.mux = Mux(line, self._limits.socket_timeout)
                self._here.muxes.add(self.mux)
        if self._opening is opening:
            self._opening = None
        turns, self._turns = self._turns, []
        for turn in turns:
            if not turn.done():
                turn.set_result(None)

    def _unwanted(self, opening: Opening) -> bool:
        connected = self.mux is not None and self.mux.sock is not None
        return connected or self._closed or self._here.left or opening.abandoned

    def _leave(self) -> None:
        if self.mux is not None:
            self._here.muxes.discard(self.mux)
            self.mux = None

    def usable(self) -> bool:
        """Whether it has a connection, or it is not known that the server would give none."""
        return (self.mux is not None and self.mux.sock is not None) or monotonic() > self.crowded_until

    def close(self) -> None:
        """Closes the connection; on the loop's own thread."""
        if self._opening is not None:
            self._opening.abandon()
            self._opening = None
        if self.mux is not None:
            self.mux.close()
        self._leave()

    def abandon(self) -> None:
        """The loop is closed: close what it left open."""
        self._closed = True
        if self._opening is not None:
            self._opening.abandon()
        if self.mux is not None:
            self.mux.abandon()


class Home:
    """The lanes of one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[Node | None], Callable[[Opening], Line]], limits: Limits
    ) -> None:
        self.loop = weakref.ref(loop)
        self.small: dict[Node | None, Lane] = {}
        self._large: dict[Node | None, Lane] = {}
        self._apart: dict[Node | None, list[Lane]] = {}
        self._make = make
        self._limits = limits
        self._closer: AsyncGenerator[None, None] | None = None
        self._open = _Open()
        # Not `__del__`: in a cycle that is collected `self.loop` has been cleared by then, and to close a socket that its
        # loop watches makes that loop deaf to the next one with the same descriptor.
        # Not an `Ending`: on its loop a connection cannot be closed by functions of C alone.
        self._ending = weakref.finalize(self, _left, self.loop, self._open)
        self._ending.atexit = False
        self.blocking = not hasattr(loop, "add_reader") or type(loop).__name__ == "ProactorEventLoop"
        """Whether the loop cannot watch sockets, so that exchanges are done in its executor's threads."""

    def close_with_loop(self) -> None:
        """Has `close` called when the loop shuts down in order."""
        self._closer = _closing(weakref.ref(self))
        finalizer = sys.get_asyncgen_hooks().finalizer
        try:
            # It would keep the loop's finalizer, and with it a loop that is dropped without being closed.
            sys.set_asyncgen_hooks(finalizer=None)
            self._closer.__anext__().send(None)
        except StopIteration:
            pass
        finally:
            sys.set_asyncgen_hooks(finalizer=finalizer)

    def lane(self, node: Node | None, large: bool, apart: bool) -> Lane:
        """The lane for commands to a node: `large` ones, or those that go `apart` from all others."""
        small = self.small.get(node)
        if small is None:
            small = self.small.setdefault(node, self._lane(node))
        if apart:
            lanes = self._apart.setdefault(node, [])
            for lane in lanes:
                if lane.mux is not None and lane.mux.idle and lane.mux.sock is not None:
                    return lane
            if len(lanes) < self._limits.max_connections:
                lanes.append(self._lane(node))
            return lanes[-1]
        if large:
            lane = self._large.get(node) or self._large.setdefault(node, self._lane(node))
            # One connection for all is better than none.
            if lane.crowded_until and not lane.usable():
                return small
            return lane
        return small

    def _lane(self, node: Node | None) -> Lane:
        return Lane(self._make(node), self._limits, self._open)

    def _lanes(self) -> list[Lane]:
        return [
            *self.small.values(),
            *self._large.values(),
            *(lane for lanes in self._apart.values() for lane in lanes),
        ]

    def retire(self, node: Node | None) -> None:
        """Closes the connections to one node: another server is the right one now, or it did not answer."""
        for lane in (self.small.get(node), self._large.get(node), *self._apart.get(node, ())):
            if lane is not None:
                lane.close()

    def close(self) -> None:
        """Closes all of them; on the loop's own thread."""
        for lane in self._lanes():
            lane.close()

    async def aclose(self) -> None:
        """As `close`, and have nothing called any more when the loop shuts down."""
        self.close()
        if self._closer is not None:
            await self._closer.aclose()

    def abandon(self) -> None:
        """The loop is closed: close its sockets, from whichever thread."""
        self._ending.detach()
        for lane in self._lanes():
            lane.abandon()


def _left(loop_of: weakref.ref[asyncio.AbstractEventLoop], here: _Open) -> None:
    """Closes what a home has left open: on its loop if that goes on."""
    here.left = True
    loop = loop_of()
    if loop is not None and not loop.is_closed():
        try:
            loop.call_soon_threadsafe(_close, here)
        except RuntimeError:
            pass  # closed meanwhile
        else:
            return
    for mux in list(here.muxes):
        mux.abandon()


def _close(here: _Open) -> None:
    for mux in list(here.muxes):
        mux.close()


async def _closing(home: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        found = home()
        if found is not None:
            found.close()


class Homes:
    """The homes of all event loops that use one store."""

    def __init__(self, make: Callable[[Node | None], Callable[[Opening], Line]], limits: Limits) -> None:
        self._make = make
        self._limits = limits
        self._homes: dict[int, Home] = {}

    def here(self) -> Home:
        """The running loop's. Raises `RuntimeError` that says what is supported where there is none of asyncio's."""
        loop = running_loop()
        home = self._homes.get(id(loop))
        if home is None or home.loop() is not loop:
            self.sweep()
            home = Home(loop, self._make, self._limits)
            self._homes[id(loop)] = home
            home.close_with_loop()
        return home

    def retire(self, node: Node | None) -> None:
        """Closes all loops' connections to one node: another server is the right one now."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError as error:
            if raised_beneath(error):
                raise
            here = None
        for home in list(self._homes.values()):
            loop = home.loop()
            if loop is None or loop.is_closed():
                continue
            if loop is here:
                home.retire(node)
                continue
            try:
                loop.call_soon_threadsafe(home.retire, node)
            except RuntimeError as error:  # closed meanwhile
                if raised_by_handler(error):
                    raise

    def sweep(self) -> None:
        """Closes what closed loops left open."""
        for key, home in self._homes.copy().items():
            loop = home.loop()
            if loop is None or loop.is_closed():
                if self._homes.get(key) is home:
                    self._homes.pop(key, None)
                home.abandon()

    async def aclose(self) -> None:
        """Closes what the running loop has open."""
        home = self._homes.pop(id(asyncio.get_running_loop()), None)
        if home is not None and home.loop() is asyncio.get_running_loop():
            await home.aclose()

    def after_fork(self) -> None:
        """In a forked child: what is open belongs to the parent's loops.

        The sockets are closed and nothing else: to take them off a selector would take them off the parent's as well."""
        homes, self._homes = self._homes, {}
        for home in homes.values():
            home.abandon()
