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
are set.) Builders that run for each instance are generated once per class, as dataclasses generates `__init__`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import sys
from typing import TYPE_CHECKING, Any

import msgpack

from memover.codec import format as f
from memover.codec.builtin_bases import base_of, slots_of
from memover.codec.format import Mark, Refused, extension
from memover.codec.registry import class_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

    from memover.codec.registry import Registration

__all__ = ["Plan", "plan_for"]


class Plan:
    """How one class is written and rebuilt.

    `write(value, writer)` returns the array for one instance; `marks` maps each definition's data to the mark
    that rebuilds; `labels` says how a path names the places of that array, from its second on.
    """

    __slots__ = ("labels", "marks", "write")

    def __init__(
        self,
        write: Callable[[Any, Any], list[Any]],
        marks: dict[bytes, Mark],
        labels: Callable[[int], str] | None = None,
    ) -> None:
        self.write = write
        self.marks = marks
        self.labels = labels


def _definition(kind: str, cls: type, names: tuple[str, ...] = ()) -> ExtType:
    return extension(f.DEFINITION, msgpack.packb([kind, class_name(cls), list(names)], unicode_errors="surrogatepass"))


def plan_for(cls: type, registration: Registration | None) -> Plan | None:
    """Return the plan of a known class, or None when nothing here can keep its instances."""
    if registration is not None and registration.encode is not None:
        return _registered(cls, registration)
    if isinstance(cls, enum.EnumMeta):
        return _enum(cls)
    if issubclass(cls, BaseException):
        return _exception(cls)
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return _namedtuple(cls)
    if "pydantic" in sys.modules and hasattr(cls, "__pydantic_fields__") and not dataclasses.is_dataclass(cls):
        return _pydantic(cls)
    if hasattr(cls, "__struct_fields__"):
        return _struct(cls)
    attrs_fields = getattr(cls, "__attrs_attrs__", None)
    if attrs_fields is not None:
        return _fields(cls, tuple(each.name for each in attrs_fields))
    if dataclasses.is_dataclass(cls):
        return _fields(cls, tuple(each.name for each in dataclasses.fields(cls)))
    return _subclass(cls)


def _attribute_label(names: tuple[str, ...], skip: int = 1) -> Callable[[int], str]:
    return lambda place: f".{names[place - skip]}" if skip <= place < skip + len(names) else ""


# Dataclasses and attrs


def _fields(cls: type, names: tuple[str, ...]) -> Plan | None:
    if base_of(cls) is not object:
        return None
    if "__dataclass_fields__" in cls.__dict__ or "__attrs_attrs__" in cls.__dict__:
        pass  # its own fields; a plain class below a dataclass is kept as well: its fields are the inherited ones
    slots = slots_of(cls)
    has_dict = _has_dict(cls)
    closed, opened = _definition("fields", cls, names), _definition("open", cls, names)
    scope: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "closed": closed,
        "key": closed.data,
        "count": len(names),
        "as_open": functools.partial(_write_open, cls, opened, slots, has_dict),
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
    exec(compile(source, f"<memover codec of {class_name(cls)}>", "exec"), scope)
    marks = {
        closed.data: Mark(scope["build"]),
        opened.data: Mark(functools.partial(_build_open, cls, slots, has_dict)),
    }
    if not put and names:
        del marks[closed.data]
    return Plan(scope["write"], marks, _attribute_label(names))


def _has_dict(cls: type) -> bool:
    return any("__dict__" in base.__dict__ for base in cls.__mro__ if base is not object)


def _plainly_settable(cls: type, names: tuple[str, ...]) -> bool:
    if cls.__setattr__ is not object.__setattr__:
        return False
    for name in names:
        if not name.isidentifier() or hasattr(getattr(cls, name, None), "__set__"):
            return False
        for base in cls.__mro__:
            if hasattr(type(base.__dict__.get(name)), "__set__"):
                return False
    return True


def state_of(value: Any, slots: dict[str, Any], has_dict: bool) -> dict[str, Any]:
    """Return the attributes of an instance, slots included, without what only typing put there."""
    state = dict(value.__dict__) if has_dict else {}
    # Left by calling an alias, as in Box[int](1); it says nothing of the value and equals nothing in it.
    state.pop("__orig_class__", None)
    for name, slot in slots.items():
        try:
            state[name] = slot.__get__(value)
        except AttributeError:
            continue
    return state


def set_state(value: Any, state: Any, slots: dict[str, Any], has_dict: bool) -> None:
    """Set the attributes of a bare instance without asking its class."""
    if type(state) is not dict:
        raise ValueError("no map of attributes where one belongs")
    for name, each in state.items():
        slot = slots.get(name)
        if slot is not None:
            slot.__set__(value, each)
        elif has_dict and type(name) is str:
            value.__dict__[name] = each
        else:
            raise ValueError("an attribute that the class has no room for")


def _write_open(
    cls: type, opened: ExtType, slots: dict[str, Any], has_dict: bool, value: Any, writer: Any
) -> list[Any]:
    return [writer.references.get(opened.data) or writer.define(opened), state_of(value, slots, has_dict)]


def _build_open(cls: type, slots: dict[str, Any], has_dict: bool, items: list[Any]) -> Any:
    _, state = items
    value = object.__new__(cls)
    set_state(value, state, slots, has_dict)
    return value


# msgspec and pydantic


def _struct(cls: Any) -> Plan:
    names: tuple[str, ...] = cls.__struct_fields__
    definition = _definition("struct", cls, names)
    get = operator.attrgetter(*names) if len(names) > 1 else None
    again = hasattr(cls, "__post_init__")

    def write(value: Any, writer: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise Refused("a Struct with attributes beside its fields", "declare them as fields")
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, *get(value)] if get is not None else [head, *(getattr(value, name) for name in names)]

    def build(items: list[Any]) -> Any:
        if len(items) != len(names) + 1:
            raise ValueError("another number of fields")
        value = cls(**dict(zip(names, items[1:])))
        if again:
            for name, each in zip(names, items[1:]):
                getattr(cls, name).__set__(value, each)
        return value

    return Plan(write, {definition.data: Mark(build)}, _attribute_label(names))


def _pydantic(cls: Any) -> Plan:
    names = tuple(cls.__pydantic_fields__)
    closed, opened = _definition("model", cls, names), _definition("modelstate", cls, names)
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

    labels = _attribute_label(("__pydantic_fields_set__", "", "", *names))
    return Plan(write, {closed.data: Mark(build), opened.data: Mark(build_open)}, labels)


# Named tuples, enums, exceptions, registered classes


def _namedtuple(cls: Any) -> Plan | None:
    if base_of(cls) is not tuple:
        return None
    names: tuple[str, ...] = cls._fields
    definition = _definition("namedtuple", cls, names)
    count = len(names)

    def write(value: Any, writer: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise Refused("a named tuple with attributes beside its fields", "make it a dataclass")
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, *tuple.__iter__(value)]

    def build(items: list[Any]) -> Any:
        if len(items) != count + 1:
            raise ValueError("another number of fields")
        return tuple.__new__(cls, items[1:])

    return Plan(write, {definition.data: Mark(build)}, _attribute_label(names))


def _enum(cls: Any) -> Plan:
    definition = _definition("enum", cls)
    members: dict[str, Any] = cls._member_map_

    def write(value: Any, writer: Any) -> list[Any]:
        name = value._name_
        if type(name) is not str or members.get(name) is not value:
            if not isinstance(value, enum.Flag) or cls(value._value_) is not value:
                raise Refused("an enum member that its class does not give back", "return one of its members")
            name = value._value_
        return [writer.references.get(definition.data) or writer.define(definition), name]

    def build(items: list[Any]) -> Any:
        _, name = items
        if type(name) is str:
            return members[name]
        if not issubclass(cls, enum.Flag) or type(name) is not int:
            raise ValueError("no member of the enum")
        value = cls(name)
        if type(value) is not cls:
            raise ValueError("no member of the enum")
        return value

    return Plan(write, {definition.data: Mark(build)})


# Attributes that builtin exceptions keep outside their `__dict__` and that are data (not frames or objects).
_NATIVE = ("name", "path", "name_from")


def _exception(cls: Any) -> Plan | None:
    native: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    if getattr(native, "__init__", None) is object.__init__:
        return None
    slots = slots_of(cls)
    definition = _definition("exception", cls)
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

    return Plan(write, {definition.data: Mark(build)}, lambda place: (".args", "")[place - 1] if place < 3 else "")


def _registered(cls: type, registration: Registration) -> Plan:
    definition = _definition("registered", cls)
    encode, decode = registration.encode, registration.decode
    assert encode is not None and decode is not None

    def write(value: Any, writer: Any) -> list[Any]:
        try:
            content = encode(value)
        except Exception as error:
            raise Refused(
                f"a {cls.__qualname__} whose registered encode raised {error!r}", "correct the function"
            ) from error
        if type(content) is cls:
            raise Refused(
                f"a {cls.__qualname__} whose registered encode returned a {cls.__qualname__}",
                "let it return builtins, or other classes that memover knows",
            )
        return [writer.references.get(definition.data) or writer.define(definition), content]

    def build(items: list[Any]) -> Any:
        _, content = items
        value = decode(content)
        if type(value) is not cls:
            raise ValueError("the registered decode returned another class")
        return value

    return Plan(write, {definition.data: Mark(build)}, lambda place: "")


# Subclasses of builtins


def _subclass(cls: Any) -> Plan | None:
    from memover.codec.builtin_bases import CONTENT

    base = base_of(cls)
    way = None if base is None or base is object else CONTENT.get(base)
    if way is None:
        return None
    take, make = way
    slots, has_dict = slots_of(cls), _has_dict(cls)
    definition = _definition("subclass", cls)

    def write(value: Any, writer: Any) -> list[Any]:
        head = writer.references.get(definition.data) or writer.define(definition)
        return [head, take(value), state_of(value, slots, has_dict) or None]

    def build(items: list[Any]) -> Any:
        _, content, state = items
        value = make(cls, content)
        if state is not None:
            set_state(value, state, slots, has_dict)
        return value

    return Plan(write, {definition.data: Mark(build)}, lambda place: "")
