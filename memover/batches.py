"""What `map` and `warm` make of a batch's outcomes, and the chunks in which `warm` takes its calls."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.model import Source

if TYPE_CHECKING:
    from memover.engine.answers import Outcome
    from memover.runtime.batch import Hit

__all__ = ["Warmed", "async_chunks", "batch_values", "chunks"]

T = TypeVar("T")


class Warmed(NamedTuple):
    """What `warm` did: calls that were fresh already, that were loaded (or waited for), and that failed."""

    fresh: int
    loaded: int
    failed: int

    def plus(self, outcomes: Iterable[Outcome | Hit]) -> Warmed:
        fresh, loaded, failed = self
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
            elif outcome.source in (Source.FRESH, Source.NEAR):
                fresh += 1
            else:
                loaded += 1
        return Warmed(fresh, loaded, failed)


def batch_values(outcomes: list[Outcome | Hit], return_exceptions: bool) -> list[Any]:
    """The values of a batch, or its first error."""
    if return_exceptions:
        return [outcome.value if outcome.error is None else outcome.error for outcome in outcomes]
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def chunks(items: Iterable[T], size: int = 1000) -> Iterator[list[T]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


async def async_chunks(items: Iterable[T] | AsyncIterable[T], size: int = 1000) -> AsyncIterator[list[T]]:
    if not isinstance(items, AsyncIterable):
        for chunk in chunks(items, size):
            yield chunk
        return
    gathered: list[T] = []
    async for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
