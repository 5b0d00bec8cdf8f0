"""What changed between two shapes, field by field, in the words of a review."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memover.schema.shape import ORDERED, UNNAMED

if TYPE_CHECKING:
    from memover.schema.shape import Shape, ShapeDefinition

__all__ = ["ShapeChange", "changes"]


class ShapeChange(NamedTuple):
    """One place that changed: `old` is empty for what is new, `new` for what is gone.

    `definition` is the name in the shape that changed and `field` its part; both empty for the result's own type."""

    where: str
    old: str
    new: str
    definition: str = ""
    field: str = ""

    def __str__(self) -> str:
        if not self.old:
            return f"{self.where} is new: {self.new}"
        if not self.new:
            return f"{self.where} is gone; it was: {self.old}"
        return f"{self.where}: {self.old} -> {self.new}"


def changes(old: Shape, new: Shape) -> list[ShapeChange]:
    """Every change of meaning from one shape to another; empty exactly when their fingerprints are equal."""
    if old.canonical == new.canonical:
        return []
    found: list[ShapeChange] = []
    if old.root != new.root:
        found.append(ShapeChange("the result", old.root, new.root))
    before = {each.name: each for each in old.definitions}
    after = {each.name: each for each in new.definitions}
    for was, is_ in _pairs(before, after):
        found.extend(_definition(was, is_))
    if not found:
        found = [
            ShapeChange(name, _kind(before, name), _kind(after, name), name)
            for name in sorted(before.keys() ^ after.keys())
        ]
    return found


def _pairs(
    before: dict[str, ShapeDefinition], after: dict[str, ShapeDefinition]
) -> list[tuple[ShapeDefinition, ShapeDefinition]]:
    """Definitions under one name, then typed dicts that only changed their name along with their parts."""
    pairs = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]
    gone = [before[name] for name in sorted(before.keys() - after.keys()) if before[name].kind in UNNAMED]
    come = [after[name] for name in sorted(after.keys() - before.keys()) if after[name].kind in UNNAMED]
    if len(gone) == len(come) == 1:
        pairs.append((gone[0], come[0]))
    return pairs


def _definition(old: ShapeDefinition, new: ShapeDefinition) -> list[ShapeChange]:
    if old.kind != new.kind:
        return [ShapeChange(new.name, f"a {old.kind}", f"a {new.kind}", new.name)]
    found = []
    was = {field.name: field for field in old.fields}
    is_ = {field.name: field for field in new.fields}
    for name in [*was, *(name for name in is_ if name not in was)]:
        before, after = was.get(name), is_.get(name)
        if before == after:
            continue
        old_text = "" if before is None else before.type + (" (may be absent)" if before.optional else "")
        new_text = "" if after is None else after.type + (" (may be absent)" if after.optional else "")
        if before is not None and after is not None and before.type == after.type:
            old_text, new_text = (
                ("may be absent", "always there") if before.optional else ("always there", "may be absent")
            )
        found.append(ShapeChange(f"{new.name}.{name}" if name else new.name, old_text, new_text, new.name, name))
    common = [name for name in was if name in is_]
    if new.kind in ORDERED and common != [name for name in is_ if name in was]:
        found.append(ShapeChange(f"the order of {new.name}", ", ".join(was), ", ".join(is_), new.name))
    return found


def _kind(definitions: dict[str, ShapeDefinition], name: str) -> str:
    return definitions[name].kind if name in definitions else ""
