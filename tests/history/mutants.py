"""Broken builds of memover, each with one line of the protocol taken out. Called in a history's processes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine import load as flows
from memover.engine.call import CachedCall
from memover.engine.steps import Await, Send
from memover.runtime.state import CacheState
from memover.stores.redis.asking import Command
from memover.stores.redis.commands import RedisCommands

if TYPE_CHECKING:
    from memover.engine.steps import Flow
    from memover.engine.store import StoredEntry


def stamp_after_load(index: int) -> None:
    """The tokens in an entry are those read after its load."""

    def lead(call: Any, token: str, reading: Any) -> Any:
        done = yield from call.function.load(call)
        after = yield from call.look()
        return (yield from flows.conclude(call, token, after, done))

    flows.lead = lead


def store_without_the_lease(index: int) -> None:
    """An entry is stored whether or not the lease still holds its token."""

    def store(self: Any, entry: StoredEntry) -> Send[bool]:
        key, limit = entry.key, b"%d" % (entry.expire_ms or 60_000)
        set_it = Command(key.entry, (b"SET", key.entry, entry.raw, b"PX", limit))
        return Send(self.link, [set_it, Command(key.lease, (b"DEL", key.lease))], lambda _: True)

    RedisCommands.store = store  # type: ignore[method-assign]


def invalidate_the_entry_alone(index: int) -> None:
    """Invalidating a call leaves the lease of a load under way."""

    def drop(self: Any, entry: bytes, *_: Any) -> Flow[None]:
        yield from self.asked([Command(entry, (b"DEL", entry))])

    RedisCommands.drop = drop  # type: ignore[method-assign]


def flight_by_key(index: int) -> None:
    """Loads of one process are shared by key: a caller joins the one under way, however old it is."""
    real = flows.miss

    def miss(call: Any) -> Any:
        flight = call.function.share(call, f"key {call.key.text}")
        if flight is not call.flight:
            yield from Await(flight, 5.0)
            shared = call.own(flight.outcome)
            if shared is not None:
                return shared
        return (yield from real(call))

    flows.miss = miss


def everybody_loads(index: int) -> None:
    """The lease is taken from any holder."""
    real = CachedCall.acquire

    def acquire(self: Any, token: str, *, force: bool = False) -> Any:
        return real(self, token, force=True)

    CachedCall.acquire = acquire  # type: ignore[method-assign]


def failed_invalidations_are_forgotten(index: int) -> None:
    """An invalidation that was not acknowledged closes nothing and is not repeated."""

    def owe(self: Any, name: bytes, repeat: Any) -> None:
        return None

    CacheState.owe = owe  # type: ignore[method-assign]
