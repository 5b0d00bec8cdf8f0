"""What every store does for calls: reads, leases, tokens, invalidations; see `memover.engine.store.Store`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from memover.engine import lease as leases
from memover.engine.store import Granted, Renewal, Seen
from memover.engine.tokens import parse

if TYPE_CHECKING:
    from tests.contract.conftest import Hand


def number(token: bytes | None) -> int:
    generation = parse(token)
    assert generation is not None
    return generation.number


# -- reading --------------------------------------------------------------------------------------------------------------


def test_nothing_is_there_at_first(hand: Hand) -> None:
    """An empty store answers None for tokens, entry and lease, by whichever read."""
    key = hand.key("a", hand.generation, hand.tag)
    nothing = Seen(key.names, [None, None], None)
    assert hand.fetch(key) == nothing
    assert hand.do(hand.store.read(key)) == nothing
    assert hand.do(hand.store.look(key)) == nothing
    assert hand.do(hand.store.read_many([key, hand.key("b")])) == [nothing, Seen((hand.generation,), [None], None)]
    assert hand.do(hand.store.read_many([])) == []


def test_what_was_stored_is_read(hand: Hand) -> None:
    """Every read shows the same entry under the same tokens, in the order of the key's names."""
    key, other = hand.key("a", hand.generation, hand.tag), hand.key("b", hand.generation, hand.tag)
    request = hand.request(key)
    granted = hand.do(hand.store.acquire(request))
    assert hand.do(hand.store.store(hand.entry(key, request.token, b"raw\r\n\x00")))
    seen = Seen(key.names, list(granted.seen.tokens), b"raw\r\n\x00")
    assert hand.fetch(key) == seen
    assert hand.fetch(key) == seen
    assert hand.do(hand.store.read(key)) == seen
    assert hand.do(hand.store.look(key)) == seen
    assert hand.do(hand.store.read_many([other, key])) == [seen._replace(raw=None), seen]
    names, tokens, raws = hand.do(hand.store.read_plain([other, key]))
    assert (names, list(tokens), list(raws)) == (key.names, list(seen.tokens), [None, b"raw\r\n\x00"])


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000, 3_000_000])
def test_entries_of_any_size(hand: Hand, size: int) -> None:
    """Small and large entries are stored and read whole, again and again, and small ones beside them."""
    key, small = hand.key("a"), hand.key("b")
    raw = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    hand.put_in(key, raw)
    hand.put_in(small, b"small")
    for _ in range(3):
        assert hand.fetch(key).raw == raw
        assert hand.do(hand.store.read(key)).raw == raw
        assert hand.fetch(small).raw == b"small"


# -- leases ---------------------------------------------------------------------------------------------------------------


def test_acquire_puts_back_tokens_and_takes_the_lease(hand: Hand) -> None:
    """Required and ensured tokens are there afterwards, learned ones are only read; the lease shows who holds it."""
    learned = f"{hand.prefix}:gen:g".encode()
    key = hand.key("a", hand.generation, learned, required=1)
    request = hand.request(key, ensured=(hand.tag,))
    granted = hand.do(hand.store.acquire(request))
    assert granted.ours
    assert granted.holder == ""
    assert granted.seen.names == (hand.generation, hand.tag, learned)
    generation, tag, absent = granted.seen.tokens
    assert number(generation)
    assert number(tag)
    assert absent is None
    assert granted.seen.raw is None
    lease = hand.do(hand.store.look(key)).lease
    assert leases.holder_of(lease, leases.stamp([generation])) == request.token


def test_a_lease_is_anothers_until_it_is_given_back(hand: Hand) -> None:
    """Who asks second is told who holds it; after a release the lease is free."""
    key = hand.key()
    first, second = hand.request(key), hand.request(key)
    assert hand.do(hand.store.acquire(first)).ours
    refused = hand.do(hand.store.acquire(second))
    assert not refused.ours
    assert refused.holder == first.token
    assert hand.do(hand.store.acquire(first)).ours  # asked again by the same holder
    hand.do(hand.store.release(key, second.token, False))  # not theirs
    assert not hand.do(hand.store.acquire(second)).ours
    hand.do(hand.store.release(key, first.token, False))
    assert hand.do(hand.store.acquire(second)).ours


def test_many_leases_are_given_back_together(hand: Hand) -> None:
    """Those that are held; another's stays."""
    requests = [hand.request(hand.key(name)) for name in "abc"]
    for request in requests:
        assert hand.do(hand.store.acquire(request)).ours
    others = hand.request(hand.key("c"))
    hand.do(hand.store.release_many([(each.key, each.token) for each in (*requests[:2], others)]))
    assert [hand.do(hand.store.acquire(hand.request(each.key))).ours for each in requests] == [True, True, False]


def test_force_takes_the_lease_from_its_holder(hand: Hand) -> None:
    """A forced lease is ours, and the former holder stores nothing any more."""
    key = hand.key()
    first, second = hand.request(key), hand.request(key)
    assert hand.do(hand.store.acquire(first)).ours
    assert hand.do(hand.store.acquire(second, force=True)).ours
    assert not hand.do(hand.store.store(hand.entry(key, first.token)))
    assert hand.do(hand.store.store(hand.entry(key, second.token, b"second")))
    assert hand.fetch(key).raw == b"second"


def test_a_lease_under_other_tokens_is_nobodys(hand: Hand) -> None:
    """After an invalidation the lease of a load begun before it is taken over, and that load stores nothing."""
    key = hand.key()
    old, new = hand.request(key), hand.request(key)
    before = hand.do(hand.store.acquire(old)).seen.tokens[0]
    (moved,) = hand.do(hand.store.bump([hand.generation], hand.nonce(), [0], ()))
    granted = hand.do(hand.store.acquire(new))
    assert granted.ours
    assert granted.seen.tokens[0] == moved != before
    assert not hand.do(hand.store.store(hand.entry(key, old.token)))
    assert hand.do(hand.store.store(hand.entry(key, new.token)))


def test_a_lease_ends_by_itself(hand: Hand) -> None:
    """A lease that nobody renews is free after its time."""
    key = hand.key()
    first, second = hand.request(key, lease_ms=60), hand.request(key)
    assert hand.do(hand.store.acquire(first)).ours
    deadline = time.monotonic() + 20
    while not hand.do(hand.store.acquire(second)).ours:
        assert time.monotonic() < deadline
    assert not hand.do(hand.store.store(hand.entry(key, first.token)))


def test_renew_prolongs_only_ones_own(hand: Hand) -> None:
    """A renewed lease outlives its first limit; another's token renews nothing."""
    key = hand.key()
    request = hand.request(key, lease_ms=500)
    hand.do(hand.store.acquire(request))
    gone = Renewal(hand.key(), hand.nonce(), 60_000)
    others = Renewal(key, hand.nonce(), 60_000)
    own = Renewal(key, request.token, 60_000, (hand.tag,))
    assert hand.do(hand.store.renew([gone, others, own])) == [False, False, True]
    time.sleep(0.6)
    assert not hand.do(hand.store.acquire(hand.request(key))).ours
    assert hand.do(hand.store.store(hand.entry(key, request.token)))
    assert hand.do(hand.store.renew([own])) == [False]


@pytest.mark.parametrize("count", [1, 9, 150])
def test_many_leases_are_renewed_together(hand: Hand, count: int) -> None:
    """Each as if it were alone, however many they are."""
    requests = [hand.request(hand.key(f"k{number}"), lease_ms=10_000) for number in range(count)]
    granted = hand.do(hand.store.acquire_many(requests))
    assert all(grant.ours for grant in granted)
    lost = requests[::3]
    for request in lost:
        hand.do(hand.store.release(request.key, request.token, False))
    renewed = hand.do(hand.store.renew([Renewal(request.key, request.token, 60_000) for request in requests]))
    assert renewed == [request not in lost for request in requests]
    stored = hand.do(hand.store.store_many([hand.entry(request.key, request.token) for request in requests]))
    assert stored == renewed


def test_a_store_gives_the_lease_back(hand: Hand) -> None:
    """A lease stores once; the next load takes a lease of its own."""
    key = hand.key()
    hand.put_in(key, b"first")
    assert not hand.do(hand.store.store(hand.entry(key, hand.nonce(), b"second")))
    assert hand.fetch(key).raw == b"first"
    assert hand.do(hand.store.look(key)).lease is None
    assert hand.do(hand.store.acquire(hand.request(key))).ours


def test_a_failed_load_leaves_a_mark_that_holds_nothing(hand: Hand) -> None:
    """Waiters see whose load failed; whoever asks for the lease gets it."""
    key = hand.key()
    request = hand.request(key)
    hand.do(hand.store.acquire(request))
    hand.do(hand.store.release(key, request.token, True))
    assert hand.do(hand.store.look(key)).lease == leases.failed(request.token)
    assert hand.do(hand.store.acquire(hand.request(key))).ours


def test_entries_expire(hand: Hand) -> None:
    """An entry with a hard limit goes by itself, its generation stays; one without stays."""
    brief, lasting = hand.key("a"), hand.key("b")
    generation = hand.put_in(brief, expire_ms=50)
    hand.put_in(lasting, expire_ms=0)
    deadline = time.monotonic() + 20
    while hand.fetch(brief).raw is not None:
        assert time.monotonic() < deadline
    assert hand.fetch(brief).tokens == [generation]
    assert hand.fetch(lasting).raw == b"raw"


def test_one_of_many_takes_the_lease(hand: Hand) -> None:
    """Of callers at the same time one gets the lease, the others the name of its holder."""
    key = hand.key()
    requests = [hand.request(key) for _ in range(12)]
    grants: list[Granted] = hand.at_once([hand.store.acquire(request) for request in requests])
    (winner,) = [request.token for request, granted in zip(requests, grants) if granted.ours]
    assert {granted.holder for granted in grants if not granted.ours} == {winner}
    assert len({granted.seen.tokens[0] for granted in grants}) == 1


def test_many_at_once(hand: Hand) -> None:
    """Leases and entries of many keys in one step each, each answered for itself."""
    keys = [hand.key(f"k{n}", hand.generation, hand.tag) for n in range(20)]
    requests = [hand.request(key) for key in keys]
    hand.do(hand.store.acquire(hand.request(keys[3])))  # another's
    grants = hand.do(hand.store.acquire_many(requests))
    assert [granted.ours for granted in grants] == [n != 3 for n in range(20)]
    entries = [hand.entry(key, request.token, b"%d" % n) for n, (key, request) in enumerate(zip(keys, requests))]
    assert hand.do(hand.store.store_many(entries)) == [n != 3 for n in range(20)]
    assert [seen.raw for seen in hand.do(hand.store.read_many(keys))] == [
        None if n == 3 else b"%d" % n for n in range(20)
    ]
    assert hand.do(hand.store.acquire_many([])) == []
    assert hand.do(hand.store.store_many([])) == []


# -- tokens ---------------------------------------------------------------------------------------------------------------


def test_ensure_puts_back_what_is_missing_or_behind(hand: Hand) -> None:
    """A token at or above its floor stays, a missing one or one below is made anew beyond the floor."""
    names = [hand.generation, hand.tag]
    first = hand.do(hand.store.ensure(names, [0, 0], hand.nonce()))
    assert hand.do(hand.store.ensure(names, [number(token) for token in first], hand.nonce())) == first
    beyond = number(first[0]) + 1_000_000_000
    put_back = hand.do(hand.store.ensure(names, [beyond, 0], hand.nonce()))
    assert number(put_back[0]) > beyond
    assert put_back[1] == first[1]


def test_a_bump_moves_once_for_each_nonce(hand: Hand) -> None:
    """Repeated with its nonce it answers the same; another's moves on, beyond the floor and never below the first."""
    nonce = hand.nonce()
    first = hand.do(hand.store.bump([hand.generation, hand.tag], nonce, [0, 0], ()))
    assert all(token.endswith(nonce.encode()) for token in first)
    assert hand.do(hand.store.bump([hand.generation, hand.tag], nonce, [0, 0], ())) == first
    floor = number(first[0]) + 10**9
    second = hand.do(hand.store.bump([hand.generation, hand.tag], hand.nonce(), [floor, 0], ()))
    assert number(second[0]) > floor
    assert number(second[1]) > number(first[1])
    key = hand.key("a", hand.generation, hand.tag)
    assert list(hand.fetch(key).tokens) == second


def test_tokens_along_move_only_if_they_exist(hand: Hand) -> None:
    """A bump takes along what is there, and makes nothing that was not."""
    absent = f"{hand.prefix}:tag:absent".encode()
    (before,) = hand.do(hand.store.ensure([hand.tag], [0], hand.nonce()))
    hand.do(hand.store.bump([hand.generation], hand.nonce(), [0], (hand.tag, absent)))
    tokens = hand.fetch(hand.key("a", hand.tag, absent)).tokens
    assert number(tokens[0]) > number(before)
    assert tokens[1] is None


def test_bumps_at_the_same_time_all_count(hand: Hand) -> None:
    """The last token is one of those answered, and no two are the same."""
    bumps = hand.at_once([hand.store.bump([hand.generation], hand.nonce(), [0], ()) for _ in range(12)])
    tokens = [token for (token,) in bumps]
    assert len(set(tokens)) == 12
    assert hand.fetch(hand.key()).tokens[0] == max(tokens, key=number)


def test_a_drop_removes_entry_and_lease_and_moves_what_exists(hand: Hand) -> None:
    """After it there is no entry, a load under way stores nothing, and the call's token has moved."""
    absent = f"{hand.prefix}:gen:f@call7".encode()
    (before,) = hand.do(hand.store.ensure([hand.tag], [0], hand.nonce()))
    key = hand.key()
    hand.put_in(key)
    request = hand.request(key)
    assert hand.do(hand.store.acquire(request)).ours
    hand.do(hand.store.drop(key.entry, key.lease, hand.nonce(), (hand.tag, absent)))
    seen = hand.do(hand.store.look(key))
    assert (seen.raw, seen.lease) == (None, None)
    assert not hand.do(hand.store.store(hand.entry(key, request.token)))
    tokens = hand.fetch(hand.key("a", hand.tag, absent)).tokens
    assert number(tokens[0]) > number(before)
    assert tokens[1] is None


def test_a_drop_and_a_store_at_the_same_time(hand: Hand) -> None:
    """Whichever comes first, nothing is there afterwards that was loaded before the drop."""
    for n in range(20):
        key = hand.key(f"k{n}")
        request = hand.request(key)
        hand.do(hand.store.acquire(request))
        hand.at_once(
            [
                hand.store.store(hand.entry(key, request.token)),
                hand.store.drop(key.entry, key.lease, hand.nonce(), ()),
            ]
        )
        assert hand.fetch(key).raw is None


# -- life -----------------------------------------------------------------------------------------------------------------


def test_a_closed_store_opens_again(hand: Hand) -> None:
    """`close` and `aclose` may come at any time and more than once."""
    key = hand.key()
    hand.put_in(key)
    for _ in range(2):
        hand.store.close()
        if hand.loop is not None:
            hand.loop.run_until_complete(hand.store.aclose())
    assert hand.fetch(key).raw == b"raw" or hand.store.local


def test_what_a_store_says_of_itself(hand: Hand) -> None:
    """An address without credentials, and whether it is memory or spread over nodes."""
    store: Any = hand.store
    assert isinstance(store.address, str)
    assert "@" not in store.address
    assert isinstance(store.local, bool)
    assert isinstance(store.spread, bool)
