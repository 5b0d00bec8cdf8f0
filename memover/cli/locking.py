"""`memover lock`: what is written into the lock, and what is refused without a reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memover.cli.check import advised, findings_of
from memover.cli.functions import find_functions, names_in_lock
from memover.cli.project import CannotRun, Project
from memover.schema.findings import ACCEPTABLE, Finding, Found, by_class
from memover.schema.lock import Accepted, Block, Lock, is_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Acceptance", "Written", "lock", "relock"]


@dataclass(frozen=True)
class Acceptance:
    """A finding that is let through on purpose, for the functions that it names."""

    code: str = ""
    names: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Written:
    """What `lock` did: names of blocks that are new, changed and removed, and the findings that kept it from writing others."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    refused: tuple[Finding, ...]
    functions: int

    def changes(self) -> Iterator[tuple[str, str]]:
        """Each block that is not as it was: "new", "changed" or "removed", and its name."""
        for word, names in (("new", self.new), ("changed", self.changed), ("removed", self.removed)):
            for name in names:
                yield word, name


def lock(project: Project, targets: Sequence[str] = (), accept: Acceptance | None = None) -> Written:
    """Brings the lock up to date. A block whose change reviewers must see stays as it was, and its finding is in `refused`."""
    seen = find_functions(project, targets)
    old = project.lock() or Lock()
    whole = not targets
    current = names_in_lock(seen.functions)
    if accept is None:
        accept = Acceptance()
    else:
        _check(accept, current)
    names = {(each.path, each.line, each.namespace): name for name, each in current.items()}

    def name_of(finding: Finding) -> str:
        return names.get((finding.path, finding.line, finding.namespace), "")

    findings = findings_of(project, seen, old, whole=whole)
    # What the settings leave out may be accepted too.
    fitting = {name_of(each): each for each in reversed(findings) if each.code == accept.code}
    accepted = {name: fitting[name] for name in accept.names if name in fitting}
    for name in accept.names:
        if name not in accepted:
            raise CannotRun(f"There is no {accept.code} in {name!r} to accept.")
    refused = [
        each
        for each in project.reported(findings, seen.functions)
        if each.level == "error" and each.code in (*ACCEPTABLE[:3], "MV003", "MV008")
        if each.code != accept.code or name_of(each) not in accepted
    ]
    held = set(map(name_of, refused))
    functions = {} if whole else dict(old.functions)
    for name, each in current.items():
        was = old.functions.get(name)
        if name in held:
            if was is not None:
                functions[name] = was
            continue
        functions[name] = _block(each, was)
        if name in accepted:
            change = "; ".join(accepted[name].details) or accepted[name].message
            exception = Accepted(accept.code, each.block.version, change, accept.reason)
            functions[name] = replace(functions[name], accepted=(*functions[name].accepted, exception))
    for name, block in old.functions.items():
        if name not in current and is_below(block.function.partition(":")[0], seen.failed):
            functions[name] = block
    gone = [name for name in old.functions if name not in functions]
    removed = {**old.removed, **{name: old.functions[name].version for name in gone}}
    made = Lock(functions, {name: version for name, version in removed.items() if name not in functions})
    _write(project, made)
    return Written(
        tuple(sorted(functions.keys() - old.functions.keys())),
        tuple(sorted(name for name in functions if name in old.functions and functions[name] != old.functions[name])),
        tuple(sorted(gone)),
        tuple(advised(project, by_class(refused, current), current, targets)),
        len(functions),
    )


def relock(project: Project, names: Sequence[str], current: dict[str, Found]) -> None:
    """Brings the blocks of a few functions up to date and leaves all others as they are; nothing without a lock."""
    old = project.lock()
    if old is not None:
        fresh = {name: _block(current[name], old.functions.get(name)) for name in names}
        left = {name: version for name, version in old.removed.items() if name not in fresh}
        _write(project, Lock({**old.functions, **fresh}, left))


def _write(project: Project, made: Lock) -> None:
    """Replaces the lock on disk in one step; a lock that says the same is not touched."""
    path, text = project.lock_path, str(made)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(path)


def _block(each: Found, was: Block | None) -> Block:
    """The block of a function as it is now, with the exceptions that were made for its version."""
    kept = () if was is None else tuple(one for one in was.accepted if one.version == each.block.version)
    return replace(each.block, accepted=kept)


def _check(accept: Acceptance, current: dict[str, Found]) -> None:
    if accept.code not in ACCEPTABLE:
        raise CannotRun(f"{accept.code} cannot be accepted, it has to be mended; these can: {', '.join(ACCEPTABLE)}.")
    for name in accept.names:
        if name not in current:
            known = ", ".join(sorted(current)) or "none"
            raise CannotRun(f"There is no function in the namespace {name!r}: there are {known}.")
    if not accept.reason.strip():
        raise CannotRun('Say why, for the reviewer: --reason "...".')
