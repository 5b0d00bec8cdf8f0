"""Who is the same function: two callables that can answer differently never share an entry, and one function keeps its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import re
import sys
import threading
import types
import uuid
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

import memover
from memover import Cache, ConfigurationError, MemoverWarning, UnkeyableArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    with Cache(url, prefix=prefix) as made:
        yield made


def module(cache: Cache, **names: Any) -> Any:
    """A module without a file, as a notebook's or a REPL's is: `run(text)` executes more text in it."""
    made = types.ModuleType(f"cells_{uuid.uuid4().hex}")
    made.__dict__.update(cache=cache, versioned=cache.versioned, **names)
    sys.modules[made.__name__] = made
    made.__dict__["run"] = lambda text: exec(compile(text, "<cell>", "exec"), made.__dict__)
    return made


@pytest.fixture
def cells(cache: Cache) -> Iterator[Any]:
    made = module(cache)
    yield made
    del sys.modules[made.__name__]


def warned(action: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(each.message) for each in caught if each.category is MemoverWarning]


# -- what enters the key


class Region(enum.Enum):
    EU = 1
    US = 2


PLAIN = [
    None, True, 7, 7.5, 2j, decimal.Decimal("1.0"), decimal.Decimal("1.00"), fractions.Fraction(1, 3), "eu", b"eu", dt.date(2026, 1, 2),
    dt.time(1, 2), dt.datetime(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), dt.timedelta(1), uuid.UUID(int=5),
    Region.EU, Region.US, (), (1, ("a", (None,))), (True, ("a", (None,))), frozenset(), frozenset({1, "a"}), frozenset({("a", 1)}),
]  # fmt: skip


def test_what_a_closure_captured_is_part_of_its_key(cache: Cache) -> None:
    """Every kind of immutable plain value, nested too; those that are equal and of other types as well."""

    def make(region: Any) -> Any:
        @cache.versioned(namespace="closure")
        def load(item: int) -> str:
            return f"{region!r}:{item}"

        return load

    functions = [make(each) for each in PLAIN]
    assert [f(1) for f in functions] == [f"{each!r}:1" for each in PLAIN]
    assert [f(1) for f in functions] == [f"{each!r}:1" for each in PLAIN]
    assert len({f.key(1) for f in functions}) == len(PLAIN)
    assert [make(each).key(1) for each in PLAIN] == [f.key(1) for f in functions]


def test_invalidating_one_closure_leaves_the_others(cache: Cache) -> None:
    """The captured value is in the key like an argument; the namespace is still one."""
    runs: dict[str, int] = {"eu": 0, "us": 0}

    def make(region: str) -> Any:
        @cache.versioned(namespace="regions")
        def load(item: int) -> str:
            runs[region] += 1
            return f"{region}:{item}"

        return load

    eu, us = make("eu"), make("us")
    assert (eu(1), us(1)) == ("eu:1", "us:1")
    eu.invalidate(1)
    assert (eu(1), us(1), runs) == ("eu:1", "us:1", {"eu": 2, "us": 1})
    us.invalidate_all()
    assert (eu(1), us(1), runs) == ("eu:1", "us:1", {"eu": 3, "us": 2})


def test_a_key_by_hand_says_what_was_captured_too(cache: Cache) -> None:
    """After the text of a template or callable; functions that captured nothing have the text alone."""

    def make(region: str) -> Any:
        return cache.versioned(namespace="hand", key="{item}")(lambda item: f"{region}:{item}")

    def make_called(region: str) -> Any:
        return cache.versioned(namespace="called", key=lambda item: item)(lambda item: f"{region}:{item}")

    for factory, text in ((make, "hand"), (make_called, "called")):
        eu, us = factory("eu"), factory("us")
        assert (eu(1), us(1), eu(1), us(1)) == ("eu:1", "us:1", "eu:1", "us:1")
        assert re.fullmatch(rf"[^:]+:1:{text}:1~~[0-9a-f]{{32}}", eu.key(1))
        long = "x" * 300
        assert eu.key(long) != us.key(long)
        assert len(eu.key(long).rpartition(":")[2]) <= 200


def test_what_a_captured_local_function_captured_counts(cache: Cache) -> None:
    """A helper made inside the same factory is no other object each time: it is what it captured."""

    def make(region: str, step: Any) -> Any:
        def url(item: int) -> str:
            return f"{region}:{step(item)}"

        @cache.versioned(namespace="helper")
        def load(item: int) -> str:
            return url(item)

        return load

    eu, again, us = make("eu", abs), make("eu", abs), make("us", abs)
    assert (eu(1), us(1), again(1)) == ("eu:1", "us:1", "eu:1")
    assert eu.key(1) == again.key(1)
    with pytest.raises(ConfigurationError, match=r"'url\.step'"):
        make("eu", float)


def test_methods_of_a_local_class_say_what_it_was_made_from(cache: Cache) -> None:
    """Static, class and plain methods: what they captured, and what the body of their class took in."""

    def make(url: str) -> Any:
        class Client:
            base = url

            @cache.versioned(namespace="static")
            @staticmethod
            def static(item: int) -> str:
                return f"{url}:{item}"

            @staticmethod
            @cache.versioned(namespace="outside")
            def outside(item: int) -> str:
                return f"{url}:{item}"

            @cache.versioned(namespace="class", ignore=("cls",))
            @classmethod
            def of_class(cls, item: int) -> str:
                return f"{cls.base}:{item}"

            @cache.versioned(namespace="method")
            def method(self, item: int) -> str:
                return f"{self.base}:{item}"

            def __memover_key__(self) -> str:
                return "one"

        return Client

    one, two = make("a"), make("b")
    for _ in range(2):
        for kind, url in ((one, "a"), (two, "b")):
            assert kind.static(1) == kind.outside(1) == kind.of_class(1) == kind().method(1) == f"{url}:1"


def test_a_method_that_uses_super_belongs_to_one_class(cache: Cache) -> None:
    """Its class is captured, and another class of the same source may have other bases."""

    class One:
        def name(self) -> str:
            return "one"

    class Two:
        def name(self) -> str:
            return "two"

    def make(base: Any) -> Any:
        class Client(base):
            @cache.versioned(namespace="super", ignore=("self",))
            def get(self) -> str:
                return super().name()

        return Client

    one = make(One)
    assert one().get() == "one"
    with pytest.raises(ConfigurationError, match=r"super\(\)"):
        make(Two)


def test_a_subclass_shares_a_method_by_its_key(cache: Cache) -> None:
    """`self` enters with its class, so a subclass that overrides what the method uses answers for itself."""

    class Base:
        label = "base"

        def __memover_key__(self) -> int:
            return 1

        @cache.versioned(namespace="inherited")
        def get(self) -> str:
            return self.label

    class Derived(Base):
        label = "derived"

    assert (Base().get(), Derived().get(), Base().get()) == ("base", "derived", "base")


def test_a_partial_is_its_function_and_arguments(cache: Cache) -> None:
    """Positional, keyword and nested; mutable ones as they are at each call."""

    def add(a: Any, b: Any, c: int = 0) -> Any:
        return [a, b, c]

    def made(*args: Any, **kwargs: Any) -> Any:
        return cache.versioned(namespace="partial")(functools.partial(*args, **kwargs))

    one, two, by_name = made(add, 1), made(add, 2), made(add, b=1)
    assert (one(5), two(5), by_name(5)) == ([1, 5, 0], [2, 5, 0], [5, 1, 0])
    assert (one(5), two(5), by_name(5)) == ([1, 5, 0], [2, 5, 0], [5, 1, 0])
    nested = made(functools.partial(add, 1), c=3)
    assert nested(5) == [1, 5, 3]
    assert made(add, 1).key(5) == one.key(5)
    growing = [1]
    live = made(add, growing)
    assert live(5) == [[1], 5, 0]
    growing.append(2)
    assert live(5) == [[1, 2], 5, 0]


def test_a_partial_with_an_unkeyable_argument_is_refused(cache: Cache) -> None:
    """When it is decorated, with the place and what to do."""

    def load(session: object, item: int) -> int:
        return item

    with pytest.raises(
        ConfigurationError, match=r"load: argument 1 of the functools\.partial, of type object.*Pass it"
    ):
        cache.versioned(namespace="refused")(functools.partial(load, object()))
    with pytest.raises(ConfigurationError, match=r"session of the functools\.partial"):
        cache.versioned(namespace="refused")(functools.partial(load, session=object()))


class Repository:
    def __init__(self, region: str) -> None:
        self.region = region

    def get(self, item: int) -> str:
        return f"{self.region}:{item}"

    def __call__(self, item: int) -> str:
        return f"call {self.region}:{item}"

    @classmethod
    def named(cls, item: int) -> str:
        return f"{cls.__name__}:{item}"


class Keyed(Repository):
    def __memover_key__(self) -> str:
        return self.region


class Derived(Keyed):
    pass


def test_a_bound_method_or_callable_is_its_object(cache: Cache) -> None:
    """By `__memover_key__`, asked at each call: the object may change."""
    eu, us = Keyed("eu"), Keyed("us")
    get = [cache.versioned(namespace="bound")(each.get) for each in (eu, us)]
    call = [cache.versioned(namespace="call")(each) for each in (eu, us)]
    for _ in range(2):
        assert [f(1) for f in (*get, *call)] == ["eu:1", "us:1", "call eu:1", "call us:1"]
    eu.region = "asia"
    assert (get[0](1), call[0](1), get[0](1)) == ("asia:1", "call asia:1", "asia:1")
    kinds = [cache.versioned(namespace="kinds")(each.named) for each in (Keyed, Derived)]
    assert [f(1) for f in kinds] == ["Keyed:1", "Derived:1"]


def test_an_object_without_a_key_is_refused_when_it_is_decorated(cache: Cache) -> None:
    """The error names its class and the way out; a local class that no name leads to is such an object."""

    class Local:
        @classmethod
        def get(cls) -> int:
            return 1

    for target in (Repository("eu").get, Repository("eu"), Local.get):
        with pytest.raises(ConfigurationError, match=r"(Repository|Local).*__memover_key__"):
            cache.versioned(namespace="keyless")(target)


def test_async_functions_are_told_apart_alike(cache: Cache) -> None:
    """Closures, partials and bound methods of coroutine functions."""

    class Client:
        def __init__(self, url: str) -> None:
            self.url = url

        def __memover_key__(self) -> str:
            return self.url

        async def get(self, item: int) -> str:
            return f"{self.url}:{item}"

    async def load(url: str, item: int) -> str:
        return f"{url}:{item}"

    def make(url: str) -> list[Any]:
        async def closure(item: int) -> str:
            return f"{url}:{item}"

        targets = [closure, functools.partial(load, url), Client(url).get]
        return [cache.versioned(namespace=f"async{n}")(each) for n, each in enumerate(targets)]

    async def all_of_them() -> None:
        for _ in range(2):
            for functions, url in ((one, "a"), (two, "b")):
                assert [await f(1) for f in functions] == [f"{url}:1"] * 3

    one, two = make("a"), make("b")
    asyncio.run(all_of_them())


# -- what is a clash


def test_a_clash_names_both_places_the_variable_and_what_to_do(cache: Cache) -> None:
    """One function of the same code that captured another object."""

    def make(client: Any) -> Any:
        @cache.versioned(namespace="clients")
        def load(item: int) -> int:
            return client and item

        return load

    first, other = [1], [2]
    kept = make(first)
    assert make(first).key(1) == kept.key(1), "the same object: the same function"
    with pytest.raises(ConfigurationError) as caught:
        make(other)
    line = make.__code__.co_firstlineno + 1
    place = re.escape(f"load ({__file__}:{line})").replace("load", r"\S+load")
    told = str(caught.value)
    assert len(re.findall(place, told)) == 2
    for words in ("'clients'", "'client'", "a list", "ignore=('client',)", "namespace of its own"):
        assert words in told


def test_what_cannot_be_compared_is_a_clash(cache: Cache) -> None:
    """Other code, other functions, other modules, variables that are assigned later, defaults that no key holds."""

    def plain(x: int) -> int:
        return x

    kept = [cache.versioned(namespace="a")(lambda x: x + 1)]
    with pytest.raises(ConfigurationError, match="other code"):
        cache.versioned(namespace="a")(lambda x: x * 100)
    with pytest.raises(ConfigurationError, match=r"lambda.*belongs|belongs.*lambda"):
        cache.versioned(namespace="a")(plain)

    def late(value: int) -> Any:
        @cache.versioned(namespace="late")
        def f() -> int:
            return base

        base = value
        return f

    kept.append(late(1))
    with pytest.raises(ConfigurationError, match="'base' that are not assigned yet"):
        late(2)

    def defaulted(value: Any) -> Any:
        @cache.versioned(namespace="default", ignore=("client",))
        def f(x: int, client: Any = value) -> Any:
            return client

        return f

    kept.append(defaulted(1))
    kept.append(defaulted(1))
    with pytest.raises(ConfigurationError, match="'client"):
        defaulted(2)


def test_defaults_that_differ_are_in_the_key(cache: Cache) -> None:
    """As they are for any function: a parameter's value counts, however it came."""
    functions = [cache.versioned(namespace="loop")(lambda x, n=n: x + n) for n in (1, 2)]
    assert [f(1) for f in functions] == [2, 3]
    assert [f(1) for f in functions] == [2, 3]


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def unnamed(function: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@wrapt.decorator
def proxied(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


def scaled(factor: int) -> Any:
    @wrapt.decorator
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs) * factor

    return wrapper


def repeated(times: int) -> Any:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return [function(*args, **kwargs)] * times

        return wrapper

    return decorate


class Decorated:
    def __init__(self, function: Any, extra: int) -> None:
        functools.update_wrapper(self, function)
        self.function, self.extra = function, extra

    def __call__(self, x: int) -> int:
        return self.function(x) + self.extra  # type: ignore[no-any-return]


def double(x: int) -> int:
    return x * 2


def triple(x: int) -> int:
    return x * 3


@pytest.mark.parametrize("wrap", [logged, unnamed, proxied, functools.lru_cache, lambda f: Decorated(f, 1)])
def test_two_functions_behind_one_decorator_do_not_share(cache: Cache, wrap: Any) -> None:
    """With and without functools.wraps, wrapt's proxies, lru_cache, objects."""
    kept = cache.versioned(namespace="wrapped")(wrap(double))
    with pytest.raises(ConfigurationError, match="wrapped"):
        cache.versioned(namespace="wrapped")(wrap(triple))
    assert kept(1) == wrap(double)(1)


def test_what_a_decorator_was_given_counts(cache: Cache) -> None:
    """Its plain arguments are captured by the wrapper; what an object holds is compared."""
    functions = [cache.versioned(namespace="times")(repeated(n)(double)) for n in (1, 2)]
    assert [f(1) for f in functions] == [[2], [2, 2]]
    functions = [cache.versioned(namespace="scaled")(scaled(n)(double)) for n in (1, 10)]
    assert [f(1) for f in functions] == [2, 20]
    kept = cache.versioned(namespace="object")(Decorated(double, 1))
    with pytest.raises(ConfigurationError, match="Decorated"):
        cache.versioned(namespace="object")(Decorated(double, 2))
    assert kept(1) == 3


def test_a_function_decorated_twice_is_one_function(prefix: str, redis_url: str) -> None:
    """On one store it shares its entries, on two it has them twice; a bound method of one object too."""
    runs: list[int] = []

    def load(x: int) -> int:
        runs.append(x)
        return x

    with Cache(redis_url, prefix=prefix) as one, Cache(redis_url, prefix=prefix) as two, Cache(prefix=prefix) as memory:
        functions = [each.versioned(namespace="twice")(load) for each in (one, two, memory, memory)]
        assert [f(1) for f in functions] == [1] * 4
        assert runs == [1, 1]
        assert len({f.key(1) for f in functions}) == 1
        keyed = Keyed("eu")
        bound = [one.versioned(namespace="bound")(keyed.get) for _ in range(2)]
        assert bound[0].key(1) == bound[1].key(1)
        again = one.versioned(namespace="twice")(functions[0])
        assert again(1) == 1


def test_one_function_under_two_keys_is_a_clash(cache: Cache) -> None:
    """One text would mean two calls; the same template or callable again is the same function."""

    def add(a: int, b: int) -> int:
        return a + 10 * b

    def by_first(a: int, b: int) -> int:
        return a

    kept = [cache.versioned(namespace="keys", key="{a}")(add) for _ in range(2)]
    kept += [cache.versioned(namespace="called", key=by_first)(add) for _ in range(2)]
    kept += [cache.versioned(namespace="lambda", key=lambda a, b: a)(add) for _ in range(2)]
    assert len({f.key(1, 2) for f in kept}) == 3
    for namespace, key in (("keys", "{b}"), ("called", lambda a, b: b), ("lambda", lambda a, b: b)):
        with pytest.raises(ConfigurationError, match=namespace):
            cache.versioned(namespace=namespace, key=key)(add)


def test_a_local_function_may_call_itself(cache: Cache) -> None:
    """Its own name is no capture, so the factory may be called again."""

    def make() -> Any:
        @cache.versioned(namespace="fib")
        def fib(n: int) -> int:
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        return fib

    one, two = make(), make()
    assert one(12) == two(12) == 144
    assert two.cache_info().loads == 0


# -- modules that are executed again

CELL = "@versioned(namespace='cell')\ndef price(x):\n    return x + 1\n"


def test_the_same_text_again_is_the_same_function(cells: Any) -> None:
    """With a comment, a docstring, an annotation or other layout too: entries are kept, and nothing is said."""
    cells.run(CELL)
    assert cells.price(1) == 2
    variants = [
        CELL,
        "# a comment\n" + CELL,
        CELL.replace("    return", "    # why\n\n    return"),
        CELL.replace("    return", "    'Its docstring.'\n    return"),
        CELL.replace("(x)", "(x: int) -> int"),
    ]
    for text in variants:
        assert warned(lambda text=text: cells.run(text)) == []  # type: ignore[misc]
        assert cells.price(1) == 2
        assert cells.price.cache_info().hits == 1


def test_another_body_starts_empty_in_memory_and_is_told_of_on_a_shared_store(cells: Any) -> None:
    """One warning that names the namespace and the three ways out."""
    cells.run(CELL)
    first = cells.price
    assert first(1) == 2
    said = warned(lambda: cells.run(CELL.replace("x + 1", "x + 2")))
    if cells.cache.address.startswith("memory"):
        assert said == []
        assert (cells.price(1), first(1), cells.price(1), first(1)) == (3, 2, 3, 2), "the earlier one keeps its own"
        cells.run(CELL)
        assert cells.price(1) == 2
        assert cells.price.cache_info().loads == 1, "and is not what it was when it comes back"
        return
    (text,) = said
    for words in ("'cell'", "version=2", "follow_code=True", "invalidate_all()"):
        assert words in text
    assert warned(lambda: cells.price(1)) == []
    assert cells.price(1) == 2
    cells.price.invalidate_all()
    assert cells.price(1) == 3
    assert warned(lambda: cells.run(CELL.replace("x + 1", "x + 2"))) == []
    assert cells.price(1) == 3
    assert warned(lambda: cells.run(CELL.replace("'cell'", "'cell', version=2"))) == [], "another version has its own"
    assert cells.price(1) == 2


def test_the_default_cache_warns_where_the_function_is_defined(prefix: str, redis_url: str) -> None:
    """When it is configured already, and at the first call otherwise."""
    cells = module(Cache())
    with Cache(redis_url, prefix=prefix) as shared, memover.using(shared):
        text = "import memover\n@memover.versioned_cache(namespace='default.cell')\ndef price(x):\n    return x + 1\n"
        cells.run(text)
        assert cells.price(1) == 2
        (said,) = warned(lambda: cells.run(text.replace("x + 1", "x + 2")))
        assert "default.cell" in said
        assert warned(lambda: cells.price(2)) == []
    del sys.modules[cells.__name__]


def test_local_functions_and_lambdas_of_a_module_are_replaced_with_it(cells: Any) -> None:
    """A factory that is defined again makes functions that take the place of the earlier factory's."""
    factory = "def make(region):\n    @versioned(namespace='made')\n    def f(x):\n        return (region, x, 1)\n    return f\n"
    cells.run(factory)
    cells.run("f = make('eu')")
    assert cells.f(1) == ("eu", 1, 1)
    cells.run("g = make('us')")
    assert (cells.f(1), cells.g(1)) == (("eu", 1, 1), ("us", 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.run(factory.replace("x, 1", "x, 2"))
        cells.run("f = make('eu')\ng = make('us')")
        cells.run("h = versioned(namespace='lambda')(lambda x: x + 1)")
        cells.run("h = versioned(namespace='lambda')(lambda x: x + 1)")
        cells.run("h = versioned(namespace='lambda')(lambda x: x + 2)")
    if cells.cache.address.startswith("memory"):
        assert (cells.f(1), cells.g(1), cells.h(1)) == (("eu", 1, 2), ("us", 1, 2), 3)


def test_two_functions_of_one_module_clash_in_another_cell_too(cells: Any) -> None:
    """Other cells are still there; a function that was deleted is not."""
    cells.run(CELL)
    assert cells.price(1) == 2
    with pytest.raises(ConfigurationError, match=r"price \(<cell>:1\).*cost \(<cell>:1\)"):
        cells.run(CELL.replace("price", "cost").replace("x + 1", "x + 5"))
    cells.run("del price")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.run(CELL.replace("price", "cost").replace("x + 1", "x + 5"))
    if cells.cache.address.startswith("memory"):
        assert cells.cost(1) == 6


def test_a_reloaded_module_keeps_entries_and_may_rename(
    cache: Cache, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """importlib.reload: the same text, a renamed function, an edited one, two of them that clash."""
    import importlib

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"reloaded_{uuid.uuid4().hex}"
    file = tmp_path / f"{name}.py"
    head = f"import gc\ncache = next(each for each in gc.get_objects() if id(each) == {id(cache)})\n"
    body = "@cache.versioned(namespace='r')\ndef price(x):\n    return x + 1\n"

    def reload(text: str) -> Any:
        file.write_text(head + text)
        importlib.invalidate_caches()
        loaded = sys.modules.get(name)
        return importlib.import_module(name) if loaded is None else importlib.reload(loaded)

    try:
        kept = reload(body).price
        assert kept(1) == 2
        again = reload(body)
        assert again.price is not kept
        assert again.price(1) == 2
        assert again.price.cache_info().hits == 1
        by_hand = body.replace("'r'", "'hand', key=lambda x: x")
        reload(by_hand).price(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert reload(by_hand.replace("x + 1", "x + 2")).price(2) == 4
        reload(body)
        renamed = reload(body.replace("price", "cost"))
        assert renamed.cost(1) == 2
        assert renamed.cost.cache_info().hits == 1
        said = warned(lambda: reload(body.replace("price", "cost").replace("x + 1", "x + 2")))
        assert len(said) == (0 if cache.address.startswith("memory") else 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ConfigurationError, match="other code"):
                reload(body + body.replace("x + 1", "x + 3"))
            with pytest.raises(ConfigurationError, match="dear"):
                reload(body + body.replace("price", "dear"))
    finally:
        sys.modules.pop(name, None)


def test_what_a_statement_is_about_to_replace_is_replaced(cells: Any) -> None:
    """`f = make(client)`, run again with another client, or edited; another name beside it is a clash."""
    cells.run(
        "def make(client):\n    @versioned(namespace='target')\n    def f(x):\n        return client[0] + x\n    return f\n"
    )
    cells.run("client = [1]\nf = make(client)")
    assert cells.f(1) == 2
    with pytest.raises(ConfigurationError, match="'client'"):
        cells.run("client = [2]\ng = make(client)")
    cells.run("client = [1]\nf = make(client)")
    cells.run("client = [3]  # another\nf = make(client)")
    assert cells.f(1) == (4 if cells.cache.address.startswith("memory") else 2)


def test_exec_replaces_what_the_same_text_made_before(cache: Cache) -> None:
    """In one dict, or in a new one each time: what the function uses is the same."""
    text = "def helper(x):\n    return 2 * x\n@versioned(namespace='exec')\ndef f(x):\n    return helper(x) + abs(x) + one\n"
    kept = []
    for _ in range(3):
        space: dict[str, Any] = {"versioned": cache.versioned, "one": 1}
        exec(text, space)
        assert space["f"](1) == 4
        kept.append(space)
    spaces = [{"versioned": cache.versioned} for _ in range(2)]
    for body in ("x + 1", "x + 2"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(f"@versioned(namespace='edited')\ndef f(x):\n    return {body}\n", spaces[body == "x + 2"])
    if cache.address.startswith("memory"):
        assert [each["f"](1) for each in spaces] == [2, 3]


TENANTS = {
    "itself": "@versioned(namespace='exec')\ndef f(x):\n    return tenant, x\n",
    "a helper": "def g(x):\n    return tenant, x\n@versioned(namespace='exec')\ndef f(x):\n    return g(x)\n",
    "a helper's helper": "def h():\n    return tenant\ndef g(x):\n    return h(), x\n@versioned(namespace='exec')\ndef f(x):\n    return g(x)\n",
    "a default": "def g(x, who=tenant):\n    return who, x\n@versioned(namespace='exec')\ndef f(x):\n    return g(x)\n",
    "a keyword": "def g(x, *, who=tenant):\n    return who, x\n@versioned(namespace='exec')\ndef f(x):\n    return g(x)\n",
    "a closure": "g = (lambda who: lambda x: (who, x))(tenant)\n@versioned(namespace='exec')\ndef f(x):\n    return g(x)\n",
}


@pytest.mark.parametrize("finds", TENANTS)
def test_two_tenants_in_two_dicts_of_exec_do_not_share(finds: str, cache: Cache) -> None:
    """The same text finds other globals: apart in memory, refused on a shared store, where a copy that is gone is told of."""
    text = TENANTS[finds]
    spaces: list[Any] = [{"versioned": cache.versioned, "tenant": each} for each in ("a", "b")]
    exec(text, spaces[0])
    assert spaces[0]["f"](1) == ("a", 1)
    if cache.address.startswith("memory"):
        exec(text, spaces[1])
        assert [each["f"](1) for each in spaces] == [("a", 1), ("b", 1)]
        assert [each["f"](1) for each in spaces] == [("a", 1), ("b", 1)]
        return
    with pytest.raises(ConfigurationError, match="run in different globals"):
        exec(text, spaces[1])
    spaces[0].clear()
    gc.collect()
    assert len(warned(lambda: exec(text, spaces[1]))) == 1


def test_follow_code_keeps_bodies_side_by_side(cells: Any) -> None:
    """The version part is the version, a tilde and 8 hex digits of the body and of the helpers it calls."""
    helper = "def rate(x):\n    return 10\n"
    cell = "@versioned(namespace='followed', follow_code=True)\ndef price(x):\n    return x + rate(x)\n"
    cells.run(helper)
    cells.run(cell)
    first = cells.price
    assert first(1) == 11
    key = first.key(1)
    assert re.fullmatch(r"[^:]+:1~[0-9a-f]{8}:followed:[0-9a-f]{32}", key)
    assert warned(lambda: cells.run("# again\n" + cell)) == []
    assert cells.price.key(1) == key
    assert warned(lambda: cells.run(cell.replace("x + rate", "x - rate"))) == []
    assert cells.price(1) == -9
    cells.run(cell)
    assert cells.price(1) == 11
    cells.run(helper.replace("10", "20"))
    cells.run(cell)
    assert cells.price(1) == 21
    assert cells.price.key(1) != key
    cells.run(helper)
    cells.run(cell)
    assert cells.price(1) == 11
    if not cells.cache.address.startswith("memory"):
        assert cells.price.cache_info().loads == 0
    entry = cells.price.peek(1)
    assert entry is not None
    assert entry.version == 1
    cells.price.invalidate(1)
    assert cells.price.peek(1) is None
    assert cells.price.cache_parameters()["follow_code"] is True


def test_follow_code_sees_through_methods_classes_and_wrappers() -> None:
    """Functions of the package that are called through `self`, a class, a wrapper, a closure; not those of others."""
    from memover.keys.code import fingerprint

    space: dict[str, Any] = {"__name__": "followed_module", "functools": functools, "re": re}
    text = """
class Tax:
    def of(self, x):
        return x * 2
class Shop:
    def price(self, x):
        return self.tax(x) + Tax().of(x)
    def tax(self, x):
        return deep(x)
def wrapped(f):
    @functools.wraps(f)
    def wrapper(*args):
        return f(*args)
    return wrapper
@wrapped
def deep(x):
    return re.sub('a', 'b', str(x)) and x
def top(x):
    return [each for each in map(lambda y: deep(y), x)]
"""

    def prints(text: str) -> list[str]:
        exec(text, space)
        return [fingerprint(space["Shop"].price), fingerprint(space["Shop"]().price), fingerprint(space["top"])]

    before = prints(text)
    assert prints(text) == before
    assert [a == b for a, b in zip(prints(text.replace("x * 2", "x * 3")), before)] == [False, False, True]
    assert [a == b for a, b in zip(prints(text.replace("and x", "and -x")), before)] == [False] * 3
    assert [a == b for a, b in zip(prints(text.replace("return f(*args)", "return -f(*args)")), before)] == [False] * 3


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("class Base:\n  def of(self, x): return x * 2\nclass Tax(Base): pass", "Tax().of(x)"),
        ("class Base:\n  def __init__(self, x): self.x = x * 2\nclass Tax(Base): pass", "Tax(x).x"),
        (
            "class Base:\n  def of(self, x): return x * 2\nclass Tax(Base):\n  def of(self, x): return super().of(x)",
            "Tax().of(x)",
        ),
        (
            "class Base:\n  @classmethod\n  def of(cls, x): return x * 2\nclass Tax(Base): pass\ntax = Tax()",
            "tax.of(x)",
        ),
        ("class Tax:\n  def __call__(self, x): return x * 2\ntax = Tax()", "tax(x)"),
        ("class Base:\n  def __call__(self, x): return x * 2\nclass Tax(Base): pass\ntax = Tax()", "tax(x)"),
        (
            "class Tax:\n  x = property(None, lambda self, x: vars(self).update(y=x * 2))\ntax = Tax()\ndef of(x): tax.x = x; return tax.y",
            "of(x)",
        ),
        (
            "class Tax:\n  def both(self, x, y): return x * 2\n  of = functools.partialmethod(both, y=1)\ntax = Tax()",
            "tax.of(x)",
        ),
    ],
    ids=[
        "inherited",
        "__init__ of a base",
        "super",
        "inherited, of an object",
        "__call__",
        "inherited __call__",
        "setter",
        "partialmethod",
    ],
)
def test_follow_code_sees_what_an_object_is_made_of(text: str, expression: str) -> None:
    """Methods of base classes, the call of a global object, setters of properties; undoing the edit gives the first print again."""
    from memover.keys.code import fingerprint

    def answered(text: str) -> tuple[int, str]:
        space: dict[str, Any] = {"__name__": "followed_module", "functools": functools}
        exec(f"{text}\ndef top(x):\n    return {expression}\n", space)
        return space["top"](10), fingerprint(space["top"])

    first, edited = answered(text), answered(text.replace("x * 2", "x * 3"))
    assert (first[0], edited[0]) == (20, 30)
    assert edited[1] != first[1]
    assert answered(text) == first


# -- functions that are gone


def test_a_function_that_is_gone_leaves_nothing_to_another(cache: Cache) -> None:
    """Other code finds its entries gone in memory and is warned on a shared store; other captures are refused there."""

    def one() -> Any:
        return cache.versioned(namespace="gone")(lambda x: x + 1)

    def two() -> Any:
        return cache.versioned(namespace="gone")(lambda x: x * 100)

    def captured(client: Any) -> Any:
        return cache.versioned(namespace="client")(lambda x: client[0] + x)

    assert one()(1) == 2
    gc.collect()
    assert one()(1) == 2
    gc.collect()
    if cache.address.startswith("memory"):
        assert two()(1) == 100
        assert [captured([n])(1) for n in (1, 2)] == [2, 3]
        return
    assert len(warned(two)) == 1
    assert captured([1])(1) == 2
    gc.collect()
    with pytest.raises(ConfigurationError, match="'client'"):
        captured([2])


def test_another_function_of_the_same_text_is_another(cache: Cache) -> None:
    """Two factories of one text: the first one's function is gone, and what it captured was something else."""

    def one(client: Any) -> Any:
        return cache.versioned(namespace="text")(lambda x: client[0] + x)

    def two(client: Any) -> Any:
        return cache.versioned(namespace="text")(lambda x: client[0] + x)

    assert one([1])(1) == 2
    gc.collect()
    if cache.address.startswith("memory"):
        assert two([2])(1) == 3
    else:
        assert len(warned(lambda: two([2]))) == 1


def test_a_factory_called_per_request_keeps_its_entries(cache: Cache) -> None:
    """The functions die, their entries are those of the next one that captured the same plain values and objects."""
    runs: list[str] = []

    def request(region: str, item: int) -> str:
        @cache.versioned(namespace="request")
        def load(item: int) -> str:
            log.append(region)
            return f"{region}:{item}"

        return load(item)

    class Log:
        append = staticmethod(runs.append)

    log = Log()
    for _ in range(3):
        for region in ("eu", "us"):
            assert request(region, 1) == f"{region}:1"
            gc.collect()
    assert sorted(runs) == ["eu", "us"]


def test_nothing_is_left_of_functions_that_are_gone(cache: Cache) -> None:
    """Neither namespaces, nor the functions and what they captured; a bounded number of names aside."""
    from memover.keys.places import GONE_LIMIT, PLACES

    def make(number: int) -> Any:
        thing = Keyed(str(number))
        f = cache.versioned(namespace=f"ns{number}")(lambda x: thing and x)
        f.key(1)
        return weakref.ref(thing)

    before = len(PLACES._places)
    gone = [make(number) for number in range(600)]
    gc.collect()
    assert [each() for each in gone if each() is not None] == []
    make(600)  # those that are gone are seen to be so when the next function is decorated
    assert len(PLACES._places) - before <= GONE_LIMIT + 1


def test_threads_may_decorate_at_once(cache: Cache) -> None:
    """Closures of one factory in eight threads: each answers for itself, and none is refused."""

    def make(number: int) -> Any:
        @cache.versioned(namespace="threads")
        def f(x: int) -> int:
            return number * 100 + x

        return f

    wrong: list[Any] = []

    def work(first: int) -> None:
        try:
            for number in range(first, 80, 8):
                if make(number)(1) != number * 100 + 1:
                    wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_an_unkeyable_object_later_is_an_error_of_the_call(cache: Cache) -> None:
    """A bound object whose key stops to be one is named by the call, like an argument."""
    repository = Keyed("eu")
    get = cache.versioned(namespace="later")(repository.get)
    assert get(1) == "eu:1"
    repository.region = object()  # type: ignore[assignment]
    with pytest.raises(UnkeyableArgument, match="self"):
        get(1)
