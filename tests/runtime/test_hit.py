"""The bare paths say what the flow says: a hit is written out for speed, and must not come to mean something else."""

from __future__ import annotations

import ast
import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover import Cache
from memover.clocks import monotonic
from memover.codec.envelope import payload_of, read_header, seal
from memover.engine.judge import FRESH, FRESH_SOURCE, is_fresh, judge
from memover.engine.store import Request, StoredEntry
from memover.model import MISSING, Key
from memover.runtime import bare, hit
from memover.runtime.counters import COUNTERS
from memover.runtime.run import run
from memover.stores.memory import MemoryStore
from memover.stores.memory.items import Item
from memover.stores.sqlite.changing import change
from memover.stores.sqlite.marks import entry_place, token_place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from memover.definition import Resident

ARGUMENT = 7


class Watched:
    """A store that notes which of its operations were asked for; the reads of a hit count as `read`."""

    def __init__(self, store: Any, calls: list[str]) -> None:
        self._store = store
        self._calls = calls

    def direct(self) -> None:
        """None: what `runtime.direct` writes out is held to the flow by tests of its own."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def noted(*args: Any, **kwargs: Any) -> Any:
            if name in ("fetch", "afetch"):
                self._calls.append("read")
            elif name not in ("standing", "decoded", "rereads"):
                self._calls.append(name)
            answer = found(*args, **kwargs)
            if name == "standing" and answer is not None and answer.shared is not MISSING:
                self._calls.append("read")  # a hit that needs nothing but the memory store's dictionaries
            return answer

        return noted


class Ground:
    """The stored bytes of one call, to be spoilt: on the memory store or on Redis."""

    def __init__(self, resident: Resident, client: redis.Redis | None) -> None:
        self.key = resident.lookup(ARGUMENT)
        self.other = resident.lookup(ARGUMENT + 1)
        self.memory = resident.function.state.memory
        self.client = client
        self.name = resident.function.generation_name
        self.tag = self.name + b":tag"

    def raw(self, key: Key) -> bytes:
        found = self.memory.items[key.text].raw(key.entry) if self.memory is not None else self.client.get(key.entry)  # type: ignore[union-attr]
        assert isinstance(found, bytes)
        return found

    def put(self, raw: bytes | None) -> None:
        """Leave these bytes as the entry; None removes it."""
        if self.memory is None:
            assert self.client is not None
            self.client.delete(self.key.entry)
            if raw is not None:
                self.client.set(self.key.entry, raw)
        elif raw is None:
            self.memory._leave(self.key.text)
        else:
            header = read_header(self.raw(self.other), self.other.entry)._replace(generation=self.token() or b"")
            self.memory._place(self.key.text, Item(raw, header, MISSING))

    def token(self) -> bytes | None:
        if self.memory is not None:
            token: bytes | None = self.memory.tokens.get(self.name)
            return token
        found: Any = self.client.get(self.name)  # type: ignore[union-attr]
        return None if found is None else bytes(found)

    def put_token(self, token: bytes | None) -> None:
        if self.memory is None:
            assert self.client is not None
            self.client.delete(self.name)
            if token is not None:
                self.client.set(self.name, token)
        elif token is None:
            del self.memory.tokens[self.name]
        else:
            self.memory.tokens[self.name] = token

    def resealed(self, **changes: Any) -> bytes:
        """The entry with something else in its header, whole and with the right checks."""
        raw = self.raw(self.key)
        header = read_header(raw, self.key.entry)
        facts = {
            name: getattr(header, name)
            for name in (
                "key", "generation", "codec", "created_at", "load_time", "fresh_until", "usable_until", "marks", "kind",
                "compression",
            )
        }  # fmt: skip
        payload = changes.pop("payload", None) or bytes(payload_of(raw, header))
        return seal(payload, **{**facts, **changes})


class FileGround(Ground):
    """The same in a SQLite file: what changes it is marked, as every process marks what it changes."""

    def __init__(self, resident: Resident) -> None:
        super().__init__(resident, None)
        store: Any = resident.function.state.store
        self.file = store._file

    def raw(self, key: Key) -> bytes:
        ((found,),) = self.file.rows("SELECT raw FROM entries WHERE key = ?", (key.text,), monotonic() + 1)
        assert isinstance(found, bytes)
        return found

    def put(self, raw: bytes | None) -> None:
        of_key = "DELETE FROM entries WHERE key = ?2 AND ?1 IS NULL"
        if raw is not None:
            of_key = "UPDATE entries SET raw = ?1, size = length(?1) WHERE key = ?2"
        self._marked(entry_place(self.key.entry), of_key, raw, self.key.text)

    def token(self) -> bytes | None:
        found = self.file.rows("SELECT token FROM tokens WHERE name = ?", (self.name.decode(),), monotonic() + 1)
        return found[0][0] if found else None

    def put_token(self, token: bytes | None) -> None:
        of_name = "DELETE FROM tokens WHERE name = ?2 AND ?1 IS NULL"
        if token is not None:
            of_name = "UPDATE tokens SET token = ?1, number = CAST(?1 AS INTEGER) WHERE name = ?2"
        self._marked(token_place(self.name), of_name, token, self.name.decode())

    def _marked(self, place: int, statement: str, *parameters: Any) -> None:
        assert change(self.file, (place,), statement, parameters, monotonic() + 1) == 1


def past() -> float:
    return time.time() - 1


def flipped(raw: bytes, at: int) -> bytes:
    spoilt = bytearray(raw)
    spoilt[at] ^= 1
    return bytes(spoilt)


OLDER = b"1-00000000000000ab"

KINDS: dict[str, tuple[Callable[[Ground], object], bool]] = {
    # what is done to a fresh entry, and whether the call is served from it all the same
    "fresh": (lambda ground: None, True),
    "fresh, as bytes": (lambda ground: ground.put(ground.raw(ground.key)), True),
    "absent": (lambda ground: ground.put(None), False),
    "expired": (lambda ground: ground.put(ground.resealed(fresh_until=past(), usable_until=past())), False),
    "stale": (lambda ground: ground.put(ground.resealed(fresh_until=past(), usable_until=past() + 1000)), False),
    "of another generation": (lambda ground: ground.put(ground.resealed(generation=OLDER)), False),
    "with a mark that is not there": (lambda ground: ground.put(ground.resealed(marks=((ground.tag, OLDER),))), False),
    "damaged in its payload": (lambda ground: ground.put(flipped(ground.raw(ground.key), -1)), False),
    "damaged in its header": (lambda ground: ground.put(flipped(ground.raw(ground.key), 20)), False),
    "cut off": (lambda ground: ground.put(ground.raw(ground.key)[:-1]), False),
    "foreign": (lambda ground: ground.put(b"hello"), False),
    "empty": (lambda ground: ground.put(b""), False),
    "of another key": (lambda ground: ground.put(ground.raw(ground.other)), False),
    "of another codec": (lambda ground: ground.put(ground.resealed(codec="another")), False),
    "not what the codec reads": (lambda ground: ground.put(ground.resealed(compression=1)), False),
    "whole, with what the codec did not write": (lambda ground: ground.put(ground.resealed(payload=b"\xc1")), False),
    "without a generation": (lambda ground: ground.put_token(None), False),
    "under a garbage generation": (lambda ground: ground.put_token(b"rubbish"), False),
    "under a generation beyond all numbers": (
        lambda ground: ground.put_token(b"9999999999999999-00000000000000ab"),
        False,
    ),
    "under an older generation": (lambda ground: ground.put_token(OLDER), False),
}


class Observed(NamedTuple):
    """What a call came to, as a caller, a store and the counters saw it."""

    value: Any
    runs: int
    calls: list[str]
    counted: dict[str, int]
    again: Any


SHARED, COPIED = 7, [7]
"""A result that the memory store hands out as it is, and one of which every caller gets a copy."""


def observe(
    cache: Cache,
    client: redis.Redis | None,
    spoil: Callable[[Ground], object],
    result: Any,
    *,
    whole: bool,
    awaited: bool,
) -> Observed:
    """One call on spoilt ground, by the bare path or as one `whole` flow, and once more after it."""
    runs: list[int] = []

    def load(number: int) -> Any:
        runs.append(number)
        return result

    async def load_awaited(number: int) -> Any:
        return load(number)

    async def run() -> Observed:
        made = cache.versioned(namespace="f", version=1, ttl=1000)(load_awaited if awaited else load)
        for number in (ARGUMENT, ARGUMENT + 1):
            first = made(number)
            assert (await first if awaited else first) == result
        resident: Resident = made._self_definition.now()
        spoil(Ground(resident, client))
        function, state = resident.function, resident.function.state
        runs.clear()
        function.counters.__init__()  # type: ignore[misc]  # only what this call counts
        calls: list[str] = []
        function.store = state.store = Watched(state.store, calls)
        if state.memory is not None:
            state.memory = state.store
        served = (bare.acached_call if awaited else bare.cached_call)(function, resident.lookup)
        general = hit.ageneral if awaited else hit.general

        async def call() -> Any:
            answer = general(function, resident.lookup, (ARGUMENT,), {}) if whole else served(ARGUMENT)
            return await answer if awaited else answer

        value = await call()
        counted = {each.name: getattr(function.counters, each.name) for each in COUNTERS}
        seen = Observed(value, len(runs), list(calls), counted, await call())
        if awaited:
            await cache.aclose()
        return seen

    return asyncio.run(run())


@pytest.mark.parametrize("awaited", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("result", [SHARED, COPIED], ids=["shared", "copied"])
@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bare_path_and_the_flow_agree(
    kind: str, store: str, result: Any, awaited: bool, redis_url: str, redis_client: redis.Redis, prefix: str
) -> None:
    """For every kind of entry: the same value, the same store operations, the same counters, whoever runs the call."""
    spoil, served = KINDS[kind]
    observed = []
    for whole in (False, True):
        url = "memory://" if store == "memory" else redis_url
        with Cache(url, prefix=f"{prefix}{whole}") as cache:
            client = redis_client if store == "redis" else None
            observed.append(observe(cache, client, spoil, result, whole=whole, awaited=awaited))
    by_bare_path, by_flow = observed
    assert by_bare_path == by_flow
    assert by_bare_path.value == by_bare_path.again == result
    assert by_bare_path.runs == (0 if served else 1)
    assert (by_bare_path.counted["hits"], by_bare_path.counted["misses"]) == ((1, 0) if served else (0, 1))
    assert by_bare_path.calls[0] == "read"
    assert (by_bare_path.calls == ["read"]) == served


@pytest.mark.parametrize("awaited", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("result", [SHARED, COPIED], ids=["shared", "copied"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_generated_call_agrees(kind: str, store: str, result: Any, awaited: bool, tmp_path: Path) -> None:
    """For every kind of entry, after hits that had a call of its own made for the function: served by the flow, served by it."""
    spoil, served = KINDS[kind]
    runs: list[int] = []

    def load(number: int) -> Any:
        runs.append(number)
        return list(result) if isinstance(result, list) else result

    async def load_awaited(number: int) -> Any:
        return load(number)

    async def observed() -> None:
        cache = Cache() if store == "memory" else Cache(f"sqlite:///{tmp_path}/f.db")
        made = cache.versioned(namespace="f", version=1, ttl=1000)(load_awaited if awaited else load)

        async def call(number: int = ARGUMENT) -> Any:
            answer = made(number)
            return await answer if awaited else answer

        for number in (ARGUMENT, ARGUMENT + 1, ARGUMENT):
            assert [await call(number) for _ in range(4)] == [result] * 4
        resident: Resident = made._self_definition.now()
        assert resident.call.__name__ == made.__name__, "a call of its own"
        before = made.cache_info()[:2]
        runs.clear()
        spoil(Ground(resident, None) if store == "memory" else FileGround(resident))
        assert await call() == result
        assert len(runs) == (0 if served else 1)
        hits, misses = (now - then for now, then in zip(made.cache_info()[:2], before))
        assert (hits, misses) == ((1, 0) if served else (0, 1))
        assert await call() == result
        await cache.aclose()
        cache.close()

    asyncio.run(observed())


def test_the_source_of_the_short_form_is_the_short_form() -> None:
    """What generated calls ask is what `is_fresh` asks, but for identity in the place of equality."""
    (said,) = (node for node in ast.walk(ast.parse(inspect.getsource(is_fresh))) if isinstance(node, ast.Return))
    names = {name: name for name in ("generation", "token", "now", "fresh_until")}
    assert said.value is not None
    assert FRESH_SOURCE.format(**names).replace(" is ", " == ") == ast.unparse(said.value)


GENERATIONS = st.sampled_from([b"1-00000000000000aa", b"2-00000000000000bb"])


@given(
    generation=GENERATIONS,
    current=st.none() | GENERATIONS,
    fresh_for=st.sampled_from([-1000.0, 1000.0, float("inf")]),
    marks=st.booleans(),
    shared=st.booleans(),
    shape=st.sampled_from([bytes(8), b"anothers"]),
)
def test_the_memory_stores_value_is_what_read_and_judge_say(
    generation: bytes, current: bytes | None, fresh_for: float, marks: bool, shared: bool, shape: bytes
) -> None:
    """`value` answers exactly where a read would be judged fresh, of the shape asked for, and the object may be shared."""
    store, name = MemoryStore(10), b"x:gen:f"
    key = Key("x:1:f:k", (name,))
    fresh_until = time.time() + fresh_for
    raw = seal(
        b"", key=key.entry, generation=generation, codec="c", created_at=0.0, load_time=0.0, fresh_until=fresh_until,
        usable_until=fresh_until, marks=((b"x:tag:t", b"1-00000000000000cc"),) if marks else (),
    )  # fmt: skip
    store.tokens[name] = generation
    token = "00000000000000ff"
    assert run(store.acquire(Request(key, token, 1000, (), (0,)))).ours
    header = read_header(raw, key.entry)
    assert run(store.store(StoredEntry(key, token, raw, 0, header, 7 if shared else MISSING)))
    if current is None:
        del store.tokens[name]
    else:
        store.tokens[name] = current
    seen = store.fetch(key)
    assert run(store.read(key)) == seen
    assert seen.raw == raw
    verdict = judge(read_header(raw, key.entry), seen.names, seen.tokens, time.time())
    expected = 7 if shared and verdict is FRESH and shape == bytes(8) else MISSING
    assert store.value(key.text, name, shape) == expected


@given(
    generation=GENERATIONS,
    current=st.none() | GENERATIONS,
    fresh_until=st.sampled_from([0.0, 10.0, float("inf")]),
    now=st.sampled_from([-1.0, 0.0, 5.0, 10.0, 11.0]),
)
def test_the_short_form_of_judging_says_what_judge_says(
    generation: bytes, current: bytes | None, fresh_until: float, now: float
) -> None:
    """`is_fresh` is FRESH of an entry without marks, at every instant and under every token."""
    raw = seal(
        b"", key=b"x:1:f:k", generation=generation, codec="c", created_at=0.0, load_time=0.0, fresh_until=fresh_until,
        usable_until=fresh_until,
    )  # fmt: skip
    verdict = judge(read_header(raw, b"x:1:f:k"), (b"x:gen:f",), (current,), now)
    assert is_fresh(generation, fresh_until, current, now) is (verdict is FRESH)
