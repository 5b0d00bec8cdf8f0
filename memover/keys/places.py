"""What is remembered of namespaces in this process: the functions that hold them, and for how long after these are gone.

Nothing here keeps a function or what it captured alive: both are remembered by weak references and by the functions' code
objects, and bytes that a function captured by their digest where they are long. Of namespaces whose functions are all gone
the last `GONE_LIMIT` are remembered, for each memory store and over all shared ones. When one is forgotten that belongs to a
memory store, what the store holds under it is invalidated.

The rules by which a function gets a namespace are in `ownership`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import blake2b
from itertools import count
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.errors import raised_beneath
from memover.latch import Latch

from .captures import Capture
from .code import same_codes

if TYPE_CHECKING:
    from .identity import Identity

__all__ = ["GONE_LIMIT", "PLACES", "NamespacePlace", "Places", "KeySlot", "shortened"]

GONE_LIMIT = 256
"""How many namespaces whose functions are all gone are remembered; per memory store, and over all shared ones."""

_SHORT_BYTES = 64


def shortened(text: bytes) -> bytes:
    """Bytes that are equal where `text` is, and never more than 65: what a function captured may be long."""
    return text if len(text) <= _SHORT_BYTES else b"#" + blake2b(text).digest()


class Held(NamedTuple):
    """A capture as it is remembered: weakly, where the object allows that."""

    label: str
    reference: Any
    text: bytes | None

    def same(self, other: Capture) -> bool:
        """Whether a capture is this very object. One that is gone is none, nor is one that could not be remembered."""
        if self.text is not None:
            return other.label == self.label and type(other.value) is bytes and shortened(other.value) == self.text
        return other.label == self.label and self.reference is not None and self.reference() is other.value


class KeySlot:
    """The functions of one place whose key parts are equal, and so their keys."""

    __slots__ = ("captures", "holders", "number")

    def __init__(self, identity: Identity, number: int) -> None:
        self.captures = tuple(_held(each) for each in identity.captures)
        self.number = number
        self.holders: dict[int, tuple[Any, Any]] = {}
        """Serial number to weak references to the decorated form and to its identity."""

    def latest(self) -> Any:
        """The decorated form that came last of those that are still there, or None."""
        owners = (self.holders[serial][0]() for serial in sorted(self.holders, reverse=True))
        return next((owner for owner in owners if owner is not None), None)

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


class NamespacePlace:
    """What is known of one namespace of one store: the function it belongs to, and the keys in use."""

    __slots__ = (
        "code", "codes", "counter", "execution", "forget", "kind", "name", "serial", "slots", "title", "versions", "where",
    )  # fmt: skip

    def __init__(self, kind: str, identity: Identity) -> None:
        self.kind = kind
        self.counter = 0
        self.slots: dict[tuple[int, bytes], KeySlot] = {}
        self.versions: dict[int, tuple[tuple[CodeType, ...], int]] = {}
        """Version to the code that answered under it last, and the incarnation of that code."""
        self.forget: Callable[[], object] | None = None
        self.take(identity)

    def take(self, identity: Identity) -> None:
        """Notes the function that the namespace belongs to now."""
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
        elif not same_codes(known[0], codes):
            known = self.renewed(version, codes)
        return known[1]

    def renewed(self, version: int, codes: tuple[CodeType, ...]) -> tuple[tuple[CodeType, ...], int]:
        """A new incarnation for some code under a version."""
        self.counter += 1
        self.versions[version] = (codes, self.counter)
        return self.versions[version]


def _held(capture: Capture) -> Held:
    if type(capture.value) is bytes:
        return Held(capture.label, None, shortened(capture.value))
    try:
        return Held(capture.label, weakref.ref(capture.value), None)
    except TypeError:
        return Held(capture.label, None, None)


def _same_capture(one: Capture, other: Capture) -> bool:
    if one.label != other.label:
        return False
    if type(one.value) is bytes:  # a plain default: bytes themselves would be in the key
        return bool(one.value == other.value)
    return one.value is other.value or (one.cell is not None and one.cell is other.cell)


# -- functions and stores that are gone ----------------------------------------------------------------------------------


class Places:
    """The namespaces that functions of this process hold or held, each a `NamespacePlace`, by (store, prefix, namespace).

    Every method but `number_of` is for callers that hold `latch`.
    """

    def __init__(self) -> None:
        self.latch = Latch()
        self._places: dict[Any, NamespacePlace] = {}
        self._gone: dict[int | None, OrderedDict[Any, None]] = {}
        """The places whose functions are all gone, the longest gone first: by memory store, and None for the shared ones."""
        self._released: deque[tuple[Any, tuple[int, bytes] | None, int]] = deque()
        """Decorated forms that are gone and not swept yet (place, key, serial), and stores (their number, None, 0)."""
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next_number = count(1)

    def place(self, at: Any, kind: str, identity: Identity) -> NamespacePlace:
        """What is known of a namespace; begins with this function where nothing is."""
        place = self._places.get(at)
        if place is None:
            place = self._places.setdefault(at, NamespacePlace(kind, identity))
        return place

    def hold(self, at: Any, key: tuple[int, bytes], slot: KeySlot, identity: Identity, owner: Any) -> None:
        """Notes that a decorated form holds a slot of a place, until it is gone."""
        released, note = self._released, (at, key, identity.serial)
        # No latch is taken: the collector calls it anywhere.
        reference = weakref.ref(owner, lambda _: released.append(note))
        slot.holders[identity.serial] = (reference, weakref.ref(identity))
        waiting = self._gone.get(_group(at))
        if waiting is not None:
            waiting.pop(at, None)

    def slots(self) -> list[KeySlot]:
        """All slots of all places."""
        return [slot for place in list(self._places.values()) for slot in list(place.slots.values())]

    def number_of(self, memory: Any) -> int:
        """A number for a memory store that no other has had: an address may be used again."""
        with self.latch:
            number = self._numbers.get(memory)
            if number is None:
                number = self._numbers[memory] = next(self._next_number)
                weakref.finalize(memory, self._released.append, (number, None, 0)).atexit = False
        return number

    def sweep(self) -> None:
        """Drops what is known of functions that are gone, but for the last few namespaces. Done at every claim."""
        while True:
            try:
                at, key, serial = self._released.popleft()
            except IndexError as error:
                if raised_beneath(error):
                    raise
                return
            if key is None:
                self._gone.pop(at, None)
                for each in [each for each in list(self._places) if each[0] == at]:
                    self._places.pop(each, None)
                continue
            place = self._places.get(at)
            slot = None if place is None else place.slots.get(key)
            if place is None or slot is None:
                continue
            slot.holders.pop(serial, None)
            if not slot.holders:
                self._let_go(at, place, key, slot)

    def _let_go(self, at: Any, place: NamespacePlace, key: tuple[int, bytes], slot: KeySlot) -> None:
        """Nobody holds this slot of the place any more."""
        if not slot.captures:
            place.slots.pop(key, None)
        elif len(place.slots) > GONE_LIMIT:
            # What it captured is forgotten, so no later function may read what it stored.
            place.slots.pop(key, None)
            place.renewed(key[0], place.codes)
        if any(each.holders for each in list(place.slots.values())):
            return
        if place.kind == "later":
            self._places.pop(at, None)
            return
        waiting = self._gone.setdefault(_group(at), OrderedDict())
        waiting[at] = None
        while len(waiting) > GONE_LIMIT:
            oldest, _ = waiting.popitem(last=False)
            dropped = self._places.pop(oldest, None)
            if dropped is not None and dropped.forget is not None:
                dropped.forget()


def _group(at: Any) -> int | None:
    """The memory store of a place, None for all others."""
    return at[0] if isinstance(at[0], int) else None


PLACES = Places()
"""Those of this process."""
