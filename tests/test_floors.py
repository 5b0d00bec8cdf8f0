"""The layout of DESIGN.md section 9: imports point down, there are no cycles, and each rule has one place.

words <- classes <- keys, codec, schema, policy <- engine <- stores <- runtime <- face <- edges
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import memover
from memover.engine import steps
from memover.keys.names import lease_key
from memover.model import Key

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(memover.__file__).parent


class Floor(NamedTuple):
    """What the modules of a floor may import: parts of memover, and tools from outside."""

    below: str
    tools: str = ""


WORDS = "errors model clocks readable latch living loops later durations spelling"
TOOLS = f"{WORDS} options classes policy keys codec schema"
INSIDE = f"{TOOLS} engine stores runtime"
KNOWN_TYPES = "numpy pandas polars pyarrow msgspec"

FLOORS = {
    # words
    "errors": Floor(""),
    "model": Floor("errors clocks later"),
    "later": Floor(""),
    "spelling": Floor(""),
    "durations": Floor("errors spelling"),
    "options": Floor("errors spelling"),
    "clocks": Floor("", "time"),
    "readable": Floor("", "select"),
    "latch": Floor("errors", "threading time asyncio os"),
    "living": Floor(""),
    "loops": Floor("errors later", "asyncio threading"),
    # what a class is
    "classes": Floor("errors", "os"),
    # tools
    "policy": Floor("errors model durations spelling"),
    "keys": Floor("errors model latch living later classes spelling", f"os {KNOWN_TYPES}"),
    "codec": Floor("errors later classes", f"msgpack zstandard {KNOWN_TYPES}"),
    "schema": Floor("errors classes", "os"),
    "schema.lock": Floor("errors schema", "tomli tomli_w"),
    # the rules: no clock, no thread, no I/O, nothing from outside
    "engine": Floor("errors model policy keys.names keys.shards codec.envelope"),
    # what keeps entries
    "stores": Floor(f"{WORDS} options keys.names keys.shards codec.envelope codec.copier engine", "random time"),
    "stores.redis": Floor(
        f"{WORDS} keys.names keys.shards codec.envelope engine stores.breaker stores.feed stores.survey",
        "redis hiredis asyncio _signal _thread threading random select socket ssl",
    ),
    "stores.redis.looks": Floor("", "os"),
    "stores.sqlite": Floor(
        f"{WORDS} keys.names codec.envelope engine stores.breaker stores.feed stores.survey",
        "sqlite3 asyncio atexit threading _thread random time os",
    ),
    # what runs flows and functions
    "runtime": Floor(
        f"{TOOLS} engine stores.near stores.near_items",
        "asyncio atexit contextvars threading _thread queue time random os",
    ),
    "runtime.progress": Floor("errors", "tqdm rich"),
    "runtime.heart": Floor(
        f"{TOOLS} engine stores.feed stores.near runtime", "socket time _thread threading random os"
    ),
    "runtime.report": Floor(f"{TOOLS} engine runtime stores.survey __version__", "os socket _thread time random"),
    # the face; a module of it may name `Cache` for types
    "default": Floor("errors latch living"),
    "definition": Floor(f"{INSIDE} default cache.Cache", "os"),
    "proxy": Floor(f"{INSIDE} definition cache.Cache", "wrapt"),
    "batches": Floor(INSIDE),
    "versions": Floor(f"{INSIDE} definition"),
    "cached": Floor(f"{INSIDE} proxy batches versions", "time"),
    "wrapping": Floor(f"{INSIDE} definition cached"),
    "decorator": Floor(f"{INSIDE} wrapping cached cache.Cache"),
    "keyvalue": Floor(INSIDE),
    "cache": Floor(f"{INSIDE} default keyvalue decorator", "os"),
    "api": Floor(f"{INSIDE} default decorator cache", "os"),
    "__init__": Floor(f"{TOOLS} api cached runtime.dependencies"),
}
EDGES = {"__main__", "cli", "django", "observe", "pytest_plugin", "testing", "web"}
"""They may import anything; nothing imports them."""

# The standard library is free to use, but for what reads clocks, runs threads or talks to the world.
WATCHED = {
    "_signal", "_thread", "asyncio", "atexit", "concurrent", "contextvars", "multiprocessing", "os", "queue", "random", "sched",
    "select", "selectors", "signal", "socket", "sqlite3", "ssl", "subprocess", "threading", "time",
}  # fmt: skip
NEWER = {"annotationlib", "compression", "tomllib"}
"""Of the standard library of Pythons newer than the oldest that is supported."""


class Import(NamedTuple):
    """A dotted name that a module imports, and whether it is imported as soon as the module is."""

    target: str
    at_once: bool


def imported(path: Path, root: Path) -> Iterator[Import]:
    """What a module imports, wherever in it, for types alone included."""
    return iter(_imported(path, root, path.read_text()))


@functools.cache
def _imported(path: Path, root: Path, text: str) -> tuple[Import, ...]:
    return tuple(_imports(path, root, text))


def _imports(path: Path, root: Path, text: str) -> Iterator[Import]:
    here = path.relative_to(root.parent).with_suffix("").parts
    later: set[int] = set()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typed or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            later.update(id(each) for statement in node.body for each in ast.walk(statement))  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        at_once = id(node) not in later
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level]] if node.level else []
            base += [node.module] if node.module else []
            yield from (Import(".".join([*base, alias.name]), at_once) for alias in node.names)


def part_of(name: str, parts: str) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts.split())


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """The modules below the edges, by name."""
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if not part_of(name, " ".join(EDGES)):
            yield name, path


def breaches(root: Path) -> Iterator[str]:
    """What the modules under `root` import that they must not."""
    for name, path in modules(root):
        floor = max((floor for floor in FLOORS if part_of(name, floor)), key=len, default=None)
        if floor is None:
            yield f"{name} is on no floor"
            continue
        below, tools = FLOORS[floor]
        if floor == "stores":
            below += " stores.redis stores.sqlite" if name == "stores.__init__" else ""
        for target, _ in imported(path, root):
            top, _, rest = target.partition(".")
            if top != root.name:
                outside = top not in sys.stdlib_module_names and top not in NEWER
                if (outside or top in WATCHED) and top not in tools.split():
                    yield f"{name} must not import {top}"
            elif part_of(rest, "stores.redis stores.sqlite") and not part_of(
                rest, f"{below} {name.rpartition('.')[0]}"
            ):
                yield f"{name} must not import {rest}"
            elif not part_of(rest, f"{floor} {below}"):
                yield f"{name} must not import {rest or root.name}"


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that lead to one another, each sorted (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return found


def module_of(target: str, known: dict[str, Path]) -> str | None:
    """The module that an imported name (without "memover.") is, or is in."""
    for name in (target, target.rpartition(".")[0]):
        for module in (name, f"{name}.__init__" if name else "__init__"):
            if module in known:
                return module
    return None


def graph(root: Path) -> dict[str, set[str]]:
    """Which modules each module imports as soon as it is imported itself."""
    known = dict(modules(root))
    edges: dict[str, set[str]] = defaultdict(set)
    for name, path in known.items():
        for target, at_once in imported(path, root):
            top, _, rest = target.partition(".")
            module = module_of(rest, known) if top == root.name and at_once else None
            if module is not None and module != name:
                edges[name].add(module)
    return edges


def test_imports_point_down() -> None:
    """Every module of memover imports only what its floor may, function-level imports and those for types included."""
    assert list(breaches(ROOT)) == []


def test_there_are_no_cycles_of_modules() -> None:
    """No modules import each other in a circle when they are imported, inside packages and between them."""
    assert cycles(graph(ROOT)) == []


def test_there_are_no_cycles_of_packages() -> None:
    """No packages depend on each other in a circle, with function-level imports and those for types included.

    `Cache` is named for types by the modules that it is made of, and imports `decorator` when `cache.versioned` is used."""
    edges: dict[str, set[str]] = defaultdict(set)
    for name, path in modules(ROOT):
        for target, at_once in imported(path, ROOT):
            top, _, rest = target.partition(".")
            if top != "memover" or (rest == "cache.Cache" and not at_once):
                continue
            here, there = name.partition(".")[0], rest.partition(".")[0]
            if here != there and there:
                edges[here].add(there)
    assert cycles(edges) == []


def test_each_tool_is_used_in_its_place() -> None:
    """Only `stores/redis` imports redis, only `stores/sqlite` sqlite3, only `proxy` wrapt."""
    users: dict[str, set[str]] = {"redis": set(), "sqlite3": set(), "wrapt": set()}
    for name, path in modules(ROOT):
        for target, _ in imported(path, ROOT):
            if (top := target.partition(".")[0]) in users:
                users[top].add(name if "." not in name else name.rpartition(".")[0])
    assert users["redis"] == {"stores.redis"}
    assert users["sqlite3"] <= {"stores.sqlite"}
    assert users["wrapt"] == {"proxy"}


def nodes(kinds: type[ast.AST] | tuple[type[ast.AST], ...], part: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The nodes of some kinds in the modules of a part, each with the module and function that it is in."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            inner = f"{where}.{child.name}" if named else where  # type: ignore[attr-defined]
            if isinstance(child, kinds):
                yield inner, child
            yield from walk(child, inner)

    for name, path in modules(ROOT):
        if not part or part_of(name, part):
            yield from walk(ast.parse(path.read_text()), name)


STEPS = {name for name in steps.__all__ if name not in ("Awaited", "Flow", "Link", "Step")}


def test_a_step_is_yielded_in_one_place() -> None:
    """Flows say `yield from`, whose type is checked; only the steps' own `__iter__` yields a step itself."""
    yielding = [where for where, _ in nodes(ast.Yield, "engine")]
    assert yielding == ["engine.steps.Step.__iter__", "engine.steps.Send.__iter__"]
    bare = [
        where
        for where, node in nodes(ast.Yield)
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in STEPS  # type: ignore[attr-defined]
    ]
    assert [where for where in bare if where.partition(".")[0] in ("stores", "runtime", "cache")] == []


COMPARING = {
    "engine.judge.judge": "decides whether an entry is fresh",
    "engine.judge.is_fresh": "the same of an entry without marks",
    "engine.reading.early": "elects who refreshes an entry that is fresh",
    "engine.load.rescue": "how far past its end a stale entry may stand in for an error",
    "runtime.upgrades.Upgrading._done": "what would be stored has expired",
    "stores.memory.entries.MemoryEntries._sweep_items": "makes room; such an entry is judged DEAD",
}
"""Where the instants of an entry are compared with anything, and why that decides no freshness but in the first two."""


def test_freshness_is_decided_in_one_place() -> None:
    """`fresh_until` and `usable_until` are compared in `judge` and `is_fresh`, and elsewhere only for other ends."""
    found = set()
    for where, node in nodes(ast.Compare):
        for part in ast.walk(node):
            name = part.attr if isinstance(part, ast.Attribute) else part.id if isinstance(part, ast.Name) else ""
            if name in ("fresh_until", "usable_until") and not isinstance(node.ops[0], (ast.Is, ast.Eq)):  # type: ignore[attr-defined]
                found.add(where)
    assert found == COMPARING.keys()


def test_every_key_is_formed_in_keys_names() -> None:
    """The text of a token's or a lease's key is written in `keys.names` alone; leases also in `model.Key` and `keys.keyvalue`,
    in the same form."""
    marks = (":gen:", ":tag:", ":lease", "@soft", "@call", "@tags", "@all")
    found = set()
    for name, path in modules(ROOT):
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in prose:
                text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
                # A sentence that mentions a key has spaces.
                if isinstance(text, str) and " " not in text and any(mark in text for mark in marks):
                    found.add(name)
    # The survey of SQLite, where leases are rows, tells from a lease's key which row it is.
    assert found <= {"keys.names", "keys.keyvalue", "model", "stores.sqlite.survey"}
    assert Key("p:1:n:t", ()).lease.decode() == lease_key("p:1:n:t")


LOCKING = {
    "threading.Lock", "threading.RLock", "threading.Condition", "threading.Event", "threading.Semaphore",
    "threading.BoundedSemaphore", "threading.Barrier", "threading.Timer", "threading.local", "_thread.allocate_lock", "queue.Queue",
    "queue.SimpleQueue", "queue.LifoQueue", "queue.PriorityQueue", "concurrent.futures.ThreadPoolExecutor",
    "weakref.WeakKeyDictionary", "weakref.WeakValueDictionary", "weakref.WeakSet", "weakref.WeakMethod",
}  # fmt: skip
"""What runs Python code, or holds a lock, at a moment at which an exception from outside may come (P17)."""

LOCKS = {
    # A bell: locked by whoever waits, unlocked once by what it waits for. Nobody holds it while doing anything.
    ("runtime.waiting", "_thread.allocate_lock"),
    ("runtime.guard", "_thread.allocate_lock"),
    ("runtime.background", "_thread.allocate_lock"),
    ("stores.redis.pool", "_thread.allocate_lock"),
    ("stores.sqlite.job", "_thread.allocate_lock"),
    # Written in C, so that nothing comes between its lock and what it does.
    ("runtime.run", "queue.SimpleQueue"),
    # Weak dictionaries lock nothing. One that is interrupted while it is iterated over keeps weak references that are dead
    # until it goes itself: some 100 bytes each, and never a wrong answer.
    ("definition", "weakref.WeakKeyDictionary"),
    ("keys.places", "weakref.WeakKeyDictionary"),
    ("stores.memory.entries", "weakref.WeakValueDictionary"),
    ("stores.sqlite.forks", "weakref.WeakValueDictionary"),
    # Programs of their own, which run nobody's functions.
    ("web.overview", "concurrent.futures.ThreadPoolExecutor"),
    ("testing.worker", "threading.Lock"),
    ("testing.worker", "threading.Event"),
    ("testing.workload", "threading.Timer"),
}
"""The exceptions, each with its reason."""


def locks(root: Path) -> set[tuple[str, str]]:
    """What each module imports or names of `LOCKING`, the edges included."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                found |= {(name, f"{node.module}.{alias.name}") for alias in node.names}
            elif isinstance(node, ast.Attribute):
                found.add((name, ast.unparse(node)))
    return {(name, used) for name, used in found if used in LOCKING}


def test_nothing_can_be_left_locked() -> None:
    """No lock, queue or executor of the standard library but where nothing can be left locked: `latch` is used instead."""
    assert locks(ROOT) == LOCKS


def test_nothing_is_logged_in_a_latched_section() -> None:
    """A handler of the program's may take long or call memover, and other threads wait for the section."""
    logged = [
        where
        for where, node in nodes(ast.With)
        if any("latch" in ast.unparse(item.context_expr) for item in node.items)  # type: ignore[attr-defined]
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "logger"
    ]
    assert logged == []


PAIRED = re.compile(r"\b(?:list|tuple|sorted|set)\(([a-z_.]+)\.items\(\)\)")


def test_what_others_change_is_copied_before_it_is_gone_through() -> None:
    """To make the pairs of a dictionary may run the collector, and with it other threads, which change the dictionary: an error
    in the middle of a call. `copy()` makes none."""
    found = [
        f"{path.relative_to(ROOT)}: {each[0]}"
        for floor in ("engine", "runtime", "stores")
        for path in sorted((ROOT / floor).rglob("*.py"))
        for each in PAIRED.finditer(path.read_text())
    ]
    assert found == [
        "runtime/audit/differences.py: list(fields.items())"
    ]  # a value that was decoded for this comparison


def unmapped(root: Path) -> list[str]:
    """The modules that the docstring of their package does not name."""
    missing = []
    for door in sorted(root.rglob("__init__.py")):
        if door.parent == root or "management" in door.parts:
            continue
        words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(door.read_text())) or ""))
        modules = sorted(path.stem for path in door.parent.glob("*.py") if not path.stem.startswith("__"))
        missing += [f"{door.parent.relative_to(root)}: {name}" for name in modules if name not in words]
    return missing


def test_every_package_has_a_map_at_its_door() -> None:
    """Who opens a package for the first time reads in its docstring which module does what."""
    assert unmapped(ROOT) == []


ALIKE = {
    "Batch": "what the engine asks of a batch, and the batch of `runtime`",
    "Command": "a command of Redis; Django looks for a class of this name",
    "Connection": "each store's own",
    "Direct": "what `runtime.direct` asks of a store, and each store's own",
    "Flight": "what the engine asks of a flight, and the flight of `runtime`",
    "Function": "what the engine asks of a function, and the function of `runtime`",
    "Limits": "each store's own",
    "Reader": "of a connection, and of a file",
}
"""The names that two classes may have, and why."""


def test_a_name_stands_for_one_thing() -> None:
    """No two classes have one name, unless they are the same thing on two floors or in two stores."""
    homes: dict[str, list[str]] = defaultdict(list)
    for where, _ in nodes(ast.ClassDef):
        module, _, name = where.rpartition(".")
        if not name.startswith("_") and module in dict(modules(ROOT)):
            homes[name].append(module)
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0].removesuffix(".py") in EDGES:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in ALIKE} == {}


def imperatives(root: Path) -> list[str]:
    """The docstrings that begin with a verb as `Close`, where others, or other verbs, begin as `Closes`."""
    begun: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            said = ast.get_docstring(node)
            if said and not any("command(" in ast.unparse(each) for each in node.decorator_list):
                begun[said.split()[0].rstrip(".,:;")].append(f"{path.relative_to(root)}: {node.name}")
    plain = [word for word in begun if word != "A" and not begun.keys().isdisjoint({f"{word}s", f"{word}es"})]
    return [where for word in plain for where in begun[word]]


def test_docstrings_have_one_form() -> None:
    """The third person ("Closes the connection") or a noun ("The connection"). Commands are shown by `--help`, in its form."""
    assert imperatives(ROOT) == []


# -- the checker is checked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "line", "breach"),
    [
        ("engine/load.py", "from memover.stores import memory", "engine.load must not import stores.memory"),
        ("engine/load.py", "import time", "engine.load must not import time"),
        ("engine/judge.py", "from ..runtime import run", "engine.judge must not import runtime.run"),
        ("stores/memory/entries.py", "import redis", "stores.memory.entries must not import redis"),
        ("stores/memory/entries.py", "from memover.stores.redis import RedisStore",
         "stores.memory.entries must not import stores.redis.RedisStore"),
        ("stores/redis/link.py", "import sqlite3", "stores.redis.link must not import sqlite3"),
        ("runtime/function.py", "    from memover.stores.redis.store import RedisStore",
         "runtime.function must not import stores.redis.store.RedisStore"),
        ("runtime/state.py", "    from memover.cache import Cache", "runtime.state must not import cache.Cache"),
        ("codec/mv1/codec.py", "import requests", "codec.mv1.codec must not import requests"),
        ("cache.py", "from memover.observe import logging", "cache must not import observe.logging"),
        ("definition.py", "    from memover.cached import CachedFunction", "definition must not import cached.CachedFunction"),
        ("definition.py", "import wrapt", "definition must not import wrapt"),
        ("errors.py", "from memover import model", "errors must not import model"),
        ("helpers.py", "", "helpers is on no floor"),
    ],
)  # fmt: skip
def test_a_breach_is_found(tmp_path: Path, module: str, line: str, breach: str) -> None:
    """The checker says who must not import what, for imports in blocks and relative ones too."""
    root = tmp_path / "memover"
    write(root / module, f"if True:\n    {line.strip()}\n" if line.startswith(" ") else f"{line}\n")
    assert list(breaches(root)) == [breach]


def test_a_module_without_a_place_on_the_map_is_found(tmp_path: Path) -> None:
    """By its name, as a whole word."""
    root = tmp_path / "memover"
    write(root / "keys/__init__.py", '"""names: every key · decode"""\n')
    write(root / "keys/names.py", "")
    write(root / "keys/code.py", "")
    assert unmapped(root) == ["keys: code"]


def test_an_imperative_is_found(tmp_path: Path) -> None:
    """Where the same verb has the other form elsewhere."""
    root = tmp_path / "memover"
    write(root / "one.py", 'def close():\n    """Close it."""\ndef end():\n    """The end."""\n')
    write(root / "two.py", 'def close():\n    """Closes it."""\n')
    assert imperatives(root) == ["one.py: close"]


def test_a_cycle_is_found(tmp_path: Path) -> None:
    """Modules that import each other are named; an import inside a function closes no circle at run time."""
    root = tmp_path / "memover"
    write(root / "keys/names.py", "from memover.keys import code\n")
    write(root / "keys/code.py", "from .arrays import Array\n")
    write(root / "keys/arrays.py", "from memover.keys.names import name\n")
    assert cycles(graph(root)) == [["keys.arrays", "keys.code", "keys.names"]]
    write(root / "keys/arrays.py", "def late():\n    from memover.keys.names import name\n")
    assert cycles(graph(root)) == []


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_lock_is_found(tmp_path: Path) -> None:
    """However it is imported."""
    (tmp_path / "one.py").write_text("import threading\n\nlock = threading.Lock()\n")
    (tmp_path / "two.py").write_text("def f():\n    from queue import Queue\n    return Queue()\n")
    assert locks(tmp_path) == {("one", "threading.Lock"), ("two", "queue.Queue")}
