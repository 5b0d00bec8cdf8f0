"""Where the source says a function's version: the characters that `memover bump` may change, found without running anything.

The number is looked for in the call that decorates the function:

    @versioned_cache(namespace="n", version=2)      a literal
    @versioned_cache(namespace=f"{app}/n")          none: version 1, and the keyword is added
    V = 2 ... version=V                             a constant of this module, or of the module it is imported from
    def mine(name, version=1): return versioned_cache(namespace=name, version=version)
    @mine("n", 2)                                   an argument of a function that makes the decorator

A number that others use too, or that is computed, is refused with its place: `CannotRun`.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from memover.cli.project import CannotRun
from memover.cli.source import keyword

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memover.cli.source import Edit, SourceFile, SourceFiles
    from memover.schema.findings import Found

__all__ = ["edit_of", "places_of"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def edit_of(sources: SourceFiles, found: Found, new: int, targets: tuple[str, ...] = ()) -> Edit:
    """Where and how the source says the version of a function. Raises `CannotRun` with the place."""
    source = sources.file(sources.project.root / found.path)
    return _Search(sources, source, found, new, targets or sources.project.targets).edit()


def places_of(
    sources: SourceFiles, current: Mapping[str, Found], targets: tuple[str, ...] = ()
) -> tuple[dict[str, object], dict[str, str]]:
    """Where the source says each function's version, equal for those that have one number; and why it cannot be edited, for the others."""
    places: dict[str, object] = {}
    refused: dict[str, str] = {}
    for name, found in current.items():
        try:
            places[name] = edit_of(sources, found, found.block.version + 1, targets).place
        except CannotRun as error:
            refused[name] = str(error)
    return places, refused


class _Search(NamedTuple):
    """The search for the number of one function in its file, to write `new` there."""

    sources: SourceFiles
    source: SourceFile
    found: Found
    new: int
    targets: tuple[str, ...]

    def edit(self) -> Edit:
        source = self.source
        decorators = self._decorators()
        calls = source.calls(self.found.namespace)
        if len(calls) == 1:
            return self._of_call(calls[0])
        if calls:
            mine = [each for each in calls if any(each is inner for one in decorators for inner in ast.walk(one))]
            if len(mine) != 1:
                places = ", ".join(f"{source.shown}:{each.lineno}" for each in calls)
                self._refuse(None, f"{self.found.namespace!r} is named in several calls ({places})")
            return self._of_call(mine[0])
        # Not by its text: by the place of its decorator.
        computed = [each for each in decorators if isinstance(each, ast.Call) and keyword(each, "namespace")]
        direct = [each for each in computed if self._maker(each)[1] is None]
        if len(direct) == 1:
            return self._of_call(direct[0])
        made = [each for each in decorators if isinstance(each, ast.Call) and self._maker(each)[1] is not None]
        if len(made) != 1:
            self._refuse(None, f"no call in this file says namespace={self.found.namespace!r}")
        return self._of_maker(made[0])

    def _refuse(self, node: ast.AST | None, why: str, source: SourceFile | None = None) -> NoReturn:
        line = getattr(node, "lineno", self.found.line)
        raise CannotRun(
            f"{(source or self.source).shown}:{line}: {why}, so memover cannot change the version of {self.found.namespace!r} "
            f"here: change it by hand, then run `{self.sources.project.command('memover lock', self.targets)}`."
        )

    def _decorators(self) -> list[ast.expr]:
        for node in ast.walk(self.source.tree):
            if isinstance(node, _FUNCTIONS) and node.lineno == self.found.line:
                return node.decorator_list
        return []

    # -- the call that has namespace= --------------------------------------------------------------------------------------

    def _of_call(self, call: ast.Call) -> Edit:
        written = keyword(call, "version")
        if written is not None:
            return self._number(written)
        if any(each.arg is None for each in call.keywords):
            self._refuse(call, "the options come from a mapping (**)")
        namespace = keyword(call, "namespace")
        assert namespace is not None, "it was chosen for having one"
        return self.source.inserted(namespace, "version", self.new)

    def _number(self, written: ast.expr) -> Edit:
        source = self.source
        if isinstance(written, (ast.Name, ast.Attribute)):
            source, written = self._constant(written)
        if not (isinstance(written, ast.Constant) and type(written.value) is int):
            self._refuse(written, f"version={ast.unparse(written)} is computed", source)
        if written.value != self.found.block.version:
            self._refuse(
                written,
                f"version={written.value} is written here, but the function has {self.found.block.version}",
                source,
            )
        return source.replaced(written, self.new)

    def _constant(self, written: ast.Name | ast.Attribute) -> tuple[SourceFile, ast.expr]:
        """The literal that a name stands for, in this file or in the one it comes from, if nothing else uses it."""
        text = ast.unparse(written)
        if isinstance(written, ast.Name) and written.id in self.source.constants:
            return self.source, self._single(self.source, written.id, written, text)
        module, name = self.source.target(written)
        home = self.sources.module(module, self.source) if module and name else None
        if home is None or name not in home.constants:
            self._refuse(written, f"version={text} comes from elsewhere")
        if isinstance(written, ast.Name):
            others = [each for each in self.source.uses(written.id) if each is not written]
            if others:
                self._shared(written, text, self.source, others)
        elif sum(isinstance(each, ast.Attribute) and each.attr == name for each in ast.walk(self.source.tree)) > 1:
            self._refuse(written, f"version={text} is used in other places of this file too")
        elsewhere = list(self.sources.mentions(name, self.targets, {self.source.path.resolve(), home.path.resolve()}))
        if elsewhere:
            self._refuse(written, f"version={text} is used in other places too ({', '.join(elsewhere[:3])})")
        return home, self._single(home, name, None, text)

    def _single(self, source: SourceFile, name: str, written: ast.Name | None, text: str) -> ast.expr:
        values = source.constants[name]
        if len(values) > 1:
            self._refuse(written or values[0], f"version={text} is assigned in {len(values)} places", source)
        others = [each for each in source.uses(name) if each is not written]
        if others:
            self._shared(written or values[0], text, source, others)
        return values[0]

    def _shared(self, at: ast.AST, text: str, source: SourceFile, others: list[ast.Name]) -> NoReturn:
        where = ", ".join(str(line) for line in sorted({node.lineno for node in others}))
        self._refuse(at, f"version={text} is used in other places too (line {where})", source)

    # -- a function that makes the decorator ---------------------------------------------------------------------------------

    def _maker(self, call: ast.Call) -> tuple[SourceFile, ast.FunctionDef | None]:
        """The function that a decorator calls, with its file, if it is the project's and names a namespace."""
        if isinstance(call.func, ast.Name) and call.func.id not in self.source.imports:
            source, name = self.source, call.func.id
        else:
            module, name = self.source.target(call.func)
            home = self.sources.module(module, self.source) if module else None
            if home is None:
                return self.source, None
            source = home
        defined = [each for each in ast.walk(source.tree) if isinstance(each, ast.FunctionDef) and each.name == name]
        if len(defined) == 1 and _naming(defined[0]):
            return source, defined[0]
        return source, None

    def _of_maker(self, outer: ast.Call) -> Edit:
        source, maker = self._maker(outer)
        assert maker is not None, "it was chosen for having one"
        calls = _naming(maker)
        if len(calls) != 1:
            self._refuse(maker, f"{maker.name} names several namespaces", source)
        (inner,) = calls
        arguments = maker.args
        written = keyword(inner, "version")
        passed_on = arguments.kwarg is not None and any(
            each.arg is None and isinstance(each.value, ast.Name) and each.value.id == arguments.kwarg.arg
            for each in inner.keywords
        )
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        if written is None and passed_on:
            parameter = "version"
        elif isinstance(written, ast.Name) and written.id in (*names, *(each.arg for each in arguments.kwonlyargs)):
            parameter = written.id
        else:
            self._refuse(inner, f"{maker.name}() gives one version to all that it decorates", source)
        given = keyword(outer, parameter)
        if given is not None:
            return self._number(given)
        at = names.index(parameter) if parameter in names else len(outer.args)
        if at < len(outer.args) and not any(isinstance(each, ast.Starred) for each in outer.args):
            return self._number(outer.args[at])
        if any(each.arg is None for each in outer.keywords) or any(
            isinstance(each, ast.Starred) for each in outer.args
        ):
            self._refuse(outer, "its arguments come from a sequence or mapping (*, **)")
        last = max((*outer.args, *(each.value for each in outer.keywords)), key=_end, default=None)
        if last is None:
            self._refuse(outer, f"{maker.name}() is called without arguments")
        return self.source.inserted(last, parameter, self.new)


def _naming(node: ast.AST) -> list[ast.Call]:
    """The calls in it that say `namespace=`."""
    return [each for each in ast.walk(node) if isinstance(each, ast.Call) and keyword(each, "namespace") is not None]


def _end(node: Any) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0
