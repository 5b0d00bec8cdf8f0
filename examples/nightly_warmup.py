"""Fills a cache ahead of the morning, with a progress bar: tqdm's if it is installed, else one of our own.

    python examples/nightly_warmup.py [redis://localhost:6379/0] [--products 2000]

The bulk loader asks the database for many products at once; what is fresh already is left alone, and what fails is
counted and does not stop the rest. A second run finds everything fresh and takes one round trip a thousand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import memover
from memover import Call, versioned_cache


class Product(TypedDict):
    id: int
    name: str


statements: list[int] = []


@versioned_cache(namespace="warmup/product", ttl="1d", jitter=0.1)
def product(product_id: int) -> Product:
    """One product, for the web service. Jitter keeps the entries of one night from ending at one moment."""
    statements.append(1)
    if product_id % 500 == 499:
        raise LookupError(f"no product {product_id}")
    return {"id": product_id, "name": f"Product {product_id}"}


@product.batch_load
def products(calls: Sequence[Call]) -> dict[int, Product]:
    """Many products in one statement: SELECT ... WHERE id IN (...). What is not there is asked for singly, and raises."""
    wanted = [call.arguments["product_id"] for call in calls]
    statements.append(len(wanted))
    return {number: {"id": number, "name": f"Product {number}"} for number in wanted if number % 500 != 499}


@contextmanager
def progress_bar(total: int) -> Generator[Callable[[int], object], None, None]:
    """A callable that is told of each n calls that are done."""
    try:
        from tqdm import tqdm
    except ImportError:
        done = 0

        def tell(number: int) -> None:
            nonlocal done
            done += number
            if sys.stderr.isatty():
                print(f"\r{done:>6} of {total}", end="" if done < total else "\n", file=sys.stderr)

        yield tell
    else:
        with tqdm(total=total, disable=None) as bar:
            yield bar.update


def main(url: str, number: int) -> None:
    memover.configure(url)
    for night in ("first", "second"):
        statements.clear()
        with progress_bar(number) as tell:
            done = product.warm(range(number), progress=tell)
        print(
            f"{night} night: {done.fresh} fresh, {done.loaded} loaded, {done.failed} failed, "
            f"{len(statements)} statements"
        )
    memover.default_cache().close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", nargs="?", default="memory://")
    parser.add_argument("--products", type=int, default=2000)
    asked = parser.parse_args()
    main(asked.url, asked.products)
