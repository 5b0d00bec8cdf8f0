"""`memover top` shows what processes report, once or live, and leaves the terminal as it was."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from memover.cli.reports import Watcher, nines
from memover.cli.top import sparkline
from memover.readable import readable
from memover.stores.survey import open_survey
from tests.servers import wait_until

from .conftest import Project, foreign
from .processes import Function, reporter, reporting

if TYPE_CHECKING:
    import redis


def publish(client: redis.Redis, prefix: str, process: str, *functions: dict[str, Any], window: float = 2.0) -> None:
    """A report with figures that are known."""
    report = {
        "format": 1,
        "process": process,
        "host": "h",
        "pid": 1,
        "memover": "1.0",
        "started": 1.0,
        "at": 2.0,
        "interval": 5.0,
        "window": window,
        "functions": [{"totals": {}, "window": {}, **each} for each in functions],
    }
    client.set(f"{prefix}:report:{process}", json.dumps(report), px=60_000)


def test_rates_over_all_processes(project: Project, redis_client: redis.Redis) -> None:
    """Added up over the processes of one version, versions apart; agreement over all audits."""
    loads = [0] * 15
    loads[3] = 10
    figures = {
        "hits": 90,
        "misses": 10,
        "loads": 8,
        "near_hits": 40,
        "waits": 2,
        "stale": 4,
        "load_errors": 1,
        "store_errors": 1,
    }
    one = {
        "namespace": "profiles",
        "version": 2,
        "window": figures,
        "window_loads": loads,
        "totals": {"audits": 1000, "disagreements": 1},
    }
    publish(redis_client, project.prefix, "a", one)
    publish(redis_client, project.prefix, "b", one, {"namespace": "profiles", "version": 1})
    foreign(redis_client, project.prefix)
    redis_client.set(f"{project.prefix}:report:broken", b"\xff{")
    found = project.facts("top", "--once")
    assert list(found) == ["interval", "processes", "functions"]
    assert (found["interval"], found["processes"]) == (5.0, 2)
    old, new = found["functions"]
    assert (old["version"], old["processes"], old["calls_per_second"], old["hit_ratio"], old["load_p50"]) == (
        1,
        1,
        0,
        None,
        None,
    )
    assert new == {
        "namespace": "profiles",
        "version": 2,
        "processes": 2,
        "calls_per_second": 100.0,
        "hit_ratio": 0.9,
        "near_hits_per_second": 40.0,
        "loads_per_second": 8.0,
        "load_p50": 0.0075,
        "load_p95": pytest.approx(0.00975),
        "waits_per_second": 2.0,
        "stale_per_second": 4.0,
        "errors_per_second": 2.0,
        "agreement": 0.999,
    }


def test_the_table_names_functions_and_processes(project: Project) -> None:
    """In a pipe `memover top` is as with --once."""
    with reporting(project.url, project.prefix, "profiles", 3):
        told = project.run("top").stdout
    assert "profiles" in told and "1 process (memover" in told


def test_nobody_reports(project: Project) -> None:
    """It says how to make them."""
    ended = project.run("top", "--once")
    assert "MEMOVER_REPORT" in ended.stderr
    assert project.facts("top", "--once") == {"interval": 0.0, "processes": 0, "functions": []}


def test_new_processes_come_and_dead_ones_go(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """Without scanning everything at each look."""
    survey = open_survey(redis_url)
    watcher = Watcher(survey, prefix)
    assert watcher.look().reports == ()
    made, clock, own = reporter(redis_url, prefix, Function("f", 1))
    made.start()
    clock.turn()
    wait_until(lambda: [each.process for each in watcher.look().reports] == [made.process], "the process to be seen")
    redis_client.unlink(f"{prefix}:report:{made.process}")
    assert watcher.look().reports == ()
    own.close()
    survey.close()


def test_sparklines() -> None:
    """As wide as asked for, the highest value full, nothing at all flat."""
    assert sparkline([0, 1, 2, 4, 8], 5) == "▁▁▂▄█"
    assert sparkline([], 3) == "   "
    assert sparkline([0, 0], 3) == " ▁▁"
    assert len(sparkline(list(range(100)), 16)) == 16


def test_nines_show_what_is_missing() -> None:
    """As many digits as it takes to see that it is not all."""
    assert nines(None, 0) == "–"
    assert nines(1.0, 1234) == "100 % of 1,234"
    assert nines(0.999999, 10) == "99.9999 %"
    assert nines(0.5, 10) == "50.0 %"


class Terminal:
    """`memover top` in a pseudo-terminal: what it writes, and keys for it."""

    def __init__(self, project: Project) -> None:
        import pty
        import subprocess

        self.ours, theirs = pty.openpty()
        import fcntl
        import signal
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs

        def interruptible() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal to it
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in a shell's background are begun with it ignored

        self.process = subprocess.Popen(
            [sys.executable, "-m", "memover", "top", "--interval", "0.2"],
            cwd=project.root,
            env={**project.environment(), "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=interruptible,  # noqa: PLW1509
        )
        self.text = ""

    def read_until(self, wanted: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"{wanted!r} did not come; there is\n{self.text[-3000:]}"
            if readable([self.ours], 0.2):
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
@pytest.mark.parametrize("how", ["q", "escape", "interrupt", "signal"])
def test_full_screen_ends_as_it_began(project: Project, how: str) -> None:
    """q, Esc, Ctrl-C and SIGINT end it with status 0; screen, cursor and modes of the terminal are restored."""
    import signal
    import termios

    with reporting(project.url, project.prefix, "profiles", 3):
        terminal = Terminal(project)
        try:
            terminal.read_until("profiles")
            assert "\x1b[?1049h" in terminal.text
            if how == "signal":
                terminal.process.send_signal(signal.SIGINT)
            else:
                os.write(terminal.ours, {"q": b"q", "escape": b"\x1b", "interrupt": b"\x03"}[how])
            terminal.read_until("\x1b[?1049l")
            terminal.read_until("\x1b[?25h")
            assert terminal.process.wait(timeout=20) == 0
            assert termios.tcgetattr(terminal.theirs) == terminal.before
        finally:
            terminal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
def test_full_screen_lives_through_an_outage(start_redis: Any, tmp_path: Any) -> None:
    """It says that the store does not answer, keeps what was seen, and goes on when it is back."""
    server = start_redis()
    project = Project(tmp_path, server.url, "shop")
    with server.client() as client:
        publish(client, "shop", "a", {"namespace": "profiles", "version": 2})
    terminal = Terminal(project)
    try:
        terminal.read_until("profiles")
        server.kill()
        terminal.read_until("does not answer")
        server.start()
        terminal.text = ""
        terminal.read_until("No process reports")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text)
        assert "Traceback" not in plain
    finally:
        terminal.close()
