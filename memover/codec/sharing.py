"""Which values may be handed to several callers as they are: those that nobody can change.

Right when in doubt means False: the value is then decoded anew for each caller, which is slower and never wrong.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import re
import sys
from typing import Any

__all__ = ["shareable"]

DEPTH_LIMIT = 50

_SCALARS = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), type(NotImplemented),
        dt.date, dt.timedelta, dt.timezone, re.Pattern,
    }
)  # fmt: skip
_MOMENTS = frozenset({dt.datetime, dt.time})
_NAMED = frozenset(
    {
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("zoneinfo", "ZoneInfo"),
        *(("pathlib", name) for name in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")),
        *(("ipaddress", f"IPv{version}{kind}") for version in (4, 6) for kind in ("Address", "Network", "Interface")),
    }
)
# Class -> True: all instances · False: none · a tuple of field names: those whose fields are all shareable
_verdicts: dict[type, bool | tuple[str, ...]] = {}
VERDICTS_LIMIT = 10_000


def shareable(value: Any) -> bool:
    """Say whether `value` is immutable to any depth, so that one object can serve every caller.

    True for exact immutable builtins, dates, Decimal, Fraction, UUID, paths, addresses, patterns and enums; for
    tuples, frozensets and named tuples of shareable values; and for frozen dataclasses, attrs classes and msgspec
    Structs all of whose attributes are shareable. False for everything else. Raises nothing.
    """
    if type(value) in _SCALARS:
        return True
    return _shareable(value, 0)


def _shareable(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth > DEPTH_LIMIT:
        return False
    if kind is tuple or kind is frozenset:
        if _SCALARS.issuperset(map(type, value)):
            return True
        return all(_shareable(each, depth + 1) for each in value)
    if kind in (list, dict, set):
        return False
    if kind in _MOMENTS:
        return value.tzinfo is None or _shareable(value.tzinfo, depth + 1)
    verdict = _verdicts.get(kind)
    if verdict is None:
        if len(_verdicts) >= VERDICTS_LIMIT:
            _verdicts.clear()
        verdict = _verdicts[kind] = _judge(kind)
    if isinstance(verdict, bool):
        return verdict
    try:
        if isinstance(value, tuple):
            return all(_shareable(each, depth + 1) for each in tuple.__iter__(value))
        attributes = getattr(value, "__dict__", None)
        # Attributes beside the fields were put there past the freezing; one can be put there again.
        if attributes and not attributes.keys() <= set(verdict):
            return False
        return all(_shareable(getattr(value, name), depth + 1) for name in verdict)
    except Exception:
        return False


def _judge(kind: Any) -> bool | tuple[str, ...]:
    if isinstance(kind, enum.EnumMeta):
        return True
    module = kind.__module__.partition(".")[0]
    if (module, kind.__name__) in _NAMED:
        return getattr(sys.modules.get(module), kind.__name__, None) is kind
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return module == "numpy" and kind is not numpy.void
    if issubclass(kind, tuple):
        fields = getattr(kind, "_fields", None)
        return fields if isinstance(fields, tuple) and not kind.__dictoffset__ else False
    if _has_cache(kind):
        return False
    own = kind.__dict__
    parameters = own.get("__dataclass_params__")
    if parameters is not None:
        plain = object.__setattr__ is not kind.__setattr__ and _laid_on_object(kind)
        return tuple(each.name for each in dataclasses.fields(kind)) if parameters.frozen and plain else False
    attrs_fields = own.get("__attrs_attrs__")
    if attrs_fields is not None:
        frozen = getattr(kind.__setattr__, "__name__", "") == "_frozen_setattrs"
        return tuple(each.name for each in attrs_fields) if frozen and _laid_on_object(kind) else False
    config = getattr(kind, "__struct_config__", None)
    if config is not None:
        return tuple(kind.__struct_fields__) if config.frozen and not config.dict else False
    return False


def _laid_on_object(kind: type) -> bool:
    base: type | None = kind
    while base is not None and base.__flags__ & (1 << 9):
        base = base.__base__
    return base is object


def _has_cache(kind: type) -> bool:
    return any(isinstance(each, functools.cached_property) for base in kind.__mro__ for each in vars(base).values())
