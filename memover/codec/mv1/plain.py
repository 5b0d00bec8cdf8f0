"""Stored instances as plain builtins, without their classes: for upgrades from older versions, and for messages.

fields, open, struct     a dict of the fields (open: of the attributes)
model, modelstate        a dict of the fields, extra and private attributes included
namedtuple               a dict of the fields
enum                     the member's name, or the value of a combined flag
exception                a dict: "args", and the attributes
subclass                 the content of the builtin
registered               what the registered `encode` returned
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from memover.codec.mv1.format import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Definitions", "contents"]


class Definitions:
    """Reads definitions without looking up what they define; `make(kind, name, content)` makes each instance."""

    def __init__(self, make: Callable[[str, str, Any], Any] | None = None) -> None:
        self._make = make

    def __call__(self, data: bytes) -> Mark:
        kind, name, names = msgpack.unpackb(data, unicode_errors="surrogatepass")
        if not type(kind) is type(name) is str or type(names) is not list:
            raise ValueError("no definition of a class")
        return Mark(partial(self._build, kind, name, names))

    def _build(self, kind: str, name: str, names: list[str], items: list[Any]) -> Any:
        content = contents(kind, names, items[1:])
        return content if self._make is None else self._make(kind, name, content)


def contents(kind: str, names: list[str], items: list[Any]) -> Any:
    """What one instance holds. Raises ValueError for items that are not of this kind."""
    if kind in ("fields", "struct", "namedtuple"):
        if len(items) != len(names):
            raise ValueError("another number of fields")
        return dict(zip(names, items))
    if kind in ("model", "modelstate"):
        _, extra, private, *values = items
        content = dict(values[0]) if kind == "modelstate" else dict(zip(names, values))
        return {**content, **(extra or {}), **(private or {})}
    if kind == "exception":
        return {"args": items[0], **(items[1] or {})}
    if kind in ("open", "enum", "subclass", "registered"):
        return items[0]
    raise ValueError(f"no kind of class: {kind!r}")
