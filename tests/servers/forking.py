"""Python programs that need no start of an interpreter: forks of one that has loaded what they all load.

Starting Python and importing the command line takes half a second of processor time, and a fork of a process that
has done both some milliseconds. What runs in the fork has its own directory, environment, arguments, module path, input
and outputs. That a program starts from nothing is the matter of other tests: those of the documentation, of the examples
and of the packages.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .daemon import reaper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Fork", "fork_child", "probe_by_fork", "run_fork", "start_fork"]

_ROOT = Path(__file__).resolve().parents[2]
_LOADED = ("attrs", "msgspec", "pydantic", "pytest", "redis", "uvicorn", "wrapt", "tests.servers")
"""What programs import besides memover, and takes long: where it is installed."""
_SERVE = "import sys; from tests.servers import forking; forking._serve(int(sys.argv[1]))"


class Fork:
    """A program that runs; `returncode` is None until `wait()` has answered."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._said = line.makefile("r")
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The status that it ended with, if it has."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:  # `select` takes no descriptor beyond 1,023
                selector.register(self._line, selectors.EVENT_READ)
                ended = selector.select(0)
            if ended:
                self.wait()
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """The status that it ended with, negative for a signal. Raises `TimeoutError` after `timeout` seconds."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            self.returncode = int(self._said.readline())
            self._said.close()
            self._line.close()
        return self.returncode

    def terminate(self) -> None:
        """SIGTERM, if it has not been waited for."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, if it has not been waited for."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_fork(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: IO[Any], stdout: IO[Any], stderr: IO[Any]
) -> Fork:
    """Start `python -m MODULE ARGS...`, where `argv` is the module and its arguments."""
    return _fork({"argv": list(argv)}, cwd, env, [stdin.fileno(), stdout.fileno(), stderr.fileno()])


def fork_child(function: str, line: socket.socket, *, env: Mapping[str, str]) -> Fork:
    """Start a process that calls `MODULE:NAME` with the descriptor of `line`, and ends with what that returns."""
    with open(os.devnull, "rb") as nothing:
        return _fork({"call": function}, Path.cwd(), env, [nothing.fileno(), 1, 2, line.fileno()])


def _fork(what: dict[str, Any], cwd: Path, env: Mapping[str, str], descriptors: list[int]) -> Fork:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(_server())
    order = json.dumps({**what, "cwd": str(cwd), "env": dict(env)}).encode()
    socket.send_fds(line, [len(order).to_bytes(4, "big")], descriptors)
    line.sendall(order)
    return Fork(line)


def run_fork(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGS...` to its end, with `text` as its input."""
    with (
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        stdin.write(text)
        stdin.seek(0)
        status = start_fork(argv, cwd=cwd, env=env, stdin=stdin, stdout=out, stderr=err).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(argv), status, out.read(), err.read())


def probe_by_fork(results: str, *, order: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """In the place of `memover.cli.functions.start_probe`."""
    return run_fork(["memover.cli.probe", results], cwd=cwd, env=env, text=order)


@functools.cache
def _server() -> str:
    """Where the process that forks can be reached; it starts at the first call, and ends with this process."""
    if "MEMOVER_TEST_FORKS" in os.environ:
        return os.environ["MEMOVER_TEST_FORKS"]
    directory = tempfile.mkdtemp(prefix="mm-")
    reaper.tell(f"+dir {directory}")
    address = f"{directory}/forks"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(16)
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(listening.fileno())],
            cwd=_ROOT,
            env={**_without_memover(os.environ), "MEMOVER_TEST_FORKS": address},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    reaper.tell(f"+pid {process.pid}")
    process.returncode = 0  # the reaper ends it
    return address


def _without_memover(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith("MEMOVER_")}


# The side of the process that forks


def _serve(descriptor: int) -> None:
    """Fork for whoever connects; in a fork, become the program."""
    import memover.cli.functions

    everything = [each.name for each in pkgutil.walk_packages(memover.__path__, "memover.", onerror=lambda _: None)]
    for name in (*_LOADED, *everything):
        if not name.startswith("memover.django") and not name.endswith(("__main__", "pytest_plugin")):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    memover.cli.functions.start_probe = probe_by_fork
    own = {"", os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    base = [each for each in sys.path if each not in own]
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, every page of what is loaded
    listening = socket.socket(fileno=descriptor)
    while True:
        line, _ = listening.accept()
        if os.fork():
            line.close()
            _bury()
            continue
        listening.close()
        order, descriptors = _order(line)
        child = os.fork()
        if child:
            for each in descriptors:
                os.close(each)
            line.sendall(f"{child}\n".encode())
            _, status = os.waitpid(child, 0)
            with contextlib.suppress(OSError):  # whoever asked may have gone
                line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        line.close()
        for number, each in enumerate(descriptors[:3]):
            os.dup2(each, number)
            os.close(each)
        _become(order, base, *descriptors[3:])


def _bury() -> None:
    """Forget the forks that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _order(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, descriptors, _, _ = socket.recv_fds(line, 4, 4)
    left, text = int.from_bytes(head, "big"), b""
    while len(text) < left:
        text += line.recv(65536)
    return json.loads(text), descriptors


def _become(order: dict[str, Any], base: list[str], *descriptors: int) -> None:
    """Be the interpreter that would have been started, and run the module or call the function."""
    os.chdir(order["cwd"])
    address = _server()
    os.environ.clear()
    os.environ.update(order["env"], MEMOVER_TEST_FORKS=address)
    path = order["env"].get("PYTHONPATH", "")
    sys.path[:] = [order["cwd"], *filter(None, path.split(os.pathsep)), *base]
    sys.dont_write_bytecode = bool(order["env"].get("PYTHONDONTWRITEBYTECODE"))
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    status: Any = 0
    try:
        if "call" in order:
            module, _, name = order["call"].partition(":")
            sys.argv[:] = ["-c"]
            status = getattr(importlib.import_module(module), name)(*descriptors)
        else:
            sys.argv[:] = order["argv"]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    # What an interpreter does at its end, but for taking itself apart, which takes ten times as long as all the rest.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
