"""The project's files as they are read and edited: their trees, constants, imports, and edits of single characters."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memover.cli.project import CannotRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memover.cli.project import Project

__all__ = ["Edit", "SourceFile", "SourceFiles", "keyword"]


class Edit(NamedTuple):
    """Replaces characters `start` to `end` of a line (from 1) of a file by `before` and a number."""

    path: Path
    line: int
    start: int
    end: int
    before: str
    number: int

    @property
    def place(self) -> tuple[Path, int, int]:
        """Equal for two edits of the same number."""
        return self.path, self.line, self.start


class SourceFile:
    """One file: its tree, its lines and its constants. Raises `SyntaxError` or `ValueError` for what is not Python."""

    def __init__(self, raw: bytes, path: Path, shown: str) -> None:
        self.path = path
        self.shown = shown
        self.encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(self.encoding)
        self.mark = "\ufeff" if text.startswith("\ufeff") else ""
        self.text = text.removeprefix(self.mark)
        self.tree = ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """The lines as Python counts them: str.splitlines() also splits at form feeds and the like."""
        return io.StringIO(self.text, newline="").readlines()

    @cached_property
    def constants(self) -> dict[str, list[ast.expr]]:
        """The names that are assigned to anywhere, with what they are assigned."""
        found: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            found.setdefault(name.id, []).append(node.value)
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and isinstance(node.target, ast.Name):
                found.setdefault(node.target.id, []).append(node.value or node.target)
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Imported names: the module (with leading dots as written) and the name in it, "" for a module itself."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                for each in node.names:
                    found[each.asname or each.name] = (module, each.name)
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.asname or "." not in each.name:
                        found[each.asname or each.name] = (each.name, "")
        return found

    def target(self, node: ast.expr) -> tuple[str, str]:
        """What an imported name, or an attribute of one, stands for: a module and the name in it; ("", "") for another."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id, ("", ""))
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            return "", ""
        module, inner = self.imports.get(node.value.id, ("", ""))
        if inner:  # the name is a module of a package
            module = f"{module}{inner}" if module.endswith(".") else f"{module}.{inner}"
        return module, node.attr

    def calls(self, namespace: str) -> list[ast.Call]:
        """The calls in this file that say `namespace=` and this name."""
        return [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and self.value(keyword(node, "namespace")) == namespace
        ]

    def value(self, node: ast.expr | None) -> object:
        """A literal, or the constant of this file that a name stands for; None for anything else."""
        if isinstance(node, ast.Name):
            values = self.constants.get(node.id, [])
            node = values[0] if len(values) == 1 else node
        return node.value if isinstance(node, ast.Constant) else None

    def uses(self, name: str) -> list[ast.Name]:
        """Where a name is read."""
        return [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        ]

    def column(self, line: int, offset: int) -> int:
        """The character at an offset of ast, which counts bytes of UTF-8 whatever the file's encoding is."""
        return len(self.lines[line - 1].encode()[:offset].decode())

    def replaced(self, node: ast.expr, number: int) -> Edit:
        """The edit that writes a number over an expression of one line."""
        line = node.lineno
        start = self.column(line, node.col_offset)
        return Edit(self.path, line, start, self.column(node.end_lineno or line, node.end_col_offset or 0), "", number)

    def inserted(self, after: ast.expr, keyword: str, number: int) -> Edit:
        """The edit that adds a keyword argument after an expression."""
        line = after.end_lineno or after.lineno
        at = self.column(line, after.end_col_offset or 0)
        return Edit(self.path, line, at, at, f", {keyword}=", number)

    def edited(self, edits: list[Edit]) -> bytes:
        """The file with edits made in it, the last ones first so that the places of the others stay right."""
        lines = list(self.lines)
        for edit in sorted(edits, key=lambda each: (each.line, each.start), reverse=True):
            line = lines[edit.line - 1]
            lines[edit.line - 1] = line[: edit.start] + f"{edit.before}{edit.number}" + line[edit.end :]
        return (self.mark + "".join(lines)).encode(self.encoding)


class SourceFiles:
    """The files of a project, each read once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._files: dict[Path, SourceFile] = {}

    def file(self, path: Path) -> SourceFile:
        """A file. Raises `CannotRun` for one that cannot be read as Python."""
        found = self._files.get(path)
        if found is None:
            try:
                found = self._files[path] = SourceFile(path.read_bytes(), path, self.project.shown(str(path)))
            except (OSError, SyntaxError, ValueError) as error:
                raise CannotRun(f"{self.project.shown(str(path))} cannot be read: {error}.") from None
        return found

    def module(self, name: str, importer: SourceFile) -> SourceFile | None:
        """The file of a module of the project as `importer` names it; None for one that is not the project's."""
        dots = len(name) - len(name.lstrip("."))
        parts = [each for each in name.lstrip(".").split(".") if each]
        if dots:
            starts = [importer.path.parents[dots - 1]]
        else:
            starts = [self.project.root / each for each in self.project.paths]
        for start in starts:
            place = start.joinpath(*parts)
            for file in (place.with_suffix(".py") if parts else place / "__init__.py", place / "__init__.py"):
                if file.is_file():
                    return self.file(file)
        return None

    def mentions(self, name: str, targets: tuple[str, ...], but: set[Path]) -> Iterator[str]:
        """Files below the targets that contain a word, other than those given."""
        word = re.compile(rf"\b{re.escape(name)}\b")
        for top in dict.fromkeys(each.partition(".")[0] for each in targets):
            for start in self.project.paths:
                place = self.project.root / start / top
                for file in (place.with_suffix(".py"), *sorted(place.rglob("*.py"))):
                    if file.is_file() and file.resolve() not in but:
                        try:
                            text = file.read_text(encoding="utf-8", errors="replace")
                        except OSError:
                            continue
                        hit = word.search(text)
                        if hit is not None:
                            yield f"{self.project.shown(str(file))}:{text.count(chr(10), 0, hit.start()) + 1}"


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The argument that a call gives by this name; None where it gives none."""
    return next((each.value for each in call.keywords if each.arg == name), None)
