"""The near cache before a SQLite file: the same bound, kept by heartbeats alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from memover.clocks import boottime
from memover.testing.rules import RULES
from memover.testing.workload import start_history
from tests.near.actors import Source, comes_near, is_near, near_function
from tests.near.test_moving import WAYS, elsewhere, invalidate
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memover import Cache


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/near.db"


@pytest.mark.parametrize("how", WAYS)
def test_its_own_invalidation_counts_at_once(how: str, url: str, cache_of: Callable[..., Cache]) -> None:
    cache, source = cache_of(url), Source()
    f = near_function(cache, source, near=60, tags=("x:{x}",))
    f(1)
    comes_near(f, 1)
    source.value = 2
    invalidate(cache, f, how)
    assert f(1) == [1, 2]
    comes_near(f, 1)


@pytest.mark.parametrize("how", WAYS)
def test_another_process_s_counts_within_the_bound(
    how: str, url: str, cache_of: Callable[..., Cache], prefix: str
) -> None:
    source, bound = Source(), 1.0
    f = near_function(cache_of(url), source, near=bound, tags=("x:{x}",))
    f(1)
    comes_near(f, 1)
    source.value = 2
    run_python(elsewhere, url, prefix, how)
    returned = began = boottime()
    while f(1) != [1, 2]:
        assert began - returned <= bound
        began = boottime()
    comes_near(f, 1)
    assert f(1) == [1, 2]


def test_a_file_that_was_deleted_is_noticed(url: str, tmp_path: Path, cache_of: Callable[..., Cache]) -> None:
    source = Source()
    f = near_function(cache_of(url), source, near=0.5)
    f(1)
    comes_near(f, 1)
    source.value = 2
    for path in tmp_path.iterdir():
        path.unlink()
    wait_until(lambda: f(1) == [1, 2], "the new file")
    comes_near(f, 1)
    assert is_near(f, 1)


def test_a_history_of_processes(url: str) -> None:
    with start_history(url, processes=2, keys=4, changes=0.01, function_options={"near": 0.3}) as run:
        time.sleep(5)
        report = run.stop(rules=set(RULES) - {"monotonic"}, max_staleness=0.3)
    assert report.ok, str(report)
    assert report.near_hits > report.reads / 20, str(report)
