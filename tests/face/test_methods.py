"""Methods, classmethods, staticmethods and properties; subclasses, and what identifies `self`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from memover import UnkeyableArgument

if TYPE_CHECKING:
    from tests.face.ways import Way

# From Python 3.13 on, `classmethod` hands out plain bound methods of what it wraps, whose attributes are the unbound ones.
CLASSMETHOD_BINDS = sys.version_info < (3, 13)


def test_a_method_is_keyed_by_what_identifies_its_object(way: Way) -> None:
    """__memover_key__(): objects with one key share, others do not; other instances of it hit."""
    runs = []

    class Shop:
        def __init__(self, region: str) -> None:
            self.region = region

        def __memover_key__(self) -> str:
            return self.region

        @way.cached()
        def item(self, sku: str, count: int = 1) -> tuple[str, str, int]:
            runs.append(self.region)
            return self.region, sku, count

    assert way.run(Shop("eu").item("tea")) == way.run(Shop("eu").item(sku="tea", count=1)) == ("eu", "tea", 1)
    assert way.run(Shop("us").item("tea")) == ("us", "tea", 1)
    assert runs == ["eu", "us"]
    assert Shop("eu").item.key("tea") == Shop("eu").item.key("tea", 1) != Shop("us").item.key("tea")
    assert way.run(Shop.item(Shop("eu"), "tea")) == ("eu", "tea", 1), "called through its class"
    assert Shop.item.key(Shop("eu"), "tea") == Shop("eu").item.key("tea")
    assert len(runs) == 2


def test_a_method_without_a_key_for_self_is_refused(way: Way) -> None:
    """Never repr, never id: UnkeyableArgument says what to do."""

    class Shop:
        @way.cached()
        def item(self, sku: str) -> str:
            raise AssertionError("it must not run")

    for what in (Shop().item, Shop().item.key, Shop().item.invalidate, Shop().item.peek):
        with pytest.raises(UnkeyableArgument, match="__memover_key__") as caught:
            way.run(what("tea"))
        assert caught.value.parameter == "self"


def test_self_can_be_left_out(way: Way) -> None:
    """ignore=("self",): all instances share, whatever they are."""
    runs = []

    class Shop:
        @way.cached(ignore=("self",))
        def rate(self, currency: str) -> str:
            runs.append(currency)
            return currency

    assert way.run(Shop().rate("USD")) == way.run(Shop().rate("USD")) == "USD"
    assert runs == ["USD"]


def test_every_helper_of_a_bound_method_takes_the_arguments_without_self(way: Way) -> None:
    """key, peek, refresh, set, invalidate, max_age, at, bypass on an instance."""
    runs = []

    class Shop:
        def __init__(self, region: str) -> None:
            self.region = region

        def __memover_key__(self) -> str:
            return self.region

        @way.cached("shop/items", version=2)
        def item(self, sku: str) -> list[str]:
            """What it is."""
            runs.append(sku)
            return [self.region, sku]

    shop, other = Shop("eu"), Shop("us")
    run = way.run
    assert run(shop.item.peek("tea")) is None
    assert run(shop.item("tea")) == ["eu", "tea"]
    assert run(shop.item.peek("tea")).value == ["eu", "tea"]
    assert run(other.item.peek("tea")) is None
    assert run(shop.item.refresh("tea")) == ["eu", "tea"]
    assert len(runs) == 2
    run(shop.item.set(["set"], "tea"))
    assert run(shop.item("tea")) == ["set"]
    assert run(shop.item.max_age(1000)(sku="tea")) == ["set"]
    assert run(shop.item.bypass("tea")) == ["eu", "tea"]
    assert shop.item.at(1).key("tea") == shop.item.key("tea").replace(":2:", ":1:")
    assert run(shop.item.at(2).peek("tea")).value == ["set"]
    run(shop.item.invalidate("mug"))
    assert run(shop.item("tea")) == ["set"]
    run(shop.item.invalidate("tea"))
    assert run(shop.item("tea")) == ["eu", "tea"]
    run(other.item("tea"))
    run(shop.item.invalidate_all())
    assert run(other.item.peek("tea")) is None
    assert shop.item.__name__ == "item"
    assert shop.item.__doc__ == "What it is."
    assert shop.item.__self__ is shop
    assert shop.item.namespace == "shop/items"
    assert shop.item.cache_info() == Shop.item.cache_info()


@pytest.mark.parametrize("above", [True, False], ids=["above", "below"])
def test_a_classmethod_is_keyed_by_its_class(way: Way, above: bool) -> None:
    """In either order of decorators; on the class, an instance, a subclass."""
    runs = []

    def rows(cls: type, kind: str) -> list[str]:
        runs.append(cls.__name__)
        return [cls.__name__, kind]

    cached = way.cached()
    method = cached(classmethod(rows)) if above else classmethod(cached(rows))
    first, second = _class_with("First", rows=method), None
    second = type("Second", (first,), {"__module__": __name__, "__qualname__": "Second"})
    globals().update(First=first, Second=second)  # classes are keyed by name, so they must be found under it
    try:
        assert way.run(first.rows("a")) == way.run(first().rows(kind="a")) == ["First", "a"]
        assert way.run(second.rows("a")) == way.run(second().rows("a")) == ["Second", "a"]
        assert runs == ["First", "Second"]
        if above or CLASSMETHOD_BINDS:
            assert first.rows.key("a") == first().rows.key("a") != second.rows.key("a")
            assert way.run(second.rows.peek("a")).value == ["Second", "a"]
            way.run(second.rows.invalidate("a"))
            assert way.run(second.rows.peek("a")) is None
            assert way.run(first.rows.peek("a")) is not None
        way.run(first.rows.invalidate_all())
        assert way.run(first.rows("a")) == ["First", "a"]
        assert runs == ["First", "Second", "First"]
    finally:
        del globals()["First"], globals()["Second"]


def _class_with(name: str, **attributes: Any) -> Any:
    return type(name, (), {"__module__": __name__, "__qualname__": name, **attributes})


@pytest.mark.parametrize("above", [True, False], ids=["above", "below"])
def test_a_staticmethod_knows_no_class(way: Way, above: bool) -> None:
    """In either order of decorators; on the class, an instance, a subclass: one entry, helpers alike."""
    runs = []

    def rate(currency: str) -> str:
        runs.append(currency)
        return currency

    cached = way.cached()
    method = cached(staticmethod(rate)) if above else staticmethod(cached(rate))
    base = _class_with("Base", rate=method)
    derived = type("Derived", (base,), {})
    for where in (base, base(), derived, derived()):
        assert way.run(where.rate("USD")) == "USD"
        assert way.run(where.rate.peek("USD")).value == "USD"
        assert where.rate.key("USD") == base.rate.key("USD")
    assert runs == ["USD"]
    way.run(derived().rate.invalidate("USD"))
    assert way.run(base.rate.peek("USD")) is None


def test_a_property_above_the_decorator_is_cached(way: Way) -> None:
    """@property over @versioned_cache works; the other order is refused (test_refused)."""
    runs = []

    class Shop:
        def __memover_key__(self) -> str:
            return "shop"

        @property
        @way.cached()
        def total(self) -> int:
            runs.append(1)
            return 5

    assert way.run(Shop().total) == way.run(Shop().total) == 5
    assert runs == [1]
    way.run(Shop.total.fget.invalidate(Shop()))
    assert way.run(Shop().total) == 5
    assert len(runs) == 2


class Base:
    """At module level: a class in a key is named by where it is found."""

    def __memover_key__(self) -> int:
        return 1


class Derived(Base):
    pass


def test_an_inherited_method_never_shares_with_the_base(way: Way) -> None:
    """The class of self is part of the key: a subclass may mean something else by the same method."""
    runs = []

    def item(self: Base, sku: str) -> str:
        runs.append(type(self).__name__)
        return f"{type(self).__name__} {sku}"

    cached = way.cached()(item)
    base, derived = Base(), Derived()
    assert way.run(cached.__get__(base, Base)("tea")) == "Base tea"
    assert way.run(cached.__get__(derived, Derived)("tea")) == "Derived tea"
    assert way.run(cached.__get__(derived, Derived)("tea")) == "Derived tea"
    assert runs == ["Base", "Derived"]


def test_an_overridden_method_and_super_keep_apart(way: Way) -> None:
    """Override and overridden have namespaces of their own, and super() reaches the cached base method."""
    runs = []
    run = way.run

    class Shop:
        def __memover_key__(self) -> str:
            return "x"

        @way.cached("price/base")
        def price(self, sku: str) -> int:
            runs.append("base")
            return 10

    if way.is_async:

        class BigShop(Shop):
            @way.cached("price/big")
            async def price(self, sku: str) -> int:
                runs.append("big")
                return await super().price(sku) * 2

    else:

        class BigShop(Shop):  # type: ignore[no-redef]
            @way.cached("price/big")
            def price(self, sku: str) -> int:
                runs.append("big")
                return super().price(sku) * 2

    big = BigShop()
    assert run(big.price("tea")) == run(big.price("tea")) == 20
    assert runs == ["big", "base"]
    run(big.price.invalidate("tea"))
    assert run(big.price("tea")) == 20
    assert runs == ["big", "base", "big"], "the base's entry is its own"
    run(super(BigShop, big).price.invalidate("tea"))
    run(big.price.invalidate("tea"))
    assert run(big.price("tea")) == 20
    assert runs == ["big", "base", "big", "big", "base"]


def test_a_dataclass_is_its_own_key(way: Way) -> None:
    """A frozen dataclass needs no __memover_key__: its fields are what it is."""
    from dataclasses import dataclass

    runs = []

    @dataclass(frozen=True)
    class Region:
        name: str

        @way.cached()
        def items(self) -> list[str]:
            runs.append(self.name)
            return [self.name]

    globals()["Region"] = Region
    Region.__qualname__ = "Region"
    try:
        assert way.run(Region("eu").items()) == way.run(Region("eu").items()) == ["eu"]
        assert way.run(Region("us").items()) == ["us"]
        assert runs == ["eu", "us"]
    finally:
        del globals()["Region"]


def test_a_key_for_self_that_fails_fails_the_call(way: Way) -> None:
    """What __memover_key__ raises comes through, and what it returns must be keyable."""

    class Shop:
        def __init__(self, key: Any) -> None:
            self.key = key

        def __memover_key__(self) -> Any:
            if self.key is None:
                raise LookupError("no key yet")
            return self.key

        @way.cached()
        def item(self) -> int:
            return 1

    with pytest.raises(LookupError, match="no key yet"):
        way.run(Shop(None).item())
    with pytest.raises(UnkeyableArgument):
        way.run(Shop(object()).item())
    assert way.run(Shop("a").item()) == 1


def test_a_class_attribute_that_is_a_cached_callable_is_no_method(way: Way) -> None:
    """What has no __get__ (a callable object) is not bound to the instance it is found on."""

    class Scorer:
        def __memover_key__(self) -> str:
            return "scorer"

        def __call__(self, text: str) -> int:
            return len(text)

    if way.is_async:

        class Scorer:  # type: ignore[no-redef]
            def __memover_key__(self) -> str:
                return "scorer"

            async def __call__(self, text: str) -> int:
                return len(text)

    from memover import versioned_cache

    class Shop:
        score = versioned_cache(namespace="score", cache=way.cache)(Scorer())

    assert way.run(Shop().score("tea")) == way.run(Shop.score("tea")) == 3
    assert Shop.score.cache_info().loads == 1
