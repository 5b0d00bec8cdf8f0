"""Values written by any released version are read by this one: one line of stored bytes for every kind.

`golden_mv1.txt` holds a name and the payload in hex on each line. Lines are added, never changed: a codec that
writes other bytes for a kind needs another name than "mv1". To add lines for new values, run this file.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from memover.codec.mv1.codec import ValueCodec
from tests.codec import things as t
from tests.codec.same import same
from tests.codec.values import VALUES

FILE = pathlib.Path(__file__).with_name("golden_mv1.txt")
CODEC = ValueCodec(t.anything)
# The order of a set's items is the interpreter's; unicode data differ between versions of Python.
UNORDERED = {"set", "deep keys", "dict of keys deep", "frozenset"}


def lines() -> dict[str, bytes]:
    text = FILE.read_text("ascii") if FILE.exists() else ""
    return {name: bytes.fromhex(data) for name, _, data in (line.partition("\t") for line in text.splitlines())}


def library_values() -> dict[str, tuple[Any, Any]]:
    """Return the codec and the value for the lines of other libraries' classes."""
    for name in ("attrs", "msgspec", "pydantic", "numpy"):
        pytest.importorskip(name)
    from tests.codec import libraries as lib
    from tests.codec import test_libraries

    codec = ValueCodec(lib.anything)
    arrays = {f"numpy {place}": value for place, value in enumerate(test_libraries.TestNumpy().values())}
    return {name: (codec, value) for name, value in {**test_libraries.RECORDS, **arrays}.items() if name != "numpy 1"}


@pytest.mark.parametrize("name", VALUES)
def test_old_bytes_are_read(name: str) -> None:
    """The bytes of the first release mean what they meant, and are what is written today."""
    golden = lines()[name]
    assert same(CODEC.decode(golden), VALUES[name])
    if name not in UNORDERED:
        assert CODEC.encode(VALUES[name]) == golden


def test_old_bytes_of_libraries_are_read() -> None:
    """The same for attrs, pydantic, msgspec and numpy."""
    golden = lines()
    for name, (codec, value) in library_values().items():
        assert same(codec.decode(golden[name]), value), name
        assert codec.encode(value) == golden[name], name


def test_every_golden_line_is_tested() -> None:
    """No line is left behind when a value of the tests is renamed."""
    assert set(lines()) == {*VALUES, *library_values()}


if __name__ == "__main__":
    known = lines()
    new = {name: CODEC.encode(value) for name, value in VALUES.items()}
    new.update({name: codec.encode(value) for name, (codec, value) in library_values().items()})
    FILE.write_text("".join(f"{name}\t{data.hex()}\n" for name, data in {**new, **known}.items()), "ascii")
