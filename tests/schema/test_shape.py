"""Shapes: one text for one meaning, whatever its spelling."""
# ruff: noqa: UP006, UP007, UP037, UP045, PIE796  (every spelling is a case)

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import json
import subprocess
import sys
import typing
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import attrs
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
from typing_extensions import NotRequired, ReadOnly, Required, Self, TypeAliasType

import memover
from memover.classes.annotations import Scope
from memover.schema.compare import changes
from memover.schema.derive import shape_of
from memover.schema.reader import AnnotationReader
from memover.schema.shape import NO_FINGERPRINT, Shape, parse

T = TypeVar("T")
B = TypeVar("B", bound=int)
UserId = NewType("UserId", int)
Pair = TypeAliasType("Pair", tuple[T, T], type_params=(T,))
Json = TypeAliasType("Json", "dict[str, Json] | list[Json] | str | None")


@dataclasses.dataclass
class Leaf:
    value: int


@dataclasses.dataclass
class Tree:
    left: Tree | None
    right: Optional["Tree"]
    leaves: list[Leaf] = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "tree"
    fixed: Final[int] = 3


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    more: list[T]


@dataclasses.dataclass
class IntBox(Box[int]):
    label: str


@dataclasses.dataclass
class Linked:
    next: Self | None
    date: dt.date = None  # type: ignore[assignment]  # a field of the name of a type


@attrs.define
class Point:
    x: float
    y: float = 0.0


class Event(msgspec.Struct, rename="camel"):
    event_name: str


class Order(pydantic.BaseModel, Generic[T]):
    item: T
    number: int = pydantic.Field(alias="orderNumber", default=3)
    _note: str = pydantic.PrivateAttr("")


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Colour(enum.Enum):
    RED = "r"
    BLUE = 2
    ROUGE = "r"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Row(TypedDict, total=False):
    id: Required[int]
    note: str


class Wide(Row):
    size: ReadOnly[NotRequired[int]]
    parent: Wide


class Spot(NamedTuple):
    lon: float
    lat: float


class Amount(int):
    """A builtin with a name."""


class Names(list[str]):
    """A generic builtin with a name."""


class Trouble(ValueError):
    """An exception."""


class Known:
    """Registered, so what it stores is its encoder's business."""


class Silent:
    """A class that says little."""

    tagged: int

    def __init__(self, name: str, other) -> None:  # type: ignore[no-untyped-def]
        self.name = name
        self.other = other
        self.made = 1


memover.register_value(Known, lambda value: 1, lambda value: Known())


def annotation_shape(annotation: Any, module: str = "") -> Shape:
    return AnnotationReader().shape(annotation, Scope(module))


def text(annotation: Any) -> str:
    return str(annotation_shape(annotation, __name__))


SAME = [
    (Optional[int], "int | None\n"),
    (Union[None, str, int, str], "int | str | None\n"),
    (typing.List[int], "list[int]\n"),
    (list, "list[Any]\n"),
    (dict, "dict[Any, Any]\n"),
    (typing.Dict[str, typing.Tuple[int, ...]], "dict[str, tuple[int, ...]]\n"),
    (tuple[()], "tuple[()]\n"),
    (tuple, "tuple[Any, ...]\n"),
    (Annotated[int, "metres"], "int\n"),
    (UserId, "int\n"),
    (Pair[int], "tuple[int, int]\n"),
    (Literal["b", 1, "a", None], "Literal['a', 'b', 1] | None\n"),
    (Union[Literal["b"], Literal["a"], int], "Literal['a', 'b'] | int\n"),
    (Literal[HTTPStatus.OK], "Literal[HTTPStatus.OK]\n"),
    (typing.Sequence[int], "Sequence[int]\n"),
    (collections.abc.Sequence[int], "Sequence[int]\n"),
    (typing.DefaultDict[str, int], "defaultdict[str, int]\n"),
    (defaultdict[str, int], "defaultdict[str, int]\n"),
    (OrderedDict[str, int], "OrderedDict[str, int]\n"),
    (deque[int], "deque[int]\n"),
    (dt.datetime, "datetime\n"),
    (Decimal | UUID | Path | bytes, "Decimal | Path | UUID | bytes\n"),
    (HTTPStatus, "HTTPStatus\n"),
    (npt.NDArray[np.float64], "ndarray[float64]\n"),
    (B, "int\n"),
    ("dict[str, 'Leaf | None']", "dict[str, Leaf | None]\n\nclass Leaf\n  value: int\n"),
    (Any, "Any\n"),
    (None, "None\n"),
]


@pytest.mark.parametrize(("annotation", "expected"), SAME, ids=[str(each) for each, _ in SAME])
def test_spellings_of_one_meaning_are_one_text(annotation: Any, expected: str) -> None:
    """What is not stored does not show."""
    assert text(annotation) == expected


CLASSES = {
    Tree: "Tree\n\nclass Leaf\n  value: int\n\nclass Tree\n  fixed: int\n  leaves: list[Leaf]\n"
    "  left: Tree | None\n  right: Tree | None\n",
    IntBox: "IntBox\n\nclass IntBox\n  content: int\n  label: str\n  more: list[int]\n",
    Box[Leaf]: "Box[Leaf]\n\nclass Box[Leaf]\n  content: Leaf\n  more: list[Leaf]\n\nclass Leaf\n  value: int\n",
    Linked: "Linked\n\nclass Linked\n  date: date\n  next: Linked | None\n",
    Point: "Point\n\nclass Point\n  x: float\n  y: float\n",
    Event: "Event\n\nstruct Event\n  event_name: str\n",
    Order[int]: "Order[int]\n\nmodel Order[int]\n  _note: str\n  item: int\n  number: int\n",
    Open: "Open\n\nmodel Open\n  *?: Any\n",
    Colour: "Colour\n\nenum Colour\n  BLUE = 2\n  RED = 'r'\n",
    Access: "Access\n\nenum Access\n  READ = 1\n  WRITE = 2\n",
    Row: "Row\n\ntypeddict Row\n  id: int\n  note?: str\n",
    Wide: "Wide\n\ntypeddict Wide\n  id: int\n  note?: str\n  parent: Wide\n  size?: int\n",
    Spot: "Spot\n\nnamedtuple Spot\n  lon: float\n  lat: float\n",
    Amount: "Amount\n\nsubclass Amount\n  = int\n",
    Names: "Names\n\nsubclass Names\n  = list[str]\n",
    Trouble: "Trouble\n\nsubclass Trouble\n  = ValueError\n",
    Known: "Known\n\nregistered Known\n",
    Silent: "Silent\n\nplain Silent\n  made: ?\n  name: str\n  other: ?\n  tagged: int\n",
}


@pytest.mark.parametrize("kind", CLASSES, ids=str)
def test_each_kind_of_class_shows_what_it_stores(kind: Any) -> None:
    """Fields by name, inherited and generic ones resolved."""
    assert text(kind) == CLASSES[kind]


@pytest.mark.parametrize("annotation", [*[each for each, _ in SAME], *CLASSES, Json], ids=str)
def test_a_text_can_be_read_back(annotation: Any) -> None:
    """The lock holds shapes as text, and compares them."""
    shape = annotation_shape(annotation, __name__)
    again = parse(str(shape))
    assert again == shape
    assert again.fingerprint == shape.fingerprint
    assert changes(again, shape) == []


def test_a_recursive_alias_is_a_name() -> None:
    """It could not be written out."""
    shape = annotation_shape(Json, __name__)
    assert str(shape) == "Json\n\nalias Json\n  = dict[str, Json] | list[Json] | str | None\n"


def test_what_is_imported_for_type_checkers_only_is_marked_and_the_rest_is_known() -> None:
    """A name that is not there at run time begins with a question mark."""

    def function() -> dict[str, list[Nowhere] | None]:  # type: ignore[name-defined]  # noqa: F821
        raise NotImplementedError

    shape = shape_of(function)
    assert shape.root == "dict[str, list[?Nowhere] | None]"
    assert shape.unknown == ("?Nowhere",)


def test_a_union_with_an_unknown_name_keeps_the_other_members() -> None:
    """`|` on a name that is not there is still a union."""

    def function() -> Nowhere | Leaf | None:  # type: ignore[name-defined]  # noqa: F821
        raise NotImplementedError

    assert shape_of(function).root == "?Nowhere | Leaf | None"


def test_of_a_function_without_annotation_nothing_is_known() -> None:
    """And its fingerprint says so."""

    def function():  # type: ignore[no-untyped-def]
        return 1

    assert shape_of(function).unknown == ("?",)
    assert shape_of(function).fingerprint == NO_FINGERPRINT
    assert annotation_shape(Any).fingerprint == NO_FINGERPRINT


def test_self_in_a_method_is_its_class() -> None:
    """A method may return its own class by that name."""
    assert shape_of(Maker.make).root == "Maker"


@dataclasses.dataclass
class Maker:
    size: int

    def make(self) -> Self:
        return self


def two(name: str) -> Any:
    return dataclasses.make_dataclass(name, [("only_" + name, int)])


def test_two_classes_of_one_name_are_told_apart() -> None:
    """By a number that does not depend on which is met first."""
    one, other = two("Item"), dataclasses.make_dataclass("Item", [("zzz", int)])
    first, second = annotation_shape(dict[one, other]), annotation_shape(dict[other, one])
    assert first.root == "dict[Item, Item#2]"
    assert second.root == "dict[Item#2, Item]"
    assert first.definitions == second.definitions


def test_the_name_of_a_typed_dict_is_for_the_reader_alone() -> None:
    """Renamed everywhere, recursion included, it has the same fingerprint; a changed key has not."""
    before = parse("Row | tuple[Row, int]\n\ntypeddict Row\n  id: int\n  parent?: Row | None\n")
    after = parse("Record | tuple[Record, int]\n\ntypeddict Record\n  id: int\n  parent?: Record | None\n")
    other = parse("Record | tuple[Record, int]\n\ntypeddict Record\n  id: str\n  parent?: Record | None\n")
    assert before.fingerprint == after.fingerprint
    assert changes(before, after) == []
    assert before.fingerprint != other.fingerprint
    assert "Record.id: int -> str" in map(str, changes(before, other))


def test_a_quoted_name_is_no_name() -> None:
    """A literal that reads like a typed dict's name stays what it is."""
    one = parse("Literal['Row'] | Row\n\ntypeddict Row\n  id: int\n")
    other = parse("Literal['Other'] | Row\n\ntypeddict Row\n  id: int\n")
    assert one.fingerprint != other.fingerprint


def test_growing_generics_have_an_end() -> None:
    """A class that holds itself with ever longer arguments is cut off, and does not hang."""

    def growing() -> Growing[int]: ...  # type: ignore[empty-body]

    assert "?" in str(shape_of(growing))


@dataclasses.dataclass
class Growing(Generic[T]):
    next: Growing[list[T]]


GOLDEN = {
    "Tree": "6aa4ce475abbad5f",
    "IntBox": "d5c81ee8a92da25a",
    "Colour": "cc93a93cbea3a141",
    "Wide": "7fd4e4bd1308ea3a",
    "Spot": "7f4cd2edecde85d3",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_fingerprints_are_the_same_for_good(name: str) -> None:
    """On every Python, platform and release: entries of yesterday are compared with them."""
    assert annotation_shape(globals()[name], __name__).fingerprint.hex() == GOLDEN[name]


def test_fingerprints_do_not_depend_on_the_process() -> None:
    """Neither hash seeds nor the order of imports matter."""
    code = (
        "import sys, json, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('shapes_under_test', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); sys.modules[spec.name] = module; spec.loader.exec_module(module)\n"
        "print(json.dumps({n: module.annotation_shape(getattr(module, n), spec.name).fingerprint.hex() for n in module.GOLDEN}))"
    )
    for seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(ended.stdout) == GOLDEN


def test_deriving_a_shape_loads_no_library() -> None:
    """Whoever does not use pydantic does not pay for it."""
    code = (
        "import sys\nfrom memover.schema.derive import shape_of\ndef f() -> list[int]: ...\nshape_of(f)\n"
        "print([n for n in ('pydantic', 'attrs', 'msgspec', 'numpy', 'redis', 'click', 'rich') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
