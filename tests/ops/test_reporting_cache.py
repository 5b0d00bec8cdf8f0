"""`Cache(report=...)` and MEMOVER_REPORT: what a real cache publishes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError
from memover.cli.reports import Watcher
from memover.stores.survey import open_survey
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from memover.runtime.report import ProcessReport
    from tests.servers import RedisServer


@pytest.fixture
def watcher(redis_url: str, prefix: str) -> Iterator[Watcher]:
    survey = open_survey(redis_url)
    yield Watcher(survey, prefix)
    survey.close()


def reports(watcher: Watcher) -> tuple[ProcessReport, ...]:
    return watcher.look(whole=True).reports


def test_a_cache_reports_what_it_did(redis_url: str, prefix: str, watcher: Watcher) -> None:
    """Hits, misses and loads of its functions, until it is closed."""
    with Cache(redis_url, prefix=prefix, report=0.1) as cache:
        cached: Any = cache.versioned(namespace="profiles", version=3)(lambda n: n)
        for n in (1, 1, 1, 2):
            cached(n)
        cache.set("k", 1)
        wait_until(lambda: reports(watcher), "a report")
        (report,) = reports(watcher)
        (function,) = report.functions
        assert (function.namespace, function.version) == ("profiles", 3)
        assert (function.totals["hits"], function.totals["misses"], function.totals["loads"]) == (2, 2, 2)
        assert sum(function.loads) == 2
        assert (report.pid, report.interval) == (os.getpid(), 0.1)
    assert reports(watcher) == ()


def test_the_environment_turns_it_on(redis_url: str, prefix: str, watcher: Watcher) -> None:
    """In the forms of a duration; an option goes before it."""
    code = """
import memover
cache = memover.Cache({url!r}, prefix={prefix!r})
cached = cache.versioned(namespace="profiles")(lambda: 1)
cached()
from memover.stores.survey import open_survey
survey = open_survey({url!r})
from tests.servers import wait_until
keys = wait_until(lambda: [key for page in survey.keys({pattern!r}) for key in page.keys], "a report")
result = [key.decode() for key in keys]
"""
    code = code.format(url=redis_url, prefix=prefix, pattern=f"{prefix}:report:*".encode())
    (found,) = run_python(code, env={"MEMOVER_REPORT": "100ms"})
    assert len(found) == 1
    assert len(reports(watcher)) == 1, "it did not close, so its report is there until it expires"


def test_the_environment_turns_it_off(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of MEMOVER_TTL."""
    monkeypatch.setenv("MEMOVER_REPORT", "never")
    with Cache(redis_url) as cache:
        assert cache._state.reporter is None


def test_nothing_is_sent_where_it_is_off(start_redis: Callable[..., RedisServer]) -> None:
    """Nor by a cache without functions."""
    server = start_redis()
    with Cache(server.url, prefix="shop") as cache, Cache(server.url, prefix="shop", report=0.05) as empty:
        cache.versioned(namespace="profiles")(lambda: 1)()
        assert empty._state.reporter is not None
        empty._state.reporter.publish()
        with server.client() as client:
            assert client.keys("shop:report:*") == []


def test_a_forked_child_is_a_process_of_its_own(
    redis_url: str, redis_client: redis.Redis, prefix: str, watcher: Watcher
) -> None:
    """Two reports, and the child's window is what it did itself."""
    with Cache(redis_url, prefix=prefix, report=0.1) as cache:
        cached: Any = cache.versioned(namespace="profiles")(lambda n: n)
        cached(1)
        wait_until(lambda: reports(watcher), "the parent's report")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                cached(1)
                os.read(read, 1)
                status = 0
            finally:
                os._exit(status)
        try:
            wait_until(lambda: len(reports(watcher)) == 2, "the child's report")
            assert {report.pid for report in reports(watcher)} == {os.getpid(), child}
        finally:
            os.write(write, b"x")
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)


def test_a_cache_that_is_dropped_reports_no_more(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    """The background does not keep it alive."""
    import gc
    import weakref

    cache = Cache(redis_url, prefix=prefix, report=0.05)
    state = weakref.ref(cache._state)
    cache.close()
    del cache
    gc.collect()
    assert state() is None


@pytest.mark.parametrize("report", [0, -1, "soon", True])
def test_what_is_no_interval_is_refused(report: Any) -> None:
    """When the cache is made."""
    with pytest.raises(ConfigurationError, match="report"):
        Cache("redis://localhost:1/0", report=report)
