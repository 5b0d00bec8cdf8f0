"""On Pythons that warn of `?1`, parameters stand at plain `?`: warnings may be errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import re
import sys

import memover
from memover.stores.sqlite import connections


class Strict(connections.Connection):
    """As sqlite3 of Python 3.12.0 to 3.12.3, where warnings are errors."""

    def execute(self, sql, parameters=()):
        if parameters and re.search(r"[?:@$][0-9a-z_]", re.sub("'[^']*'", "", sql)):
            raise DeprecationWarning(f"Binding by name to a sequence: {sql}")
        seen.append(sql)
        return super().execute(sql, parameters)


seen = []
connections.Connection = Strict
connections.NUMBERS_ARE_NAMES = True
with memover.Cache("sqlite:///" + sys.argv[1], prefix="strict", max_bytes=400_000) as cache:

    @memover.versioned_cache(namespace="ns", cache=cache, tags=("tag:{x}",), ttl=60)
    def double(x: int) -> bytes:
        if x < 0:
            raise ValueError(x)
        return bytes(x)

    @memover.versioned_cache(namespace="outer", cache=cache, ttl=None)
    def outer(x: int) -> int:
        return len(double(x))

    for size in (1, 2, 3000, 100_000):
        assert double(size) == double(size) == bytes(size)
    assert outer(2) == 2
    assert double.map(range(20)) == double.map(range(20)) == [bytes(x) for x in range(20)]
    try:
        double(-1)
    except ValueError:
        pass
    double.invalidate(1)
    cache.invalidate_tags("tag:2")
    double.refresh(3)
    double.set(b"", 4)
    double.invalidate_all()
    for x in range(300):
        double(3000 + x % 200)
    cache.set("a", 1)
    cache.add("b", 2)
    assert cache.incr("a") == 2
    cache.touch("a", 10)
    assert cache.incr_version("a") == 2
    cache.set_many({str(x): x for x in range(20)})
    assert cache.get_many(["1", "2"]) == {"1": 1, "2": 2}
    cache.delete("b")
    cache.delete_many(["1", "2"])
    cache.clear()
    assert cache._state.store.tidy(10)
    assert double.cache_info().store_errors == 0
print(len(set(seen)))
'''


def test_the_store_works_where_warnings_are_errors(tmp_path: Path) -> None:
    """Everything of it, in a process of its own under `-W error`, on connections that refuse what Python 3.12.0 warns of."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "store.db")],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert int(ran.stdout) > 30
