"""Runs of the history checker: starts the processes, ends them, and judges what they recorded."""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from memover.cache import Cache
from memover.errors import ConfigurationError, MemoverError, StoreError
from memover.keys.names import generation_key
from memover.runtime.run import run
from memover.testing.functions import FEATURES, NAMESPACES
from memover.testing.history import FailedCall, Invalidation, Read, Report
from memover.testing.rules import RULES, judge_history

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["HistoryRun", "check_history", "start_history"]

START_SECONDS = 60.0
STOP_SECONDS = 60.0


def check_history(url: str, *, seconds: float = 10.0, rules: Iterable[str] = RULES, **options: Any) -> Report:
    """Runs a history against the store at `url` for `seconds`, and judges it; the arguments are `start_history`'s.

    It writes under a prefix of its own and removes what does not expire by itself. The load on the store is
    that of `processes * (threads + loops * tasks)` callers that hardly pause."""
    with start_history(url, **options) as run:
        time.sleep(seconds)
        return run.stop(rules=rules)


def start_history(
    url: str | Sequence[str],
    *,
    processes: int = 2,
    threads: int = 2,
    loops: int = 1,
    tasks: int = 4,
    keys: int = 8,
    changes: float = 0.1,
    through: float = 0.3,
    kinds: tuple[int, int, int, int, int] = (20, 40, 15, 10, 15),
    pause: float = 0.002,
    slowest_load: float = 0.03,
    prefix: str | None = None,
    options: Mapping[str, Any] | None = None,
    function_options: Mapping[str, Any] | None = None,
    features: Iterable[str] = (),
    setup: str | None = None,
    seed: int | None = None,
) -> HistoryRun:
    """Starts the processes of a history; it goes on until `stop()`.

    * `url`: the store as `Cache` takes it; several are dealt out to the processes in turn (proxies, say).
    * `processes`, and in each `threads` sync callers and `loops` event loops of `tasks` async callers.
    * `keys`: sources per function; few, so that callers meet.
    * `changes`: the share of steps that change something; `kinds` weighs what they are: a write without an
      invalidation, by key, by namespace, by the other function's namespace, by tag.
    * `through`: the share of reads that go through a second cached function, which has used the first.
    * `pause`, `slowest_load`: the longest rest between two steps, and half the longest load, in seconds.
    * `options` for every `Cache`, `function_options` for the decorator (both go through JSON).
    * `features`: what callers and functions do besides, of `memover.testing.FEATURES`. With any of them, loads are no
      longer explained by invalidations alone: "single-load" and "monotonic" are not judged.
    * `setup`: `"module:function"`, called with the process's number before anything else happens in it.
    * `seed`: of the callers' choices; the schedule is the machine's.
    """
    urls = [url] if isinstance(url, str) else list(url)
    if processes > 1 and any(one.startswith("memory:") for one in urls):
        raise ConfigurationError("memory:// is not shared by processes: give processes=1.")
    features = sorted(features)
    if unknown := set(features) - set(FEATURES):
        raise ConfigurationError(f"features={sorted(unknown)}: give some of {', '.join(FEATURES)}.")
    return HistoryRun(
        urls,
        {
            "processes": processes,
            "threads": threads,
            "loops": loops,
            "tasks": tasks,
            "keys": keys,
            "changes": changes,
            "kinds": kinds,
            "through": through,
            "pause": pause,
            "slowest_load": slowest_load,
            "prefix": prefix if prefix is not None else f"memover-history-{secrets.token_hex(4)}",
            "options": {"ttl": 3600, **(options or {})},
            "function_options": dict(function_options or {}),
            "features": features,
            "setup": setup,
            "seed": secrets.randbits(32) if seed is None else seed,
            "path": [entry for entry in sys.path if entry] + [os.getcwd()],
        },
    )


class HistoryRun:
    """The running processes of a history; a context manager that ends them.

    `seed` is that of the callers' choices, and `prefix` that of the history's keys."""

    def __init__(self, urls: list[str], told: dict[str, Any]) -> None:
        self.seed: int = told["seed"]
        self.prefix: str = told["prefix"]
        self._urls = urls
        self._told = told
        self._directory = Path(tempfile.mkdtemp(prefix="memover-history-"))
        self._killed: set[int] = set()
        self._names: set[bytes] = {generation_key(told["prefix"], namespace).encode() for namespace in NAMESPACES}
        self._workers: list[subprocess.Popen[str]] = []
        self._began = time.monotonic()
        try:
            sources = self._directory / "sources"
            sources.write_bytes(bytes(8 * len(NAMESPACES) * told["keys"]))
            for index in range(told["processes"]):
                self._workers.append(self._start(index, str(sources)))
            for index in range(told["processes"]):
                self._expect(index, "ready")
            for worker in self._workers:
                self._say(worker, "go")
        except BaseException:
            self.close()
            raise
        self._began = time.monotonic()

    @property
    def pids(self) -> list[int]:
        """The processes, in order."""
        return [worker.pid for worker in self._workers]

    def kill(self, index: int) -> None:
        """SIGKILL one of them; what it recorded until then counts."""
        self._killed.add(index)
        self._workers[index].kill()
        self._workers[index].wait()

    def freeze(self, index: int) -> None:
        """SIGSTOP one of them, as a long pause of its machine would."""
        self._workers[index].send_signal(signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """SIGCONT it."""
        self._workers[index].send_signal(signal.SIGCONT)

    def stop(self, *, rules: Iterable[str] = RULES, max_staleness: float = 0.0) -> Report:
        """Lets every caller finish its call, and judges the history. Raises `MemoverError` if a process does not end."""
        seconds = time.monotonic() - self._began
        for index, worker in enumerate(self._workers):
            if index not in self._killed:
                self._say(worker, "stop")
        for index in range(len(self._workers)):
            if index not in self._killed:
                self._expect(index, "done")
        records = [record for index in range(len(self._workers)) for record in _unpickled(self._records(index))]
        # The last of a process that was not killed.
        totals = [record for record in records if isinstance(record, dict)]
        self._names.update(name for each in totals for name in each["names"])
        store_errors = sum(each["store_errors"] for each in totals)
        asked = set(rules) - ({"single-load"} if store_errors else set())
        if self._told["features"]:
            asked -= {"single-load", "monotonic"}
        report = judge_history(
            [record for record in records if isinstance(record, Read)],
            [record for record in records if isinstance(record, Invalidation)],
            [record for record in records if isinstance(record, FailedCall)],
            rules=asked,
            max_staleness=max_staleness,
        )
        with Cache(self._urls[0]) as cache:
            report.store = cache.address
        report.processes, report.seconds = len(self._workers), seconds
        report.writes = records.count("write")
        report.store_errors, report.near_hits = store_errors, sum(each["near_hits"] for each in totals)
        self.close()
        return report

    def close(self) -> None:
        """Ends what is running and removes what was written. May be repeated."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    with suppress(OSError):  # it has ended, and did not read what was still in the pipe
                        pipe.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._workers and not self._urls[0].startswith("memory:"):
            self._sweep()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside

    def _start(self, index: int, sources: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, "-c", "from memover.testing.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(self._told["path"])},
        )
        own = {
            **self._told,
            "index": index,
            "url": self._urls[index % len(self._urls)],
            "sources": sources,
            "records": str(self._records(index)),
        }
        self._say(worker, json.dumps(own))
        return worker

    def _records(self, index: int) -> Path:
        return self._directory / f"records-{index}"

    @staticmethod
    def _say(worker: subprocess.Popen[str], line: str) -> None:
        assert worker.stdin is not None
        with suppress(BrokenPipeError):  # it has died, which `_expect` reports
            worker.stdin.write(line + "\n")
            worker.stdin.flush()

    def _expect(self, index: int, word: str) -> None:
        worker = self._workers[index]
        assert worker.stdout is not None
        # A call that hangs must not hang the checker: its process is ended, and that is reported.
        guard = threading.Timer(START_SECONDS if word == "ready" else STOP_SECONDS, worker.kill)
        guard.start()
        said = worker.stdout.readline().strip()
        guard.cancel()
        if said != word:
            status = worker.wait(STOP_SECONDS)
            raise MemoverError(
                f"Process {index} of the history ended with status {status} before it was {word}: see its traceback above."
            )

    def _sweep(self) -> None:
        # Entries and leases expire; generations and their like do not.
        cache = Cache(self._urls[0], prefix=self.prefix)
        with closing(cache._state.store) as store, suppress(StoreError):  # where it is gone, they went with it
            for name in self._names:
                run(store.drop(name, name, "0" * 16, ()))


def _unpickled(path: Path) -> Iterable[Any]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            try:
                records = pickle.load(file)  # noqa: S301 - written by our own child
            except (EOFError, pickle.UnpicklingError):
                return  # the end, or where the process was killed
            yield from records
