"""Dataclasses and attrs classes: the plan whose builders run most often, generated once for each class.

The generated functions read and set the instance's dict or slots directly, so that neither a property nor a
`__setattr__` of a frozen or guarded class is asked, and are what makes a list of records cheap.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from memover.codec.builtin_bases import base_of, slots_of
from memover.codec.format import Mark
from memover.codec.plans import Plan, attribute_label, keeps_dict, new_definition, set_state, state_of
from memover.codec.registry import class_name

if TYPE_CHECKING:
    from msgpack import ExtType

__all__ = ["fields_plan"]


def fields_plan(cls: type, names: tuple[str, ...]) -> Plan | None:
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
    exec(compile(source, f"<memover codec of {class_name(cls)}>", "exec"), scope)  # noqa: S102 - as dataclasses does
    marks = {
        closed.data: Mark(scope["build"]),
        opened.data: Mark(functools.partial(_build_open, cls, slots, has_dict)),
    }
    if not put and names:
        del marks[closed.data]
    return Plan(scope["write"], marks, attribute_label(names))


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


def _write_open(
    cls: type, opened: ExtType, slots: dict[str, Any], has_dict: bool, value: Any, writer: Any
) -> list[Any]:
    return [writer.references.get(opened.data) or writer.define(opened), state_of(value, slots, has_dict)]


def _build_open(cls: Any, slots: dict[str, Any], has_dict: bool, items: list[Any]) -> Any:
    _, state = items
    value: Any = object.__new__(cls)
    set_state(value, state, slots, has_dict)
    return value
