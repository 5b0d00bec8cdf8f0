"""The history checker on real processes: it finds nothing in memover, and finds what is wrong in broken builds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import ConfigurationError
from memover.testing import check_history, start_history
from tests.servers import FaultyProxy, RedisServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

# Writes and invalidations are frequent, loads slow and callers many: a build that is wrong is wrong within a second.
FIERCE: dict[str, Any] = {"keys": 2, "changes": 0.2, "slowest_load": 0.02, "processes": 2, "threads": 2, "tasks": 4}

PATIENT = {"socket_timeout": 10.0, "socket_connect_timeout": 10.0}
"""A budget that a busy machine does not use up: what is loaded without the store is no matter for "single-load"."""


def test_no_call_is_answered_with_what_was_invalidated_before_it(redis_server: RedisServer) -> None:
    """P1, P2, P6: processes of sync and async callers, invalidated by key and namespace all the while."""
    report = check_history(redis_server.url, seconds=3, options=PATIENT)
    assert report.ok, str(report)
    assert (report.most_loads, report.store_errors) == (1, 0), str(report)
    assert report.invalidations.keys() == {"key", "namespace", "tag"}
    left = redis_server.run("KEYS", "memover-history-*")
    assert [name for name in left if redis_server.run("PTTL", name) < 0] == [], "keys that do not expire"


def test_the_memory_store_keeps_the_same_promises() -> None:
    """One process, threads and event loops, the memory store."""
    report = check_history("memory://", seconds=2, processes=1, loops=2)
    assert report.ok, str(report)
    with pytest.raises(ConfigurationError):
        check_history("memory://", processes=2)


@pytest.mark.parametrize(
    ("mutant", "rules"),
    [
        ("stamp_after_load", {"fresh"}),
        ("store_without_the_lease", {"fresh"}),
        ("invalidate_the_entry_alone", {"fresh"}),
        ("flight_by_key", {"fresh"}),
        ("everybody_loads", {"single-load"}),
    ],
)
def test_a_broken_build_is_caught(mutant: str, rules: set[str], redis_server: RedisServer) -> None:
    """With one line of the protocol taken out, the checker says which rule is broken."""
    for seconds in (1.5, 5, 15):  # a busy machine has fewer chances a second to go wrong
        report = check_history(
            redis_server.url, seconds=seconds, setup=f"tests.history.mutants:{mutant}", options=PATIENT, **FIERCE
        )
        if rules <= report.violations.keys():
            break
    assert rules <= report.violations.keys(), str(report)
    assert not report.ok
    assert "error" not in report.violations, str(report)


def test_a_build_that_forgets_failed_invalidations_is_caught(start_redis: Callable[..., RedisServer]) -> None:
    """P8: a process that was told of a failure and goes on serving is found out."""
    server = start_redis()
    for rounds in (6, 20, 60):
        with (
            FaultyProxy(server) as proxy,
            start_history(
                proxy.url,
                setup="tests.history.mutants:failed_invalidations_are_forgotten",
                # What reaches the server is carried out, so only requests that are lost can leave an old entry.
                options={"breaker_first": 0.01, "breaker_last": 0.02, "socket_timeout": 0.1},
                **FIERCE,
            ) as run,
        ):
            for _ in range(rounds):
                seen = proxy.bytes_down
                wait_until(lambda seen=seen: proxy.bytes_down > seen + 20_000, "callers to be served")
                proxy.blackhole()
                lost = proxy.connections
                wait_until(lambda lost=lost: proxy.connections > lost + 4, "callers to have tried in vain")
                proxy.restore()
            report = run.stop(rules=("closed",))
        if report.violations:
            break
    assert report.violations.keys() == {"closed"}, str(report)


def test_a_process_that_dies_at_work_ends_the_run_with_an_error(redis_server: RedisServer) -> None:
    """A worker that vanishes is not a history without violations."""
    from memover.errors import MemoverError

    with start_history(redis_server.url) as run:
        import os
        import signal

        os.kill(run.pids[1], signal.SIGKILL)
        with pytest.raises(MemoverError, match="Process 1"):
            run.stop()


def _program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memover.testing", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_users_run_the_checker_on_their_own_deployment(redis_url: str) -> None:
    """`python -m memover.testing URL`: a report for people or as JSON, status 0 when all is well."""
    done = _program(redis_url, "--seconds", "1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["operations"] > 0
    assert report["store"] == redis_url


def test_a_store_that_does_not_answer_is_no_success(start_redis: Callable[..., RedisServer]) -> None:
    """Reads fail open, so a dead store breaks no rule; the program says that nothing was tried, status 2."""
    server = start_redis()
    server.kill()
    done = _program(server.url, "--seconds", "0.5")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "INCONCLUSIVE" in done.stdout
    assert _program("nonsense://x").returncode == 2
