"""Broken builds of memover, each with one line of the protocol taken out. Called in a history's processes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.drivers.shared import Shared
from memover.engine import flows
from memover.engine.ops import Acquire, Load, Look, Outcome, Seal, Wait
from memover.errors import StoreError
from memover.stores.redis.commands import Command, RedisCommands

if TYPE_CHECKING:
    from memover.engine.steps import Flow
    from memover.engine.store import StoredEntry


def stamp_after_load(index: int) -> None:
    """The tokens in an entry are those read after its load."""
    real = flows.lead

    def lead(*args: Any) -> Any:
        flow = real(*args)
        after: Any = None
        op = next(flow)
        while True:
            if isinstance(op, Seal) and after is not None:
                op.marks = tuple((name, after.token(name) or token) for name, token in op.marks)
            try:
                try:
                    answer = yield op
                except StoreError as error:
                    op = flow.throw(error)
                    continue
                if isinstance(op, Load):
                    after = yield Look()
                op = flow.send(answer)
            except StopIteration as stop:
                return stop.value

    flows.lead = lead


def store_without_the_lease(index: int) -> None:
    """An entry is stored whether or not the lease still holds its token."""

    def store(self: Any, entry: StoredEntry) -> Flow[bool]:
        key, limit = entry.key, b"%d" % (entry.expire_ms or 60_000)
        yield from self.asked([Command(key.entry, (b"SET", key.entry, entry.raw, b"PX", limit))])
        yield from self.asked([Command(key.lease, (b"DEL", key.lease))])
        return True

    RedisCommands.store = store  # type: ignore[method-assign]


def invalidate_the_entry_alone(index: int) -> None:
    """Invalidating a call leaves the lease of a load under way."""

    def drop(self: Any, entry: bytes, *_: Any) -> Flow[None]:
        yield from self.asked([Command(entry, (b"DEL", entry))])

    RedisCommands.drop = drop  # type: ignore[method-assign]


def flight_by_key(index: int) -> None:
    """Loads of one process are shared by key: whoever comes joins the one under way, however old."""
    real = flows.miss

    def miss(terms: Any, *rest: Any) -> Any:
        shared: Outcome | None = yield Wait(f"key {terms.entry!r}", 5.0, 0.0)
        if shared is not None:
            return shared
        return (yield from real(terms, *rest))

    flows.miss = miss


def everybody_loads(index: int) -> None:
    """The lease is taken from whoever has it."""

    real = Acquire.on

    def on(self: Any, site: Any) -> Any:
        self.force = True
        return real(self, site)

    Acquire.on = on  # type: ignore[method-assign]


def failed_invalidations_are_forgotten(index: int) -> None:
    """An invalidation that was not acknowledged closes nothing and is not repeated."""

    def owe(self: Any, name: bytes, repeat: Any) -> None:
        return None

    Shared.owe = owe  # type: ignore[method-assign]
