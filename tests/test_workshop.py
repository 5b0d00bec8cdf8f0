"""What a maintainer runs is what CI runs: the workflows, CI's script and the guide name targets that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def targets() -> set[str]:
    """Those that `make help` lists."""
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {line.split()[0] for line in listed.stdout.splitlines()}


def commands(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def pythons(workflow: Path) -> list[list[str]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [job["strategy"]["matrix"]["python"] for job in jobs if "strategy" in job]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_of_the_makefile_and_nothing_else(workflow: Path) -> None:
    """A maintainer can run whatever fails there."""
    for command in commands(workflow):
        if command == "bash .ci/run":
            continue
        called = re.fullmatch(r"make (?:PYTHON=python )?([a-z-]+)", command)
        assert called, command
        assert called[1] in targets()


def test_ci_runs_make_check() -> None:
    """Last, so that whatever fails there fails CI."""
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make --no-print-directory check"
    assert "check" in targets()


def test_what_fails_is_not_run_again() -> None:
    """A test that fails now and then has a fault: no command hides it."""
    for path in (ROOT / "Makefile", ROOT / "pyproject.toml", *sorted((ROOT / "scripts").iterdir()), *WORKFLOWS):
        assert not re.search(r"--last-failed|--lf\b|rerun|flaky", path.read_text()), path


def test_make_check_runs_the_quick_part_on_the_other_pythons() -> None:
    """Before the whole suite, whose closing lines are then the last."""
    prerequisites = re.search(r"^check: ([a-z -]+) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert prerequisites
    assert prerequisites[1].split()[-2:] == ["test-others", "test"]


def test_each_supported_python_is_tested() -> None:
    """By the workflows and, where the machine has it, by `make check` and `make test-all`."""
    script = (ROOT / "scripts" / "interpreters").read_text()
    supported = re.search(r"^supported=\((.*)\)$", script, re.MULTILINE)
    assert supported
    for workflow in WORKFLOWS:
        for matrix in pythons(workflow):
            assert matrix == supported[1].split()
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert set(classified) <= set(supported[1].split())


def test_the_guide_for_contributors_names_targets_that_are_there() -> None:
    """CONTRIBUTING.md and the README."""
    for page in ("CONTRIBUTING.md", "README.md"):
        named = re.findall(r"(?:^    |`)make (?:PYTHON=\S+ )?([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
        assert named
        assert set(named) <= targets(), page


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_has_what_github_requires(form: Path) -> None:
    """Name, description, and a body whose fields have labels and ids of their own."""
    described = yaml.safe_load(form.read_text())
    assert described["name"] and described["description"]
    fields = [field for field in described["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert ids and len(set(ids)) == len(ids)


def test_an_interpreter_that_does_not_start_is_skipped_and_named(tmp_path: Path) -> None:
    """As pyenv's, where that version is not selected."""
    broken = tmp_path / "python3.14"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    found = subprocess.run(
        ["bash", str(ROOT / "scripts" / "interpreters")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "3.14 " not in found.stdout
    assert "skipped: there is no Python 3.14 on this machine" in found.stderr
