"""Python processes of our own: many callers at once, and one process told what to do by another.

A child runs a function of an importable module, or a piece of code, and sends its result back as JSON. It waits at a
start line until all its siblings are there. Inside, the function may `say()` a word that the parent waits for, and
`hear()` one that the parent says: schedules are made of words, not of sleeps.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .daemon import reaper
from .forking import Fork, fork_child
from .patience import be_patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

__all__ = ["INDEX", "Worker", "WorkerFailed", "hear", "run_python", "say", "start_python"]

_ROOT = Path(__file__).resolve().parents[2]
_CHILD = "import sys; from tests.servers import processes; sys.exit(processes.run_child(int(sys.argv[1])))"

INDEX = "\0index"
"""As an argument of `run_python`: replaced by the process's own number, from 0."""


class WorkerFailed(Exception):
    """A child raised, died or said something else than was waited for; the message holds its traceback."""


class _Line:
    """Words between parent and child: one JSON value a line over a socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def send(self, kind: str, value: Any = None) -> None:
        self._socket.sendall(json.dumps([kind, value]).encode() + b"\n")

    def receive(self, timeout: float | None = None) -> tuple[str, Any]:
        """The next word; raises `EOFError` when the other side has gone, `TimeoutError` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            self._socket.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.001))
            try:
                piece = self._socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise EOFError
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        kind, value = json.loads(line)
        return kind, value

    def close(self) -> None:
        self._socket.close()


class Worker:
    """One child, seen from the parent. `timeout` is seconds, for each thing that is waited for."""

    def __init__(
        self, task: Callable[..., Any] | str, args: tuple[Any, ...], *, timeout: float, env: Mapping[str, str]
    ) -> None:
        self._timeout = timeout
        ours, theirs = socket.socketpair()
        self._line = _Line(ours)
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **env, "PYTHONPATH": path}
        with theirs:
            self._process: Fork | subprocess.Popen[bytes]
            if any(name.startswith("PYTHON") for name in env):  # what an interpreter reads at its start
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                )
            else:
                self._process = fork_child("tests.servers.processes:run_child", theirs, env=environment)
        reaper.tell(f"+pid {self._process.pid}")
        named = task if isinstance(task, str) else [task.__module__, task.__qualname__]
        self._line.send("task", [named, list(args)])

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Return when the child has imported what it needs and stands at the start line."""
        self._expect("ready")

    def go(self) -> None:
        self._line.send("go")

    def wait_for(self, word: str) -> Any:
        """Return the value of the child's `say(word, value)`, which must be the next thing it says."""
        said, value = self._expect("say")
        if said != word:
            raise WorkerFailed(f"waited for {word!r}, but the process said {said!r}")
        return value

    def tell(self, word: str, value: Any = None) -> None:
        """Let the child's `hear(word)` return `value`."""
        self._line.send("tell", [word, value])

    def result(self) -> Any:
        """What the function returned."""
        value = self._expect("result")
        self.close()
        return value

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._process.kill()
        self._gone()

    def close(self) -> None:
        """End it: at once if it has not finished. May be repeated."""
        if self._finished:
            with suppress(subprocess.TimeoutExpired, TimeoutError):
                self._process.wait(self._timeout)
        self.kill()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    _finished = False

    def _gone(self) -> None:
        self._process.wait(self._timeout)
        reaper.tell(f"-pid {self._process.pid}")

    def _expect(self, wanted: str) -> Any:
        try:
            kind, value = self._line.receive(self._timeout)
        except EOFError:
            raise WorkerFailed(f"the process died, status {self._process.wait(self._timeout)}") from None
        except TimeoutError:
            raise WorkerFailed(f"no {wanted!r} within {self._timeout:g} s") from None
        self._finished = kind in ("result", "error")
        if kind == "error":
            raise WorkerFailed(f"in the process:\n{value}")
        if kind != wanted:
            raise WorkerFailed(f"waited for {wanted!r}, but got {kind!r}: {value!r}")
        return value


def start_python(
    task: Callable[..., Any] | str, *args: Any, timeout: float = 60.0, env: Mapping[str, str] | None = None
) -> Worker:
    """One process, running: a context manager that ends it. See `run_python` for `task` and `args`."""
    worker = Worker(task, args, timeout=timeout, env=env or {})
    worker.wait_ready()
    worker.go()
    return worker


def as_another_process() -> None:
    """Forget whose namespaces are whose: to functions decorated from now on, those decorated before are another process's."""
    from memover.keys.places import PLACES

    PLACES._places.clear()


def run_python(
    task: Callable[..., Any] | str,
    *args: Any,
    n: int = 1,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> list[Any]:
    """Run `n` processes that begin at once, and return their results in order.

    `task` is a function of a module that a child can import (async ones too), called with `args`, which are JSON
    with `INDEX` for the child's number; or code, which finds them as `args` and leaves its `result`. A child that
    raises makes this raise `WorkerFailed` with its traceback, and ends the others.
    """
    with ExitStack() as stack:
        workers = []
        for index in range(n):
            own = tuple(index if arg == INDEX else arg for arg in args)
            workers.append(stack.enter_context(Worker(task, own, timeout=timeout, env=env or {})))
        for worker in workers:
            worker.wait_ready()
        for worker in workers:
            worker.go()
        return [worker.result() for worker in workers]


# The child's side

_parent: _Line | None = None


def say(word: str, value: Any = None) -> None:
    """In a child: let the parent's `wait_for(word)` return `value`."""
    assert _parent is not None, "only a process started by run_python or start_python has a parent to talk to"
    _parent.send("say", [word, value])


def hear(word: str, timeout: float = 60.0) -> Any:
    """In a child: wait until the parent says `word`, and return what came with it."""
    assert _parent is not None, "only a process started by run_python or start_python has a parent to listen to"
    kind, value = _parent.receive(timeout)
    assert kind == "tell", kind
    assert value[0] == word, f"waited to hear {word!r}, heard {value[0]!r}"
    return value[1]


def _resolve(named: str | list[str]) -> Callable[..., Any]:
    if isinstance(named, str):
        code = compile(named, "<run_python>", "exec")

        def run(*args: Any) -> Any:
            names: dict[str, Any] = {"args": args, "result": None, "__name__": "__main__"}
            exec(code, names)
            return names["result"]

        return run
    import importlib

    found: Any = importlib.import_module(named[0])
    for name in named[1].split("."):
        found = getattr(found, name)
    function: Callable[..., Any] = found
    return function


def _steps(line: _Line) -> Iterator[tuple[str, Any]]:
    _, (named, args) = line.receive()
    function = _resolve(named)
    be_patient()
    yield "ready", None
    word, _ = line.receive()
    assert word == "go", word
    value = function(*args)
    if hasattr(value, "__await__"):
        import asyncio

        async def whole() -> Any:
            return await value

        value = asyncio.run(whole())
    yield "result", value


def run_child(descriptor: int) -> int:
    """Be the child at the other end of the socket, and return the status to end with."""
    global _parent  # a process has one parent
    line = _parent = _Line(socket.socket(fileno=descriptor))
    try:
        for kind, value in _steps(line):
            line.send(kind, value)
    except EOFError:
        return 1  # the parent has gone
    except BaseException:  # whatever it was, the parent is to know
        line.send("error", traceback.format_exc())
        return 1
    return 0
