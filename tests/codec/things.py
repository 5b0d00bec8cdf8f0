"""Classes of every kind that a program's results are made of."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

T = TypeVar("T")
RUNS: list[str] = []


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"
    CRIMSON = 1  # noqa: PIE796


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4
    ALL = 7


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclass
class Friend:
    name: str
    photo: Any = None


@dataclass
class Profile:
    user_id: int
    name: str
    friends: list[Friend] = field(default_factory=list)
    colour: Colour = Colour.RED
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclass(slots=True)
class Slotted:
    x: int
    y: Any = None


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    x: int
    y: Any = None


@dataclass
class Base:
    a: int


@dataclass
class Derived(Base):
    b: str = "b"


@dataclass(slots=True)
class SlottedBelow(Base):
    c: int = 0


class PlainBelow(Base):
    """Not a dataclass itself; its fields are the inherited ones."""


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Computed:
    a: int
    factor: InitVar[int] = 2
    total: int = field(init=False)
    never: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, factor: int) -> None:
        RUNS.append("post_init")
        self.total = self.a * factor
        self.cache = {"seen": [self.a]}


@dataclass
class Empty:
    pass


@dataclass
class Strict:
    """Guards its attributes, as some programs' classes do."""

    a: int

    def __setattr__(self, name: str, value: Any) -> None:
        RUNS.append("setattr")
        object.__setattr__(self, name, value)


class Pair(NamedTuple):
    left: int
    right: Any = None


OldPair = namedtuple("OldPair", "left right")


class Row(TypedDict):
    id: int
    who: Friend


class MyDict(dict):
    def __setitem__(self, key: Any, value: Any) -> None:
        RUNS.append("setitem")
        super().__setitem__(key, value)

    def items(self) -> Any:
        raise AssertionError("not asked")


class MyList(list):
    pass


class MyTuple(tuple):
    pass


class MySet(set):
    pass


class MyFrozenSet(frozenset):
    pass


class MyStr(str):
    pass


class SlottedStr(str):
    __slots__ = ()


class MyInt(int):
    pass


class MyFloat(float):
    pass


class MyBytes(bytes):
    pass


class MyByteArray(bytearray):
    pass


class MyComplex(complex):
    pass


class MyDeque(deque):
    pass


class MyOrdered(OrderedDict):
    pass


class MyCounter(Counter):
    pass


class MyDefault(defaultdict):
    pass


class NotFound(LookupError):
    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what} not found")
        self.what = what
        self.hint = hint


class Slow(OSError):
    pass


class Canary:
    """Records every way in which somebody could make or change one."""

    def __new__(cls, *args: Any) -> Canary:
        RUNS.append("new")
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        RUNS.append("init")

    def __setstate__(self, state: Any) -> None:
        RUNS.append("setstate")

    def __reduce__(self) -> Any:
        RUNS.append("reduce")
        return (Canary, ())


@dataclass
class CanaryData:
    a: int = 0

    def __post_init__(self) -> None:
        RUNS.append("post_init")


def attribute(value: Any, **attributes: Any) -> Any:
    """Return `value` with attributes beside its content."""
    for name, each in attributes.items():
        object.__setattr__(value, name, each)
    return value


def anything() -> Any:
    """A function at home in this module, so that its results may be of the classes here."""
