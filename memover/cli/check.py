"""`memover check`: the source against the lock, or against another revision."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from memover.cli.functions import find_functions, names_in_lock
from memover.cli.project import CannotRun, Project
from memover.cli.revisions import Repository
from memover.cli.source import SourceFiles
from memover.cli.versions import places_of
from memover.schema import rules
from memover.schema.findings import BY_HAND, Finding, by_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memover.cli.functions import FoundFunctions
    from memover.schema.findings import Found
    from memover.schema.lock import Lock

__all__ = ["advised", "check", "failed", "findings_of"]


def check(project: Project, targets: Sequence[str] = (), against: str | None = None) -> list[Finding]:
    """Every finding, in order of place. Raises `CannotRun` if there is no lock, no target or no such revision."""
    if against is not None:
        return _against(project, targets, against)
    lock = project.lock()
    if lock is None:
        write = project.command("memover lock", project.looked_at(targets))
        raise CannotRun(f"There is no {project.lockfile} in {project.root}: write it with `{write}`, and commit it.")
    seen = find_functions(project, targets)
    current = names_in_lock(seen.functions)
    reported = project.reported(findings_of(project, seen, lock, whole=not targets), seen.functions)
    return advised(project, by_class(reported, current), current, targets)


def advised(
    project: Project, findings: Sequence[Finding], current: Mapping[str, Found], targets: Sequence[str] = ()
) -> list[Finding]:
    """The findings in order of place, with commands that work in this project as it is: `bump` only where the source
    says the number in a way that can be edited, and with the options that this check was given."""
    bumped = any(fix.startswith("memover bump ") for each in findings for fix in each.fixes)
    places, refused = places_of(SourceFiles(project), current if bumped else {}, tuple(targets))
    made = []
    for finding in findings:
        fixes: list[str] = []
        for fix in finding.fixes:
            if fix.startswith("memover bump "):
                fixes += _bumps(project, finding, fix.partition(" --to ")[2], places, refused, targets)
            else:
                fixes.append(project.command(fix, targets))
        made.append(replace(finding, fixes=tuple(fixes)))
    return sorted(made, key=lambda each: (each.path, each.line, each.code, each.namespace))


def _bumps(
    project: Project,
    finding: Finding,
    to: str,
    places: dict[str, object],
    refused: dict[str, str],
    targets: Sequence[str],
) -> list[str]:
    moved = {places[name] for name in finding.functions if name in places}
    # What one call decorates has one number.
    ready = dict.fromkeys(name for name in (*finding.functions, *places) if places.get(name) in moved)
    fixes = []
    if ready:
        words = ["memover", "bump", *ready, *(["--to", to] if to else [])]
        fixes.append(project.command(shlex.join(words), targets))
    for name in finding.functions:
        if name in refused:
            reason = refused[name].partition(", so memover cannot")[0]
            number = f" to {to}" if to else ""
            then = "" if project.lock() is None else f", then: {project.command('memover lock', targets)}"
            fixes.append(f"{BY_HAND}{name}{number} by hand ({reason}){then}")
    return fixes


def failed(findings: Sequence[Finding]) -> bool:
    """Whether a check with these findings fails; warnings alone do not fail it."""
    return any(each.level == "error" for each in findings)


def findings_of(project: Project, seen: FoundFunctions, lock: Lock, *, whole: bool) -> list[Finding]:
    """Every finding of the source against a lock, before settings and comments leave any out."""
    current = names_in_lock(seen.functions)
    found = [*seen.failures, *rules.clashes(seen.functions)]
    found += [
        replace(each, path=project.lockfile) if each.path == "memover.lock" else each
        for each in rules.unlocked(current, lock, whole=whole, spared=seen.failed)
    ]
    for name, each in current.items():
        found += rules.unknowns(each)
        old = lock.functions.get(name)
        if old is not None:
            found += rules.compare(name, each, old)
    return found


def _against(project: Project, targets: Sequence[str], revision: str) -> list[Finding]:
    repository = Repository(project.root)
    tip = repository.commit(revision)
    fork = repository.merge_base(tip)
    seen = find_functions(project, targets)
    current = names_in_lock(seen.functions)
    found = [*seen.failures, *rules.clashes(seen.functions)]
    # A target that is new has no past; one that failed there cannot be compared.
    before = repository.functions(project, targets, fork)
    base = names_in_lock(before.functions)
    theirs = base if tip == fork else names_in_lock(repository.functions(project, targets, tip).functions)
    for name, each in current.items():
        found += rules.unknowns(each)
        old = base.get(name)
        if old is not None:
            found += [
                finding
                for finding in rules.compare(name, each, old.block, source=revision)
                if finding.code != "MV004" and not _accepted(project, name, each, finding.code)
            ]
        bumped = old is None or each.block.version > old.block.version
        if bumped:
            found += _reused(repository, name, each, theirs.get(name), old, revision, tip)
    blind = set(before.failed) - set(seen.failed)
    for failure in before.failures:
        if failure.namespace in blind and "No module named" not in failure.message:
            message = f"{failure.message} at {revision}, so its functions were not compared"
            found.append(replace(failure, message=message, level="warning", path="", line=0))
    told = by_class(project.reported(found, seen.functions), current)
    return advised(project, _to_let_through(project, seen, told), current, targets)


def _to_let_through(project: Project, seen: FoundFunctions, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, each with a way to let it through that works: an exception is written into a lock that has the finding
    too; without one a comment does it."""
    lock = project.lock()
    of_lock = [] if lock is None else findings_of(project, seen, lock, whole=False)
    held = {(each.code, name) for each in of_lock for name in each.functions}
    made = []
    for each in findings:
        comment = f"let it through with a comment after the decorator: # memover: ignore[{each.code}]"
        open_to_all = all((each.code, name) in held for name in each.functions)
        fixes = (fix if open_to_all or not fix.startswith("memover lock --accept ") else comment for fix in each.fixes)
        made.append(replace(each, fixes=tuple(fixes)))
    return made


def _accepted(project: Project, name: str, each: Found, code: str) -> bool:
    lock = project.lock()
    block = None if lock is None else lock.functions.get(name)
    return block is not None and any((one.code, one.version) == (code, each.block.version) for one in block.accepted)


def _reused(
    repository: Repository, name: str, each: Found, theirs: Found | None, old: Found | None, revision: str, tip: str
) -> list[Finding]:
    version = each.block.version
    if theirs is not None and theirs is not old and theirs.block.version >= version:
        if theirs.block.version == version and theirs.block.shape.canonical == each.block.shape.canonical:
            return []
        free = theirs.block.version + 1
        other = ", for another shape" if theirs.block.version == version else ""
        message = f"{revision} has version {theirs.block.version} already{other}"
    else:
        used = repository.versions_used(each.namespace, each.path, tip)
        if version not in used:
            return []
        free = max(used) + 1
        message = f"version {version} was used before, in {used[version][:12]}"
    message = f"{message}: entries stored under it would be read again"
    fixes = (f"memover bump {shlex.quote(name)} --to {free}",)
    return [rules.finding("MV002", each, message, fixes=fixes, functions=(name,))]
