"""Private copies of a value, quicker than decoding its bytes: for a store that keeps values in this process.

A value that can be changed is made anew for each caller. `copier_of` takes a value that was decoded for this purpose and is
handed out to nobody, and returns a function that copies it: containers are copied by the builtins' own methods, what
nobody can change is shared. It refuses what it does not know exactly, and then the bytes are decoded as before.

Measured on CPython 3.11 (`benchmarks/bench_copies.py`): a dict of 13 fields with a list and a dict in it takes 0.13 of the
time that decoding takes. A copier costs some 10 µs and more memory than the bytes, so that it pays from the second hit on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from memover.classes.kinds import ClassKind, declares_itself, field_names, kind_of
from memover.classes.layout import base_of, keeps_dict, slots_of
from memover.classes.places import place_of
from memover.codec.sharing import moved, places_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.classes.places import NamedClass

__all__ = ["Copier", "Same", "copier_of", "moved"]

DEPTH_LIMIT = 20
PARTS_LIMIT = 64
"""How many containers may be copied one by one; rows of a list, which are copied together, count as one."""


class Copier(NamedTuple):
    """`copy()` returns a copy that shares nothing changeable with any other; while `moved(places)` is False."""

    copy: Callable[[], Any]
    places: tuple[NamedClass, ...]


class Same:
    """As the `copy` of a `Copier`: the object itself, which may be shared while `moved(places)` is False."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


def copier_of(value: Any) -> Copier | None:
    """The copier of a value that nobody else holds; None for a value that is to be decoded for each caller.

    Known are lists, dicts, sets, bytearrays and tuples, and dataclasses and attrs classes without slots whose classes are
    found by name, of values that are known or shareable. The copy equals the value in value and type, to any depth.
    """
    made = _Making()
    copy = made.copy_of(value, 0)
    if copy is None or moved(made.places):
        return None
    return Copier(copy, tuple({id(place.kind): place for place in made.places}.values()))


class _Making:
    """The making of one copier: the places it depends on, and how many parts it has."""

    def __init__(self) -> None:
        self.places: list[NamedClass] = []
        self.parts = 0
        self._kinds: dict[type, bool] = {}

    def copy_of(self, value: Any, depth: int) -> Callable[[], Any] | None:
        """The function that copies a part that can be changed; None for one that is not known."""
        self.parts += 1
        if depth > DEPTH_LIMIT or self.parts > PARTS_LIMIT:
            return None
        kind = type(value)
        if kind is list:
            return self._list(value, depth)
        if kind is dict:
            inner = self._inner(value.items(), depth)
            return None if inner is None or not self._shared(value) else _filled(value.copy, inner)
        if kind is tuple:
            inner = self._inner(enumerate(value), depth)
            if inner is None:
                return None
            items = _filled(list(value).copy, inner)
            return lambda: tuple(items())
        if kind is bytearray or (kind is set and self._shared(value)):
            whole: Callable[[], Any] = value.copy
            return whole
        return self._instance(value, depth)

    def _list(self, value: list[Any], depth: int) -> Callable[[], Any] | None:
        kinds = set(map(type, value))
        if len(value) > 1 and (kinds == {dict} or kinds == {list}):
            # Rows: each is copied by one call in C where nothing in it can be changed.
            items = [item for row in value for item in (row if kinds == {list} else (*row, *row.values()))]
            if self._shared(items):
                copy: Any = dict.copy if kinds == {dict} else list.copy
                return lambda: list(map(copy, value))
        inner = self._inner(enumerate(value), depth)
        return None if inner is None else _filled(value.copy, inner)

    def _instance(self, value: Any, depth: int) -> Callable[[], Any] | None:
        kind = type(value)
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = self._known(kind)
        if not known:
            return None
        state = value.__dict__
        inner = self._inner(state.items(), depth)
        return None if inner is None else _made(kind, _filled(state.copy, inner))

    def _known(self, kind: type) -> bool:
        what = kind_of(kind)
        if what not in (ClassKind.DATACLASS, ClassKind.ATTRS) or not (
            declares_itself(kind) and field_names(kind, what)
        ):
            return False
        if base_of(kind) is not object or not keeps_dict(kind) or slots_of(kind):
            return False
        places = place_of(kind)
        self.places += places
        return bool(places)

    def _inner(self, items: Any, depth: int) -> list[tuple[Any, Callable[[], Any]]] | None:
        """The parts that must be copied, by key; None where one is not known."""
        found = []
        for key, each in items:
            places = places_of(each)
            if places is not None:
                self.places += places
                continue
            copy = self.copy_of(each, depth + 1)
            if copy is None:
                return None
            found.append((key, copy))
        return found

    def _shared(self, items: Any) -> bool:
        """Whether nothing among these can be changed."""
        places = places_of(tuple(items))
        if places is None:
            return False
        self.places += places
        return True


def _filled(copy: Callable[[], Any], inner: list[tuple[Any, Callable[[], Any]]]) -> Callable[[], Any]:
    """A shallow copy, with the parts that can be changed put in the places of the originals."""
    if not inner:
        return copy
    if len(inner) == 1:
        ((only, make),) = inner

        def fill_one() -> Any:
            made = copy()
            made[only] = make()
            return made

        return fill_one

    def fill() -> Any:
        made = copy()
        for key, make in inner:
            made[key] = make()
        return made

    return fill


def _made(kind: Any, state: Callable[[], dict[str, Any]]) -> Callable[[], Any]:
    new = object.__new__

    def make() -> Any:
        made = new(kind)
        made.__dict__.update(state())
        return made

    return make
