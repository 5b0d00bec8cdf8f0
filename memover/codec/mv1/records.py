"""Instances of the program's own classes: a definition once per payload, then the state of each, set without `__init__`.

A definition's data is msgpack `[kind, "module:qualname", field names]`; a reader accepts it only if it is, byte for
byte, what it would write itself for the class it knows under that name, so that a class whose fields changed is a
clean miss. What follows the definition (or a reference to it) in its array, by kind:

    fields      the values of all fields (dataclass, attrs), in order
    open        one map of attributes: an instance with others than its fields, or without some of them
    struct      the values of all fields (msgspec)
    model       fields set (an array, or nil for all) · extra (a map or nil) · private (a map or nil) · values (pydantic)
    modelstate  as model, with one map instead of the values
    namedtuple  items
    enum        the member's name, or the value of a combined flag
    exception   args (an array) · attributes (a map or nil)
    subclass    content of the builtin base (dicts: a map; ordered ones: an array of keys and values in turn;
                defaultdict and deque: [factory or maxlen, content]; other collections: an array; else the
                scalar) · attributes (a map or nil)
    registered  what the registered `encode` returned

`__init__` and `__post_init__` do not run again on the way back: they ran when the value was made, and what they did
is in the state. (msgspec has no constructor that skips `__post_init__`; there it runs, and then the stored fields
are set.) Those of dataclasses and attrs classes are generated once per class, as dataclasses generates `__init__`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import ClassKind, field_names, kind_of
from memover.classes.layout import base_of, keeps_dict, slots_of
from memover.codec.faults import from_outside
from memover.codec.mv1.containers import CONTENT
from memover.codec.mv1.fields import fields_serializer, model_serializer, struct_serializer
from memover.codec.mv1.format import Mark, Unencodable
from memover.codec.mv1.serializer import Serializer, attribute_label, new_definition, set_state, state_of

if TYPE_CHECKING:
    from memover.classes.registered import Registration

__all__ = ["serializer_for"]

FLAG_LIMIT_BITS = 64
"""A combined flag of more bits is refused: making one takes time that grows with the square of its length."""


def serializer_for(cls: type, registration: Registration | None) -> Serializer | None:
    """The serializer of a known class; None when nothing here can keep its instances."""
    if registration is not None and registration.encode is not None:
        return _registered(cls, registration)
    kind = kind_of(cls)
    if kind is ClassKind.ATTRS or kind is ClassKind.DATACLASS:
        return fields_serializer(cls, field_names(cls, kind))
    serializer = _SERIALIZERS.get(kind)
    return None if serializer is None else serializer(cls)


# Named tuples, enums, exceptions, registered classes


def _namedtuple(cls: Any) -> Serializer | None:
    if base_of(cls) is not tuple:
        return None
    names = field_names(cls, ClassKind.NAMEDTUPLE)
    definition = new_definition("namedtuple", cls, names)
    count = len(names)

    def write(value: Any, writer: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise Unencodable("a named tuple with attributes beside its fields", "make it a dataclass")
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, *tuple.__iter__(value)]

    def build(items: list[Any]) -> Any:
        if len(items) != count + 1:
            raise ValueError("another number of fields")
        return tuple.__new__(cls, items[1:])

    return Serializer(write, {definition.data: Mark(build)}, attribute_label(names))


def _enum(cls: Any) -> Serializer:
    definition = new_definition("enum", cls)
    members: dict[str, Any] = cls._member_map_

    def write(value: Any, writer: Any) -> list[Any]:
        name = value._name_
        if type(name) is not str or members.get(name) is not value:
            if not isinstance(value, enum.Flag) or _wide(value._value_) or cls(value._value_) is not value:
                raise Unencodable("an enum member that its class does not give back", "return one of its members")
            name = value._value_
        return [writer.references.get(definition.data) or writer.define(definition), name]

    def build(items: list[Any]) -> Any:
        _, name = items
        if type(name) is str:
            return members[name]
        if not issubclass(cls, enum.Flag) or type(name) is not int or _wide(name):
            raise ValueError("no member of the enum")
        value = cls(name)
        if type(value) is not cls:
            raise ValueError("no member of the enum")
        return value

    return Serializer(write, {definition.data: Mark(build)})


def _wide(value: Any) -> bool:
    return type(value) is int and value.bit_length() > FLAG_LIMIT_BITS


# Attributes that builtin exceptions keep outside their `__dict__` and that are data (not frames or objects).
_NATIVE = ("name", "path", "name_from")


def _exception(cls: Any) -> Serializer | None:
    native: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    if getattr(native, "__init__", None) is object.__init__:
        return None
    slots = slots_of(cls)
    definition = new_definition("exception", cls)
    own = tuple(name for name in _NATIVE if hasattr(getattr(native, name, None), "__set__"))

    def write(value: Any, writer: Any) -> list[Any]:
        # What the builtin base itself says of its arguments: OSError keeps the file name apart from `args`.
        arguments = list(native.__reduce__(value)[1])
        state = state_of(value, slots, True)
        for name in own:
            if getattr(value, name) is not None:
                state[name] = getattr(value, name)
        return [writer.references.get(definition.data) or writer.define(definition), arguments, state or None]

    def build(items: list[Any]) -> Any:
        _, arguments, state = items
        if type(arguments) is not list:
            raise ValueError("no array of arguments")
        value = native.__new__(cls, *arguments)
        if type(value) is not cls:
            raise ValueError("another class than was written")
        native.__init__(value, *arguments)
        if state is not None:
            natives = {name: state.pop(name) for name in own if name in state}
            set_state(value, state, slots, True)
            for name, each in natives.items():
                getattr(native, name).__set__(value, each)
        return value

    return Serializer(
        write, {definition.data: Mark(build)}, lambda place: (".args", "")[place - 1] if place < 3 else ""
    )


def _registered(cls: type, registration: Registration) -> Serializer:
    definition = new_definition("registered", cls)
    encode, decode = registration.encode, registration.decode
    assert encode is not None and decode is not None

    def write(value: Any, writer: Any) -> list[Any]:
        try:
            content = encode(value)
        except Exception as error:
            if from_outside(error):
                raise
            raise Unencodable(
                f"a {cls.__qualname__} whose registered encode raised {error!r}", "correct the function"
            ) from error
        if type(content) is cls:
            raise Unencodable(
                f"a {cls.__qualname__} whose registered encode returned a {cls.__qualname__}",
                "let it return builtins, or other classes that memover knows",
            )
        return [writer.references.get(definition.data) or writer.define(definition), content]

    def build(items: list[Any]) -> Any:
        _, content = items
        try:
            value = decode(content)
        except Exception as error:
            if from_outside(error):
                raise
            raise ValueError(f"the registered decode of {cls.__qualname__} raised {error!r}") from error
        if not (isinstance(value, cls) if registration.subclasses else type(value) is cls):
            raise ValueError("the registered decode returned another class")
        return value

    return Serializer(write, {definition.data: Mark(build)}, lambda place: "")


# Subclasses of builtins


def _subclass(cls: Any) -> Serializer | None:
    base = base_of(cls)
    way = None if base is None or base is object else CONTENT.get(base)
    if way is None:
        return None
    take, make = way
    slots, has_dict = slots_of(cls), keeps_dict(cls)
    definition = new_definition("subclass", cls)

    def write(value: Any, writer: Any) -> list[Any]:
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, take(value), state_of(value, slots, has_dict) or None]

    def build(items: list[Any]) -> Any:
        _, content, state = items
        value = make(cls, content)
        if state is not None:
            set_state(value, state, slots, has_dict)
        return value

    return Serializer(write, {definition.data: Mark(build)}, lambda place: "")


_SERIALIZERS = {
    ClassKind.ENUM: _enum,
    ClassKind.EXCEPTION: _exception,
    ClassKind.NAMEDTUPLE: _namedtuple,
    ClassKind.MODEL: model_serializer,
    ClassKind.STRUCT: struct_serializer,
    ClassKind.BUILTIN: _subclass,
}
