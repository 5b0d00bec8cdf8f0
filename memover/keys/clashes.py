"""What is said when a namespace is taken, or when a function is defined again over entries of an earlier one."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

from memover.errors import ConfigurationError, MemoverWarning

from .captures import ATTRIBUTE, DEFAULT, GLOBALS, KEY
from .refusal import type_name

if TYPE_CHECKING:
    from .captures import Capture
    from .identity import Identity
    from .places import NamespacePlace

__all__ = ["captures_clash", "clash", "functions_clash", "warn"]


def functions_clash(place: NamespacePlace, identity: Identity) -> str:
    """Why a function cannot have the namespace of another one, and what to do."""
    if place.same_name(identity):
        return "The two have one name and other code. Give each a namespace of its own."
    return "Give each function a namespace of its own."


def captures_clash(capture: Capture) -> str:
    """Why two functions of one code that differ in this capture cannot share a namespace, and what to do."""
    name = capture.label.partition(".__")[0]
    if capture.label.endswith(GLOBALS):
        return (
            f"The two have one name and run in different globals (of exec, say), where {name.removesuffix(GLOBALS)!r} is not the "
            f"same, so they could answer differently. Give each a namespace of its own."
        )
    if name == KEY:
        return (
            "The two have one code and another key=, so one text would mean two calls. Give each a namespace of its own, or "
            "decorate the function once."
        )
    if name == "__class__":
        return (
            "The two are methods of two classes made by one source text (they use super() or __class__), and could answer "
            "differently. Give each class's method a namespace of its own, or define the class once."
        )
    if capture.value is capture.cell and capture.cell is not None:
        return (
            f"The two captured variables {name!r} that are not assigned yet, so they could answer differently. Assign {name} "
            f"above the decorated function, or give each a namespace of its own."
        )
    plain = name.removesuffix(DEFAULT).removesuffix(ATTRIBUTE)
    return (
        f"The two captured different objects as {name!r}: this one a {type_name(type(capture.value))}, which cannot be part "
        f"of the key, so they could answer differently under one key. Pass {plain} as an argument (ignore=({plain!r},) leaves it "
        f"out of the key), capture a plain value that tells the two apart (a str, an int), decorate the function once, or give "
        f"each a namespace of its own."
    )


def clash(title: str, where: str, identity: Identity, why: str, prefix: str, namespace: str) -> ConfigurationError:
    """The error of a second function under a namespace; `why` is one of the texts above, `where` the first one's place."""
    first = f"{title} ({where})" if where else title
    second = f"{identity.title} ({identity.where})" if identity.where else identity.title
    at = f" (prefix {prefix!r})" if prefix else ""
    return ConfigurationError(
        f"The namespace {namespace!r}{at} belongs to {first} already, so {second} would read its entries. {why}"
    )


def warn(identity: Identity, namespace: str, version: int) -> None:
    """Warns at the decorator's line that the store keeps what an earlier function returned."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "memover":
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{identity.title} was defined again with other code or globals under the namespace {namespace!r} and the same version={version}, and "
        f"the store, which other processes share, keeps what the earlier code returned. Set version={version + 1}, decorate with "
        f"follow_code=True, or call invalidate_all() on it.",
        MemoverWarning,
        stacklevel=level,
    )
