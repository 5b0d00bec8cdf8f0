"""What tells classes made inside functions apart, whose objects are arguments: one name may stand for many of them.

The rule is that for functions made inside others (see `identity`): the immutable plain values that a class's methods captured
are part of the key. Their code, what else they captured, defaults of their parameters, class attributes and the values of enum
members are compared in this process: a second class that differs in these is refused. Plain values, and lists, dicts and sets of
them, are compared by what they hold, other objects by identity. A class whose methods captured nothing plain is its name alone; one whose code has been executed anew (a reload, a notebook cell) takes the earlier one's place.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import BOOKKEEPING, ClassKind, declared, field_names, kind_of
from memover.classes.layout import HEAP_TYPE

from .canonical import class_part, composite, encode_part, encode_whole
from .captures import Gathered, is_plain
from .code import codes_within, found_under, functions_in, same_codes
from .refusal import Unkeyable, type_name

if TYPE_CHECKING:
    from types import CodeType, FunctionType

__all__ = ["record_part"]

_GENERATED = ("<string>", "<attrs generated")
"""How the names of the files begin that dataclasses and attrs give to the methods they write."""

_LIMIT = 4096
_NESTED_LIMIT = 8

_seen: dict[bytes, tuple[list[CodeType], dict[str, Any]]] = {}
"""By name and plain captures: the code of the class that was seen last, and what others are compared with."""


def record_part(kind: type) -> bytes:
    """A class by its name and by what its methods captured. Raises `Unkeyable` if an earlier class has the same part and differs."""
    part = class_part(kind)
    if "<locals>" not in kind.__qualname__:
        return part
    gathered, held = _holdings(kind)
    if gathered.plain:
        part = composite("local", part, *(encode_part(each, {}) for pair in gathered.plain for each in pair))
    codes = [function.__code__ for function in gathered.functions]
    if codes or held:
        known, earlier = _seen.get(part, (codes, held))
        same_objects = [id(each) for each in codes] == [
            id(each) for each in known
        ]  # no more, once a module is executed again
        if same_objects and not _same(held, earlier):
            raise _refusal(kind, "captured other things under the same names")
        same = [each.co_name for each in codes] == [each.co_name for each in known] and same_codes(codes, known)
        if not same and _beside(kind, gathered.functions, known):
            raise _refusal(kind, "has other code")
        if len(_seen) >= _LIMIT:  # classes made at run time, without end
            _seen.clear()
        _seen[part] = codes, held
    return part


def _refusal(kind: type, what: str) -> Unkeyable:
    refused = Unkeyable(
        kind,
        f"another class {kind.__qualname__} {what}, and their objects would share keys",
        "give the class a __memover_key__() that returns what tells its objects apart, captured values included, or define it "
        "at module level",
    )
    refused.kind = type_name(kind)
    return refused


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether these hold the same objects, or equal bytes."""
    return one.keys() == other.keys() and all(
        value is other[name] or (type(value) is bytes and value == other[name]) for name, value in one.items()
    )


def _beside(kind: type, functions: list[FunctionType], known: list[CodeType]) -> bool:
    """Whether an earlier class of this name stands beside this one in the source as it is now, and has not been replaced by it.
    So it is where the function around them cannot be found by its name."""
    outer = kind.__qualname__.partition(".<locals>")[0]
    within: set[int] = set()
    for each in functions:
        around = functions_in(found_under(each.__globals__, outer))
        within |= {id(code) for layer in around for code in codes_within(layer.__code__)}
    if not any(id(each.__code__) in within for each in functions):
        return True
    return any(id(code) in within for code in known)


def _holdings(kind: type) -> tuple[Gathered, dict[str, Any]]:
    """What a class's methods captured, and what of it and of the class is to be compared."""
    gathered, held = Gathered("", (), outermost=kind, none_counts=True), dict[str, Any]()
    declaring = declared(kind)
    fields = () if declaring is None else field_names(kind, declaring)
    enumeration = kind_of(kind) is ClassKind.ENUM
    for base in kind.__mro__:
        for name, value in list(vars(base).items()) if "<locals>" in base.__qualname__ else ():
            dunder = name[:2] == "__"
            for function in functions_in(value):
                written = dunder and function.__code__.co_filename.startswith(_GENERATED)
                if function.__globals__.get("__name__") == base.__module__ and not written:
                    gathered.layer(function, f"{name}.", kind)
            if not dunder and name not in fields and (is_plain(value) or not enumeration):
                _hold_attribute(name, value, base, held)
    for name, member in getattr(kind, "__members__", {}).items() if enumeration else ():
        _hold(name, member._value_, held)
    for label, value, _ in gathered.captures:
        if label.rpartition(".")[2] != "__class__":
            held[label] = value
    return gathered, held


def _hold_attribute(name: str, value: Any, owner: type, held: dict[str, Any]) -> None:
    """Notes what an attribute of a class made inside a function is compared by; nothing for what the class's functions tell."""
    if name in BOOKKEEPING:
        return
    functions = list(functions_in(value))
    if any(each.__globals__.get("__name__") == owner.__module__ for each in functions):
        return  # its code and captures are looked at
    if functions:
        held[name] = functions[-1].__code__  # a library's, which may make a new one for each class
    elif isinstance(value, (classmethod, staticmethod)):
        held[name] = value.__func__
    elif isinstance(value, type) and value.__qualname__.startswith(f"{owner.__qualname__}."):
        for inner, each in list(vars(value).items()):  # a class in its body
            if inner[:2] != "__":
                _hold_attribute(f"{name}.{inner}", each, value, held)
    elif isinstance(value, owner) or (hasattr(type(value), "__get__") and type(value) is not functools.partial):
        # Made anew with the class, as its other descriptors are: their plain state.
        made: Any = type(value)
        if made.__flags__ & HEAP_TYPE:
            held[name] = encode_part(type_name(made), {})
            for inner, each in list(getattr(value, "__dict__", {}).items()):
                if is_plain(each):
                    held[f"{name}.{inner}"] = encode_whole(each)
    else:
        _hold(name, value, held)


def _hold(name: str, value: Any, held: dict[str, Any]) -> None:
    """Notes what a value is compared by: its bytes where it is plain or holds plain values, else the object itself."""
    kind = type(value)
    if is_plain(value) or (len(held) < _LIMIT and kind in (list, tuple, set, frozenset) and all(map(is_plain, value))):
        held[name] = encode_whole(value)
    elif len(held) < _LIMIT and kind in (list, tuple, dict) and name.count("[") < _NESTED_LIMIT:
        held[name] = b"%b %d" % (kind.__name__.encode(), len(value))
        pairs = value.items() if kind is dict else enumerate(value)
        for number, (key, each) in enumerate(list(pairs)):
            _hold(f"{name}[{number}]", each, held)
            if kind is dict:
                _hold(f"{name}[{number}] (a key)", key, held)
    elif kind is functools.partial:
        _hold(f"{name}.func", value.func, held)
        _hold(f"{name}[partial]", [*value.args, *sorted(value.keywords.items())], held)
    else:
        held[name] = value
