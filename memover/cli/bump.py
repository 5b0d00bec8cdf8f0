"""`memover bump`, and `memover check --fix`: a new version number, written into the source exactly where the old one stands.

Only the digits change; where they stand is found by `versions`. The source is looked at again before the command ends: a
version that did not come out as written, or another function's that moved along, undoes everything.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from memover.cli.check import check
from memover.cli.functions import find_functions, names_in_lock
from memover.cli.locking import lock as write_lock
from memover.cli.locking import relock
from memover.cli.project import CannotRun, Project
from memover.cli.source import Edit, SourceFiles
from memover.cli.versions import edit_of, places_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memover.schema.findings import Finding, Found

__all__ = ["bump", "bump_all", "mend"]

_BUMPED_FOR = ("MV001", "MV002", "MV005", "MV006")
"""The findings that a new version mends."""


class Bumped(NamedTuple):
    """One version that was moved, and where."""

    name: str
    old: int
    new: int
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} {self.old} -> {self.new}"


def _wanted(findings: Sequence[Finding]) -> list[str]:
    """The functions that findings of a check want bumped, each once."""
    return list(dict.fromkeys(name for each in findings if each.code in _BUMPED_FOR for name in each.functions))


def bump(
    project: Project,
    names: Sequence[str] = (),
    to: int | None = None,
    *,
    along: bool = False,
    targets: Sequence[str] = (),
) -> list[Bumped]:
    """Gives each function its next version and brings its block in the lock up to date.

    `names` are namespaces, or functions as `module:qualname` or `qualname`. With `along`, functions that have their number
    in the same place are bumped along; else that is refused.
    Raises `CannotRun`, and then nothing has changed, for what cannot be edited safely.
    """
    seen = find_functions(project, targets)
    current = names_in_lock(seen.functions)
    chosen = list(dict.fromkeys(_named(each, current, seen.failures) for each in names))
    lock = project.lock()
    sources = SourceFiles(project)
    if along:
        standing, _ = places_of(sources, current, tuple(targets))
        moved = {standing[name] for name in chosen if name in standing}
        chosen += [name for name, place in standing.items() if place in moved and name not in chosen]
    edits: dict[tuple[Path, int, int], Edit] = {}
    places: dict[str, tuple[Path, int, int]] = {}
    for name in chosen:
        found = current[name]
        last = found.block.version
        if lock is not None:
            last = max(last, lock.removed.get(name, 0), lock.functions[name].version if name in lock.functions else 0)
        new = last + 1 if to is None else to
        if new <= last:
            raise CannotRun(f"{name} has had version {last} already: --to must be at least {last + 1}.")
        edit = edit_of(sources, found, new, tuple(targets))
        places[name] = edit.place
        # One call may decorate several functions: their one number is the highest that any of them needs.
        edits[edit.place] = max(edit, edits.get(edit.place, edit), key=lambda each: each.number)
    done = [
        Bumped(name, current[name].block.version, edit.number, project.shown(str(edit.path)), edit.line)
        for name, place in places.items()
        for edit in (edits[place],)
    ]
    files = {edit.path: edit.path.read_bytes() for edit in edits.values()}
    try:
        for path in files:
            _write(path, sources.file(path).edited([each for each in edits.values() if each.path == path]))
        after = names_in_lock(find_functions(project, targets, again=True).functions)
        _verify(project, done, current, after, targets)
    except BaseException:
        for path, text in files.items():
            _write(path, text)
        raise
    relock(project, [each.name for each in done], after)
    return done


def _write(path: Path, text: bytes) -> None:
    """Writes a source, without the bytecode of before: a new number often leaves the length as it was, and the second in which
    the file was changed may be the same, which is all that Python compares."""
    path.write_bytes(text)
    for optimization in ("", "1", "2"):
        with suppress(OSError, NotImplementedError):
            Path(cache_from_source(str(path), optimization=optimization)).unlink(missing_ok=True)


def bump_all(
    project: Project, names: Sequence[str] = (), to: int | None = None, *, targets: Sequence[str] = ()
) -> tuple[list[Bumped], list[str]]:
    """Bumps what `check` wants bumped: what was done, and what is left to be done by hand, with the reasons.

    `names` are functions that are bumped as well; those that are no function's are modules and packages beside `targets`.
    Raises `CannotRun` where there is nothing to look at.
    """
    # As for `check`, a module or a package may be named where a function may be.
    known = names_in_lock(find_functions(project, targets).functions) if names and (targets or project.targets) else {}
    functions = [each for each in names if _fitting(each, known)]
    extra = [each for each in names if each not in functions]
    missing = find_functions(project, extra) if extra else None
    if missing is not None and missing.failures and not missing.functions and not functions:
        raise CannotRun(" ".join(f"{each.message}." for each in missing.failures))
    targets = [*targets, *extra]
    findings = check(project, targets)
    done, left = _bump_each(project, [*functions, *_wanted(findings)], to, targets=targets)
    unseen = [
        f"{each.message}. Until then its functions are not looked at." for each in findings if each.code == "MV008"
    ]
    return done, [*left, *unseen]


def _bump_each(
    project: Project, names: Sequence[str], to: int | None = None, *, targets: Sequence[str] = ()
) -> tuple[list[Bumped], list[str]]:
    """Bumps each function for itself, with those that have their number in the same place: what was done, and for each
    function that could not be bumped, why and what to do instead."""
    able, left = list[str](), list[str]()
    current = names_in_lock(find_functions(project, targets).functions)
    _, refused = places_of(SourceFiles(project), current, tuple(targets))
    for name in dict.fromkeys(names):
        reasons = [refused[each] for each in _fitting(name, current) if each in refused]
        left += reasons[:1]
        if not reasons:
            able.append(name)
    if not able:
        return [], left
    try:
        return bump(project, able, to, along=True, targets=targets), left
    except CannotRun:  # one of them shows only afterwards that its number comes from somewhere else
        done, project = list[Bumped](), project.afresh()
        for name in able:
            if any(each.name in _fitting(name, current) for each in done):
                continue  # it was bumped along
            try:
                done += bump(project, [name], to, along=True, targets=targets)
            except CannotRun as error:
                left.append(str(error))
        return done, left


def mend(project: Project, targets: Sequence[str] = (), against: str | None = None) -> Iterator[str]:
    """Bumps what has to be bumped and writes the lock, and says each thing that was done; the rest is for `check` to say.

    A version that cannot be edited keeps no other from being bumped. Raises `CannotRun` as `check` does."""
    findings = [each for each in check(project, targets, against) if each.level == "error"]
    names = _wanted(findings)
    if names:
        done, _ = _bump_each(project, names, targets=targets)
        yield from map(str, done)
    if project.lock() is None:
        return
    for word, name in write_lock(project, targets).changes():
        yield f"{project.lockfile}: {word} {name}"


def _verify(
    project: Project, done: list[Bumped], before: dict[str, Found], after: dict[str, Found], targets: Sequence[str]
) -> None:
    """Raises `CannotRun` unless the versions of these functions, and no others, are what was written."""
    for each in done:
        got = after[each.name].block.version if each.name in after else None
        if got != each.new:
            raise CannotRun(
                f"{each.path}:{each.line}: writing version {each.new} here gave {each.name} the version {got}: its "
                f"number comes from somewhere else. Change it by hand, then run `{project.command('memover lock', targets)}`."
            )
    names = {each.name for each in done}
    along = [
        name
        for name, each in before.items()
        if name not in names and name in after and after[name].block.version != each.block.version
    ]
    if along:
        place = f"{done[0].path}:{done[0].line}"
        every = " ".join(map(quote, [*names, *along]))
        raise CannotRun(
            f"{place}: the number here is the version of {', '.join(along)} too: bump them together, with "
            f"`{project.command(f'memover bump {every}', targets)}`, or give each a number of its own."
        )


def _fitting(text: str, current: dict[str, Found]) -> list[str]:
    """The namespaces of the functions that this may be the name of."""
    if text in current:
        return [text]
    return [
        name
        for name, each in current.items()
        if text in (each.block.function, each.block.function.partition(":")[2], each.block.function.replace(":", "."))
    ]


def _named(text: str, current: dict[str, Found], failures: Sequence[Finding]) -> str:
    fitting = _fitting(text, current)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CannotRun(
            f"{text!r} is the name of several functions; say which namespace: {', '.join(sorted(fitting))}."
        )
    known = ", ".join(sorted(current)) or "none"
    unseen = "".join(f" {each.message}." for each in failures)
    raise CannotRun(f"No cached function is called {text!r}: there are {known}.{unseen}")
