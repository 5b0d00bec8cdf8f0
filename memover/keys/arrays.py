"""How numpy, pandas, scipy.sparse and xarray objects enter a key: by content, found without importing any of them.

    label             parts
    ----------------  --------------------------------------------------------------------------------
    numpy.ndarray     dtype, shape, content
    numpy.generic     dtype, content: a scalar differs from the Python number and from a 0-d array
    numpy.dtype       dtype
    pandas.Timestamp  unit, count of units since the epoch, fold, tzinfo or None
    pandas.Timedelta  unit, count of units
    pandas.NaT, NA    nothing
    pandas.Interval, Period             left, right, closed; ordinal, frequency
    pandas.Index, Series, DataFrame     class, names, dtypes, content, index; attrs
    scipy.sparse      class, shape, then data and coordinates of what is stored, in the order of the coordinates
    xarray.DataArray  name, variable, coordinates
    xarray.Dataset    variables, coordinates, attributes

dtype: its `str` ("<f8", "<M8[ns]", "<U5"), or for structured dtypes every field's name, offset, dtype and shape,
and the item size. Byte order is part of it and is not normalised: ">i4" and "<i4" differ, and so do the keys of
machines whose native orders differ. Strings of other widths differ.
content: the items in C order, whatever the memory layout: their bytes, every nan made the same one; field by field
for structured dtypes, so that padding does not count; item by item for objects. Long doubles, whose
bytes hold padding, and other kinds of dtype are refused. Subclasses of arrays and frames are refused, and so is an
xarray object in chunks, which is a computation that has not run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from memover.classes.kinds import is_numpy_scalar

from .canonical import Active, composite, encode_part
from .forms import encoded, entered, fields, named, numpy_for
from .refusal import Unkeyable, type_name

if TYPE_CHECKING:
    from .canonical import Encoder

__all__ = ["find"]

_BYTES_KINDS = "biufcmMSUV"


def find(kind: type) -> Encoder | None:
    """The encoder of a numpy or pandas type, or None."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if kind is numpy.ndarray:
            return _array
        if issubclass(kind, numpy.dtype):
            return lambda value, active: composite("numpy.dtype", _dtype(value, active))
        if is_numpy_scalar(kind):
            return lambda value, active: composite(
                "numpy.generic", _dtype(value.dtype, active), _content(numpy.asarray(value), active)
            )
    top = kind.__module__.partition(".")[0]
    pandas: Any = sys.modules.get("pandas")
    if pandas is not None and top == "pandas":
        for name, encoder in _PANDAS.items():
            if kind is getattr(pandas, name) or kind is type(getattr(pandas, name)):
                return encoder
        if issubclass(kind, pandas.Index) and kind is getattr(pandas, kind.__name__, None):
            return _index
    if top == "scipy":
        return _scipy(kind)
    return _xarray(kind) if top == "xarray" else None


# ------------------------------------------------------------------ numpy


@entered
def _array(value: Any, active: Active) -> bytes:
    shape = encode_part(tuple(map(int, value.shape)), active)
    return composite("numpy.ndarray", _dtype(value.dtype, active), shape, _content(value, active))


def _dtype(dtype: Any, active: Active) -> bytes:
    if dtype.names is not None:
        columns = [_field(name, dtype.fields[name], active) for name in dtype.names]
        return composite("fields", encode_part(int(dtype.itemsize), active), *columns)
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return composite("subarray", _dtype(base, active), encode_part(tuple(map(int, shape)), active))
    if dtype.kind not in _BYTES_KINDS + "O" or dtype.char in "gG":
        raise Unkeyable(dtype, f"items of dtype {dtype} have no bytes that mean the same everywhere; use astype()")
    return encode_part(dtype.str, active)


def _field(name: str, field: Any, active: Active) -> bytes:
    dtype, offset = field[:2]
    return encode_part(name, active) + encode_part(int(offset), active) + _dtype(dtype, active)


def _content(array: Any, active: Active) -> bytes:
    """The items of an array in C order; the dtype has been through `_dtype`."""
    dtype = array.dtype
    if dtype.names is not None:
        return composite("columns", *[_content(array[name], active) for name in dtype.names])
    if dtype.kind == "O":
        return encode_part(array.ravel(order="C").tolist(), active)
    if dtype.kind in "fc":
        array = _one_nan(array)
    return encode_part(array.tobytes(order="C"), active)


def _one_nan(array: Any) -> Any:
    """The array with the one nan that numpy writes in the place of every nan, in either part of complex items."""
    numpy = sys.modules["numpy"]
    if not numpy.isnan(array).any():
        return array
    flat = array.flatten(order="C")
    floats = flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
    floats[numpy.isnan(floats)] = numpy.nan
    return flat


# ------------------------------------------------------------------ pandas


def _column(column: Any, active: Active) -> bytes:
    """The dtype and the items of a Series or a flat Index."""
    if isinstance(column.dtype, sys.modules["numpy"].dtype):
        return encode_part(column.to_numpy(), active)
    if column.dtype.name == "category":
        values = column.array
        return composite("category", *encoded(active, values.categories, bool(values.ordered), values.codes))
    return composite("extension", *encoded(active, str(column.dtype), list(column)))


@entered
def _index(value: Any, active: Active) -> bytes:
    names = encode_part(list(value.names), active)
    levels = [_column(value.get_level_values(level), active) for level in range(value.nlevels)]
    frequency = encode_part(getattr(value, "freqstr", None), active)
    return composite(f"pandas.{type(value).__name__}", names, frequency, *levels)


@entered
def _series(value: Any, active: Active) -> bytes:
    return composite("pandas.Series", *encoded(active, value.name, value.attrs, value.index), _column(value, active))


@entered
def _frame(value: Any, active: Active) -> bytes:
    parts = encoded(active, value.attrs, value.columns, value.index)
    for position, name in enumerate(value.columns):
        parts.append(named(name, _column, value.iloc[:, position], active))
    return composite("pandas.DataFrame", *parts)


_PANDAS: dict[str, Encoder] = {
    "DataFrame": _frame,
    "Series": _series,
    "NaT": lambda value, active: composite("pandas.NaT"),
    "NA": lambda value, active: composite("pandas.NA"),
    "Timestamp": fields(
        "pandas.Timestamp",
        lambda value: (getattr(value, "unit", "ns"), int(value.asm8.astype("int64")), value.fold, value.tzinfo),
    ),
    "Timedelta": fields(
        "pandas.Timedelta", lambda value: (getattr(value, "unit", "ns"), int(value.asm8.astype("int64")))
    ),
    "Interval": fields("pandas.Interval", lambda value: (value.left, value.right, value.closed)),
    "Period": fields("pandas.Period", lambda value: (value.ordinal, value.freqstr)),
}


# ------------------------------------------------------------------ scipy.sparse, xarray


def _scipy(kind: type) -> Encoder | None:
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None or getattr(sparse, kind.__name__, None) is not kind or not hasattr(kind, "tocoo"):
        return None
    return _sparse


@entered
def _sparse(value: Any, active: Active) -> bytes:
    numpy = numpy_for(value)
    stored = value.tocoo(copy=True)
    stored.sum_duplicates()
    coordinates = getattr(stored, "coords", None) or (stored.row, stored.col)
    order = numpy.lexsort(tuple(coordinates)[::-1])
    parts = [numpy.asarray(each)[order].astype("<i8") for each in coordinates]
    shape = tuple(map(int, value.shape))
    return composite("scipy.sparse", *encoded(active, type_name(type(value)), shape, stored.data[order], *parts))


def _xarray(kind: type) -> Encoder | None:
    xarray: Any = sys.modules["xarray"]
    return {xarray.DataArray: _data_array, xarray.Dataset: _dataset}.get(kind)


@entered
def _data_array(value: Any, active: Active) -> bytes:
    variable = _variable(value.variable, active)
    return composite("xarray.DataArray", encode_part(value.name, active), variable, _variables(value.coords, active))


@entered
def _dataset(value: Any, active: Active) -> bytes:
    variables = _variables(value.data_vars, active)
    coordinates = _variables(value.coords, active)
    return composite("xarray.Dataset", variables, coordinates, encode_part(dict(value.attrs), active))


def _variables(variables: Any, active: Active) -> bytes:
    parts = [encode_part(name, active) + named(name, _variable, variables[name].variable, active) for name in variables]
    return composite("variables", *sorted(parts))


def _variable(variable: Any, active: Active) -> bytes:
    if variable.chunks is not None:
        raise Unkeyable(variable, "it is chunked, a computation that has not run", "load() it before the call")
    dims = tuple(map(str, variable.dims))
    return composite("variable", *encoded(active, dims, variable.values, dict(variable.attrs)))
