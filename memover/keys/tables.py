"""How polars and pyarrow objects enter a key: by content, found without importing either.

    label                      parts
    -------------------------  -----------------------------------------------------------------------------
    polars.Series              name, dtype, content
    polars.DataFrame           height, then name, dtype and content of each column in their order
    pyarrow.Array              type, content
    pyarrow.ChunkedArray       the same; where the chunks begin does not count
    pyarrow.Table, RecordBatch schema, content of each column
    pyarrow.Scalar             type, content
    pyarrow.Schema, Field, DataType    names, types, nullability, metadata

The content of a column is the number of its items, which of them are null, and the items, with one zero in the place of
each null and one nan for every nan. Buffers, offsets and capacities do not count. Categories count by the text of each item.
A lazy frame holds a computation and not its result, and is refused. So are subclasses.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .canonical import Active, composite, encode_part
from .forms import encoded, entered, named, numpy_for
from .refusal import Unkeyable

if TYPE_CHECKING:
    from .canonical import Encoder

__all__ = ["find"]


def find(kind: type) -> Encoder | None:
    """The encoder of a class of one of these libraries, or None."""
    top = kind.__module__.partition(".")[0]
    module = sys.modules.get(top)
    if module is not None and top == "polars":
        return _polars(module, kind)
    return _pyarrow(module, kind) if module is not None and top == "pyarrow" else None


# ------------------------------------------------------------------ polars


def _polars(polars: Any, kind: type) -> Encoder | None:
    if kind is polars.DataFrame:
        return _polars_frame
    if kind is polars.Series:
        return _polars_series
    if kind in (polars.LazyFrame, polars.Expr):
        return _lazy
    return None


def _lazy(value: Any, active: Active) -> bytes:
    raise Unkeyable(
        value,
        "it is a computation that has not run, and what it would read may change",
        "collect() it before the call, or pass what it is made from",
    )


@entered
def _polars_frame(value: Any, active: Active) -> bytes:
    columns = [
        encode_part(column.name, active) + named(column.name, _polars_column, column, active)
        for column in value.get_columns()
    ]
    return composite("polars.DataFrame", encode_part(int(value.height), active), *columns)


@entered
def _polars_series(value: Any, active: Active) -> bytes:
    return composite("polars.Series", encode_part(value.name, active), _polars_column(value, active))


def _polars_column(column: Any, active: Active) -> bytes:
    """Dtype and content of a series."""
    return composite("column", encode_part(repr(column.dtype), active), _polars_content(column, active))


def _polars_content(column: Any, active: Active) -> bytes:
    polars = sys.modules["polars"]
    dtype, count = column.dtype, int(column.len())
    if dtype == polars.Null:
        return composite("nulls", encode_part(count, active))
    if dtype == polars.Struct:
        fields = [_polars_content(column.struct.field(name), active) for name in column.struct.fields]
        return composite("struct", encode_part(bytes(column.is_null().to_list()), active), *fields)
    if dtype in (polars.List, polars.Array):
        lists = column if dtype == polars.List else column.arr.to_list()
        return composite(
            "lists",
            encode_part(lists.list.len().to_list(), active),
            # A null list and an empty one leave a null each; the lengths tell them apart from a null in a list.
            _polars_content(lists.explode(), active),
        )
    if dtype.is_temporal():
        column = column.to_physical()
    elif dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    if _is_of_numpy(column.dtype) or column.dtype == polars.Boolean:
        numpy = numpy_for(column)
        missing = column.is_null()
        filled = column.fill_null(False if column.dtype == polars.Boolean else 0)
        return composite(
            "items",
            encode_part(bytes(missing.to_list()) if column.null_count() else b"", active),
            encode_part(numpy.ascontiguousarray(filled.to_numpy()), active),
        )
    return composite("items", encode_part(column.to_list(), active))


_OF_NUMPY = frozenset({"Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"})


def _is_of_numpy(dtype: Any) -> bool:
    """Whether numpy has a polars dtype as well."""
    return type(dtype).__name__ in _OF_NUMPY or getattr(dtype, "__name__", "") in _OF_NUMPY


# ------------------------------------------------------------------ pyarrow


def _pyarrow(pyarrow: Any, kind: type) -> Encoder | None:
    if not kind.__module__.startswith("pyarrow."):
        return None
    for base, encoder in (
        (pyarrow.Array, _arrow_array),
        (pyarrow.Scalar, _arrow_scalar),
        (pyarrow.DataType, lambda value, active: composite("pyarrow.DataType", _arrow_type(value, active))),
    ):
        if issubclass(kind, base):
            return encoder
    return {
        pyarrow.ChunkedArray: _arrow_chunked,
        pyarrow.Table: _arrow_table,
        pyarrow.RecordBatch: _arrow_table,
        pyarrow.Schema: _arrow_schema,
        pyarrow.Field: lambda value, active: composite("pyarrow.Field", *_arrow_field(value, active)),
    }.get(kind)


@entered
def _arrow_array(value: Any, active: Active) -> bytes:
    return composite("pyarrow.Array", _arrow_type(value.type, active), _arrow_content(value, active))


@entered
def _arrow_chunked(value: Any, active: Active) -> bytes:
    return composite("pyarrow.ChunkedArray", _arrow_type(value.type, active), _arrow_content(_joined(value), active))


@entered
def _arrow_scalar(value: Any, active: Active) -> bytes:
    content = _arrow_content(sys.modules["pyarrow"].repeat(value, 1), active)
    return composite("pyarrow.Scalar", _arrow_type(value.type, active), content)


@entered
def _arrow_table(value: Any, active: Active) -> bytes:
    columns = [
        named(name, _arrow_content, _joined(column), active)
        for name, column in zip(value.schema.names, value.columns, strict=True)
    ]
    count = encode_part(int(value.num_rows), active)
    return composite(f"pyarrow.{type(value).__name__}", count, _arrow_schema(value.schema, active), *columns)


@entered
def _arrow_schema(value: Any, active: Active) -> bytes:
    fields = [composite("field", *_arrow_field(field, active)) for field in value]
    return composite("pyarrow.Schema", encode_part(value.metadata, active), *fields)


def _arrow_field(field: Any, active: Active) -> list[bytes]:
    return [*encoded(active, field.name, bool(field.nullable), field.metadata), _arrow_type(field.type, active)]


def _arrow_type(kind: Any, active: Active) -> bytes:
    # The text alone would not do: a field's name may hold the characters that the text sets between fields.
    fields = [composite("field", *_arrow_field(kind.field(at), active)) for at in range(kind.num_fields)]
    return composite("type", encode_part(str(kind), active), *fields)


def _joined(column: Any) -> Any:
    pyarrow: Any = sys.modules["pyarrow"]
    if not isinstance(column, pyarrow.ChunkedArray):
        return column
    whole = column.combine_chunks()
    return pyarrow.concat_arrays(whole.chunks) if isinstance(whole, pyarrow.ChunkedArray) else whole


def _arrow_content(array: Any, active: Active) -> bytes:
    """Counts, nulls and items of an array; the type is said elsewhere."""
    numpy_for(array)
    import pyarrow.compute as functions

    pyarrow: Any = sys.modules["pyarrow"]
    compute: Any = functions  # its functions are made at import, and no type checker sees them
    kind, types, count = array.type, pyarrow.types, len(array)
    if isinstance(kind, pyarrow.BaseExtensionType):
        return composite("extension", encode_part(kind.extension_name, active), _arrow_content(array.storage, active))
    if types.is_null(kind):
        return composite("nulls", encode_part(count, active))
    if types.is_dictionary(kind):
        return _arrow_content(array.dictionary_decode(), active)
    if types.is_run_end_encoded(kind):
        return _arrow_content(compute.run_end_decode(array), active)
    if types.is_struct(kind):
        valid = encode_part(_valid(array), active)
        # `flatten` applies the nulls and the offset of the struct to its fields.
        return composite("struct", valid, *[_arrow_content(field, active) for field in array.flatten()])
    if types.is_map(kind):
        pairs = pyarrow.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        offsets = array.offsets.to_numpy()
        lengths = encode_part((offsets[1:] - offsets[:-1]).tolist(), active)
        return composite("lists", encode_part(_valid(array), active), lengths, _arrow_content(pairs, active))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = encode_part(compute.list_value_length(array).to_pylist(), active)
        return composite("lists", lengths, _arrow_content(array.flatten(), active))
    if types.is_boolean(kind):
        items = array.fill_null(False).to_numpy(zero_copy_only=False)
    elif types.is_floating(kind):
        items = array.fill_null(0.0).to_numpy(zero_copy_only=False)
    elif types.is_primitive(kind):
        # As ints of the same width: dates, times and durations have no numpy type of every unit.
        items = array.view(getattr(pyarrow, f"int{kind.bit_width}")()).fill_null(0).to_numpy(zero_copy_only=False)
    elif any(getattr(types, f"is_{name}", bool)(kind) for name in _PYTHON_ITEMS):
        return composite("items", encode_part(array.to_pylist(), active))
    else:
        raise Unkeyable(array, f"items of type {kind} have no bytes that mean the same everywhere", "cast() it")
    return composite("items", encode_part(_valid(array), active), encode_part(items, active))


_PYTHON_ITEMS = (
    "decimal", "string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary",
)  # fmt: skip
"""Types whose items enter as Python objects; older versions of pyarrow do not have them all."""


def _valid(array: Any) -> bytes:
    if not array.null_count:
        return b""
    valid: bytes = array.is_valid().to_numpy(zero_copy_only=False).tobytes()
    return valid
