"""What "the same value and type, to any depth" means to the tests, written without looking at the codec."""

from __future__ import annotations

import re
import struct
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

__all__ = ["same"]


def same(one: Any, other: Any) -> bool:
    """Say whether two values are alike in type and content to any depth, in order too where order exists."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other) and _attributes(one, other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (str, bytes, bytearray, int)):
        return bool(one == other) and _attributes(one, other)
    if isinstance(one, types.MappingProxyType):
        return same(dict(one), dict(other))
    if isinstance(one, ChainMap):
        return same(one.maps, other.maps)
    if isinstance(one, Mapping) and isinstance(one, dict):
        if isinstance(one, defaultdict) and not _factory(one.default_factory, other.default_factory):
            return False
        pairs, others = list(dict.items(one)), list(dict.items(other))
        if isinstance(one, OrderedDict):
            pairs, others = list(OrderedDict.items(one)), list(OrderedDict.items(other))
        return (
            len(pairs) == len(others)
            and all(same(a, c) and same(b, d) for (a, b), (c, d) in zip(pairs, others))
            and (isinstance(one, Counter) or _attributes(one, other))
        )
    if isinstance(one, (set, frozenset)):
        rest = list(other)
        for each in one:
            match = next((place for place, found in enumerate(rest) if same(each, found)), None)
            if match is None:
                return False
            rest.pop(match)
        return not rest and _attributes(one, other)
    if isinstance(one, (list, tuple, deque)):
        if isinstance(one, deque) and one.maxlen != other.maxlen:
            return False
        return len(one) == len(other) and all(map(same, one, other)) and _attributes(one, other)
    if isinstance(one, BaseException):
        return same(one.args, other.args) and _attributes(one, other) and str(one) == str(other)
    if isinstance(one, re.Pattern):
        return bool(one == other)
    if type(one).__module__.partition(".")[0] == "numpy":
        return _same_numpy(one, other)
    if type(one).__module__.partition(".")[0] in ("pandas", "polars"):
        return bool(one.equals(other))
    if is_dataclass(one) or hasattr(one, "__struct_fields__") or hasattr(one, "__attrs_attrs__"):
        return _attributes(one, other)
    if hasattr(one, "__pydantic_fields_set__"):
        return (
            _attributes(one, other)
            and one.__pydantic_fields_set__ == other.__pydantic_fields_set__
            and same(one.__pydantic_extra__, other.__pydantic_extra__)
            and same(one.__pydantic_private__, other.__pydantic_private__)
        )
    if isinstance(one, slice):
        return same((one.start, one.stop, one.step), (other.start, other.stop, other.step))
    if repr(one) != repr(other) or getattr(one, "fold", 0) != getattr(other, "fold", 0):
        return False
    # Decimal's nans equal nothing, and its signalling ones cannot be compared.
    return type(one).__name__ == "Decimal" or bool(one == other)


def _attributes(one: Any, other: Any) -> bool:
    mine, theirs = _state(one), _state(other)
    return mine.keys() == theirs.keys() and all(same(mine[name], theirs[name]) for name in mine)


def _state(value: Any) -> dict[str, Any]:
    state = {key: each for key, each in getattr(value, "__dict__", {}).items() if key != "__orig_class__"}
    for base in type(value).__mro__:
        for name, each in vars(base).items():
            if isinstance(each, types.MemberDescriptorType) and base.__module__.startswith("tests."):
                try:
                    state[name] = each.__get__(value)
                except AttributeError:
                    continue
    return dict(sorted(state.items()))


def _factory(one: Any, other: Any) -> bool:
    if isinstance(one, partial) and isinstance(other, partial):
        return one.func is other.func and all(map(_factory, one.args, other.args))
    return one is other


def _same_numpy(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if hasattr(one, "flags") and type(one).__name__ == "ndarray":
        mine, theirs = one.flags, other.flags
        order = mine.f_contiguous and not mine.c_contiguous
        if mine.writeable != theirs.writeable or order != (theirs.f_contiguous and not theirs.c_contiguous):
            return False
        if one.dtype == object:
            return all(map(same, one.flat, other.flat))
        if one.dtype.isalignedstruct:
            return bool((one == other).all())  # what is between the fields is no value
    return bool(one.tobytes() == other.tobytes())
