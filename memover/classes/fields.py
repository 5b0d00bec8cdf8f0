"""What instances of a class hold, field by field: the one place that reads fields with their types.

A part is something that is kept: fields by name and not by alias, private attributes and cached computed fields of
pydantic models, the concrete fields of Django models; no class variables, no defaults.
"""

from __future__ import annotations

import sys
import types
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.classes.annotations import UNREADABLE, own_annotations
from memover.classes.kinds import ClassKind, field_names, foreign_base, foreign_module, is_django, model_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["UNKNOWN", "Part", "base_part", "generic_origin", "parts_of"]

UNKNOWN = object()
"""In place of an annotation that is not there."""


class Part(NamedTuple):
    """A field, key or member: `owner` is the class whose source names it; `literal` is a text instead of a type."""

    name: str
    annotation: Any
    owner: type
    optional: bool = False
    literal: str | None = None


def base_part(cls: type) -> Part:
    """The builtin or foreign class that a class of one's own is made of, with the arguments that it was given."""
    base = foreign_base(cls)
    for owner in cls.__mro__:
        for written in owner.__dict__.get("__orig_bases__", ()):
            if getattr(written, "__origin__", None) is base:
                return Part("", written, owner)
    return Part("", None, cls, literal=base.__name__)


def parts_of(cls: type, kind: ClassKind) -> list[Part]:
    """The parts of a class of one's own, of the kind that `kind_of` says, which is no exception."""
    if kind in _PARTS:
        return list(_PARTS[kind](cls))
    named = _annotated(cls)
    if kind is ClassKind.TYPEDDICT:
        optional: frozenset[str] = getattr(cls, "__optional_keys__", frozenset())
        return [Part(name, each, owner, name in optional) for name, (each, owner) in named.items()]
    # The type that the library itself keeps, for a field that no annotation names: `attr.ib(type=int)`.
    kept: dict[str, Any] = {}
    if kind is ClassKind.ATTRS:
        kept = {each.name: each.type for each in cls.__attrs_attrs__ if each.type is not None}  # type: ignore[attr-defined]
    elif kind is ClassKind.DATACLASS:
        kept = {each.name: each.type for each in sys.modules["dataclasses"].fields(cls)}
    return [Part(name, *named.get(name, (kept.get(name, UNKNOWN), cls))) for name in field_names(cls, kind)]


def _annotated(cls: type) -> dict[str, tuple[Any, type]]:
    """The annotations of a class and its bases with the class that made each, the nearest one's last word."""
    found: dict[str, tuple[Any, type]] = {}
    bases = cls.__mro__ if not hasattr(cls, "__required_keys__") else _dict_bases(cls)
    for base in reversed(bases):
        if base.__module__ != "__main__" and foreign_module(base.__module__.partition(".")[0]):
            continue
        for name, annotation in own_annotations(base).items():
            # A typed dict repeats its bases' keys; where they were written is where their names mean something.
            if name in found and annotation == found[name][0]:
                continue
            found[name] = (annotation, base)
    return found


def _dict_bases(cls: type) -> tuple[type, ...]:
    # A typed dict has no bases at run time but those it remembers.
    found, pending = [cls], list(cls.__dict__.get("__orig_bases__", ()))
    while pending:
        base = pending.pop(0)
        base = getattr(base, "__origin__", base)
        if isinstance(base, type) and hasattr(base, "__required_keys__") and base not in found:
            found.append(base)
            pending.extend(base.__dict__.get("__orig_bases__", ()))
    return tuple(found)


def _members(cls: Any) -> Iterator[Part]:
    for name, member in cls.__members__.items():
        if member.name == name:  # another name for a member is never stored
            yield Part(name, None, cls, literal=_value(member.value))


def _value(value: Any) -> str:
    if type(value) in (int, str, bytes, float, bool, type(None)):
        return repr(value)
    if type(value) is tuple:
        return "(" + ", ".join(map(_value, value)) + ("," if len(value) == 1 else "") + ")"
    # The repr of anything else may hold an address.
    return f"<{type(value).__name__}>"


def _model(cls: Any) -> Iterator[Part]:
    named = _annotated(cls)
    for name, field in model_fields(cls).items():
        raw, owner = named.get(name, (None, cls))
        resolved = getattr(field, "annotation", None)
        # pydantic's own reading knows the arguments of generic models; where it has none, what was written is read.
        yield Part(name, raw if resolved is None and raw is not None else resolved, owner)
    # A computed field is stored only where it is kept in the instance.
    decorators = getattr(cls, "__pydantic_decorators__", None)
    for name, computed in getattr(decorators, "computed_fields", {}).items():
        wrapped = getattr(computed.info, "wrapped_property", None)
        if isinstance(wrapped, cached_property):
            yield Part(name, own_annotations(wrapped.func).get("return", UNKNOWN), cls, optional=True)
    for name in getattr(cls, "__private_attributes__", {}):
        yield Part(name, *named.get(name, (UNKNOWN, cls)))
    if getattr(cls, "model_config", {}).get("extra") == "allow":
        yield Part("*", Any, cls, optional=True)


def _row(cls: Any) -> Iterator[Part]:
    """The columns of a Django model, by the attribute that holds each; the annotations of other mapped classes."""
    if not is_django(cls):
        yield from _plain(cls)
        return
    for field in cls._meta.concrete_fields:
        yield Part(field.attname, None, cls, literal=_column(field) + (" | None" if field.null else ""))


def _column(field: Any) -> str:
    """What the attribute of a Django field holds, as the text of a type; the field's own class where that is not known."""
    for _ in range(10):  # a foreign key may lead to a foreign key
        if not field.is_relation:
            return _COLUMNS.get(field.get_internal_type()) or type(field).__name__
        try:
            field = field.target_field
        except UNREADABLE:
            break
    return f"?{type(field).__name__}"


_COLUMNS = {
    **dict.fromkeys(("BooleanField", "NullBooleanField"), "bool"),
    **dict.fromkeys(
        (
            "AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField",
            "PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField",
        ),
        "int",
    ),
    **dict.fromkeys(
        ("CharField", "TextField", "SlugField", "FilePathField", "IPAddressField", "GenericIPAddressField"), "str"
    ),
    "BinaryField": "bytes",
    "DateField": "date",
    "DateTimeField": "datetime",
    "DecimalField": "Decimal",
    "DurationField": "timedelta",
    "FileField": "FieldFile",
    "FloatField": "float",
    "JSONField": "Any",
    "TimeField": "time",
    "UUIDField": "UUID",
}  # fmt: skip


def _plain(cls: type) -> Iterator[Part]:
    """What can be known of a class that declares no fields: its annotations, what its `__init__` keeps, and its slots.

    A parameter of `__init__` counts where the method uses its name as an attribute's, and so does every attribute that it sets;
    the `__init__` of a base is looked at where the one below calls it. A class that names no attribute in any of these ways
    has its annotated parameters."""
    found = {name: each for name, each in _annotated(cls).items() if not _is_class_variable(each[0])}
    taken: dict[str, tuple[Any, type]] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if not isinstance(init, types.FunctionType):
            continue
        code, written = init.__code__, own_annotations(init)
        parameters = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        for name in parameters:
            if name in code.co_names:
                found.setdefault(name, (written.get(name, UNKNOWN), base))
            if name in written:
                taken.setdefault(name, (written[name], base))
        for name, parameter in _attributes_set(init):
            annotation = written.get(parameter, UNKNOWN) if parameter in parameters else UNKNOWN
            found.setdefault(name, (annotation, base))
        if "__init__" not in code.co_names:
            break
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                found.setdefault(name, (UNKNOWN, cls))
    for name, (annotation, owner) in (found or taken).items():
        yield Part(name, annotation, owner)


def _attributes_set(init: types.FunctionType) -> list[tuple[str, str]]:
    """The attributes that a method sets on its first argument, each with the variable it is set to, "" for another value, or for
    several."""
    import dis  # only for classes that declare nothing: it takes some milliseconds to import

    this, loaded, found = init.__code__.co_varnames[0], list[str](), dict[str, str]()
    for each in dis.get_instructions(init):
        if each.is_jump_target:  # what lies below may come from elsewhere
            loaded = []
        if each.opname == "STORE_ATTR" and loaded[-1:] == [this]:
            value = "".join(loaded[-2:-1])
            # In several places, be they only the branches of one expression, which some compilers make so, and others not.
            found[each.argval] = value if found.get(each.argval, value) == value else ""
        if not each.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")):
            loaded = []
        elif isinstance(each.argval, tuple):  # two names in one instruction, the later one on top
            loaded = [*each.argval] if each.opname.startswith("LOAD") else [each.argval[1]]
        else:
            loaded = [*loaded, each.argval]
    return list(found.items())


def _is_class_variable(annotation: Any) -> bool:
    return "ClassVar" in (annotation if isinstance(annotation, str) else repr(annotation))


def generic_origin(cls: Any) -> tuple[type, tuple[Any, ...]]:
    """The class that a parametrized pydantic model was made from, and the arguments; else the class and nothing."""
    made = cls.__dict__.get("__pydantic_generic_metadata__") if isinstance(cls, type) else None
    if isinstance(made, dict) and made.get("origin") is not None:
        return made["origin"], tuple(made["args"])
    return cls, ()


_PARTS: dict[ClassKind, Callable[[Any], Iterator[Part]]] = {
    ClassKind.ENUM: _members,
    ClassKind.MODEL: _model,
    ClassKind.ROW: _row,
    ClassKind.BUILTIN: _plain,
    ClassKind.PLAIN: _plain,
}
"""Of an exception there is one part, its base (`base_part`); all other kinds declare named fields."""
