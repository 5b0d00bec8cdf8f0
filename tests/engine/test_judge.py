"""The one place that decides whether a stored entry may answer a call, row by row of its table."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.codec.envelope import Header
from memover.engine.judge import DEAD, FRESH, STALE, UNKNOWN, VERSION, Verdict, judge

GENERATION, SOFT, TAG, USED = b"x:gen:f", b"x:soft:f", b"x:tag:t", b"x:gen:g"
OLD, NEW = b"1-00000000000000aa", b"2-00000000000000bb"
G_VERSION = VERSION + b"g"
CREATED, FRESH_UNTIL, USABLE_UNTIL = 100.0, 200.0, 300.0


def header(**changes: Any) -> Header:
    """An entry of generation `OLD` without marks, unless told otherwise."""
    facts: dict[str, Any] = {
        "kind": 0,
        "codec": "c",
        "compression": 0,
        "generation": OLD,
        "key": b"x:1:f:k",
        "marks": (),
        "created_at": CREATED,
        "load_time": 0.0,
        "fresh_until": FRESH_UNTIL,
        "usable_until": USABLE_UNTIL,
        "fingerprint": bytes(8),
        "payload_at": 0,
        "payload_check": 0,
        "size": 0,
    }
    return Header(**{**facts, **changes})


def verdict(entry: Header | None, tokens: dict[bytes, bytes | None], now: float = CREATED, **options: Any) -> Verdict:
    return judge(entry, list(tokens), list(tokens.values()), now, **options)


CURRENT: dict[bytes, bytes | None] = {GENERATION: OLD}
TAGGED: dict[bytes, bytes | None] = {GENERATION: OLD, TAG: OLD}
SOFTLY: dict[bytes, bytes | None] = {GENERATION: OLD, SOFT: OLD}

ROWS = {
    "absent": (None, CURRENT, {}, DEAD),
    "absent, and there is no generation": (None, {GENERATION: None}, {}, DEAD),
    "of another generation": (header(), {GENERATION: NEW}, {}, DEAD),
    "of a newer generation than was read": (header(generation=NEW), CURRENT, {}, DEAD),
    "there is no generation": (header(), {GENERATION: None}, {}, DEAD),
    "another nonce under the same number": (header(), {GENERATION: b"1-00000000000000ab"}, {}, DEAD),
    "lacks a mark that is required": (header(), TAGGED, {"required": 2}, DEAD),
    "has one that is required, current": (header(marks=((TAG, OLD),)), TAGGED, {"required": 2}, FRESH),
    "a tag moved": (header(marks=((TAG, OLD),)), {GENERATION: OLD, TAG: NEW}, {"required": 2}, DEAD),
    "a tag is gone": (header(marks=((TAG, OLD),)), {GENERATION: OLD, TAG: None}, {"required": 2}, DEAD),
    "what it used moved": (header(marks=((USED, OLD),)), {GENERATION: OLD, USED: NEW}, {}, DEAD),
    "what it used is current": (header(marks=((USED, OLD),)), {GENERATION: OLD, USED: OLD}, {}, FRESH),
    "what it used was not read": (header(marks=((USED, OLD),)), CURRENT, {}, UNKNOWN),
    "one moved, another was not read": (header(marks=((USED, OLD), (TAG, OLD))), {GENERATION: OLD, TAG: NEW}, {}, DEAD),
    "was read for nothing": (header(), {GENERATION: OLD, USED: NEW}, {}, FRESH),
    "used another version": (header(marks=((G_VERSION, b"1"),)), CURRENT, {"versions": {G_VERSION: b"2"}}, DEAD),
    "used this version": (header(marks=((G_VERSION, b"1"),)), CURRENT, {"versions": {G_VERSION: b"1"}}, FRESH),
    "used what is not in this process": (header(marks=((G_VERSION, b"1"),)), CURRENT, {"versions": {}}, FRESH),
    "usable to the last": (header(), CURRENT, {"now": math.nextafter(USABLE_UNTIL, 0)}, STALE),
    "no longer usable": (header(), CURRENT, {"now": USABLE_UNTIL}, DEAD),
    "no longer usable, what it used not read": (header(marks=((USED, OLD),)), CURRENT, {"now": USABLE_UNTIL}, DEAD),
    "the soft mark moved": (header(marks=((SOFT, OLD),)), {GENERATION: OLD, SOFT: NEW}, {"required": 2, "soft": SOFT}, STALE),
    "the soft mark is current": (header(marks=((SOFT, OLD),)), SOFTLY, {"required": 2, "soft": SOFT}, FRESH),
    "the soft mark moved, not usable": (
        header(marks=((SOFT, OLD),)), {GENERATION: OLD, SOFT: NEW},
        {"required": 2, "soft": SOFT, "now": USABLE_UNTIL}, DEAD,
    ),
    "the soft mark moved, what it used not read": (
        header(marks=((SOFT, OLD), (USED, OLD))), {GENERATION: OLD, SOFT: NEW}, {"required": 2, "soft": SOFT}, UNKNOWN,
    ),
    "fresh to the last": (header(), CURRENT, {"now": math.nextafter(FRESH_UNTIL, 0)}, FRESH),
    "no longer fresh": (header(), CURRENT, {"now": FRESH_UNTIL}, STALE),
    "as old as the call allows": (header(), CURRENT, {"now": CREATED + 10, "max_age": 10.0}, FRESH),
    "older than the call allows": (header(), CURRENT, {"now": CREATED + 10.5, "max_age": 10.0}, STALE),
    "made in the future": (header(), CURRENT, {"now": CREATED - 50, "max_age": 0.0}, FRESH),
    "never expires": (header(fresh_until=math.inf, usable_until=math.inf), CURRENT, {"now": 1e18}, FRESH),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_an_entry_is_judged_by_the_table(row: str) -> None:
    """Each row of the table, and each border between two."""
    entry, tokens, options, expected = ROWS[row]
    assert verdict(entry, tokens, **options) is expected


TOKENS = st.sampled_from([OLD, NEW, b"2-00000000000000aa", b"", b"1", b"garbage"])


@given(
    generation=TOKENS,
    current=st.none() | TOKENS,
    now=st.floats(allow_nan=False),
    fresh_until=st.floats(allow_nan=False),
    usable_until=st.floats(allow_nan=False),
)
def test_no_clock_revives_an_entry_of_another_generation(
    generation: bytes, current: bytes | None, now: float, fresh_until: float, usable_until: float
) -> None:
    """Whatever the instants say, only the very bytes of the current generation keep an entry alive (P1)."""
    entry = header(generation=generation, fresh_until=fresh_until, usable_until=usable_until)
    found = verdict(entry, {GENERATION: current}, now)
    if generation != current:
        assert found is DEAD
    else:
        assert found is (DEAD if now >= usable_until else STALE if now >= fresh_until else FRESH)


@given(marks=st.dictionaries(st.sampled_from([TAG, USED, SOFT]), TOKENS), current=st.dictionaries(
    st.sampled_from([TAG, USED, SOFT]), st.none() | TOKENS
))  # fmt: skip
def test_an_entry_is_fresh_only_if_all_it_stands_under_is_current(
    marks: dict[bytes, bytes], current: dict[bytes, bytes | None]
) -> None:
    """FRESH says that every mark was read and is as it was (P11)."""
    found = verdict(header(marks=tuple(marks.items())), {GENERATION: OLD, **current})
    if any(name in current and current[name] != token for name, token in marks.items()):
        assert found is DEAD
    else:
        assert found is (FRESH if marks.keys() <= current.keys() else UNKNOWN)
