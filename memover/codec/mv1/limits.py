"""What reading one payload may cost: whoever can write to the store must not be able to stop its readers.

Most of a payload costs time in proportion to its length. These do not, and are bounded here, each with a ValueError:

* Keys that collide. The hashes of ints, Decimals, Fractions, UUIDs and of tuples of them are the same in every process, so
  that keys with one hash are easily made, and a dict or set of n such keys takes n² steps. Strings, bytes and dates have
  hashes that nobody outside can predict; 64-bit ints and floats do not collide often enough. A map of up to
  `MAP_LIMIT` keys is harmless; of a longer one, at most `COLLISIONS_LIMIT` keys may have one hash.
* Patterns. `re.compile` takes up to 20 µs a character; for each set, where there are ranges past Latin-1, a table of 65,536
  characters (some 0.2 ms); and some 5 ns for each character between the ends of a range, 0.2 µs if case is ignored.
  `PATTERNS_LIMIT_CHARS` and `RANGES_LIMIT_CHARS` bound them for a payload: a set counts as `SET_CHARS` characters more, and a
  character `CASELESS` times.
* Long ints beside Decimals. To compare the two is to convert the int, which takes n² steps (100,000 bytes: 2 s), and keys
  of one hash are compared. No Decimal may have the hash of an int or Fraction of more than `LONG_BYTES` in the payload. The hash
  of a range divides its ints, n² steps again: those have no more bits than that either.
* Long numbers of one hash. Keys that differ only at their end are compared as far as that, and zeros can be compressed: 256 ints
  of a megabyte took 3.6 s. At most `LONG_COLLISIONS_LIMIT` different numbers of more than `LONG_BYTES` in the payload may have one
  hash. Equal ones are made one object, which needs no comparison, in tuples neither.
* Objects, in a payload that was compressed. A list of nothing is one byte and takes 64 and more in memory, and a megabyte of
  them can be compressed to a thousand bytes. A payload stored in n bytes may hold `OBJECTS_RATIO` * n objects, and
  `OBJECTS_FREE` in any case. Some take longer to make than lists: a scalar extension counts as `SCALAR_OBJECTS`; what takes some
  20 µs, an IP network or interface or a numpy array, as `SLOW_OBJECTS`; a data frame as `FRAME_OBJECTS`. `few_objects` counts them,
  for readers and for writers, who store a payload of more without compression.

A payload of up to `SMALL_BYTES` is too short to hold enough of colliding keys and long ints.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgpack

from memover.codec.mv1.format import FRAME, IPADDRESS, NUMPY_ARRAY, NUMPY_OBJECTS, TUPLE
from memover.errors import raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "COLLISIONS_LIMIT", "FRAME_OBJECTS", "LONG_BYTES", "LONG_COLLISIONS_LIMIT", "MAP_LIMIT", "OBJECTS_FREE", "OBJECTS_RATIO",
    "SCALAR_OBJECTS", "SLOW_OBJECTS", "SMALL_BYTES", "Hashes", "Numbers", "Patterns", "check_keys", "few_objects",
]  # fmt: skip

SMALL_BYTES = 2048
MAP_LIMIT = 256
COLLISIONS_LIMIT = 64
PATTERNS_LIMIT_CHARS = 10_000
RANGES_LIMIT_CHARS = 3_500_000
SET_CHARS = 16_384
CASELESS = 2
LONG_BYTES = 1024
LONG_COLLISIONS_LIMIT = 8
OBJECTS_FREE = 1 << 20
OBJECTS_RATIO = 8
SCALAR_OBJECTS = 8
SLOW_OBJECTS = 64
FRAME_OBJECTS = 1024

# Kinds of keys whose hashes are random from process to process, or cannot be made to collide often.
_SAFE = frozenset({str, bytes, int, float, bool, type(None)})
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(N)\{[^}]*\}|.)", re.DOTALL
)
_CASELESS = re.compile(r"\(\?[a-zA-Z]*i")
_RANGE = re.compile(r"(.)-(?=(.))", re.DOTALL)


def check_keys(keys: Collection[Any]) -> None:
    """Raises ValueError for more than `MAP_LIMIT` keys of which too many have one hash."""
    if len(keys) <= MAP_LIMIT:
        return
    if _SAFE.issuperset(map(type, keys)) and not any(type(key) is int and key.bit_length() > 64 for key in keys):
        return
    if max(Counter(map(hash, keys)).values()) > COLLISIONS_LIMIT:
        raise ValueError("keys whose hashes collide, as only made-up ones do")


def few_objects(body: bytes | memoryview, limit: int) -> bool:
    """Whether some msgpack holds at most `limit` objects, counted as the head of this module says.

    The cheapest answer that will do: by the length alone, by counting bytes, or by reading, which makes no more objects than
    `limit` and whose time is a part of what decoding takes. Raises ValueError, or what else msgpack raises, for what is none.
    """
    size = len(body)
    if size * SLOW_OBJECTS <= 3 * limit:  # three bytes is the least that an extension takes, and frames take hundreds
        return True
    return (size <= limit and _most_objects(bytes(body)) <= limit) or _at_most(body, limit)


def _most_objects(data: bytes) -> int:
    """How many objects these bytes can hold at most.

    Each object takes a byte. An extension begins with one of `_EXTENSION_HEADS`, and its code is one of `_SLOW_CODES` if it is
    slow to make; such bytes stand in text and numbers too, so there may be far fewer."""
    extensions = len(data) - len(data.translate(None, _EXTENSION_HEADS))
    slow = sum(map(data.count, _SLOW_CODES))
    return len(data) + extensions * SCALAR_OBJECTS + min(slow, extensions) * FRAME_OBJECTS


def _at_most(body: bytes | memoryview, limit: int) -> bool:
    """Whether reading comes to at most `limit` objects; it ends at the first one more."""
    found = 1

    def on_array(items: list[Any]) -> None:
        nonlocal found
        found += len(items)
        if found > limit:
            raise TooMany

    def on_map(pairs: list[Any]) -> None:
        nonlocal found
        found += 2 * len(pairs)
        if found > limit:
            raise TooMany

    def on_extension(code: int, data: bytes) -> None:
        nonlocal found
        if code > TUPLE:
            found += SLOW_OBJECTS if code == IPADDRESS and data[:1] > _SINGLE_ADDRESSES else SCALAR_OBJECTS
        elif code in (NUMPY_ARRAY, NUMPY_OBJECTS):
            found += SLOW_OBJECTS
        elif code == FRAME:
            found += FRAME_OBJECTS
        if found > limit:
            raise TooMany

    try:
        msgpack.unpackb(
            body,
            list_hook=on_array,
            object_pairs_hook=on_map,
            ext_hook=on_extension,
            strict_map_key=False,
            raw=True,
            max_array_len=limit,
            max_map_len=limit,
        )
    except TooMany:
        return False
    except ValueError as error:
        if "max_array_len" in str(error) or "max_map_len" in str(error):
            return False
        raise
    return True


_EXTENSION_HEADS = b"\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8"
_SLOW_CODES = [bytes((code & 0xFF,)) for code in (IPADDRESS, NUMPY_ARRAY, NUMPY_OBJECTS, FRAME)]
_SINGLE_ADDRESSES = b"\1"
"""The greatest class of an address that is no network and no interface."""


class TooMany(Exception):
    """Ends the count of objects."""


class Hashes:
    """Counts different scalars of one hash, where each may be a key."""

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first: dict[int, bytes] = {}
        self._more: dict[int, set[bytes]] = {}

    def note(self, value: Any, data: bytes) -> None:
        """Raises ValueError when too many different ones have the hash of `value`, which was stored as `data`."""
        try:
            number = hash(value)
        except TypeError as error:  # bytearrays, signalling NaNs: no keys
            if raised_by_handler(error):
                raise
            return
        if self._first.setdefault(number, data) != data:
            more = self._more.setdefault(number, set())
            more.add(data)
            if len(more) > COLLISIONS_LIMIT:
                raise ValueError("values whose hashes collide, as only made-up ones do")


class Numbers:
    """Looks for long numbers of one payload that have a hash in common; the same on the way in and on the way out."""

    __slots__ = ("_alike", "_decimals", "_long", "_pending")

    def __init__(self) -> None:
        self._alike: dict[int, list[Any]] = {}
        """Those long numbers of each hash that differ."""
        self._pending: list[Any] = []  # Decimals, which are not hashed before there is a long number
        self._decimals: set[int] = set()
        self._long: set[int] = set()

    def decimal(self, value: Any) -> None:
        """Raises ValueError if a long number of this hash was seen."""
        self._pending.append(value)
        if self._long:
            self._hash_pending()

    def long(self, value: Any) -> Any:
        """The first number of this payload that is the same as `value`: an int, Fraction or Decimal of more than `LONG_BYTES`.

        Raises ValueError for too many different ones of its hash, and for an int or Fraction if a Decimal of this hash was seen."""
        total = getattr(value, "compare_total", None)  # a Decimal's: those that are equal may differ in their zeros
        if total is not None and value.is_nan():  # equal to no other
            return value
        number = hash(value)
        alike = self._alike.setdefault(number, [])
        for other in alike:
            if type(other) is type(value) and (other == value if total is None else not total(other)):
                return other
        alike.append(value)
        if len(alike) > LONG_COLLISIONS_LIMIT:
            raise ValueError(f"numbers of more than {LONG_BYTES:,} bytes whose hashes collide, as only made-up ones do")
        if total is None:
            self._long.add(number)
            self._hash_pending()
            if number in self._decimals:
                self._raise()
        return value

    def _hash_pending(self) -> None:
        found = {hash(each) for each in self._pending if not each.is_snan()}
        self._pending.clear()
        self._decimals |= found
        if not found.isdisjoint(self._long):
            self._raise()

    def _raise(self) -> None:
        raise ValueError(f"an int of more than {LONG_BYTES:,} bytes and a Decimal that may equal it")


class Patterns:
    """Adds up what the patterns of one payload cost to compile; the same on the way in and on the way out."""

    __slots__ = ("chars", "ranges")

    def __init__(self) -> None:
        self.chars = 0
        self.ranges = 0

    def add(self, source: str | bytes, flags: int = 0) -> None:
        """Raises ValueError when the patterns seen so far take too long together."""
        self.chars += len(source)
        if self.chars > PATTERNS_LIMIT_CHARS:
            raise ValueError(f"patterns of more than {PATTERNS_LIMIT_CHARS:,} characters in all")
        if isinstance(source, str) and not (source.isascii() and "\\" not in source):
            plain = _ESCAPE.sub(_character, source)
            found = _RANGE.findall(plain)
            chars = sum(max(0, ord(end) - ord(start)) for start, end in found)
            self.ranges += chars * CASELESS if flags & re.IGNORECASE or _CASELESS.search(source) else chars
            if any(end > "\xff" for _, end in found):
                self.ranges += SET_CHARS * plain.count("[")
            if self.ranges > RANGES_LIMIT_CHARS:
                raise ValueError("patterns with too many wide ranges of characters")


def _character(escape: re.Match[str]) -> str:
    two, four, eight, octal, named = escape.groups()
    if named:
        return "\U0010ffff"
    digits = two or four or eight
    number = int(digits, 16) if digits else int(octal, 8) if octal else ord(escape[0][-1])
    return chr(min(number, 0x10FFFF))
