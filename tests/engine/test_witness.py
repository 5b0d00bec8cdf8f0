"""What a process has seen of generations: what it believes, what it remembers, and what it owes."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover.engine.tokens import FLOOR_LIMIT, GARBAGE, Witness, parse

NAME, OTHER = b"x:gen:f", b"x:tag:t"


def token(number: int, nonce: int = 0xAB) -> bytes:
    return b"%d-%016x" % (number, nonce)


def test_a_token_is_a_number_and_a_nonce() -> None:
    """What a script of memover has written is read as it was."""
    generation = parse(token(1_700_000_000_000_000, 0xFF))
    assert generation is not None
    assert (generation.number, generation.nonce) == (1_700_000_000_000_000, "00000000000000ff")


GARBLED = [
    None, b"", b"1", b"-", b"1-", b"-00000000000000ab", b"1-00000000000000a", b"1-00000000000000abc",
    b"1-00000000000000AB", b"1-00000000000000ag", b" 1-00000000000000ab", b"1-00000000000000ab\n", b"+1-00000000000000ab",
    b"-1-00000000000000ab", b"1.5-00000000000000ab", b"1e3-00000000000000ab", b"12345678901234567-00000000000000ab",
    token(GARBAGE), token(GARBAGE + 1), token(9_999_999_999_999_999), b"\xff" * 20, "١-00000000000000ab".encode(),
]  # fmt: skip


@pytest.mark.parametrize("garbled", GARBLED)
def test_what_no_script_wrote_is_never_believed(garbled: bytes | None) -> None:
    """Garbage under a generation key is like no generation, and never becomes a floor."""
    witness = Witness()
    assert parse(garbled) is None
    assert not witness.trusts((NAME,), (garbled,))
    assert (witness.floor(NAME), witness.last(NAME)) == (0, None)
    assert witness.trusts((NAME,), (token(5),))
    assert not witness.trusts((NAME,), (garbled,))
    assert (witness.floor(NAME), witness.last(NAME)) == (5, token(5))


def test_a_smaller_number_is_not_believed() -> None:
    """A store that is behind what this process has seen has lost a bump (P5)."""
    witness = Witness()
    assert witness.trusts((NAME,), (token(7),))
    assert not witness.trusts((NAME,), (token(6),))
    assert not witness.trusts((NAME,), (None,))
    assert witness.floor(NAME) == 7
    assert witness.trusts((NAME,), (token(7),))
    assert witness.trusts((NAME,), (token(8),))
    assert not witness.trusts((NAME,), (token(7),))


def test_a_name_that_is_behind_spoils_the_reading() -> None:
    """Believed is a reading whose every token is; each name has a floor of its own."""
    witness = Witness()
    assert witness.trusts((NAME, OTHER), (token(7), token(3)))
    assert not witness.trusts((NAME, OTHER), (token(8), token(2)))
    assert not witness.trusts((NAME, OTHER), (None, token(4)))
    assert witness.floor(OTHER) == 3
    assert witness.trusts((OTHER,), (token(4),))


def test_a_number_near_garbage_makes_no_floor() -> None:
    """One hostile write must not push every later generation to the end of the number line."""
    witness = Witness()
    assert witness.trusts((NAME,), (token(5),))
    assert witness.trusts((NAME,), (token(FLOOR_LIMIT),))
    assert witness.floor(NAME) == 5
    assert witness.trusts((NAME,), (token(FLOOR_LIMIT - 1),))
    assert witness.floor(NAME) == FLOOR_LIMIT - 1


def test_what_is_being_moved_is_not_known() -> None:
    """While a bump is under way the old token is not taken for the current one, and its number stays the floor."""
    witness = Witness()
    assert witness.trusts((NAME,), (token(5),))
    witness.doubt(NAME)
    assert witness.last(NAME) != token(5)
    assert witness.floor(NAME) == 5
    assert not witness.trusts((NAME,), (token(4),))
    assert witness.trusts((NAME,), (token(6),))
    assert witness.last(NAME) == token(6)


def test_it_is_bounded_and_forgets_what_is_longest_unchanged() -> None:
    """Tags make names without end; what is forgotten can only cost the ability to heal."""
    witness = Witness(limit=3)
    for number in range(10):
        assert witness.trusts((b"x:tag:%d" % number,), (token(1),))
    assert [witness.floor(b"x:tag:%d" % number) for number in range(10)] == [0] * 7 + [1] * 3
    assert witness.trusts((b"x:tag:7",), (token(2),))
    assert witness.trusts((b"x:tag:new",), (token(1),))
    assert (witness.floor(b"x:tag:7"), witness.floor(b"x:tag:8")) == (2, 0)
    assert witness.trusts((b"x:tag:8",), (token(1),))


def test_what_is_owed_closes_its_name_alone() -> None:
    """A name is closed from the moment that its invalidation is owed until it is not, and others are not (P8)."""
    witness = Witness()
    assert not witness.owes((NAME, OTHER), b"x:1:f:k")
    witness.owed[NAME] = lambda: None
    assert witness.owes((OTHER, NAME))
    assert witness.owes((), NAME)
    assert not witness.owes((OTHER,), b"x:1:f:k")
    del witness.owed[NAME]
    assert not witness.owes((NAME,), NAME)


@given(st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, GARBAGE + 5), st.integers(0, 3))))
def test_floors_only_rise(readings: list[tuple[bool, int | None, int]]) -> None:
    """Whatever is read, in whatever order: a floor never falls, and what is believed is not below it."""
    witness = Witness()
    floors = {NAME: 0, OTHER: 0}
    for which, number, nonce in readings:
        name = NAME if which else OTHER
        read = None if number is None else token(number, nonce)
        believed = witness.trusts((name,), (read,))
        assert believed == (number is not None and floors[name] <= number < GARBAGE)
        assert witness.floor(name) >= floors[name]
        floors[name] = witness.floor(name)


def test_threads_may_share_it() -> None:
    """Many threads reading, remembering and forgetting raise nothing and keep within the bound."""
    witness = Witness(limit=16)
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def read(own: int) -> None:
        start.wait()
        try:
            for number in range(3000):
                name = b"x:tag:%d" % (number * own % 50)
                witness.trusts((name,), (token(number + 1),))
                witness.floor(name)
                witness.owes((name,))
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(own,)) for own in (1, 3, 7, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert sum(witness.last(b"x:tag:%d" % number) is not None for number in range(50)) <= 16
