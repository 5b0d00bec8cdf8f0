"""pydantic models and msgspec Structs: classes that keep more, or let less be set, than their attributes."""

from __future__ import annotations

import operator
from typing import Any

from memover.codec.format import Mark, Refused
from memover.codec.plans import Plan, attribute_label, new_definition

__all__ = ["model_plan", "struct_plan"]


def struct_plan(cls: Any) -> Plan:
    names: tuple[str, ...] = cls.__struct_fields__
    definition = new_definition("struct", cls, names)
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

    return Plan(write, {definition.data: Mark(build)}, attribute_label(names))


def model_plan(cls: Any) -> Plan:
    names = tuple(cls.__pydantic_fields__)
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
    return Plan(write, {closed.data: Mark(build), opened.data: Mark(build_open)}, labels)
