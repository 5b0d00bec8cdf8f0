"""Modules that are imported when something of them is first needed: who imports memover does not pay for what it never uses.

    if TYPE_CHECKING:
        import asyncio
    else:
        asyncio = later(__name__, "asyncio")

The first look at an attribute imports the module and puts it under the name, so that nothing stands between afterwards. As
`lazy import asyncio` will in Python 3.15 (PEP 810).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["late_names", "later", "under_way"]

_importing: dict[object, str] = {}


class Later:
    """Stands for a module, under a name of another one."""

    def __init__(self, user: str, module: str, name: str) -> None:
        self._user = user
        self._module = module
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        mine = object()
        try:
            _importing[mine] = self._module
            try:
                module = import_module(self._module)
            except ModuleNotFoundError as error:
                # Python's own search answers so where it takes what a signal handler raised in the middle of it for an answer.
                if error.name != self._module:
                    raise
                module = import_module(self._module)
        finally:
            _importing.pop(mine, None)
        names = vars(sys.modules[self._user])
        if names.get(self._name) is self:
            names[self._name] = module
        return getattr(module, attribute)


def later(user: str, module: str, name: str = "") -> Any:
    """`module`, to be imported at the first look at something in it; `user` is the module that has it as its global `name`
    (the last part of the module's own, if none is given)."""
    return Later(user, module, name or module.rpartition(".")[2])


def under_way() -> list[str]:
    """The modules that some thread is importing by `later`."""
    return list(_importing.values())


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are loaded when first asked for (PEP 562); `homes` says from where."""

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = vars(sys.modules[package])[name] = getattr(import_module(home), name)
        return value

    return load
