"""Where a class is found by its name, and whether it still is.

A class that is defined again (a reload, a notebook cell run twice) takes the name from the earlier one. Instances of the
earlier class are then no longer what the program means by the name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

__all__ = ["NamedClass", "look_up", "moved", "place_of"]


class NamedClass(NamedTuple):
    """One class under one name: `names` is the dict of its module, or of the class that it is nested in."""

    module_name: str
    module: ModuleType
    names: Mapping[str, Any]
    name: str
    kind: type


def look_up(module: str, qualname: str) -> type | None:
    """The class at a place in an imported module, read from dicts: no `__getattr__` is asked, nothing is imported."""
    path = _path(module, qualname)
    return path[-1].kind if path else None


def place_of(kind: type) -> tuple[NamedClass, ...]:
    """The places that lead to a class by its module and qualified name, from the outside in; () if none does."""
    path = _path(kind.__module__, kind.__qualname__)
    return path if path and path[-1].kind is kind else ()


def moved(places: Iterable[NamedClass]) -> bool:
    """Whether one of these names leads to something else by now. About 0.1 µs for each place."""
    modules = sys.modules
    for module_name, module, names, name, kind in places:
        if names.get(name) is not kind or modules.get(module_name) is not module:
            return True
    return False


def _path(module_name: str, qualname: str) -> tuple[NamedClass, ...]:
    module = sys.modules.get(module_name)
    if module is None:
        return ()
    path: list[NamedClass] = []
    names: Mapping[str, Any] = vars(module)
    for name in qualname.split("."):
        kind = names.get(name)
        if not isinstance(kind, type):
            return ()
        path.append(NamedClass(module_name, module, names, name, kind))
        names = type.__dict__["__dict__"].__get__(kind)
    return tuple(path)
