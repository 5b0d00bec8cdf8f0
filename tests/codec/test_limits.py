"""Whoever can write to the store cannot stop its readers: what costs more than its length is bounded."""

from __future__ import annotations

import gc
import inspect
import io
import json
import re
import struct
import sys
import zlib
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgpack
import pytest

from memover import Cache
from memover.codec.compression import ZLIB, expand
from memover.codec.mv1 import format as f
from memover.codec.mv1.codec import ValueCodec
from memover.codec.mv1.format import extension
from memover.codec.mv1.limits import COLLISIONS_LIMIT, LONG_BYTES, LONG_COLLISIONS_LIMIT, MAP_LIMIT, Numbers
from memover.codec.mv1.writer import KEEP_LIMIT_BYTES, PayloadWriter
from memover.errors import DamagedEntry, UnencodableValue
from tests.codec import things as t
from tests.codec.same import same

PRIME = 2**61 - 1  # of the hash of a number, on every 64-bit platform
MANY = 2_000


def as_int(number: int) -> msgpack.ExtType:
    return extension(f.INT, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


COLLIDING: dict[str, list[Any]] = {
    "ints": [as_int(number * PRIME) for number in range(9, 9 + MANY)],
    "decimals": [extension(f.DECIMAL, str(number * PRIME).encode()) for number in range(1, MANY)],
    "uuids": [extension(f.UUID, (number * PRIME).to_bytes(16, "big") + b"\2") for number in range(1, MANY)],
    "fractions": [
        extension(f.FRACTION, (9).to_bytes(4, "big") + (number * PRIME).to_bytes(9, "big") + b"\1")
        for number in range(1, 1000)
    ],
}


def read(data: bytes) -> str:
    with pytest.raises(DamagedEntry) as caught:
        ValueCodec(t.anything).decode(data)
    return str(caught.value)


def a_map(keys: list[Any]) -> bytes:
    pairs = b"".join(msgpack.packb(key) + b"\xc0" for key in keys)
    return b"\xdf" + struct.pack(">I", len(keys)) + pairs


@pytest.mark.parametrize("name", COLLIDING)
@pytest.mark.parametrize("form", ["map", "marked map", "set", "tuples", "ordered dict", "subclass"])
def test_keys_that_collide_are_damage(name: str, form: str) -> None:
    """Hashes that are the same in every process can be made to be one; n² steps are not taken."""
    keys = COLLIDING[name]
    data = {
        "map": lambda: a_map(keys),
        "marked map": lambda: b"\xc1\x00" + b"\x92" + a_map(keys) + msgpack.packb([extension(f.TUPLE, b"")]),
        "set": lambda: b"\xc1\x00" + msgpack.packb([extension(f.SET, b""), *keys]),
        "tuples": lambda: b"\xc1\x00" + a_map([[extension(f.TUPLE, b""), key] for key in keys]),
        "ordered dict": lambda: b"\xc1\x00" + msgpack.packb([extension(f.ORDEREDDICT, b""), *[k for key in keys for k in (key, 0)]]),
        "subclass": lambda: b"\xc1\x00"
        + msgpack.packb([extension(f.DEFINITION, msgpack.packb(["subclass", "tests.codec.things:MySet", []])), keys, None]),
    }[form]()  # fmt: skip
    if form == "subclass" and not hasattr(t, "MySet"):
        pytest.skip("no subclass of set among the things")
    assert "collide" in read(data)


@pytest.mark.parametrize(
    "value",
    [
        {number: str(number) for number in range(MANY)},
        {f"k{number}": number for number in range(MANY)},
        {2**70 + number: number for number in range(MANY)},
        {UUID(int=number): number for number in range(MANY)},
        {Decimal(number): number for number in range(MANY)},
        {Fraction(number, 7): number for number in range(MANY)},
        {(number, "x"): number for number in range(MANY)},
        {t.Point(number, 1): number for number in range(MANY)},
        {(number, 2**70 + number) for number in range(MANY)},
        [Decimal("1.10")] * MANY,
        [dict.fromkeys(range(MAP_LIMIT + 1), 1), (1, 2), {"late": {str(n): n for n in range(1000)}}],
        [msgpack.Timestamp(number, 1) for number in range(MANY)],
        {msgpack.Timestamp(number, 1): 1 for number in range(MANY)},
    ],
    ids=lambda value: str(type(value)),
)
def test_honest_large_values_come_back(value: Any) -> None:
    """Long maps with keys of every kind, and the same codec read twice."""
    codec = ValueCodec(t.anything)
    data = codec.encode(value)
    for given in (data, memoryview(data)):
        assert same(codec.decode(given), value)


LONG = 3**6_000  # of 1,189 bytes


def as_fraction(numerator: int, denominator: int) -> msgpack.ExtType:
    whole, part = as_int(numerator).data, as_int(denominator).data
    return extension(f.FRACTION, len(whole).to_bytes(4, "big") + whole + part)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "long", [as_int(LONG), as_fraction(LONG, 1), as_fraction(1, LONG)], ids=["int", "whole", "part"]
)
def test_long_numbers_beside_a_decimal_of_their_hash_are_damage(long: msgpack.ExtType, order: int) -> None:
    """To find out that they differ the int would be converted, in n² steps that no signal can interrupt."""
    number = (
        hash(LONG) if long.code == f.INT else hash(Fraction(1, LONG)) if long.data[3] == 1 else hash(Fraction(LONG))
    )
    pair = [long, extension(f.DECIMAL, str(number).encode())]
    assert "may equal it" in read(b"\xc1\x00" + msgpack.packb([extension(f.SET, b""), *pair[::order]]))
    assert "may equal it" in read(b"\x82" + b"".join(msgpack.packb(each) + b"\xc0" for each in pair[::order]))


def test_long_numbers_and_decimals_come_back() -> None:
    """Of other hashes; of the same they are refused when they are stored."""
    value = [LONG, Fraction(1, LONG), Decimal(3), Decimal("sNaN"), Decimal(hash(LONG)) + 1]
    again = ValueCodec(t.anything).decode(ValueCodec(t.anything).encode(value))
    assert same(again, value)
    for pair in ([LONG, Decimal(hash(LONG))], [Decimal(hash(LONG)), LONG]):
        with pytest.raises(UnencodableValue, match="may equal it"):
            ValueCodec(t.anything).encode(pair)


class Counted:
    """In place of a Decimal: says how often it was hashed."""

    hashed = 0

    def is_snan(self) -> bool:
        return False

    def __hash__(self) -> int:
        self.hashed += 1
        return id(self)


@pytest.mark.parametrize("before", [0, 30, 60])
def test_many_long_numbers_beside_many_decimals_cost_one_hash_each(before: int) -> None:
    """Else the search for what takes long would take long itself: as many steps as there are pairs."""
    numbers, decimals = Numbers(), [Counted() for _ in range(60)]
    for each in decimals[:before]:
        numbers.decimal(each)
    for number in range(50):
        numbers.long(LONG + number)
    for each in decimals[before:]:
        numbers.decimal(each)
    assert {each.hashed for each in decimals} == {1}


def test_a_range_of_long_ints_is_refused_and_damage() -> None:
    """Its hash takes n² steps."""
    with pytest.raises(UnencodableValue, match="range of ints"):
        ValueCodec(t.anything).encode(range(LONG))
    assert "hash takes long" in read(b"\xc1\x00" + msgpack.packb([extension(f.RANGE, b""), 0, as_int(LONG), 1]))


def test_texts_of_no_characters_stay_so() -> None:
    """An array of them took memory, as texts of one character each, and of what had been in it."""
    numpy = pytest.importorskip("numpy")
    value = numpy.ndarray((1000,), "<U0")
    again: Any = ValueCodec(t.anything).decode(ValueCodec(t.anything).encode(value))
    assert (again.dtype, again.shape, again.nbytes, again.flags.writeable) == (value.dtype, (1000,), 0, True)


def test_a_few_colliding_keys_are_allowed() -> None:
    """A long map may have some."""
    value = {number * PRIME: number for number in range(9, 9 + COLLISIONS_LIMIT - 1)}
    value |= dict.fromkeys(range(1, MANY), 0)
    codec = ValueCodec()
    assert codec.decode(codec.encode(value)) == value


def pattern(source: str, flags: int = re.UNICODE) -> msgpack.ExtType:
    return extension(f.PATTERN, b"\0" + flags.to_bytes(4, "big") + source.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "patterns",
    [
        [pattern("[\0-\U0010ffff]" * 1200, re.IGNORECASE | re.UNICODE)],
        [pattern(r"[\0-\U0010ffff]" * 600, re.IGNORECASE | re.UNICODE)],
        [pattern(r"[\x00-\N{LATIN SMALL LETTER A}]" * 300)],
        [pattern("[\u0100-\u0200\u0300-\u0400\u0500-\uffff]" * 700)],
        [pattern(f"[a-z{number}]" * 1000, re.IGNORECASE | re.UNICODE) for number in range(20)],
        [pattern("[\u0100-\u1000]" * 300, re.IGNORECASE | re.UNICODE)],
        [pattern("[\u0100-\u0101]" * 600)],
        [pattern("x" * 10_001)],
        [pattern("(" * 5000)],
        [pattern("[\0-\uffff]" * 60, re.IGNORECASE | re.UNICODE)],
    ],
    ids=["wide sets", "escaped", "named", "runs", "many", "caseless", "small sets", "long", "nested", "short"],
)
def test_patterns_that_take_long_to_compile_are_damage(patterns: list[Any]) -> None:
    """Their characters and the ranges in their sets are counted, over the whole payload."""
    assert "pattern" in read(msgpack.packb(patterns)).lower()


@pytest.mark.parametrize(
    "source", [r"[а-яё]+", "[\U00010000-\U0010ffff]", r"[^\x00-\x7f]", r"\N{BULLET}", r"a-z|\-|\\u", "[a-]"]
)
def test_honest_patterns_come_back(source: str) -> None:
    """Ranges of alphabets and of planes, escapes, hyphens that are none."""
    value = [re.compile(source), re.compile(source, re.IGNORECASE)]
    codec = ValueCodec()
    assert codec.decode(codec.encode(value)) == value


def test_patterns_too_long_to_be_read_are_refused_when_stored() -> None:
    """What a reader would not take is not written."""
    with pytest.raises(UnencodableValue, match="store their source texts"):
        ValueCodec().encode([re.compile("x" * 9_000 + str(number)) for number in range(2)])


@pytest.mark.parametrize(
    "document",
    [
        [extension(f.NUMPY_ARRAY, b""), "|S0", [10**12], 2, b""],
        [extension(f.NUMPY_ARRAY, b""), "<U0", [2**40, 2**20], 2, b""],
        [extension(f.DEFINITION, msgpack.packb(["enum", "tests.codec.things:Right", []])), as_int(2**200_000)],
        [extension(f.NUMPY_ARRAY, b""), "<f8", [2**62 + 1] * 300_000, 0, b""],
        [extension(f.NUMPY_OBJECTS, b""), [2**62 + 1] * 300_000, 0],
    ],
    ids=["empty array", "empty texts", "flag", "dimensions", "dimensions of objects"],
)
def test_sizes_that_cost_nothing_to_claim_are_damage(document: Any) -> None:
    """Neither terabytes of nothing nor a flag of 200,000 bits is made, nor the product of 300,000 dimensions."""
    pytest.importorskip("numpy")
    read(b"\xc1\x00" + msgpack.packb(document))


def test_defaultdicts_within_each_other_are_bounded() -> None:
    """No RecursionError, on either way."""
    factory: Any = None
    for _ in range(900):
        factory = ["defaultdict", factory]
    read(b"\xc1\x00" + msgpack.packb([extension(f.DEFAULTDICT, b""), factory, {}]))


@pytest.mark.parametrize("size", [9_000, 20_000])
def test_what_no_reader_would_expand_is_not_stored(size: int) -> None:
    """A result that compresses well and is longer than `expanded_limit` runs each time, and is counted."""
    cache = Cache("memory://", expanded_limit=10_000)

    @cache.versioned(namespace="f")
    def f(x: int) -> str:
        return "x" * size

    assert f(1) == f(1) == "x" * size
    info = f.cache_info()
    assert (info.loads, info.too_large, info.damaged) == ((1, 0, 0) if size < 10_000 else (2, 2, 0))


def test_a_zlib_bomb_is_not_expanded() -> None:
    """Not a byte beyond the limit is made."""
    squeeze = zlib.compressobj(9)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    with pytest.raises(DamagedEntry) as caught:
        expand(ZLIB, bomb, limit_bytes=1 << 20)
    assert caught.value.reason == "too-large"


def frame(table: Any, library: str, **options: Any) -> bytes:
    pa = pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return b"\xc1\x00" + msgpack.packb([extension(f.FRAME, b""), library, {}, sink.getvalue()])


@pytest.mark.parametrize("library", ["pandas.DataFrame", "polars.DataFrame"])
def test_frames_that_expand_are_damage(library: str) -> None:
    """Compressed streams are never written; nor are rows that take no bytes without end."""
    pytest.importorskip(library.partition(".")[0])
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": pa.array([0] * 3_000_000, pa.int8())})
    assert "compressed" in read(frame(table, library, compression="zstd"))
    assert "compressed" in read(frame(table, library, compression="lz4"))
    assert "rows" in read(frame(pa.table({"a": pa.nulls(200_000_000)}), library))


@pytest.mark.parametrize(
    "text", ["(" * 100_000, "-" * 100_000 + "1", "[" * 100_000], ids=["brackets", "signs", "lists"]
)
@pytest.mark.parametrize("place", ["name", "metadata"])
def test_frames_whose_texts_are_nested_are_damage(text: str, place: str) -> None:
    """pyarrow reads names of columns as Python's literals and its metadata as JSON: no SyntaxError, MemoryError or RecursionError."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    index = {"name": None, "field_name": None, "pandas_type": "mixed", "numpy_type": "object", "metadata": None}
    column = {"name": "a", "field_name": "a", "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    said = json.dumps(
        {"index_columns": [], "column_indexes": [index, index], "columns": [column], "pandas_version": "2"}
    )
    table = pyarrow.table({text if place == "name" else "a": [1]})
    table = table.replace_schema_metadata({"pandas": said if place == "name" else text})
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    document = [extension(f.FRAME, b""), "pandas.DataFrame", {}, sink.getvalue()]
    read(b"\xc1\x00" + msgpack.packb(document))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on, C code has a depth of its own")
@pytest.mark.parametrize("way", ["set", "map"])
def test_equal_keys_nested_as_deep_as_the_stack_are_damage(way: str) -> None:
    """To compare them is to recurse: that is no error of the caller's, however little of the stack it has left."""
    key = (b"\x92" + msgpack.packb(extension(f.TUPLE, b""))) * 400 + b"\x01"
    body = b"\x82" + (key + b"\x01") * 2 if way == "map" else b"\x93" + msgpack.packb(extension(f.SET, b"")) + key * 2

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            read(b"\xc1\x00" + body)

    deep(sys.getrecursionlimit() - 300 - len(inspect.stack(0)))


def test_a_large_result_leaves_nothing_to_the_garbage_collector() -> None:
    """The room that encoding it took is free at once: so is that of one that is refused."""

    def writers() -> list[PayloadWriter]:
        return [each for each in gc.get_objects() if type(each) is PayloadWriter and each._packer is not None]

    codec = ValueCodec()
    gc.collect()
    gc.disable()
    before = writers()
    try:
        codec.encode([b"x" * KEEP_LIMIT_BYTES])
        with pytest.raises(UnencodableValue):
            codec.encode([b"x" * KEEP_LIMIT_BYTES, Unknown()])
        assert [each for each in writers() if each not in before] == []
    finally:
        gc.enable()


class Unknown:
    pass


LONG_COLLIDING: dict[str, list[Any]] = {
    "ints": [(1 << 9 * LONG_BYTES) + number * PRIME for number in range(20)],
    "fractions": [Fraction((1 << 9 * LONG_BYTES) + number * PRIME, 3) for number in range(0, 60, 3)],
    "decimals": [Decimal(10 ** (2 * LONG_BYTES) + number * PRIME) for number in range(20)],
}


@pytest.mark.parametrize("kind", LONG_COLLIDING)
@pytest.mark.parametrize("within", [lambda each: each, lambda each: (each, 1)], ids=["keys", "in tuples"])
def test_few_long_numbers_may_have_one_hash(kind: str, within: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither read nor written, in maps that are too short to be looked at too; a few are, and come back as they were."""
    numbers = [each for each in LONG_COLLIDING[kind] if hash(each) == hash(LONG_COLLIDING[kind][0])]
    assert len(numbers) > LONG_COLLISIONS_LIMIT
    few = {within(each): None for each in numbers[:LONG_COLLISIONS_LIMIT]}
    many = {within(each): None for each in numbers}
    codec = ValueCodec(t.anything)
    assert same(codec.decode(codec.encode(few)), few)
    with pytest.raises(UnencodableValue, match="hashes collide"):
        codec.encode(many)
    monkeypatch.setattr("memover.codec.mv1.limits.LONG_COLLISIONS_LIMIT", 1000)
    data = codec.encode(many)
    monkeypatch.undo()
    assert "hashes collide" in read(data)


def test_equal_long_numbers_are_compared_once() -> None:
    """They become one object, which dicts and tuples do not compare; Decimals that differ in their zeros stay two."""
    long, codec = 1 << 9 * LONG_BYTES, ValueCodec(t.anything)
    value = [long, (long, 1), Fraction(long, 3), Fraction(long, 3), [long] * 300]
    again = codec.decode(codec.encode(value))
    assert same(again, value)
    assert again[0] is again[1][0]
    assert again[0] is again[4][299]
    assert again[2] is again[3]
    digits = "1." + "0" * 2 * LONG_BYTES
    decimals = [Decimal(digits), Decimal(digits + "0"), Decimal(digits), Decimal("-NaN" + "1" * 2 * LONG_BYTES)]
    again = codec.decode(codec.encode(decimals))
    assert list(map(str, again)) == list(map(str, decimals))
    assert again[0] is again[2]
