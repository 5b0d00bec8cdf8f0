"""The classes that an annotation names: nested, generic, in unions, and through the fields of the classes it names."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import TYPE_CHECKING, Any

from memover.classes.annotations import UNREADABLE, Scope, Unresolved, closure_of, own_annotations, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reach"]

_SILENT = frozenset({"builtins", "typing", "pydantic.main", "abc", "enum", "msgspec"})
"""Modules whose classes have annotations that say nothing of what a subclass holds."""


class Reach:
    """Collects classes from annotations into `found`; `complete` is False once a name meant nothing where it stands."""

    def __init__(self, function: Any) -> None:
        self.found: dict[type, None] = {}
        self.complete = True
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._names: dict[str, Any] = closure_of(function)
        self._by_name: dict[str, Any] = {}
        self._pending: list[tuple[Any, str]] = []
        if isinstance(function, type):
            self.follow(function, function.__module__)
        elif function is not None:
            annotation = own_annotations(function).get("return")
            if annotation is not None:
                self.follow(annotation, getattr(function, "__module__", "") or "")

    def follow(self, annotation: Any, module: str) -> None:
        """Collects what an annotation that stands in `module` names."""
        self._pending.append((annotation, module))
        while self._pending:
            self._step(*self._pending.pop())

    def _step(self, annotation: Any, module: str) -> None:
        if isinstance(annotation, (str, typing.ForwardRef)):
            scope = Scope(module, self._names, fallback=self._by_name)
            # Quotes within quotes: a quoted annotation in a module whose annotations are all strings.
            for _ in range(3):
                annotation, scope = resolve(annotation, scope)
            module = scope.module
            if isinstance(annotation, str):
                return
        if isinstance(annotation, Unresolved):
            self.complete = False
            return
        if annotation is None or annotation is Any or id(annotation) in self._seen:
            return
        self._seen.add(id(annotation))
        self._kept.append(annotation)  # an id is only good while its object lives
        push = self._pending.append
        if isinstance(annotation, (list, tuple)):  # the parameters of a Callable, or of a class
            for each in annotation:
                push((each, module))
            return
        if typing.get_origin(annotation) is typing.Literal:
            for each in typing.get_args(annotation):
                push((type(each), module))
            return
        for attribute in ("__origin__", "__supertype__", "__value__", "__bound__"):
            if not isinstance(annotation, type) or attribute == "__origin__":
                try:
                    inner = getattr(annotation, attribute, None)
                except UNREADABLE:
                    self.complete = False
                    continue
                if inner is not None:
                    push((inner, getattr(annotation, "__module__", None) or module))
        for each in (*typing.get_args(annotation), *(getattr(annotation, "__constraints__", ()) or ())):
            push((each, module))
        if isinstance(annotation, dataclasses.InitVar):
            push((annotation.type, module))
        if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
            self._class(annotation)

    def _class(self, kind: type) -> None:
        if kind.__module__ in ("builtins", "typing") and not issubclass(kind, BaseException):
            return
        self.found[kind] = None
        self._by_name[kind.__name__] = kind
        push = self._pending.append
        for base in kind.__mro__:
            if base.__module__ in _SILENT:
                continue
            for annotation in own_annotations(base).values():
                push((annotation, base.__module__))
            for generic in base.__dict__.get("__orig_bases__", ()):
                push((generic, base.__module__))
        for annotation in _kept_types(kind):
            push((annotation, kind.__module__))


def _kept_types(kind: type) -> Iterator[Any]:
    """The resolved field types that attrs, pydantic and dataclasses made at run time keep beside the annotations."""
    for each in getattr(kind, "__attrs_attrs__", ()) or ():
        yield getattr(each, "type", None)
    fields = kind.__dict__.get("__pydantic_fields__")
    if isinstance(fields, dict):
        for each in fields.values():
            yield getattr(each, "annotation", None)
    fields = kind.__dict__.get("__dataclass_fields__")
    if isinstance(fields, dict):
        for each in fields.values():
            yield each.type
