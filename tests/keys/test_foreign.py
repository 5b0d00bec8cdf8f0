"""Foreign types: `__memover_key__`, `register_key`, and the libraries that are known without being imported."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
import zoneinfo
from typing import Any

import pytest

from memover.errors import ConfigurationError, UnkeyableArgument
from memover.keys.canonical import encode, register_key
from tests.keys import samples as s


class Base:
    def __init__(self, value: Any) -> None:
        self.value = value


class Sub(Base): ...


class Both(Base):
    def __memover_key__(self) -> Any:
        return ("own", self.value)


class Text(str):
    __slots__ = ()


class Unregistered(Base): ...


register_key(Base, lambda value: value.value)
register_key(Text, str.__str__)


def test_a_registered_type_enters_by_its_function_and_class() -> None:
    """The function says what tells two objects apart; subclasses are covered and never share with their base."""
    assert encode(Base(1)) == encode(Base(1)) != encode(Base(2))
    assert encode(Sub(1)) == encode(Sub(1)) != encode(Base(1))
    assert encode(Base(1)) not in (encode(1), encode((1,)))
    assert encode(Text("a")) == encode(Text("a")) != encode("a")


def test_the_bytes_of_keyed_objects_never_change() -> None:
    """Class and key are both part of them."""
    assert encode(Base(1)) == b"x2:s10:registereds28:tests.keys.test_foreign:Basei0x1;"
    assert encode(Both(1)) == b"x2:s3:keys28:tests.keys.test_foreign:Botht2:s3:owni0x1;"


def test_the_classs_own_key_is_asked_before_its_bases_registration() -> None:
    """`register_key` of the very type, then `__memover_key__()`, then `register_key` of a base."""
    assert b"own" in encode(Both(1))
    register_key(Both, lambda value: "registered first")
    assert b"registered first" in encode(Both(1))
    from memover.keys import canonical

    del canonical._registered[Both]
    canonical._forget()


def test_registering_again_replaces() -> None:
    """The last registration counts, for types seen before as well."""
    register_key(Unregistered, lambda value: "one")
    one = encode(Unregistered(1))
    register_key(Unregistered, lambda value: "two")
    assert encode(Unregistered(1)) != one


@pytest.mark.parametrize("kind", [int, str, dict, type(None), object, 7, "Base"])
def test_the_builtin_types_cannot_be_registered(kind: Any) -> None:
    """What an int is in a key is settled."""
    with pytest.raises(ConfigurationError, match="register_key"):
        register_key(kind, lambda value: value)


def test_a_registration_needs_a_callable() -> None:
    """A mistake found at once."""
    with pytest.raises(ConfigurationError, match="needs a callable"):
        register_key(Base, "value")  # type: ignore[arg-type]


def test_a_key_that_gives_itself_is_refused() -> None:
    """`__memover_key__` returning self is a cycle."""
    value = s.Keyed(None)
    value.key = value
    with pytest.raises(UnkeyableArgument, match="holds itself"):
        encode(value)


def test_what_a_key_function_raises_comes_through() -> None:
    """The exception is the function's own, with a note where notes exist."""

    class Broken:
        def __memover_key__(self) -> Any:
            raise KeyError("tenant")

    with pytest.raises(KeyError, match="tenant") as caught:
        encode(Broken())
    if sys.version_info >= (3, 11):
        assert "__memover_key__ of tests.keys.test_foreign" in caught.value.__notes__[0]


def test_nothing_is_imported_for_the_sake_of_foreign_types() -> None:
    """Encoding the standard types loads no third-party library."""
    code = """
import sys, types
sys.modules["memover"] = package = types.ModuleType("memover")
package.__path__ = ["memover"]
from memover.keys.binding import Binding
from memover.keys.canonical import encode
encode({1: (2.0, [None])})
try: encode(object())
except TypeError: pass
heavy = {"numpy", "pandas", "pydantic", "attr", "attrs", "msgspec", "decimal", "uuid", "pathlib", "fractions"}
print(sorted(heavy & set(sys.modules)))
"""
    import pathlib

    root = pathlib.Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (answer.stdout.strip(), answer.stderr) == ("[]", "")


# ------------------------------------------------------------------ the standard library, further


def test_an_enum_member_is_its_name() -> None:
    """The value behind the name may change; IntEnum and StrEnum members pass for no number and no text."""

    def color(value: int) -> Any:
        kind: Any = enum.Enum("Color", {"RED": value})  # type: ignore[misc]
        kind.__module__, kind.__qualname__ = "shop", "Color"
        return kind["RED"]

    assert encode(color(1)) == encode(color(2))
    assert encode(s.Level.LOW) != encode(1)
    assert encode(s.Word.RED) != encode("red")
    assert encode(s.Color.RED) != encode(s.Shade.RED)


def test_the_same_instant_in_two_zones_makes_two_keys() -> None:
    """A datetime is its wall clock and its zone; astimezone(utc) makes them one."""
    here = dt.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Rome"))
    there = here.astimezone(zoneinfo.ZoneInfo("Asia/Tokyo"))
    assert here == there
    assert encode(here) != encode(there)
    assert encode(here.astimezone(s.UTC)) == encode(there.astimezone(s.UTC))


def test_a_zone_without_a_name_is_refused() -> None:
    """What cannot be named in another process is not guessed."""

    class Zone(dt.tzinfo): ...

    with pytest.raises(UnkeyableArgument) as caught:
        encode([dt.datetime(2024, 1, 1, tzinfo=Zone())])  # type: ignore[abstract]
    assert caught.value.kind.endswith("Zone")


def test_dateutil_zones_are_known() -> None:
    """UTC, fixed offsets and zone files of dateutil."""
    tz = pytest.importorskip("dateutil.tz")
    zones = [tz.tzutc(), tz.tzoffset("A", 3600), tz.tzoffset("B", 3600), tz.tzoffset("A", 60)]
    assert len({encode(dt.datetime(2024, 1, 1, tzinfo=zone)) for zone in zones}) == len(zones)


def test_a_frozen_clock_makes_the_same_keys() -> None:
    """freezegun's stand-ins pass for the real date and datetime."""
    freezegun = pytest.importorskip("freezegun")
    real = [dt.datetime(2024, 1, 2, 3, tzinfo=dt.timezone.utc), dt.date(2024, 1, 2)]
    expected = [encode(value) for value in real]
    with freezegun.freeze_time("2024-01-02 03:00:00"):
        frozen = [dt.datetime.now(dt.timezone.utc), dt.date.today()]
        assert type(frozen[0]) is not type(real[0])
        assert [encode(value) for value in frozen] == expected


# ------------------------------------------------------------------ numpy


def test_arrays_enter_by_content() -> None:
    """dtype, shape and items in C order; the memory layout does not count."""
    np = pytest.importorskip("numpy")
    array = np.arange(6.0).reshape(2, 3)
    same = [
        array.copy(),
        np.asfortranarray(array),
        np.arange(12.0).reshape(2, 6)[:, ::2] / 2,
        array[::-1][::-1],
    ]
    assert {encode(value) for value in same} == {encode(array)}
    other = [
        *(array.T, array.ravel(), array.reshape(3, 2), array + 1, array.tolist(), array.tobytes()),
        *(array.astype(t) for t in ("f4", "i8", ">f8", "O", "c16")),
    ]
    assert len({encode(value) for value in [*other, array]}) == len(other) + 1


def test_long_arrays_differ_in_the_middle() -> None:
    """No digest of a repr that leaves the middle out."""
    np = pytest.importorskip("numpy")
    one, two = np.zeros(10_000), np.zeros(10_000)
    two[5000] = 1
    assert encode(one) != encode(two)


def test_nan_is_one_value_in_arrays() -> None:
    """Payload and sign of a nan do not count; the sign of a zero does."""
    np = pytest.importorskip("numpy")
    one = np.array([1.0, np.nan])
    two = one.copy()
    two.view("u8")[1] ^= (1 << 63) | 1
    assert one.tobytes() != two.tobytes()
    assert encode(one) == encode(two)
    assert encode(one + 0j) == encode(two + 0j)
    assert encode(np.float64("nan")) == encode(-np.float64("nan"))
    assert encode(np.array(0.0)) != encode(np.array(-0.0))


def test_padding_does_not_count() -> None:
    """Structured arrays enter field by field."""
    np = pytest.importorskip("numpy")
    dtype = np.dtype([("a", "u1"), ("b", "f8"), ("c", "O")], align=True)
    plain = np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 16})
    one, two = np.zeros(2, plain), np.zeros(2, plain)
    two.view("u1")[3] = 7
    assert encode(one) == encode(two)
    two["b"][1] = 1
    assert encode(one) != encode(two)
    assert encode(np.zeros(1, dtype)) == encode(np.zeros(1, dtype)) != encode(np.zeros(1, plain))
    assert encode(one[0]) != encode(one[:1])


def test_numpy_scalars_are_not_python_numbers() -> None:
    """np.float64(1.0), 1.0, and a 0-d array are three values."""
    np = pytest.importorskip("numpy")
    values = [
        *(
            1,
            1.0,
            True,
            "a",
            np.float64(1),
            np.float32(1),
            np.int64(1),
            np.uint8(1),
            np.bool_(True),
            np.str_("a"),
        ),
        *(np.array(1.0), np.array([1.0]), np.bytes_(b"a"), np.dtype("f8"), np.float64, np.complex64(1)),
        *(np.datetime64("2024"), np.datetime64("2024-01"), np.datetime64("NaT", "s"), np.timedelta64(1, "s")),
    ]
    assert len({encode(value) for value in values}) == len(values)


def test_object_arrays_enter_item_by_item() -> None:
    """Items are encoded, or refused, like any others."""
    np = pytest.importorskip("numpy")
    assert encode(np.array([1, "a"], dtype=object)) != encode(np.array(["1", "a"], dtype=object))
    with pytest.raises(UnkeyableArgument, match=r"value\[1\] of type object"):
        encode(np.array([1, object()], dtype=object))


def test_arrays_that_hold_more_than_content_are_refused() -> None:
    """Masked arrays, matrices, long doubles, StringDType."""
    np = pytest.importorskip("numpy")
    values = [
        np.ma.array([1], mask=[True]),
        np.array([1], dtype="g"),
        np.longdouble(1),
        np.recarray((1,), dtype=[("a", "i4")]),
    ]
    if hasattr(np.dtypes, "StringDType"):
        values.append(np.array(["a"], dtype=np.dtypes.StringDType()))
    for value in values:
        with pytest.raises(UnkeyableArgument):
            encode(value)


def test_bytes_of_arrays_never_change() -> None:
    """As released."""
    np = pytest.importorskip("numpy")
    array = np.array([[1, 2]], dtype="<i2")
    assert encode(array) == b"x3:s13:numpy.ndarrays3:<i2t2:i0x1;i0x2;b4:\x01\x00\x02\x00"
    assert encode(np.float64(1)) == b"x2:s13:numpy.generics3:<f8b8:\x00\x00\x00\x00\x00\x00\xf0?"


# ------------------------------------------------------------------ pandas


def test_frames_enter_by_content() -> None:
    """Columns, dtypes, index, names and attrs."""
    pd = pytest.importorskip("pandas")

    def frame(**changes: Any) -> Any:
        data = {
            "a": [1, 2],
            "b": ["x", None],
            "c": pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True),
            "d": pd.Categorical(["p", "q"]),
            "e": pd.array([1, None], dtype="Int64"),
        }
        return pd.DataFrame({**data, **changes})

    named = frame()
    named.attrs["unit"] = "m"
    different = [
        *(
            frame(),
            frame(a=[1, 3]),
            frame(a=[1.0, 2.0]),
            frame(b=["x", "y"]),
            frame(f=1),
            frame()[["b", "a"]],
        ),
        *(frame(d=pd.Categorical(["p", "q"], ordered=True)), frame(e=pd.array([1, 2], dtype="Int64"))),
        *(
            frame().set_index("a"),
            frame().iloc[::-1],
            frame().head(1),
            frame().rename(columns={"a": "z"}),
            named,
        ),
        *(
            frame()["a"],
            frame()["a"].rename("z"),
            frame()["b"],
            frame().index,
            frame().columns,
            pd.MultiIndex.from_tuples([(1, 2)]),
        ),
    ]
    assert len({encode(value) for value in different}) == len(different)
    assert encode(frame()) == encode(frame()) == encode(frame().copy())


def test_pandas_scalars_keep_what_their_bases_lack() -> None:
    """A Timestamp has nanoseconds and passes for no datetime."""
    pd = pytest.importorskip("pandas")
    values = [
        *(pd.Timestamp("2024-01-01 00:00:00.000000001"), pd.Timestamp("2024-01-01"), dt.datetime(2024, 1, 1)),
        *(
            pd.Timestamp("2024-01-01", tz="UTC"),
            pd.Timestamp("2024-01-01", tz="Europe/Rome"),
            pd.NaT,
            pd.NA,
            None,
        ),
        *(
            pd.Timedelta("1s"),
            pd.Timedelta("2s"),
            dt.timedelta(seconds=1),
            pd.Interval(0, 1),
            pd.Period("2024-01"),
        ),
    ]
    assert len({encode(value) for value in values}) == len(values)


def test_a_frame_names_the_place_of_what_it_refuses() -> None:
    """The column and the row."""
    pd = pytest.importorskip("pandas")
    with pytest.raises(UnkeyableArgument, match=r"value\['a'\]\[1\] of type object"):
        encode(pd.DataFrame({"a": [1, object()]}))


# ------------------------------------------------------------------ models


def test_pydantic_models_enter_by_class_and_fields() -> None:
    """As pydantic's own == has it: fields, extra and private attributes."""
    pydantic = pytest.importorskip("pydantic", minversion="2")

    class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        a: int
        b: list[int] = pydantic.Field(default_factory=list)
        _p: int = pydantic.PrivateAttr(0)

    class Other(Model): ...

    class Open(pydantic.BaseModel, extra="allow"):  # type: ignore[misc, name-defined, call-arg]
        a: int

    private = Model(a=1)
    private._p = 1
    different = [
        Model(a=1),
        Model(a=2),
        Model(a=1, b=[1]),
        Other(a=1),
        private,
        Open(a=1),
        Open(a=1, z=1),
        {"a": 1, "b": []},
    ]
    assert len({encode(value) for value in different}) == len(different)
    assert encode(Model(a=1)) == encode(Model(a=1, b=[]))
    assert encode(pydantic.TypeAdapter(pydantic.HttpUrl).validate_python("http://a.b")) != encode("http://a.b/")


def test_attrs_classes_enter_by_class_and_fields() -> None:
    """Slotted or not; a class that is not itself decorated is refused."""
    attrs: Any = pytest.importorskip("attrs")

    @attrs.define
    class A:
        x: int
        _y: Any = None

    @attrs.define
    class B(A): ...

    class C(A): ...

    a: Any = A
    b: Any = B
    c: Any = C
    assert encode(a(1)) == encode(a(1))
    assert len({encode(value) for value in (a(1), a(2), a(1, 2), b(1))}) == 4
    with pytest.raises(UnkeyableArgument):
        encode(c(1))
    with pytest.raises(UnkeyableArgument, match=r"value\._y of type object"):
        encode(a(1, object()))


def test_msgspec_structs_enter_by_class_and_fields() -> None:
    """Structs, derived ones too."""
    msgspec = pytest.importorskip("msgspec")

    class A(msgspec.Struct):  # type: ignore[misc, name-defined]
        x: int
        y: int = 0

    class B(A): ...

    assert encode(A(1)) == encode(A(1, 0))
    assert len({encode(value) for value in (A(1), A(2), B(1))}) == 3
