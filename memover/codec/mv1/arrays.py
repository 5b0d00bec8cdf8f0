"""numpy arrays and scalars: kept with dtype, shape, memory order and the writable flag.

A large array is not packed but laid behind the body and taken from there with one copy. An array that was read-only
needs none: it comes back as a read-only view of the payload, if its memory is aligned there. Strides are not kept:
a view comes back contiguous, in Fortran order if only that fits. numpy is imported when a payload holds one of its
values, under the name in this file.
"""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import is_numpy_scalar
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Unencodable, extension
from memover.codec.mv1.writer import BUFFER_LIMIT
from memover.errors import raised_by_handler

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["build_array", "build_objects", "decode_scalar", "writer_for"]

INLINE_LIMIT_BYTES = 4096
DIMENSIONS_LIMIT = 64
EMPTY_LIMIT_ITEMS = 1_000_000
FORTRAN, WRITABLE = 1, 2
SIMPLE = re.compile(r"[<>|][?biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[a-zA-Zμ]{1,7}\])?\Z")

_ARRAY = extension(f.NUMPY_ARRAY, b"")
_OBJECTS = extension(f.NUMPY_OBJECTS, b"")


def writer_for(kind: type) -> Callable[[Any, Any], Any] | None:
    """The function that writes instances of exactly this class, if it is numpy's array or one of its scalars."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if kind is numpy.ndarray:
        return _write_array
    return _write_scalar if is_numpy_scalar(kind) else None


def _dtype_text(dtype: Any) -> Any:
    """A dtype in plain builtins: text, or fields as below. Raises `Unencodable` for one that would not come back.

    A structured dtype is an array of `[name or [title, name], dtype, shape]`, or a map `{"aligned": that}`.
    """
    text: Any = None
    if dtype.metadata is None and not dtype.hasobject:
        text = _described(dtype)
        for form in (text, {"aligned": text}):
            try:
                again = _dtype(form)
            except (ValueError, TypeError) as error:
                if raised_by_handler(error):
                    raise
                continue
            if again == dtype and again.str == dtype.str and again.isalignedstruct == dtype.isalignedstruct:
                return form
    raise Unencodable(
        f"a numpy value of dtype {dtype!r}", "convert it to a dtype of numbers, text, bytes or dates, or of objects"
    )


def _described(dtype: Any) -> Any:
    if dtype.names is None:
        return dtype.str
    fields = []
    for name in dtype.names:
        kind, _, *title = dtype.fields[name]
        base, shape = kind.subdtype or (kind, ())
        fields.append([[*title, name] if title else name, _described(base), list(shape)])
    return fields


def _dtype(form: Any, aligned: bool = False, depth: int = 0) -> Any:
    """The dtype of its stored form; only what is written is let through to numpy's parser."""
    import numpy

    if type(form) is str:
        if not SIMPLE.match(form):
            raise ValueError("a dtype that is never written")
        return numpy.dtype(form)
    if type(form) is dict and not depth:
        return _dtype(form["aligned"], True, 1)
    if type(form) is not list or depth > 20:
        raise ValueError("a dtype that is never written")
    fields: list[Any] = []
    for name, kind, shape in form:
        names = name if type(name) is list else [name]
        if not 1 <= len(names) <= 2 or any(type(each) is not str for each in names):
            raise ValueError("a field of no name")
        fields.append((tuple(names) if len(names) == 2 else name, _dtype(kind, aligned, depth + 1), _shape(shape)))
    return numpy.dtype(fields, align=aligned)


def _shape(shape: Any) -> tuple[int, ...]:
    # The product of many long numbers takes n² steps, and numpy has no array of so many dimensions.
    if type(shape) is not list or len(shape) > DIMENSIONS_LIMIT:
        raise ValueError("no shape of an array")
    if any(type(each) is not int or each < 0 for each in shape):
        raise ValueError("no shape of an array")
    return tuple(shape)


def _write_array(value: Any, writer: Any) -> list[Any]:
    import numpy

    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    flags = (FORTRAN if fortran else 0) | (WRITABLE if value.flags.writeable else 0)
    if value.dtype == object and value.dtype.metadata is None:
        return [_OBJECTS, list(value.shape), flags, *value.flat]
    dtype = _dtype_text(value.dtype)
    contiguous = value.T if fortran else numpy.ascontiguousarray(value) if value.ndim else value
    content: Any = contiguous.reshape(-1).view(numpy.uint8).data if value.nbytes else b""
    if value.nbytes <= INLINE_LIMIT_BYTES or len(writer.buffers) == BUFFER_LIMIT:
        content = bytes(content)
    else:
        writer.buffers.append(content)
        content = len(writer.buffers) - 1
    return [_ARRAY, dtype, list(value.shape), flags, content]


def build_array(items: list[Any], buffers: list[memoryview]) -> Any:
    import numpy

    _, text, sizes, flags, content = items
    dtype, shape = _dtype(text), _shape(sizes)
    if type(flags) is not int or not 0 <= flags <= FORTRAN | WRITABLE:
        raise ValueError("no flags of an array")
    buffer: Any = buffers[content] if type(content) is int and content >= 0 else content
    if type(buffer) not in (bytes, memoryview) or len(buffer) != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array of another size than its shape")
    if not len(buffer) and math.prod(shape) > EMPTY_LIMIT_ITEMS:
        raise ValueError("an array of absurdly many items of no bytes")
    order: Any = "F" if flags & FORTRAN else "C"
    # Not `empty`, which makes texts of no characters into texts of one, of whatever was in memory.
    array: Any = numpy.ndarray(shape, dtype, buffer if len(buffer) else None, order=order)
    _check(array)
    if flags & WRITABLE:
        return array.copy(order) if len(buffer) else array
    if not array.flags.aligned:
        array = array.copy(order)
    array.flags.writeable = False
    return array


def _check(array: Any) -> None:
    """Raises for items that numpy itself would never have written, and on which it fails later or worse."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check(array[name])
    elif array.dtype.kind == "b" and array.size and array.view("u1").max() > 1:
        raise ValueError("a bool that is neither")
    elif array.dtype.kind == "U" and array.nbytes:
        code = array.dtype.str[0] + "u4"
        points = array.reshape(-1) if array.flags.c_contiguous else array.copy().reshape(-1)
        if points.view(code).max() > 0x10FFFF:
            raise ValueError("a character that is none")


def build_objects(items: list[Any]) -> Any:
    import numpy

    _, sizes, flags, *content = items
    shape = _shape(sizes)
    if math.prod(shape) != len(content) or type(flags) is not int or not 0 <= flags <= FORTRAN | WRITABLE:
        raise ValueError("an array of another size than its shape")
    array = numpy.empty(shape, object, "F" if flags & FORTRAN else "C")
    for index, each in zip(numpy.ndindex(*shape), content):
        array[index] = each
    array.flags.writeable = bool(flags & WRITABLE)
    return array


def _write_scalar(value: Any, _: Any) -> Any:
    import numpy

    kind = type(value)
    if kind is numpy.str_:
        return _scalar("str", str.__str__(value).encode("utf-8", "surrogatepass"))
    if kind is numpy.bytes_:
        return _scalar("bytes", bytes.__getitem__(value, slice(None)))
    dtype = value.dtype
    text = _dtype_text(dtype)
    if type(text) is not str or numpy.dtype(text).type is not kind:
        raise Unencodable(f"a numpy scalar of dtype {dtype!r}", "return it in an array, or as a builtin")
    return _scalar(text, value.tobytes())


def _scalar(text: str, data: bytes) -> Any:
    name = text.encode("utf-8")
    return extension(f.NUMPY_SCALAR, bytes((len(name),)) + name + data)


def decode_scalar(data: bytes) -> Any:
    import numpy

    size = data[0]
    text, content = data[1 : 1 + size].decode("utf-8"), data[1 + size :]
    if text == "str":
        return numpy.str_(content.decode("utf-8", "surrogatepass"))
    if text == "bytes":
        return numpy.bytes_(content)
    dtype = _dtype(text)
    if dtype.kind in "SUV" or len(content) != dtype.itemsize:
        raise ValueError("no scalar of that dtype")
    array = numpy.frombuffer(content, dtype)
    _check(array)
    return array[0]
