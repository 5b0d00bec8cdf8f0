"""Decorated functions of a module that other processes can import."""

from __future__ import annotations

import os

from memover import Cache, versioned_cache

cache = Cache(
    os.environ.get("TEST_MEMOVER_URL", "memory://"), prefix=os.environ.get("TEST_MEMOVER_PREFIX", "functions")
)


@versioned_cache(namespace="functions/square", cache=cache)
def square(x: int) -> int:
    """The square."""
    return x * x


@versioned_cache(namespace="functions/asquare", cache=cache)
async def asquare(x: int) -> int:
    return x * x


class Shop:
    def __init__(self, region: str) -> None:
        self.region = region

    def __memover_key__(self) -> str:
        return self.region

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shop) and other.region == self.region

    def __hash__(self) -> int:
        return hash(self.region)

    @versioned_cache(namespace="functions/item", cache=cache)
    def item(self, sku: str) -> list[str]:
        return [self.region, sku]

    @versioned_cache(namespace="functions/regions", cache=cache)
    @classmethod
    def regions(cls) -> list[str]:
        return [cls.__name__]

    @versioned_cache(namespace="functions/rate", cache=cache)
    @staticmethod
    def rate(currency: str) -> str:
        return currency


def counted() -> list[int]:
    """For another process: hits and misses of `square` there, after one call."""
    square(12)
    info = square.cache_info()
    return [info.hits, info.misses]
