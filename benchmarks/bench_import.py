"""What importing memover and making a cache costs, against importing json, asyncio and inspect, which most programs do anyway.

    python benchmarks/bench_import.py [RUNS]

Each import is timed inside a fresh interpreter; the two take turns, so that a slow spell of the machine hits both.
Target: the ratio of the medians is at most 1.25. Beside them, what `import memover` alone costs, and all until a first decorated function has answered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

TARGET = 1.25
SUBJECTS = {
    "a cache": "from memover import versioned_cache, Cache; Cache()",
    "json, asyncio, inspect": "import json, asyncio, inspect",
    "memover alone": "import memover",
    "a first call": "from memover import versioned_cache; versioned_cache(namespace='bench')(len)('')",
}


def milliseconds(statement: str) -> float:
    """The time of one import in an interpreter of its own; its bytecode is on disk after the first."""
    code = f"from time import perf_counter as now; t = now(); {statement}; print((now() - t) * 1e3)"
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env=environment
    )
    return float(ended.stdout)


def main(runs: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    for statement in SUBJECTS.values():
        milliseconds(statement)
    for _ in range(runs):
        for name, statement in SUBJECTS.items():
            times[name].append(milliseconds(statement))
    for name, taken in times.items():
        print(f"{name:<24} median {median(taken):6.1f} ms   best {min(taken):6.1f} ms")
    ours, theirs, *_ = times.values()
    ratio = median(ours) / median(theirs)
    print(f"ratio {ratio:.2f}   (target at most {TARGET}: {'met' if ratio <= TARGET else 'MISSED'}; {runs} runs each)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
