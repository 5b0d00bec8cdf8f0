"""The way out: one payload becomes one value, through msgpack's unpacker with a hook for extensions and one for arrays.

Numbers, text and plain containers are made in C. An array whose first item is a mark is given to the mark's builder; which
marks stand for classes is for `codec` to say. What a payload may make a process do is bounded by `limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from memover.codec.mv1 import arrays, containers, frames
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Mark
from memover.codec.mv1.limits import LONG_BYTES, MAP_LIMIT, SMALL_BYTES, Hashes, Numbers, Patterns, check_keys
from memover.codec.mv1.scalars import DECODERS
from memover.codec.mv1.writer import open_buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PayloadReader"]


class PayloadReader:
    """Reads the payloads of one function's results. Any thread may call."""

    def __init__(self) -> None:
        self._long_maps = False

    def read_plain(self, data: bytes | memoryview) -> Any:
        """The value of a payload without marks."""
        if _is_harmless(data):
            return _unpack(data, _plain_extension, None)
        if not self._long_maps:
            try:
                return _unpack(data, _counting(None), None, MAP_LIMIT)
            except ValueError as error:
                self._if_long(error)
        # msgpack's own Timestamp is made before anyone is asked; its bytes may also stand there by chance.
        careful = any(mark in bytes(data) for mark in _TIMESTAMPS)
        return _unpack(data, _counting(Hashes()), None, pairs=_checked_map if careful else None)

    def read_marked(self, data: memoryview, known: Mapping[bytes, Mark], define: Callable[[bytes], Mark]) -> Any:
        """The value of a payload with marks; `define` gives the mark of a definition that is not in `known`."""
        if len(data) <= SMALL_BYTES:
            return self._read_marks(data, known, define, None)
        if not self._long_maps:
            try:
                return self._read_marks(data, known, define, MAP_LIMIT)
            except ValueError as error:
                self._if_long(error)
        return self._read_marks(data, known, define, None, _checked_map)

    def _if_long(self, error: ValueError) -> None:
        """Remembers that this function's results have maps of more keys than may go unchecked; raises any other error."""
        if "max_map_len" not in str(error):
            raise error
        self._long_maps = True

    def _read_marks(
        self,
        data: memoryview,
        known: Mapping[bytes, Mark],
        define: Callable[[bytes], Mark],
        map_limit: int | None,
        pairs: Any = None,
    ) -> Any:
        body, buffers = open_buffers(data)
        defined: list[Mark] = []
        # Marks that were read and not yet used up as the head of an array: one that stays would be a value.
        unused = 0
        plain = _plain_extension if _is_harmless(data) else _counting(None)

        def on_extension(code: int, data: bytes) -> Any:
            nonlocal unused
            if code == f.REFERENCE:
                unused += 1
                return defined[data[0] if len(data) == 1 else int.from_bytes(data, "big")]
            mark = _MARKS.get(code)
            if mark is not None:
                if data:
                    raise ValueError("a mark with data")
                unused += 1
                return mark
            if code == f.DEFINITION:
                unused += 1
                mark = known.get(data) or define(data)
                defined.append(mark)
                return mark
            return plain(code, data)

        def on_array(items: list[Any]) -> Any:
            nonlocal unused
            if items:
                head = items[0]
                if type(head) is Mark:
                    unused -= 1
                    return head.build(items)
                if type(head) is BufferMark:
                    unused -= 1
                    return head.build(items, buffers)
            return items

        value = _unpack(body, on_extension, on_array, map_limit, pairs)
        if unused:
            raise ValueError("a mark where none belongs")
        return value


class BufferMark(Mark):
    """The head of an array whose builder also needs the payload's buffers."""

    __slots__ = ()


_MARKS: dict[int, Mark] = {
    **containers.MARKS,
    f.NUMPY_ARRAY: BufferMark(arrays.build_array),
    f.NUMPY_OBJECTS: Mark(arrays.build_objects),
    f.FRAME: Mark(frames.build_frame),
}


def _plain_extension(code: int, data: bytes) -> Any:
    if code >= 0:
        return msgpack.ExtType(code, data)
    decode = DECODERS.get(code)
    if decode is None:
        if code == f.NUMPY_SCALAR:
            return arrays.decode_scalar(data)
        raise ValueError("an extension of no known code, or a mark where none belongs")
    return decode(data)


def _counting(hashes: Hashes | None) -> Callable[[int, bytes], Any]:
    """`_plain_extension` for one payload, with its limits: on patterns and numbers, and with `hashes` on what may be a key."""
    patterns, numbers = Patterns(), Numbers()

    def on_extension(code: int, data: bytes) -> Any:
        if code == f.PATTERN:
            flags = int.from_bytes(data[1:5], "big")
            patterns.add(data[5:] if data[0] else data[5:].decode("utf-8", "surrogatepass"), flags)
        value = _plain_extension(code, data)
        if code == f.DECIMAL:
            numbers.decimal(value)
        if len(data) > LONG_BYTES and code in _LONG:
            value = numbers.long(value)
        if hashes is not None and code < 0:
            hashes.note(value, data)
        return value

    return on_extension


_LONG = (f.INT, f.FRACTION, f.DECIMAL)
_MAY_BE_A_PATTERN = f.PATTERN & 0xFF
"""As an int: for bytes, `in` first makes an exception of why they are no int."""


def _is_harmless(data: bytes | memoryview) -> bool:
    """Whether a payload is too short to hold what takes long, patterns apart."""
    return len(data) <= SMALL_BYTES and _MAY_BE_A_PATTERN not in bytes(data)


def _checked_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(pairs) > MAP_LIMIT:
        check_keys([key for key, _ in pairs])
    return dict(pairs)


_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")


def _unpack(
    data: bytes | memoryview, on_extension: Any, on_array: Any, map_limit: int | None = None, pairs: Any = None
) -> Any:
    # Lengths are bounded by those of the data, and nesting by msgpack's own stack of 1,024.
    return msgpack.unpackb(
        data,
        ext_hook=on_extension,
        list_hook=on_array,
        object_pairs_hook=pairs,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        max_map_len=-1 if map_limit is None else map_limit,
    )
