"""How one class is written and rebuilt: what all kinds of records have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from memover.classes.naming import class_name
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Mark, extension
from memover.errors import raised_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

__all__ = ["Serializer", "attribute_label", "new_definition", "read_definition", "set_state", "state_of"]


class Serializer(NamedTuple):
    """How one class is written and rebuilt.

    `write(value, writer)` returns the array for one instance; `marks` maps each definition's data to the mark
    that rebuilds; `labels` says how a path names the places of that array, from its second on.
    """

    write: Callable[[Any, Any], list[Any]]
    marks: dict[bytes, Mark]
    labels: Callable[[int], str] | None = None


def new_definition(kind: str, cls: type, names: tuple[str, ...] = ()) -> ExtType:
    """The definition of a class, of one of the kinds in `records`."""
    data: Any = msgpack.packb([kind, class_name(cls), list(names)], unicode_errors="surrogatepass")
    return extension(f.DEFINITION, data)


def read_definition(data: bytes) -> tuple[str, str, list[str]]:
    """The kind, the class's name and the names of the fields in a definition. Raises ValueError, or what msgpack raises."""
    kind, name, names = msgpack.unpackb(data, unicode_errors="surrogatepass")
    if not type(kind) is type(name) is str or type(names) is not list:
        raise ValueError("no definition of a class")
    return kind, name, names


def attribute_label(names: tuple[str, ...]) -> Callable[[int], str]:
    """How a path names the places of an array that holds these attributes in their order."""
    return lambda place: f".{names[place - 1]}" if 1 <= place <= len(names) else ""


def state_of(value: Any, slots: dict[str, Any], has_dict: bool) -> dict[str, Any]:
    """The attributes of an instance, slots included, without what only typing put there."""
    state = dict(value.__dict__) if has_dict else {}
    # Left by calling an alias, as in Box[int](1); it says nothing of the value and equals nothing in it.
    state.pop("__orig_class__", None)
    for name, slot in slots.items():
        try:
            state[name] = slot.__get__(value)
        except AttributeError as error:
            if raised_beneath(error):
                raise
    return state


def set_state(value: Any, state: Any, slots: dict[str, Any], has_dict: bool) -> None:
    """Sets the attributes of a bare instance without asking its class."""
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
