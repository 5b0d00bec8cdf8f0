"""A script that is instant the second time it is started: words of the standard library, counted once and kept in a file.

    python examples/library_report.py                     # parses some hundreds of modules, for seconds
    python examples/library_report.py                     # another process: everything is in the file
    python examples/library_report.py --store /tmp/x.db   # another file
    python examples/library_report.py --forget            # what it keeps is invalidated, and parsed again

A module is read again when it has changed, because its size and time of change are arguments.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

from memover import Cache

LIBRARY = Path(sysconfig.get_path("stdlib"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", default=str(Path(tempfile.gettempdir()) / "memover-library.db"))
    parser.add_argument("--modules", type=int, default=150, help="how many modules, in alphabetical order")
    parser.add_argument("--forget", action="store_true")
    asked = parser.parse_args()

    with Cache(f"sqlite:///{asked.store}", prefix="library", ttl=None, socket_timeout=5.0) as cache:

        @cache.versioned(namespace="names")
        def names_in(path: str, size: int, changed_ns: int) -> dict[str, int]:
            """How often each name is used in a module."""
            tree = ast.parse(Path(path).read_text("utf-8"))
            return Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))

        if asked.forget:
            names_in.invalidate_all()
        began = perf_counter()
        modules = sorted(LIBRARY.glob("*.py"))[: asked.modules]
        calls = [(str(module), module.stat().st_size, module.stat().st_mtime_ns) for module in modules]
        total: Counter[str] = Counter()
        for counted in names_in.map(*zip(*calls), concurrency=1):  # in two threads at once ast.parse may fail
            total.update(counted)
        seconds = perf_counter() - began
        info = names_in.cache_info()
    print(f"{len(modules)} modules in {seconds:.2f} s: {info.loads} parsed now, {info.hits} found in {asked.store}")
    print("The most used names: " + ", ".join(f"{name} ({count})" for name, count in total.most_common(5)))


if __name__ == "__main__":
    main()
