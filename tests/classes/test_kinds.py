"""One place says what kind of class a class is, and it says it of every kind."""

from __future__ import annotations

import ast
import dataclasses
import enum
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

import memover
from memover.classes.kinds import ClassKind, declared, declares_itself, field_names, foreign, frozen, kind_of
from memover.classes.layout import base_of, keeps_dict, slots_of


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntFlag):
    ONE = 1


class Wrong(ValueError):
    pass


class Pair(NamedTuple):
    left: int
    right: int


class Row(TypedDict):
    id: int


class Model(pydantic.BaseModel):
    b: int
    a: int = 1


class Event(msgspec.Struct, frozen=True):
    name: str


@attrs.define
class Point:
    x: int


@attrs.frozen
class Fixed:
    x: int


@dataclasses.dataclass
class Leaf:
    value: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: int


@dataclasses.dataclass
class WrongData(Exception):
    code: int


@dataclasses.dataclass
class OverAttrs(Point):
    y: int


@attrs.define
class OverData(Leaf):
    more: int


class Below(Leaf):
    pass


class Text(str):
    __slots__ = ()


class Ordered(OrderedDict[str, int]):
    pass


class Plain:
    def __init__(self) -> None:
        self._fields = ("a",)


class Lookalike(tuple[int, ...]):
    """A tuple with something by the name of a named tuple's."""

    _fields = ("a",)


KINDS: dict[Any, tuple[ClassKind, tuple[str, ...]]] = {
    Colour: (ClassKind.ENUM, ()),
    Number: (ClassKind.ENUM, ()),
    Wrong: (ClassKind.EXCEPTION, ()),
    WrongData: (ClassKind.EXCEPTION, ()),
    Pair: (ClassKind.NAMEDTUPLE, ("left", "right")),
    Row: (ClassKind.TYPEDDICT, ()),
    Model: (ClassKind.MODEL, ("b", "a")),
    Event: (ClassKind.STRUCT, ("name",)),
    Point: (ClassKind.ATTRS, ("x",)),
    Leaf: (ClassKind.DATACLASS, ("value",)),
    Below: (ClassKind.DATACLASS, ("value",)),
    OverAttrs: (ClassKind.DATACLASS, ("y",)),
    OverData: (ClassKind.ATTRS, ("more",)),
    Text: (ClassKind.BUILTIN, ()),
    Ordered: (ClassKind.BUILTIN, ()),
    Lookalike: (ClassKind.BUILTIN, ()),
    Plain: (ClassKind.PLAIN, ()),
    object: (ClassKind.PLAIN, ()),
}


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_each_class_has_one_kind(cls: Any) -> None:
    """The nearest declaration counts where two are inherited."""
    kind, names = KINDS[cls]
    assert kind_of(cls) is kind
    assert field_names(cls, kind) == names


def test_an_exception_may_declare_fields() -> None:
    """It is kept as an exception, and its fields can be asked for."""
    assert declared(WrongData) is ClassKind.DATACLASS
    assert declared(Wrong) is None
    assert declares_itself(Leaf)
    assert not declares_itself(Below)


def test_frozen_is_what_the_class_itself_says() -> None:
    """A class below a frozen one is none unless it says so."""

    class Thawed(Frozen):
        pass

    assert all(frozen(cls, kind_of(cls)) for cls in (Frozen, Fixed, Event))
    assert not any(frozen(cls, kind_of(cls)) for cls in (Leaf, Point, Thawed, Pair, Plain))


def test_layouts() -> None:
    """The builtin a class is laid out on, its slots, its dict."""

    class Slotted:
        __slots__ = ("a", "__b")

    assert [base_of(cls) for cls in (Text, Ordered, Plain, Pair, Slotted)] == [str, OrderedDict, object, tuple, object]
    assert base_of(range) is None
    assert set(slots_of(Slotted)) == {"a", "_Slotted__b"}
    assert [keeps_dict(cls) for cls in (Plain, Slotted, Text)] == [True, False, False]


def test_foreign_classes_are_the_standard_librarys_and_array_libraries() -> None:
    """Not those of a program, wherever it runs."""
    np = pytest.importorskip("numpy")
    assert all(map(foreign, (int, OrderedDict, Path, np.ndarray)))
    assert not any(map(foreign, (Plain, Model, dataclasses.make_dataclass("Made", ["a"]))))


MARKERS = re.compile(
    r"__attrs_attrs__|__dataclass_fields__|__dataclass_params__|__struct_fields__|__struct_config__|__required_keys__"
    r"|__pydantic_fields__|\bis_dataclass\b|\bdataclasses\.fields\b|\bmodel_fields\b|\bEnumMeta\b|\._fields\b(?! *\()"
)


def code_of(path: Path) -> str:
    """A module's source without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def test_nobody_else_tells_classes_apart() -> None:
    """Keys, codec and schema know the marks of no library's classes; they ask `memover.classes`."""
    root = Path(memover.__file__).parent
    found = {
        path.relative_to(root).as_posix(): MARKERS.findall(code_of(path))
        for part in ("keys", "codec", "schema")
        for path in (root / part).rglob("*.py")
        # A syntax tree's nodes have `_fields` too.
        if path.name != "body.py" and MARKERS.search(code_of(path))
    }
    assert found == {}
    assert MARKERS.search(code_of(root / "classes" / "kinds.py"))
