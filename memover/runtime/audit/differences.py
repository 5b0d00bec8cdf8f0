"""What two results have in common, said without their values: their shapes, and the first place in which they differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

__all__ = ["difference", "equal", "outline_of"]

_PARTS_LIMIT = 12
_DEPTH_LIMIT = 3
_PATH_LIMIT = 20


def equal(served: Any, source: Any) -> bool:
    """Whether two values are equal and of one type; never raises."""
    if type(served) is not type(source):
        return False
    try:
        return bool(served == source)
    except Exception:
        return False  # arrays have no one truth; their bytes differed


def outline_of(value: Any, depth: int = 0) -> str:
    """The type of a value and of what is in it, with numbers of items: no keys, no values.

    `list of 3 (Profile(id: int, name: str))`. Names of fields are the program's, keys of dicts may be anybody's.
    """
    name = type(value).__name__
    if depth >= _DEPTH_LIMIT:
        return name
    fields = _fields(value)
    if fields is not None:
        parts = [f"{field}: {outline_of(each, depth + 1)}" for field, each in list(fields.items())[:_PARTS_LIMIT]]
        return f"{name}({', '.join(parts)}{', …' if len(fields) > _PARTS_LIMIT else ''})"
    if isinstance(value, Mapping):
        kinds = _kinds(value.values(), depth)
        return f"{name} of {len(value)} ({_kinds(value.keys(), depth)} → {kinds})" if value else f"{name} of 0"
    if isinstance(value, (list, tuple, AbstractSet)):
        return f"{name} of {len(value)} ({_kinds(value, depth)})" if value else f"{name} of 0"
    if isinstance(value, (str, bytes, bytearray)):
        return f"{name} of {len(value)}"
    return name


def _kinds(values: Any, depth: int) -> str:
    found = dict.fromkeys(
        outline_of(each, depth + 1) if _fields(each) is not None else type(each).__name__
        for _, each in zip(range(100), values)
    )
    return " | ".join(list(found)[:_PARTS_LIMIT])


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an instance whose class names them; None for any other value."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
    named = getattr(value, "_fields", None)
    if isinstance(value, tuple) and isinstance(named, tuple):
        return dict(zip(named, value))
    for names in ("model_fields", "__attrs_attrs__", "__struct_fields__"):
        declared = getattr(type(value), names, None)
        if declared:
            fields = [each if isinstance(each, str) else each.name for each in declared]
            return {field: getattr(value, field, None) for field in fields}
    return None


def difference(served: Any, source: Any) -> str:
    """The first place where two values differ, as a path without keys or values: `$[2].name`, `$[…]` for a key of a dict."""
    return "$" + _path(served, source, 0)


def _path(served: Any, source: Any, depth: int) -> str:
    if type(served) is not type(source) or depth > _PATH_LIMIT:
        return ""
    ours, theirs = _fields(served), _fields(source)
    if ours is not None and theirs is not None:
        for name, each in ours.items():
            if not equal(each, theirs.get(name)):
                return f".{name}{_path(each, theirs.get(name), depth + 1)}"
        return ""
    if isinstance(served, (list, tuple)):
        for at, (mine, other) in enumerate(zip(served, source)):
            if not equal(mine, other):
                return f"[{at}]{_path(mine, other, depth + 1)}"
        return ""
    if isinstance(served, Mapping) and served.keys() == source.keys():
        for key, each in served.items():
            if not equal(each, source[key]):
                return f"[…]{_path(each, source[key], depth + 1)}"
    return ""
