"""What a check finds: each rule with its code, and the words it says it in.

    code   name                  level    what a reviewer should have asked
    -----  --------------------  -------  ----------------------------------------------------------------------
    MV001  shape-changed         error    the result's shape changed, and the version did not
    MV002  version-reused        error    the version went down, or names what was used before for something else
    MV003  namespace-clash       error    two functions in one namespace
    MV004  lock-out-of-date      error    a function is new, gone, bumped or renamed, or its parameters changed
    MV005  key-meaning-changed   error    old entries would answer calls that mean something else
    MV006  body-changed          off      the source changed, and the version did not (`body = "warn"` or "error")
    MV007  return-type-unknown   warning  a change of the result's shape could not be seen
    MV008  not-imported          error    a target does not import

A rule compares facts (`lock.Block`); where they come from, a lock or another revision, is not its business. A function
that moved to another module, another ttl and other tags are no findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os.path import isabs
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from memover.schema.compare import changes

if TYPE_CHECKING:
    from memover.schema.body import ClassPlace
    from memover.schema.compare import Change
    from memover.schema.lock import Block, Lock

__all__ = [
    "ACCEPTABLE",
    "RULES",
    "Finding",
    "Found",
    "Rule",
    "by_class",
    "clashes",
    "compare",
    "unknowns",
    "unlocked",
]


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
    changes: tuple[Change, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The rule's name in words."""
        return RULES[self.code].name


def clashes(functions: Iterable[Found]) -> list[Finding]:
    """MV003: two functions of one namespace on one cache."""
    owners: dict[tuple[str, str, str], Found] = {}
    found = []
    for each in functions:
        first = owners.setdefault((each.store, each.prefix, each.namespace), each)
        if first.identity != each.identity:
            found.append(
                _finding(
                    "MV003",
                    each,
                    f"the namespace {each.namespace!r} belongs to {first.block.function} already "
                    f"({first.path}:{first.line}), so {each.block.function} would read its entries",
                    fixes=("give one of them a namespace of its own",),
                )
            )
    return found


def unknowns(each: Found) -> list[Finding]:
    """MV007: what cannot be known of a result."""
    shape = each.block.shape
    if not shape.unknown:
        return []
    if shape.root == "?":
        return [_finding("MV007", each, "the result's type is not known: the function has no return annotation")]
    if not shape.known:
        return [_finding("MV007", each, f"the result's type is not known: {shape.root} says nothing of what is stored")]
    names = [name.lstrip("?") for name in shape.unknown if name != "?"]
    classes = {one.name for one in each.classes}
    silent = [name for name in names if name in classes]
    missing = [name for name in names if name not in classes]
    bare = [
        f"{one.name}.{part.name}" if part.name else one.name
        for one in shape.definitions
        for part in one.fields
        if part.type == "?" and one.kind != "enum"
    ]
    told, fixes = [], []
    if silent:
        told.append(f"what {_list(silent)} stores is not known, because no annotation says it")
        fixes.append(f"annotate the attributes of {_list(silent)}, or the parameters of its __init__")
    if missing:
        told.append(f"{_list(missing)} is a name that does not exist when the program runs")
        fixes.append(f"import {_list(missing)} outside of `if TYPE_CHECKING:`")
    if bare:
        told.append(f"{_list(bare)} {'has' if len(bare) == 1 else 'have'} no annotation")
        fixes.append(f"annotate {_list(bare)}")
    return [
        _finding(
            "MV007",
            each,
            f"the result's type is only partly known: {'; '.join(told) or 'a part of it has no annotation'}",
            details=(f"it reads {shape.root}",),
            fixes=(" and ".join(fixes),) if fixes else (),
        )
    ]


def by_class(findings: Iterable[Finding], current: Mapping[str, Found]) -> list[Finding]:
    """MV001 once for each class that changed: which functions store it, at the place of the field that changed.

    What changed in a function's own return type stays a finding of that function, together with classes that changed
    for this function alone. Other findings stay as they are."""
    kept: list[Finding] = []
    own: dict[tuple[str, ...], tuple[Finding, list[Change]]] = {}
    shared: dict[object, list[tuple[Finding, list[Change]]]] = {}
    for finding in findings:
        if finding.code != "MV001" or not finding.changes or not finding.functions:
            kept.append(finding)
            continue
        parts: dict[str, list[Change]] = {}
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


def _of_class(members: list[tuple[Finding, list[Change]]], current: Mapping[str, Found]) -> Finding:
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
        classes = _list(dict.fromkeys(change.definition for change, _ in changed))
        versions = _list(f"{name} ({current[name].block.version})" for name in functions)
        message = (
            f"the shape of {classes} changed, but the {len(functions)} functions that store it have their old versions: "
            f"{versions}"
        )
    return replace(
        first,
        namespace=", ".join(sorted({each.namespace for each, _ in members})),
        message=message,
        details=details,
        fixes=_bump_or_accept("MV001", functions),
        path=path,
        line=line,
        functions=functions,
        changes=tuple(change for change, _ in changed),
    )


def _class_of(change: Change, found: Found | None) -> ClassPlace | None:
    name = re.split(r"[\[#]", change.definition)[0]
    named = [each for each in found.classes if each.name == name] if found is not None else []
    return next((each for each in named if change.field in each.fields), named[0] if named else None)


def _owner(change: Change, found: Found | None) -> str:
    """The class that a change is in: where a field was inherited, the base that has it. "" for the result's own type."""
    if not change.definition:
        return ""
    place = _class_of(change, found)
    if place is None:
        return f"?{change.definition}"
    return place.fields[change.field][2] if change.field in place.fields else place.identity


def _place(change: Change, found: Found) -> tuple[str, int] | None:
    place = _class_of(change, found)
    if place is None:
        return None
    path, line, _ = place.fields.get(change.field, (place.path, place.line, ""))
    # A class of a library has no line in a review of this project.
    return (path, line) if path and line and not isabs(path) else None


def _bump_or_accept(code: str, functions: Iterable[str]) -> tuple[str, ...]:
    names = " ".join(map(quote, functions))
    return (f"memover bump {names}", f'memover lock --accept {code} {names} --reason "..."')


def unlocked(current: Mapping[str, Found], lock: Lock, *, whole: bool, spared: Iterable[str] = ()) -> list[Finding]:
    """MV004 for functions that only one side has, MV002 for a number that a function now gone has used.

    `whole` says that every function of the project is in `current`; modules below `spared` could not be looked at.
    """
    found = []
    moved = _moved(current, lock)
    for name, each in current.items():
        if name in lock.functions or name in moved:
            continue
        last = lock.removed.get(name)
        if last is not None and each.block.version <= last:
            found.append(
                _finding(
                    "MV002",
                    each,
                    f"version {each.block.version} of {name!r} was used before, by a function that was removed at version {last}",
                    fixes=(f"memover bump {quote(name)} --to {last + 1}",),
                    functions=(name,),
                )
            )
        else:
            found.append(
                _finding("MV004", each, f"{each.block.function} is new and not in the lock", fixes=("memover lock",))
            )
    if whole:
        blind = tuple(spared)
        for name, block in lock.functions.items():
            module = block.function.partition(":")[0]
            if (
                name in current
                or name in moved.values()
                or any(module == each or module.startswith(f"{each}.") for each in blind)
            ):
                continue
            found.append(
                Finding(
                    "MV004",
                    name,
                    f"{block.function} is gone, but still in the lock",
                    fixes=("memover lock",),
                    path="memover.lock",
                )
            )
    return found


def _moved(current: Mapping[str, Found], lock: Lock) -> dict[str, str]:
    """New names to old ones of functions that only moved, where caches share a namespace and the module is in the name."""
    gone = {name: block for name, block in lock.functions.items() if name not in current and " " in name}
    found: dict[str, str] = {}
    for name, each in current.items():
        if " " not in name or name in lock.functions:
            continue
        fitting = [
            was
            for was, block in gone.items()
            if was.partition(" ")[0] == each.namespace
            and block.function.partition(":")[2] == each.block.function.partition(":")[2]
            and (block.version, block.shape.canonical) == (each.block.version, each.block.shape.canonical)
        ]
        if len(fitting) == 1:
            found[name] = fitting[0]
    return found


def compare(name: str, each: Found, old: Block, *, source: str = "the lock") -> list[Finding]:
    """What changed in one function since `old`, of which `source` is the name."""
    new = each.block
    if new.version < old.version:
        return [
            _finding(
                "MV002",
                each,
                f"the version went down from {old.version} to {new.version}: entries stored under {new.version} before "
                f"would be read again",
                fixes=(f"memover bump {quote(name)} --to {old.version + 1}", f"write version={old.version} again"),
                functions=(name,),
            )
        ]
    if new.version > old.version:
        return [
            _finding(
                "MV004",
                each,
                f"the version is {new.version}, {source} has {old.version}",
                details=tuple(map(str, changes(old.shape, new.shape))),
                fixes=("memover lock",),
            )
        ]
    found = [*_shape(name, each, old), *_key(name, each, old)]
    if not any(finding.code == "MV001" for finding in found) and old.body and new.body and old.body != new.body:
        found.append(
            _finding(
                "MV006",
                each,
                f"the source changed, but the version is still {new.version}: results computed before stay cached",
                fixes=_bump_or_accept("MV006", (name,)),
                functions=(name,),
            )
        )
    if not found:
        if old.function.partition(":")[2] != new.function.partition(":")[2]:
            found.append(_stale(each, f"{old.function} is now {new.function}"))
        elif old.upgrades != new.upgrades:
            found.append(_stale(each, f"it upgrades from {_list(new.upgrades)}, {source} has {_list(old.upgrades)}"))
        elif str(old.shape) != str(new.shape):
            found.append(_stale(each, "names in the shape changed that are not stored"))
    return found


def _shape(name: str, each: Found, old: Block) -> list[Finding]:
    new = each.block
    found = changes(old.shape, new.shape)
    if not found:
        return []
    if not old.shape.known or not new.shape.known:
        # Entries of an unknown shape are not told apart at run time either.
        return [_stale(each, f"the result was {old.shape.root}, and is {new.shape.root}")]
    return [
        _finding(
            "MV001",
            each,
            f"the shape of the result changed, but the version is still {new.version}",
            details=tuple(map(str, found)),
            changes=tuple(found),
            fixes=_bump_or_accept("MV001", (name,)),
            functions=(name,),
        )
    ]


def _key(name: str, each: Found, old: Block) -> list[Finding]:
    new = each.block
    if (old.parameters, old.ignored, old.key) == (new.parameters, new.ignored, new.key):
        return []
    told = _parameters(old, new)
    meaning = _meaning_changed(old, new)
    if meaning:
        return [
            _finding(
                "MV005",
                each,
                f"{meaning}, but the version is still {new.version}",
                details=told,
                fixes=_bump_or_accept("MV005", (name,)),
                functions=(name,),
            )
        ]
    if (old.key == new.key and old.key) or (old.parameters, old.key) == (new.parameters, new.key):
        effect = ""
    else:
        effect = "; entries stored before will not be found"
    return [_finding("MV004", each, f"the parameters changed{effect}", details=told, fixes=("memover lock",))]


def _meaning_changed(old: Block, new: Block) -> str:
    """Why an old entry might answer a call it was not made for; "" when it cannot."""
    if not new.key or not old.key:
        # All parameters are in the key, by name and by value: whatever changed, no old key is met again.
        return ""
    if old.key.startswith("callable ") or new.key.startswith("callable "):
        if old.key != new.key:
            return "the function that makes the key changed, so that old entries may answer other calls"
        if old.parameters != new.parameters:
            return "the parameters changed under a key= function, so that old entries may answer other calls"
        return ""
    renamed = dict(zip(old.parameters, new.parameters)) if len(old.parameters) == len(new.parameters) else {}
    before = re.sub(r"\{(\w+)", lambda hit: "{" + renamed.get(hit[1], hit[1]), old.key)
    only_renamed = not set(old.parameters) & {new_ for was, new_ in renamed.items() if was != new_}
    if before == new.key and only_renamed:
        old_names = {renamed.get(each, each) for each in old.parameters}
    else:
        if _skeleton(old.key) == _skeleton(new.key) and old.key != new.key:
            return f"the key was {old.key!r} and is {new.key!r}: old entries would answer other calls"
        if old.key != new.key:
            return ""
        old_names = set(old.parameters)
    named = set(re.findall(r"\{(\w+)", new.key))
    blind = [each for each in new.parameters if each not in old_names and each.lstrip("*") not in named]
    if blind:
        return (
            f"{_list(blind)} is new and not in the key {new.key!r}: entries made without it would answer calls with it"
        )
    return ""


def _skeleton(template: str) -> str:
    return re.sub(r"\{[^{}]*\}", "{}", template)


def _parameters(old: Block, new: Block) -> tuple[str, ...]:
    told = []
    was, is_ = old.parameters, new.parameters
    gone, come = [each for each in was if each not in is_], [each for each in is_ if each not in was]
    if len(was) == len(is_) and len(gone) == len(come) and all(a == b for a, b in zip(was, is_) if a not in gone):
        told += [f"parameter {a} is now {b}" for a, b in zip(gone, come)]
    else:
        told += [f"parameter {each} is new" for each in come] + [f"parameter {each} is gone" for each in gone]
    if not gone and not come and was != is_:
        told.append(f"the order of the parameters: {', '.join(was)} -> {', '.join(is_)}")
    if old.ignored != new.ignored:
        told.append(f"left out of the key: {_list(old.ignored) or 'nothing'} -> {_list(new.ignored) or 'nothing'}")
    if old.key != new.key:
        told.append(f"key: {old.key or 'all parameters'} -> {new.key or 'all parameters'}")
    return tuple(told)


def _list(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))


def _stale(each: Found, message: str) -> Finding:
    return _finding("MV004", each, message, fixes=("memover lock",))


def _finding(
    code: str,
    each: Found,
    message: str,
    details: tuple[str, ...] = (),
    fixes: tuple[str, ...] = (),
    functions: tuple[str, ...] = (),
    changes: tuple[Change, ...] = (),
) -> Finding:
    level = RULES[code].level
    return Finding(code, each.namespace, message, details, fixes, each.path, each.line, level, functions, changes)
