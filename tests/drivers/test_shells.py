"""The shells say what the flow says: a hit is spelled out in each for speed, and must not come to mean something else."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memover import Cache
from memover.codec.envelope import payload_of, read_header, seal
from memover.drivers import aio, sync
from memover.drivers.watch import Counters
from memover.engine.judge import FRESH, judge
from memover.model import MISSING, Key
from memover.stores.memory import Item, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from memover.core import Resident

ARGUMENT = 7


class Watched:
    """A store that notes which of its operations were asked for."""

    def __init__(self, store: Any, calls: list[str]) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def noted(*args: Any, **kwargs: Any) -> Any:
            answer = found(*args, **kwargs)
            if name != "value":
                self._calls.append(name)
            elif answer is not MISSING:
                self._calls.append("read")  # a hit that needs nothing but the memory store's dictionaries
            return answer

        return noted


class Ground:
    """The stored bytes of one call, to be spoilt: on the memory store or on Redis."""

    def __init__(self, resident: Resident, client: redis.Redis | None) -> None:
        self.key = resident.lookup(ARGUMENT)
        self.other = resident.lookup(ARGUMENT + 1)
        self.memory = resident.plan.shared.memory
        self.client = client
        self.name = resident.plan.generation_name
        self.tag = self.name + b":tag"

    def raw(self, key: Key) -> bytes:
        found = self.memory.items[key.text].raw if self.memory is not None else self.client.get(key.entry)  # type: ignore[union-attr]
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
            del self.memory.items[self.key.text]
        else:
            self.memory.items[self.key.text] = Item(raw, self.token() or b"", float("inf"), bytes(8), MISSING)

    def token(self) -> bytes | None:
        if self.memory is not None:
            return self.memory.tokens.get(self.name)
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
        return seal(bytes(payload_of(raw, header)), **{**facts, **changes})


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
    """One call on spoilt ground, through the shell or as one `whole` flow, and once more after it."""
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
        plan, shared = resident.plan, resident.plan.shared
        runs.clear()
        plan.counters.__init__()  # type: ignore[misc]  # only what this call counts
        calls: list[str] = []
        shared.store = Watched(shared.store, calls)
        if shared.memory is not None:
            shared.memory = shared.store
        if shared.async_store is not None:
            shared.async_store = Watched(shared.async_store, calls)  # type: ignore[assignment]
        driver: Any = aio if awaited else sync
        shell = driver.shell(plan, resident.lookup)

        async def call() -> Any:
            answer = driver.general(plan, resident.lookup, (ARGUMENT,), {}) if whole else shell(ARGUMENT)
            return await answer if awaited else answer

        value = await call()
        counted = {name: getattr(plan.counters, name) for name in Counters.__slots__}
        seen = Observed(value, len(runs), list(calls), counted, await call())
        if awaited:
            await cache.aclose()
        return seen

    return asyncio.run(run())


@pytest.mark.parametrize("awaited", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("result", [SHARED, COPIED], ids=["shared", "copied"])
@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_shell_and_the_flow_agree(
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
    by_shell, by_flow = observed
    assert by_shell == by_flow
    assert by_shell.value == by_shell.again == result
    assert by_shell.runs == (0 if served else 1)
    assert (by_shell.counted["hits"], by_shell.counted["misses"]) == ((1, 0) if served else (0, 1))
    assert by_shell.calls[0] == "read"
    assert (by_shell.calls == ["read"]) == served


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
    granted = store.acquire(key, "00000000000000ff", 1000, (), (0,), False)
    assert granted.ours
    assert store.keep(key, "00000000000000ff", raw, read_header(raw, key.entry), 7 if shared else MISSING)
    if current is None:
        del store.tokens[name]
    else:
        store.tokens[name] = current
    seen = store.read(key)
    assert seen.raw == raw
    verdict = judge(read_header(raw, key.entry), seen.names, seen.tokens, time.time())
    expected = 7 if shared and verdict is FRESH and shape == bytes(8) else MISSING
    assert store.value(key.text, name, shape) == expected
