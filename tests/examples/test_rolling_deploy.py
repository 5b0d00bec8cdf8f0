"""The rolling deploy does what it is there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "rolling_deploy" / "run.py"


def test_both_releases_serve_side_by_side_and_an_upgrade_saves_the_loads(redis_url: str) -> None:
    """Two processes of different versions: 40 loads when the new one comes up cold, none when it upgrades."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), redis_url, "40"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    loads = [int(each) for each in re.findall(r"(\d+) loads", ended.stdout)]
    assert loads == [40, 40, 0, 0, 40, 0, 0, 0]
