"""Many leases and entries at once: what `acquire` and `store` do for each, in few statements."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache
from memover.engine.store import TOKEN_MARGIN_MS, Request, StoredEntry
from memover.runtime.run import run
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.schema import FOREVER, INLINE_BYTES
from tests.servers import wait_until
from tests.sqlite.conftest import GENERATION, entry_bytes, header_of, key_of, nonce, valid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memover.model import Key
    from memover.stores.sqlite.store import SqliteStore

LEASE_MS = 10_000


def requests_of(keys: Sequence[Key]) -> list[Request]:
    return [Request(key, nonce(), LEASE_MS, (), (0,) * key.required) for key in keys]


def entries_of(
    requests: Sequence[Request], generation: bytes, payload: bytes = b"value", **more: Any
) -> list[StoredEntry]:
    made = []
    for request in requests:
        raw = entry_bytes(request.key, payload, generation)
        made.append(StoredEntry(request.key, request.token, raw, 60_000, header_of(raw, request.key), **more))
    return made


def generation_of(store: SqliteStore) -> bytes:
    token = store.fetch(key_of("any")).tokens[0]
    assert token is not None
    return token


@pytest.fixture
def statements(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the store performs from now on."""
    made: list[str] = []
    real = store._file._perform

    def perform(how: Any, sql: str, parameters: Sequence[Any], deadline: float | None) -> Any:
        made.append(sql)
        return real(how, sql, parameters, deadline)

    monkeypatch.setattr(store._file, "_perform", perform)
    return made


@pytest.mark.parametrize("number", [1, 4, 5, 63, 64, 65, 200])
def test_all_leases_of_a_batch_are_taken_and_all_entries_stored(store: SqliteStore, number: int) -> None:
    """Whatever its size, in a file that has no generation yet."""
    keys = [key_of(f"k{at}") for at in range(number)]
    requests = requests_of(keys)
    granted = run(store.acquire_many(requests))
    assert [grant.ours for grant in granted] == [True] * number
    generation = generation_of(store)
    assert [list(grant.seen.tokens) for grant in granted] == [[generation]] * number
    assert [grant.seen.raw for grant in granted] == [None] * number
    entries = entries_of(requests, generation)
    assert run(store.store_many(entries)) == [True] * number
    assert [valid(store, key) for key in keys] == [entry.raw for entry in entries]
    assert [run(store.look(key)).lease for key in keys] == [None] * number


def test_a_thousand_misses_are_few_statements(store: SqliteStore, statements: list[str]) -> None:
    """Leases and entries of 1,000 calls are written 64 at a time, and read in as few statements."""
    requests = requests_of([key_of(f"k{at}") for at in range(1000)])
    granted = run(store.acquire_many(requests))
    assert all(grant.ours for grant in granted)
    assert all(run(store.store_many(entries_of(requests, generation_of(store)))))
    assert sum("INSERT" in statement for statement in statements) <= 2 * 16 + 1
    assert len(statements) < 150


def test_what_another_holds_is_not_granted_and_the_rest_is(store: SqliteStore) -> None:
    """Its holder is named, and what it holds is left alone."""
    keys = [key_of(f"k{at}") for at in range(10)]
    theirs = requests_of(keys[3:4])
    run(store.acquire(theirs[0]))
    granted = run(store.acquire_many(requests_of(keys)))
    assert [grant.ours for grant in granted] == [at != 3 for at in range(10)]
    assert granted[3].holder == theirs[0].token
    assert run(store.store(entries_of(theirs, generation_of(store))[0]))


def test_a_lease_of_older_tokens_is_taken_over(store: SqliteStore) -> None:
    """A load that began before an invalidation holds up no batch, and stores nothing any more."""
    keys = [key_of(f"k{at}") for at in range(10)]
    older = requests_of(keys)
    run(store.acquire_many(older))
    before = generation_of(store)
    run(store.bump([GENERATION], nonce(), [0], []))
    newer = requests_of(keys)
    assert all(grant.ours for grant in run(store.acquire_many(newer)))
    assert run(store.store_many(entries_of(older, before))) == [False] * 10
    assert run(store.store_many(entries_of(newer, generation_of(store)))) == [True] * 10


def test_an_entry_that_was_dropped_meanwhile_is_not_stored_and_the_others_are(store: SqliteStore) -> None:
    """`invalidate(*args)` reaches the loads of a batch one by one."""
    requests = requests_of([key_of(f"k{at}") for at in range(10)])
    run(store.acquire_many(requests))
    dropped = requests[4].key
    run(store.drop(dropped.entry, dropped.lease, nonce(), []))
    stored = run(store.store_many(entries_of(requests, generation_of(store))))
    assert stored == [at != 4 for at in range(10)]
    assert valid(store, dropped) is None


def test_calls_under_different_tokens_are_one_batch(store: SqliteStore) -> None:
    """Each is granted under its own, in order, and those that live shortly live as long as lease and entry need them."""
    tag, other = b"p:tag:a", b"p:tag:b"
    keys = [key_of(f"k{at}", *((), (tag,), (tag, other))[at % 3]) for at in range(30)]
    requests = requests_of(keys)
    before = time_ms()
    granted = run(store.acquire_many(requests))
    assert all(grant.ours for grant in granted)
    assert [grant.seen.names for grant in granted] == [key.names for key in keys]
    assert all(None not in grant.seen.tokens for grant in granted)
    assert soonest(store) >= before + LEASE_MS + TOKEN_MARGIN_MS
    entries = [
        StoredEntry(entry.key, entry.token, entry.raw, 600_000, entry.header, names=entry.key.names[1:])
        for entry in entries_of(requests, generation_of(store))
    ]
    assert all(run(store.store_many(entries)))
    assert soonest(store) >= before + 600_000 + TOKEN_MARGIN_MS


def soonest(store: SqliteStore) -> int:
    """When the first of the tokens goes that go at all."""
    ((expires,),) = store._file.rows("SELECT min(expires) FROM tokens WHERE expires < ?", (FOREVER,), None)
    return int(expires)


def test_what_is_ensured_and_what_was_learned_are_seen_in_their_places(store: SqliteStore) -> None:
    """Required names, the ensured, then the learned: as for one call."""
    learned = b"p:gen:child"
    keys = [key_of(f"k{at}").asking((learned,)) for at in range(10)]
    ensured = b"p:gen:ns@call7"
    requests = [Request(key, nonce(), LEASE_MS, (ensured,), (0, 0)) for key in keys]
    for grant in run(store.acquire_many(requests)):
        assert grant.seen.names == (GENERATION, ensured, learned)
        assert [token is None for token in grant.seen.tokens] == [False, False, True]


def test_a_batch_sees_what_was_stored_before_its_leases(store: SqliteStore) -> None:
    """So that it is served and not loaded again."""
    keys = [key_of(f"k{at}") for at in range(10)]
    first = requests_of(keys[:6])
    run(store.acquire_many(first))
    entries = entries_of(first, generation_of(store))
    run(store.store_many(entries))
    granted = run(store.acquire_many(requests_of(keys)))
    assert [grant.seen.raw for grant in granted] == [*(entry.raw for entry in entries), None, None, None, None]


def test_long_and_short_entries_are_stored_together(make: Callable[..., SqliteStore]) -> None:
    """Those too long for a row go into pieces; much together is several statements."""
    store = make()
    requests = requests_of([key_of(f"k{at}") for at in range(60)])
    run(store.acquire_many(requests))
    generation = generation_of(store)
    entries = [
        entries_of([request], generation, bytes(size))[0]
        for request, size in zip(requests, [100, INLINE_BYTES - 1000, 3 * INLINE_BYTES] * 20)
    ]
    assert run(store.store_many(entries)) == [True] * 60
    assert [valid(store, entry.key) for entry in entries] == [entry.raw for entry in entries]


@pytest.mark.parametrize("awaited", [False, True])
def test_warm_takes_no_memory_for_all_of_its_results(path: str, awaited: bool) -> None:
    """Neither for those that it loads, nor for the entries that are fresh, or invalid: nobody wants their values."""
    number, length = 60, 1_000_000

    def result(x: int) -> bytes:
        return x.to_bytes(2, "big") + os.urandom(length)

    async def later(x: int) -> bytes:
        return result(x)

    def peak(warm: Callable[[], Any]) -> tuple[int, Any]:
        gc.collect()
        tracemalloc.start()
        try:
            counts = warm()
            return tracemalloc.get_traced_memory()[1], tuple(counts)
        finally:
            tracemalloc.stop()

    with Cache(f"sqlite:///{path}", ttl=None) as cache:
        f: Any = cache.versioned(namespace="long")(later if awaited else result)

        def warm() -> Any:
            warmed = f.warm(range(number), concurrency=2)
            return asyncio.run(warmed) if awaited else warmed

        taken, counts = peak(warm)
        assert counts == (0, number, 0) and taken < number * length / 3
        taken, counts = peak(warm)
        assert counts == (number, 0, 0) and taken < number * length / 2
        cache.invalidate_namespace("long")
        taken, counts = peak(warm)
        assert counts == (0, number, 0) and taken < number * length / 2


def test_who_waits_for_a_load_of_warm_has_its_value(path: str) -> None:
    """What the batch lets go of, its followers have."""
    began, go = threading.Event(), threading.Event()

    def slow(x: int) -> list[int]:
        began.set()
        assert go.wait(30)
        return [x]

    with Cache(f"sqlite:///{path}", ttl=None) as cache, ThreadPoolExecutor(2) as pool:
        f: Any = cache.versioned(namespace="slow")(slow)
        warmed = pool.submit(f.warm, [1], concurrency=1)
        assert began.wait(30)
        waiting = pool.submit(f, 1)
        wait_until(lambda: any(flight.followers for flight in cache._state.flights.values()), "a call that waits")
        go.set()
        assert waiting.result(30) == [1]
        assert tuple(warmed.result(30)) == (0, 1, 0)
        assert f.cache_info()[:2] == (0, 2) and f.cache_info().loads == 1
        assert f(1) == [1]
