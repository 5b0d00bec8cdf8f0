"""What may be handed to several callers: values that nobody can change, and an error of its own for each.

`shareable` says which values may be handed out as they are. Right when in doubt means no: the value is then decoded anew
for each caller, which is slower and never wrong. Instances of the program's own classes are shared only while their
classes are what their names lead to: `places_of` gives what a hit has to look at, and `moved` looks.

`own_error` gives each caller of a load that failed an exception of its own.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import functools
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.classes.kinds import (
    ADDRESSES,
    PATHS,
    ClassKind,
    field_names,
    foreign,
    frozen,
    is_numpy_scalar,
    kind_of,
    published,
)  # fmt: skip
from memover.classes.layout import HEAP_TYPE, base_of
from memover.classes.places import moved, place_of
from memover.classes.registered import family_of
from memover.errors import raised_beneath
from memover.later import later

if TYPE_CHECKING:
    from memover.classes.places import NamedClass
    from memover.codec import faults
else:
    faults = later(__name__, "memover.codec.faults")

__all__ = ["ERRORS_LIMIT", "moved", "own_error", "places_of", "shareable"]

DEPTH_LIMIT = 50

_SCALARS = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), type(NotImplemented),
        dt.date, dt.timedelta, dt.timezone, re.Pattern,
    }
)  # fmt: skip
_MOMENTS = frozenset({dt.datetime, dt.time})
_NAMED = frozenset(
    {
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("zoneinfo", "ZoneInfo"),
        *(("pathlib", name) for name in PATHS),
        *(("ipaddress", name) for name in ADDRESSES),
    }
)


class _ClassVerdict(NamedTuple):
    """On the instances of a class: `names` are the fields that must be shareable too, None where none matters."""

    shared: bool
    names: tuple[str, ...] | None = None
    places: tuple[NamedClass, ...] = ()


_NEVER = _ClassVerdict(False)
_ALWAYS = _ClassVerdict(True)
_verdicts: dict[type, _ClassVerdict] = {}
VERDICTS_LIMIT = 10_000


def shareable(value: Any) -> bool:
    """Whether `value` is immutable to any depth, so that one object can serve every caller.

    True for exact immutable builtins, dates, Decimal, Fraction, UUID, paths, addresses, patterns and enums; for
    tuples, frozensets and named tuples of shareable values; and for frozen dataclasses, attrs classes and msgspec
    Structs all of whose attributes are shareable. False for everything else, and for instances of a class that its
    module and qualified name do not lead to: it was defined again, or inside a function.
    """
    return places_of(value) is not None


def places_of(value: Any) -> tuple[NamedClass, ...] | None:
    """Where the classes of a shareable value were found by name; None for a value that is not shareable.

    Who keeps the value keeps the answer beside it and asks `moved(places)` before each hand-out: True says that a
    class has been defined again since, and the value is to be decoded anew. () needs no asking: such a value is made
    of nothing but builtins and classes of libraries.
    """
    if type(value) in _SCALARS:
        return ()
    found: dict[type, tuple[NamedClass, ...]] = {}
    if not _collect(value, 0, found):
        return None
    places = tuple(place for each in found.values() for place in each)
    return None if moved(places) else places


def _collect(value: Any, depth: int, found: dict[type, tuple[NamedClass, ...]]) -> bool:
    """Whether a value is shareable; notes the places of the classes in it."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth > DEPTH_LIMIT:
        return False
    if kind is tuple or kind is frozenset:
        if _SCALARS.issuperset(map(type, value)):
            return True
        return all(_collect(each, depth + 1, found) for each in value)
    if kind in (list, dict, set):
        return False
    if kind in _MOMENTS:
        return value.tzinfo is None or _collect(value.tzinfo, depth + 1, found)
    verdict = _verdicts.get(kind)
    if verdict is None:
        if family_of(kind) is not None:
            return False  # a class that goes with its object is not to be remembered
        if len(_verdicts) >= VERDICTS_LIMIT:
            _verdicts.clear()
        verdict = _verdicts[kind] = _judge(kind)
    shared, names, places = verdict
    if not shared:
        return False
    if places:
        found[kind] = places
    if names is None:
        return True
    try:
        if isinstance(value, tuple):
            return all(_collect(each, depth + 1, found) for each in tuple.__iter__(value))
        attributes = getattr(value, "__dict__", None)
        # Attributes beside the fields were put there past the freezing; one can be put there again.
        if attributes and not attributes.keys() <= set(names):
            return False
        return all(_collect(getattr(value, name), depth + 1, found) for name in names)
    except faults.FAULTS as error:
        if faults.from_outside(error):
            raise
        return False


def _judge(kind: Any) -> _ClassVerdict:
    what = kind_of(kind)
    if published(kind, _NAMED):
        return _ALWAYS
    if is_numpy_scalar(kind):
        return _NEVER if kind.__name__ in ("void", "record") else _ALWAYS
    unchanging = (what is ClassKind.NAMEDTUPLE and not kind.__dictoffset__) or (
        frozen(kind, what) and not _has_cache(kind) and (what is ClassKind.STRUCT or base_of(kind) is object)
    )
    if what is not ClassKind.ENUM and not unchanging:
        return _NEVER
    names = None if what is ClassKind.ENUM else field_names(kind, what)
    places = () if foreign(kind) else place_of(kind)
    return _ClassVerdict(True, names, places) if places or foreign(kind) else _NEVER


def _has_cache(kind: type) -> bool:
    return any(isinstance(each, functools.cached_property) for base in kind.__mro__ for each in vars(base).values())


# -- errors ---------------------------------------------------------------------------------------------------------------

E = TypeVar("E", bound=BaseException)

# Not by attribute: a class may have a property of that name.
_PARTS: list[Any] = [
    vars(BaseException)[name] for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
]
_CAUSE, _CONTEXT = (slot.__get__ for slot in _PARTS[:2])
_DICT: Any = vars(BaseException)["__dict__"]
ERRORS_LIMIT = 200
"""How many exceptions are copied at most for one that is handed out: itself, those in it and those behind it."""
_WORD_BYTES = 8


def own_error(error: E) -> E:
    """A copy of an exception for one of several callers, so that what one does to it no other sees.

    The copy has the class, the arguments, the attributes, the notes made so far and the traceback made so far; frames, notes
    and attributes that are added to it later are its own. So it is with the exceptions of a group and with causes and contexts,
    `ERRORS_LIMIT` in all, the nearest first; those beyond are the same objects. Its attributes' values are the same objects.

    No code of the exception's class runs, neither `__new__`, `__init__` nor `__reduce__`. The same object is returned where
    a copy would not be faithful: where a class in C, other than the builtin ones, makes or keeps something of its own.

    Raises nothing of its own; any thread may call.
    """
    found: dict[int, Any] = {id(error): error}
    nearest: list[Any] = [error]
    for each in nearest:  # grows
        for other in (*_within(each), _CAUSE(each), _CONTEXT(each)):
            if other is not None and id(other) not in found and len(found) < ERRORS_LIMIT:
                found[id(other)] = other
                nearest.append(other)
    copies: dict[int, Any] = {}
    for each in nearest:
        pending = [each]
        while pending:  # what is in a group comes first; nothing is in itself
            last = pending[-1]
            first = [one for one in _within(last) if id(one) in found and id(one) not in copies]
            if not first:
                copies[id(last)] = _copy_or_same(last, copies)
                pending.pop()
            pending += first
    for each in nearest:
        made = copies[id(each)]
        if made is not each:
            for slot in _PARTS:
                part = slot.__get__(each)
                slot.__set__(made, copies.get(id(part), part))
    own: E = copies[id(error)]
    return own


def _native(kind: Any) -> Any:
    """The builtin that the memory of an instance is laid out on, and that therefore knows all of it."""
    while kind.__flags__ & HEAP_TYPE:
        kind = kind.__base__
    return kind


def _within(error: Any) -> tuple[BaseException, ...]:
    """The exceptions of a group."""
    native = _native(type(error))
    within: tuple[BaseException, ...] = native.exceptions.__get__(error) if hasattr(native, "exceptions") else ()
    return within


def _copy_or_same(error: Any, copies: dict[int, Any]) -> Any:
    try:
        made = _copy(error, type(error), copies)
    except faults.FAULTS as fault:
        if faults.from_outside(fault):
            raise
        return error
    return error if made is None else made


def _copy(error: Any, kind: Any, copies: dict[int, Any]) -> Any:
    if not all(map(_is_known, kind.__mro__)):
        return None
    native = _native(kind)
    arguments = native.__reduce__(error)[1]
    if hasattr(native, "exceptions"):  # a group
        arguments = arguments[0], [copies.get(id(each), each) for each in _within(error)]
    made = native.__new__(kind, *arguments)
    if type(made) is not kind:
        return None
    native.__init__(made, *arguments)
    own, given = _DICT.__get__(made), _DICT.__get__(error)
    own.update(given)
    if "__notes__" in own:
        own["__notes__"] = list(own["__notes__"])
    for name in copyreg._slotnames(kind):  # type: ignore[attr-defined]
        slot = next(vars(base)[name] for base in kind.__mro__ if name in vars(base))
        try:
            slot.__set__(made, slot.__get__(error))
        except AttributeError as unset:
            if raised_beneath(unset):
                raise
    for base in native.__mro__:
        for each in vars(base).values():
            # StopIteration.value, OSError.errno, ImportError.path, AttributeError.obj, ...
            if type(each).__name__ == "member_descriptor" and each.__get__(error) is not None:
                try:
                    each.__set__(made, each.__get__(error))
                except (AttributeError, TypeError) as fault:  # read-only, and made from the arguments
                    if raised_beneath(fault):
                        raise
    if hasattr(native, "exceptions"):
        return made
    same = all(each is that for each, that in zip(_arguments(made), _arguments(error)))
    return made if same and len(_arguments(made)) == len(_arguments(error)) else None


def _is_known(kind: Any) -> bool:
    """Whether a class is builtin, or keeps no more than one made by a class statement: what others in C keep cannot be seen."""
    if not kind.__flags__ & HEAP_TYPE:
        return bool(kind.__module__ == "builtins")
    slots = sum(type(each).__name__ == "member_descriptor" for each in vars(kind).values())
    slots += "__weakref__" in vars(kind)
    if sys.version_info < (3, 11):
        slots += "__dict__" in vars(kind)  # in front of the object from 3.11 on
    return bool(kind.__basicsize__ - kind.__base__.__basicsize__ <= _WORD_BYTES * slots)


def _arguments(error: BaseException) -> tuple[Any, ...]:
    given: tuple[Any, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return given
