"""A small application in a directory of its own, to be changed and checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memover.cli.functions
from memover.cli.check import check
from memover.cli.locking import lock
from memover.cli.project import Project
from tests.servers.forking import probe_by_fork, run_fork

if TYPE_CHECKING:
    from memover.cli.locking import Acceptance, Written
    from memover.schema.findings import Finding


class App:
    """A directory with a pyproject.toml and modules; what the commands do, in this process or as a command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("pyproject.toml", '[tool.memover]\ntargets = ["shop"]\n')

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def change(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text, f"{old!r} is not in {path}"
        self.write(path, text.replace(old, new, 1))

    def project(self, **settings: object) -> Project:
        return Project.find(self.root, **settings)

    def lock(self, *targets: str, accept: Acceptance | None = None) -> Written:
        return lock(self.project(), targets, accept)

    def check(self, *targets: str, against: str | None = None, **settings: object) -> list[Finding]:
        return check(self.project(**settings), targets, against)

    def codes(self, *targets: str, **settings: object) -> list[str]:
        return [each.code for each in self.check(*targets, **settings)]

    def run(self, *args: str, status: int | None = 0, env: dict[str, str] | None = None) -> str:
        """The `memover` command; its stdout, or stderr where there is none."""
        plain = {"COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = run_fork(["memover", *args], cwd=self.root, env={**os.environ, **plain, **(env or {})})
        if status is not None:
            assert ended.returncode == status, f"status {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout or ended.stderr

    def git(self, *args: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *identity, *args], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout

    def commit(self, message: str = "change") -> str:
        if not (self.root / ".git").exists():
            self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(memover.cli.functions, "start_probe", probe_by_fork)
    return App(tmp_path)
