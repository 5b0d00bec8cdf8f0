"""Annotations as the program wrote them, and what the names in them stand for.

A string is evaluated where it was written: among the names of its function or class, then its module's, then the
builtins. Nothing is imported. A name that is not there (imported for type checkers only, say) becomes `Unresolved`, so
that the rest of the annotation is still known.
"""

from __future__ import annotations

import builtins
import sys
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Scope", "Unresolved", "closure_of", "evaluate", "own_annotations"]


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


def evaluate(text: str, scope: Scope) -> Any:
    """What a string annotation means, `Unresolved` where it means nothing here."""
    try:
        return eval(text, {"__builtins__": {}}, _Lookup(scope))  # noqa: S307  # the program's own source text
    except Exception:
        return Unresolved(text)


def closure_of(function: Any) -> dict[str, Any]:
    """The names that a function has from the functions around it."""
    found = {}
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def own_annotations(owner: Any) -> dict[str, Any]:
    """The annotations of a function, or of a class without its bases'; never raises."""
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return dict(annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF))
        if isinstance(owner, type):
            return dict(owner.__dict__.get("__annotations__") or {})  # noqa: RUF063  # must not evaluate
        return dict(getattr(owner, "__annotations__", None) or {})
    except Exception:
        return {}
