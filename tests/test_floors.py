"""The house has floors: imports point down, tools are used where they belong, and nobody imports the edges."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import memover

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(memover.__file__).parent


class Floor(NamedTuple):
    """What the modules of a floor may import: parts of memover, and tools from outside."""

    below: str
    tools: str = ""


WORDS = "errors model clocks"
TOOLS = f"{WORDS} classes policy keys codec schema"
FACE = "cache cached default core decorator keyvalue"
KNOWN_TYPES = "numpy pandas polars pyarrow msgspec"

FLOORS = {
    # words
    "errors": Floor(""),
    "model": Floor("errors"),
    "clocks": Floor("", "time"),
    # what a class is
    "classes": Floor("errors", "os"),
    # tools
    "policy": Floor("errors model"),
    "keys": Floor("errors model classes", f"os threading {KNOWN_TYPES}"),
    "codec": Floor("errors model classes", f"msgpack zstandard {KNOWN_TYPES}"),
    "schema": Floor("errors classes"),
    "schema.lock": Floor("errors schema", "tomli tomli_w"),
    # the rules: no clock, no thread, no I/O, nothing from outside
    "engine": Floor("errors model policy codec.envelope"),
    # what does things
    "stores": Floor(f"{WORDS} codec.envelope engine", "threading time"),
    "stores.redis": Floor(f"{WORDS} stores codec.envelope engine", "redis asyncio threading time random"),
    "drivers": Floor(
        f"{TOOLS} engine stores.keyvalue stores.memory",
        "asyncio concurrent contextvars threading time random os",
    ),
    "runtime": Floor(
        f"{TOOLS} engine stores.keyvalue stores.memory",
        "asyncio concurrent contextvars threading time random os",
    ),
    "runtime.report": Floor("errors clocks keys.names runtime.counters __version__", "os socket"),
    # the face
    "cache": Floor(f"{TOOLS} {FACE} engine stores drivers", "os"),
    "core": Floor(f"{TOOLS} {FACE} engine drivers", "os threading"),
    "cached": Floor(f"{TOOLS} {FACE} engine drivers", "wrapt time"),
    # A cache named after a Django alias is looked up there, and only when one is named.
    "default": Floor(f"{WORDS} {FACE} django.aliases", "os threading"),
    "keyvalue": Floor(f"{TOOLS} {FACE} engine drivers", "time"),
    "decorator": Floor(f"{TOOLS} {FACE}"),
    "__init__": Floor(f"{TOOLS} {FACE} drivers.tracking"),
}
EDGES = {"__main__", "cli", "django", "observe", "pytest_plugin", "testing", "web"}
"""They may import anything; nothing imports them."""

# The standard library is free to use, but for what reads clocks, runs threads or talks to the world.
WATCHED = {
    "asyncio", "concurrent", "contextvars", "multiprocessing", "os", "random", "sched", "select", "selectors", "signal",
    "socket", "sqlite3", "ssl", "subprocess", "threading", "time",
}  # fmt: skip
NEWER = {"annotationlib", "compression"}
"""Of the standard library of Pythons newer than the oldest that is supported."""


def imported(path: Path, root: Path) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it, for types alone included."""
    here = path.relative_to(root.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part_of(name: str, parts: str) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts.split())


def breaches(root: Path) -> Iterator[str]:
    """What the modules under `root` import that they must not."""
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if part_of(name, " ".join(EDGES)):
            continue
        floor = max((floor for floor in FLOORS if part_of(name, floor)), key=len, default=None)
        if floor is None:
            yield f"{name} is on no floor"
            continue
        below, tools = FLOORS[floor]
        for target in imported(path, root):
            top, _, rest = target.partition(".")
            if top != root.name:
                outside = top not in sys.stdlib_module_names and top not in NEWER
                if (outside or top in WATCHED) and top not in tools.split():
                    yield f"{name} must not import {top}"
            elif not part_of(rest, f"{floor} {below}"):
                yield f"{name} must not import {rest or root.name}"


def test_imports_point_down() -> None:
    """Every module of memover imports only what its floor may."""
    assert list(breaches(ROOT)) == []


def test_only_the_redis_store_knows_redis() -> None:
    """No other module names redis in an import, and none but the face names wrapt."""
    users: dict[str, set[str]] = {"redis": set(), "wrapt": set()}
    for path in ROOT.rglob("*.py"):
        for target in imported(path, ROOT):
            if (top := target.partition(".")[0]) in users:
                users[top].add(path.relative_to(ROOT).as_posix())
    assert {Path(user).parent.as_posix() for user in users["redis"]} == {"stores/redis"}
    assert users["wrapt"] == {"cached.py"}


@pytest.mark.parametrize(
    ("module", "line", "breach"),
    [
        ("engine/flows.py", "from memover.stores import memory", "engine.flows must not import stores.memory"),
        ("engine/flows.py", "import time", "engine.flows must not import time"),
        ("engine/judge.py", "from ..drivers import sync", "engine.judge must not import drivers.sync"),
        ("stores/memory.py", "import redis", "stores.memory must not import redis"),
        ("drivers/site.py", "    from memover.stores.redis.sync import RedisStore",
         "drivers.site must not import stores.redis.sync.RedisStore"),
        ("codec/mv1/codec.py", "import requests", "codec.mv1.codec must not import requests"),
        ("core.py", "from memover.observe import logging", "core must not import observe.logging"),
        ("core.py", "import wrapt", "core must not import wrapt"),
        ("errors.py", "from memover import model", "errors must not import model"),
        ("helpers.py", "", "helpers is on no floor"),
    ],
)  # fmt: skip
def test_a_breach_is_found(tmp_path: Path, module: str, line: str, breach: str) -> None:
    """The checker says who must not import what, for imports in blocks and relative ones too."""
    root = tmp_path / "memover"
    path = root / module
    path.parent.mkdir(parents=True)
    path.write_text(f"if True:\n    {line.strip()}\n" if line.startswith(" ") else f"{line}\n")
    assert list(breaches(root)) == [breach]
