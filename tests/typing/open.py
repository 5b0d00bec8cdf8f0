"""Functions whose result is a type variable or Any: the arguments of their helpers are checked too.

Not by mypy, which cannot take the parameters of a generic function apart: there the helpers take any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from memover import versioned_cache

T = TypeVar("T")


@versioned_cache(namespace="open/first")
def first(items: Sequence[T]) -> T:
    return items[0]


@versioned_cache(namespace="open/anything")
def anything(number: int) -> Any:
    return number


class Rows:
    @versioned_cache(namespace="open/rows/any", ignore=("self",))
    def any(self, number: int) -> Any:
        return number

    @versioned_cache(namespace="open/rows/first", ignore=("self",))
    def first(self, items: Sequence[T]) -> T:
        return items[0]


def helpers_take_the_arguments_of_the_function(rows: Rows) -> None:
    anything.set("value", 1)
    anything.at(1).peek(number=1)
    first.key(items=[1])
    rows.any.invalidate(1)
    rows.first.invalidate([1])

    anything.key("1")  # pyright: ignore[reportArgumentType]
    anything.peek()  # pyright: ignore[reportCallIssue]
    anything.set("value", "1")  # pyright: ignore[reportArgumentType]
    anything.invalidate("1")  # pyright: ignore[reportArgumentType]
    anything.at(1).peek("1")  # pyright: ignore[reportArgumentType]
    first.invalidate(1)  # pyright: ignore[reportArgumentType]
    rows.any.invalidate("1")  # pyright: ignore[reportArgumentType]
    rows.first.invalidate(1)  # pyright: ignore[reportArgumentType]
