"""What counts as the same call, and what its key is."""

from __future__ import annotations

import functools
import re
import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover import ConfigurationError, UnkeyableArgument, versioned_cache

if TYPE_CHECKING:
    from tests.face.ways import Way


def test_a_call_is_the_same_however_it_is_written(way: Way) -> None:
    """Positional, by keyword, in another order, with the default spelled out: one entry, one run."""
    runs = []

    @way.cached()
    def profile(user_id: int, region: str = "eu", *, full: bool = False) -> list[Any]:
        runs.append(user_id)
        return [user_id, region, full]

    spellings = [
        ((7,), {}),
        ((7, "eu"), {}),
        ((), {"user_id": 7}),
        ((7,), {"region": "eu"}),
        ((), {"region": "eu", "user_id": 7}),
        ((7,), {"full": False}),
        ((), {"full": False, "region": "eu", "user_id": 7}),
    ]
    assert {profile.key(*args, **kwargs) for args, kwargs in spellings} == {profile.key(7)}
    for args, kwargs in spellings:
        assert way.run(profile(*args, **kwargs)) == [7, "eu", False]
    assert runs == [7]
    assert way.run(profile(7, "us")) == [7, "us", False]
    assert way.run(profile(7, full=True)) == [7, "eu", True]
    assert runs == [7, 7, 7]
    assert profile.cache_info()[:2] == (6, 3)


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int


@dataclass(frozen=True)
class Place:
    x: int


def test_different_arguments_never_share(way: Way) -> None:
    """Equal under == is not enough: types count, to any depth, and so do dataclasses of other names."""

    @way.cached()
    def of(value: Any) -> str:
        return repr(value)

    values = [1, 1.0, True, "1", b"1", None, "", (), [], {}, (1,), [1], {1: 1}, {1}, [True], [[1]], Point(1), Place(1)]
    values += [Colour.RED, -0.0, 0.0, 0, False, float("nan"), "a\0b", "a", {"a": 1, "b": 2}, (1, (2, 3)), ((1, 2), 3)]
    assert len({of.key(value) for value in values}) == len(values)
    for _ in range(2):
        assert [way.run(of(value)) for value in values] == [repr(value) for value in values]


def test_the_order_of_dicts_sets_and_keywords_does_not_count(way: Way) -> None:
    """What is equal as a set, a dict or **kwargs is one call."""

    @way.cached()
    def of(value: Any = None, **more: Any) -> int:
        return 1

    assert of.key({"a": 1, "b": {3, 2, 1}}) == of.key({"b": {1, 2, 3}, "a": 1})
    assert of.key(x=1, y=2) == of.key(y=2, x=1)
    assert of.key(x=1) != of.key({"x": 1})


def test_every_kind_of_parameter_is_bound(way: Way) -> None:
    """Positional-only, defaults, *args, keyword-only and **kwargs, together."""
    runs = []

    @way.cached()
    def f(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> tuple[Any, ...]:
        runs.append(1)
        return a, b, rest, c, d, more

    assert way.run(f(1, c=3)) == way.run(f(1, 2, d=4, c=3)) == (1, 2, (), 3, 4, {})
    assert len(runs) == 1
    assert way.run(f(1, 2, 3, 4, c=3, e=5)) == (1, 2, (3, 4), 3, 4, {"e": 5})
    assert way.run(f(1, c=3, a=9)) == (1, 2, (), 3, 4, {"a": 9}), "a is positional-only: the other is one of **more"
    assert len(runs) == 3
    keys = {f.key(1, c=3), f.key(1, 3, c=3), f.key(1, 2, 3, c=3), f.key(1, c=3, e=1), f.key(1, c=3, d=5)}
    assert len(keys) == 5


def test_a_wrong_call_raises_what_the_function_would(way: Way) -> None:
    """TypeError in the function's own words, before anything is read or run; helpers alike."""

    @way.cached()
    def f(a: int, /, *, b: int = 1) -> int:
        raise AssertionError("it must not run")

    for wrong in (lambda g: g(), lambda g: g(1, 2), lambda g: g(1, c=3), lambda g: g(a=1)):
        for what in (f, f.key, f.peek, f.refresh, f.invalidate, f.max_age(1), f.at(1).peek):
            with pytest.raises(TypeError, match=r"f\(\)"):
                way.run(wrong(what))
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'a'"):
        way.run(f.set(5))
    assert f.cache_info().misses == 0


def test_an_argument_that_cannot_be_a_key_is_refused(way: Way) -> None:
    """UnkeyableArgument names function, parameter and path; the function is not run, and nothing is guessed from repr."""

    class Session:
        def __repr__(self) -> str:
            return "Session"

    @way.cached()
    def f(user: Any) -> int:
        raise AssertionError("it must not run")

    with pytest.raises(UnkeyableArgument) as caught:
        way.run(f({"friends": [1, Session()]}))
    assert caught.value.parameter == "user"
    assert "friends" in caught.value.path
    assert "[1]" in caught.value.path
    assert caught.value.function.endswith("f")
    assert "Session" in caught.value.kind
    assert isinstance(caught.value, TypeError)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnkeyableArgument):
        f.key(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UnkeyableArgument):
        f.key(deep)


# Keys by hand


def test_a_template_names_what_counts(way: Way) -> None:
    """key="{user_id}:{region}": readable keys, and parameters that are not named do not count."""
    runs = []

    @way.cached("profiles", version=3, key="{user_id}:{region}")
    def profile(user_id: int, region: str = "eu", *, trace: object = None) -> int:
        runs.append(user_id)
        return user_id

    assert profile.key(7) == f"{way.prefix}:3:profiles:7:eu"
    assert way.run(profile(7, trace=object())) == way.run(profile(7, trace=object())) == 7
    assert runs == [7]
    assert profile.key("a:b", "c") != profile.key("a", "b:c"), "texts cannot be shifted across a separator"
    assert profile.key(1) != profile.key("1"), "nor types"


def test_a_template_reaches_into_arguments(way: Way) -> None:
    """{user.id}: an attribute, or an item, of a parameter."""

    class User:
        def __init__(self, id: int) -> None:
            self.id = id

    @way.cached("of", key="{user.id}")
    def of(user: User) -> int:
        return user.id

    assert of.key(User(5)) == f"{way.prefix}:1:of:5"
    assert way.run(of(User(5))) == 5


def test_a_callable_makes_the_key_from_the_arguments(way: Way) -> None:
    """It takes the function's own arguments, defaults applied, or some of them by name."""
    runs = []

    @way.cached(key=lambda text, limit: (text.casefold(), limit))
    def search(text: str, limit: int = 10) -> str:
        runs.append(text)
        return text

    assert way.run(search("Tea")) == way.run(search("TEA", limit=10)) == "Tea"
    assert search.key("tea") != search.key("tea", 11)
    assert runs == ["Tea"]

    @way.cached(key=lambda text: text.casefold())
    def find(text: str, db: object) -> str:
        return text

    assert find.key("A", object()) == find.key(db=object(), text="a")


def test_ignored_parameters_do_not_count(way: Way) -> None:
    """ignore=("db",): whatever it is, it is passed on and leaves no trace in the key."""
    seen = []

    @way.cached(ignore=("db", "options"))
    def load(user_id: int, db: object, **options: object) -> int:
        seen.append((db, options))
        return user_id

    first, second = object(), object()
    assert way.run(load(1, first, x=object())) == way.run(load(1, db=second)) == 1
    assert len(seen) == 1
    assert seen[0][0] is first
    assert load.key(1, first) == load.key(1, second, y=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": ("database",)}, "database"),
        ({"key": "{user}"}, "user"),
        ({"key": "{user_id"}, "user_id"),
        ({"key": ""}, "key"),
        ({"key": 5}, "key="),
        ({"key": lambda a, b, c: a}, "key="),
        ({"key": "{db}", "ignore": ("db",)}, "db"),
        ({"key": lambda user_id, db: 1, "ignore": ("db",)}, "ignore="),
    ],
)
def test_wrong_keys_are_refused_at_decoration(options: dict[str, Any], message: str) -> None:
    """A name that is no parameter, a template that cannot be read, a callable that cannot take the arguments."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):

        @versioned_cache(namespace="wrong-keys", cache=memover.Cache(), **options)
        def load(user_id: int, db: object = None) -> int:
            return user_id


def test_a_key_that_cannot_be_one_is_refused_at_the_call(way: Way) -> None:
    """What a key callable returns must be keyable itself; its own errors come through."""

    @way.cached(key=lambda x: object() if x else 1 // x)
    def f(x: int) -> int:
        return x

    with pytest.raises(UnkeyableArgument):
        way.run(f(1))
    with pytest.raises(ZeroDivisionError):
        way.run(f(0))


def test_register_key_teaches_a_foreign_type(way: Way) -> None:
    """Instances of a registered type count by what the function says of them."""

    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    memover.register_key(Money, lambda money: money.cents)

    @way.cached()
    def f(money: Money) -> int:
        return money.cents

    assert f.key(Money(5)) == f.key(Money(5)) != f.key(Money(6))
    assert f.key(Money(5)) != f.key(5), "the type counts"
    assert way.run(f(Money(5))) == 5


# Recursion


def test_a_recursive_function_is_cached_at_every_depth(way: Way) -> None:
    """fibonacci: one load per number, whatever calls it."""
    runs = []
    number: Any = None

    if way.is_async:

        async def fib(n: int) -> int:
            runs.append(n)
            return n if n < 2 else await number(n - 1) + await number(n - 2)

    else:

        def fib(n: int) -> int:
            runs.append(n)
            return n if n < 2 else number(n - 1) + number(n - 2)

    number = memover.versioned_cache(namespace="fib", cache=way.cache)(fib)
    assert way.run(number(20)) == 6765
    assert sorted(runs) == list(range(21))
    assert way.run(number(19)) == 4181
    assert len(runs) == 21


def test_a_function_that_calls_itself_with_the_same_arguments_is_let_through(way: Way) -> None:
    """It would wait for itself: the inner call runs the function, and the outer result is the one that is kept."""
    depth = []
    again: Any = None

    if way.is_async:

        async def f(x: int) -> int:
            depth.append(x)
            return len(depth) if len(depth) > 2 else await again(x)

    else:

        def f(x: int) -> int:
            depth.append(x)
            return len(depth) if len(depth) > 2 else again(x)

    again = memover.versioned_cache(namespace="again", cache=way.cache)(f)
    assert way.run(again(1)) == 3
    assert len(depth) == 3
    assert way.run(again(1)) == 3
    assert len(depth) == 3
    assert again.cache_info().bypasses == 2


# Callables


def test_callables_and_partials_are_decorated(way: Way) -> None:
    """An object with __call__, and functools.partial with what it leaves open."""
    runs = []

    if way.is_async:

        class Scorer:
            def __memover_key__(self) -> str:
                return "scorer"

            async def __call__(self, text: str, weight: int = 1) -> int:
                runs.append(text)
                return len(text) * weight

    else:

        class Scorer:  # type: ignore[no-redef]
            def __memover_key__(self) -> str:
                return "scorer"

            def __call__(self, text: str, weight: int = 1) -> int:
                runs.append(text)
                return len(text) * weight

    score = memover.versioned_cache(namespace="score", cache=way.cache)(Scorer())
    assert way.run(score("tea")) == way.run(score(text="tea")) == 3
    assert runs == ["tea"]
    assert way.run(score.bypass("tea", 2)) == 6

    def add(a: int, b: int, c: int = 0) -> int:
        runs.append("add")
        return a + b + c

    partial = functools.partial(way.flavoured(add), 1, c=5)
    added = memover.versioned_cache(namespace="added", cache=way.cache)(partial)
    assert way.run(added(2)) == way.run(added(2)) == 8
    assert runs.count("add") == 1
    assert added.key(2) != added.key(3)


def test_a_builtin_with_a_signature_is_decorated(sync_way: Way) -> None:
    """What is not written in Python is called all the same."""
    import math

    root = memover.versioned_cache(namespace="isqrt", cache=sync_way.cache)(math.isqrt)
    assert root(17) == root(17) == 4
    assert root.cache_info()[:2] == (1, 1)


def test_threads_of_one_process_load_once(sync_way: Way) -> None:
    """Eight threads at one cold call: one run, eight results."""
    runs, gate = [], threading.Barrier(8)

    @sync_way.cached()
    def slow(x: int) -> list[int]:
        runs.append(x)
        released.wait(10)
        return [x]

    released = threading.Event()
    found: list[Any] = []

    def caller() -> None:
        gate.wait(10)
        found.append(slow(1))

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    released.set()
    for thread in threads:
        thread.join(30)
    assert found == [[1]] * 8
    assert runs == [1]
