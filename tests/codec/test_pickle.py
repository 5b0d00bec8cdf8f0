"""Pickle is verified before it is loaded."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.codec.pickle import PickleCodec, UnpicklableValue
from memover.errors import ConfigurationError, DamagedEntry, UnencodableValue

RUNS: list[str] = []


class Trap:
    def __reduce__(self) -> Any:
        return RUNS.append, ("ran",)


def test_values_come_back() -> None:
    """Whatever pickle keeps is kept."""
    codec = PickleCodec(keys=[b"k" * 32])
    for value in (None, [1, (2,)], {"a": {3}}, ValueError("x")):
        assert repr(codec.decode(codec.encode(value))) == repr(value)
        assert repr(codec.decode(memoryview(codec.encode(value)))) == repr(value)


def test_keys_rotate() -> None:
    """The first key signs, any verifies, and one that was dropped no longer does."""
    old, both, new = PickleCodec(["old"]), PickleCodec(["new", "old"]), PickleCodec([b"new"])
    assert both.decode(old.encode(1)) == 1
    assert new.decode(both.encode(2)) == 2
    for reader, writer in ((new, old), (old, both)):
        with pytest.raises(DamagedEntry) as caught:
            reader.decode(writer.encode(3))
        assert caught.value.reason == "signature"


def test_nothing_unsigned_is_loaded() -> None:
    """A pickle without the right tag is not loaded, whatever it looks like."""
    codec = PickleCodec(["key"])
    trap = pickle.dumps(Trap())
    for data in (trap, b"\x01" + b"\0" * 32 + trap, PickleCodec(["other"]).encode(Trap()), b"", b"\x01"):
        with pytest.raises(DamagedEntry) as caught:
            codec.decode(data)
        assert caught.value.reason == "signature"
    assert RUNS == []


def test_every_flipped_byte_is_a_miss() -> None:
    """No byte of a signed payload can be changed, the version byte included."""
    codec = PickleCodec(["key"])
    payload = codec.encode({"a": 1})
    for place in range(len(payload)):
        for flip in (1, 0x80, 0xFF):
            with pytest.raises(DamagedEntry) as caught:
                codec.decode(payload[:place] + bytes((payload[place] ^ flip,)) + payload[place + 1 :])
            assert caught.value.reason == "signature"


@given(st.binary())
def test_any_bytes_are_a_miss(data: bytes) -> None:
    """Random bytes are never loaded."""
    with pytest.raises(DamagedEntry):
        PickleCodec(["key"]).decode(data)


def test_a_signed_pickle_that_does_not_load_is_a_miss() -> None:
    """A class that was moved since makes a miss, not an exception."""
    codec = PickleCodec(["key"])
    content = b"cnowhere\nThing\n."
    with pytest.raises(DamagedEntry) as caught:
        codec.decode(b"\x01" + codec._tag(b"key", content) + content)
    assert caught.value.reason == "pickle"


def test_what_pickle_refuses_is_unencodable() -> None:
    """The error is memover's and pickle's at once, and survives pickle itself."""
    with pytest.raises(UnpicklableValue) as caught:
        PickleCodec(["key"]).encode([threading.Lock()])
    assert isinstance(caught.value, (UnencodableValue, pickle.PicklingError))
    assert isinstance(caught.value, pickle.PickleError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("keys", [[], (), "secret", b"secret", [""], [b""], [5], [None], ["a", ""]])
def test_keys_are_checked(keys: Any) -> None:
    """No keys, an empty one, or a lone string (whose letters would each be a key) are mistakes."""
    with pytest.raises(ConfigurationError):
        PickleCodec(keys)


def test_the_secret_is_not_shown() -> None:
    """The codec's repr tells how many keys there are, not which."""
    assert "hush" not in repr(PickleCodec(["hush"]))


def test_golden_bytes() -> None:
    """A payload written by the first release is read, and written the same."""
    golden = bytes.fromhex(
        "01feae758566f39bf22dda73cbcebddb353e66622d9ec364c3154ae38ca972f83f8004950d000000000000007d948c0161944b014e8694732e"
    )
    codec = PickleCodec(["key"])
    assert codec.decode(golden) == {"a": (1, None)}
    assert codec.encode({"a": (1, None)}) == golden
