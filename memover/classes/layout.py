"""Where the memory of an instance lies: the builtin that its class is laid out on, its slots, its dict.

What a builtin holds is taken with the builtin's own methods, never the subclass's, so that an overridden `__iter__`
or `__getitem__` does not decide what an instance is made of.
"""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from typing import Any

__all__ = ["BUILTINS", "HEAP_TYPE", "base_of", "keeps_dict", "slots_of"]

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement, or by a C module at run time

BUILTINS: tuple[type, ...] = (
    dict, defaultdict, OrderedDict, list, tuple, set, frozenset, deque, str, bytes, bytearray, int, float, complex,
)  # fmt: skip
"""The builtins, and containers like them, whose content is known."""


def base_of(cls: type) -> type | None:
    """The builtin whose layout the class extends (`object` for most classes), or None for a foreign one in C."""
    base: type | None = cls
    while base is not None:
        if base is object or base in BUILTINS:
            return base
        if not base.__flags__ & HEAP_TYPE:
            return None
        base = base.__base__
    return None


def slots_of(cls: type) -> dict[str, Any]:
    """The descriptors of all slots by attribute name, those of bases included."""
    slots: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # A builtin's own members are its content, and some builtins are heap types in newer versions.
        if base in BUILTINS or not base.__flags__ & HEAP_TYPE:
            continue
        for name, each in base.__dict__.items():
            if type(each) is types.MemberDescriptorType and name not in ("__dict__", "__weakref__"):
                slots[each.__name__] = each
    return slots


def keeps_dict(cls: type) -> bool:
    """Whether instances have a `__dict__`."""
    return any("__dict__" in base.__dict__ for base in cls.__mro__ if base is not object)
