"""Canonical bytes: one value, one byte string, in every process and for good.

The encoding is injective: two values have the same bytes iff they are the same value of the same type, as
the table says. It depends on nothing but the value: not on PYTHONHASHSEED, the order of a dict or set,
the platform, or the Python version. **It never changes**: bytes of released versions are in the tests.

    value                bytes
    -------------------  ------------------------------------------------------------------------------
    None, True, False    N  T  F
    int                  i <hex(), like -0x1f> ;
    float                f <float.hex()> ;                 nan equals nan; -0.0 and 0.0 differ
    complex              j <real.hex()> , <imag.hex()> ;
    str                  s <n> : <UTF-8>                   n counts code points; surrogates as "surrogatepass"
    bytes                b <n> : <bytes>
    tuple, list          t <n> : <items>    l <n> : <items>
    set, frozenset       e <n> : <items>    z <n> : <items>     items sorted by their bytes
    dict                 d <n> : <key><value>...                pairs sorted by their bytes
    every other type     x <n> : <label as str> <n parts>       labels in types.py, qualified.py, records.py, arrays.py, tables.py

Numbers n are decimal. Every form ends where its length or `;` says, so a sequence of forms splits one way only.
The type counts at every depth: `1`, `1.0`, `True` and `"1"` differ, as do a tuple and a list. A subclass
never passes for its base: a subclass of a builtin is refused unless it is a kind of its own (an enum, a named
tuple, ...), is registered, or has `__memover_key__()`. A class counts by its import name and qualified name (`classes.naming`).

Order in which a type is looked up: the table above; `register_key` of the very type; `__memover_key__()`;
`register_key` of a base; `register_proxy`, whose objects have the bytes of what they stand for; the known types. What is
none of these is refused. `repr`, `str`, `hash` and `id` of foreign objects are never used. Nesting beyond `DEPTH_LIMIT`, and structures that hold themselves, are refused.
"""

from __future__ import annotations

import sys
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.classes.naming import class_name
from memover.errors import ConfigurationError
from memover.keys.refusal import Unkeyable, step, type_name
from memover.living import Living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Keyed", "encode", "forget_with", "register_key", "register_proxy"]

DEPTH_LIMIT = 100
"""How many containers may lie within each other; far below the interpreter's recursion limit."""

Active = dict[int, Any]
"""The containers under way by id, outermost first: what makes a cycle or absurd depth visible."""

if TYPE_CHECKING:
    Encoder = Callable[[Any, Active], bytes]


def encode(value: Any, parameter: str = "value", function: str = "") -> bytes:
    """The canonical bytes of a value; `UnkeyableArgument` names `function`, `parameter` and the path inside it.

    What a `__memover_key__()` or a registered function raises comes through as it is.
    """
    try:
        return encode_whole(value)
    except Unkeyable as refused:
        raise refused.unkeyable(function, parameter) from refused.__cause__


def encode_whole(value: Any) -> bytes:
    """The canonical bytes of a value that is inside no other; raises `Unkeyable`.

    Within the limit of nesting a RecursionError is never the value's fault: the caller has used up the stack."""
    return encode_part(value, {})


def encode_part(value: Any, active: Active) -> bytes:
    """The canonical bytes of a value inside others; raises `Unkeyable`."""
    kind = type(value)
    if kind is str:
        return b"s%d:%b" % (len(value), value.encode("utf-8", "surrogatepass"))
    if kind is int:
        return b"i%b;" % hex(value).encode()
    encoder = _encoders.get(kind)
    if encoder is None:
        encoder = _resolve(kind, value)
    return encoder(value, active)


def enter(value: Any, active: Active) -> None:
    """Notes a container as under way; `Unkeyable` if it already is, or lies too deep."""
    if id(value) in active:
        raise Unkeyable(value, "it holds itself")
    if len(active) >= DEPTH_LIMIT:
        raise Unkeyable(value, f"it is nested more than {DEPTH_LIMIT} deep")
    active[id(value)] = value


def composite(label: str, *parts: bytes) -> bytes:
    """The form of every type outside the table: a label that names the type, then its parts."""
    return b"x%d:s%d:%b%b" % (len(parts), len(label), label.encode(), b"".join(parts))


def builtin_base(kind: type) -> type | None:
    """The type of the table that a class derives from, if any: what it holds is more than its fields."""
    return next((base for base in kind.__mro__[1:] if base in _TABLE), None)


def class_part(kind: type) -> bytes:
    """A class by the name it has in every process."""
    return encode_part(class_name(kind), {})


# ------------------------------------------------------------------ the table


def _items(head: bytes, *, ordered: bool = True) -> Encoder:
    def encode_items(value: Any, active: Active) -> bytes:
        enter(value, active)
        parts: list[bytes] = []
        try:
            for item in value:
                parts.append(encode_part(item, active))
        except Unkeyable as refused:
            refused.steps.append(f"[{len(parts)}]" if ordered else "{...}")
            raise
        finally:
            del active[id(value)]
        if not ordered:
            parts.sort()
        return b"%b%d:%b" % (head, len(parts), b"".join(parts))

    return encode_items


def pairs(items: Iterable[tuple[Any, Any]], active: Active) -> list[bytes]:
    """Key and value of each item as bytes, joined, in the order given."""
    parts: list[bytes] = []
    for key, value in items:
        try:
            head = encode_part(key, active)
        except Unkeyable as refused:
            refused.steps.append(".keys()")
            raise
        try:
            parts.append(head + encode_part(value, active))
        except Unkeyable as refused:
            refused.steps.append(step(key))
            raise
    return parts


def _dict(value: Any, active: Active) -> bytes:
    enter(value, active)
    try:
        parts = sorted(pairs(list(value.items()), active))
    finally:
        del active[id(value)]
    return b"d%d:%b" % (len(parts), b"".join(parts))


_TABLE: dict[type, Encoder] = {
    type(None): lambda value, active: b"N",
    bool: lambda value, active: b"T" if value else b"F",
    int: lambda value, active: b"i%b;" % hex(value).encode(),
    float: lambda value, active: b"f%b;" % value.hex().encode(),
    complex: lambda value, active: b"j%b,%b;" % (value.real.hex().encode(), value.imag.hex().encode()),
    str: lambda value, active: b"s%d:%b" % (len(value), value.encode("utf-8", "surrogatepass")),
    bytes: lambda value, active: b"b%d:%b" % (len(value), value),
    tuple: _items(b"t"),
    list: _items(b"l"),
    set: _items(b"e", ordered=False),
    frozenset: _items(b"z", ordered=False),
    dict: _dict,
}

_encoders: dict[type, Encoder] = dict(_TABLE)
"""The encoder of every type seen so far."""

_TYPES_LIMIT = 4096

# ------------------------------------------------------------------ foreign types

_registered: dict[type, Callable[[Any], Any]] = {}


def register_key(kind: type, fn: Callable[[Any], Any], /) -> None:
    """Teaches memover what tells the objects of a foreign type apart.

    `fn(value)` returns something that can be part of a key, a tuple of its fields say. The qualified name of
    the object's own class enters too, so that a subclass (which is covered as well) never shares with its
    base. Registering a type again replaces what was registered. The types of the module's table cannot be
    registered (`ConfigurationError`). Call it at import time, in every process alike.
    """
    if not isinstance(kind, type):
        raise ConfigurationError(f"register_key() takes a class first, not {kind!r}; write register_key(Cls, fn)")
    if kind in _TABLE or kind is object:
        raise ConfigurationError(
            f"register_key() cannot change how {kind.__qualname__} enters a key; register a class of your own"
        )
    if not callable(fn):
        raise ConfigurationError(f"register_key({kind.__qualname__}, fn) needs a callable, not {fn!r}")
    _registered[kind] = fn
    _forget()
    for other in list(_forgetting):
        other.clear()


def register_proxy(kind: type, inner: Callable[[Any], Any]) -> None:
    """Has the objects of a class and of its subclasses enter keys as what they stand for, which `inner` returns."""
    _proxies[kind] = inner
    _forget()


_proxies: dict[type, Callable[[Any], Any]] = {}


class Keyed(NamedTuple):
    """Stands for an object of the class `kind` whose `__memover_key__()` returned `part`: has the object's bytes."""

    kind: type
    part: Any


def _encode_stand_in(value: Keyed, active: Active) -> bytes:
    if value.kind in _registered or value.kind in _TABLE:
        raise Unkeyable(value, "its class is registered")
    return composite("key", class_part(value.kind), encode_part(value.part, active))


_TABLE[Keyed] = _encoders[Keyed] = _encode_stand_in

_forgetting: Living[Any] = Living()


def forget_with(other: Any) -> None:
    """Has `other.clear()` called when a type is registered: until then equal objects keep their bytes."""
    _forgetting.add(other)


def _keyed(kind: type, label: str, fn: Callable[[Any], Any], name: str) -> Encoder:
    head = class_part(kind)

    def encode_keyed(value: Any, active: Active) -> bytes:
        enter(value, active)
        try:
            return composite(label, head, encode_part(_asked(fn, value, name), active))
        except Unkeyable as refused:
            refused.steps.append(f".{name}()" if label == "key" else "")
            raise
        finally:
            del active[id(value)]

    return encode_keyed


def _proxied(inner: Callable[[Any], Any]) -> Encoder:
    def encode_proxied(value: Any, active: Active) -> bytes:
        enter(value, active)
        try:
            return encode_part(_asked(inner, value, "what is behind an object"), active)
        finally:
            del active[id(value)]

    return encode_proxied


def _asked(fn: Callable[[Any], Any], value: Any, name: str) -> Any:
    try:
        return fn(value)
    except Exception as error:
        if sys.version_info >= (3, 11):
            error.add_note(f"raised by {name} of {type_name(type(value))} while memover was making a key")
        raise


def _resolve(kind: type, value: Any) -> Encoder:
    """Finds and keeps the encoder of a type that is not in the table; raises `Unkeyable`."""
    encoder = _find(kind, value)
    if len(_encoders) >= _TYPES_LIMIT:  # classes made at run time, without end
        _forget()
    _encoders[kind] = encoder
    return encoder


def _forget() -> None:
    for kind in list(_encoders):
        if kind not in _TABLE:
            _encoders.pop(kind, None)


def _find(kind: type, value: Any) -> Encoder:
    if kind in _registered:
        return _keyed(kind, "registered", _registered[kind], "the registered key function")
    if callable(getattr(kind, "__memover_key__", None)):
        return _keyed(kind, "key", methodcaller("__memover_key__"), "__memover_key__")
    for base in kind.__mro__[1:]:
        if base in _registered:
            return _keyed(kind, "registered", _registered[base], "the registered key function")
    for base in kind.__mro__:
        if base in _proxies:
            return _proxied(_proxies[base])
    # Imported at the first type that is not in the table, which many programs never meet; they import this module.
    from memover.keys import arrays, passing, records, tables, types

    hint = passing.hint_for(kind)
    if hint:
        raise Unkeyable(value, "it is not a value", hint)
    encoder = types.find(kind) or records.find(kind) or arrays.find(kind) or tables.find(kind)
    if encoder is not None:
        return encoder
    builtin = builtin_base(kind)
    if builtin is not None:
        raise Unkeyable(value, f"a subclass never passes for its base, {builtin.__qualname__}")
    raise Unkeyable(value, *(passing.fleeting(kind) or ("memover knows nothing that tells its objects apart",)))
