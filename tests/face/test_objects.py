"""A decorated function is as good an object as the function: named, typed, pickled, copied, weakly referenced."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import gc
import inspect
import multiprocessing
import pickle
import typing
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import memover
from tests.face import functions
from tests.face.functions import Shop, asquare, square
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from tests.face.ways import Way


def test_a_decorated_function_keeps_what_it_is_called(way: Way) -> None:
    """Name, qualified name, module, doc, signature, annotations, defaults, and whether it is a coroutine function."""

    def price(sku: str, /, count: int = 1, *, currency: str = "EUR") -> float:
        """What it costs."""
        return 1.0

    plain = way.flavoured(price)
    cached = way.cached()(price)
    assert cached.__name__ == "price"
    assert cached.__qualname__ == price.__qualname__
    assert cached.__module__ == __name__
    assert cached.__doc__ == "What it costs."
    assert inspect.signature(cached) == inspect.signature(plain)
    assert str(inspect.signature(cached)) == str(inspect.signature(price))
    assert cached.__annotations__ == price.__annotations__
    assert typing.get_type_hints(cached) == {"sku": str, "count": int, "currency": str, "return": float}
    assert inspect.iscoroutinefunction(cached) is way.is_async
    assert asyncio.iscoroutinefunction(cached) is way.is_async
    assert inspect.unwrap(cached) is price
    assert callable(cached)
    assert "price" in repr(cached)
    assert cached.namespace in repr(cached)
    assert cached.version == 1
    assert cached.cache is way.cache
    assert isinstance(cached, memover.AsyncCachedFunction if way.is_async else memover.CachedFunction)


def test_a_decorated_function_is_equal_to_itself_and_hashable(way: Way) -> None:
    """It can be a key of a dict, and is not equal to another function's decorated form."""

    def f() -> int:
        return 1

    one, other = way.cached()(f), way.cached()(lambda: 1)
    assert one == one
    assert one != other
    assert len({one, one, other}) == 2


def test_attributes_of_the_function_are_there(way: Way) -> None:
    """What was set on the function is found on its decorated form, and the other way round."""

    def f() -> int:
        return 1

    f.route = "/f"  # type: ignore[attr-defined]
    plain = way.flavoured(f)
    cached = memover.versioned_cache(namespace="attributes", cache=way.cache)(plain)
    assert cached.route == "/f"
    cached.more = 1
    assert plain.more == 1


def test_other_decorators_go_above_and_below(way: Way) -> None:
    """functools.wraps of another decorator finds all it copies, in both places."""

    def twice(function: Any) -> Any:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def doubled(*args: Any, **kwargs: Any) -> Any:
                return 2 * await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def doubled(*args: Any, **kwargs: Any) -> Any:
                return 2 * function(*args, **kwargs)

        return doubled

    def f(x: int) -> int:
        return x

    above = twice(way.cached()(f))
    below = memover.versioned_cache(namespace="below", cache=way.cache)(twice(way.flavoured(f)))
    assert way.run(above(5)) == way.run(below(5)) == 10
    assert above.__name__ == below.__name__ == "f"
    assert str(inspect.signature(above)) == str(inspect.signature(below)) == "(x: 'int') -> 'int'"
    assert below.key(5) == below.key(x=5)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_is_pickled_by_reference(protocol: int) -> None:
    """As lru_cache: the other process finds its own; here it is the same object."""
    for function in (square, asquare):
        assert pickle.loads(pickle.dumps(function, protocol)) is function


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bound_methods_are_pickled_with_their_object(protocol: int) -> None:
    """The object is pickled, and its method found again: same key, same entries."""
    shop = Shop("eu")
    again = pickle.loads(pickle.dumps(shop.item, protocol))
    assert again.__self__ == shop
    assert again.key("tea") == shop.item.key("tea")
    assert again("tea") == ["eu", "tea"]
    classwide = pickle.loads(pickle.dumps(Shop.regions, protocol))
    assert classwide() == ["Shop"]
    assert classwide.key() == Shop.regions.key()
    static = pickle.loads(pickle.dumps(Shop.rate, protocol))
    assert static("USD") == "USD"
    assert static.key("USD") == Shop.rate.key("USD")
    unbound = pickle.loads(pickle.dumps(Shop.item, protocol))
    assert unbound(shop, "tea") == ["eu", "tea"]


def test_copies_are_the_function_itself() -> None:
    """copy and deepcopy leave it as it is, as they do functions; inside other objects too."""
    for function in (square, asquare, Shop.rate, Shop("eu").item):
        assert copy.copy(function) is function
        assert copy.deepcopy(function) is function
    assert copy.deepcopy({"f": square})["f"] is square


def test_functions_can_be_weakly_referenced(way: Way) -> None:
    """weakref.ref works, and a function that nobody holds is collected: the cache does not keep it."""

    def make() -> Any:
        @way.cached()
        def f() -> list[int]:
            return [1]

        way.run(f())
        return weakref.ref(f)

    ref = make()
    gc.collect()
    assert ref() is None
    kept = weakref.ref(square)
    assert kept() is square


def test_a_closure_of_a_collected_object_is_collected_too(way: Way) -> None:
    """Calling a cached method keeps neither its object nor the arguments."""

    class Shop:
        @way.cached(ignore=("self",))
        def item(self, sku: str) -> str:
            return sku

    shop = Shop()
    ref = weakref.ref(shop)
    way.run(shop.item("tea"))
    del shop

    def collected() -> bool:
        gc.collect()  # does nothing while another thread's collection is going on
        return ref() is None

    wait_until(collected, "the object to be collected")


def test_a_decorated_function_can_be_sent_to_a_process_pool(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """multiprocessing with spawn: the function and its bound methods arrive, and share entries through Redis."""
    monkeypatch.setenv("TEST_MEMOVER_URL", redis_url)
    monkeypatch.setenv("TEST_MEMOVER_PREFIX", prefix)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(square, 12).result(60) == 144
        assert pool.submit(Shop("eu").item, "tea").result(60) == ["eu", "tea"]
        assert pool.submit(square.key, 12).result(60).startswith(f"{prefix}:1:functions/square:")
        assert pool.submit(functions.counted).result(60) == [1, 1]


def test_processes_agree_on_keys_whatever_their_hash_seed(redis_url: str, prefix: str) -> None:
    """PYTHONHASHSEED differs, sets and dicts come in another order: the key is the same."""
    code = """
from memover import Cache, versioned_cache
@versioned_cache(namespace="seeds", cache=Cache(args[0], prefix=args[1]))
def f(value): return sorted(value["names"])
value = {"names": {"a", "b", "c", "d"}, "x": frozenset("hijk"), "y": {"one": 1, "two": 2}}
f(value)
result = [f.key(value), f.cache_info().hits]
"""
    answers = [run_python(code, redis_url, prefix, env={"PYTHONHASHSEED": str(seed)})[0] for seed in (0, 1, 2)]
    assert len({key for key, _ in answers}) == 1
    assert [hits for _, hits in answers] == [0, 1, 1]
