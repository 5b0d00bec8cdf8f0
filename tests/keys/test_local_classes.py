"""P14: objects of classes made inside a function, one name for many classes, never share a key by mistake."""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import gc
import json
import logging
import re
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from memover import Cache, UnkeyableArgument
from memover.keys import local
from memover.keys.canonical import encode, encode_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


T = TypeVar("T")


def dataclass_of(tenant: Any) -> Any:
    @dataclasses.dataclass(frozen=True)
    class Query:
        item: int

        def answer(self) -> Any:
            return tenant, self.item

    return Query


def slotted_of(tenant: Any) -> Any:
    @dataclasses.dataclass
    class Query:
        __slots__ = ("item",)
        item: int

        @property
        def tenant(self) -> Any:
            return tenant if super() is not None else None

        def answer(self) -> Any:
            return self.tenant, self.item

    return Query


def comparing_of(tenant: Any) -> Any:
    @dataclasses.dataclass(eq=False)
    class Query:  # noqa: PLW1641  # nobody hashes it
        item: int

        def __eq__(self, other: object) -> bool:
            return bool(tenant == other)

        def answer(self) -> Any:
            return self == "b", self.item

    return Query


def derived_of(tenant: Any) -> Any:
    class Base:
        @classmethod
        def tenant(cls) -> Any:
            return tenant

    @dataclasses.dataclass
    class Query(Base):
        item: int

        def answer(self) -> Any:
            return self.tenant(), self.item

    return Query


def helped_of(tenant: Any) -> Any:
    def helper() -> Any:
        return tenant

    @dataclasses.dataclass
    class Query:
        item: int

        def answer(self) -> Any:
            return helper(), self.item

    return Query


def attrs_of(tenant: Any) -> Any:
    @attrs.frozen
    class Query:
        item: int

        def answer(self) -> Any:
            return tenant, self.item

    return Query


def named_tuple_of(tenant: Any) -> Any:
    class Query(NamedTuple):
        item: int

        def answer(self) -> Any:
            return tenant, self.item

    return Query


def struct_of(tenant: Any) -> Any:
    class Query(msgspec.Struct):
        item: int

        def answer(self) -> Any:
            return tenant, self.item

    return Query


def model_of(tenant: Any) -> Any:
    class Query(pydantic.BaseModel):
        item: int

        def __init__(self, item: int) -> None:
            super().__init__(item=item)

        def answer(self) -> Any:
            return tenant, self.item

    return Query


def attribute_of(given: Any) -> Any:
    @dataclasses.dataclass
    class Query:
        item: int
        tenant = given

        def answer(self) -> Any:
            return self.tenant, self.item

    return Query


def parameter_of(tenant: Any) -> Any:
    @dataclasses.dataclass
    class Query:
        item: int

        def answer(self, tenant: Any = tenant) -> Any:
            return tenant, self.item

    return Query


def enum_of(tenant: Any) -> Any:
    class Query(enum.Enum):
        ITEM = tenant

        def answer(self) -> Any:
            return self.value

    return lambda item: Query.ITEM


class Client:
    """Nothing tells two of them apart but which it is."""


class Limit:
    """A descriptor."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __get__(self, instance: object, owner: type | None = None) -> int:
        return self.limit


def holder(given: Any) -> Any:
    """A class with one attribute that is no field."""

    @dataclasses.dataclass
    class Query:
        item: int
        held = given

        def answer(self) -> Any:
            return self.held, self.item

    return Query


def nested(given: Any) -> Any:
    @dataclasses.dataclass
    class Query:
        item: int

        class Settings:
            held = given

        def answer(self) -> Any:
            return self.Settings.held, self.item

    return Query


def valued(given: Any) -> Any:
    class Query(enum.Enum):
        ITEM = given

        def answer(self) -> Any:
            return self.value

    return lambda item: Query.ITEM


def modelled(given: Any) -> Any:
    class Query(pydantic.BaseModel):
        item: int
        held: ClassVar[Any] = given

        def __init__(self, item: int) -> None:
            super().__init__(item=item)

        def answer(self) -> Any:
            return self.held, self.item

    return Query


ONE, OTHER = Client(), Client()
DIFFERENT: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "objects": (lambda: ONE, lambda: OTHER),
    "lists": (lambda: ["a"], lambda: ["b"]),
    "lists of objects": (lambda: [ONE], lambda: [OTHER]),
    "dicts": (lambda: {"a": [1]}, lambda: {"a": [2]}),
    "dicts with other keys": (lambda: {"a": [1]}, lambda: {"b": [1]}),
    "sets": (lambda: {1, 2}, lambda: {1, 3}),
    "builtins": (lambda: len, lambda: sum),
    "functions of a library": (lambda: json.dumps, lambda: json.dump),
    "static methods": (lambda: staticmethod(len), lambda: staticmethod(sum)),
    "partials": (lambda: functools.partial(len, [1]), lambda: functools.partial(len, [2])),
    "classes": (lambda: dict, lambda: list),
    "descriptors": (lambda: Limit(1), lambda: Limit(2)),
    "patterns": (lambda: re.compile("a"), lambda: re.compile("b")),
}


@pytest.mark.parametrize("make", [holder, nested, valued, modelled])
@pytest.mark.parametrize("name", DIFFERENT)
def test_classes_that_differ_in_an_attribute_alone_are_refused(
    make: Any, name: str, f: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is; and the class made anew from the same is not."""
    monkeypatch.setattr(local, "_seen", {})
    if make is valued and name in ("functions of a library", "static methods", "partials", "descriptors"):
        pytest.skip("these make no members")
    one, other = DIFFERENT[name]
    a, b, again = make(one())(1), make(other())(1), make(one())(1)
    key = f.key(a)
    assert f.key(again) == key
    with pytest.raises(UnkeyableArgument, match=r"another class .*Query captured other things"):
        f.key(b)


def test_what_a_class_is_made_with_does_not_tell_it_from_the_same_one(f: Any) -> None:
    """Its own descriptors, nested classes, instances and the bookkeeping of abc and of class libraries are made anew each time."""

    def make() -> Any:
        class Base(abc.ABC, Generic[T]):
            limit = Limit(1)
            log = logging.getLogger("x")

            @abc.abstractmethod
            def work(self) -> int: ...

            @functools.cached_property
            def cached(self) -> int:
                return 1

            @functools.wraps(len)
            def wrapped(self) -> int:
                return 1

        @dataclasses.dataclass(frozen=True)
        class Query(Base[int]):
            item: int
            zero: ClassVar[Any] = None

            class Meta:
                ordering = ("item",)

            def work(self) -> int:
                return 1

            def answer(self) -> Any:
                return 1

        Query.zero = Query(0)
        return Query

    assert f.key(make()(1)) == f.key(make()(1))


CAPTURING: tuple[Callable[[Any], Any], ...] = (
    dataclass_of, slotted_of, comparing_of, derived_of, helped_of, attrs_of, named_tuple_of, struct_of, model_of,
)  # fmt: skip
COMPARED = (attribute_of, parameter_of, enum_of)


@pytest.fixture
def f() -> Iterator[Any]:
    with Cache("memory://") as cache:
        yield cache.versioned(namespace="f")(lambda query: query.answer())


@pytest.mark.parametrize("make", CAPTURING)
def test_plain_values_that_methods_captured_are_part_of_the_key(make: Callable[[Any], Any], f: Any) -> None:
    """Two classes of one name are told apart by them, None among them; the class made anew from the same keeps its entries."""
    a, b, again = make("a")(1), make("b")(1), make("a")(1)
    assert f(a) == a.answer()
    assert f(b) == b.answer() != a.answer()
    assert f.key(a) == f.key(again) != f.key(b)
    assert f.key(make(None)(1)) not in (f.key(a), f.key(b))


@pytest.mark.parametrize("make", [*CAPTURING, *COMPARED])
def test_what_is_compared_in_the_process_is_refused(make: Callable[[Any], Any], f: Any) -> None:
    """Other objects, defaults, class attributes and enum values: the error names the class and the way out."""
    first, other = ("a", "b") if make in COMPARED else (["a"], ["b"])
    a, b = make(first)(1), make(other)(1)
    assert f(a) == a.answer()
    with pytest.raises(UnkeyableArgument, match=r"another class .*Query captured other things.*__memover_key__"):
        f(b)
    again = make(first)(1)
    assert f.key(again) == f.key(a)
    del a, again
    gc.collect()
    with pytest.raises(UnkeyableArgument):
        f(b)  # the entries of the first are still there


def one_of_two(which: bool) -> Any:
    if which:

        @dataclasses.dataclass
        class Query:
            item: int

            def answer(self) -> Any:
                return "one", self.item

    else:

        @dataclasses.dataclass
        class Query:  # type: ignore[no-redef]
            item: int

            def answer(self) -> Any:
                return "other", self.item

    return Query


def of_a_function_that_is_gone(which: bool) -> Any:
    source = f"""
def make():
    @dataclasses.dataclass
    class Query:
        item: int
        def answer(self):
            return {which}, self.item
    return Query
"""
    namespace: dict[str, Any] = {"dataclasses": dataclasses, "__name__": __name__}
    exec(source, namespace)
    return namespace.pop("make")()


@pytest.mark.parametrize("make", [one_of_two, of_a_function_that_is_gone])
def test_classes_of_one_name_that_differ_in_code_alone_are_refused(make: Callable[[bool], Any], f: Any) -> None:
    """Two branches of one function, and functions that nobody finds any more: which of them is meant cannot be in a key."""
    a, b = make(True)(1), make(False)(1)
    assert f(a) == a.answer() != b.answer()
    with pytest.raises(UnkeyableArgument, match=r"another class .*Query has other code.*__memover_key__"):
        f(b)
    assert f.key(make(True)(1)) == f.key(a)


def test_a_class_from_code_that_is_executed_again_replaces_the_earlier_one(f: Any) -> None:
    """A notebook cell, a reload: the class is the same as before, whatever its methods hold now."""
    source = """
def make(tenant):
    @dataclasses.dataclass
    class Query:
        item: int
        def answer(self):
            return tenant, self.item
    return Query
"""
    keys = set()
    for tenant, edited in ((["a"], source), (["b"], source), (["b"], source.replace("tenant,", "tenant * 2,"))):
        namespace: dict[str, Any] = {"dataclasses": dataclasses, "__name__": __name__}
        exec(compile(edited, "<cell>", "exec"), namespace)
        keys.add(f.key(namespace["make"](tenant)(1)))
    assert len(keys) == 1


def test_a_key_of_its_own_is_the_way_out(f: Any) -> None:
    """A class with `__memover_key__()` is asked, and never refused."""

    def make(tenant: list[str]) -> Any:
        @dataclasses.dataclass
        class Query:
            item: int

            def answer(self) -> Any:
                return tenant[0], self.item

            def __memover_key__(self) -> Any:
                return tenant[0], self.item

        return Query

    a, b = make(["a"])(1), make(["b"])(1)
    assert (f(a), f(b)) == (("a", 1), ("b", 1))


def test_a_plain_local_class_keeps_its_bytes() -> None:
    """Golden: with a default, a constant and a method."""

    @dataclasses.dataclass
    class Plain:
        item: int = 3
        LIMIT = 7

        def double(self) -> int:
            return self.item * 2 + self.LIMIT

    name = "tests.keys.test_local_classes:test_a_plain_local_class_keeps_its_bytes.<locals>.Plain"
    assert encode(Plain()) == b"x3:s9:dataclass%b%b%b" % tuple(encode_part(part, {}) for part in (name, "item", 3))
