"""How objects with named fields enter a key: by class and fields, found by what `memover.classes` says of their class.

    label        parts
    -----------  ----------------------------------------------------------------------------------
    enum         class, member name: the value behind a name may change, the name is what the call says
    flag         class, value: a combination of flags has no name of its own on every Python
    namedtuple   class, then name and value of each field
    dataclass    the same, every field: those with compare=False or init=False too, for the function sees them
    attrs        the same
    msgspec      the same, for Structs
    pydantic     the same for v2 models, then extra and private attributes; which fields were set does not
                 count, as it does not for pydantic's own ==
    pydantic.Url class, text
    mapping      class, as a dict: classes derived from collections.abc.Mapping that leave `items` to it.
                 Others, multi-dicts among them, show less in `items` than they hold, and are refused

Rows of a database (Django models, mapped classes of SQLAlchemy) and queries are refused, unless `register_key` names their
class or a base. A field that was never set counts as such. A class derived from a dataclass or attrs class without being
decorated itself is refused, and so is a dataclass derived from a builtin such as str: either may hold more
than its fields. A class is its import name and qualified name.
"""

from __future__ import annotations

import sys
from enum import Flag
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import (
    ClassKind,
    base_names,
    declared,
    declares_itself,
    field_names,
    is_django,
    is_queryset,
    is_row,
    kind_of,
)  # fmt: skip

from .canonical import Active, builtin_base, class_part, composite, encode_part, enter
from .forms import encoded, entered
from .local import record_part
from .refusal import Unkeyable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .canonical import Encoder

__all__ = ["find"]

_UNSET = composite("unset")
_MISSING = object()


def find(kind: type) -> Encoder | None:
    """The encoder of a class with named fields, or None."""
    if kind_of(kind) is ClassKind.ENUM:
        return _flag(kind) if issubclass(kind, Flag) else _enum(kind)
    what = declared(kind)
    if what is ClassKind.NAMEDTUPLE:
        return _namedtuple(kind, field_names(kind, what))
    if builtin_base(kind) is not None:
        return None
    if what is ClassKind.MODEL:
        return _record("pydantic", kind, field_names(kind, what), _beside)
    if what is ClassKind.STRUCT or (what in (ClassKind.ATTRS, ClassKind.DATACLASS) and declares_itself(kind)):
        return _record(what.value, kind, field_names(kind, what))
    if "pydantic.networks._BaseUrl" in base_names(kind):
        return _url
    abc = sys.modules.get("collections.abc")
    if abc is not None and issubclass(kind, abc.Mapping) and getattr(kind, "items", None) is abc.Mapping.items:
        return _mapping
    if is_row(kind):
        return _row
    if is_queryset(kind):
        return _query
    return None


def _row(value: Any, active: Active) -> bytes:
    name = type(value).__name__
    key = f"{name.lower()}.pk" if is_django(type(value)) else f"{name.lower()}.id"
    raise Unkeyable(
        value,
        "it stands for a row of a database, and the row changes without it",
        f"pass what the row is found by, as in f({key}), or name it for all functions with "
        f"memover.register_key({name}, lambda row: ...)",
    )


def _query(value: Any, active: Active) -> bytes:
    raise Unkeyable(
        value,
        "it is a query that has not run, and its rows change without it",
        "pass what the query is made from, or the keys it finds, as in f(tuple(query.values_list('pk', flat=True)))",
    )


def _enum(kind: type) -> Encoder:
    head = record_part(kind)

    def encode_enum(value: Any, active: Active) -> bytes:
        if not isinstance(value._name_, str):
            raise Unkeyable(value, "an enum member without a name")
        return composite("enum", head, encode_part(value._name_, active))

    return encode_enum


def _flag(kind: type) -> Encoder:
    head = record_part(kind)
    return lambda value, active: composite("flag", head, encode_part(value._value_, active))


def _record(
    label: str, kind: type, names: Sequence[str], rest: Callable[[Any, Active], list[bytes]] = lambda value, active: []
) -> Encoder:
    head = record_part(kind)
    fields = [(name, encode_part(name, {})) for name in names]

    def encode_record(value: Any, active: Active) -> bytes:
        enter(value, active)
        parts = [head]
        try:
            for name, part in fields:
                parts.append(part)
                field = getattr(value, name, _MISSING)
                try:
                    parts.append(_UNSET if field is _MISSING else encode_part(field, active))
                except Unkeyable as refused:
                    refused.steps.append(f".{name}")
                    raise
            parts += rest(value, active)
        finally:
            del active[id(value)]
        return composite(label, *parts)

    return encode_record


def _namedtuple(kind: type, names: tuple[str, ...]) -> Encoder:
    head = record_part(kind)
    fields = [(name, encode_part(name, {})) for name in names]

    def encode_namedtuple(value: Any, active: Active) -> bytes:
        if getattr(value, "__dict__", None):
            raise Unkeyable(value, "a named tuple with attributes besides its fields")
        enter(value, active)
        parts = [head]
        try:
            for (name, part), field in zip(fields, tuple.__iter__(value), strict=True):
                parts.append(part)
                try:
                    parts.append(encode_part(field, active))
                except Unkeyable as refused:
                    refused.steps.append(f".{name}")
                    raise
        finally:
            del active[id(value)]
        return composite("namedtuple", *parts)

    return encode_namedtuple


def _beside(value: Any, active: Active) -> list[bytes]:
    """What a pydantic model holds beside its fields: extra and private attributes."""
    extra = getattr(value, "__pydantic_extra__", None)
    return encoded(active, extra, getattr(value, "__pydantic_private__", None))


def _url(value: Any, active: Active) -> bytes:
    return composite("pydantic.Url", class_part(type(value)), encode_part(str(value), active))


@entered
def _mapping(value: Any, active: Active) -> bytes:
    return composite("mapping", class_part(type(value)), encode_part(dict(value.items()), active))
