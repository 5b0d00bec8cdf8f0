"""What a process says of itself for `memover top` and the page: one small key with a ttl, written once an interval.

    key      {prefix}:report:{host}-{pid}-{8 hex digits}
    expires  three intervals after it was written, and at least 5 s: a process that died disappears
    value    JSON, ASCII, format 1:

        {"format": 1, "process": "...", "host": "...", "pid": 1, "memover": "1.0", "started": 1.0, "at": 2.0,
         "interval": 5.0, "window": 5.0,
         "functions": [{"namespace": "...", "version": 1,
                        "totals": {counter: n},  "loads": [n, ...], "load_seconds": 0.5,
                        "window": {counter: n}, "window_loads": [n, ...]}]}

Instants are seconds since the epoch, durations seconds. `totals` are since the process began, `window` the growth in the last
`window` seconds, both without zeros; `loads` and `window_loads` are histograms over `LOAD_BUCKETS_SECONDS`, left out when
empty. One reading is thus enough for rates. A reader ignores what it does not know; another format is no report.

One command an interval, whatever number of functions there is; none where reports are off. A store that does not answer loses
one report and nothing else.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import socket
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic, wall
from memover.errors import StoreError
from memover.keys.keyvalue import NAMESPACE as KEY_VALUES
from memover.keys.names import report_key
from memover.runtime.counters import LOAD_BUCKETS_SECONDS, NAMES
from memover.stores.survey import survey_of

if TYPE_CHECKING:
    from memover.runtime.background import Timed
    from memover.runtime.function import Function
    from memover.runtime.state import CacheState
    from memover.stores.survey import Survey

__all__ = ["FORMAT", "ProcessReport", "Reported", "Reporter", "read_report"]

FORMAT = 1
_LEAST_TTL_SECONDS = 5.0
_INTERVALS = 3
_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
_BUCKETS = len(LOAD_BUCKETS_SECONDS) + 1

logger = logging.getLogger("memover")


def _process() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def _counted(function: Function) -> tuple[dict[str, int], list[int]]:
    """The totals of a function, and its histogram of load times."""
    return function.counters.as_dict(), list(function.counters.load_buckets)


class Reporter:
    """Publishes the totals of one cache's functions every `interval` seconds, from `start()` to `stop()`.

    A child after fork calls `after_fork()`: it is a process of its own, and reports only what it did itself.
    """

    def __init__(self, state: CacheState, interval: float) -> None:
        # Its parts, and not the state itself, which has the reporter.
        self._prefix, self._all_functions, self._store = state.prefix, state.functions, state.store
        self._later = state.background.later
        self._survey: Survey | None = None
        self.interval = interval
        self._task: Timed | None = None
        self._begin()

    def _begin(self) -> None:
        self.process = _process()
        self._name = report_key(self._prefix, self.process).encode()
        self._started = wall()
        self._last_at = monotonic()
        self._last: dict[tuple[str, Any], tuple[dict[str, int], list[int]]] = {}
        self._published = False

    def start(self) -> None:
        """Reports after one interval, and then every interval. Starting twice is starting once."""
        if self._task is None:
            # The background must not keep alive what nobody else does.
            ours = weakref.ref(self)

            def turn() -> float | None:
                reporter = ours()
                return None if reporter is None else reporter._turn()

            self._task = self._later(self.interval, turn)

    def stop(self) -> None:
        """Stops, and takes the report back so that nobody counts this process any more. Never raises."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        if self._published:
            self._published = False
            try:
                self._surveyed().unlink([self._name])
            except StoreError:
                pass  # it expires

    def after_fork(self) -> None:
        """In a child: begin anew, if the parent was reporting. What was counted before the fork is the parent's."""
        running, self._task = self._task is not None, None
        self._begin()
        for each in self._functions():
            self._last[each.policy.namespace, each.policy.version] = _counted(each)
        if running:
            self.start()

    def _turn(self) -> float:
        try:
            self.publish()
        except StoreError as error:
            logger.debug("the report of this process was not published: %s", error)
        return self.interval

    def publish(self) -> None:
        """Writes one report now. Raises `StoreError`."""
        if not self._functions():
            return
        ttl = max(_INTERVALS * self.interval, _LEAST_TTL_SECONDS)
        self._surveyed().put(self._name, self.payload(), int(ttl * 1000))
        self._published = True

    def _functions(self) -> list[Function]:
        return [each for each in list(self._all_functions) if each.policy.namespace != KEY_VALUES]

    def _surveyed(self) -> Survey:
        if self._survey is None:
            self._survey = survey_of(self._store)
        return self._survey

    def payload(self) -> bytes:
        """The report as bytes; what grew since the last one is its window."""
        from memover import __version__

        now = monotonic()
        window, self._last_at = now - self._last_at, now
        functions = []
        last: dict[tuple[str, Any], tuple[dict[str, int], list[int]]] = {}
        for each in self._functions():
            place = each.policy.namespace, each.policy.version
            totals, loads = _counted(each)
            before, loads_before = self._last.get(place, ({}, [0] * len(loads)))
            last[place] = (totals, loads)
            grown = {name: number - before.get(name, 0) for name, number in totals.items()}
            loads_grown = [number - old for number, old in zip(loads, loads_before)]
            facts: dict[str, Any] = {
                "namespace": each.policy.namespace,
                "version": each.policy.version,
                "totals": {name: number for name, number in totals.items() if number},
                "window": {name: number for name, number in grown.items() if number > 0},
            }
            if any(loads):
                facts["loads"] = loads
                facts["load_seconds"] = round(each.counters.load_seconds, 6)
            if any(loads_grown):
                facts["window_loads"] = [max(0, number) for number in loads_grown]
            functions.append(facts)
        self._last = last
        host, _, _ = self.process.rpartition("-")[0].rpartition("-")
        report = {
            "format": FORMAT,
            "process": self.process,
            "host": host,
            "pid": os.getpid(),
            "memover": __version__,
            "started": round(self._started, 3),
            "at": round(wall(), 3),
            "interval": self.interval,
            "window": round(window, 6),
            "functions": functions,
        }
        return json.dumps(report, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True)
class Reported:
    """One function of one process, as it was reported."""

    namespace: str
    version: int | str
    totals: dict[str, int]
    window: dict[str, int]
    loads: tuple[int, ...]
    window_loads: tuple[int, ...]
    load_seconds: float = 0.0


@dataclass(frozen=True)
class ProcessReport:
    """What one process reported; instants are on its own clock."""

    process: str
    host: str
    pid: int
    memover: str
    started: float
    at: float
    interval: float
    window: float
    functions: tuple[Reported, ...] = field(default=())


def read_report(raw: bytes | None) -> ProcessReport | None:
    """The report in stored bytes; None for anything that no reporter of this format wrote. Any bytes may be given."""
    if raw is None or len(raw) > _SIZE_LIMIT_BYTES:
        return None
    try:
        facts = json.loads(raw)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            return None
        return ProcessReport(
            process=_text(facts["process"]),
            host=_text(facts["host"]),
            pid=_whole(facts["pid"]),
            memover=_text(facts["memover"]),
            started=_seconds(facts["started"]),
            at=_seconds(facts["at"]),
            interval=_seconds(facts["interval"]),
            window=_seconds(facts["window"]),
            functions=tuple(_function(each) for each in facts["functions"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _function(facts: dict[str, Any]) -> Reported:
    version = facts["version"]
    return Reported(
        namespace=_text(facts["namespace"]),
        version=version if isinstance(version, str) else _whole(version),
        totals=_counts(facts["totals"]),
        window=_counts(facts["window"]),
        loads=_buckets(facts.get("loads")),
        window_loads=_buckets(facts.get("window_loads")),
        load_seconds=_seconds(facts.get("load_seconds", 0.0)),
    )


def _counts(facts: dict[str, Any]) -> dict[str, int]:
    return {name: _whole(facts[name]) for name in NAMES if name in facts}


def _buckets(numbers: Any) -> tuple[int, ...]:
    if numbers is None:
        return (0,) * _BUCKETS
    if not isinstance(numbers, list) or len(numbers) != _BUCKETS:
        raise ValueError("another histogram")
    return tuple(_whole(each) for each in numbers)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise ValueError("no text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("no count")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("no seconds")
    return float(value)
