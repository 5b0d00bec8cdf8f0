"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memover import Cache
from memover.testing import assert_cached, assert_loads

if TYPE_CHECKING:
    import redis

APP = """\
import memover

@memover.versioned_cache(namespace="squares")
def square(n: int) -> int:
    return n * n

@memover.versioned_cache(namespace="cubes")
async def cube(n: int) -> int:
    return n * n * n
"""

TESTS = """\
import asyncio
import memover
import pytest
from app import cube, square

PREFIXES = []

@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_a_cache_of_its_own(memover_cache, assert_cached, assert_loads, run):
    assert memover.default_cache() is memover_cache
    PREFIXES.append(memover_cache.prefix)
    assert square.peek(7) is None
    with assert_loads(1):
        assert [square(7), square(7)] == [49, 49]
    assert assert_cached(square, 7).value == 49

def test_prefixes_differ():
    assert len(set(PREFIXES)) == 2

def test_async(memover_cache, assert_cached, assert_loads):
    async def main():
        with assert_loads(1, cube):
            await cube(2)
        await assert_cached(cube, 2)
    asyncio.run(main())

def test_not_cached(memover_cache, assert_cached):
    with pytest.raises(AssertionError, match=r"square\\(7\\) is not cached, under 'test-"):
        assert_cached(square, 7)

def test_loads(memover_cache, assert_loads):
    with pytest.raises(AssertionError, match="1 load expected, but 2 done: square 2 times"):
        with assert_loads(1):
            square(1)
            square(2)
    with assert_loads(0, square):
        asyncio.run(cube(1))
"""


def run(directory: Path, *args: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "test_app.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.memover]\ntargets = ["app"]\n[tool.pytest.ini_options]\npythonpath = ["."]\n'
    )
    return tmp_path


def test_each_test_has_an_empty_cache_in_memory(project: Path) -> None:
    """A fresh prefix each, and the assertions fail when they should."""
    status, told = run(project)
    assert status == 0, told
    assert "6 passed" in told


def test_each_test_has_a_fresh_prefix_in_redis(project: Path, redis_url: str, redis_client: redis.Redis) -> None:
    """The same tests against a Redis, in which nothing is left behind."""
    before = set(redis_client.scan_iter("*test-*"))
    status, told = run(project, "--memover-url", redis_url)
    assert status == 0, told
    assert set(redis_client.scan_iter("*test-*")) <= before


def test_the_url_may_stand_in_the_ini_file(project: Path) -> None:
    """`memover_url`; one that is none fails the test that asks for it."""
    status, told = run(project, "-o", "memover_url=nonsense://")
    assert status == 1
    assert "No store for the scheme" in told


def test_the_check_is_one_more_test(project: Path) -> None:
    """Green with a lock that fits; the report, and no traceback, when it does not."""
    subprocess.run([sys.executable, "-m", "memover", "lock"], cwd=project, check=True, capture_output=True)
    status, told = run(project, "--memover-check")
    assert status == 0, told
    assert "7 passed" in told
    (project / "app.py").write_text(APP.replace("def square(n: int) -> int", "def square(n: int) -> float"))
    status, told = run(project, "--memover-check")
    assert status == 1
    assert "app.py:4: MV001 squares: the shape of the result changed" in told
    assert "the result: int -> float" in told
    assert "Traceback" not in told
    assert run(project)[0] == 0


def test_without_a_lock_the_check_says_so(project: Path) -> None:
    """As the command does."""
    status, told = run(project, "--memover-check")
    assert status == 1
    assert "write it with `memover lock`" in told


def test_assertions_refuse_what_is_not_decorated() -> None:
    """A test that asserts nothing would pass."""
    with pytest.raises(TypeError, match="not decorated"):
        assert_cached(len, [])
    with pytest.raises(TypeError, match="not decorated"), assert_loads(0, len):
        pass


def test_loads_of_one_function_are_told_from_those_of_others() -> None:
    """On whatever cache they are."""
    cache = Cache()

    @cache.versioned(namespace="one")
    def one(n: int) -> int:
        return n

    @cache.versioned(namespace="other")
    def other(n: int) -> int:
        return one(n)

    with assert_loads(1, one), assert_loads(1, other), assert_loads(2, one, other):
        other(1)
        other(1)
