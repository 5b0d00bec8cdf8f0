"""The standard library's containers that msgpack does not know: each is an array headed by a mark.

A writer returns `[mark, ...]` and leaves the items to msgpack; a builder is handed that array when all items
in it have been rebuilt. Neither walks into the items.

`CONTENT` does the same for what an instance of a subclass holds. It takes and puts content with the builtin's own methods,
never the subclass's: an overridden `__iter__` or `__setitem__` must not decide what is stored.
"""

from __future__ import annotations

import datetime as dt
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Any

from memover.classes.layout import BUILTINS
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Mark, Unencodable, extension
from memover.codec.mv1.limits import LONG_BYTES, check_keys

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONTENT", "MARKS", "WRITERS"]

_TUPLE = extension(f.TUPLE, b"")
_SET = extension(f.SET, b"")
_FROZENSET = extension(f.FROZENSET, b"")
_DEQUE = extension(f.DEQUE, b"")
_COUNTER = extension(f.COUNTER, b"")
_DEFAULTDICT = extension(f.DEFAULTDICT, b"")
_ORDEREDDICT = extension(f.ORDEREDDICT, b"")
_CHAINMAP = extension(f.CHAINMAP, b"")
_MAPPINGPROXY = extension(f.MAPPINGPROXY, b"")
_RANGE = extension(f.RANGE, b"")
_SLICE = extension(f.SLICE, b"")
_NAMESPACE = extension(f.NAMESPACE, b"")

_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (*BUILTINS, bool, Counter)}

FACTORY_DEPTH_LIMIT = 50
"""How many defaultdicts may be each other's factories."""


def factory_name(factory: Any, depth: int = 0) -> str | list[Any] | None:
    """The stored name of a defaultdict's factory; refuses all but builtins and partials of defaultdict."""
    if depth > FACTORY_DEPTH_LIMIT:
        raise Unencodable("a defaultdict of absurdly many defaultdicts", "return dict(it)")
    if factory is None:
        return None
    name: str = getattr(factory, "__name__", "")
    if name in _FACTORIES and _FACTORIES[name] is factory:
        return name
    if getattr(factory, "func", None) is defaultdict and len(factory.args) == 1 and not factory.keywords:
        return ["defaultdict", factory_name(factory.args[0], depth + 1)]
    raise Unencodable(
        f"a defaultdict whose factory is {factory!r}",
        "use a builtin class or functools.partial(defaultdict, ...) as its factory, or return dict(it)",
    )


def factory_of(name: Any, depth: int = 0) -> Any:
    """The factory of a stored name."""
    if depth > FACTORY_DEPTH_LIMIT:
        raise ValueError("a defaultdict of absurdly many defaultdicts")
    if name is None:
        return None
    if type(name) is str:
        return _FACTORIES[name]
    from functools import partial

    head, inner = name
    if head != "defaultdict":
        raise ValueError("no factory of a defaultdict")
    return partial(defaultdict, factory_of(inner, depth + 1))


def _map(content: Any) -> dict[Any, Any]:
    if type(content) is not dict:
        raise ValueError("no map where one belongs")
    return content


def _keys(items: list[Any]) -> list[Any]:
    check_keys(items)
    return items


def _write_counter(value: Counter[Any], _: Any) -> list[Any]:
    if value.__dict__:
        raise Unencodable("a Counter with attributes of its own", "return a dataclass that holds both")
    return [_COUNTER, dict(value)]


def _write_ordereddict(value: OrderedDict[Any, Any], _: Any) -> list[Any]:
    if vars(value):
        raise Unencodable("an OrderedDict with attributes of its own", "return a dataclass that holds both")
    return [_ORDEREDDICT, *(each for pair in value.items() for each in pair)]


def _build_ordereddict(items: list[Any]) -> OrderedDict[Any, Any]:
    if len(items) % 2 == 0:
        raise ValueError("a key without a value")
    return OrderedDict(zip(_keys(items[1::2]), items[2::2]))


def _write_chainmap(value: ChainMap[Any, Any], _: Any) -> list[Any]:
    if vars(value).keys() != {"maps"}:
        raise Unencodable("a ChainMap with attributes of its own", "return a dataclass that holds both")
    return [_CHAINMAP, *value.maps]


def _build_chainmap(items: list[Any]) -> ChainMap[Any, Any]:
    from collections.abc import MutableMapping

    if len(items) < 2 or not all(isinstance(each, MutableMapping) for each in items[1:]):
        raise ValueError("a ChainMap of something else than maps")
    return ChainMap(*items[1:])


def _write_mappingproxy(value: types.MappingProxyType[Any, Any], _: Any) -> list[Any]:
    content = value.copy()
    if type(content) is not dict:
        raise Unencodable(f"a mappingproxy of a {type(content).__qualname__}", "return a plain dict")
    return [_MAPPINGPROXY, content]


def _write_range(value: range, _: Any) -> list[Any]:
    if any(each.bit_length() > 8 * LONG_BYTES for each in (value.start, value.stop, value.step)):
        raise Unencodable(f"a range of ints of more than {LONG_BYTES:,} bytes", "return its start, stop and step")
    return [_RANGE, value.start, value.stop, value.step]


def _build_range(items: list[Any]) -> range:
    _, start, stop, step = items
    if not type(start) is type(stop) is type(step) is int:
        raise ValueError("a range of something else than ints")
    if any(each.bit_length() > 8 * LONG_BYTES for each in (start, stop, step)):
        raise ValueError("a range whose hash takes long")
    return range(start, stop, step)


def _build_slice(items: list[Any]) -> slice:
    _, start, stop, step = items
    return slice(start, stop, step)


def _build_deque(items: list[Any]) -> deque[Any]:
    limit = items[1]
    if limit is not None and (type(limit) is not int or len(items) - 2 > limit):
        raise ValueError("a deque longer than its limit")
    return deque(items[2:], limit)


def _build_defaultdict(items: list[Any]) -> defaultdict[Any, Any]:
    _, name, content = items
    return defaultdict(factory_of(name), _map(content))


def _build_namespace(items: list[Any]) -> types.SimpleNamespace:
    _, content = items
    return types.SimpleNamespace(**_map(content))


def _build_aware(items: list[Any]) -> dt.time | dt.datetime:
    _, naive, zone = items
    if not isinstance(naive, (dt.time, dt.datetime)) or naive.tzinfo is not None or not isinstance(zone, dt.tzinfo):
        raise ValueError("no naive time, or no zone")
    return naive.replace(tzinfo=zone)


WRITERS: dict[type, Callable[[Any, Any], list[Any]]] = {
    tuple: lambda value, _: [_TUPLE, *value],
    set: lambda value, _: [_SET, *value],
    frozenset: lambda value, _: [_FROZENSET, *value],
    deque: lambda value, _: [_DEQUE, value.maxlen, *value],
    Counter: _write_counter,
    defaultdict: lambda value, _: [_DEFAULTDICT, factory_name(value.default_factory), dict(value)],
    OrderedDict: _write_ordereddict,
    ChainMap: _write_chainmap,
    types.MappingProxyType: _write_mappingproxy,
    range: _write_range,
    slice: lambda value, _: [_SLICE, value.start, value.stop, value.step],
    types.SimpleNamespace: lambda value, _: [_NAMESPACE, dict(vars(value))],
}


# What instances of subclasses hold


def _pairs(value: Any) -> list[Any]:
    return [each for pair in OrderedDict.items(value) for each in pair]


def _array(content: Any) -> Any:
    if type(content) is not list:
        raise ValueError("no array where one belongs")
    return content


def _make_dict(cls: Any, content: Any) -> Any:
    value = dict.__new__(cls)
    dict.update(value, _map(content))
    return value


def _make_defaultdict(cls: Any, content: Any) -> Any:
    factory, items = _array(content)
    value = defaultdict.__new__(cls)
    defaultdict.__init__(value, factory_of(factory))
    dict.update(value, _map(items))
    return value


def _make_ordereddict(cls: Any, content: Any) -> Any:
    value = OrderedDict.__new__(cls)
    if len(_array(content)) % 2:
        raise ValueError("a key without a value")
    for key, each in zip(_keys(content[::2]), content[1::2]):
        OrderedDict.__setitem__(value, key, each)
    return value


def _make_deque(cls: Any, content: Any) -> Any:
    limit, items = _array(content)
    value = deque.__new__(cls)
    deque.__init__(value, _array(items), limit)
    return value


def _make_list(cls: Any, content: Any) -> Any:
    value = list.__new__(cls)
    list.extend(value, _array(content))
    return value


def _make_set(cls: Any, content: Any) -> Any:
    value = set.__new__(cls)
    set.update(value, _keys(_array(content)))
    return value


def _make_bytearray(cls: Any, content: Any) -> Any:
    value = bytearray.__new__(cls)
    bytearray.__init__(value, _scalar(content, bytes))
    return value


def _scalar(content: Any, kind: type) -> Any:
    if type(content) is not kind:
        raise ValueError("content of another kind than the base")
    return content


# Builtin -> (value -> its content as plain builtins, (class, content) -> a bare instance with that content)
CONTENT: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    dict: (lambda value: dict(dict.items(value)), _make_dict),
    defaultdict: (lambda value: [factory_name(value.default_factory), dict(dict.items(value))], _make_defaultdict),
    OrderedDict: (_pairs, _make_ordereddict),
    list: (lambda value: list(list.__iter__(value)), _make_list),
    tuple: (lambda value: list(tuple.__iter__(value)), lambda cls, content: tuple.__new__(cls, _array(content))),
    set: (lambda value: list(set.__iter__(value)), _make_set),
    frozenset: (
        lambda value: list(frozenset.__iter__(value)),
        lambda cls, content: frozenset.__new__(cls, _keys(_array(content))),
    ),
    deque: (lambda value: [value.maxlen, list(deque.__iter__(value))], _make_deque),
    str: (str.__str__, lambda cls, content: str.__new__(cls, _scalar(content, str))),
    bytes: (
        lambda value: bytes.__getitem__(value, slice(None)),
        lambda cls, content: bytes.__new__(cls, _scalar(content, bytes)),
    ),
    bytearray: (lambda value: bytes(bytearray.__getitem__(value, slice(None))), _make_bytearray),
    int: (int.__pos__, lambda cls, content: int.__new__(cls, _scalar(content, int))),
    float: (float.__pos__, lambda cls, content: float.__new__(cls, _scalar(content, float))),
    complex: (complex.__pos__, lambda cls, content: complex.__new__(cls, _scalar(content, complex))),
}

MARKS: dict[int, Mark] = {
    f.TUPLE: Mark(lambda items: tuple(items[1:])),
    f.SET: Mark(lambda items: set(_keys(items[1:]))),
    f.FROZENSET: Mark(lambda items: frozenset(_keys(items[1:]))),
    f.DEQUE: Mark(_build_deque),
    f.COUNTER: Mark(lambda items: _make_dict(Counter, *items[1:])),
    f.DEFAULTDICT: Mark(_build_defaultdict),
    f.ORDEREDDICT: Mark(_build_ordereddict),
    f.CHAINMAP: Mark(_build_chainmap),
    f.MAPPINGPROXY: Mark(lambda items: types.MappingProxyType(_map(*items[1:]))),
    f.RANGE: Mark(_build_range),
    f.SLICE: Mark(_build_slice),
    f.NAMESPACE: Mark(_build_namespace),
    f.AWARE: Mark(_build_aware),
}
