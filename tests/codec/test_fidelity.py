"""A hit equals the miss, in value and type, to any depth."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from memover.codec.mv1.codec import ValueCodec
from tests.codec import things as t
from tests.codec.same import same
from tests.codec.values import SHARED, VALUES

CODEC = ValueCodec(t.anything)


def there_and_back(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


@pytest.mark.parametrize("name", VALUES)
def test_comes_back_as_it_was(name: str) -> None:
    """Each kind of value comes back equal and of the same type, alone and inside other values."""
    value = VALUES[name]
    assert same(there_and_back(value), value)
    assert same(there_and_back([value, (value, {"k": value})]), [value, (value, {"k": value})])
    assert same(there_and_back(t.Friend("x", value)), t.Friend("x", value))


def test_the_comparison_tells_values_apart() -> None:
    """The comparison these tests rest on is not fooled by what Python calls equal."""
    pairs = [(1, True), (1, 1.0), (0.0, -0.0), ((1,), [1]), ({1: 1}, {True: 1}), (t.Level.LOW, 1)]
    pairs += [({"a": 1, "b": 2}, {"b": 2, "a": 1}), (t.Friend("x"), t.attribute(t.Friend("x"), y=1))]
    pairs += [(t.Pair(1, 2), (1, 2)), (dt.time(fold=1), dt.time()), (t.MyStr("a"), "a")]
    assert not any(same(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", VALUES)
def test_a_memoryview_is_read_like_bytes(name: str) -> None:
    """Stores may hand over a view of what they received."""
    payload = CODEC.encode(VALUES[name])
    assert same(CODEC.decode(memoryview(payload)), CODEC.decode(payload))


def test_another_process_reads_the_same() -> None:
    """A fresh interpreter, with nothing loaded but the program's module, reads what this one wrote."""
    names = [name for name in VALUES if "subclass" not in name]
    code = (
        "import sys\n"
        "from memover.codec.mv1.codec import ValueCodec\n"
        "from tests.codec import things\n"
        "codec = ValueCodec(things.anything)\n"
        "for line in sys.stdin: codec.decode(bytes.fromhex(line))\n"
        "from tests.codec.values import VALUES\n"
        "from tests.codec.same import same\n"
        "print('read')"
    )
    lines = "\n".join(CODEC.encode(VALUES[name]).hex() for name in names)
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("read\n", "")


def test_shared_references_are_written_out() -> None:
    """An object that occurs twice comes back as two equal objects."""
    one, other, (third,) = there_and_back([SHARED, SHARED, (SHARED,)])
    assert one == other == third == SHARED
    assert one is not other


def test_init_does_not_run_again() -> None:
    """Instances are rebuilt from their state; constructors and guards of the class have had their turn."""
    values = [t.Computed(2, 5), t.Strict(1), t.MyDict(a=1), t.NotFound("x")]
    t.RUNS.clear()
    back = there_and_back(values)
    assert t.RUNS == []
    assert same(back, values)


def test_plain_builtins_are_plain_msgpack() -> None:
    """What most results are made of is stored as msgpack itself writes it."""
    value = {"id": 1, "names": ["a", "b"], "score": 1.5, "raw": b"x", "none": None, "ok": True}
    assert CODEC.encode(value) == msgpack.packb(value)
    assert CODEC.decode(msgpack.packb(value)) == value


def test_mutable_values_are_made_anew() -> None:
    """Two reads of one payload share nothing that can be changed."""
    payload = CODEC.encode({"a": [1], "b": t.Friend("x", [2])})
    one, other = CODEC.decode(payload), CODEC.decode(payload)
    one["a"].append(5)
    one["b"].photo.append(5)
    assert other == {"a": [1], "b": t.Friend("x", [2])}


def test_exceptions_lose_only_where_they_were_raised() -> None:
    """A cached exception keeps class, arguments, attributes and notes, and has no traceback or cause."""
    try:
        raise t.NotFound("x", hint="y") from KeyError("z")
    except t.NotFound as caught:
        back = there_and_back(caught)
    assert same(back, t.NotFound("x", hint="y"))
    assert back.__traceback__ is None
    assert back.__cause__ is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_exception_groups_come_back() -> None:
    """A group keeps its message and its exceptions."""
    group = ExceptionGroup("all", [ValueError("a"), t.NotFound("b")])  # noqa: F821
    back = there_and_back(group)
    assert type(back) is type(group)
    assert back.message == "all"
    assert same(list(back.exceptions), list(group.exceptions))


def test_a_frozen_clock_is_no_obstacle() -> None:
    """Under a test's frozen clock, datetimes and dates have the clock's class on the hit as on the miss."""
    with freeze_time("2024-05-06 07:08:09"):
        now = [dt.datetime.now(), dt.date.today(), dt.datetime.now(dt.timezone.utc)]
        payload = CODEC.encode(now)
        back = CODEC.decode(payload)
        assert back == now
        assert [type(each) for each in back] == [type(each) for each in now]
    assert [type(each) for each in CODEC.decode(payload)] == [dt.datetime, dt.date, dt.datetime]


def test_a_codec_serves_threads_at_once() -> None:
    """One codec encodes and decodes in many threads at a time."""
    from concurrent.futures import ThreadPoolExecutor

    values = list(VALUES.values())
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda value: same(there_and_back(value), value), values * 4))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=True),
    st.complex_numbers(),
    st.text(st.characters(codec=None)),
    st.text(),
    st.binary(max_size=20),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.sampled_from([*t.Colour, *t.Level, *t.Right]),
)
KEYS = st.recursive(
    SCALARS.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(t.Point, inner, inner),
        st.builds(t.Pair, inner, inner),
    ),
    max_leaves=5,
)
TREES = st.recursive(
    st.one_of(SCALARS, KEYS, st.binary(max_size=9).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.builds(t.Friend, inner, inner),
        st.builds(t.Slotted, inner, inner),
        st.builds(t.Pair, inner, inner),
        st.builds(t.MyList, st.lists(inner, max_size=2)),
        st.dictionaries(KEYS, inner, max_size=3).map(t.MyDict),
    ),
    max_leaves=25,
)


@given(TREES)
@settings(max_examples=300, deadline=None)
def test_any_tree_comes_back(value: Any) -> None:
    """Values of these kinds, nested in any way, come back as they were."""
    assert same(there_and_back(value), value)
