"""`memover check --fix`: what commands can mend, mended: versions are bumped, and the lock is brought up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.cli.bump import bump_each, to_bump
from memover.cli.check import check
from memover.cli.locking import lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.cli.project import Project

__all__ = ["mend"]


def mend(project: Project, targets: Sequence[str] = (), against: str | None = None) -> Iterator[str]:
    """Bump what has to be bumped and write the lock, and say each thing that was done; the rest is for `check` to say.

    A version that cannot be edited keeps no other from being bumped. Raises `CannotRun` as `check` does."""
    findings = [each for each in check(project, targets, against) if each.level == "error"]
    names = to_bump(findings)
    if names:
        done, _ = bump_each(project, names, targets=targets)
        yield from map(str, done)
    if project.lock() is None:
        return
    for word, name in lock(project, targets).changes():
        yield f"{project.lockfile}: {word} {name}"
