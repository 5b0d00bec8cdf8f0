"""pandas and polars frames and series, kept as Arrow streams (https://arrow.apache.org/docs/format/Columnar.html).

Arrow's types are not pandas': what it would give back otherwise (a column of mixed objects, an index with a
frequency) is found by reading the stream at once and comparing, and refused. That makes a store of a frame cost
about one read more; a hit costs nothing more. Libraries are imported when a payload holds one of their values,
under the names in this file.
"""

from __future__ import annotations

import io
import struct
import sys
from typing import TYPE_CHECKING, Any

from memover.codec.faults import FAULTS, from_outside
from memover.codec.mv1 import format as f
from memover.codec.mv1.format import Unencodable, extension

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["build_frame", "writer_for"]

NESTED_LIMIT = 90
EMPTY_LIMIT_ROWS = 1_000_000
"""How many rows a frame may have beside those that its bytes account for: a column of nulls takes none."""

_FRAME = extension(f.FRAME, b"")


def writer_for(kind: type) -> Callable[[Any, Any], Any] | None:
    """The function that writes instances of exactly this class, if it is a frame or series we keep."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None:
        if kind in (pandas.DataFrame, pandas.Series):
            return _write_pandas
        if kind in (type(pandas.NA), type(pandas.NaT)):
            return _write_pandas_constant
    if polars is not None and kind in (polars.DataFrame, polars.Series):
        return _write_polars
    return None


def _write_pandas_constant(value: Any, _: Any) -> Any:
    import pandas

    return extension(f.CONSTANT, b"\3" if value is pandas.NA else b"\4")


def _write_pandas(value: Any, _: Any) -> list[Any]:
    import pandas

    try:
        import pyarrow
    except ImportError:
        raise Unencodable("a pandas object, which is kept through pyarrow", "install pyarrow") from None
    series = type(value) is pandas.Series
    name = "pandas.Series" if series else "pandas.DataFrame"
    # What Arrow has no place for goes beside it: a series' name, attributes, and columns numbered by a RangeIndex.
    extra: dict[str, Any] = {"name": value.name} if series else {}
    if value.attrs:
        extra["attrs"] = value.attrs
    frame = value.to_frame(name="value") if series else value.copy(deep=False)
    frame.attrs = {}
    if type(frame.columns) is pandas.RangeIndex:
        extra["columns"] = [frame.columns.start, frame.columns.stop, frame.columns.step, frame.columns.name]
        frame.columns = [str(place) for place in range(len(frame.columns))]
    if not series and value.columns.inferred_type == "mixed-integer":  # of which pyarrow would warn whoever called
        raise _refused_frame(name, value, "Arrow's are all text")
    try:
        table = pyarrow.Table.from_pandas(frame)
        sink = io.BytesIO()
        with pyarrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        content = sink.getvalue()
        again = _read_pandas(name, extra, content)
        faithful = _same_pandas(value, again)
    except (pyarrow.ArrowException, *FAULTS) as error:
        if from_outside(error):
            raise
        raise _refused_frame(name, value, str(error)) from error
    if not faithful:
        raise _refused_frame(name, value, "")
    return [_FRAME, name, extra, content]


def _refused_frame(name: str, value: Any, error: str) -> Unencodable:
    """Why Arrow cannot hold a frame or series (`error` is what it said), or would give it back otherwise, and what to return instead."""
    import pandas

    columns = [] if name == "pandas.Series" else [value.iloc[:, place] for place in range(value.shape[1])]
    for each in (value.index, *(columns or [value])):
        categories = getattr(each.dtype, "categories", None)
        if isinstance(each.dtype if categories is None else categories.dtype, pandas.IntervalDtype):
            return Unencodable(
                f"a {name} with intervals, which Arrow has no type for", "make them text with astype(str)"
            )
    if columns and not value.columns.is_unique:
        return Unencodable(f"a {name} with two columns of one name", "give each column a name of its own")
    if columns and value.columns.inferred_type == "mixed-integer":
        return Unencodable(f"a {name} whose columns have names of several types", "make them text: columns.map(str)")
    if error:
        return Unencodable(f"a {name} that Arrow cannot hold ({error})", "return columns of one type each")
    if getattr(value.index, "freq", None) is not None:
        return Unencodable(
            f"a {name} whose index has a frequency, which Arrow does not keep", "set its index.freq = None"
        )
    return Unencodable(
        f"a {name} that Arrow would give back otherwise (mixed objects, or an index it has no type for)",
        "give each column one type, reset_index(), or return builtins",
    )


def _same_pandas(one: Any, other: Any) -> bool:
    import pandas

    if type(one) is not type(other) or one.flags.allows_duplicate_labels != other.flags.allows_duplicate_labels:
        return False
    compare: Any = pandas.testing.assert_series_equal
    if type(one) is pandas.DataFrame:
        compare = pandas.testing.assert_frame_equal
        if type(one.columns) is not type(other.columns) or one.columns.dtype != other.columns.dtype:
            return False
    if type(one.index) is not type(other.index):
        return False
    try:
        compare(
            one, other, check_dtype=True, check_index_type="equiv", check_exact=True, check_freq=True,
            check_flags=True, check_names=True,
        )  # fmt: skip
    except AssertionError:
        return False
    columns = [(one, other)] if type(one) is pandas.Series else [(one[name], other[name]) for name in one.columns]
    for mine, theirs in [*columns, (one.index, other.index)]:
        # assert_*_equal takes 1 for True and None for nan in columns of objects.
        if mine.dtype == object and [type(each) for each in mine] != [type(each) for each in theirs]:
            return False
    return True


def _is_nested(schema: Any) -> bool:
    """Whether names or metadata, which pyarrow reads as Python's literals and as JSON, are nested deeper than any that is written."""
    texts = [*(name.encode("utf-8", "replace") for name in schema.names), *(schema.metadata or {}).values()]
    return any(sum(map(text.count, (b"(", b"[", b"{", b"-", b"+", b"~"))) > NESTED_LIMIT for text in texts)


def _read_pandas(name: str, extra: dict[str, Any], content: bytes) -> Any:
    import pyarrow

    nested = False
    try:
        with pyarrow.ipc.open_stream(content) as stream:
            table = stream.read_all()
        table.validate(full=True)
        nested = _is_nested(table.schema)
        frame = table.to_pandas()
    except (pyarrow.ArrowException, OSError, SyntaxError, RecursionError, MemoryError, *FAULTS) as error:
        outside = isinstance(error, TimeoutError) or from_outside(error)
        if outside and not (nested and isinstance(error, (RecursionError, MemoryError))):
            raise
        raise ValueError(f"no Arrow stream: {error}") from error
    if "columns" in extra:
        import pandas

        start, stop, step, label = extra["columns"]
        frame.columns = pandas.RangeIndex(start, stop, step, name=label)
    if name == "pandas.DataFrame":
        value = frame
    else:
        (column,) = frame.columns
        value = frame[column]
        value.name = extra["name"]
    value.attrs = extra.get("attrs", {})
    return value


def _write_polars(value: Any, _: Any) -> list[Any]:
    import polars

    series = type(value) is polars.Series
    name = "polars.Series" if series else "polars.DataFrame"
    frame = value.to_frame() if series else value
    try:
        sink = io.BytesIO()
        frame.write_ipc_stream(sink)
        content = sink.getvalue()
        again = polars.read_ipc_stream(io.BytesIO(content))
        faithful = again.schema == frame.schema and again.equals(frame, null_equal=True)
    except BaseException as error:
        if not _is_polars_own(error):
            raise
        raise Unencodable(f"a {name} that Arrow cannot hold ({error})", "return columns of Arrow's types") from error
    if not faithful:
        raise Unencodable(f"a {name} that Arrow would give back otherwise", "return columns of Arrow's types")
    return [_FRAME, name, {}, content]


def _is_polars_own(error: BaseException) -> bool:
    # A panic in polars' Rust code is raised as a BaseException, a stream that is cut off as a bare OSError.
    polars = sys.modules["polars"]
    own: Any = (polars.exceptions.PolarsError, *FAULTS)
    if isinstance(error, Exception) and from_outside(error):
        return False
    return isinstance(error, own) or type(error) is OSError or type(error).__name__ == "PanicException"


def _check_stream(content: bytes) -> None:
    """Raises ValueError for a stream whose buffers are compressed, or that has absurdly many rows for its length.

    Streams are written without compression. One that has it expands to thousands of times its length, which no library
    lets its caller bound. Of each message only what tells is read (https://arrow.apache.org/docs/format/Columnar.html,
    "Encapsulated message format", and the flatbuffers of `Message` and `RecordBatch`).
    """
    at, rows = 0, 0
    while at + 8 <= len(content):
        marker, size = _LEAD.unpack_from(content, at)
        if marker != 0xFFFFFFFF:
            raise ValueError("no Arrow stream: a message without its marker")
        if not size:
            break
        message = _Table.root(content[at + 8 : at + 8 + size])
        kind = message.number(1, "B")
        batch = message.table(2)
        if batch is not None and kind in (_DICTIONARY_BATCH, _RECORD_BATCH):
            if kind == _DICTIONARY_BATCH:
                batch = batch.table(1)
            if batch is not None:
                rows += batch.number(0, "q")
                if batch.table(3) is not None:
                    raise ValueError("an Arrow stream that is compressed")
        at += 8 + size + message.number(3, "q")
    if rows > len(content) + EMPTY_LIMIT_ROWS:
        raise ValueError("an Arrow stream of absurdly many rows for its length")


_LEAD = struct.Struct("<Ii")
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


class _Table:
    """A table of a flatbuffer: its fields by number, absent ones as zero or None."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.fields = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _place(self, number: int) -> int:
        slot = 4 + 2 * number
        if self.fields < 0 or slot >= struct.unpack_from("<H", self.data, self.fields)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self.data, self.fields + slot)[0]
        return self.at + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        place = self._place(number)
        if not place:
            return 0
        value: int = struct.unpack_from(f"<{form}", self.data, place)[0]
        if value < 0:
            raise ValueError("no Arrow stream: a length below zero")
        return value

    def table(self, number: int) -> _Table | None:
        place = self._place(number)
        return _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) if place else None


def build_frame(items: list[Any]) -> Any:
    _, name, extra, content = items
    if type(content) is not bytes or type(extra) is not dict:
        raise ValueError("no Arrow stream where one belongs")
    _check_stream(content)
    if name in ("pandas.DataFrame", "pandas.Series"):
        return _read_pandas(name, extra, content)
    if name not in ("polars.DataFrame", "polars.Series"):
        raise ValueError("a frame of no known library")
    import polars

    try:
        frame = polars.read_ipc_stream(io.BytesIO(content))
    except BaseException as error:
        if not _is_polars_own(error):
            raise
        raise ValueError(f"no Arrow stream: {error}") from error
    if name == "polars.DataFrame":
        return frame
    (series,) = frame.get_columns()
    return series
