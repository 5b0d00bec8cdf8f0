"""Annotations as the program wrote them, and what the names in them stand for.

A string is evaluated where it was written: among the names of its function or class, then its module's, then the
builtins. Nothing is imported. A name that is not there (imported for type checkers only, say) becomes `Unresolved`, so
that the rest of the annotation is still known.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
import typing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from memover.classes.places import look_up
from memover.errors import raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "UNREADABLE", "Scope", "Unresolved", "closure_of", "innermost", "nested_names", "own_annotations", "owner_of", "resolve",
]  # fmt: skip

UNREADABLE = (ArithmeticError, AttributeError, ImportError, LookupError, NameError, SyntaxError, TypeError, ValueError)
"""What evaluating an annotation raises when it means nothing here. Anything else, an interrupt say, is let through."""


class Unresolved:
    """A name that means nothing here, in whatever way it is used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Unresolved:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unresolved(f"{self.name}.{name}")

    def __getitem__(self, _: object) -> Unresolved:
        return self

    def __or__(self, other: Any) -> Any:
        return typing.Union[_held(self), other]  # noqa: UP007  # it is no type

    def __ror__(self, other: Any) -> Any:
        return typing.Union[other, _held(self)]  # noqa: UP007

    def __call__(self, *_: Any, **__: Any) -> Unresolved:
        return self


def _held(name: Unresolved) -> Any:
    # typing.Union takes a forward reference without asking what it is.
    return typing.ForwardRef(name.name)


@dataclass(frozen=True)
class Scope:
    """Where an annotation stands: its module, the local names, what type variables are bound to, and `Self`.

    `fallback` is asked last: classes met on the way here, for those defined inside functions.
    """

    module: str
    names: Mapping[str, Any] = field(default_factory=dict)
    bindings: Mapping[Any, str] = field(default_factory=dict)
    self_type: Callable[[], str] | None = None
    fallback: Mapping[str, Any] = field(default_factory=dict)


class _Lookup(dict[str, Any]):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.names)
        self._module = vars(sys.modules[scope.module]) if scope.module in sys.modules else {}
        self._fallback = scope.fallback

    def __missing__(self, name: str) -> Any:
        for names in (self._module, vars(builtins), self._fallback):
            if name in names:
                return names[name]
        return Unresolved(name)


def _evaluate(text: str, scope: Scope) -> Any:
    try:
        return eval(text, {"__builtins__": {}}, _Lookup(scope))  # noqa: S307  # the program's own source text
    except UNREADABLE:
        return Unresolved(text)


def resolve(annotation: Any, scope: Scope) -> tuple[Any, Scope]:
    """An annotation without quotes around it, as deep as they go, and the scope in which its parts are to be read."""
    text = ""
    for _ in range(10):  # a name whose value is its own quoted name has no end
        if isinstance(annotation, typing.ForwardRef):
            module = getattr(annotation, "__forward_module__", None)
            scope = replace(scope, module=getattr(module, "__name__", module) or scope.module)
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return annotation, scope
        text, annotation = annotation, _evaluate(annotation, scope)
        if isinstance(annotation, str) and not annotation.isidentifier():
            return annotation, scope
    return Unresolved(text), scope


def innermost(function: Any) -> Any:
    """The plain function inside wrappers, partials, bound methods, class and static methods."""
    for _ in range(100):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (classmethod, staticmethod, types.MethodType)):
            function = function.__func__
        elif hasattr(function, "__wrapped__") and not isinstance(function, type):
            function = function.__wrapped__
        else:
            break
    if isinstance(function, (types.FunctionType, types.BuiltinFunctionType, type)):
        return function
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the function is wanted, not the answer
    return call if isinstance(call, types.FunctionType) else function


def owner_of(function: Any) -> type | None:
    """The class in whose body a function stands, if it can be reached from its module by name."""
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    return look_up(getattr(function, "__module__", None) or "", outer)


def nested_names(owner: type | None) -> dict[str, Any]:
    """The classes defined in a class's body. Its other names are values: `date: date = None` means the module's."""
    return {} if owner is None else {name: each for name, each in vars(owner).items() if isinstance(each, type)}


def closure_of(function: Any) -> dict[str, Any]:
    """The names that a function has from the functions around it, without those that are not assigned yet."""
    found = {}
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError as error:
            if raised_by_handler(error):
                raise
    return found


def own_annotations(owner: Any) -> dict[str, Any]:
    """The annotations of a function, or of a class without its bases'; none where they cannot be read."""
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return dict(annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF))
        if isinstance(owner, type):
            return dict(owner.__dict__.get("__annotations__") or {})  # noqa: RUF063  # must not evaluate
        return dict(getattr(owner, "__annotations__", None) or {})
    except UNREADABLE:
        return {}
