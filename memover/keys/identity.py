"""Which function owns which namespace, so that two functions cannot read each other's entries.

A namespace belongs to one function per prefix and store. A function decorated again (a reload, a factory called twice,
a script imported under its module's name) is the same function; one that is gone owns nothing.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from memover.errors import ConfigurationError

__all__ = ["Claim", "claim", "owners", "survey"]


class Claim(NamedTuple):
    """Who asked for a namespace where: `identity` is equal for one function decorated again."""

    store: str
    prefix: str
    namespace: str
    function: Callable[..., Any]
    owner: Any
    identity: str


_owners: dict[tuple[str, str, str], tuple[Any, str]] = {}
_lock = threading.Lock()
_claims: list[Claim] | None = None


def survey() -> list[Claim]:
    """From now on collect every claim in the list answered, and refuse none: for a process that only looks on."""
    global _claims  # noqa: PLW0603  # a process looks on or does not
    _claims = []
    return _claims


def claim(store: str, prefix: str, namespace: str, function: Callable[..., Any], owner: object) -> None:
    """Give the namespace to `owner`, the decorated form of `function`. Raises `ConfigurationError` if it is taken."""
    place = (store, prefix, namespace)
    identity = _identity(function)
    if _claims is not None:
        _claims.append(Claim(store, prefix, namespace, function, owner, identity))
        return
    with _lock:
        known = _owners.get(place)
        if known is not None and known[0]() is not None and known[1] != identity:
            raise ConfigurationError(
                f"The namespace {namespace!r} (prefix {prefix!r}) belongs to {known[1].partition(' ')[0]} already, so "
                f"{identity.partition(' ')[0]} would read its entries: give each function a namespace of its own."
            )
        _owners[place] = (weakref.ref(owner), identity)


def owners() -> list[Any]:
    """The decorated forms that own a namespace now."""
    with _lock:
        found = {id(owner): owner for reference, _ in _owners.values() if (owner := reference()) is not None}
    return list(found.values())


def _identity(function: Callable[..., Any]) -> str:
    # By file and not by module: `python shop.py` and `import shop` are one source under two module names.
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if code is None else f"{name} ({code.co_filename})"
