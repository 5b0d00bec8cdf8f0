"""The name by which every process knows a class: in stored bytes and in keys."""

from __future__ import annotations

import sys

__all__ = ["class_name", "module_name"]


def module_name(module: str) -> str:
    """The name a module goes by in every process.

    A module run by `python -m shop.jobs` is `__main__` there and `shop.jobs` to everyone else, so it goes by the
    name of its spec; a script has no other name than `__main__`.
    """
    if module == "__main__":
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        return getattr(spec, "name", None) or module
    return module


def class_name(kind: type) -> str:
    """The name a class goes by in stored bytes: "module:qualname"."""
    return f"{module_name(kind.__module__)}:{kind.__qualname__}"
