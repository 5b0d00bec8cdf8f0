"""Every guide to moving in has a before and an after, both run, and both do the same for whoever calls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "moving"
NEEDS = {
    "cachetools": "cachetools",
    "cashews": "cashews",
    "diskcache": "diskcache",
    "django": "django",
    "dogpile": "dogpile.cache",
    "fastapi-cache": "fastapi_cache",
    "flask-caching": "flask_caching",
    "joblib": "joblib",
    "lru-cache": "functools",
}
LOCAL = {"cachetools", "diskcache", "joblib", "lru-cache"}
"""Those whose programs need no Redis before."""

_BLOCK = re.compile(r"^```python (before|after)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROJECT = """
from django.conf import settings
settings.configure(CACHES=CACHES, SECRET_KEY="a secret", INSTALLED_APPS=globals().get("INSTALLED_APPS", []))
import django
django.setup()
from django.core.management import call_command
call_command("check")
"""


def program(guide: str, side: str, url: str) -> str:
    """The guide's blocks of one side as one program; a block of settings becomes a project."""
    blocks = [code for which, code in _BLOCK.findall((GUIDES / f"{guide}.md").read_text()) if which == side]
    assert blocks, f"{guide}.md has no block marked {side!r}"
    whole = "".join(code + (_PROJECT if "CACHES = {" in code else "") for code in blocks)
    assert ("redis://localhost:6379/0" in whole) is (side == "after" or guide not in LOCAL)
    return whole.replace("redis://localhost:6379/0", url)


def test_there_is_a_guide_for_each() -> None:
    """And a test's need for each guide."""
    assert {path.stem for path in GUIDES.glob("*.md")} - {"index"} == set(NEEDS)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("guide", sorted(NEEDS))
def test_the_code_of_the_guide_runs(
    guide: str, side: str, start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """As written, but for the address, on an empty Redis; what is after runs without a warning too."""
    if side == "before":
        pytest.importorskip(NEEDS[guide], reason="the library to move from")
    server = start_redis()
    warnings = ["-W", "error"] if side == "after" else []
    file = tmp_path / "program.py"
    file.write_text(program(guide, side, server.url))
    ended = subprocess.run(
        [sys.executable, *warnings, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    stored = sorted(key.decode() for key in server.run("KEYS", "*"))
    assert bool(stored) is (side == "after" or guide not in LOCAL), "it used the Redis it was given"
    if side == "after":
        assert all(key.startswith(("shop:", "{shop:")) for key in stored)


def test_a_guide_whose_code_is_wrong_is_found_out(start_redis: Callable[..., RedisServer]) -> None:
    """The runner runs what is in the guide: with one assertion turned round it fails."""
    url = start_redis().url
    wrong = program("dogpile", "after", url).replace("assert runs == [7]\n", "assert runs == [8]\n")
    ended = subprocess.run([sys.executable, "-c", wrong], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "AssertionError" in ended.stderr
