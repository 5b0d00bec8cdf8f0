"""Where the memory of an instance lies: the builtin its class is laid out on, its slots, and its content.

Content is taken and put with the builtin's own methods, never the subclass's: an overridden `__iter__` or
`__setitem__` must not decide what is stored.
"""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any

from memover.codec.containers import factory_name, factory_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTENT", "base_of", "slots_of"]

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement, or by a C module at run time


def base_of(cls: type) -> type | None:
    """Return the builtin whose layout the class extends (`object` for most), or None for a foreign one in C."""
    base: type | None = cls
    while base is not None:
        if base is object or base in CONTENT:
            return base
        if not base.__flags__ & HEAP_TYPE:
            return None
        base = base.__base__
    return None


def slots_of(cls: type) -> dict[str, Any]:
    """Return the descriptors of all slots by attribute name, those of bases included."""
    slots: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # A builtin's own members are its content, and some builtins are heap types in newer versions.
        if base in CONTENT or not base.__flags__ & HEAP_TYPE:
            continue
        for name, each in base.__dict__.items():
            if type(each) is types.MemberDescriptorType and name not in ("__dict__", "__weakref__"):
                slots[each.__name__] = each
    return slots


def _pairs(value: Any) -> list[Any]:
    return [each for pair in OrderedDict.items(value) for each in pair]


def _map(content: Any) -> Any:
    if type(content) is not dict:
        raise ValueError("no map where one belongs")
    return content


def _array(content: Any) -> Any:
    if type(content) is not list:
        raise ValueError("no array where one belongs")
    return content


def _make_dict(cls: Any, content: Any) -> Any:
    value = dict.__new__(cls)
    dict.update(value, _map(content))
    return value


def _make_defaultdict(cls: Any, content: Any) -> Any:
    factory, items = _array(content)
    value = defaultdict.__new__(cls)
    defaultdict.__init__(value, factory_of(factory))
    dict.update(value, _map(items))
    return value


def _make_ordereddict(cls: Any, content: Any) -> Any:
    value = OrderedDict.__new__(cls)
    if len(_array(content)) % 2:
        raise ValueError("a key without a value")
    for key, each in zip(content[::2], content[1::2]):
        OrderedDict.__setitem__(value, key, each)
    return value


def _make_deque(cls: Any, content: Any) -> Any:
    limit, items = _array(content)
    value = deque.__new__(cls)
    deque.__init__(value, _array(items), limit)
    return value


def _make_list(cls: Any, content: Any) -> Any:
    value = list.__new__(cls)
    list.extend(value, _array(content))
    return value


def _make_set(cls: Any, content: Any) -> Any:
    value = set.__new__(cls)
    set.update(value, _array(content))
    return value


def _make_bytearray(cls: Any, content: Any) -> Any:
    value = bytearray.__new__(cls)
    bytearray.__init__(value, _scalar(content, bytes))
    return value


def _scalar(content: Any, kind: type) -> Any:
    if type(content) is not kind:
        raise ValueError("content of another kind than the base")
    return content


# Builtin -> (value -> its content as plain builtins, (class, content) -> a bare instance with that content)
CONTENT: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    dict: (lambda value: dict(dict.items(value)), _make_dict),
    defaultdict: (
        lambda value: [factory_name(value.default_factory), dict(dict.items(value))],
        _make_defaultdict,
    ),
    OrderedDict: (_pairs, _make_ordereddict),
    list: (lambda value: list(list.__iter__(value)), _make_list),
    tuple: (
        lambda value: list(tuple.__iter__(value)),
        lambda cls, content: tuple.__new__(cls, _array(content)),
    ),
    set: (lambda value: list(set.__iter__(value)), _make_set),
    frozenset: (
        lambda value: list(frozenset.__iter__(value)),
        lambda cls, content: frozenset.__new__(cls, _array(content)),
    ),
    deque: (lambda value: [value.maxlen, list(deque.__iter__(value))], _make_deque),
    str: (str.__str__, lambda cls, content: str.__new__(cls, _scalar(content, str))),
    bytes: (
        lambda value: bytes.__getitem__(value, slice(None)),
        lambda cls, content: bytes.__new__(cls, _scalar(content, bytes)),
    ),
    bytearray: (lambda value: bytes(bytearray.__getitem__(value, slice(None))), _make_bytearray),
    int: (int.__pos__, lambda cls, content: int.__new__(cls, _scalar(content, int))),
    float: (float.__pos__, lambda cls, content: float.__new__(cls, _scalar(content, float))),
    complex: (complex.__pos__, lambda cls, content: complex.__new__(cls, _scalar(content, complex))),
}
