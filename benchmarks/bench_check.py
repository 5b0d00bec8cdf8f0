"""`memover check` of a generated application: 300 decorated functions, each with a result class of its own.

    python benchmarks/bench_check.py [RUNS]

30 modules of 10 functions; results are dataclasses, pydantic models, typed dicts and named tuples, nested three deep.
The whole command is timed, as CI runs it. Target: the median is below 3 s.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

TARGET_SECONDS = 3.0
MODULES, FUNCTIONS = 30, 10

HEAD = """\
from __future__ import annotations
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal, NamedTuple
from pydantic import BaseModel
from typing_extensions import TypedDict
from memover import versioned_cache

class Status(Enum):
    ON = 1
    OFF = 2

class Place(NamedTuple):
    lat: float
    lon: float

class Note(TypedDict, total=False):
    text: str
    at: datetime
"""
FUNCTION = """
@dataclass
class Part{n}:
    name: str
    place: Place | None
    notes: list[Note]
    status: Status = Status.ON

class Whole{n}({base}):
    id: int
    parts: dict[str, Part{n}]
    mode: Literal["a", "b"] | None = None

def helper_{n}(value: int) -> int:
    return [value + i for i in range({n})][0]

@versioned_cache(namespace="m{m}/f{n}", version=1, ttl=60)
def function_{n}(user_id: int, *, region: str = "eu") -> list[Whole{n}]:
    return [Whole{n}(id=helper_{n}(user_id), parts={{}})]
"""


def generate(root: Path) -> None:
    """The application, with its settings."""
    (root / "app").mkdir()
    (root / "app" / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text('[tool.memover]\ntargets = ["app"]\n')
    for m in range(MODULES):
        parts = [
            FUNCTION.format(m=m, n=n, base="BaseModel")
            if n % 2
            else FUNCTION.format(m=m, n=n, base="")
            .replace("class Whole", "@dataclass\nclass Whole")
            .replace("():", ":")
            for n in range(FUNCTIONS)
        ]
        (root / "app" / f"views_{m}.py").write_text(HEAD + "".join(parts))


def seconds(root: Path, *args: str) -> float:
    """The time of one command; its exit status must be 0."""
    began = perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "memover", *args], cwd=root, capture_output=True, text=True, check=False
    )
    taken = perf_counter() - began
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return taken


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generate(root)
        locked = seconds(root, "lock")
        lines = len((root / "memover.lock").read_text().splitlines())
        taken = [seconds(root, "check") for _ in range(runs)]
    print(f"memover lock, first run  {locked:6.2f} s   ({MODULES * FUNCTIONS} functions, {lines} lines)")
    print(
        f"memover check            median {median(taken):6.2f} s   best {min(taken):6.2f} s   worst {max(taken):6.2f} s"
    )
    print(
        f"(target: median below {TARGET_SECONDS:g} s: {'met' if median(taken) < TARGET_SECONDS else 'MISSED'}; {runs} runs)"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
