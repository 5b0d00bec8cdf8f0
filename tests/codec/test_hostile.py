"""Bytes that the codec did not write are a miss, whatever they are; they make nothing and run nothing."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memover.codec.mv1 import format as f
from memover.codec.mv1.codec import ValueCodec
from memover.codec.mv1.format import extension
from memover.errors import DamagedEntry
from tests.codec import things as t
from tests.codec.values import VALUES
from tests.ids import steady_repr

CODEC = ValueCodec(t.anything)
NESTED = {
    "profile": VALUES["dataclass"],
    "mixed": [VALUES[name] for name in VALUES if "deep" not in name and "huge" not in name],
}


def read(data: bytes) -> Any:
    """Decode, letting only DamagedEntry pass as a failure."""
    try:
        return CODEC.decode(data)
    except DamagedEntry as error:
        return error if error.reason else None


def marked(*body: Any) -> bytes:
    return b"\xc1\x00" + b"".join(map(msgpack.packb, body))


def definition(kind: str, name: str, names: list[str]) -> msgpack.ExtType:
    return extension(f.DEFINITION, msgpack.packb([kind, name, names]))


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NESTED)
def test_every_flipped_byte_is_at_most_a_miss(name: str, stride: int) -> None:
    """No byte of a payload, whatever it becomes, makes decode raise anything but DamagedEntry.

    The standing suite tries one value in eight for each byte, not the same for all."""
    payload = CODEC.encode(NESTED[name])
    values = range(256) if len(payload) < 300 else (0x00, 0xC7, 0xFF)
    for place in range(len(payload)):
        for value in values[place % min(stride, len(values)) :: stride]:
            read(payload[:place] + bytes((value,)) + payload[place + 1 :])
        read(payload[:place] + bytes((payload[place] ^ 1,)) + payload[place + 1 :])


@pytest.mark.parametrize("name", VALUES)
def test_every_truncation_is_a_miss(name: str) -> None:
    """A payload cut off anywhere is never taken for a value, nor is one with something behind it."""
    payload = CODEC.encode(VALUES[name])
    for length in range(0, len(payload), max(1, len(payload) // 300)):
        assert isinstance(read(payload[:length]), DamagedEntry)
    assert isinstance(read(payload + b"\0"), DamagedEntry)


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_at_most_a_miss(data: bytes) -> None:
    """Random bytes decode to a value or raise DamagedEntry."""
    read(data)
    read(b"\xc1\x00" + data)


HEADS = st.one_of(
    st.integers(-66, 127).flatmap(
        lambda code: st.sampled_from([b"", b"\0", b"\1abc"]).map(lambda data: extension(code, data))
    ),
    st.sampled_from(["fields", "open", "enum", "subclass", "registered", "exception", "namedtuple", "model"]).flatmap(
        lambda kind: st.sampled_from(
            [
                definition(kind, "tests.codec.things:Friend", ["name", "photo"]),
                definition(kind, "tests.codec.things:Colour", []),
                definition(kind, "tests.codec.things:MyDict", []),
                definition(kind, "tests.codec.things:NotFound", []),
                definition(kind, "tests.codec.things:Pair", ["left", "right"]),
                definition(kind, "builtins:OSError", []),
            ]
        )
    ),
)
DOCUMENTS = st.recursive(
    st.one_of(HEADS, st.none(), st.integers(-5, 5), st.text(max_size=3), st.binary(max_size=3), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.builds(lambda head, rest: [head, *rest], HEADS, st.lists(inner, max_size=4)),
        st.dictionaries(st.one_of(st.integers(-5, 5), st.text(max_size=3), HEADS), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_any_document_of_marks_is_at_most_a_miss(document: Any) -> None:
    """Well-formed msgpack with memover's own extensions in wrong places is a miss, and leaks no mark as a value."""
    value = read(b"\xc1\x00" + msgpack.packb(document))
    try:
        shown = repr(value)
    except AttributeError:  # of an instance that lacks a field, as some do
        shown = ""
    assert isinstance(value, DamagedEntry) or "Mark object" not in shown


@pytest.mark.parametrize(
    "name",
    [
        "os:system", "antigravity:x", "tests.codec.things:RUNS", "tests.codec.things:anything", "builtins:eval",
        "builtins:object", "tests.codec.things:subprocess", "tests.codec.things:dataclass", ":", "", "a:b:c",
        "tests.codec.things:Friend.__class__", "tests.codec.things:Friend.__init__", "tests.codec.things:Any",
        "collections:deque", "tests.codec.same:same",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["fields", "open", "enum", "subclass", "exception", "registered", "model"])
def test_an_unknown_class_is_a_miss(name: str, kind: str) -> None:
    """Names of classes the program did not name are looked up nowhere else; nothing is imported."""
    before = set(sys.modules)
    result = read(marked([definition(kind, name, []), 1]))
    assert isinstance(result, DamagedEntry)
    assert result.reason in ("unknown-class", "other-fields")
    assert set(sys.modules) == before


@pytest.mark.parametrize("kind", ["fields", "open", "subclass", "exception", "registered", "model", "struct"])
def test_the_canary_lives(kind: str) -> None:
    """A class at home in the module, but of no kind the codec keeps, is never instantiated."""
    t.RUNS.clear()
    assert isinstance(read(marked([definition(kind, "tests.codec.things:Canary", []), {}])), DamagedEntry)
    assert t.RUNS == []


def test_a_class_of_another_function_is_a_miss() -> None:
    """What one function's codec wrote is no value to a function that does not name those classes."""
    payload = CODEC.encode(t.CanaryData(1))
    t.RUNS.clear()
    with pytest.raises(DamagedEntry) as caught:
        ValueCodec(test_a_class_of_another_function_is_a_miss).decode(payload)
    assert caught.value.reason == "unknown-class"
    assert t.RUNS == []


@pytest.mark.parametrize(
    "names",
    [["name"], ["photo", "name"], ["name", "photo", "age"], []],
    ids=["fewer", "other order", "more", "none"],
)
def test_other_fields_are_a_miss(names: list[str]) -> None:
    """An instance stored with other fields than its class has now is not rebuilt."""
    result = read(marked([definition("fields", "tests.codec.things:Friend", names), *names]))
    assert isinstance(result, DamagedEntry)
    assert result.reason == "other-fields"


@pytest.mark.parametrize(
    "document",
    [
        [definition("fields", "tests.codec.things:Friend", ["name", "photo"]), 1],
        [definition("fields", "tests.codec.things:Friend", ["name", "photo"]), 1, 2, 3],
        [definition("enum", "tests.codec.things:Colour", []), "BLUE"],
        [definition("enum", "tests.codec.things:Colour", []), 1],
        [definition("enum", "tests.codec.things:Colour", []), "__class__"],
        [definition("enum", "tests.codec.things:Right", []), 1024],
        [definition("namedtuple", "tests.codec.things:Pair", ["left", "right"]), 1],
        [definition("subclass", "tests.codec.things:MyInt", []), "1", None],
        [definition("subclass", "tests.codec.things:SlottedStr", []), "1", {"added": 1}],
        [definition("exception", "builtins:OSError", []), [2, "No such file"], None],
        [definition("exception", "builtins:KeyError", []), "ab", None],
        [extension(f.REFERENCE, b"\0"), 1, 2],
        [extension(f.REFERENCE, b"\xff\xff\xff\xff"), 1, 2],
        [extension(f.REFERENCE, b""), 1, 2],
        [1, extension(f.TUPLE, b"")],
        {"a": extension(f.TUPLE, b"")},
        {extension(f.TUPLE, b""): 1},
        extension(f.TUPLE, b""),
        [extension(f.TUPLE, b"x"), 1],
        [extension(f.SET, b""), [1]],
        [extension(f.RANGE, b""), 1, 2, 0],
        [extension(f.RANGE, b""), 1, 2],
        [extension(f.DEFAULTDICT, b""), "eval", {}],
        [extension(f.DEQUE, b""), 1, 2, 3],
        [extension(f.DEQUE, b""), "x"],
        [extension(f.FRAME, b""), "os", {}, b""],
        extension(f.INT, b""),
        extension(f.DATETIME, b"\0" * 12),
        extension(f.DECIMAL, b"1__0"),
        extension(f.FRACTION, b"\0\0\0\1\2\4"),
        extension(f.TZINFO, b"\4../../etc/passwd"),
        extension(f.TZINFO, b"\4os.path"),
        extension(f.TZINFO, b"\4Nowhere/Atall"),
        extension(f.PATTERN, b"\0\0\0\0\x20" + b"(" * 5000),
        extension(f.PATTERN, b"\0\0\0\0\xa0a"),
        extension(f.ARRAY, b"O\x08\0aaaaaaaa"),
        extension(f.CONSTANT, b"\x09"),
        extension(-100, b""),
    ],
    ids=steady_repr,
)
def test_what_is_never_written_is_never_read(document: Any) -> None:
    """Each builder checks what it is given."""
    assert isinstance(read(b"\xc1\x00" + msgpack.packb(document)), DamagedEntry)


def test_marks_do_not_work_in_plain_payloads() -> None:
    """A payload that does not announce marks has none."""
    assert isinstance(read(msgpack.packb([extension(f.TUPLE, b""), 1])), DamagedEntry)


def test_a_class_as_a_map_key_is_hashed_or_a_miss() -> None:
    """Keys that cannot be hashed are damage."""
    assert isinstance(read(b"\x81\x90\x01"), DamagedEntry)
    assert isinstance(read(b"\x81\x80\x01"), DamagedEntry)


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xc0", b"\x81", b"\xdc\x00\x01"])
@pytest.mark.parametrize("form", [b"", b"\xc1\x00"])
def test_bottomless_nesting_is_a_miss(head: bytes, form: bytes) -> None:
    """Depth is bounded by the parser, not by the stack."""
    assert isinstance(read(form + head * 100_000), DamagedEntry)


@pytest.mark.parametrize(
    "claim",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"],
)
def test_claimed_sizes_are_not_believed(claim: bytes) -> None:
    """A length beyond the data is refused before memory is taken for it."""
    tracemalloc.start()
    try:
        assert isinstance(read(claim + b"\0" * 100), DamagedEntry)
        assert isinstance(read(b"\xc1\x00" + claim + b"\0" * 100), DamagedEntry)
        assert isinstance(read(b"\xc1\x01" + b"\x7f" * 16 + claim), DamagedEntry)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
