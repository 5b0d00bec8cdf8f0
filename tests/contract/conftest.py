"""The stores that the contract is run over, each by threads and by an event loop.

A store joins by a line in STORES: a context manager that takes pytest's request and yields an empty store.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from memover.codec.envelope import KIND_KEY_VALUE, read_header, seal
from memover.engine.store import INTEGER, Parcel, Request, Stamp, StoredEntry
from memover.model import MISSING, Key
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def redis_store(url: str, **limits: Any) -> Any:
    from memover.stores.redis import RedisStore
    from memover.stores.redis.limits import Limits
    from memover.stores.redis.url import parse_url

    wanted = {
        "socket_timeout": 5.0,
        "socket_connect_timeout": 5.0,
        "max_connections": 16,
        "breaker_first_seconds": 0.25,
        "breaker_last_seconds": 2.0,
        **limits,
    }
    return RedisStore(parse_url(url), Limits(**wanted))


@contextmanager
def on_redis(request: pytest.FixtureRequest) -> Iterator[Any]:
    store = redis_store(request.getfixturevalue("redis_url"))
    yield store
    store.close()


@contextmanager
def on_cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    store = redis_store(request.getfixturevalue("redis_cluster").url)
    yield store
    store.close()


@contextmanager
def on_sqlite(request: pytest.FixtureRequest) -> Iterator[Any]:
    from memover.stores.sqlite.limits import Limits
    from memover.stores.sqlite.store import SqliteStore

    store = SqliteStore(f"{request.getfixturevalue('tmp_path')}/store.db", Limits(lock_timeout=5.0))
    yield store
    store.close()


@contextmanager
def on_memory(request: pytest.FixtureRequest) -> Iterator[Any]:
    from memover.stores.memory import MemoryStore

    yield MemoryStore(10_000)


STORES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "memory": on_memory,
    "redis": on_redis,
    "cluster": on_cluster,
    "sqlite": on_sqlite,
}


class Hand:
    """A store and how its flows are run; keys and entries under a prefix of its own."""

    def __init__(self, store: Any, flavour: str) -> None:
        self.store = store
        self.prefix = f"t{secrets.token_hex(6)}"
        self.generation = f"{self.prefix}:gen:f".encode()
        self.tag = f"{self.prefix}:tag:x".encode()
        self.loop = asyncio.new_event_loop() if flavour == "async" else None

    def close(self) -> None:
        if self.loop is not None:
            self.loop.run_until_complete(self.store.aclose())
            self.loop.close()

    def do(self, flow: Any) -> Any:
        """What a flow returns."""
        return run(flow) if self.loop is None else self.loop.run_until_complete(arun(flow))

    def fetch(self, key: Key) -> Any:
        return self.store.fetch(key) if self.loop is None else self.loop.run_until_complete(self._fetch(key))

    async def _fetch(self, key: Key) -> Any:
        return await self.store.afetch(key)

    def at_once(self, flows: list[Any]) -> list[Any]:
        """What flows return that are run at the same time."""
        if self.loop is not None:

            async def whole() -> list[Any]:
                return list(await asyncio.gather(*(arun(flow) for flow in flows)))

            return self.loop.run_until_complete(whole())
        results: list[Any] = [None] * len(flows)
        start = threading.Barrier(len(flows))

        def work(at: int) -> None:
            start.wait()
            results[at] = run(flows[at])

        threads = [threading.Thread(target=work, args=(at,)) for at in range(len(flows))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    # -- what is stored ---------------------------------------------------------------------------------------------------

    def key(self, text: str = "a", *names: bytes, required: int | None = None) -> Key:
        return Key(f"{self.prefix}:1:f:{text}", names or (self.generation,), required)

    def nonce(self) -> str:
        return secrets.token_hex(8)

    def request(self, key: Key, *, ensured: tuple[bytes, ...] = (), lease_ms: int = 20_000) -> Request:
        return Request(key, self.nonce(), lease_ms, ensured, [0] * (key.required + len(ensured)))

    def sealed(
        self, key: Key, payload: bytes, generation: bytes, *, codec: str = "c", fresh_for: float = 60.0
    ) -> bytes:
        now = time.time()
        return seal(
            payload,
            key=key.entry,
            generation=generation,
            codec=codec,
            created_at=now,
            load_time=0.0,
            fresh_until=now + fresh_for,
            usable_until=now + fresh_for,
            kind=KIND_KEY_VALUE,
        )

    def entry(
        self, key: Key, token: str, raw: bytes = b"raw", *, expire_ms: int = 60_000, names: tuple[bytes, ...] = ()
    ) -> StoredEntry:
        header = read_header(self.sealed(key, b"", b"1-" + b"0" * 16), key.entry)
        return StoredEntry(key, token, raw, expire_ms, header, MISSING, names)

    def put_in(self, key: Key, raw: bytes = b"raw", **options: Any) -> bytes:
        """Store by a lease; returns the generation."""
        request = self.request(key)
        granted = self.do(self.store.acquire(request))
        assert granted.ours
        assert self.do(self.store.store(self.entry(key, request.token, raw, **options)))
        token: bytes = granted.seen.tokens[0]
        return token

    def stamp(self, known: bytes = b"") -> Stamp:
        return Stamp(self.generation, known, 0, self.nonce())

    def integer(self, key: Key, number: int, generation: bytes) -> Parcel:
        return Parcel(key, self.sealed(key, b"%d" % number, generation, codec=INTEGER), 60_000, MISSING)

    def parcel(self, key: Key, payload: bytes, generation: bytes, **options: Any) -> Parcel:
        return Parcel(key, self.sealed(key, payload, generation, **options), 60_000, MISSING)


@pytest.fixture(params=[f"{name}-{flavour}" for name in STORES for flavour in ("sync", "async")])
def hand(request: pytest.FixtureRequest) -> Iterator[Hand]:
    name, flavour = request.param.rsplit("-", 1)
    with STORES[name](request) as store:
        one = Hand(store, flavour)
        try:
            yield one
        finally:
            one.close()
