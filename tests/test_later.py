"""Modules that are imported when something of them is looked at."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import memover.later

ROOT = Path(memover.__file__).parent
CODE = "import sys\nfrom memover import versioned_cache, Cache\nCache()\nprint(*sys.modules)"
NOT_NEEDED = {
    "asyncio", "inspect", "dataclasses", "socket", "ssl", "json", "redis", "sqlite3", "msgpack", "wrapt", "hashlib",
    "memover.codec.mv1", "memover.wrapping", "memover.definition", "memover.runtime.heart", "memover.runtime.report",
}  # fmt: skip


def run(code: str, *args: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout


def test_a_cache_in_memory_brings_nothing_that_it_does_not_use() -> None:
    """Beyond what Python itself has loaded when it starts, here."""
    brought = set(run(CODE).split()) - set(run("import sys; print(*sys.modules)").split())
    assert "memover.cache" in brought
    assert brought & NOT_NEEDED == set()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_late_is_imported_for_types(path: Path) -> None:
    """The same modules under the same names: that is what the rules of imports and the type checkers look at."""
    tree = ast.parse(path.read_text())
    late = {
        (ast.literal_eval(call.args[1]), node.targets[0].id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(call := node.value, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "later"
        and isinstance(node.targets[0], ast.Name)
    }
    typed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            typed |= {(each.name, each.asname or each.name) for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            typed |= {(f"{node.module}.{each.name}", each.asname or each.name) for each in node.names}
    assert late <= typed


FORKING = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
import builtins
builtins.began, builtins.go = threading.Event(), threading.Event()
from memover import Cache
from memover.later import later
slow = later(__name__, "slow_to_import", "slow")
Cache()
thread = threading.Thread(target=lambda: slow.answer)
thread.start()
began.wait(30)
threading.Timer(0.2, go.set).start()
child = os.fork()
if not child:
    import signal
    signal.alarm(20)
    os._exit(slow.answer)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_does_not_wait_for_a_module_that_another_thread_was_importing(tmp_path: Path) -> None:
    """It would for ever: the thread that holds the module's lock is not in the child."""
    (tmp_path / "slow_to_import.py").write_text(
        "import builtins\nbuiltins.began.set()\nbuiltins.go.wait(30)\nanswer = 42\n"
    )
    assert run(FORKING, str(tmp_path)).strip() == "42"


def test_a_search_that_was_interrupted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's search takes an AttributeError of a signal handler for a finder without `find_spec`, and finds nothing."""

    searched: list[str] = []

    def search(name: str) -> object:
        searched.append(name)
        if len(searched) == 1:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    monkeypatch.setattr("memover.later.import_module", search)
    late = memover.later.later(__name__, "colorsys")
    assert late.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    assert searched == ["colorsys", "colorsys"]


def test_a_module_that_is_missing_is_said_to_be() -> None:
    """The second search has the last word."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = memover.later.later(__name__, "no_such_module").anything
