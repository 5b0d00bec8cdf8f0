"""Classes of attrs, pydantic and msgspec, and the arrays and frames of numpy, pandas and polars, come back as they were."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

pytest.importorskip("attrs")
pytest.importorskip("msgspec")
pytest.importorskip("pydantic")

from memover.codec.mv1.codec import ValueCodec
from memover.errors import DamagedEntry, UnencodableValue
from tests.codec import libraries as lib
from tests.codec.same import same

CODEC = ValueCodec(lib.anything)


def there_and_back(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


def changed(model: Any) -> Any:
    model._secret = 9
    return model


RECORDS: dict[str, Any] = {
    "attrs": lib.Attrs(1, [lib.Attrs(2)]),
    "attrs frozen": lib.AttrsFrozen(1, 3),
    "attrs dict": lib.AttrsDict(1),
    "struct": lib.Struct(1, (2, lib.Struct(3))),
    "struct frozen": lib.StructFrozen(a=5),
    "struct hooked": lib.StructHooked(1),
    "struct unset": lib.StructUnset(),
    "model": lib.Model(a=1, b=lib.Model(a=3)),
    "model private": changed(lib.Model(a=1)),
    "model extra": lib.Open(a=1, other=[2]),
    "model nothing set": lib.Open(),
    "model frozen": lib.Frozen(a=(1, 2)),
    "model generic": lib.Page[int](items=[1]),
    "model constructed": lib.Model.model_construct(b=(1,)),
    "root model": lib.Names(["a"]),
    "pydantic dataclass": lib.Checked(1),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_come_back(name: str) -> None:
    """Fields, private attributes, extras and what was set explicitly are kept, without validating again."""
    value = RECORDS[name]
    lib.RUNS.clear()
    assert same(there_and_back(value), value)
    assert same(there_and_back([value, (value,)]), [value, (value,)])
    assert there_and_back(value) == value
    assert lib.RUNS == []


def test_rebuilt_models_work() -> None:
    """A rebuilt model can be copied, dumped, compared and assigned to."""
    model = there_and_back(lib.Model(a=1))
    assert model.model_dump() == {"a": 2, "b": None}
    assert model.model_copy() == lib.Model(a=1)
    model.b = 5
    assert model.model_fields_set == {"a", "b"}
    assert there_and_back(lib.Names(["a"])).model_dump() == ["a"]


class TestNumpy:
    np = pytest.importorskip("numpy")

    def values(self) -> list[Any]:
        np = self.np
        frozen = np.arange(600)
        frozen.flags.writeable = False
        return [
            np.arange(10),
            np.arange(100_000, dtype="f8"),
            np.asfortranarray(np.arange(600).reshape(20, 30)),
            np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
            np.arange(20)[::2],
            np.array(5),
            np.array([], dtype="i4"),
            np.zeros((0, 3)),
            np.array([1, 2], dtype=">i2"),
            np.array([True, False]),
            np.array([1 + 2j]),
            np.array(["a", "bcd\u1234"]),
            np.array([b"a", b"bc"]),
            np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
            np.array([1, 2], dtype="m8[25us]"),
            np.array([(1, "a", [1.0, 2.0])], dtype=[("x", "i4"), ("y", "U3"), ("z", "f8", (2,))]),
            np.zeros(3, dtype=np.dtype([("a", "i1"), ("b", "i8")], align=True)),
            np.array([1, "a", None, (1, 2), np.float64(1.5)], dtype=object),
            np.array([[1, {}], [[], b""]], dtype=object, order="F"),
            np.array([0.1, np.nan, -0.0], dtype="f2"),
            frozen,
            np.float64(0.1),
            np.float32("nan"),
            np.int8(-1),
            np.bool_(True),
            np.complex128(1j),
            np.str_("ab\0"),
            np.bytes_(b"a\0"),
            np.datetime64("2024-01-01T00:00", "m"),
            np.timedelta64(5, "D"),
            {np.int64(1): np.uint16(2)},
        ]

    def test_arrays_and_scalars_come_back(self) -> None:
        """dtype, shape, memory order, bits and the writable flag are kept; scalars keep their class."""
        for value in self.values():
            assert same(there_and_back(value), value), value
            assert same(there_and_back([value, (value,), value]), [value, (value,), value])

    def test_two_reads_share_no_memory(self) -> None:
        """A writable array can be changed without changing the payload or another reader's array."""
        payload = CODEC.encode(self.np.zeros(10_000))
        one, other = CODEC.decode(payload), CODEC.decode(payload)
        one[:] = 5
        assert not other.any()
        assert not CODEC.decode(payload).any()

    def test_more_arrays_than_buffers(self) -> None:
        """A value with more large arrays than a payload has buffers is kept all the same."""
        values = [self.np.full(1000, number) for number in range(300)]
        assert same(there_and_back(values), values)

    def test_what_numpy_would_not_give_back_is_refused(self) -> None:
        """Subclasses of ndarray, and dtypes that do not survive, are refused with their path."""
        np = self.np
        for value in [
            np.ma.array([1], mask=[True]),
            np.zeros(2).view(np.recarray),
            np.zeros(2, dtype=np.dtype("f8", metadata={"a": 1})),
            np.zeros(2, dtype=[("a", object)]),
            np.longlong(1) if np.dtype("q") == np.dtype("l") and np.longlong is not np.int64 else np.ma.array([1]),
        ]:
            with pytest.raises(UnencodableValue) as caught:
                CODEC.encode({"a": value})
            assert caught.value.path == "$.a"

    def test_damaged_arrays_are_a_miss(self) -> None:
        """No flipped byte in the head of an array makes anything but a value or a miss."""
        for value in [self.np.arange(4), self.np.arange(1000), *self.values()[14:19]]:
            payload = CODEC.encode(value)
            for place in range(min(len(payload), 120)):
                for flip in (1, 0x80, 0xFF, 0x20):
                    try:
                        CODEC.decode(payload[:place] + bytes((payload[place] ^ flip,)) + payload[place + 1 :])
                    except DamagedEntry:
                        continue


class TestPandas:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")

    def test_frames_and_series_come_back(self) -> None:
        """Columns, index, dtypes and names are kept."""
        pd = self.pd
        frame = pd.DataFrame(
            {"a": [1, 2], "b": ["x", None], "c": [1.5, float("nan")], "d": [dt.datetime(2024, 1, 1)] * 2},
            index=pd.Index(["r", "s"], name="row"),
        )
        frame["e"] = pd.Categorical(["u", "v"])
        for value in [
            frame,
            pd.DataFrame(),
            pd.DataFrame({"a": [1]}),
            pd.Series([1, 2], name="n"),
            pd.Series([1.5], index=pd.MultiIndex.from_tuples([("a", 1)])),
            frame["b"],
            frame["e"],
        ]:
            back = there_and_back({"k": value})["k"]
            assert type(back) is type(value)
            getattr(pd.testing, f"assert_{type(value).__name__.lower().replace('data', '')}_equal")(back, value)
        assert there_and_back([pd.NA, pd.NaT])[0] is pd.NA
        assert there_and_back([pd.NA, pd.NaT])[1] is pd.NaT

    def test_what_arrow_would_not_give_back_is_refused(self) -> None:
        """A column of mixed objects, or of tuples, is refused, not converted."""
        for column in ([1, "a"], [(1, 2)], [{"a": 1}, {"b": 2}], [{1}]):
            with pytest.raises(UnencodableValue):
                CODEC.encode(self.pd.DataFrame({"a": self.pd.Series(column, dtype=object)}))

    def test_damaged_frames_are_a_miss(self) -> None:
        """No flipped byte makes anything but a value or a miss."""
        payload = CODEC.encode(self.pd.DataFrame({"a": [1]}))
        for place in range(0, len(payload), 7):
            try:
                CODEC.decode(payload[:place] + bytes((payload[place] ^ 0xFF,)) + payload[place + 1 :])
            except DamagedEntry:
                continue


class TestDataThatIsRefused:
    """What libraries for data have besides arrays and frames, and what Arrow has no place for: the error says what to return."""

    pd = pytest.importorskip("pandas")

    @pytest.mark.parametrize(
        ("make", "instead"),
        [
            (lambda pd: pd.Timestamp("2026-01-02"), "to_pydatetime"),
            (lambda pd: pd.Timedelta(1, "s"), "to_pytimedelta"),
            (lambda pd: pd.Index([1, 2]), "to_numpy"),
            (lambda pd: pd.date_range("2026-01-02", periods=2), "to_numpy"),
            (lambda pd: pd.Period("2026-01"), "return str"),
            (lambda pd: pd.Interval(0, 1), "left and right"),
            (lambda pd: pd.Series([1, 2], pd.date_range("2026-01-02", periods=2)), r"index\.freq = None"),
            (lambda pd: pd.DataFrame({"a": [1, 2]}, pd.date_range("2026-01-02", periods=2)), r"index\.freq = None"),
            (lambda pd: pd.DataFrame({"a": pd.cut([1, 2, 3], 2)}), "make them text"),
            (lambda pd: pd.Series(pd.cut([1, 2, 3], 2)), "make them text"),
            (lambda pd: pd.DataFrame([[1, 2]], columns=["a", "a"]), "a name of its own"),
            (lambda pd: pd.DataFrame([[1, 2]], columns=["a", 1]), "columns.map"),
            (lambda pd: pd.DataFrame({"a": [1, "x"]}), "one type"),
        ],
    )
    def test_pandas(self, make: Any, instead: str, recwarn: pytest.WarningsRecorder) -> None:
        with pytest.raises(UnencodableValue, match=instead):
            CODEC.encode(make(self.pd))
        assert [str(each.message) for each in recwarn] == []

    def test_what_is_to_be_returned_instead_is_kept(self) -> None:
        pd = self.pd
        frame = pd.DataFrame({"a": [1, 2]}, pd.date_range("2026-01-02", periods=2, tz="UTC"))
        assert there_and_back(pd.Timestamp("2026-01-02").to_pydatetime()) == dt.datetime(2026, 1, 2)
        for value in [pd.Series(frame.index), pd.Series([pd.Timestamp("2026-01-02 00:00:00.000000001")])]:
            assert there_and_back(value).equals(value)
        frame.index.freq = None
        assert there_and_back(frame).equals(frame)

    def test_a_table_and_a_sparse_array(self) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        with pytest.raises(UnencodableValue, match="to_pandas"):
            CODEC.encode(pyarrow.table({"a": [1]}))
        sparse = pytest.importorskip("scipy.sparse")
        with pytest.raises(UnencodableValue, match="its shape"):
            CODEC.encode(sparse.csr_matrix([[1, 0]]))


class TestPolars:
    pl = pytest.importorskip("polars")

    def test_frames_and_series_come_back(self) -> None:
        """Columns, dtypes and names are kept."""
        pl = self.pl
        for value in [
            pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1], []], "d": [dt.date(2024, 1, 1)] * 2}),
            pl.DataFrame(),
            pl.Series("n", [1.5, float("nan")]),
            pl.Series("e", ["a", "b"], dtype=pl.Categorical),
        ]:
            back = there_and_back((value,))[0]
            assert type(back) is type(value)
            assert back.equals(value, null_equal=True)
        assert there_and_back(pl.Series("n", [1])).name == "n"

    def test_objects_are_refused(self) -> None:
        """A column of Python objects has no Arrow type."""
        with pytest.raises(UnencodableValue):
            CODEC.encode(self.pl.DataFrame({"a": [object()]}))

    def test_damaged_frames_are_a_miss(self, capfd: pytest.CaptureFixture[str]) -> None:
        """No flipped byte makes anything but a value or a miss."""
        payload = CODEC.encode(self.pl.DataFrame({"a": [1]}))
        for place in range(0, len(payload), 7):
            try:
                CODEC.decode(payload[:place] + bytes((payload[place] ^ 0xFF,)) + payload[place + 1 :])
            except DamagedEntry:
                continue
