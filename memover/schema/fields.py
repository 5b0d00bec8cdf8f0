"""What each kind of class stores of its instances: the one place that knows how libraries keep their fields.

It mirrors the codec's order of kinds (`codec.records.plan_for`), because a shape says what the codec stores: fields by
name and not by alias, private attributes and cached computed fields of pydantic models, no class variables, no defaults.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import sys
import types
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.codec.registry import registered
from memover.schema.annotations import own_annotations

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UNKNOWN", "Part", "generic_origin", "kind_of", "nested_names", "owner_of", "parts_of"]

UNKNOWN = object()
"""In place of an annotation that is not there."""

_ATOMIC = frozenset({"numpy", "pandas", "polars", "pyarrow", "dateutil", "msgpack", "pytz"})
_STDLIB = os.path.dirname(os.__file__)


class Part(NamedTuple):
    """A field, key or member: `owner` is the class whose source names it; `literal` is a text instead of a type."""

    name: str
    annotation: Any
    owner: type
    optional: bool = False
    literal: str | None = None


@lru_cache(maxsize=512)
def _foreign(top: str) -> bool:
    """Whether a top-level module belongs to the standard library or to a library whose values are atoms."""
    if top in _ATOMIC or top in ("builtins", "typing", "typing_extensions"):
        return True
    if top not in sys.stdlib_module_names:
        return False
    # An application's own module may have such a name: `profile`, `calendar`, `code`.
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or (file.startswith(_STDLIB) and "-packages" not in file)


def kind_of(cls: type) -> str:
    """How instances of a class are stored: a kind of `shape`, or "known" for a name without parts."""
    # Before Python 3.12 whatever make_dataclass makes says that it is from `types`.
    made = cls.__module__ == "types" and not hasattr(types, cls.__name__)
    if not made and cls.__module__ != "__main__" and _foreign(cls.__module__.partition(".")[0]):
        return "known"
    registration = registered(cls)
    if registration is not None and registration.encode is not None:
        return "registered"
    if isinstance(cls, enum.EnumMeta):
        return "enum"
    if issubclass(cls, BaseException):
        return "subclass"
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return "namedtuple"
    if isinstance(getattr(cls, "__required_keys__", None), frozenset) and issubclass(cls, dict):
        return "typeddict"
    if "pydantic" in sys.modules and hasattr(cls, "__pydantic_fields__") and not dataclasses.is_dataclass(cls):
        return "model"
    if hasattr(cls, "__struct_fields__"):
        return "struct"
    if hasattr(cls, "__attrs_attrs__") or dataclasses.is_dataclass(cls):
        return "class"
    return "subclass" if _base(cls) is not object else "plain"


def _base(cls: type) -> type:
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if top not in ("__main__", "typing", "typing_extensions", "abc", "enum") and _foreign(top):
            return base
    return object


def _builtin_base(cls: type) -> Part:
    base = _base(cls)
    for owner in cls.__mro__:
        for written in owner.__dict__.get("__orig_bases__", ()):
            if getattr(written, "__origin__", None) is base:
                return Part("", written, owner)
    return Part("", None, cls, literal=base.__name__)


def nested_names(owner: type | None) -> dict[str, Any]:
    """The classes defined in a class's body. Its other names are values: `date: date = None` means the module's."""
    return {} if owner is None else {name: each for name, each in vars(owner).items() if isinstance(each, type)}


def parts_of(cls: type, kind: str) -> list[Part]:
    """The parts of a class of one's own, of a kind that `kind_of` said."""
    if kind == "enum":
        return list(_members(cls))
    if kind == "subclass":
        return [_builtin_base(cls)]
    if kind == "registered":
        return []
    if kind == "model":
        return list(_model(cls))
    named = annotated(cls)
    if kind == "typeddict":
        optional: frozenset[str] = getattr(cls, "__optional_keys__", frozenset())
        return [Part(name, each, owner, name in optional) for name, (each, owner) in named.items()]
    if kind == "plain":
        return list(_plain(cls, named))
    types_: dict[str, Any] = {}
    if kind == "namedtuple":
        names: Any = cls._fields  # type: ignore[attr-defined]
    elif kind == "struct":
        names = cls.__struct_fields__  # type: ignore[attr-defined]
    elif hasattr(cls, "__attrs_attrs__"):
        types_ = {each.name: each.type for each in cls.__attrs_attrs__}
        names = types_
    else:
        types_ = {each.name: each.type for each in dataclasses.fields(cls)}
        names = types_
    return [Part(name, *named.get(name, (_type(types_.get(name)), cls))) for name in names]


def _type(found: Any) -> Any:
    return UNKNOWN if found is None else found


def annotated(cls: type) -> dict[str, tuple[Any, type]]:
    """The annotations of a class and its bases with the class that made each, the nearest one's last word."""
    found: dict[str, tuple[Any, type]] = {}
    bases = cls.__mro__ if not hasattr(cls, "__required_keys__") else _dict_bases(cls)
    for base in reversed(bases):
        if base.__module__ != "__main__" and _foreign(base.__module__.partition(".")[0]):
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
    named = annotated(cls)
    for name, field in cls.__pydantic_fields__.items():
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


def _plain(cls: type, named: dict[str, tuple[Any, type]]) -> Iterator[Part]:
    """What can be known of a class that says nothing: its annotations, slots, and what `__init__` keeps of its own."""
    found = {name: each for name, each in named.items() if not _is_class_variable(each[0])}
    init: Any = getattr(cls, "__init__", None)
    if isinstance(init, types.FunctionType):
        kept = set(init.__code__.co_names)
        for name in init.__code__.co_varnames[1 : init.__code__.co_argcount + init.__code__.co_kwonlyargcount]:
            if name in kept and name not in found:
                found[name] = (own_annotations(init).get(name, UNKNOWN), cls)
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                found.setdefault(name, (UNKNOWN, cls))
    for name, (annotation, owner) in found.items():
        yield Part(name, annotation, owner)


def _is_class_variable(annotation: Any) -> bool:
    return "ClassVar" in (annotation if isinstance(annotation, str) else repr(annotation))


def generic_origin(cls: Any) -> tuple[type, tuple[Any, ...]]:
    """The class that a parametrized pydantic model was made from, and the arguments; else the class and nothing."""
    made = cls.__dict__.get("__pydantic_generic_metadata__") if isinstance(cls, type) else None
    if isinstance(made, dict) and made.get("origin") is not None:
        return made["origin"], tuple(made["args"])
    return cls, ()


def owner_of(function: Any) -> type | None:
    """The class in whose body a function stands, if it can be reached from its module by name."""
    path = getattr(function, "__qualname__", "").split(".")[:-1]
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    if not path or found is None or "<locals>" in path:
        return None
    for name in path:
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) else None
