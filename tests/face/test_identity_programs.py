"""One function and one class have one name, however the program that defines them was started. Real processes, real IPython."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import zipapp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memover

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = str(Path(memover.__file__).parent.parent)

SOURCE = """
import dataclasses, enum, json, multiprocessing, os, sys
import memover
from memover.codec.pickle import PickleCodec

memover.configure(os.environ["URL"], prefix=os.environ["PREFIX"])
runs = []

@dataclasses.dataclass(frozen=True)
class Ref:
    id: int

class Kind(enum.Enum):
    A = 1

@dataclasses.dataclass
class Profile:
    name: str
    kind: Kind

class Missing(Exception):
    pass

def helper(x):
    return x

@memover.versioned_cache(namespace="by_ref")
def by_ref(ref):
    runs.append("by_ref")
    return ref.id

@memover.versioned_cache(namespace="by_kind")
def by_kind(kind: Kind):
    runs.append("by_kind")
    return 1

@memover.versioned_cache(namespace="by_things")
def by_things(function, cls):
    runs.append("by_things")
    return 1

@memover.versioned_cache(namespace="typed")
def typed(x: int) -> Profile:
    runs.append("typed")
    return Profile(f"n{x}", Kind.A)

@memover.versioned_cache(namespace="untyped")
def untyped(x):
    runs.append("untyped")
    return [Profile(f"n{x}", Kind.A)]

@memover.versioned_cache(namespace="pickled", codec=PickleCodec(keys=["secret"]))
def pickled(x):
    runs.append("pickled")
    return [Profile(f"n{x}", Kind.A), Kind, helper]

@memover.versioned_cache(namespace="failing", cache_errors=Missing, error_ttl=600)
def failing(x):
    runs.append("failing")
    raise Missing(x)

@memover.versioned_cache(namespace="followed", follow_code=True)
def followed(x):
    runs.append("followed")
    return helper(x)

def make(region):
    @memover.versioned_cache(namespace="made")
    def load(x):
        runs.append("made")
        return f"{region}:{x}"
    return load

def go(_=None):
    del runs[:]
    assert by_ref(Ref(1)) == by_kind(Kind.A) == by_things(helper, Ref) == followed(1) == 1
    assert typed(1) == Profile("n1", Kind.A) and untyped(1) == [Profile("n1", Kind.A)], typed(1)
    assert type(typed(1)) is type(untyped(1)[0]) is Profile
    assert pickled(1) == [Profile("n1", Kind.A), Kind, helper], pickled(1)
    assert [make(each)(1) for each in ("eu", "us")] == ["eu:1", "us:1"]
    try:
        failing(1)
    except Missing as error:
        assert type(error) is Missing
    keys = [by_ref.key(Ref(1)), by_kind.key(Kind.A), by_things.key(helper, Ref), typed.key(1), followed.key(1), make("eu").key(1)]
    functions = [by_ref, by_kind, by_things, typed, untyped, pickled, failing, followed]
    return {"runs": list(runs), "keys": keys, "damaged": sum(f.cache_info().damaged for f in functions)}

def main():
    what = sys.argv[1:]
    if what == ["invalidate"]:
        by_ref.invalidate(Ref(1))
        return
    found = [go()]
    if what == ["spawn"]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.map(go, [0])[0])
            found.append({"runs": [], "keys": [pool.apply(by_ref.key, [Ref(1)])], "damaged": 0})
    print(json.dumps(found))

if __name__ == "__main__":
    main()
"""
ALL = ["by_ref", "by_kind", "by_things", "followed", "typed", "untyped", "pickled", "made", "made", "failing"]


@pytest.fixture
def start(tmp_path: Path, redis_url: str, prefix: str) -> Callable[..., Any]:
    """`start(*argv)` runs Python in a directory that holds the project, and answers with what it printed as JSON."""

    def run(*argv: str, path: str = "", text: str | None = None, where: str = ".") -> Any:
        env = {
            **os.environ,
            "URL": redis_url,
            "PREFIX": prefix,
            "PYTHONPATH": os.pathsep.join(filter(None, [path, HERE])),
        }
        done = subprocess.run(  # noqa: PLW1510  # what it says is in the assertion
            [sys.executable, *argv],
            cwd=tmp_path / where,
            env=env,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("[", "{")) else done.stdout

    return run


def project(root: Path, *files: str) -> None:
    for each in files:
        file = root / each
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SOURCE if file.name in ("jobs.py", "tool.py", "__main__.py") else "")


def test_a_module_started_as_a_program_is_that_module(start: Any, tmp_path: Path) -> None:
    """Imported, `python -m shop.jobs`, `python shop/jobs.py`, and children that each of them spawns: nothing runs twice."""
    project(tmp_path, "shop/__init__.py", "shop/jobs.py")
    importing = "import json, shop.jobs; print(json.dumps([shop.jobs.go()]))"
    (first,) = start("-c", importing)
    assert sorted(first["runs"]) == sorted(ALL)
    ways: list[tuple[str, ...]] = [("-m", "shop.jobs", "spawn"), ("shop/jobs.py", "spawn"), ("-c", importing)]
    for way in ways:
        for found in start(*way):
            assert found["runs"] == []
            assert found["damaged"] == 0
            assert set(found["keys"]) <= set(first["keys"])
    for found in start("jobs.py", "spawn", where="shop", path=str(tmp_path)):
        assert found["runs"] == []
    start("-m", "shop.jobs", "invalidate")
    (found,) = start("-c", importing)
    assert found["runs"] == ["by_ref"]
    start("shop/jobs.py", "invalidate")
    (found,) = start("-m", "shop.jobs")
    assert found["runs"] == ["by_ref"]


@pytest.mark.parametrize(
    ("files", "started", "imported"),
    [
        (["tool.py"], ("tool.py",), "tool"),
        (["pkg/__init__.py", "pkg/__main__.py"], ("-m", "pkg"), "pkg.__main__"),
        (["pkg/__init__.py", "pkg/__main__.py"], ("pkg/__main__.py",), "pkg.__main__"),
        (["a/__init__.py", "a/b/__init__.py", "a/b/tool.py"], ("a/b/tool.py",), "a.b.tool"),
    ],
)
def test_a_program_has_the_name_an_import_would_use(
    start: Any, tmp_path: Path, files: list[str], started: tuple[str, ...], imported: str
) -> None:
    """A script, a package, a script inside packages."""
    project(tmp_path, *files)
    spawn = () if "__main__" in imported else ("spawn",)  # multiprocessing itself does not load those in a child
    found = start(*started, *spawn)
    assert sorted(found[0]["runs"]) == sorted(ALL)
    assert all(each["runs"] == [] for each in found[1:])
    code = f"import importlib, json; print(json.dumps([importlib.import_module({imported!r}).go()]))"
    assert start("-c", code)[0] == {"runs": [], "keys": found[0]["keys"], "damaged": 0}


@pytest.mark.parametrize("folder", ["spaced", "spaced/out/wide"])
def test_a_script_in_a_folder_of_a_package_without_init(start: Any, tmp_path: Path, folder: str) -> None:
    """A namespace package, at any depth: by the name it can be imported under from `sys.path`, and else by its own."""
    project(tmp_path, f"{folder}/jobs.py")
    found = start(f"{folder}/jobs.py", path=str(tmp_path))
    assert sorted(found[0]["runs"]) == sorted(ALL)
    imported = f"{folder.replace('/', '.')}.jobs"
    code = f"import importlib, json; print(json.dumps([importlib.import_module({imported!r}).go()]))"
    assert start("-c", code)[0]["runs"] == []
    assert start("jobs.py", where=folder, path=str(tmp_path))[0]["keys"] == found[0]["keys"]


def test_a_zipapp_agrees_with_itself(start: Any, tmp_path: Path) -> None:
    """Nobody can import it: it is `__main__`, each time it is started."""
    project(tmp_path, "app/__main__.py")
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    assert sorted(start("app.pyz")[0]["runs"]) == sorted(ALL)
    assert start("app.pyz")[0]["runs"] == []
    assert start("app")[0]["runs"] == []


def test_a_module_that_is_program_and_import_at_once(start: Any, tmp_path: Path) -> None:
    """`python -m shop.jobs` that imports what imports it: two modules of one file, no clash, one set of entries."""
    project(tmp_path, "shop/__init__.py", "shop/jobs.py")
    (tmp_path / "shop/jobs.py").write_text(
        SOURCE.replace(
            "if __name__", "if __name__ == '__main__':\n    import shop.jobs as twin\n    twin.go()\nif __name__"
        )
    )
    assert start("-m", "shop.jobs")[0]["runs"] == []


def test_a_repl_replaces_what_is_typed_again(start: Any) -> None:
    """Line after line on standard input: the same function, another body, a script with -i."""
    text = """
    import os, warnings, memover
    _ = memover.configure("memory://", prefix=os.environ["PREFIX"])
    @memover.versioned_cache(namespace="typed_in")
    def f(x):
        return x + 1

    f(1)
    @memover.versioned_cache(namespace="typed_in")
    def f(x):
        return x + 1

    f(1), f.cache_info().hits
    @memover.versioned_cache(namespace="typed_in")
    def f(x):
        return x + 2

    f(1)
    """
    out = start("-i", "-q", "-c", "", text=textwrap.dedent(text))
    assert [line for line in out.splitlines() if line] == ["2", "(2, 1)", "3"]


KERNEL = """
import json, os, sys, warnings
from IPython.core.interactiveshell import InteractiveShell
import memover
shell = InteractiveShell.instance(colors="NoColor")
shell.run_cell("import memover\\nfrom memover import versioned_cache")
memover.configure(os.environ["URL"] if "redis" in sys.argv else "memory://", prefix=os.environ["PREFIX"])
warned = []
warnings.showwarning = lambda message, category, *rest: warned.append(category.__name__)
def run(text):
    result = shell.run_cell(text, store_history=True)
    error = result.error_in_exec or result.error_before_exec
    said, warned[:] = list(warned), []
    return [type(error).__name__ if error else result.result, said]
print(json.dumps([run(cell) for cell in json.loads(sys.stdin.read())]))
"""
CELL = "@versioned_cache(namespace='nb', ttl=60{})\ndef price(x):\n    return x + 1\n"


@pytest.fixture
def kernel(start: Any) -> Callable[..., Any]:
    pytest.importorskip("IPython")

    def run(*cells: str, store: str = "memory") -> Any:
        out = start("-c", KERNEL, store, text=json.dumps(cells))
        found = out if isinstance(out, list) else json.loads(out.splitlines()[-1])
        return [(result, said) for result, said in found]

    return run


def test_a_cell_is_run_again_and_edited(kernel: Any) -> None:
    """In memory: the same text keeps its entries, another body starts empty; nothing is refused, nothing is said."""
    plain = CELL.format("")
    cells = [
        plain, "price(1)", plain, "price(1), price.cache_info().hits", plain.replace("x + 1", "x + 2  # fixed"), "price(1)",
        "# a comment\n" + plain, "price(1)", "del price", plain.replace("x + 1", "x + 3"), "price(1)",
    ]  # fmt: skip
    found = kernel(*cells)
    assert [result for result, _ in found] == [None, 2, None, [2, 1], None, 3, None, 2, None, None, 4]
    assert all(said == [] for _, said in found)


def test_a_fresh_kernel_finds_yesterdays_results(kernel: Any) -> None:
    """On a shared store: one warning when a cell is edited, none in a fresh kernel, which may hold the edited text."""
    plain = CELL.format("")
    edited = plain.replace("x + 1", "x + 2")
    found = kernel(plain, "price(1)", plain, "price(1)", edited, "price(1)", store="redis")
    assert [result for result, _ in found] == [None, 2, None, 2, None, 2]
    assert [said for _, said in found] == [[], [], [], [], ["MemoverWarning"], []]
    found = kernel(edited, "price(1), price.cache_info().loads", store="redis")
    assert found == [(None, []), ([2, 0], [])]


def test_follow_code_in_a_notebook(kernel: Any) -> None:
    """Bodies side by side, in every kernel: an edit is a miss, and its undoing a hit."""
    followed = CELL.format(", follow_code=True").replace("x + 1", "rate(x)")
    rate = "def rate(x):\n    return x * 2\n"
    cells = [rate, followed, "price(1)", rate.replace("2", "3"), followed, "price(1), price.key(1).split(':')[1]"]
    found = kernel(*cells, store="redis")
    assert [said for _, said in found] == [[]] * 6
    assert [found[2][0], found[5][0][0]] == [2, 3]
    assert re.fullmatch("1~[0-9a-f]{8}", found[5][0][1])
    found = kernel("# comment\n" + rate, followed, "price(1), price.cache_info().loads", store="redis")
    assert found[2][0] == [2, 0]


def test_a_class_defined_again_in_a_cell(kernel: Any) -> None:
    """Its decorated methods are the methods of the class that is there now."""
    cell = (
        "class Shop:\n    def __init__(self, n):\n        self.n = n\n    def __memover_key__(self):\n        return self.n\n"
        "    @versioned_cache(namespace='nb.method')\n    def price(self, x):\n        return self.n, x, 1\n"
    )
    found = kernel(cell, "old = Shop(1); old.price(2)", cell, "Shop(1).price(2)", cell.replace("x, 1", "x, 2"), "Shop(1).price(2)", "old.price(2)", "Shop(1).price(2)")  # fmt: skip
    assert [found[at][0] for at in (1, 3, 5, 6, 7)] == [[1, 2, 1], [1, 2, 1], [1, 2, 2], [1, 2, 1], [1, 2, 2]]


def test_autoreload_reaches_functions_imported_before(kernel: Any, tmp_path: Path) -> None:
    """%autoreload 2 puts the new code into the old function; both names give the new answer."""
    module = tmp_path / "priced.py"
    text = "from memover import versioned_cache\n" + CELL.format("")
    module.write_text(text)
    edit = f"import os, pathlib\nf = pathlib.Path({str(module)!r})\nf.write_text(f.read_text().replace('x + 1', 'x * 100'))\nos.utime(f, (2e9, 2e9))"
    found = kernel(
        "%load_ext autoreload\n%autoreload 2", "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, '.')",
        "import priced\nfrom priced import price", "price(1), priced.price(1)", edit, "price(1), priced.price(1)", "price(1), priced.price(1)",
    )  # fmt: skip
    assert [found[at][0] for at in (3, 5, 6)] == [[2, 2], [100, 100], [100, 100]]
