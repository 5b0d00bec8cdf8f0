"""Arguments of polars, pyarrow, scipy and xarray enter a key by content; what is a query or a row is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from memover.errors import UnkeyableArgument
from memover.keys import canonical
from memover.keys.canonical import encode, register_key

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
np = pytest.importorskip("numpy")

WHEN = dt.datetime(2026, 1, 2, 3, 4, 5)
COLUMNS: dict[str, list[Any]] = {
    "ints": [1, None, 3],
    "floats": [1.5, None, float("nan")],
    "bools": [True, None, False],
    "texts": ["a", None, ""],
    "bytes": [b"a", None, b""],
    "dates": [dt.date(2026, 1, 2), None, dt.date(1970, 1, 1)],
    "datetimes": [WHEN, None, WHEN],
    "durations": [dt.timedelta(seconds=1), None, dt.timedelta(0)],
    "times": [dt.time(1, 2, 3), None, dt.time(0)],
    "decimals": [Decimal("1.50"), None, Decimal("2.25")],
    "lists": [[1, None], None, []],
    "structs": [{"a": 1, "b": "x"}, {"a": None, "b": None}, {"a": 3, "b": "z"}],
    "nested": [[{"a": [1]}], [], [{"a": []}, {"a": None}]],
    "nulls": [None, None, None],
}


def changed(items: list[Any]) -> list[Any]:
    """The same column with its items in another order."""
    return items[1:] + items[:1]


class TestPolars:
    """Series and frames, of every family of dtypes."""

    @pytest.mark.parametrize("name", COLUMNS)
    def test_a_series_is_its_content(self, name: str) -> None:
        """Equal content has equal bytes wherever its buffers lie; another order of items has others."""
        items = COLUMNS[name]
        series = pl.Series("s", items)
        sliced = pl.Series("s", [*items, *items], dtype=series.dtype).slice(len(items), len(items))
        chunked = pl.concat([series.head(1), series.tail(2)], rechunk=False)
        assert encode(series) == encode(sliced) == encode(chunked) == encode(series.clone())
        if name != "nulls":
            assert encode(series) != encode(pl.Series("s", changed(items), dtype=series.dtype))
        assert encode(series) != encode(series.rename("t"))
        assert encode(series) != encode(series.head(2))
        assert encode(series) not in (encode(series.to_frame()), encode(items) if name != "floats" else b"")

    def test_dtypes_count(self) -> None:
        """The same numbers of another width, unit or zone are other values."""
        kinds = [pl.Int8, pl.Int64, pl.UInt8, pl.Float32, pl.Float64, pl.String, pl.Boolean]
        series = [pl.Series([1, 0]).cast(kind) for kind in kinds]
        series += [pl.Series([WHEN, WHEN]).cast(pl.Datetime(unit)) for unit in ("ms", "us", "ns")]
        series += [series[-1].dt.replace_time_zone("UTC")]
        series += [pl.Series([0, 0], dtype=pl.Int64), pl.Series([None, None], dtype=pl.Int64)]
        assert len({encode(each) for each in series}) == len(series)

    def test_a_null_is_none_of_the_values(self) -> None:
        """Neither zero, nor an empty text, nor an empty list, nor nan."""
        pairs = [([0], pl.Int64), ([""], pl.String), ([[]], pl.List(pl.Int64)), ([float("nan")], pl.Float64)]
        for items, dtype in pairs:
            assert encode(pl.Series(items, dtype=dtype)) != encode(pl.Series([None], dtype=dtype))
        assert encode(pl.Series([[None]], dtype=pl.List(pl.Int64))) != encode(pl.Series([[]], dtype=pl.List(pl.Int64)))

    def test_categories_count_by_their_texts(self) -> None:
        """The numbers that a process gave them do not."""
        one = pl.Series(["b", "a"]).cast(pl.Categorical)
        other = pl.Series(["a", "b", "a"]).cast(pl.Categorical).tail(2)
        assert encode(one) == encode(other)
        assert encode(one) != encode(one.cast(pl.String))
        kinds = [pl.Enum(["a", "b"]), pl.Enum(["b", "a"])]
        assert len({encode(pl.Series(["a"], dtype=kind)) for kind in kinds}) == 2

    def test_nanoseconds_count(self) -> None:
        """Polars keeps them, Python's datetimes do not."""
        one, other = (pl.Series([number]).cast(pl.Datetime("ns")) for number in (1, 2))
        assert encode(one) != encode(other)

    def test_a_frame_is_its_columns(self) -> None:
        """Their names, order, dtypes and content, and its height."""
        frame = pl.DataFrame(COLUMNS, strict=False)
        frames = [frame, frame.head(2), frame.select(frame.columns[::-1]), frame.rename({"ints": "x"})]
        frames += [
            frame.drop("ints"),
            pl.DataFrame(),
            pl.DataFrame({"a": []}),
            frame.with_columns(pl.lit(1).alias("l")),
        ]
        assert len({encode(each) for each in frames}) == len(frames)
        assert encode(frame) == encode(pl.DataFrame(COLUMNS, strict=False))

    def test_lazy_frames_are_refused(self) -> None:
        """The error says to collect."""
        with pytest.raises(UnkeyableArgument, match=r"collect\(\) it before the call"):
            encode(pl.LazyFrame({"a": [1]}), "frame", "load")

    def test_a_refusal_names_column_and_row(self) -> None:
        """An object column holds anything."""
        with pytest.raises(UnkeyableArgument, match=r"frame\['o'\]\[0\] of type object"):
            encode(pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), "frame")


class TestArrow:
    """Arrays, chunked arrays, tables, batches, scalars, schemas and types."""

    @pytest.mark.parametrize("name", COLUMNS)
    def test_an_array_is_its_content(self, name: str) -> None:
        """Offsets, chunks and the bytes under nulls do not count."""
        items = COLUMNS[name]
        array = pa.array(items)
        sliced = pa.array([*items, *items], array.type).slice(len(items))
        assert encode(array) == encode(sliced)
        chunked = pa.chunked_array([array.slice(0, 1), array.slice(1)])
        assert encode(chunked) == encode(pa.chunked_array([array])) != encode(array)
        if name != "nulls":
            assert encode(array) != encode(pa.array(changed(items), array.type))
        assert encode(array) != encode(array.slice(1))
        assert encode(array[0]) == encode(sliced[0])
        assert encode(array[0]) not in (
            encode(array.slice(0, 1)),
            encode(array.slice(1)[0]) if name != "nulls" else b"",
        )

    def test_what_lies_under_a_null_does_not_count(self) -> None:
        """Two arrays with other bytes there are equal."""
        mask = np.array([False, True])
        one, other = (pa.array(np.array([1, number]), mask=mask) for number in (7, 8))
        assert one.equals(other)
        assert encode(one) == encode(other)

    def test_types_count(self) -> None:
        """Widths, units, zones, precisions, and which kind of text or list it is."""
        arrays = [pa.array([0], getattr(pa, kind)()) for kind in ("int8", "int64", "uint8", "float32", "float64")]
        arrays += [pa.array([0], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")]
        arrays += [pa.array([0], pa.timestamp("s", zone)) for zone in ("UTC", "Europe/Rome")]
        arrays += [pa.array(["0"], kind()) for kind in (pa.string, pa.large_string, pa.binary)]
        arrays += [pa.array(["0"]).dictionary_encode(), pa.array([[0]]), pa.array([[0]], pa.large_list(pa.int64()))]
        arrays += [pa.array([[0]], pa.list_(pa.int64(), 1)), pa.array([{"a": 0}]), pa.array([{"b": 0}])]
        arrays += [
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.array([Decimal(1)], pa.decimal128(5, 1)),
        ]
        arrays += [pa.array([0], pa.int64()).slice(1), pa.array([None], pa.int64())]
        assert len({encode(each) for each in arrays}) == len(arrays)
        assert len({encode(each.type) for each in arrays}) == len(arrays) - 2

    def test_names_in_types_cannot_be_confused(self) -> None:
        """A field's name may read like two fields."""
        one = pa.struct([pa.field("a: int32, b", pa.int32())])
        two = pa.struct([pa.field("a", pa.int32()), pa.field("b", pa.int32())])
        assert str(one) == str(two)
        assert encode(one) != encode(two)

    def test_maps_and_dictionaries_are_read_item_by_item(self) -> None:
        """A map with a null entry, and a dictionary in another order."""
        kind = pa.map_(pa.string(), pa.int64())
        one = pa.array([[("a", 1)], None, [], [("b", None)]], kind)
        assert encode(one) == encode(pa.array([None, [("a", 1)], None, [], [("b", None)]], kind).slice(1))
        assert encode(one) != encode(pa.array([[("a", 1)], [], None, [("b", None)]], kind))
        first = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["x", "y"]))
        second = pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["y", "x"]))
        assert encode(first) == encode(second)

    def test_a_table_is_schema_and_columns(self) -> None:
        """Names, order, nullability, metadata; a batch is no table."""
        table = pa.table({"a": [1, 2], "b": ["x", None]})
        strict = table.cast(pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.string())]))
        values = [table, strict, table.select(["b", "a"]), table.replace_schema_metadata({"k": "v"}), table.slice(1)]
        values += [table.schema, table.to_batches()[0], table.rename_columns(["a", "c"]), table.schema.field("a")]
        assert len({encode(each) for each in values}) == len(values)
        assert encode(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == encode(table)

    def test_what_is_not_known_is_refused(self) -> None:
        """Unions have no bytes of this kind."""
        union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
        with pytest.raises(UnkeyableArgument, match="cast"):
            encode(union)


def test_sparse_matrices_are_what_is_stored_in_them() -> None:
    """Shape, dtype, format and entries count; the order in which they were stored does not."""
    sparse = pytest.importorskip("scipy.sparse")
    one = sparse.coo_array(([1.0, 2.0], ([0, 1], [1, 0])), shape=(2, 2))
    other = sparse.coo_array(([2.0, 1.0], ([1, 0], [0, 1])), shape=(2, 2))
    assert encode(one) == encode(other)
    forms = [one, one.tocsr(), one.tocsc(), one * 2, one.astype("f4"), sparse.coo_matrix(one), one.T.tocoo()]
    forms += [sparse.coo_array(([1.0, 2.0], ([0, 1], [1, 0])), shape=(2, 3)), one.toarray()]
    assert len({encode(each) for each in forms}) == len(forms)


def test_xarray_is_values_dimensions_and_coordinates() -> None:
    """Names and attributes too."""
    xr = pytest.importorskip("xarray")
    array = xr.DataArray(
        np.arange(4).reshape(2, 2), dims=("x", "y"), coords={"x": [10, 20]}, name="n", attrs={"u": "m"}
    )
    forms = [array, array + 1, array.rename("m"), array.assign_coords(x=[1, 2]), array.T, array.assign_attrs(u="s")]
    forms += [array.drop_vars("x"), array.to_dataset(), array.to_dataset().assign(k=1), array.values]
    assert len({encode(each) for each in forms}) == len(forms)
    assert encode(array) == encode(array.copy(deep=True))


def test_a_row_of_sqlalchemy_is_refused_with_the_way_out() -> None:
    """Its primary key is what the row is found by."""
    orm = pytest.importorskip("sqlalchemy.orm")
    sa = pytest.importorskip("sqlalchemy")

    class Base(orm.DeclarativeBase):  # type: ignore[misc, name-defined]
        pass

    class Book(Base):
        __tablename__ = "book"
        id = sa.Column(sa.Integer, primary_key=True)

    with pytest.raises(UnkeyableArgument, match=r"f\(book.id\).*ignore=\('book',\)"):
        encode(Book(id=1), "book", "f")


def test_rows_can_be_keyed_by_registration() -> None:
    """`register_key` of the base class names every row, each with its own class."""
    orm = pytest.importorskip("sqlalchemy.orm")
    sa = pytest.importorskip("sqlalchemy")

    class Base(orm.DeclarativeBase):  # type: ignore[misc, name-defined]
        pass

    class Author(Base):
        __tablename__ = "author"
        id = sa.Column(sa.Integer, primary_key=True)

    class Title(Base):
        __tablename__ = "title"
        id = sa.Column(sa.Integer, primary_key=True)

    register_key(Base, lambda row: row.id)
    try:
        assert encode(Author(id=1)) == encode(Author(id=1))
        assert len({encode(each) for each in (Author(id=1), Author(id=2), Title(id=1))}) == 3
    finally:
        del canonical._registered[Base]
        canonical._forget()


def test_numpy_arrays_of_every_kind_enter_by_content() -> None:
    """Dates, structures and objects as numbers do."""
    arrays = [
        np.array(["2026-01-01", "NaT"], "M8[D]"), np.array(["2026-01-01", "NaT"], "M8[ns]"), np.array([1, 2], "m8[s]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), np.array([(1, 2.0)], [("a", "i4"), ("c", "f8")]),
        np.array([1, "a", None], object), np.array([[1], [2]], object), np.array(["a"], "U3"), np.array([b"a"], "S3"),
    ]  # fmt: skip
    assert len({encode(each) for each in arrays}) == len(arrays)
    assert [encode(each) for each in arrays] == [encode(each.copy()) for each in arrays]
