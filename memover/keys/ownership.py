"""Which function a namespace belongs to, in this process.

A namespace belongs to one function per store and prefix. A function claims it when it meets the store (`claim`):

    the one that comes                                        verdict
    --------------------------------------------------------  ------------------------------------------------
    same name, same code, same captures                       the same function
    same name, other key part                                 the same function, under other keys
    same name, its module is being executed again             it replaces the earlier one
    other name, its whole file is being executed again        the earlier one was renamed: it is replaced
    the earlier one is gone, and it is not another closure    it replaces the earlier one
      of the same code on a shared store
    anything else                                             ConfigurationError

A module is being executed again when module-level code in its namespace is running, and it is not the code object that ran
when the earlier function was decorated: a reload, another cell of a notebook, a line of a REPL, another `exec`. A function
made inside another is replaced when its module holds its code now under the name of the function around it, and the earlier
one's no longer. One file imported under two names is one module.

The incarnation: when a function replaces one with other code under the same version, entries of the earlier one are in the
store. A store of this process alone gives the new one keys of its own (`Claimed.version` has a suffix), so that it
starts empty, and an earlier function that is still called shares nothing with it. A shared store keeps its entries, and a
`MemoverWarning` says so.

Nothing here keeps a function or what it captured alive. Of namespaces whose functions are gone, the last `GONE_LIMIT` are
remembered, by the functions' code objects; what a memory store holds under one that is forgotten is invalidated.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import count
from types import CodeType, FunctionType
from typing import Any, Literal, NamedTuple

from memover.errors import ConfigurationError, MemoverWarning

from .canonical import type_name
from .code import codes_within, fingerprint, functions_in, same_code
from .identity import DEFAULT, GLOBALS, KEY, Capture, Identity, label

__all__ = ["UNCLAIMED", "Claim", "Claimed", "claim", "owners", "survey"]

GONE_LIMIT = 256
"""How many namespaces whose functions are all gone are remembered; per memory store, and over all shared ones."""


class Claim(NamedTuple):
    """Who asked for a namespace where: `identity` is equal for one function decorated again."""

    store: str
    prefix: str
    namespace: str
    function: Callable[..., Any]
    owner: Any
    identity: str


class Claimed:
    """What a function was given with its namespace.

    `number` is 0, or the incarnation that keeps its entries in this process's memory apart from an earlier function's;
    `replaced` says whether it took the place of a function that is still there.
    """

    __slots__ = ("_identity", "_suffix", "number", "replaced")

    def __init__(self, identity: Identity | None, number: int = 0, replaced: bool = False) -> None:
        self._identity = identity
        self.number = number
        self.replaced = replaced
        # None: the code is followed at the first call.
        self._suffix = None if identity is not None and identity.follow_code else f"~{number:08x}" if number else ""

    def token(self, declared: int) -> Any:
        """The version part as bytes, or what is equal to it: the code is followed when it is first compared or called."""
        return VersionLater(self, declared) if self._suffix is None else self.version(declared).encode()

    def version(self, declared: int) -> str:
        """The version part of the function's entry keys: "2", or "2~" and 8 hex digits.

        With `follow_code` they say what the function and those it calls do; that is looked up at the first call of this.
        """
        suffix = self._suffix
        if suffix is None:
            identity = self._identity
            assert identity is not None, "it follows the code of a function"
            digits = int(fingerprint(identity.function, *identity.functions), 16)
            suffix = self._suffix = f"~{(digits + self.number) % 2**32:08x}"
        return f"{declared}{suffix}"


class VersionLater:
    """The version part of a function with `follow_code`, for comparing with what an entry says; looked up when compared."""

    __slots__ = ("_claimed", "_declared")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, claimed: Claimed, declared: int) -> None:
        self._claimed = claimed
        self._declared = declared

    def __eq__(self, other: object) -> bool:
        return self._claimed.version(self._declared).encode() == other


UNCLAIMED = Claimed(None)
"""For what has a namespace without asking: the key-value API."""


class _Held(NamedTuple):
    """A capture as it is remembered: weakly, where the object allows that."""

    label: str
    reference: Any
    text: bytes | None

    def same(self, other: Capture) -> bool:
        """Whether a capture is this very object. One that is gone is none, nor is one that could not be remembered."""
        if self.text is not None:
            return other.label == self.label and other.value == self.text
        return other.label == self.label and self.reference is not None and self.reference() is other.value


class _Slot:
    """The functions of one place whose key parts are equal, and so their keys."""

    __slots__ = ("captures", "holders", "number")

    def __init__(self, identity: Identity, number: int) -> None:
        self.captures = tuple(_held(each) for each in identity.captures)
        self.number = number
        self.holders: dict[int, tuple[Any, Any]] = {}
        """Serial number to weak references to the decorated form and to its identity."""

    def latest(self) -> Any:
        """The decorated form that came last of those that are still there, or None."""
        for serial in sorted(self.holders, reverse=True):
            owner = self.holders[serial][0]()
            if owner is not None:
                return owner
        return None

    def differing(self, identity: Identity) -> Capture | None:
        """The first thing that a function captured which is not what the holders captured."""
        for _, reference in list(self.holders.values()):
            known = reference()
            if known is not None:
                if len(known.captures) != len(identity.captures):
                    longer: tuple[Capture, ...] = max(known.captures, identity.captures, key=len)
                    return longer[-1]
                pairs = zip(known.captures, identity.captures)
                return next((new for old, new in pairs if not _same_capture(old, new)), None)
        if len(self.captures) != len(identity.captures):
            return identity.captures[-1] if identity.captures else Capture("what it captured", None)
        return next((new for old, new in zip(self.captures, identity.captures) if not old.same(new)), None)


class _Place:
    """What is known of one namespace of one store: the function it belongs to, and the keys in use."""

    __slots__ = (
        "code",
        "codes",
        "counter",
        "execution",
        "forget",
        "kind",
        "name",
        "serial",
        "slots",
        "title",
        "versions",
        "where",
    )

    def __init__(self, kind: str, identity: Identity) -> None:
        self.kind = kind
        self.counter = 0
        self.slots: dict[tuple[int, bytes], _Slot] = {}
        self.versions: dict[int, tuple[tuple[CodeType, ...], int]] = {}
        """Version to the code that answered under it last, and the incarnation of that code."""
        self.forget: Callable[[], object] | None = None
        self.take(identity)

    def take(self, identity: Identity) -> None:
        """Note the function that the namespace belongs to now."""
        self.name, self.title, self.where = identity.name, identity.title, identity.where
        self.code = None if identity.function is None else identity.function.__code__
        self.codes, self.execution, self.serial = identity.codes, identity.execution, identity.serial

    def same_name(self, identity: Identity) -> bool:
        """Whether this is the function's name: one file imported under two names is one module."""
        if self.name == identity.name:
            return True
        same_file = bool(identity.execution.file) and self.execution.file == identity.execution.file
        return same_file and self.name.partition(":")[2] == identity.name.partition(":")[2]

    def owners(self) -> list[Any]:
        """The decorated forms that hold it, without those that are gone."""
        references = [each for slot in list(self.slots.values()) for each in list(slot.holders.values())]
        return [owner for reference, _ in references if (owner := reference()) is not None]

    def number_of(self, version: int, codes: tuple[CodeType, ...]) -> int:
        """The incarnation of some code under a version: a new one if other code answered there last."""
        known = self.versions.get(version)
        if known is None:
            known = self.versions[version] = (codes, 0)
        elif not _same_codes(known[0], codes):
            known = self.renewed(version, codes)
        return known[1]

    def renewed(self, version: int, codes: tuple[CodeType, ...]) -> tuple[tuple[CodeType, ...], int]:
        """A new incarnation for some code under a version."""
        self.counter += 1
        self.versions[version] = (codes, self.counter)
        return self.versions[version]


def _held(capture: Capture) -> _Held:
    if type(capture.value) is bytes:
        return _Held(capture.label, None, capture.value)
    try:
        return _Held(capture.label, weakref.ref(capture.value), None)
    except TypeError:
        return _Held(capture.label, None, None)


def _same_capture(one: Capture, other: Capture) -> bool:
    if one.label != other.label:
        return False
    if type(one.value) is bytes:  # a plain default: bytes themselves would be in the key
        return bool(one.value == other.value)
    return one.value is other.value or (one.cell is not None and one.cell is other.cell)


def _same_codes(one: tuple[CodeType, ...], other: tuple[CodeType, ...]) -> bool:
    return one == other if not one else len(one) == len(other) and all(map(same_code, one, other))


_owners: dict[Any, _Place] = {}
_gone: dict[Any, OrderedDict[Any, None]] = {}
"""The places whose functions are all gone, the longest gone first: by memory store, and None for the shared ones."""
_released: deque[tuple[Any, tuple[int, bytes] | None, int]] = deque()
"""Decorated forms that are gone and not swept yet (place, key, serial), and stores (their number, None, 0)."""
_lock = threading.Lock()
_claims: list[Claim] | None = None
_stores: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_store_numbers = count(1)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  # whoever held it in the parent is not here
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def survey() -> list[Claim]:
    """From now on collect every claim in the list answered, and refuse none: for a process that only looks on."""
    global _claims  # noqa: PLW0603  # a process looks on or does not
    _claims = []
    return _claims


def claim(
    identity: Identity,
    function: Callable[..., Any],
    owner: Any,
    *,
    store: str,
    prefix: str,
    namespace: str,
    version: int,
    kind: Literal["shared", "memory", "later"] = "shared",
    memory: Any = None,
    forget: Callable[[], object] | None = None,
) -> Claimed:
    """Give the namespace to `owner`, the decorated form of `function`. Raises `ConfigurationError` if it is taken.

    `kind` says what `store` names: a store that other processes read, this process's memory (`memory` is then the store
    itself, and `forget` invalidates all entries of the namespace in it), or a default that is settled later. `owner` must keep
    `identity`; it is held weakly. An owner that is replaced is told, by its method `replaced()` if it has one: it should
    claim again before its next call. Any thread may call.
    """
    if _claims is not None:
        _claims.append(Claim(store, prefix, namespace, function, owner, label(function)))
        return Claimed(identity)
    at = (store if memory is None else _number_of(memory), prefix, namespace)
    with _lock:
        _sweep()
        verdict = _decide(at, kind, identity, owner, version, forget)
    if not isinstance(verdict, _Verdict):
        gc.collect()  # the earlier function may be gone but for the cycles it was in
        with _lock:
            _sweep()
            verdict = _decide(at, kind, identity, owner, version, forget)
        if not isinstance(verdict, _Verdict):
            raise verdict(prefix, namespace)
    for each in verdict.replaced:
        tell = getattr(each, "replaced", None)
        if tell is not None:
            tell()
    if verdict.warn and not identity.warned and not identity.follow_code:
        identity.warned = True
        _warn(identity, namespace, version)
    return Claimed(identity, verdict.number, bool(verdict.replaced))


def owners() -> list[Any]:
    """The decorated forms that own a namespace now: of those with equal keys, the last one."""
    with _lock:
        slots = [slot for place in _owners.values() for slot in place.slots.values()]
        latest = [owner for slot in slots if (owner := slot.latest()) is not None]
    return list({id(owner): owner for owner in latest}.values())


class _Verdict(NamedTuple):
    """The incarnation, the owners that were replaced, and whether a shared store keeps another function's entries."""

    number: int
    replaced: list[Any]
    warn: bool


def _decide(
    at: Any, kind: str, identity: Identity, owner: Any, version: int, forget: Callable[[], object] | None
) -> _Verdict | Callable[[str, str], ConfigurationError]:
    """Settle a claim as the module's table says; answers with what makes the error if it is a clash. The lock is held."""
    place = _owners.get(at)
    if place is None:
        place = _owners[at] = _Place(kind, identity)
    place.forget = forget
    key = (version, identity.plain)
    replaced: list[Any] = []
    warn = False
    if not place.same_name(identity) or not _same_codes(place.codes, identity.codes):
        others = [each for each in place.owners() if each is not owner]
        if identity.serial < place.serial and _was_replaced(place, at, identity):
            return _Verdict(_number_of_guest(place, at, identity, version), [], False)
        again = _again(place, identity)
        if others and not again:
            return functools.partial(_clash, place.title, place.where, identity, _other(place, identity))
        known = place.versions.get(version)
        if known is not None:
            # Of a function that is gone, what it captured cannot be compared with what one of another name did.
            unlike = not again or any(slot.captures for slot in place.slots.values())
            warn = not again or not _same_codes(known[0], identity.codes)
            if unlike:
                place.renewed(version, identity.codes)
        replaced, place.slots = others, {}
        place.take(identity)
    slot = place.slots.get(key)
    if slot is not None:
        capture = slot.differing(identity)
        if capture is not None:
            others = [each for each, _ in slot.holders.values() if each() is not None and each() is not owner]
            if identity.serial < place.serial and at in identity.marks:
                return _Verdict(_number_of_guest(place, at, identity, version), [], False)
            elsewhere = capture.label.endswith(GLOBALS)
            refused = (others or kind == "shared") and not _again(place, identity)
            if refused or (others and elsewhere and kind == "shared"):
                return functools.partial(_clash, place.title, place.where, identity, _capture_told(capture))
            warn = elsewhere
            replaced = [alive for each in others if (alive := each()) is not None]
            del place.slots[key]
            place.renewed(version, identity.codes)
    if identity.serial >= place.serial:
        place.take(identity)
    slot = place.slots.get(key)
    number = place.number_of(version, identity.codes)
    if slot is None:
        slot = place.slots[key] = _Slot(identity, number if kind == "memory" else 0)
    slot.holders[identity.serial] = (weakref.ref(owner, _Gone(at, key, identity.serial)), weakref.ref(identity))
    identity.marks[at] = slot.number
    waiting = _gone.get(_group(at))
    if waiting is not None:
        waiting.pop(at, None)
    return _Verdict(slot.number, replaced, warn and kind == "shared")


def _was_replaced(place: _Place, at: Any, identity: Identity) -> bool:
    """Whether a function is an earlier one, which the one that holds the place has replaced, and is called all the same."""
    if at in identity.marks:
        return True
    old, new = identity.execution, place.execution
    return place.same_name(identity) and (old.token, old.space) != (new.token, new.space)


def _number_of_guest(place: _Place, at: Any, identity: Identity, version: int) -> int:
    """The incarnation of a function that was replaced: in this process's memory it shares nothing with its successor."""
    if place.kind != "memory":
        return 0
    number = identity.marks.get(at)
    current = place.versions.get(version)
    if number is None or (current is not None and current[1] == number):
        number = identity.marks[at] = place.renewed(version, identity.codes)[1]
        if current is not None:
            place.versions[version] = current
    return number


def _again(place: _Place, identity: Identity) -> bool:
    """Whether the module that made the function which holds a place is being executed again, or was since."""
    old, new = place.execution, identity.execution
    module, _, name = identity.name.partition(":")
    if old.file != new.file or (not old.file and module != place.name.partition(":")[0]):
        return False
    if not place.same_name(identity):
        return new.whole and new.token != old.token
    if new.token == old.token and new.space == old.space and new.token:
        return False
    if new.space != old.space:
        return bool(new.token or new.file)
    function = identity.function
    if function is None:
        return bool(new.token)
    outer, inside, _ = name.partition(".<locals>")
    if new.token and not inside and not identity.local:
        return True
    if new.target:
        # The statement is about to replace the earlier one where the module keeps it: `f = make(...)`, run again.
        codes = [each.__code__ for each in functions_in(function.__globals__.get(new.target))]
        if any(each is place.code for each in codes):
            return True
    # What the module holds under the name now: the code of this function, and no longer that of the earlier one?
    held = [code for each in _under(function.__globals__, outer) for code in codes_within(each.__code__)]
    if held:
        now, then = function.__code__, place.code
        return any(each is now for each in held) and not any(each is then for each in held)
    return bool(new.token) and place.code is not function.__code__


def _under(namespace: dict[str, Any], path: str) -> Iterator[FunctionType]:
    first, *rest = path.split(".")
    found: Any = namespace.get(first)
    for name in rest:
        found = vars(found).get(name) if isinstance(found, type) else None
    if found is not None and not isinstance(found, type):
        yield from functions_in(found)


def _other(place: _Place, identity: Identity) -> str:
    if place.same_name(identity):
        return "The two have one name and other code. Give each a namespace of its own."
    return "Give each function a namespace of its own."


def _capture_told(capture: Capture) -> str:
    name = capture.label.partition(".__")[0]
    if capture.label.endswith(GLOBALS):
        return (
            f"The two have one name and run in different globals (of exec, say), where {name.removesuffix(GLOBALS)!r} is not the "
            f"same, so they could answer differently. Give each a namespace of its own."
        )
    if name == KEY:
        return (
            "The two have one code and another key=, so one text would mean two calls. Give each a namespace of its own, or "
            "decorate the function once."
        )
    if name == "__class__":
        return (
            "The two are methods of two classes made by one source text (they use super() or __class__), and could answer "
            "differently. Give each class's method a namespace of its own, or define the class once."
        )
    if capture.value is capture.cell and capture.cell is not None:
        return (
            f"The two captured variables {name!r} that are not assigned yet, so they could answer differently. Assign {name} "
            f"above the decorated function, or give each a namespace of its own."
        )
    plain = name.removesuffix(DEFAULT)
    return (
        f"The two captured different objects as {name!r}: this one a {type_name(type(capture.value))}, which cannot be part "
        f"of the key, so they could answer differently under one key. Pass {plain} as an argument (ignore=({plain!r},) leaves it "
        f"out of the key), capture a plain value that tells the two apart (a str, an int), decorate the function once, or give "
        f"each a namespace of its own."
    )


def _clash(title: str, where: str, identity: Identity, why: str, prefix: str, namespace: str) -> ConfigurationError:
    first = f"{title} ({where})" if where else title
    second = f"{identity.title} ({identity.where})" if identity.where else identity.title
    at = f" (prefix {prefix!r})" if prefix else ""
    return ConfigurationError(
        f"The namespace {namespace!r}{at} belongs to {first} already, so {second} would read its entries. {why}"
    )


def _warn(identity: Identity, namespace: str, version: int) -> None:
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "memover":
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{identity.title} was defined again with other code or globals under the namespace {namespace!r} and the same version={version}, and "
        f"the store, which other processes share, keeps what the earlier code returned. Set version={version + 1}, decorate with "
        f"follow_code=True, or call invalidate_all() on it.",
        MemoverWarning,
        stacklevel=level,
    )


# ------------------------------------------------------------------ functions and stores that are gone


class _Gone:
    """Called when a decorated form is gone; takes no lock that this thread may hold."""

    __slots__ = ("at", "key", "serial")

    def __init__(self, at: Any, key: tuple[int, bytes], serial: int) -> None:
        self.at, self.key, self.serial = at, key, serial

    def __call__(self, _: Any) -> None:
        _released.append((self.at, self.key, self.serial))
        _sweep_if_free()


def _store_gone(number: int) -> None:
    _released.append((number, None, 0))
    _sweep_if_free()


def _sweep_if_free() -> None:
    # The collector may run this inside a claim: then the next claim does it.
    if _lock.acquire(blocking=False):
        try:
            _sweep()
        finally:
            _lock.release()


def _sweep() -> None:
    """Drop what is known of functions that are gone, but for the last few namespaces. The lock is held."""
    while _released:
        at, key, serial = _released.popleft()
        if key is None:
            _gone.pop(at, None)
            for each in [each for each in _owners if each[0] == at]:
                del _owners[each]
            continue
        place = _owners.get(at)
        slot = None if place is None else place.slots.get(key)
        if place is None or slot is None:
            continue
        slot.holders.pop(serial, None)
        if slot.holders:
            continue
        if not slot.captures:
            del place.slots[key]
        elif len(place.slots) > GONE_LIMIT:
            # What it captured is forgotten, so no later function may read what it stored.
            del place.slots[key]
            place.renewed(key[0], place.codes)
        if any(each.holders for each in place.slots.values()):
            continue
        if place.kind == "later":
            del _owners[at]
            continue
        waiting = _gone.setdefault(_group(at), OrderedDict())
        waiting[at] = None
        while len(waiting) > GONE_LIMIT:
            oldest, _ = waiting.popitem(last=False)
            dropped = _owners.pop(oldest, None)
            if dropped is not None and dropped.forget is not None:
                dropped.forget()


def _group(at: Any) -> int | None:
    """The memory store of a place, None for all others."""
    return at[0] if isinstance(at[0], int) else None


def _number_of(memory: Any) -> int:
    """A number for a memory store that no other has had: an address may be used again."""
    with _lock:
        number = _stores.get(memory)
        if number is None:
            number = _stores[memory] = next(_store_numbers)
            weakref.finalize(memory, _store_gone, number).atexit = False
    return number
