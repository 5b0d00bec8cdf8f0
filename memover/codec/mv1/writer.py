"""The way in: one value becomes one payload, through msgpack's C packer with one hook for what it does not know.

Plain builtins never come here at all: the packer takes exact types only, writes them in C and hands over
everything else (subclasses, tuples, sets, instances), each of which becomes an extension or an array headed by a
mark. That array is again left to the packer, so nothing is packed twice and nothing recurses in Python.

Two things the packer gets wrong are put right afterwards, when its output shows that they may be there:
it writes a bytearray or memoryview as bytes, and it fails on lone surrogates.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import msgpack

from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Unencodable, extension
from memover.codec.mv1.limits import Numbers, Patterns
from memover.codec.mv1.refusal import refusal_of
from memover.codec.mv1.scalars import encode_bytearray

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgpack import ExtType

__all__ = ["BUFFER_LIMIT", "PayloadWriter", "open_buffers"]

BUFFER_LIMIT = 255
KEEP_LIMIT_BYTES = 1 << 20
PARTS_LIMIT = 1_000
_DEPTH_LIMIT = 2_000

# Classes whose instances hold neither a bytearray nor a memoryview.
_HARMLESS = frozenset({type(None), bool, int, float, str, bytes, msgpack.ExtType})
_REFERENCES = [extension(f.REFERENCE, bytes((index,))) for index in range(256)]


class PayloadWriter:
    """The state of one encoding at a time; kept and used again, by one thread at a time.

    `references` maps the data of the definitions made so far in this payload to what stands for them from then on, `buffers`
    holds the large arrays that go behind the body.
    """

    __slots__ = (
        "_careful", "_find", "_handlers", "_packer", "_parts", "_unsure", "_used", "_wide", "buffers", "marked", "numbers",
        "patterns", "references",
    )  # fmt: skip

    def __init__(self, find: Callable[[type], Callable[[Any, PayloadWriter], Any]], handlers: dict[type, Any]) -> None:
        self._find = find
        self._handlers = handlers
        self._packer: Any = self._new_packer(None)
        self._wide: Any = None
        self._reset()

    def _reset(self, careful: bool = False) -> None:
        self.references: dict[bytes, ExtType] = {}
        self.buffers: list[Any] = []
        self.marked = False
        self.patterns, self.numbers = Patterns(), Numbers()
        self._parts: list[list[Any]] = []
        self._unsure = False
        self._careful = careful
        self._used = careful
        """Whether a handler has been asked, and so may have left something in here."""

    def _new_packer(self, errors: str | None) -> msgpack.Packer:
        find, handlers = self._find, self._handlers

        def default(value: Any) -> Any:
            self._used = True
            kind = type(value)
            handler = handlers.get(kind)
            if handler is None:
                handler = find(kind)
            made = handler(value, self)
            if type(made) is list:
                self.marked = True
                if self._careful:
                    return _exposed(made)
                parts = self._parts
                parts.append(made)
                if len(parts) > PARTS_LIMIT:
                    self._look_at_parts()
            return made

        return msgpack.Packer(default=default, strict_types=True, unicode_errors=errors)

    def define(self, definition: ExtType) -> ExtType:
        """Returns `definition`, at its first use in this payload, and has a reference stand for it from then on."""
        references = self.references
        index = len(references)
        references[definition.data] = (
            _REFERENCES[index] if index < 256 else extension(f.REFERENCE, index.to_bytes(4, "big"))
        )
        return definition

    def write(self, value: Any) -> bytes:
        """The payload of `value`; lets through what the packer or a handler raises."""
        try:
            packer = self._packer
            try:
                body = packer.pack(value)
            except UnicodeEncodeError:
                packer = self._wide = self._wide or self._new_packer("surrogatepass")
                self._reset()
                body = packer.pack(value)
            # C4, C5 and C6 begin msgpack's bin; without them there is no bytes-like object of any class.
            if (b"\xc4" in body or b"\xc5" in body or b"\xc6" in body) and self._hides_buffers(value):
                self._reset(careful=True)
                body = packer.pack(_exposed(value))
            if not self.marked:
                return body  # type: ignore[no-any-return]
            if not self.buffers:
                return b"\xc1\x00" + body  # type: ignore[no-any-return]
            views = [memoryview(each) for each in self.buffers]
            lengths = b"".join(view.nbytes.to_bytes(8, "big") for view in views)
            return b"".join((bytes((f.MARKED, len(views))), lengths, len(body).to_bytes(8, "big"), body, *views))
        finally:
            if self._used:
                self._reset()

    def close(self) -> None:
        """Frees the packer's room. Packer and writer refer to each other: it would stay until the next garbage collection."""
        self._packer = self._wide = None

    def _look_at_parts(self) -> None:
        self._unsure = self._unsure or _hides(self._parts)
        self._parts = []

    def _hides_buffers(self, value: Any) -> bool:
        self._look_at_parts()
        return self._unsure or (type(value) not in _HARMLESS and _hides([[value]]))


def _hides(level: list[Any]) -> bool:
    """Whether a bytearray or memoryview is in these lists, or in the plain containers they hold.

    Asking the garbage collector for all that a level of containers refers to is the fastest walk there is: floats
    and names of the world's languages have the bytes of `bin` too, so that this runs for many a value.
    """
    while level:
        deeper = []
        for each in [each for each in gc.get_referents(*level) if type(each) not in _HARMLESS]:
            kind = type(each)
            if kind is list or kind is dict:
                deeper.append(each)
            elif kind is bytearray or kind is memoryview:
                return True
        level = deeper
    return False


def _exposed(value: Any) -> Any:
    """Plain containers with the bytearrays in them as extensions. Without recursion: they may be nested deep."""
    whole: list[Any] = [value]
    pending: list[tuple[Any, int]] = [(whole, 0)]
    while pending:
        container, depth = pending.pop()
        if depth > _DEPTH_LIMIT:  # the packer has taken it, so another thread is changing it
            raise Unencodable("a value that holds itself", "return a copy of it")
        items: list[tuple[Any, Any]] = list(enumerate(container) if type(container) is list else container.items())
        for place, each in items:
            kind = type(each)
            if kind is memoryview or type(place) is memoryview:
                raise refusal_of(memoryview)
            if kind is list or kind is dict:
                container[place] = copied = each.copy()
                pending.append((copied, depth + 1))
            elif kind is bytearray:
                container[place] = encode_bytearray(each)
    return whole[0]


def open_buffers(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """Splits a marked payload into its body and its buffers."""
    count = data[1]
    if not count:
        return data[2:], []
    start = 2 + 8 * (count + 1)
    sizes = [int.from_bytes(data[place : place + 8], "big") for place in range(2, start, 8)]
    if start + sum(sizes) != len(data):
        raise ValueError("buffers of another length than announced")
    body_end = start + sizes[-1]
    buffers, place = [], body_end
    for size in sizes[:-1]:
        buffers.append(data[place : place + size])
        place += size
    return data[start:body_end], buffers
