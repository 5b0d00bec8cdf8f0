"""Methods and classmethods: what identifies an object in the cache, and what does not.

    python examples/catalogue.py [redis://localhost:6379/0]

Look at the last line: eleven calls made six queries. Two shelves of one region share entries, two regions do not, and a parameter that
does not count (ignore=) is no part of the key.
Above @classmethod and @staticmethod, @versioned_cache knows what it decorates; below them calls work as well.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import memover
from memover import versioned_cache


@dataclass(frozen=True)
class Item:
    sku: str
    name: str
    cents: int


ROWS = {
    "eu": {"tea": Item("tea", "Tea", 450), "mug": Item("mug", "Mug", 990)},
    "us": {"tea": Item("tea", "Tea", 520)},
}
queries: list[str] = []


class Catalogue:
    """The catalogue of one region. Two objects of one region share their entries, in this process and in others."""

    def __init__(self, region: str) -> None:
        self.region = region

    def __memover_key__(self) -> str:
        """What stands for `self` in keys; without it, or ignore=("self",), memover refuses to guess."""
        return self.region

    @versioned_cache(namespace="catalogue/item", ttl="10m")
    def item(self, sku: str) -> Item | None:
        queries.append(f"item {self.region} {sku}")
        return ROWS[self.region].get(sku)

    @versioned_cache(namespace="catalogue/shipping", ttl="1d", ignore=("self",))
    def shipping_cents(self, grams: int) -> int:
        """The same for every catalogue, so `self` does not count."""
        queries.append(f"shipping {grams}")
        return 300 + grams // 10

    @versioned_cache(namespace="catalogue/regions", ttl=None)
    @classmethod
    def regions(cls) -> list[str]:
        queries.append("regions")
        return sorted(ROWS)

    def rename(self, sku: str, name: str) -> None:
        """A write, and the invalidation that belongs to it: after the write, and for this one call only."""
        rows = ROWS[self.region]
        rows[sku] = Item(sku, name, rows[sku].cents)
        self.item.invalidate(sku)


def main(url: str) -> None:
    memover.configure(url)
    for cached in (Catalogue.item, Catalogue.shipping_cents, Catalogue.regions):
        cached.invalidate_all()  # a store that outlives us may hold what an earlier run left

    print("regions:", Catalogue.regions(), "and again:", Catalogue.regions())
    europe, also_europe, america = Catalogue("eu"), Catalogue("eu"), Catalogue("us")
    print("eu tea: ", europe.item("tea"))
    print("again:  ", also_europe.item(sku="tea"))
    print("us tea: ", america.item("tea"))
    print("us mug: ", america.item("mug"), "(None is an answer, and cached like any other)")
    america.item("mug")
    print("shipping of 500 g:", europe.shipping_cents(500), america.shipping_cents(500), "cents")

    also_europe.rename("tea", "Fine tea")
    print("renamed:", europe.item("tea"), "while other regions stay cached:", america.item("tea"))
    print(len(queries), "queries were made:", ", ".join(queries))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory://")
