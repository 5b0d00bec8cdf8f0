"""A class that is defined again under its name is the one that values come back as."""

from __future__ import annotations

import enum
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from memover.codec.mv1.codec import ValueCodec
from memover.codec.sharing import moved, places_of, shareable
from memover.errors import DamagedEntry, UnencodableValue
from tests.codec import things as t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = """
import dataclasses, enum, typing

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int

@dataclasses.dataclass
class Plain:
    x: int

class Named(typing.NamedTuple):
    x: int

class Outer:
    @dataclasses.dataclass(frozen=True)
    class Inner:
        x: int

class Text(str):
    pass

class Wrong(ValueError):
    pass

def function(): ...
"""
MAKE: dict[str, Callable[[Any], Any]] = {
    "enum": lambda m: m.Color.RED,
    "frozen": lambda m: m.Frozen(1),
    "plain": lambda m: m.Plain(1),
    "named": lambda m: m.Named(1),
    "nested": lambda m: m.Outer.Inner(1),
    "in a tuple": lambda m: (1, (m.Color.RED, m.Frozen(2))),
    "text": lambda m: m.Text("a"),
    "exception": lambda m: m.Wrong("a"),
}
SHARED = {"enum", "frozen", "named", "nested", "in a tuple"}


@pytest.fixture
def page() -> Iterator[Any]:
    """A module that can be executed again, as a notebook's cell or a reload does."""
    module: Any = types.ModuleType("memover_page")
    sys.modules[module.__name__] = module
    exec(SOURCE, vars(module))
    yield module
    sys.modules.pop(module.__name__, None)


def kinds(value: Any) -> list[type]:
    return [kind for each in value for kind in kinds(each)] if type(value) is tuple else [type(value)]


@pytest.mark.parametrize("name", MAKE)
def test_stored_values_come_back_as_the_new_class(name: str, page: Any) -> None:
    """With the codec of the function that was there before, and with one made after."""
    make = MAKE[name]
    codec = ValueCodec(page.function)
    old = make(page)
    data = codec.encode(old)
    assert kinds(codec.decode(data)) == kinds(old)
    exec(SOURCE, vars(page))
    new = make(page)
    assert kinds(new) != kinds(old)
    for each in (codec, ValueCodec(page.function)):
        assert kinds(each.decode(data)) == kinds(new)
        assert kinds(each.decode(each.encode(new))) == kinds(new)


@pytest.mark.parametrize("name", MAKE)
def test_instances_of_the_earlier_class_are_refused(name: str, page: Any) -> None:
    """They would come back as another class."""
    codec = ValueCodec(page.function)
    old = MAKE[name](page)
    codec.encode(old)
    exec(SOURCE, vars(page))
    with pytest.raises(UnencodableValue):
        codec.encode(old)


@pytest.mark.parametrize("name", MAKE)
def test_instances_of_the_earlier_class_are_not_shared(name: str, page: Any) -> None:
    """Who kept one beside its places learns it from them."""
    value = MAKE[name](page)
    places = places_of(value)
    assert (places is not None) == (name in SHARED) == shareable(value)
    if places is None:
        return
    assert places
    assert not moved(places)
    exec(SOURCE, vars(page))
    assert moved(places)
    assert places_of(value) is None
    assert not shareable(value)
    assert shareable(MAKE[name](page))


def test_a_module_that_is_imported_anew_has_other_classes(page: Any) -> None:
    """The old module's dict still leads to the old class; the program does not look there."""
    value = page.Frozen(1)
    places = places_of(value)
    again = types.ModuleType(page.__name__)
    sys.modules[page.__name__] = again
    exec(SOURCE, vars(again))
    assert places
    assert moved(places)


def test_a_class_that_is_gone_is_a_miss(page: Any) -> None:
    """Nothing else is made in its place."""
    codec = ValueCodec(page.function)
    data = codec.encode(page.Plain(1))
    del page.Plain
    with pytest.raises(DamagedEntry) as caught:
        codec.decode(data)
    assert caught.value.reason == "unknown-class"


def test_what_is_made_of_builtins_is_shared_for_ever() -> None:
    """There is no place to look at, and none of a library's classes."""
    assert places_of((1, "a", None)) == ()
    assert places_of(7) == ()
    assert places_of([]) is None


def test_local_classes_are_not_shared() -> None:
    """A function that runs again makes others, and no name leads to them."""

    class Local(enum.Enum):
        A = 1

    assert not shareable(Local.A)
    assert shareable(t.Colour.RED)


def test_string_annotations_are_read_again(page: Any) -> None:
    """A class from another module, named in quotes."""
    home = types.ModuleType("memover_home")
    sys.modules[home.__name__] = home
    try:
        exec("import memover_page\ndef function() -> 'memover_page.Frozen': ...", vars(home))
        codec = ValueCodec(home.function)
        data = codec.encode(page.Frozen(1))
        exec(SOURCE, vars(page))
        assert type(codec.decode(data)) is page.Frozen
        assert codec.decode(codec.encode(page.Frozen(2))) == page.Frozen(2)
    finally:
        del sys.modules[home.__name__]
