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
from typing import Any

__all__ = ["later"]


class Later:
    """Stands for a module, under a name of another one."""

    def __init__(self, user: str, module: str, name: str) -> None:
        self._user = user
        self._module = module
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        module = import_module(self._module)
        names = vars(sys.modules[self._user])
        if names.get(self._name) is self:
            names[self._name] = module
        return getattr(module, attribute)


def later(user: str, module: str, name: str = "") -> Any:
    """`module`, to be imported at the first look at something in it; `user` is the module that has it as its global `name`
    (the last part of the module's own, if none is given)."""
    return Later(user, module, name or module.rpartition(".")[2])
