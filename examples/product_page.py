"""A product page made of three cached functions, and cached itself; one tag invalidates what a change concerns.

    python examples/product_page.py [redis://localhost:6379/0]

Nobody lists what the page depends on: memover notes what its load used. When the price of one product changes, its
price and its page go; the stock, the reviews and the pages of other products stay.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import memover
from memover import versioned_cache

PRICES = {"tea": 450, "mug": 990}
STOCK = {"tea": 12, "mug": 3}
REVIEWS = {"tea": ["Warm.", "Wet."], "mug": ["Holds tea."]}
queries: list[str] = []


@versioned_cache(namespace="shop/price", ttl="1h", tags="product:{sku}")
def price(sku: str) -> int:
    queries.append(f"price of {sku}")
    return PRICES[sku]


@versioned_cache(namespace="shop/stock", ttl="10m", stale_while_revalidate="10m")
def stock(sku: str) -> int:
    queries.append(f"stock of {sku}")
    return STOCK[sku]


@versioned_cache(namespace="shop/reviews", ttl="1d", stale_if_error="7d")
def reviews(sku: str) -> list[str]:
    queries.append(f"reviews of {sku}")
    return REVIEWS[sku]


@dataclass(frozen=True)
class Page:
    sku: str
    text: str


@versioned_cache(namespace="shop/page", ttl="1h")
def page(sku: str) -> Page:
    """Its entry stands under everything that these three calls stand under, their tags included."""
    queries.append(f"page of {sku}")
    euros = price(sku) / 100
    return Page(sku, f"{sku}: {euros:.2f} EUR, {stock(sku)} left, {len(reviews(sku))} reviews")


def change_price(sku: str, cents: int) -> None:
    """A write, and after it the invalidation: one command, whatever was made of that price."""
    PRICES[sku] = cents
    memover.default_cache().invalidate_tags(f"product:{sku}")


def show(what: str) -> None:
    queries.clear()
    pages = page.map(["tea", "mug"])
    print(f"{what}:")
    for one in pages:
        print("   ", one.text)
    print("    asked for:", ", ".join(queries) or "nothing")


def main(url: str) -> None:
    memover.configure(url)
    for cached in (price, stock, reviews, page):
        cached.invalidate_all()  # a store that outlives us may hold what an earlier run left

    show("first visit")
    show("second visit")
    change_price("tea", 475)
    show("the price of tea has changed")
    STOCK["mug"] -= 1
    stock.invalidate("mug")
    show("a mug was sold")
    entry = page.peek("tea")
    assert entry is not None
    print("the page of tea stands under the tag", *entry.tags, "and", len(entry.dependencies), "dependencies")
    memover.default_cache().close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "memory://")
