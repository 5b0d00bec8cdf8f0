"""What ends an object that is dropped runs no bytecode of memover: an exception from outside that came there would reach nobody."""

from __future__ import annotations

import ast
import asyncio
import gc
import multiprocessing
import socket
import sqlite3
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover.stores.redis.connection import Connection as RedisConnection
from memover.stores.redis.mux import Mux
from memover.stores.redis.opening import Line, Opening
from memover.stores.sqlite.connections import connect
from tests.interrupts.striking import Unraisable, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IN_PYTHON = {
    "stores/redis/loops.py": "a home's connections are closed on its event loop, which takes code of Python to reach",
    "keys/places.py": "at the end of a memory store, not of a call",
}
"""Where `weakref.finalize` is used, and why."""


def test_no_finalizer_is_written_in_python() -> None:
    """No method `__del__`, and no `weakref.finalize`, whose call is one of Python, but where a reason is given."""
    found = set()
    root = Path(memover.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            method = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "__del__"
            if method or (isinstance(node, ast.Attribute) and node.attr == "finalize"):
                found.add(path.relative_to(root).as_posix())
    assert found == set(IN_PYTHON)


def _sqlite(sock: socket.socket, path: Path) -> Any:
    path.touch()
    return connect(str(path))


def _redis(sock: socket.socket, path: Path) -> Any:
    return RedisConnection(Line(sock, None), 1.0, 0)


def _opening(sock: socket.socket, path: Path) -> Any:
    opening = Opening(lambda opening: Line(sock, None), lambda opening: None)
    opening._run()
    return opening


async def _mux(sock: socket.socket, path: Path) -> Any:
    return Mux(Line(sock, None), 1.0)


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process of its own, in which no thread of another test makes garbage."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("cyclic", [False, True], ids=["dropped", "in a cycle"])
@pytest.mark.parametrize("make", [_sqlite, _redis, _opening, _mux])
def test_a_connection_that_is_dropped_is_closed_without_bytecode(
    make: Callable[[socket.socket, Path], Any], cyclic: bool, tmp_path: Path, apart: ProcessPoolExecutor
) -> None:
    """And without a warning of an unclosed one."""
    gone, ran, last_word, swallowed = apart.submit(_dropped, make, cyclic, tmp_path).result()
    assert gone
    assert ran == []
    assert make is _sqlite or last_word == b""
    assert swallowed == []


def _dropped(
    make: Callable[[socket.socket, Path], Any], cyclic: bool, tmp_path: Path
) -> tuple[bool, list[str], bytes | None, list[str]]:
    """Whether the connection went, what ran as it was dropped, what the other end of its socket then read, and what nobody could be
    told."""
    ours, theirs = socket.socketpair()
    kept = [make(ours, tmp_path / "file.db")]
    loop = asyncio.new_event_loop()
    if make is _mux:
        kept = [loop.run_until_complete(kept[0])]
    loop.close()  # which had a Mux as a reader: now nothing refers to that, as when both are dropped
    connection = weakref.ref(kept[0])
    if cyclic:
        kept.append(kept)
    box = [kept]
    del ours, kept  # a frame that is traced keeps what its names stood for, on Python 3.10
    gc.collect()

    def drop() -> None:
        box[0].clear()
        if make is _sqlite:
            gc.collect()  # it refers to itself, through the cache of its statements

    def leave() -> None:
        box.clear()
        gc.collect()

    with Unraisable() as swallowed:
        ran = places(leave if cyclic else drop)
        gone = connection() is None
    theirs.settimeout(5)
    last_word = None if make is _sqlite else theirs.recv(1)
    theirs.close()
    return gone, [repr(place) for place in ran], last_word, [repr(error) for error in swallowed.errors]


def test_a_connection_that_cannot_be_opened_says_so_once(tmp_path: Path) -> None:
    """No second error for closing what was never opened."""
    with Unraisable() as swallowed:
        with pytest.raises(sqlite3.OperationalError):
            connect(str(tmp_path / "missing" / "file.db"))
        gc.collect()
    assert not swallowed.errors
