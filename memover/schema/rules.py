"""The rules of a check, and the words in which each says what it found; `findings.RULES` lists their codes.

A rule compares facts (`lock.Block`); where they come from, a lock or another revision, is not its business. A function
that moved to another module, another ttl and other tags are no findings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

from memover.schema.compare import changes
from memover.schema.findings import RULES, Finding, Found, bump_or_accept, listed
from memover.schema.lock import is_below, namespace_of

if TYPE_CHECKING:
    from memover.schema.lock import Block, Lock

__all__ = ["clashes", "compare", "finding", "unknowns", "unlocked"]

_OF_UNKNOWN = re.compile(r"(\w+)\[\?\]")


def clashes(functions: Iterable[Found]) -> list[Finding]:
    """MV003: two functions of one namespace on one cache."""
    owners: dict[tuple[str, str, str], Found] = {}
    found = []
    for each in functions:
        first = owners.setdefault((each.store, each.prefix, each.namespace), each)
        if first.identity != each.identity:
            found.append(
                finding(
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
        return [finding("MV007", each, "the result's type is not known: the function has no return annotation")]
    if not shape.known:
        return [finding("MV007", each, f"the result's type is not known: {shape.root} says nothing of what is stored")]
    places = [shape.root, *(part.type for one in shape.definitions for part in one.fields if one.kind != "enum")]
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
    rows = sorted({name for place in places for name in _OF_UNKNOWN.findall(place)})
    reasons, fixes = [], []
    for unknown, reason, fix in (
        (rows, "what the rows of {} are is not known when the program runs",
         "write list[...] of the model in place of {}: a cached queryset is the list of its rows"),
        (silent, "what {} stores is not known, because no annotation says it",
         "annotate the attributes of {}, or the parameters of its __init__"),
        (missing, "{} is a name that does not exist when the program runs", "import {} outside of `if TYPE_CHECKING:`"),
        (bare, "{} has no annotation" if len(bare) == 1 else "{} have no annotation", "annotate {}"),
    ):  # fmt: skip
        if unknown:
            reasons.append(reason.format(listed(unknown)))
            fixes.append(fix.format(listed(unknown)))
    return [
        finding(
            "MV007",
            each,
            f"the result's type is only partly known: {'; '.join(reasons) or 'a part of it has no annotation'}",
            details=(f"it reads {shape.root}",),
            fixes=(" and ".join(fixes),) if fixes else (),
        )
    ]


def unlocked(current: Mapping[str, Found], lock: Lock, *, whole: bool, spared: Collection[str] = ()) -> list[Finding]:
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
                finding(
                    "MV002",
                    each,
                    f"version {each.block.version} of {name!r} was used before, by a function that was removed at version {last}",
                    fixes=(f"memover bump {quote(name)} --to {last + 1}",),
                    functions=(name,),
                )
            )
        else:
            found.append(_stale(each, f"{each.block.function} is new and not in the lock"))
    if whole:
        known = {*current, *moved.values()}
        for name, block in lock.functions.items():
            if name not in known and not is_below(block.function.partition(":")[0], spared):
                told = f"{block.function} is gone, but still in the lock"
                found.append(Finding("MV004", name, told, fixes=("memover lock",), path="memover.lock"))
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
            if namespace_of(was) == each.namespace
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
            finding(
                "MV002",
                each,
                f"the version went down from {old.version} to {new.version}: entries stored under {new.version} before "
                f"would be read again",
                fixes=(f"memover bump {quote(name)} --to {old.version + 1}", f"write version={old.version} again"),
                functions=(name,),
            )
        ]
    if new.version > old.version:
        told = f"the version is {new.version}, {source} has {old.version}"
        return [_stale(each, told, changes(old.shape, new.shape))]
    found = [*_shape(name, each, old), *_key(name, each, old)]
    if not any(one.code == "MV001" for one in found) and old.body and new.body and old.body != new.body:
        found.append(_unbumped("MV006", name, each, "the source changed", ": results computed before stay cached"))
    if not found:
        if old.function.partition(":")[2] != new.function.partition(":")[2]:
            found.append(_stale(each, f"{old.function} is now {new.function}"))
        elif old.upgrades != new.upgrades:
            found.append(_stale(each, f"it upgrades from {listed(new.upgrades)}, {source} has {listed(old.upgrades)}"))
        elif str(old.shape) != str(new.shape):
            found.append(_stale(each, "names in the shape changed that are not stored"))
    return found


def _shape(name: str, each: Found, old: Block) -> list[Finding]:
    new = each.block
    found = changes(old.shape, new.shape)
    if not found:
        return []
    if not old.shape.known or not new.shape.known:
        # Entries of an unknown shape are equal at run time too.
        return [_stale(each, f"the result was {old.shape.root}, and is {new.shape.root}")]
    message = "the shape of the result changed"
    return [_unbumped("MV001", name, each, message, details=tuple(map(str, found)), changes=tuple(found))]


def _key(name: str, each: Found, old: Block) -> list[Finding]:
    new = each.block
    if (old.parameters, old.ignored, old.key) == (new.parameters, new.ignored, new.key):
        return []
    details = _parameters(old, new)
    meaning = _meaning_changed(old, new)
    if meaning:
        return [_unbumped("MV005", name, each, meaning, details=details)]
    if (old.key == new.key and old.key) or (old.parameters, old.key) == (new.parameters, new.key):
        effect = ""
    else:
        effect = "; entries stored before will not be found"
    return [_stale(each, f"the parameters changed{effect}", details)]


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
            f"{listed(blind)} is new and not in the key {new.key!r}: entries made without it would answer calls with it"
        )
    return ""


def _skeleton(template: str) -> str:
    return re.sub(r"\{[^{}]*\}", "{}", template)


def _parameters(old: Block, new: Block) -> tuple[str, ...]:
    details = []
    was, is_ = old.parameters, new.parameters
    gone, come = [each for each in was if each not in is_], [each for each in is_ if each not in was]
    if len(was) == len(is_) and len(gone) == len(come) and all(a == b for a, b in zip(was, is_) if a not in gone):
        details += [f"parameter {a} is now {b}" for a, b in zip(gone, come)]
    else:
        details += [f"parameter {each} is new" for each in come] + [f"parameter {each} is gone" for each in gone]
    if not gone and not come and was != is_:
        details.append(f"the order of the parameters: {', '.join(was)} -> {', '.join(is_)}")
    if old.ignored != new.ignored:
        details.append(f"left out of the key: {listed(old.ignored) or 'nothing'} -> {listed(new.ignored) or 'nothing'}")
    if old.key != new.key:
        details.append(f"key: {old.key or 'all parameters'} -> {new.key or 'all parameters'}")
    return tuple(details)


def _stale(each: Found, message: str, details: Iterable[object] = ()) -> Finding:
    return finding("MV004", each, message, details=tuple(map(str, details)), fixes=("memover lock",))


def _unbumped(code: str, name: str, each: Found, what: str, effect: str = "", **more: Any) -> Finding:
    message = f"{what}, but the version is still {each.block.version}{effect}"
    return finding(code, each, message, fixes=bump_or_accept(code, (name,)), functions=(name,), **more)


def finding(code: str, each: Found, message: str, **more: Any) -> Finding:
    """A finding at the place of a function; `more` are further fields of it."""
    return Finding(code, each.namespace, message, path=each.path, line=each.line, level=RULES[code].level, **more)
