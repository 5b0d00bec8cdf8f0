"""What a check finds: the codes, one finding as data, and one finding for each class that changed.

A finding is about functions: `functions` are their names in the lock. Its fixes are commands as they would be typed in any
project; `memover.cli.check.advised` writes them for the project at hand, and leaves out those that would not work there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os.path import isabs
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from memover.schema.body import ClassPlace
    from memover.schema.compare import ShapeChange
    from memover.schema.lock import Block

__all__ = ["ACCEPTABLE", "BY_HAND", "RULES", "Finding", "Found", "bump_or_accept", "by_class", "listed", "ways_out"]


class Rule(NamedTuple):
    """A code's name, the level it has unless configured otherwise, and one sentence."""

    name: str
    level: str
    about: str


RULES: dict[str, Rule] = {
    "MV001": Rule("shape-changed", "error", "The shape of a cached result changed and the version did not."),
    "MV002": Rule("version-reused", "error", "A version went down, or was used before for another shape."),
    "MV003": Rule("namespace-clash", "error", "Two functions share a namespace and would read each other's entries."),
    "MV004": Rule("lock-out-of-date", "error", "memover.lock does not say what the source says."),
    "MV005": Rule("key-meaning-changed", "error", "Old entries would answer calls that mean something else."),
    "MV006": Rule("body-changed", "off", "The source of a cached function changed and the version did not."),
    "MV007": Rule("return-type-unknown", "warning", "The result's type is not known, so its changes cannot be seen."),
    "MV008": Rule("not-imported", "error", "A target does not import, so its functions were not checked."),
}
ACCEPTABLE = ("MV001", "MV002", "MV005", "MV006")
"""What `memover lock --accept` lets through."""


@dataclass(frozen=True)
class Found:
    """A decorated function as it was found: its facts, its place in the source, and what its comments ignore.

    `classes` are the places of the classes that its shape names."""

    namespace: str
    block: Block
    path: str = ""
    line: int = 0
    store: str = ""
    prefix: str = ""
    identity: str = ""
    ignores: tuple[str, ...] = ()
    classes: tuple[ClassPlace, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing to be put right: where, what exactly, and the commands that do it.

    `functions` are the names in the lock of the functions it is about, `changes` what changed in a shape."""

    code: str
    namespace: str
    message: str
    details: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()
    path: str = ""
    line: int = 0
    level: str = field(default="error", compare=False)
    functions: tuple[str, ...] = ()
    changes: tuple[ShapeChange, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The rule's name in words."""
        return RULES[self.code].name


def by_class(findings: Iterable[Finding], current: Mapping[str, Found]) -> list[Finding]:
    """MV001 once for each class that changed: which functions store it, at the place of the field that changed.

    What changed in a function's own return type stays a finding of that function, together with classes that changed
    for this function alone. Other findings stay as they are."""
    kept: list[Finding] = []
    own: dict[tuple[str, ...], tuple[Finding, list[ShapeChange]]] = {}
    shared: dict[object, list[tuple[Finding, list[ShapeChange]]]] = {}
    for finding in findings:
        if finding.code != "MV001" or not finding.changes or not finding.functions:
            kept.append(finding)
            continue
        parts: dict[str, list[ShapeChange]] = {}
        for change in finding.changes:
            parts.setdefault(_owner(change, current.get(finding.functions[0])), []).append(change)
        for owner, changed in parts.items():
            if owner:
                key = (owner, finding.level, frozenset((each.field, each.old, each.new) for each in changed))
                shared.setdefault(key, []).append((finding, changed))
            else:
                own[finding.functions] = (finding, list(changed))
    for members in shared.values():
        finding, changed = members[0]
        if len(members) == 1 and finding.functions in own:
            own[finding.functions][1].extend(changed)
        else:
            kept.append(_of_class(members, current))
    for finding, changed in own.values():
        ordered = tuple(each for each in finding.changes if each in changed)
        kept.append(replace(finding, details=tuple(map(str, ordered)), changes=ordered))
    return kept


def _of_class(members: list[tuple[Finding, list[ShapeChange]]], current: Mapping[str, Found]) -> Finding:
    first = members[0][0]
    changed = [(change, current[each.functions[0]]) for each, part in members for change in part]
    places = [place for change, found in changed if (place := _place(change, found))]
    path, line = places[0] if places else (first.path, first.line)
    details = tuple(dict.fromkeys(str(change) for change, _ in changed))
    functions = tuple(sorted({name for each, _ in members for name in each.functions}))
    if len(functions) == 1:
        message = first.message
        if (path, line) != (first.path, first.line):
            message += f" ({current[functions[0]].block.function})"
    else:
        classes = listed(dict.fromkeys(change.definition for change, _ in changed))
        versions = listed(f"{name} ({current[name].block.version})" for name in functions)
        message = (
            f"the shape of {classes} changed, but the {len(functions)} functions that store it have their old versions: "
            f"{versions}"
        )
    return replace(
        first,
        namespace=", ".join(sorted({each.namespace for each, _ in members})),
        message=message,
        details=details,
        fixes=bump_or_accept("MV001", functions),
        path=path,
        line=line,
        functions=functions,
        changes=tuple(change for change, _ in changed),
    )


def _class_of(change: ShapeChange, found: Found | None) -> ClassPlace | None:
    name = re.split(r"[\[#]", change.definition)[0]
    named = [each for each in found.classes if each.name == name] if found is not None else []
    return next((each for each in named if change.field in each.fields), named[0] if named else None)


def _owner(change: ShapeChange, found: Found | None) -> str:
    """The class that a change is in: where a field was inherited, the base that has it. "" for the result's own type."""
    if not change.definition:
        return ""
    place = _class_of(change, found)
    if place is None:
        return f"?{change.definition}"
    return place.fields[change.field][2] if change.field in place.fields else place.identity


def _place(change: ShapeChange, found: Found) -> tuple[str, int] | None:
    place = _class_of(change, found)
    if place is None:
        return None
    path, line, _ = place.fields.get(change.field, (place.path, place.line, ""))
    # A class of a library has no line in a review of this project.
    return (path, line) if path and line and not isabs(path) else None


def bump_or_accept(code: str, functions: Iterable[str]) -> tuple[str, ...]:
    """The two ways out of a change under an unchanged version, as commands."""
    names = " ".join(map(quote, functions))
    return (f"memover bump {names}", f'memover lock --accept {code} {names} --reason "..."')


BY_HAND = "raise the version of "
"""How a fix begins that is needed beside the ones before it, and is no choice."""


def ways_out(finding: Finding) -> list[tuple[str, str]]:
    """The fixes of a finding, each after its word: "fix", then "and" for what is needed too and "or" for another way."""
    words = ("and" if each.startswith(BY_HAND) else "or" for each in finding.fixes)
    return [("fix" if at == 0 else word, each) for at, (word, each) in enumerate(zip(words, finding.fixes))]


def listed(items: Iterable[object]) -> str:
    """The items with commas between them."""
    return ", ".join(map(str, items))
