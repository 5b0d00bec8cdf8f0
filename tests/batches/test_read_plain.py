"""The short way of reading an entry says what the long way says, of every entry and of whatever was made of one."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memover import Cache
from memover.codec.envelope import pack_marks, payload_of, plain_form, read_header, read_plain, seal
from memover.engine.judge import FRESH, VERSION, is_fresh, judge
from memover.errors import DamagedEntry
from memover.runtime import bare, batch
from memover.runtime import entries as runtime_entries

KEY = b"p:1:n:0123456789abcdef"
GENERATION = b"1700000000000000-0123456789abcdef"
MARK = (b"p:tag:t", b"1700000000000001-0123456789abcdef")
OTHER_MARK = (b"p:tag:u", b"1700000000000002-0123456789abcdef")
VERSION_MARK = (VERSION + b"n", b"2")
FINGERPRINT = b"12345678"
FORM = plain_form("mv1", FINGERPRINT) or (b"", b"")


def the_long_way(raw: bytes, now: float) -> bytes | None:
    """The payload of a fresh value without marks or compression, by `read_header`, `judge` and `payload_of`."""
    try:
        header = read_header(raw, KEY)
        if header.kind or header.compression or header.marks:
            return None
        if header.codec != "mv1" or header.fingerprint != FINGERPRINT:
            return None
        if judge(header, (b"g",), (GENERATION,), now) is not FRESH:
            return None
        return bytes(payload_of(raw, header))
    except DamagedEntry:
        return None


def the_short_way(raw: bytes, now: float) -> bytes | None:
    plain = read_plain(raw, FORM, GENERATION, KEY)
    if plain is None or not is_fresh(GENERATION, plain[0], GENERATION, now):
        return None
    return bytes(plain[1])


entries = st.builds(
    lambda payload, key, generation, fresh_until, stale, marks, kind, compression, codec, fingerprint: seal(
        payload,
        key=key,
        generation=generation,
        codec=codec,
        created_at=1.0,
        load_time=0.5,
        fresh_until=fresh_until,
        usable_until=fresh_until + stale,
        marks=marks,
        kind=kind,
        compression=compression,
    ),
    payload=st.binary(max_size=40) | st.just(b"x" * 5000),
    key=st.sampled_from([KEY, KEY, KEY, b"another", b""]),
    generation=st.sampled_from([GENERATION, GENERATION, b"1-0000000000000000", b""]),
    fresh_until=st.sampled_from([0.0, 10.0, 100.0, math.inf]),
    stale=st.sampled_from([0.0, 0.0, 50.0]),
    marks=st.sampled_from([(), (), (MARK,)]),
    kind=st.sampled_from([0, 0, 0, 1]),
    compression=st.sampled_from([0, 0, 0, 1, 2]),
    codec=st.sampled_from(["mv1", "mv1", "mv1", "pickle", ""]),
    fingerprint=st.sampled_from([FINGERPRINT, FINGERPRINT, FINGERPRINT, b"87654321", bytes(8)]),
)


@settings(max_examples=400, deadline=None)
@given(entries, st.data(), st.sampled_from([0.0, 10.0, 50.0]))
def test_read_plain_agrees_with_the_long_way(raw: bytes, data: Any, now: float) -> None:
    """On entries as they are, and with a byte changed, cut off, added or put elsewhere."""
    how = data.draw(st.sampled_from(["as it is", "as it is", "flip", "cut", "add", "move"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    elif how == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    elif how == "add":
        raw += data.draw(st.binary(min_size=1, max_size=5))
    elif how == "move":
        at = data.draw(st.integers(0, len(raw)))
        raw = raw[at:] + raw[:at]
    assert the_short_way(raw, now) == the_long_way(raw, now)


@settings(max_examples=300, deadline=None)
@given(
    stamped=st.lists(st.sampled_from([MARK, OTHER_MARK, VERSION_MARK]), max_size=3, unique=True),
    tokens=st.lists(st.sampled_from([MARK[1], OTHER_MARK[1], None]), min_size=2, max_size=2),
    now=st.sampled_from([0.0, 9.0]),
)
def test_an_entry_with_the_very_marks_of_now_is_fresh(stamped: list[Any], tokens: list[Any], now: float) -> None:
    """An entry whose marks are byte for byte those that would be stamped now is read the short way only if `judge` says
    FRESH of it; of every other one the short way says nothing."""
    raw = sealed(tuple(stamped))
    names = (b"g", MARK[0], OTHER_MARK[0])
    plain = read_plain(raw, FORM, GENERATION, KEY, pack_marks(tuple(zip(names[1:], tokens))))
    verdict = judge(read_header(raw, KEY), names, (GENERATION, *tokens), now, required=3, versions={})
    if plain is not None:
        assert is_fresh(GENERATION, plain[0], GENERATION, now) is (verdict is FRESH)
    elif tuple(stamped) == tuple(zip(names[1:], tokens)):
        raise AssertionError("an entry with the marks of now is read the short way")


def sealed(marks: tuple[tuple[bytes, bytes], ...] = (), payload: bytes = b"payload") -> bytes:
    return seal(
        payload,
        key=KEY,
        generation=GENERATION,
        codec="mv1",
        created_at=1.0,
        load_time=0.0,
        fresh_until=9.0,
        usable_until=9.0,
        marks=marks,
        fingerprint=FINGERPRINT,
    )


def test_a_long_payload_is_not_copied() -> None:
    """An array's bytes are copied once on a hit, into the array."""
    raw = sealed(payload=bytes(1 << 20))
    tracemalloc.start()
    try:
        plain = read_plain(raw, FORM, GENERATION, KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plain is not None and bytes(plain[1]) == bytes(1 << 20)
    assert peak < 1 << 18


def test_read_plain_does_serve() -> None:
    """A plain entry is read the short way: the agreement above is not one of refusals."""
    raw = sealed(())
    assert the_short_way(raw, 8.0) == b"payload" == the_long_way(raw, 8.0)
    assert the_short_way(raw, 9.0) is None is the_long_way(raw, 9.0)


def test_read_plain_compares_each_part_and_not_only_all_of_them_together() -> None:
    """Bytes that would pass from one part to the next are another entry: every part's length is compared."""
    codec, fingerprint = "mv1", FINGERPRINT
    raw = seal(
        b"payload", key=KEY, generation=GENERATION, codec=codec, created_at=1.0, load_time=0.0, fresh_until=9.0,
        usable_until=9.0, fingerprint=fingerprint,
    )  # fmt: skip
    assert read_plain(raw, FORM, GENERATION, KEY) == (9.0, b"payload")
    assert read_plain(raw, FORM, GENERATION + KEY[:1], KEY[1:]) is None
    assert read_plain(raw, FORM, GENERATION[:-1], GENERATION[-1:] + KEY) is None
    assert read_plain(raw, FORM, GENERATION, KEY[:-1], KEY[-1:]) is None
    shorter = plain_form("mv", fingerprint)
    assert shorter is not None
    assert read_plain(raw, shorter, b"1" + GENERATION, KEY) is None


def test_names_that_no_entry_can_have_are_read_as_absence() -> None:
    """Longer keys, marks and generations than the header has room for, and codecs whose names it cannot say."""
    raw = sealed(())
    assert read_plain(raw, FORM, GENERATION, b"k" * 70_000) is None
    assert read_plain(raw, FORM, GENERATION, KEY, b"m" * 70_000) is None
    assert read_plain(raw, FORM, b"g" * 300, KEY) is None
    assert plain_form("kodéc", FINGERPRINT) is None is plain_form("c" * 256, FINGERPRINT)
    assert plain_form("mv1", b"") is None


@pytest.mark.parametrize("options", [{}, {"tags": ("t:{x}", "all")}, {"stale_while_revalidate": 30}])
def test_a_hit_under_the_tokens_of_now_makes_no_header(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Tags and a stale window included: all that is expected of the entry is compared at once, one by one and in a batch."""
    with Cache(redis_url, prefix=prefix) as cache:

        @cache.versioned(namespace="n", ttl=60, **options)
        def f(x: int) -> list[int]:
            return [x]

        f(1)

        def no_header(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("a header is made")

        for module in (bare, batch, runtime_entries):
            monkeypatch.setattr(module, "read_header", no_header)
        assert f(1) == [1]
        assert f.map([1, 1]) == [[1], [1]]
        info = f.cache_info()
        assert (info.hits, info.loads) == (2, 1)
