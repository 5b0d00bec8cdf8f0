"""`memover bump`: a new version number, written into the source exactly where the old one stands.

Only the digits change. The number is found in the one call that names the namespace: as a literal, as a constant of the
same module that nothing else is versioned by, or not at all (version 1, and the keyword is added). Anything else is
refused with its place.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING, NamedTuple

from memover.cli.locking import relock
from memover.cli.project import CannotRun, Project, names_of, survey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from memover.schema.rules import Finding, Found

__all__ = ["Bumped", "Edit", "bump", "edit_of"]


class Bumped(NamedTuple):
    """One version that was moved, and where."""

    name: str
    old: int
    new: int
    path: str
    line: int


class Edit(NamedTuple):
    """Replace characters `start` to `end` of a line (from 1) by `text`."""

    line: int
    start: int
    end: int
    text: str


def bump(project: Project, names: Sequence[str], to: int | None = None) -> list[Bumped]:
    """Give each function its next version and bring its block in the lock up to date.

    `names` are namespaces, or functions as `module:qualname` or `qualname`. Raises `CannotRun`, and then nothing has
    changed, for what cannot be edited safely.
    """
    seen = survey(project)
    current = names_of(seen.functions)
    chosen = [_named(each, current, seen.failures) for each in names]
    lock = project.lock()
    done: list[Bumped] = []
    before: dict[Path, bytes] = {}
    try:
        for name in dict.fromkeys(chosen):
            found = current[name]
            last = found.block.version
            if lock is not None:
                last = max(
                    last, lock.removed.get(name, 0), lock.functions[name].version if name in lock.functions else 0
                )
            new = last + 1 if to is None else to
            if new <= last:
                raise CannotRun(f"{name} has had version {last} already: --to must be at least {last + 1}.")
            path = project.root / found.path
            before.setdefault(path, path.read_bytes())
            line = _edit(path, found, new)
            done.append(Bumped(name, found.block.version, new, found.path, line))
        after = names_of(survey(project).functions)
        for each in done:
            got = after[each.name].block.version if each.name in after else None
            if got != each.new:
                raise CannotRun(
                    f"{each.path}:{each.line}: writing version {each.new} here gave {each.name} the version {got}: its "
                    f"number comes from somewhere else. Change it by hand, then run `memover lock`."
                )
    except BaseException:
        for path, source in before.items():
            path.write_bytes(source)
        raise
    relock(project, [each.name for each in done], after)
    return done


def _named(text: str, current: dict[str, Found], failures: Sequence[Finding]) -> str:
    if text in current:
        return text
    fitting = [
        name
        for name, each in current.items()
        if text in (each.block.function, each.block.function.partition(":")[2], each.block.function.replace(":", "."))
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CannotRun(
            f"{text!r} is the name of several functions; say which namespace: {', '.join(sorted(fitting))}."
        )
    known = ", ".join(sorted(current)) or "none"
    unseen = "".join(f" {each.message}." for each in failures)
    raise CannotRun(f"No cached function is called {text!r}: there are {known}.{unseen}")


def _edit(path: Path, found: Found, new: int) -> int:
    raw = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    text = raw.decode(encoding)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    edit = edit_of(text, found.namespace, found.block.version, new, path=found.path, near=found.line)
    lines = _lines(text)
    line = lines[edit.line - 1]
    lines[edit.line - 1] = line[: edit.start] + edit.text + line[edit.end :]
    path.write_bytes((mark + "".join(lines)).encode(encoding))
    return edit.line


def _lines(text: str) -> list[str]:
    # As Python counts them: str.splitlines() also splits at form feeds and the like.
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text)


def edit_of(text: str, namespace: str, old: int, new: int, *, path: str = "", near: int = 0) -> Edit:
    """Where and how a source text says the version of a namespace. Raises `CannotRun` with the place."""
    tree = ast.parse(text)
    constants = _constants(tree)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(each.arg == "namespace" and _text(each.value, constants) == namespace for each in node.keywords)
    ]
    if len(calls) > 1:
        above = [each for each in calls if each.lineno <= near]
        nearest = max((each.lineno for each in above), default=0)
        others = [each for each in above if each.lineno == nearest]
        if len(others) != 1 or not _decorates(tree, others[0], near):
            places = ", ".join(f"{path}:{each.lineno}" for each in calls)
            raise CannotRun(f"{namespace!r} is named in several calls ({places}): change the version by hand.")
        calls = others
    if not calls:
        raise CannotRun(
            f"{path}:{near}: no call in this file says namespace={namespace!r}, so the version is not written here in a way "
            f"that can be edited: change it by hand, then run `memover lock`."
        )
    (call,) = calls
    lines = _lines(text)
    written = next((each.value for each in call.keywords if each.arg == "version"), None)
    place = f"{path}:{call.lineno}"
    if written is None:
        if any(each.arg is None for each in call.keywords):
            raise CannotRun(f"{place}: the options come from a mapping (**): change the version there.")
        after = next(each.value for each in call.keywords if each.arg == "namespace")
        at = _column(lines, after.end_lineno or 0, after.end_col_offset or 0)
        return Edit(after.end_lineno or 0, at, at, f", version={new}")
    if isinstance(written, ast.Name):
        written = _constant(tree, written, constants, place, namespace)
    if not (isinstance(written, ast.Constant) and type(written.value) is int):
        raise CannotRun(f"{path}:{written.lineno}: version={ast.unparse(written)} is computed: change it by hand.")
    if written.value != old:
        raise CannotRun(
            f"{path}:{written.lineno}: version={written.value} is written here, but the function has {old}."
        )
    start = _column(lines, written.lineno, written.col_offset)
    end = _column(lines, written.end_lineno or 0, written.end_col_offset or 0)
    return Edit(written.lineno, start, end, str(new))


def _column(lines: list[str], line: int, offset: int) -> int:
    # ast counts the bytes of UTF-8, whatever the file's encoding.
    return len(lines[line - 1].encode()[:offset].decode())


def _decorates(tree: ast.Module, call: ast.Call, near: int) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.lineno == near:
            return any(call is inner for each in node.decorator_list for inner in ast.walk(each))
    return False


def _constants(tree: ast.Module) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, []).append(node.value)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, []).append(node.value or node.target)
    return found


def _text(node: ast.expr, constants: dict[str, list[ast.expr]]) -> object:
    if isinstance(node, ast.Name):
        values = constants.get(node.id, [])
        node = values[0] if len(values) == 1 else node
    return node.value if isinstance(node, ast.Constant) else None


def _constant(
    tree: ast.Module, name: ast.Name, constants: dict[str, list[ast.expr]], place: str, namespace: str
) -> ast.expr:
    values = constants.get(name.id, [])
    if not values:
        raise CannotRun(f"{place}: version={name.id} comes from elsewhere: change it where {name.id} is defined.")
    if len(values) > 1:
        raise CannotRun(f"{place}: version={name.id}, which is assigned in {len(values)} places: change it by hand.")
    sharing = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == name.id and isinstance(node.ctx, ast.Load) and node is not name
    ]
    if sharing:
        where = ", ".join(str(line) for line in sorted({node.lineno for node in sharing}))
        raise CannotRun(
            f"{place}: version={name.id} is used in other places too (line {where}): give {namespace!r} a number of its own."
        )
    return values[0]
