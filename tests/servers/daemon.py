"""A server process that is killed, whatever becomes of the process that started it.

One reaper process reads what we started from a pipe. When its end of the pipe closes, because we ended or were
killed, it kills what is left and removes the directories. This was chosen over PR_SET_PDEATHSIG, which is
Linux only and fires at the end of the *thread* that started the server.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["Daemon", "Reaper", "reaper", "redis_server_binary", "redis_server_version"]

_REAPER = """
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
pids, directories = set(), set()
for line in sys.stdin:
    word, _, value = line.rstrip("\\n").partition(" ")
    if word == "+pid":
        pids.add(int(value))
    elif word == "-pid":
        pids.discard(int(value))
    elif word == "+dir":
        directories.add(value)
    elif word == "-dir":
        directories.discard(value)
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
for directory in directories:
    shutil.rmtree(directory, ignore_errors=True)
"""


class Reaper:
    """Our end of the pipe to the reaper process, which starts at the first word; for any thread, and after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe = -1
        self._owner = 0

    def tell(self, word: str) -> None:
        """Say `+pid N`, `-pid N`, `+dir PATH` or `-dir PATH`."""
        with self._lock:
            if self._owner != os.getpid():
                self._start()
            os.write(self._pipe, f"{word}\n".encode())

    def _start(self) -> None:
        theirs, self._pipe = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _REAPER],
            stdin=theirs,
            start_new_session=True,  # a Ctrl-C at the terminal must not reach it
        )
        os.close(theirs)
        self._owner = os.getpid()
        process.returncode = 0  # it outlives us by design: nobody is to wait for it, or to warn of that


reaper = Reaper()


def redis_server_binary() -> str:
    """The path of `redis-server`; the variable MEMOVER_TEST_REDIS_SERVER names another, a Valkey say."""
    wanted = os.environ.get("MEMOVER_TEST_REDIS_SERVER", "redis-server")
    found = shutil.which(wanted)
    if found is None:
        raise RuntimeError(f"{wanted} is not on PATH: run `make test`, which installs it, or install it yourself")
    return found


@functools.cache
def redis_server_version() -> tuple[int, int]:
    """Major and minor version of that server; of a Valkey its own (7.2 and later, which do all that Redis 7.2 does)."""
    told = subprocess.run([redis_server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    assert found is not None, f"no version in {told!r}"
    return int(found[1]), int(found[2])


class Daemon:
    """A process of our own, with a directory of its own, that can be killed, frozen and started again."""

    def __init__(self, directory: Path | str | None = None) -> None:
        self._owns_directory = directory is None
        # A short path: a unix socket's may not be longer than 107 bytes.
        self.directory = Path(directory) if directory is not None else Path(tempfile.mkdtemp(prefix="mm-"))
        if self._owns_directory:
            reaper.tell(f"+dir {self.directory}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has not been started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the process printed since it was first started."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _launch(self, command: Sequence[str]) -> None:
        assert not self.alive, "it is running"
        log: IO[Any]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        reaper.tell(f"+pid {self._process.pid}")

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _wait_gone(self, timeout: float = 30.0) -> None:
        if self._process is not None:
            self._process.wait(timeout)
            reaper.tell(f"-pid {self._process.pid}")

    def kill(self) -> None:
        """SIGKILL, as the kernel or an operator would; returns when the process is gone."""
        self._signal(signal.SIGKILL)
        self._wait_gone()

    def terminate(self) -> None:
        """SIGTERM, the polite way; returns when the process is gone."""
        self.thaw()
        self._signal(signal.SIGTERM)
        self._wait_gone()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and are accepted by the kernel, and nothing answers. Returns when stopped."""
        self._signal(signal.SIGSTOP)
        if self.alive and hasattr(os, "waitid"):  # not on macOS
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it stopped, with whatever its sockets hold."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its directory, if that was its own. May be repeated."""
        self.kill()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                reaper.tell(f"-dir {self.directory}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
