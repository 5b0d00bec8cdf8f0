"""What the comparison says of other caches is what its program finds, for those that are installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (.+?) \| [^|]+ \| (`.+?`) \| ((?:not )?stored) \|$", re.MULTILINE)


def rows(text: str) -> dict[tuple[str, str], str]:
    """By cache and invalidation: what becomes of the load."""
    return {(cache, invalidation): outcome for cache, invalidation, outcome in ROW.findall(text)}


def test_the_table_of_races_is_what_the_program_prints(start_redis: Callable[..., RedisServer]) -> None:
    """Versions apart: no row says better or worse of a cache than it does today."""
    program = [sys.executable, str(ROOT / "benchmarks" / "race.py"), start_redis().url]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    found = rows(ended.stdout)
    shown = rows((ROOT / "docs" / "comparison.md").read_text(encoding="utf-8"))
    assert {cache for cache, _ in found} >= {"lru_cache", "memover"}
    assert found == {race: outcome for race, outcome in shown.items() if race[0] in {cache for cache, _ in found}}
    assert len(shown) >= 15


def test_the_readme_says_what_the_table_says() -> None:
    """Of every cache in it: stored, or returned and not stored."""
    shown = rows((ROOT / "docs" / "comparison.md").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Compared with others")[2]
    said = {cells[1].strip("` "): cells[4].strip() for line in readme.split("\n") if len(cells := line.split("|")) == 6}
    for cache in {cache for cache, _ in shown}:
        (of,) = [text for name, text in said.items() if name.removeprefix("functools.") == cache]
        outcomes = {outcome for (name, _), outcome in shown.items() if name == cache}
        assert of.startswith("is stored" if "stored" in outcomes else "is returned, not stored"), cache
        assert ("where" in of) is (len(outcomes) == 2), cache
