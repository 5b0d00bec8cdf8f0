"""The clock that a store numbers its tokens by, and ends leases by, is frozen by nothing: on the memory store and in a file as on a server."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

if TYPE_CHECKING:
    from pathlib import Path

    from tests.face.ways import Way


@pytest.mark.parametrize("at", ["1969-12-31", "2030-05-05", "2262-04-12", "9999-12-31"])
def test_a_year_in_which_a_test_is_frozen_does_not_matter(way: Way, at: str) -> None:
    """Calls and invalidations of every kind, in years for which a token has no number."""
    runs: list[int] = []

    @way.cached(tags="t", stale_while_revalidate=60)
    def f(x: int) -> int:
        runs.append(x)
        return len(runs)

    with freeze_time(at, real_asyncio=way.is_async):
        assert [way.run(f(1)), way.run(f(1))] == [1, 1]
        way.run(f.invalidate_all())
        assert way.run(f(1)) == 2
        way.run(f.invalidate(1))
        assert way.run(f(1)) == 3
        assert way.run(f.refresh(1)) == 4
        way.run(f.set(9, 1))
        assert way.run(f(1)) == 9
        number = way.run(f.invalidate_all()).number
    assert abs(number / 1e6 - time.time()) < 60
    assert way.run(f.invalidate_all()).number > number


PROGRAM = """
import sys, time
import memover
from freezegun import freeze_time
with freeze_time("2030-05-05"):
    cache = memover.Cache(sys.argv[1])
    f = cache.versioned(namespace="f")(lambda: 1)
    f()
    number = f.invalidate_all().number
print(abs(number / 1e6 - time.time()) < 60)
"""


def test_a_store_may_be_used_first_while_a_clock_is_frozen(tmp_path: Path) -> None:
    """Its modules are imported then."""
    for url in ("memory://", f"sqlite:///{tmp_path}/file.db"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, check=False)
        assert done.stdout == "True\n", done.stderr
