"""`python -m memover.testing URL`: run the history checker against a deployment and print what it found.

Status: 0 no violation · 1 violations · 2 nothing could be concluded (the store did not answer, wrong options).
"""

from __future__ import annotations

import argparse
import json
import sys

from memover.errors import MemoverError
from memover.testing.workload import check_history


def main(arguments: list[str] | None = None) -> int:
    """Parses, runs, prints; the answer is the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m memover.testing",
        description="Run processes full of callers against a store, invalidating all the while, and look for stale answers.",
    )
    parser.add_argument("url", help="the store, as memover.Cache takes it")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--processes", type=int, default=2, help="how many processes (default 2)")
    parser.add_argument("--threads", type=int, default=2, help="sync callers in each (default 2)")
    parser.add_argument("--tasks", type=int, default=4, help="async callers in each (default 4)")
    parser.add_argument("--keys", type=int, default=8, help="sources per function (default 8)")
    parser.add_argument("--prefix", default=None, help="the keys' prefix (default: one of its own)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    asked = vars(parser.parse_args(arguments))
    as_json = asked.pop("json")
    try:
        report = check_history(**asked)
    except MemoverError as error:
        sys.stderr.write(f"memover.testing: {error}\n")
        return 2
    sys.stdout.write((json.dumps(report.as_dict(), indent=2) if as_json else str(report)) + "\n")
    return 1 if report.violations else 2 if report.inconclusive else 0


if __name__ == "__main__":
    sys.exit(main())
