"""What every store does for the key-value API; see `memover.engine.store.KeyValueStore`."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from memover.codec.envelope import payload_of, read_header
from memover.engine.store import INTEGER_LIMIT, Parcel

if TYPE_CHECKING:
    from memover.model import Key
    from tests.contract.conftest import Hand


def payload(hand: Hand, key: Key) -> bytes | None:
    raw = hand.fetch(key).raw
    return None if raw is None else bytes(payload_of(raw, read_header(raw, key.entry)))


def begun(hand: Hand) -> bytes:
    """The generation, made."""
    (token,) = hand.do(hand.store.ensure([hand.generation], [0], hand.nonce()))
    return token


def test_put_stores_under_the_current_generation(hand: Hand) -> None:
    """Whatever generation an entry was sealed with, it is stored with the current one, which is answered."""
    current = begun(hand)
    one, two = hand.key("a"), hand.key("b")
    outdated = b"5-" + b"0" * 16
    answered = hand.do(
        hand.store.put([hand.parcel(one, b"1", outdated), hand.parcel(two, b"2", current)], hand.stamp())
    )
    assert answered == current
    for key, expected in ((one, b"1"), (two, b"2")):
        raw = hand.fetch(key).raw
        assert read_header(raw, key.entry).generation == current
        assert payload(hand, key) == expected


def test_put_makes_the_generation_if_it_is_missing(hand: Hand) -> None:
    """The first write makes the generation, with the nonce it was given."""
    stamp = hand.stamp()
    key = hand.key()
    generation = hand.do(hand.store.put([hand.parcel(key, b"1", b"1-" + b"0" * 16)], stamp))
    assert generation.endswith(stamp.nonce.encode())
    assert hand.fetch(key).tokens == [generation]


def test_put_ends_leases_and_removes_where_asked(hand: Hand) -> None:
    """A write kills the store of a load under way; a limit of -1 removes."""
    key = hand.key()
    request = hand.request(key)
    current = hand.do(hand.store.acquire(request)).seen.tokens[0]
    hand.do(hand.store.put([hand.parcel(key, b"1", current)], hand.stamp(current)))
    assert not hand.do(hand.store.store(hand.entry(key, request.token)))
    hand.do(hand.store.put([hand.parcel(key, b"1", current)._replace(expire_ms=-1)], hand.stamp(current)))
    assert hand.fetch(key).raw is None


def test_add_stores_unless_a_live_entry_is_there(hand: Hand) -> None:
    """One of many at the same time adds; a dead entry (by time or by generation) is no obstacle."""
    current, key = begun(hand), hand.key()
    changes = hand.at_once(
        [hand.store.add(hand.parcel(key, b"%d" % n, current), hand.stamp(current), time.time()) for n in range(10)]
    )
    assert [change.done for change in changes].count(True) == 1
    assert payload(hand, key) == b"%d" % [change.done for change in changes].index(True)
    assert not hand.do(hand.store.add(hand.parcel(key, b"x", current), hand.stamp(current), time.time())).done
    assert hand.do(hand.store.add(hand.parcel(key, b"y", current), hand.stamp(current), time.time() + 100)).done
    (moved,) = hand.do(hand.store.bump([hand.generation], hand.nonce(), [0], ()))
    change = hand.do(hand.store.add(hand.parcel(key, b"z", current), hand.stamp(current), time.time()))
    assert change.done
    assert change.generation == moved
    assert payload(hand, key) == b"z"


def test_increments_at_the_same_time_all_count(hand: Hand) -> None:
    """Counting is one step each; the details are all the values in between."""
    current, key = begun(hand), hand.key()
    hand.do(hand.store.put([hand.integer(key, 100, current)], hand.stamp(current)))
    changes = hand.at_once([hand.store.increment(key, 3, hand.stamp(current), time.time()) for _ in range(12)])
    assert sorted(change.detail for change in changes) == [100 + 3 * n for n in range(1, 13)]
    assert payload(hand, key) == b"136"
    assert hand.do(hand.store.increment(key, -200, hand.stamp(current), time.time())).detail == -64


def test_increment_refuses_what_it_cannot_count(hand: Hand) -> None:
    """No entry: detail None. No plain integer, or beyond the limit: detail False, and nothing has changed."""
    current, key = begun(hand), hand.key()
    missing = hand.do(hand.store.increment(key, 1, hand.stamp(current), time.time()))
    assert (missing.done, missing.detail) == (False, None)
    hand.do(hand.store.put([hand.parcel(key, b"text", current)], hand.stamp(current)))
    other = hand.do(hand.store.increment(key, 1, hand.stamp(current), time.time()))
    assert (other.done, other.detail) == (False, False)
    hand.do(hand.store.put([hand.integer(key, INTEGER_LIMIT - 1, current)], hand.stamp(current)))
    beyond = hand.do(hand.store.increment(key, 1, hand.stamp(current), time.time()))
    assert (beyond.done, beyond.detail) == (False, False)
    assert payload(hand, key) == b"%d" % (INTEGER_LIMIT - 1)


def test_swap_replaces_only_what_it_was(hand: Hand) -> None:
    """One of two swaps from the same bytes wins."""
    current, key = begun(hand), hand.key()
    old, *new = (hand.sealed(key, b"%d" % n, current) for n in range(3))
    hand.do(hand.store.put([Parcel(key, old, 60_000, None)], hand.stamp(current)))
    done = hand.at_once([hand.store.swap(key, old, one) for one in new])
    assert sorted(done) == [False, True]
    assert hand.fetch(key).raw == new[done.index(True)]


def test_touch_gives_a_live_entry_a_new_end(hand: Hand) -> None:
    """Instants and hard limit are the new ones, the payload stays; a dead entry stays dead; -1 removes."""
    current, key = begun(hand), hand.key()
    parcel = hand.parcel(key, b"1", current)
    hand.do(hand.store.put([parcel], hand.stamp(current)))
    end = time.time() + 1000
    assert hand.do(hand.store.touch(parcel._replace(expire_ms=0), end, hand.stamp(current), time.time())).done
    raw = hand.fetch(key).raw
    header = read_header(raw, key.entry)
    assert struct.pack("<d", header.fresh_until) == struct.pack("<d", end)
    assert payload(hand, key) == b"1"
    assert not hand.do(hand.store.touch(parcel, end, hand.stamp(current), end + 1)).done
    assert hand.do(hand.store.touch(parcel._replace(expire_ms=-1), end, hand.stamp(current), time.time())).done
    assert hand.fetch(key).raw is None


def test_move_gives_a_live_entry_another_key(hand: Hand) -> None:
    """The entry is found under the new key alone, and reads as its own."""
    current, key, to = begun(hand), hand.key("a"), hand.key("b")
    assert not hand.do(hand.store.move(key, to, hand.stamp(current), time.time())).done
    hand.do(hand.store.put([hand.parcel(key, b"1", current)], hand.stamp(current)))
    change = hand.do(hand.store.move(key, to, hand.stamp(current), time.time()))
    assert change.done
    assert change.generation == current
    assert hand.fetch(key).raw is None
    assert payload(hand, to) == b"1"


def test_remove_answers_what_was_there(hand: Hand) -> None:
    """Generation and at least the header; lease and entry are gone, and a second removal finds nothing."""
    current, key = begun(hand), hand.key()
    hand.do(hand.store.put([hand.parcel(key, b"payload", current)], hand.stamp(current)))
    request = hand.request(key)
    hand.do(hand.store.acquire(request))
    token, head = hand.do(hand.store.remove(key))
    assert token == current
    assert read_header(head, key.entry, whole=False).generation == current
    assert not hand.do(hand.store.store(hand.entry(key, request.token)))
    assert hand.do(hand.store.remove(key)) == (current, None)


def test_remove_many(hand: Hand) -> None:
    """All are gone in one step, those that were not there included."""
    current = begun(hand)
    keys = [hand.key(f"k{n}") for n in range(30)]
    hand.do(hand.store.put([hand.parcel(key, b"1", current) for key in keys[:20]], hand.stamp(current)))
    hand.do(hand.store.remove_many(keys))
    assert [seen.raw for seen in hand.do(hand.store.read_many(keys))] == [None] * 30
