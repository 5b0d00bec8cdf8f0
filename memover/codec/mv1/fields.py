"""Instances with named fields: dataclasses and attrs classes, msgspec Structs, pydantic models.

The serializer of dataclasses and attrs classes, whose builders run most often, is generated once for each class.

The generated functions read and set the instance's dict or slots directly, so that neither a property nor a
`__setattr__` of a frozen or guarded class is asked, and are what makes a list of records cheap.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import ClassKind, field_names
from memover.classes.layout import base_of, keeps_dict, slots_of
from memover.classes.naming import class_name
from memover.codec.faults import from_outside
from memover.codec.mv1.format import Mark, Unencodable
from memover.codec.mv1.serializer import Serializer, attribute_label, new_definition, set_state, state_of

if TYPE_CHECKING:
    from msgpack import ExtType

__all__ = ["fields_serializer", "model_serializer", "struct_serializer"]


def fields_serializer(cls: type, names: tuple[str, ...]) -> Serializer | None:
    """The serializer of a dataclass or attrs class; None for one that is laid out on a builtin."""
    if base_of(cls) is not object:
        return None
    slots = slots_of(cls)
    has_dict = keeps_dict(cls)
    closed, opened = new_definition("fields", cls, names), new_definition("open", cls, names)
    scope: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "closed": closed,
        "key": closed.data,
        "count": len(names),
        "as_open": functools.partial(_write_open, opened, slots, has_dict),
    }
    values = [f"a{index}" for index in range(len(names))]
    if has_dict and not slots:
        take = "".join(f", d[{name!r}]" for name in names)
        read = (
            "    d = value.__dict__\n"
            "    if len(d) != count:\n"
            "        return as_open(value, writer)\n"
            "    try:\n"
            f"        made = [closed{take}]\n"
            "    except KeyError:\n"
            "        return as_open(value, writer)\n"
        )
        if _plainly_settable(cls, names):
            put = "".join(f"    self.{name} = {value}\n" for name, value in zip(names, values))
        else:
            # A frozen class: its instance's dict, so that no `__setattr__` is asked.
            put = "    d = self.__dict__\n" + "".join(
                f"    d[{name!r}] = {value}\n" for name, value in zip(names, values)
            )
    elif not has_dict and set(slots) == set(names):
        take = "".join(f", get{index}(value)" for index in range(len(names)))
        read = (
            "    try:\n"
            f"        made = [closed{take}]\n"
            "    except AttributeError:\n"
            "        return as_open(value, writer)\n"
        )
        for index, name in enumerate(names):
            scope[f"get{index}"], scope[f"put{index}"] = slots[name].__get__, slots[name].__set__
        put = "".join(f"    put{index}(self, {value})\n" for index, value in enumerate(values))
    else:
        read, put = "    return as_open(value, writer)\n", ""
    source = (
        "def write(value, writer):\n"
        f"{read}"
        # Defined only now: a definition that is counted must be written.
        "    head = writer.references.get(key)\n"
        "    if head is None:\n"
        "        writer.define(closed)\n"
        "    else:\n"
        "        made[0] = head\n"
        "    return made\n"
        "def build(items):\n"
        f"    {', '.join(['_', *values])}, = items\n"
        "    self = new(cls)\n"
        f"{put}"
        "    return self\n"
    )
    exec(compile(source, f"<memover codec of {class_name(cls)}>", "exec"), scope)  # noqa: S102 - as dataclasses does
    marks = {closed.data: Mark(scope["build"]), opened.data: Mark(functools.partial(_build_open, cls, slots, has_dict))}
    if not put and names:
        del marks[closed.data]
    return Serializer(scope["write"], marks, attribute_label(names))


def _plainly_settable(cls: Any, names: tuple[str, ...]) -> bool:
    if cls.__setattr__ is not object.__setattr__:
        return False
    for name in names:
        if not name.isidentifier() or hasattr(getattr(cls, name, None), "__set__"):
            return False
        for base in cls.__mro__:
            if hasattr(type(base.__dict__.get(name)), "__set__"):
                return False
    return True


def _write_open(opened: ExtType, slots: dict[str, Any], has_dict: bool, value: Any, writer: Any) -> list[Any]:
    return [writer.references.get(opened.data) or writer.define(opened), state_of(value, slots, has_dict)]


def _build_open(cls: Any, slots: dict[str, Any], has_dict: bool, items: list[Any]) -> Any:
    _, state = items
    value: Any = object.__new__(cls)
    set_state(value, state, slots, has_dict)
    return value


# Structs and models: classes that keep more, or let less be set, than their attributes


def struct_serializer(cls: Any) -> Serializer:
    names = field_names(cls, ClassKind.STRUCT)
    definition = new_definition("struct", cls, names)
    get = operator.attrgetter(*names) if len(names) > 1 else None
    again = hasattr(cls, "__post_init__")

    def write(value: Any, writer: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise Unencodable("a Struct with attributes beside its fields", "declare them as fields")
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, *get(value)] if get is not None else [head, *(getattr(value, name) for name in names)]

    def build(items: list[Any]) -> Any:
        if len(items) != len(names) + 1:
            raise ValueError("another number of fields")
        try:
            value = cls(**dict(zip(names, items[1:])))
        except Exception as error:  # its `__post_init__` is the user's
            if from_outside(error):
                raise
            raise ValueError(f"{cls.__qualname__} refuses what it was stored with: {error!r}") from error
        if again:
            for name, each in zip(names, items[1:]):
                getattr(cls, name).__set__(value, each)
        return value

    return Serializer(write, {definition.data: Mark(build)}, attribute_label(names))


def model_serializer(cls: Any) -> Serializer:
    names = field_names(cls, ClassKind.MODEL)
    closed, opened = new_definition("model", cls, names), new_definition("modelstate", cls, names)
    all_names = frozenset(names)
    root = bool(getattr(cls, "__pydantic_root_model__", False))
    extra_slot, private_slot, set_slot = (
        next(base.__dict__[name] for base in cls.__mro__ if hasattr(base.__dict__.get(name), "__set__"))
        for name in ("__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")
    )

    def write(value: Any, writer: Any) -> list[Any]:
        state = value.__dict__
        given = value.__pydantic_fields_set__
        head = [
            None if given == all_names else sorted(given),
            None if root else value.__pydantic_extra__,
            None if root else value.__pydantic_private__,
        ]
        if tuple(state) == names:
            return [writer.references.get(closed.data) or writer.define(closed), *head, *state.values()]
        return [writer.references.get(opened.data) or writer.define(opened), *head, dict(state)]

    def rebuild(given: Any, extra: Any, private: Any, state: dict[str, Any]) -> Any:
        value = object.__new__(cls)
        object.__setattr__(value, "__dict__", state)
        if given is not None and (type(given) is not list or any(type(each) is not str for each in given)):
            raise ValueError("no array of the fields that were set")
        for each in (extra, private):
            if each is not None and type(each) is not dict:
                raise ValueError("no map of attributes where one belongs")
        set_slot.__set__(value, set(names if given is None else given))
        if not root:
            extra_slot.__set__(value, extra)
            private_slot.__set__(value, private)
        return value

    def build(items: list[Any]) -> Any:
        _, given, extra, private, *values = items
        if len(values) != len(names):
            raise ValueError("another number of fields")
        return rebuild(given, extra, private, dict(zip(names, values)))

    def build_open(items: list[Any]) -> Any:
        _, given, extra, private, state = items
        if type(state) is not dict or any(type(each) is not str for each in state):
            raise ValueError("no map of attributes where one belongs")
        return rebuild(given, extra, private, state)

    labels = attribute_label(("__pydantic_fields_set__", "", "", *names))
    return Serializer(write, {closed.data: Mark(build), opened.data: Mark(build_open)}, labels)
