"""From an annotation to a shape: what each spelling of a type comes to.

Two spellings of one meaning come to one text: `Optional[X]` and `X | None`, `List` and `list`, an alias and its value, a
NewType and its supertype, with or without Annotated; the members of a union and of a Literal are sorted. Classes of the
standard library and of array libraries are names without parts: what is in them is theirs to keep. How the fields of
each kind of class are found is in `classes.fields`.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import TYPE_CHECKING, Any

from memover.classes import fields
from memover.classes.annotations import UNREADABLE, Scope, Unresolved, nested_names, resolve
from memover.classes.kinds import ClassKind, foreign, foreign_base, is_django, is_queryset, kind_of
from memover.classes.registered import registered
from memover.schema.shape import (
    ORDERED,
    UNNAMED,
    Shape,
    ShapeDefinition,
    ShapeField,
    numbered,
    split,
    with_final_names,
    without_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["AnnotationReader", "word_of"]

_DEFINITIONS_LIMIT = 2000
"""A generic class that contains itself with ever longer arguments would have no end."""

_TRANSPARENT = ("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly", "Unpack")
_MAPPED = ("Mapped", "DynamicMapped", "WriteOnlyMapped")
_BARE: dict[Any, str] = {
    list: "list[Any]",
    set: "set[Any]",
    frozenset: "frozenset[Any]",
    dict: "dict[Any, Any]",
    tuple: "tuple[Any, ...]",
}
_MISSING = object()


class AnnotationReader:
    """Makes one shape; the classes it meets become definitions, each once."""

    def __init__(self) -> None:
        self._definitions: dict[str, ShapeDefinition] = {}
        self._names: dict[tuple[Any, tuple[str, ...]], str] = {}
        self._signatures: dict[str, str] = {}
        self._aliases: dict[tuple[int, tuple[str, ...]], str] = {}
        self._recursive: set[str] = set()
        self._counter = 0
        self.seen: dict[str, Any] = {}

    def shape(self, annotation: Any, scope: Scope) -> Shape:
        """The shape whose root this annotation is. Raises `RecursionError`."""
        return with_final_names(self.text(annotation, scope), self._definitions)

    def classes(self) -> tuple[type, ...]:
        """The classes met so far, in the order of meeting."""
        return tuple(dict.fromkeys(kind for kind, _ in self._names))

    # -- expressions ------------------------------------------------------------------------------------------------

    def text(self, annotation: Any, scope: Scope) -> str:
        """The text of one annotation; what it names is defined on the way."""
        annotation, scope = resolve(annotation, scope)
        if isinstance(annotation, str):
            return f"?{annotation}"
        if isinstance(annotation, Unresolved):
            return f"?{annotation.name}"
        if annotation is None or annotation is type(None):
            return "None"
        if annotation is Any:
            return "Any"
        if isinstance(annotation, typing.TypeVar):
            return self._type_variable(annotation, scope)
        if getattr(annotation, "__supertype__", None) is not None:
            return self.text(annotation.__supertype__, scope)
        if type(annotation).__name__ == "InitVar":
            return self.text(annotation.type, scope)
        if _is_named(annotation, "Self"):
            return "?Self" if scope.self_type is None else scope.self_type()
        if _is_named(annotation, "LiteralString"):
            return "str"
        if _is_named(annotation, "Never") or _is_named(annotation, "NoReturn"):
            return "Never"
        if type(annotation).__name__ == "TypeAliasType" and typing.get_origin(annotation) is None:
            return self._alias(annotation, (), scope)
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(annotation, origin, typing.get_args(annotation), scope)
        if isinstance(annotation, type):
            return _BARE.get(annotation) or self.class_text(annotation, ())
        name = getattr(annotation, "_name", None) or getattr(annotation, "__name__", None) or type(annotation).__name__
        return f"?{name}"

    def _type_variable(self, variable: Any, scope: Scope) -> str:
        bound = scope.bindings.get(variable)
        if bound is not None:
            return bound
        if getattr(variable, "__constraints__", ()):
            return self._union([self.text(each, scope) for each in variable.__constraints__])
        inner = getattr(variable, "__bound__", None)
        return "Any" if inner is None else self.text(inner, scope)

    def _generic(self, annotation: Any, origin: Any, args: tuple[Any, ...], scope: Scope) -> str:
        name = getattr(origin, "__name__", None) or getattr(origin, "_name", None) or str(origin)
        mapped = name in _MAPPED and origin.__module__.partition(".")[0] == "sqlalchemy"
        if getattr(annotation, "__metadata__", None) is not None or name in _TRANSPARENT or mapped:
            return self.text(args[0], scope)
        if origin is typing.Union or origin is types.UnionType:
            return self._union([self.text(each, scope) for each in args])
        if name == "Literal":
            return self._union([self._literal(each) for each in args])
        if type(origin).__name__ == "TypeAliasType":
            return self._alias(origin, tuple(self.text(each, scope) for each in args), scope)
        if name in ("Callable", "type"):
            return name
        if origin is tuple:
            if not args or args == ((),):
                return "tuple[()]"
            return f"tuple[{', '.join('...' if each is ... else self.text(each, scope) for each in args)}]"
        if name == "ndarray" and len(args) == 2:
            # Its first argument was Any, then a tuple of Any, and says nothing that is stored otherwise.
            return f"ndarray[{self.text(args[1], scope)}]"
        if name == "dtype" and args:
            return self.text(args[0], scope)
        texts = tuple("[...]" if isinstance(each, list) else self.text(each, scope) for each in args if each is not ...)
        if isinstance(origin, type) and word_of(origin) != "known":
            return self.class_text(origin, texts)
        return f"{name}[{', '.join(texts)}]"

    def _literal(self, value: Any) -> str:
        if value is None:
            return "None"
        if isinstance(value, enum.Enum):
            return f"Literal[{self.class_text(type(value), ())}.{value.name}]"
        return f"Literal[{value!r}]"

    def _union(self, members: Iterable[str]) -> str:
        """Members flattened, each once, in an order of their own: literals as one, None last."""
        flat: dict[str, None] = {}
        literals: dict[str, None] = {}
        for member in members:
            for each in split(member):
                if each.startswith("Literal[") and each.endswith("]"):
                    literals.update(dict.fromkeys(split(each[8:-1], ", ")))
                else:
                    flat[each] = None
        none = flat.pop("None", _MISSING) is None
        if literals:
            flat[f"Literal[{', '.join(sorted(literals))}]"] = None
        ordered = sorted(flat, key=lambda text: (self._unnamed(text), text))
        return " | ".join([*ordered, *(["None"] if none else [])])

    def _unnamed(self, text: str) -> str:
        # What an order may depend on: a typed dict's name may change without changing the shape, and so the order.
        for name, signature in self._signatures.items():
            text = text.replace(name, signature)
        return without_numbers(text)

    def _alias(self, alias: Any, args: tuple[str, ...], scope: Scope) -> str:
        key = (id(alias), args)
        under_way = self._aliases.get(key)
        if under_way is not None:
            self._recursive.add(under_way)
            return under_way
        name = self._new_name(alias.__name__, args, "alias", ())
        self._aliases[key] = name
        try:
            bindings = {**scope.bindings, **dict(zip(getattr(alias, "__type_params__", ()), args))}
            module = getattr(alias, "__module__", None) or scope.module
            try:
                value = alias.__value__
            except UNREADABLE:
                return f"?{alias.__name__}"
            text = self.text(value, dataclasses.replace(scope, module=module, bindings=bindings))
        finally:
            del self._aliases[key]
        if name not in self._recursive:
            return text
        # It stays where it contains itself: from outside and from inside it is the same name.
        self._definitions[name] = ShapeDefinition("alias", name, (ShapeField("", text),))
        return name

    # -- classes --------------------------------------------------------------------------------------------------------

    def class_text(self, kind: type, args: tuple[str, ...]) -> str:
        """The name of a class, its parts defined."""
        if kind in _BARE and not args:
            return _BARE[kind]
        origin, generic_args = fields.generic_origin(kind)
        if generic_args:
            args = tuple(self.text(each, Scope(kind.__module__)) for each in generic_args)
            shown = origin
        else:
            shown = kind
        if is_queryset(kind):
            # Subscripted, it is itself: of its rows nothing is left when the program runs.
            return f"{shown.__name__}[{', '.join(args) or '?'}]"
        what = word_of(kind)
        if what == "known":
            return shown.__name__ + (f"[{', '.join(args)}]" if args else "")
        name = self._names.get((kind, args))
        if name is not None:
            return name
        if len(self._names) >= _DEFINITIONS_LIMIT:
            return f"?{shown.__name__}"
        parts = _parts(kind, what)
        own = shown.__qualname__.rpartition("<locals>.")[2]
        name = self._new_name(own, args, what, [part.name for part in parts])
        self._names[kind, args] = name
        self.seen.setdefault(kind.__name__, kind)
        bindings = self._bindings(kind, args)
        found = [self._field(part, name, bindings) for part in parts]
        if what not in ORDERED:
            found.sort(key=lambda field: field.name)
        self._definitions[name] = ShapeDefinition(what, name, tuple(found))
        return name

    def _field(self, part: fields.Part, name: str, bindings: Mapping[type, Mapping[Any, str]]) -> ShapeField:
        if part.literal is not None:
            return ShapeField(part.name, part.literal)
        if part.annotation is fields.UNKNOWN:
            return ShapeField(part.name, "?", part.optional)
        scope = Scope(
            part.owner.__module__,
            {**nested_names(part.owner), part.owner.__name__: part.owner},
            bindings.get(part.owner, {}),
            lambda: name,
            self.seen,
        )
        (annotation, scope), optional = resolve(part.annotation, scope), part.optional
        for _ in range(4):  # Required[ReadOnly[Annotated[...]]], in any order
            origin = getattr(typing.get_origin(annotation), "_name", None)
            if origin in ("Required", "NotRequired"):
                optional = origin == "NotRequired"
            elif origin != "ReadOnly":
                break
            annotation = typing.get_args(annotation)[0]
        return ShapeField(part.name, self.text(annotation, scope), optional)

    def _bindings(self, kind: type, args: tuple[str, ...]) -> dict[type, Mapping[Any, str]]:
        """What the type variables of a class and of its bases stand for, for each base."""
        found: dict[type, Mapping[Any, str]] = {}
        pending = [(kind, dict(zip(getattr(kind, "__parameters__", ()), args)))]
        while pending:
            cls, bound = pending.pop()
            if cls in found:
                continue
            found[cls] = bound
            for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
                origin = typing.get_origin(base) or base
                if not isinstance(origin, type) or origin is typing.Generic:
                    continue
                scope = Scope(cls.__module__, bindings=bound, fallback=self.seen)
                texts = [self.text(each, scope) for each in typing.get_args(base)]
                pending.append((origin, dict(zip(getattr(origin, "__parameters__", ()), texts))))
        return found

    def _new_name(self, name: str, args: tuple[str, ...], kind: str, parts: Iterable[str]) -> str:
        # Numbered until all are known: two classes may have one name.
        shown = numbered(name, self._counter) + (f"[{', '.join(args)}]" if args else "")
        self._counter += 1
        if kind in UNNAMED:
            self._signatures[shown] = "{" + ",".join(sorted(parts)) + "}"
        return shown


_WORDS = {
    ClassKind.ENUM: "enum",
    ClassKind.EXCEPTION: "subclass",
    ClassKind.NAMEDTUPLE: "namedtuple",
    ClassKind.TYPEDDICT: "typeddict",
    ClassKind.MODEL: "model",
    ClassKind.STRUCT: "struct",
    ClassKind.ATTRS: "class",
    ClassKind.DATACLASS: "class",
}


def word_of(cls: type) -> str:
    """The kind of a definition that a class becomes, or "known" for a name without parts."""
    if foreign(cls):
        return "known"
    if is_django(cls):
        return "model"  # also where memover.django has taught how its instances are stored
    registration = registered(cls)
    if registration is not None and registration.encode is not None:
        return "registered"
    word = _WORDS.get(kind_of(cls))
    if word is not None:
        return word
    return "plain" if foreign_base(cls) is object else "subclass"


def _parts(cls: type, word: str) -> list[fields.Part]:
    if word == "registered":
        return []
    return [fields.base_part(cls)] if word == "subclass" else fields.parts_of(cls, kind_of(cls))


def _is_named(annotation: Any, name: str) -> bool:
    return getattr(annotation, "_name", None) == name and type(annotation).__module__ in ("typing", "typing_extensions")
