"""Type checkers see exactly the types of the functions that were decorated: mypy --strict, pyright, basedpyright, and ty
and pyrefly as far as they understand the same lines."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
API = Path(__file__).with_name("api.py")
KINDS = Path(__file__).with_name("kinds.py")
OPEN = Path(__file__).with_name("open.py")

WRONG = """
import memover

@memover.versioned_cache(namespace="n")
def price(sku: str) -> float:
    return 1.0

async def wrong() -> None:
    price(3)
    price.invalidate()
    price("tea").upper()
    await price("tea")
    price("tea")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
"""
WRONG_LINES = {9, 10, 11, 12, 13}


def mypy(*files: Path, cache: Path) -> dict[tuple[str, int], str]:
    """The errors of mypy by file and line."""
    command = ["-m", "mypy", "--strict", "--warn-unused-ignores", "--python-version=3.10", "--no-error-summary"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--follow-imports=silent", f"--cache-dir={cache}"]
    ended = run([*command, "--output=json", *map(str, files)])
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    return {(Path(one["file"]).name, one["line"]): one["message"] for one in found if one["severity"] == "error"}


def basedpyright(*files: Path, cache: Path) -> dict[tuple[str, int], str]:
    """The errors of basedpyright, under pyright's rules."""
    return pyright(*files, cache=cache, program="basedpyright")


def ty(*files: Path, cache: Path) -> dict[tuple[str, int], str]:
    """The errors of ty by file and line. mypy's ignores mean nothing to it."""
    command = ["-m", "ty", "check", "--output-format=gitlab", "--no-progress", "--python", sys.executable]
    ended = run([*command, f"--extra-search-path={ROOT}", "--exit-zero", *map(str, files)])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return {
        (Path(one["location"]["path"]).name, one["location"]["positions"]["begin"]["line"]): one["description"]
        for one in json.loads(ended.stdout)
        if one["severity"] in ("major", "critical", "blocker")
    }


def pyrefly(*files: Path, cache: Path) -> dict[tuple[str, int], str]:
    """The errors of pyrefly by file and line; it knows mypy's ignores."""
    cache.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, cache)
    (cache / "pyrefly.toml").write_text(f"search-path = [{str(ROOT)!r}]\nproject-includes = ['*.py']\n")
    command = [str(Path(sys.executable).with_name("pyrefly")), "check", "--output-format=json"]
    ended = subprocess.run(
        [*command, f"--python-interpreter-path={sys.executable}"],
        check=False,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return {
        (Path(one["path"]).name, one["line"]): one["description"]
        for one in json.loads(ended.stdout)["errors"]
        if one["severity"] == "error"
    }


def pyright(*files: Path, cache: Path, program: str = "pyright") -> dict[tuple[str, int], str]:
    """The errors of pyright by file and line. Here mypy's ignores mean nothing to it, unlike elsewhere."""
    config = {
        "include": [file.name for file in files],  # beside the configuration, which must be
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.10",
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": "error",
        # Not about memover: its callers may leave lambdas and results as they are.
        "reportUnknownArgumentType": False,
        "reportUnknownLambdaType": False,
        "reportUnknownMemberType": False,
        "reportUnusedFunction": False,
    }
    cache.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, cache)
    (cache / "pyrightconfig.json").write_text(json.dumps(config))
    ended = run(["-m", program, "--outputjson", "--pythonpath", sys.executable, "-p", str(cache)])
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert told["summary"]["filesAnalyzed"] == len(files), told["summary"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in told["generalDiagnostics"]
        if one["severity"] == "error"
    }


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def checkers(*wanted: Callable[..., object]) -> list[object]:
    """The checkers; one that is not installed (`make lint` installs them) is skipped, and says so."""
    return [
        pytest.param(
            checker,
            id=checker.__name__,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(importlib.util.find_spec(checker.__name__) is None, reason="needs memover[lint]"),
            ],
        )
        for checker in wanted or (mypy, pyright, basedpyright)
    ]


@pytest.mark.parametrize("check", checkers())
def test_a_decorated_function_keeps_its_types_and_wrong_calls_are_errors(
    check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path
) -> None:
    """Every right line of api.py is accepted, and every wrong one is refused for the reason that it says."""
    assert check(API, cache=tmp_path / "cache") == {}


@pytest.mark.parametrize("check", checkers())
def test_the_check_of_types_can_fail(check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path) -> None:
    """A file of wrong calls, and of a right call called wrong, is refused line by line."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    found = check(wrong, cache=tmp_path / "cache")
    assert {line for _, line in found} == WRONG_LINES, found


@pytest.mark.parametrize("check", checkers(mypy, pyright, basedpyright))
def test_hard_kinds_of_functions_are_told_apart(
    check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path
) -> None:
    """Every right line of kinds.py is accepted; every wrong one is refused, which its ignore says."""
    assert check(KINDS, cache=tmp_path / "cache") == {}


@pytest.mark.parametrize("check", checkers(mypy, pyright, basedpyright))
def test_helpers_of_functions_that_return_any_and_of_generic_ones_are_typed(
    check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path
) -> None:
    """Every right line of open.py is accepted; every wrong one is refused by the checkers that its ignore is for."""
    assert check(OPEN, cache=tmp_path / "cache") == {}


@pytest.mark.parametrize("check", checkers(ty, pyrefly))
def test_other_checkers_refuse_wrong_calls(check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path) -> None:
    """ty and pyrefly see the calls that are wrong."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    found = {line for _, line in check(wrong, cache=tmp_path / "cache")}
    assert {9, 10, 11} <= found


@pytest.mark.parametrize("check", checkers(ty))
def test_ty_tells_hard_kinds_of_functions_apart(
    check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path
) -> None:
    """It refuses the very lines that mypy is told to ignore."""
    lines = enumerate(KINDS.read_text().splitlines(), 1)
    wrong = {number for number, line in lines if "# type: ignore" in line}
    assert {line for _, line in check(KINDS, cache=tmp_path)} == wrong


@pytest.mark.parametrize("check", checkers(ty, pyrefly))
def test_other_checkers_take_cached_methods_for_those_of_a_protocol(
    check: Callable[..., dict[tuple[str, int], str]], tmp_path: Path
) -> None:
    """They accept the lines of kinds.py in which methods stand for others, and refuse the wrong ones."""
    lines = dict(enumerate(KINDS.read_text().splitlines(), 1))
    # pyrefly 1.5 binds a cached method that overrides another and not the one that is overridden, so it refuses all such.
    overrides = {number for number, line in lines.items() if check is not pyrefly and "def read(" in line}
    about = {number for number, line in lines.items() if "reads(" in line} | overrides
    wrong = {number for number in about if "# type: ignore" in lines[number]}
    uncommented = tmp_path / "kinds.py"  # pyrefly knows mypy's comments
    uncommented.write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines.values()) + "\n")
    assert {line for _, line in check(uncommented, cache=tmp_path / "cache")} & about == wrong
    assert wrong and wrong < about


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs memover[lint]")
def test_the_examples_are_typed(tmp_path: Path) -> None:
    """What users copy from examples/ is accepted by mypy --strict."""
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    assert mypy(*examples, cache=tmp_path) == {}
