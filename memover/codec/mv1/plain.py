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

from typing import TYPE_CHECKING, Any

from memover.codec.mv1.format import Mark
from memover.codec.mv1.serializer import read_definition

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["plain_mark"]


def plain_mark(data: bytes, make: Callable[[str, str, Any], Any] | None) -> Mark:
    """The mark of a definition, without looking up what it defines; `make(kind, name, content)`, if given, makes each instance."""
    kind, name, names = read_definition(data)

    def build(items: list[Any]) -> Any:
        content = _content(kind, names, items[1:])
        return content if make is None else make(kind, name, content)

    return Mark(build)


def _content(kind: str, names: list[str], items: list[Any]) -> Any:
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
