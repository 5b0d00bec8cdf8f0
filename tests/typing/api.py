"""The public interface as type checkers see it: mypy --strict and pyright must both accept every line.

Nothing here is run. A line that must be an error says which, for each checker; both are told to complain of an
ignore that ignores nothing (see test_typing.py), so a wrong call that is accepted fails the check as surely as a
right one that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import memover
from memover import (
    AsyncCachedFunction,
    Cache,
    CachedFunction,
    CacheInfo,
    Call,
    Entry,
    Event,
    Generation,
    Source,
    versioned_cache,
)

# Functions: called as they are, whatever decorates them


@versioned_cache(namespace="price", version=2, ttl=timedelta(minutes=5))
def price(sku: str, *, currency: str = "EUR") -> float:
    return 1.0


@versioned_cache(namespace="stock")
def stock(sku: str, /, *warehouses: int, **options: bool) -> list[int]:
    return []


@versioned_cache(namespace="rates")
async def rate(currency: str, day: int = 0) -> float:
    return 1.0


@versioned_cache(namespace="find")
async def find(name: str) -> str | None:
    return None


class Scorer:
    def __call__(self, text: str) -> int:
        return 0


class AsyncScorer:
    async def __call__(self, text: str) -> int:
        return 0


score = versioned_cache(namespace="score")(Scorer())
ascore = versioned_cache(namespace="ascore")(AsyncScorer())


def functions() -> None:
    assert_type(price("tea"), float)
    assert_type(price("tea", currency="USD"), float)
    assert_type(price(sku="tea"), float)
    assert_type(stock("tea", 1, 2, fresh=True), list[int])
    assert_type(score("text"), int)

    price(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price("tea", "USD")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price("tea", currency=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price("tea", colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stock(sku="tea")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    stock("tea", "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    score(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price("tea").upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def async_functions() -> None:
    assert_type(await rate("USD"), float)
    assert_type(await rate("USD", day=1), float)
    assert_type(await find("tea"), str | None)
    assert_type(await ascore("text"), int)

    await rate(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await rate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await price("tea")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    forgotten: float = rate("USD")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del forgotten


# Helpers take the function's arguments, and say what they return


def helpers() -> None:
    assert_type(price.key("tea"), str)
    assert_type(price.peek("tea", currency="USD"), Entry | None)
    assert_type(price.refresh("tea"), float)
    assert_type(price.invalidate_all(), Generation)
    assert_type(price.max_age(10)("tea"), float)
    assert_type(price.max_age(timedelta(seconds=10))("tea", currency="USD"), float)
    assert_type(price.max_age("10s")(sku="tea"), float)
    assert_type(price.at(1).key("tea"), str)
    assert_type(price.at(1).peek("tea"), Entry | None)
    assert_type(price.bypass("tea"), float)
    assert_type(price.cache_info(), CacheInfo)
    assert_type(price.cache_info().hits, int)
    assert_type(price.cache_parameters(), dict[str, Any])
    assert_type(price.namespace, str)
    assert_type(price.version, int)
    assert_type(price.cache, Cache)
    assert_type(price.__name__, str)
    price.set(2.5, "tea")
    price.set(2, "tea", currency="USD")
    price.invalidate("tea")
    price.at(1).invalidate("tea", currency="USD")
    price.cache_clear()
    price.__wrapped__("tea")
    assert_type(price.map(["tea", "mug"]), list[float])
    price.map(["tea"], concurrency=2, progress=print, return_exceptions=True)
    price.warm(["tea", ("mug",)])

    price.key()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price.peek(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.refresh("tea", "USD")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price.set("2.5", "tea")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.set(2.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price.invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.cache_clear("tea")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price.max_age()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    price.max_age(10)(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.at("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.at(1).peek(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.at(1).refresh("tea")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    price.bypass(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    price.version = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    price.map(["tea"], concurrency="2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    price.forget("tea")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def async_helpers() -> None:
    assert_type(rate.key("USD"), str)
    assert_type(await rate.peek("USD"), Entry | None)
    assert_type(await rate.refresh("USD"), float)
    assert_type(await rate.set(1.5, "USD", day=2), None)
    assert_type(await rate.invalidate("USD"), None)
    assert_type(await rate.invalidate_all(), Generation)
    assert_type(await rate.cache_clear(), None)
    assert_type(await rate.max_age(10)("USD"), float)
    promised: Coroutine[Any, Any, float] = rate.max_age("10s")("USD")
    assert_type(await promised, float)
    assert_type(rate.at(1).key("USD"), str)
    assert_type(await rate.at(1).peek("USD"), Entry | None)
    assert_type(await rate.at(1).invalidate("USD"), None)
    assert_type(await rate.bypass("USD"), float)
    assert_type(await rate.map(["USD", "EUR"]), list[float])
    await rate.warm(["USD"])
    assert_type(rate.cache_info().misses, int)

    await rate.key("USD")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await rate.set("1.5", "USD")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await rate.invalidate(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await rate.max_age(10)(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    entry: Entry | None = rate.peek("USD")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del entry


# Methods, classmethods and staticmethods, in both orders of decorators, on the object, the class and a subclass


class Shop:
    def __memover_key__(self) -> str:
        return "shop"

    @versioned_cache(namespace="shop/item")
    def item(self, sku: str, count: int = 1) -> dict[str, int]:
        return {}

    @versioned_cache(namespace="shop/aitem")
    async def aitem(self, sku: str) -> bytes:
        return b""

    @classmethod
    @versioned_cache(namespace="shop/below")
    def below(cls, sku: str) -> int:
        return 1

    @versioned_cache(namespace="shop/above")
    @classmethod
    def above(cls, sku: str) -> int:
        return 1

    @classmethod
    @versioned_cache(namespace="shop/abelow")
    async def abelow(cls, sku: str) -> int:
        return 1

    @staticmethod
    @versioned_cache(namespace="shop/sbelow")
    def sbelow(sku: str) -> int:
        return 1

    @versioned_cache(namespace="shop/sabove")
    @staticmethod
    def sabove(sku: str) -> int:
        return 1

    @property
    @versioned_cache(namespace="shop/total")
    def total(self) -> int:
        return 1


class BigShop(Shop):
    def item(self, sku: str, count: int = 1) -> dict[str, int]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return super().item(sku, count)


def methods(shop: Shop, big: BigShop) -> None:
    assert_type(shop.item("tea"), dict[str, int])
    assert_type(shop.item("tea", count=2), dict[str, int])
    assert_type(Shop.item(shop, "tea"), dict[str, int])
    assert_type(shop.item.key("tea"), str)
    assert_type(shop.item.peek("tea"), Entry | None)
    assert_type(shop.item.refresh("tea", 2), dict[str, int])
    assert_type(shop.item.max_age(5)("tea"), dict[str, int])
    assert_type(shop.item.at(1).peek("tea"), Entry | None)
    assert_type(shop.item.bypass("tea"), dict[str, int])
    shop.item.set({"a": 1}, "tea")
    shop.item.invalidate("tea")
    Shop.item.invalidate(shop, "tea")
    Shop.item.invalidate_all()

    for on in (shop, big):
        assert_type(on.below("tea"), int)
        assert_type(on.above("tea"), int)
        assert_type(on.sbelow("tea"), int)
        assert_type(on.sabove("tea"), int)
        on.below.invalidate("tea")
        on.sabove.invalidate("tea")
    assert_type(Shop.below("tea"), int)
    assert_type(Shop.above("tea"), int)
    assert_type(Shop.sbelow("tea"), int)
    assert_type(Shop.sabove("tea"), int)
    assert_type(BigShop.below("tea"), int)
    assert_type(BigShop.below.key("tea"), str)
    assert_type(shop.total, int)

    shop.item()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.item(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shop.item(shop, "tea")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shop.item.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shop.item.set({"a": "b"}, "tea")  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    shop.below(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Shop.above(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shop.sbelow(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Shop.sabove()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def async_methods(shop: Shop) -> None:
    assert_type(await shop.aitem("tea"), bytes)
    assert_type(await shop.aitem.refresh("tea"), bytes)
    assert_type(await shop.aitem.max_age(1)("tea"), bytes)
    assert_type(await shop.aitem.peek("tea"), Entry | None)
    assert_type(await Shop.abelow("tea"), int)
    assert_type(await shop.abelow("tea"), int)
    await shop.aitem.set(b"x", "tea")

    await shop.aitem(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await shop.aitem.set("x", "tea")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await Shop.abelow(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# A decorated function goes wherever the function went


def takes(function: Callable[[str], float]) -> None: ...
def takes_async(function: Callable[[str], Coroutine[Any, Any, float]]) -> None: ...
def takes_cached(function: CachedFunction[[str], object]) -> None: ...


@versioned_cache(namespace="plain")
def plain(sku: str, /) -> float:
    return 1.0


def passed_on() -> None:
    takes(price)
    takes(plain)
    takes_async(rate)
    takes_cached(plain)  # the result is covariant
    assert_type(plain, CachedFunction[[str], float])

    takes(rate)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    takes_async(price)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    takes(stock)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The decorator's own options, and the caches


def lifetime(result: Any, call: Call) -> timedelta:
    return timedelta(seconds=len(call.namespace))


def watcher(event: Event) -> None:
    assert_type(event.source, Source | None)


def options(cache: Cache) -> None:
    versioned_cache(namespace="n", ttl=None, key="{user_id}", ignore=("db",), jitter=0.1)
    versioned_cache(namespace="n", ttl=lifetime, key=lambda user_id: user_id, cache_if=lambda found, call: bool(found))
    versioned_cache(namespace="n", tags=("user:{user_id}", lambda call: [call.key], lambda call, found: [str(found)]))
    versioned_cache(namespace="n", cache_errors=(LookupError,), error_ttl="5s", early_refresh=True, soft_timeout=1)
    versioned_cache(namespace="n", stale_while_revalidate="1m", stale_if_error=timedelta(hours=1))
    versioned_cache(namespace="n", ttl="1h30m", on_store_error="stale", wait_timeout=1, lease_ttl="5s", cache=cache)
    memover.configure("redis://localhost/0", prefix="shop", ttl=None, observers=[watcher])
    Cache("memory://", max_entries=10, observers=(watcher,))
    assert_type(memover.default_cache(), Cache)
    assert_type(cache.invalidate_namespace("n"), Generation)
    with memover.using(cache) as used, cache.disabled(), cache.detect() as lookups, Cache() as other:
        assert_type(used, Cache)
        assert_type(other, Cache)
        assert_type(lookups, list[Event])

    versioned_cache()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    versioned_cache("n")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    versioned_cache(namespace="n", version="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    versioned_cache(namespace="n", on_store_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    versioned_cache(namespace="n", time_to_live=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    versioned_cache(namespace="n")(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Cache(observers=[print, 3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def a_cache_decorates_as_versioned_cache_does(cache: Cache) -> None:
    @cache.versioned(namespace="mine", version=2, ttl="5m")
    def mine(number: int, /) -> str:
        return ""

    @cache.versioned(namespace="amine")
    async def amine(number: int, /) -> str:
        return ""

    assert_type(mine, CachedFunction[[int], str])
    assert_type(amine, AsyncCachedFunction[[int], str])

    mine("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.versioned(version=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cache.versioned(namespace="n", version=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@versioned_cache(namespace="opts-out")
def opts_out(x: int) -> int:
    assert_type(opts_out(1), int)
    return memover.NotCached(x)


async def async_caches(cache: Cache) -> None:
    await cache.ainvalidate_tags("user:7", "user:8")
    cache.invalidate_tags("user:7")
    assert_type(await cache.ainvalidate_namespace("n"), Generation)
    async with cache as entered:
        assert_type(entered, Cache)
    await cache.aclose()
