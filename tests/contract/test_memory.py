"""What the memory store promises besides the contract: flows that never yield, and sections that a handler may run inside."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from memover.codec.envelope import read_header, seal
from memover.engine import lease as leases
from memover.engine.store import INTEGER, Parcel, Renewal, Request, Stamp, StoredEntry
from memover.model import MISSING, Key
from memover.runtime.run import run
from memover.stores.memory import MemoryStore, entries
from memover.stores.memory.items import Item
from memover.stores.memory.rounds import Rounds
from memover.stores.sieve import STEPS_LIMIT, Sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GENERATION = b"x:gen:f"
NONCES = iter(range(1, 1_000_000))


def nonce() -> str:
    return f"{next(NONCES):016x}"


def sealed(key: Key, payload: bytes = b"7", generation: bytes = b"1-00000000000000aa", **changes: Any) -> bytes:
    now = time.time()
    facts: dict[str, Any] = {
        "codec": INTEGER, "created_at": now, "load_time": 0.0, "fresh_until": now + 60, "usable_until": now + 60,
    }  # fmt: skip
    return seal(payload, key=key.entry, generation=generation, **{**facts, **changes})


def entry(key: Key, token: str, raw: bytes) -> StoredEntry:
    return StoredEntry(key, token, raw, 60_000, read_header(raw, key.entry), MISSING)


class Interrupted(MemoryStore):
    """A store in which a handler of the same thread runs in the middle of a section: before the step of this name."""

    handler: Callable[[], object] | None = None
    where = ""

    def _handle(self, where: str) -> None:
        handler, self.handler = (self.handler, None) if where == self.where else (None, self.handler)
        if handler is not None:
            handler()

    def _place(self, text: str, item: Any) -> None:
        super()._place(text, item)
        self._handle("place")

    def _move(self, name: bytes, nonce: str, floor: int) -> bytes:
        token = super()._move(name, nonce, floor)
        self._handle("move")
        return token

    def _lease(self, name: bytes) -> bytes | None:
        self._handle("lease")
        return super()._lease(name)


def key() -> Key:
    return Key("x:1:f:k", (GENERATION,))


METHODS: dict[str, Callable[[MemoryStore], Any]] = {
    "read": lambda store: store.read(key()),
    "look": lambda store: store.look(key()),
    "read_many": lambda store: store.read_many([key()]),
    "read_plain": lambda store: store.read_plain([key()]),
    "acquire": lambda store: store.acquire(Request(key(), nonce(), 1000, (), (0,))),
    "acquire_many": lambda store: store.acquire_many([Request(key(), nonce(), 1000, (), (0,))]),
    "ensure": lambda store: store.ensure([GENERATION], [0], nonce()),
    "store": lambda store: store.store(entry(key(), nonce(), sealed(key()))),
    "store_many": lambda store: store.store_many([entry(key(), nonce(), sealed(key()))]),
    "release": lambda store: store.release(key(), nonce(), False),
    "renew": lambda store: store.renew([Renewal(key(), nonce(), 1000)]),
    "bump": lambda store: store.bump([GENERATION], nonce(), [0], ()),
    "drop": lambda store: store.drop(key().entry, key().lease, nonce(), ()),
    "remove": lambda store: store.remove(key()),
    "remove_many": lambda store: store.remove_many([key()]),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_waits_for_nothing(method: str) -> None:
    """Its flow yields no step, and does nothing before it is run."""
    store = MemoryStore(10)
    flow = METHODS[method](store)
    assert (len(store.items), store.tokens) == (0, {})
    with pytest.raises(StopIteration):
        next(flow)


@pytest.mark.parametrize("where", ["lease", "place"])
def test_an_invalidation_in_the_middle_of_a_store_counts(where: str) -> None:
    """A handler that invalidates the call while its entry is being stored: nothing is stored."""
    store, one, token = Interrupted(10), key(), nonce()
    assert run(store.acquire(Request(one, token, 1000, (), (0,)))).ours
    store.where = where
    store.handler = lambda: run(store.drop(one.entry, one.lease, nonce(), (GENERATION,)))
    assert not run(store.store(entry(one, token, sealed(one))))
    assert store.handler is None, "the handler has run"
    assert run(store.look(one)).raw is None
    assert run(store.look(one)).lease is None


def test_a_bump_in_the_middle_of_a_request_is_seen() -> None:
    """The lease is taken under the tokens as the handler left them, never under those before it."""
    store, one, token = Interrupted(10), key(), nonce()
    store.where = "lease"
    moved: list[bytes] = []
    store.handler = lambda: moved.extend(run(store.bump([GENERATION], nonce(), [0], ())))
    granted = run(store.acquire(Request(one, token, 1000, (), (0,))))
    assert granted.ours
    assert granted.seen.tokens == moved == [store.tokens[GENERATION]]
    assert leases.holder_of(run(store.look(one)).lease, leases.stamp(moved)) == token


def test_a_removal_in_the_middle_of_a_key_value_write_counts() -> None:
    """A handler that removes the entry that `touch` and `move` are about to change: it is not brought back."""
    for write in ("touch", "move"):
        store, one, other = Interrupted(10), Key("x:1:a", (GENERATION,)), Key("x:1:b", (GENERATION,))
        (generation,) = run(store.ensure([GENERATION], [0], nonce()))
        raw = sealed(one, generation=generation, kind=1)
        parcel = Parcel(one, raw, 60_000, MISSING)
        stamp = Stamp(GENERATION, b"", 0, nonce())
        run(store.put([parcel], stamp))
        live = store._live

        def removed(key: Key, generation: bytes, now: float, store: Any = store, live: Any = live) -> Any:
            found = live(key, generation, now)
            run(store.remove(key))
            return found

        store._live = removed  # type: ignore[method-assign]
        now = time.time()
        flow = store.touch(parcel, now + 90, stamp, now) if write == "touch" else store.move(one, other, stamp, now)
        assert not run(flow).done
        assert store.fetch(one).raw is None
        assert store.fetch(other).raw is None


def test_room_is_made_by_leaving_what_has_ended() -> None:
    """Entries past their hard limit leave with the sweep, though their header still says fresh."""
    store = MemoryStore(10_000)
    for number in range(300):
        one, token = Key(f"x:1:f:{number}", (GENERATION,)), nonce()
        run(store.acquire(Request(one, token, 1000, (), (0,))))
        assert run(store.store(entry(one, token, sealed(one))._replace(expire_ms=1 if number < 200 else 60_000)))
        if number == 199:
            end = time.monotonic() + 30
            while store.fetch(one).raw is not None:
                assert time.monotonic() < end
    assert len(store.items) <= 100


def tagged(store: MemoryStore, number: int, tags: int = 1) -> Key:
    """Store an entry without expiry that carries tags of its own."""
    names = tuple(b"x:tag:%d-%d" % (number, tag) for tag in range(tags))
    one, token = Key(f"x:1:f:{number}", (GENERATION, *names)), nonce()
    granted = run(store.acquire(Request(one, token, 1000, (), (0,) * (1 + tags))))
    generation, *tokens = granted.seen.tokens
    assert generation is not None
    raw = sealed(one, generation=generation, marks=tuple(zip(names, tokens)))
    assert run(store.store(entry(one, token, raw)._replace(expire_ms=0, names=names)))
    return one


def test_no_caller_pays_for_a_walk_over_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tagged entries there are, one call looks at a few hundred items and tokens at most."""
    store = MemoryStore(100_000)
    looked = [0]

    class Counted(Item):
        @property
        def usable_until(self) -> float:
            looked[0] += 1
            return super().usable_until

        def raw(self, entry: bytes) -> bytes | None:
            looked[0] += 1
            return super().raw(entry)

    monkeypatch.setattr(entries, "Item", Counted)
    most = 0
    for number in range(5000):
        looked[0] = 0
        tagged(store, number)
        most = max(most, looked[0])
    assert len(store.items) == 5000
    assert len(store.tokens) == 5001
    assert 0 < most <= 600


def test_the_tokens_of_evicted_entries_leave_and_those_of_kept_ones_stay() -> None:
    """Tags come without end, and what is kept of them grows with the entries that carry them."""
    store = MemoryStore(100)
    for number in range(5000):
        tagged(store, number, tags=2)
    assert len(store.tokens) < 2000
    for text, item in store.items.items():
        header = read_header(item.raw(text.encode()) or b"", text.encode())
        assert all(store.tokens[name] == token for name, token in header.marks)


def test_tokens_that_have_ended_leave_though_no_new_ones_come() -> None:
    """Entries that carry tags which are there already are occasion enough."""
    store = MemoryStore(10_000)
    for number in range(500):
        tagged(store, number)
    assert len(store.tokens) == 501
    for name in store._tokens._ends:
        store._tokens._ends[name] = 0.0
    for _ in range(500):
        tagged(store, 499)
    assert len(store.tokens) <= 100


def test_the_token_of_a_load_under_way_stays() -> None:
    """It is carried by no entry yet, and would be by one that nobody could read."""
    store = MemoryStore(10)
    old = tagged(store, 0)
    run(store.drop(old.entry, old.lease, nonce(), ()))
    granted = run(store.acquire(Request(old, nonce(), 60_000, (), (0, 0))))
    for number in range(1, 3000):
        tagged(store, number)
    assert [store.tokens.get(name) for name in old.names] == granted.seen.tokens


def test_making_room_among_entries_that_are_all_in_use_is_bounded() -> None:
    """The hand of the sieve spares so many in a row, and no more."""
    asked = 0

    def spared(item: object) -> bool:
        nonlocal asked
        asked += 1
        return True

    sieve = Sieve({str(number): object() for number in range(3 * STEPS_LIMIT)}, spared)
    assert sieve.next() is not None
    assert asked == STEPS_LIMIT


class Uncopied(dict[str, int]):
    """Counts how often it was walked through."""

    walks = 0

    def __iter__(self) -> Iterator[str]:
        self.walks += 1
        return super().__iter__()


def test_a_round_looks_at_each_key_and_copies_none() -> None:
    """Keys come, leave and come again; those that stay are looked at in turn, and what is remembered of the others is little."""
    among = Uncopied()
    rounds = Rounds(among)
    looked: Counter[str] = Counter()

    def change(number: int) -> None:
        key = f"k{number % 3000}"
        if key in among and number % 2:
            del among[key]
            rounds.left(key)
        elif key not in among:
            rounds.came(key)
            among[key] = number
        some = rounds.due()
        assert len(some) <= 256
        looked.update(some)

    for number in range(50_000):
        change(number * 7919 % 10_007)
    assert among.walks == 0
    assert looked.keys() >= among.keys()
    assert len(rounds._queue) <= len(among) + 2 * 3000
    assert len(rounds._gone) <= 3000
    before = looked.copy()
    for number in range(len(among)):  # as many come as there are: the round is over in half of that
        among[f"n{number}"] = number
        rounds.came(f"n{number}")
        looked.update(rounds.due())
    assert all(looked[key] > before[key] for key in before if key in among)


def test_keys_that_an_interruption_lost_are_looked_at_again() -> None:
    among = Uncopied({f"k{number}": number for number in range(1000)})
    rounds = Rounds(among)
    looked: set[str] = set()
    for number in range(2000):
        among[f"n{number}"] = number
        rounds.came(f"n{number}")
        looked.update(rounds.due())
    assert looked >= {f"k{number}" for number in range(1000)}
    assert among.walks == 1


def test_entries_that_are_invalidated_and_come_again_leave_nothing() -> None:
    """Whatever their ttl: nothing of an entry is remembered twice."""
    store = MemoryStore(10_000)
    kept = [Key(f"x:1:f:{number}", (GENERATION,)) for number in range(50)]
    for _ in range(100):
        for one in kept:
            token = nonce()
            run(store.acquire(Request(one, token, 1000, (), (0,))))
            assert run(store.store(entry(one, token, sealed(one))._replace(expire_ms=0)))
            run(store.drop(one.entry, one.lease, nonce(), ()))
    for rounds in (store._item_rounds, store._lease_rounds):
        assert len(rounds._queue) <= 500
        assert len(rounds._gone) <= 500


def test_the_hand_of_the_sieve_copies_the_keys_once() -> None:
    """When it sets out. What it spares is its way when it comes round, and it spares what was asked for, round after round."""
    items, asked = (
        Uncopied({f"k{number}": number for number in range(100)}),
        {f"k{number}" for number in range(0, 100, 2)},
    )
    sieve = Sieve(items, lambda number: number < 100 and number % 2 == 0)
    left = []
    for number in range(100, 2000):
        leaving = sieve.next()
        assert leaving is not None
        left.append(leaving)
        del items[leaving]
        sieve.came(f"k{number}")
        items[f"k{number}"] = number
    assert items.walks == 1
    assert items.keys() >= asked
    assert left[:50] == [f"k{number}" for number in range(1, 100, 2)], "the oldest first"
    assert left[50:] == [f"k{number}" for number in range(100, 1950)]
