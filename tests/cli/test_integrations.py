"""What CI is told to run, run: the commands of the files as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from .conftest import App

ROOT = Path(__file__).resolve().parents[2]
VIEWS = (
    "from memover import versioned_cache\n\n\n@versioned_cache(namespace='n')\ndef f(n: int) -> int:\n    return n\n"
)


@pytest.fixture
def shop(app: App) -> App:
    """A locked application that can be installed, in a repository with a main branch."""
    app.write("shop/__init__.py", "")
    app.write("shop/views.py", VIEWS)
    app.lock()
    app.commit()
    app.git("checkout", "-q", "-b", "feature")
    return app


def change(app: App) -> None:
    app.change("shop/views.py", "-> int", "-> str")


def bash(app: App, script: str, **env: str) -> tuple[int, str]:
    """A step as a CI runner runs it, with this interpreter's programs first in the path."""
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=app.root,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def action_steps(app: App, **inputs: str) -> tuple[int, str]:
    """The steps of the GitHub action, with `${{ inputs.x }}` filled in as GitHub does."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    given = {name: each["default"] for name, each in action["inputs"].items()} | inputs
    told = ""
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"], "an input in a script could become a command"
        env = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda hit: given[hit[1]], value)
            for name, value in step.get("env", {}).items()
        }
        status, output = bash(app, step["run"], **env, GITHUB_STEP_SUMMARY=str(app.root / "summary.md"))
        told += output
        if status:
            return status, told
    return 0, told


def test_the_github_action_passes_what_is_in_order(shop: App) -> None:
    """It installs the command line and checks."""
    status, told = action_steps(shop)
    assert status == 0, told
    assert "no findings" in told


def test_the_github_action_annotates_and_summarises(shop: App) -> None:
    """A workflow command in the log, Markdown in the summary, and status 1."""
    change(shop)
    status, told = action_steps(shop, targets="shop.views shop")
    assert status == 1
    assert "::error file=shop/views.py,line=5,title=MV001" in told
    assert "**MV001**" in shop.read("summary.md")


def test_the_github_action_compares_with_a_revision(shop: App) -> None:
    """Without the lock; what cannot run keeps its own status."""
    (shop.root / "memover.lock").unlink()
    assert action_steps(shop)[0] == 2
    assert action_steps(shop, against="main")[0] == 0
    change(shop)
    assert action_steps(shop, against="main")[0] == 1


def test_an_input_cannot_become_a_command(shop: App) -> None:
    """It is an argument, whatever is in it."""
    status, _ = action_steps(shop, targets="$(touch owned) `touch owned`; touch owned")
    assert status in (1, 2)
    assert not (shop.root / "owned").exists()


def test_the_gitlab_job_leaves_a_report(shop: App) -> None:
    """The script's lines, one after another, as GitLab's shell does."""
    job = yaml.safe_load((ROOT / "integrations/gitlab-ci.yml").read_text())["memover"]
    shop.write("pyproject.toml", f"[project]\nname = 'shop'\nversion = '1'\n{shop.read('pyproject.toml')}")
    (install,) = job["before_script"]
    assert bash(shop, f"{install} --dry-run --no-build-isolation".replace(" . ", " "))[0] == 0
    assert bash(shop, "\n".join(job["script"]), **job["variables"])[0] == 0
    report = shop.root / job["artifacts"]["reports"]["codequality"]
    assert json.loads(report.read_text()) == []
    change(shop)
    status, told = bash(shop, "\n".join(job["script"]), **job["variables"])
    assert status == 1
    assert "MV001 n: the shape of the result changed" in told
    assert [each["check_name"] for each in json.loads(report.read_text())] == ["MV001"]


def hooks() -> dict[str, Any]:
    return {each["id"]: each for each in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}


def test_the_pre_commit_hooks_run(shop: App) -> None:
    """Their entries, without file names, as pre-commit calls them."""
    every = hooks()
    assert all(hook["pass_filenames"] is False for hook in every.values())
    entry = shlex.split(every["memover-check"]["entry"])
    assert bash(shop, shlex.join(entry))[0] == 0
    change(shop)
    assert bash(shop, shlex.join(entry))[0] == 1
    shop.run("bump", "n")
    assert bash(shop, every["memover-lock"]["entry"])[0] == 0


@pytest.mark.parametrize(("path", "concerns"), [("a/b.py", True), ("memover.lock", True), ("README.md", False)])
def test_the_check_runs_for_the_files_it_depends_on(path: str, concerns: bool) -> None:
    """And for no others."""
    assert bool(re.search(hooks()["memover-check"]["files"], path)) is concerns
