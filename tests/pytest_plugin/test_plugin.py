"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
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


def test_an_assertion_that_fails_shows_the_line_of_the_test(project: Path) -> None:
    """And no source of memover's: what is wrong is in the test, or in what it tests."""
    (project / "test_app.py").write_text(
        "import asyncio\n"
        "from app import cube, square\n"
        "def test_cached(memover_cache, assert_cached):\n    assert_cached(square, 7)\n"
        "def test_loads(memover_cache, assert_loads):\n    with assert_loads(2, square):\n        square(7)\n"
        "def test_awaited(memover_cache, assert_cached):\n"
        "    async def main():\n        await assert_cached(cube, 2)\n    asyncio.run(main())\n"
    )
    status, told = run(project)
    assert status == 1 and "3 failed" in told
    for line in ("> assert_cached(square, 7)", "> with assert_loads(2, square):", "> await assert_cached(cube, 2)"):
        assert line in re.sub(r"> +", "> ", told)
    assert "assertions.py" not in told


def test_each_test_has_a_fresh_prefix_in_redis(project: Path, redis_url: str, redis_client: redis.Redis) -> None:
    """The same tests against a Redis, in which nothing is left behind."""
    before = set(redis_client.scan_iter("*test-*"))
    status, told = run(project, "--memover-url", redis_url)
    assert status == 0, told
    assert set(redis_client.scan_iter("*test-*")) <= before


def test_each_test_has_a_fresh_prefix_in_a_file(project: Path, tmp_path: Path) -> None:
    """The same on SQLite: no entry, token or lease of a test is left in the file."""
    status, told = run(project, "--memover-url", f"sqlite:///{tmp_path}/results.db")
    assert status == 0, told
    with closing(sqlite3.connect(tmp_path / "results.db")) as file:
        left = [
            key
            for query in ("SELECT key FROM entries", "SELECT name FROM tokens", "SELECT key FROM leases")
            for (key,) in file.execute(query)
            if "test-" in key
        ]
    assert left == []


def test_a_url_from_outside_is_used(project: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MEMOVER_URL`, as for the application; the option on the command line goes before it."""
    (project / "test_url.py").write_text("def test_url(memover_cache):\n    print(memover_cache.address)\n")
    monkeypatch.setenv("MEMOVER_URL", redis_url)
    assert "redis://" in run(project, "-s", "test_url.py")[1]
    assert "memory://" in run(project, "-s", "test_url.py", "--memover-url", "memory://")[1]


def test_workers_of_xdist_do_not_meet(project: Path, redis_url: str) -> None:
    """Each test has a prefix that no other has, in whatever process it runs."""
    pytest.importorskip("xdist")
    tests = TESTS.replace("[1, 2]", "range(20)").replace("== 2", ">= 0")
    (project / "test_app.py").write_text(tests)
    status, told = run(project, "-n", "2", "--memover-url", redis_url)
    assert status == 0, told
    assert "24 passed" in told


ASYNC_TESTS = """\
import asyncio
from app import cube

def test_cached(memover_cache, assert_cached):
    asyncio.run(cube(2))
    assert_cached(cube, 3)

def test_no_loads(memover_cache, assert_loads):
    with assert_loads(0, cube):
        cube(2)

def test_loads_of_all(memover_cache, assert_loads):
    with assert_loads(0):
        cube(2)

def test_right(memover_cache, assert_loads):
    async def main():
        await asyncio.gather(cube(2), cube(2), cube(3))
    with assert_loads(2, cube):
        asyncio.run(main())
"""


def test_an_async_function_in_a_sync_test_fails_clearly(project: Path) -> None:
    """What was not awaited asserts nothing, and is never green."""
    (project / "test_app.py").write_text(ASYNC_TESTS)
    status, told = run(project)
    assert status == 1
    assert "1 passed" in told
    assert "3 failed" in told
    assert "await assert_cached(cube, ...)" in told
    # As the errors of two tests: the summary at the end repeats them or not, as wide as the terminal is.
    errors = re.findall(
        r"^E +AssertionError: cube: an `async def` function runs when it is awaited", told, re.MULTILINE
    )
    assert len(errors) == 2
    assert "never awaited" not in told


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
