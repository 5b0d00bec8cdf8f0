"""Compressed payloads come back as they were, and never larger than the reader allows."""

from __future__ import annotations

import os
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memover.codec import compression
from memover.codec.compression import NONE, ZLIB, ZSTD, compress, expand
from memover.errors import DamagedEntry

TEXT = b"a profile like all the others, " * 1000
LIMIT = 10_000_000


@pytest.fixture(params=["zstd", "zlib"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the test with zstd, and as if there were none."""
    if request.param == "zlib":
        monkeypatch.setattr(compression, "_zstd", lambda: None)
        return ZLIB
    if compression._zstd() is None:
        pytest.skip("no zstd here")
    return ZSTD


def test_compressible_payloads_are_made_smaller(way: int) -> None:
    """Repetitive payloads shrink, whatever their size, and come back."""
    for payload in (TEXT, TEXT * 50):
        flag, data = compress(payload, threshold_bytes=1000)
        assert flag == way
        assert len(data) < len(payload) / 10
        assert expand(flag, data, limit_bytes=len(payload)) == payload
        assert expand(flag, memoryview(data), limit_bytes=len(payload)) == payload


def test_what_does_not_pay_stays_as_it_is(way: int) -> None:
    """Short payloads and random ones are stored as they are."""
    for payload in (b"", TEXT[:999], os.urandom(50_000), os.urandom(500_000)):
        assert compress(payload, threshold_bytes=1000) == (NONE, payload)
        assert expand(NONE, payload, limit_bytes=LIMIT) == payload


def test_a_bomb_is_a_miss(way: int) -> None:
    """A payload that would expand beyond the limit is refused, also when its header says nothing of it."""
    flag, data = compress(b"\0" * 5_000_000, threshold_bytes=0)
    assert expand(flag, data, limit_bytes=5_000_000) == b"\0" * 5_000_000
    for limit in (4_999_999, 1000, 0):
        with pytest.raises(DamagedEntry) as caught:
            expand(flag, data, limit_bytes=limit)
        assert caught.value.reason == "too-large"


def test_a_payload_beyond_the_limit_is_a_miss() -> None:
    """The limit holds for what was not compressed too."""
    with pytest.raises(DamagedEntry) as caught:
        expand(NONE, b"abc", limit_bytes=2)
    assert caught.value.reason == "too-large"


def test_no_zstd_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of a process that has zstd is a miss, with its own reason, to one that has not."""
    flag, data = compress(TEXT)
    monkeypatch.setattr(compression, "_zstd", lambda: None)
    if flag == ZSTD:
        with pytest.raises(DamagedEntry) as caught:
            expand(flag, data, limit_bytes=LIMIT)
        assert caught.value.reason == "no-zstd"


def test_damage_is_a_miss(way: int) -> None:
    """Flipped, truncated, followed and random bytes raise DamagedEntry or give some bytes, within the limit."""
    flag, data = compress(TEXT, threshold_bytes=0)
    for place in range(len(data)):
        tried(flag, data[:place] + bytes((data[place] ^ 0xFF,)) + data[place + 1 :])
        assert isinstance(tried(flag, data[:place]), DamagedEntry)
    assert isinstance(tried(flag, data + b"x"), DamagedEntry)
    assert isinstance(tried(flag, data + data), DamagedEntry)
    assert isinstance(tried(9, data), DamagedEntry)


@given(st.sampled_from([ZLIB, ZSTD]), st.binary())
@settings(deadline=None)
def test_any_bytes_are_at_most_a_miss(flag: int, data: bytes) -> None:
    """Random bytes under any flag raise nothing but DamagedEntry."""
    tried(flag, data)


def test_golden_bytes() -> None:
    """What the first release compressed is read."""
    assert expand(ZLIB, zlib.compress(TEXT, 9), limit_bytes=LIMIT) == TEXT
    if compression._zstd() is not None:
        frame = bytes.fromhex("28b52ffd2003190000616263")  # RFC 8878: content size 3, one raw block
        assert expand(ZSTD, frame, limit_bytes=LIMIT) == b"abc"


def tried(flag: int, data: bytes) -> Any:
    try:
        payload = expand(flag, data, limit_bytes=LIMIT)
    except DamagedEntry as error:
        return error if error.reason else None
    assert len(payload) <= LIMIT
    return payload
