"""From a function to the shape of what it returns: where its annotation is found, and read with which names.

How an annotation becomes text is in `reader`.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from memover.classes.annotations import Scope, closure_of, innermost, nested_names, own_annotations, owner_of, resolve
from memover.schema.reader import AnnotationReader, word_of
from memover.schema.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["classes_of", "read_shape", "result_class", "shape_of"]

_MISSING = object()


def shape_of(function: Callable[..., Any]) -> Shape:
    """The shape of what a function returns (awaited, if it is `async def`). Imports nothing and never raises.

    Unknown for an annotation that is nested too deep for the stack."""
    try:
        return read_shape(function)
    except RecursionError:
        return Shape("?")


def read_shape(function: Callable[..., Any]) -> Shape:
    """As `shape_of`; raises `RecursionError` where the stack that is left does not suffice."""
    return _read(function)[0]


def classes_of(function: Callable[..., Any]) -> tuple[type, ...]:
    """The classes of the application that the shape of a function's result names, those inside other classes included."""
    try:
        return _read(function)[1].classes()
    except RecursionError:
        return ()


def _read(function: Callable[..., Any]) -> tuple[Shape, AnnotationReader]:
    inner = innermost(function)
    annotation = own_annotations(inner).get("return", _MISSING)
    reader, owner = AnnotationReader(), owner_of(inner)
    if annotation is _MISSING:
        return Shape("?"), reader
    scope = Scope(
        getattr(inner, "__module__", "") or "",
        {**nested_names(owner), **closure_of(inner)},
        self_type=None if owner is None else lambda: reader.class_text(owner, ()),
        fallback=reader.seen,
    )
    return reader.shape(annotation, scope), reader


def result_class(function: Callable[..., Any]) -> type | None:
    """The class of one's own that a function returns, if its annotation names one that has fields; else None."""
    inner = innermost(function)
    scope = Scope(getattr(inner, "__module__", "") or "", closure_of(inner))
    annotation, _ = resolve(own_annotations(inner).get("return"), scope)
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and word_of(origin) in ("class", "model", "struct", "namedtuple", "enum"):
        return origin
    return None
