"""Another revision of the project, from git: its source in a directory of its own, and the versions its history used."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from memover.cli.functions import find_functions
from memover.cli.project import CannotRun
from memover.cli.source import SourceFile, keyword

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.cli.functions import FoundFunctions
    from memover.cli.project import Project

__all__ = ["Repository"]

_HISTORY_LIMIT = 300
"""How many commits of one file are looked at for versions that were used before."""


class Repository:
    """The git repository around a directory. Raises `CannotRun` when there is none, or no git."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Path(self._git("rev-parse", "--show-toplevel").decode().strip())

    def commit(self, revision: str) -> str:
        """The commit that a name stands for."""
        try:
            return self._git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
        except CannotRun:
            raise CannotRun(
                f"git knows no revision {revision!r} here: fetch it first (in CI a shallow clone has no history: "
                f"`git fetch origin main`, or fetch-depth: 0)."
            ) from None

    def merge_base(self, commit: str) -> str:
        """Where this branch left that one; the commit itself where they have nothing in common."""
        try:
            return self._git("merge-base", commit, "HEAD").decode().strip() or commit
        except CannotRun:
            return commit

    def functions(self, project: Project, targets: Sequence[str], commit: str) -> FoundFunctions:
        """What the project decorated at a commit."""
        with tempfile.TemporaryDirectory(prefix="memover-") as directory:
            archive = self._git("archive", "--format=tar", commit, cwd=self.top)
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                if hasattr(tarfile, "data_filter"):
                    files.extractall(directory, filter="data")
                else:
                    files.extractall(directory)  # noqa: S202 - our own repository's files
            place = Path(directory) / self.root.resolve().relative_to(self.top.resolve())
            place.mkdir(parents=True, exist_ok=True)
            return find_functions(project, targets, revision=place)

    def versions_used(self, namespace: str, path: str, commit: str) -> dict[int, str]:
        """The versions under which a namespace stood in the history of a file, each with a commit that had it."""
        if not path:
            return {}
        log = self._git("log", f"--max-count={_HISTORY_LIMIT}", "--format=%H", commit, "--", path)
        found: dict[int, str] = {}
        place = (self.root / path).resolve().relative_to(self.top.resolve()).as_posix()
        for each in log.decode().split():
            try:
                source = self._git("show", f"{each}:{place}")
            except CannotRun:  # the commit that removed it
                continue
            for version in _versions(source, place, namespace):
                found.setdefault(version, each)
        return found

    def _git(self, *args: str, cwd: Path | None = None) -> bytes:
        try:
            ended = subprocess.run(["git", *args], cwd=cwd or self.root, capture_output=True, check=False)  # noqa: S603, S607
        except FileNotFoundError:
            raise CannotRun("--against needs git, which is not installed here.") from None
        if ended.returncode:
            told = ended.stderr.decode(errors="replace").strip()
            raise CannotRun(f"git {args[0]}: {told or f'status {ended.returncode}'}")
        return ended.stdout


def _versions(raw: bytes, path: str, namespace: str) -> Iterator[int]:
    """The versions written beside a namespace in a file, as far as they are written out."""
    try:
        source = SourceFile(raw, Path(path), path)
    except (SyntaxError, ValueError):
        return
    for call in source.calls(namespace):
        written = keyword(call, "version")
        version = 1 if written is None else source.value(written)
        if type(version) is int:
            yield version
