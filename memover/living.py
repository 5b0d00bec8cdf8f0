"""Objects that are still there, without keeping them alive.

`weakref.WeakSet` iterates in Python code, under a guard that stays in place for good when a signal handler raises at the wrong
moment: what is dropped afterwards is never taken out of the set. And `list()` asks it for its length, and takes a TypeError
that a handler raised there for its answer. Every step here is one operation of a dict.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Living"]

T = TypeVar("T")


class Living(Generic[T]):
    """A set of objects, by identity, in the order they came. Any thread may call, at any moment."""

    __slots__ = ("__weakref__", "_refs")

    def __init__(self) -> None:
        self._refs: dict[int, ref[T]] = {}

    def add(self, thing: T) -> None:
        """Holds it for as long as it lives."""
        number = id(thing)
        # Nothing of Python's is called when it goes, so nothing can interrupt that. An address is used again only afterwards.
        self._refs[number] = ref(thing, partial(self._refs.pop, number))

    def __contains__(self, thing: object) -> bool:
        found = self._refs.get(id(thing))
        return found is not None and found() is thing

    def __iter__(self) -> Iterator[T]:
        return iter([thing for each in list(self._refs.values()) if (thing := each()) is not None])
