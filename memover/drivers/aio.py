"""The driver for `async def` functions: the same flows, awaited.

A call that is not served at once runs in a task of its own, so that the caller who happened to come first can be
cancelled without taking down those who wait for its load; when the last of them is gone, the load is cancelled too.
Callers of other event loops and threads may wait for the same load.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from memover.clocks import monotonic, wall
from memover.codec.envelope import read_header
from memover.drivers.site import BaseSite, loading
from memover.drivers.upgrades import chain, failed, older_keys, steps, usable
from memover.engine import flows
from memover.engine.judge import FRESH, judge
from memover.engine.ops import Flow, Grant, Outcome, Reading, Sealed
from memover.errors import DamagedEntry, StoreError
from memover.model import MISSING, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.drivers.flights import Flight
    from memover.drivers.plan import Plan
    from memover.model import Key

__all__ = ["AsyncSite", "conclude", "drive", "run", "shell"]

T = TypeVar("T")

_tasks: set[asyncio.Task[Any]] = set()
"""The loop keeps only weak references to tasks, and a load may outlive the caller who began it."""


class AsyncSite(BaseSite):
    """A site whose answers are awaited. On a memory store nothing is there to wait for, so nothing is awaited."""

    __slots__ = ()

    async def read(self) -> Reading:
        shared = self.plan.shared
        store = shared.async_store
        return self.reading(shared.store.read(self.key) if store is None else await store.read(self.key))

    async def look(self) -> Reading:
        shared = self.plan.shared
        store = shared.async_store
        return self.reading(shared.store.look(self.key) if store is None else await store.look(self.key))

    async def acquire(self, token: str, force: bool) -> Grant:
        self.open(token)
        shared, lease_ms, floors = self.plan.shared, self.plan.lease_ms, self.floors()
        store = shared.async_store
        if store is None:
            return self.granted(shared.store.acquire(self.key, token, lease_ms, floors, force))
        return self.granted(await store.acquire(self.key, token, lease_ms, floors, force))

    async def store(self, token: str, sealed: Sealed) -> bool:
        memory, store = self.plan.shared.memory, self.plan.shared.async_store
        if memory is not None:
            assert sealed.header is not None
            kept = memory.keep(self.key, token, sealed.raw, sealed.header, self.shareable(sealed.value))
        else:
            assert store is not None
            kept = await store.store(self.key, token, sealed.raw, sealed.expire_ms)
        return self.stored(kept, sealed)

    async def release(self, token: str, failed: bool) -> None:
        shared = self.plan.shared
        if shared.async_store is None:
            shared.store.release(self.key, token, failed)
        else:
            await shared.async_store.release(self.key, token, failed)

    async def bump(self, nonce: str) -> bytes:
        shared, name = self.plan.shared, self.key.names[0]
        floor = self.plan.witness.floor(name)
        if shared.async_store is None:
            return shared.store.bump(name, nonce, floor)
        return await shared.async_store.bump(name, nonce, floor)

    async def drop(self) -> None:
        shared = self.plan.shared
        if shared.async_store is None:
            shared.store.drop(self.key.entry, self.key.lease)
        else:
            await shared.async_store.drop(self.key.entry, self.key.lease)

    async def drop_older(self) -> None:
        shared = self.plan.shared
        for key in older_keys(self.plan, self.key):
            if shared.async_store is None:
                shared.store.drop(key.entry, key.lease)
            else:
                await shared.async_store.drop(key.entry, key.lease)

    async def upgrade(self, token: str, tokens: Sequence[bytes | None], max_age: float | None) -> Outcome | None:
        plan, store = self.plan, self.plan.shared.async_store
        for version, key in zip(chain(plan), older_keys(plan, self.key)):
            seen = plan.shared.store.read(key) if store is None else await store.read(key)
            old = usable(plan, key, seen, tokens, max_age)
            if old is None:
                continue
            plan.hold(self, self.key, token)
            try:
                value = old.value
                for step in steps(plan, version):
                    value = step.function(step.plain(value))
                    if hasattr(value, "__await__"):
                        value = await value
            except Exception as error:
                failed(plan, self.key, version, error)
                return None
            except BaseException as error:
                return Outcome(error=error)
            finally:
                plan.let_go(self)
            return self.upgraded(version, old, value)
        return None

    async def load(self, token: str | None) -> Outcome:
        plan = self.plan
        if token is not None:
            plan.hold(self, self.key, token)
        mark = self.enter()
        value, error = None, None
        began = perf_counter()
        try:
            value = await plan.function(*self.args, **self.kwargs)
        except BaseException as raised:
            error = raised
        finally:
            seconds = perf_counter() - began
            self.leave(mark)
            if token is not None:
                plan.let_go(self)
        return self.loaded(value, error, seconds)

    async def wait(self, holder: str, seconds: float, poll: float) -> Outcome | None:
        flight = self.open(holder)
        if flight is self.flight:
            # Nobody in this process has that lease: look again after a while, and stand in for others who wait for it.
            await asyncio.sleep(self.pause(poll))
            return None
        return self.shared_outcome(await self._await(flight, seconds))

    async def ride(self, ticket: int, seconds: float) -> Outcome | bool | None:
        trains = self.plan.shared.trains
        until = monotonic() + seconds
        while True:
            flight = trains.depart(self.key.entry, self.flight)
            if flight is self.flight:
                self._train = True
                return True
            outcome = await self._await(flight, until - monotonic())
            if flight.number > ticket:
                shared = self.shared_outcome(outcome)
                if shared is not None:
                    return shared
            if monotonic() >= until:
                return None

    async def _await(self, flight: Flight, seconds: float) -> Outcome | None:
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(lambda: landed.done() or landed.set_result(None))
            except RuntimeError:
                pass  # that loop was closed meanwhile: nobody waits there any more

        if flight.board(tell):
            try:
                await asyncio.wait({landed}, timeout=max(seconds, 0.0))
            finally:
                if flight.leave(tell) and flight.abandon is not None:
                    flight.abandon()
        return flight.outcome if flight.landed else None


async def run(flow: Flow[T], site: AsyncSite) -> T:
    """As `sync.run`, awaiting what is awaitable."""
    answer: Any = None
    failure: StoreError | None = None
    while True:
        try:
            op = flow.send(answer) if failure is None else flow.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = failure = None
        try:
            answer = op.on(site)
            if hasattr(answer, "__await__"):
                answer = await answer
        except StoreError as error:
            site.plan.store_failed(site.key, error)
            failure = error


async def conclude(flow: Flow[T], site: AsyncSite) -> T:
    """Run a helper's flow, and let go of who may have waited for it."""
    try:
        return await run(flow, site)
    finally:
        site.finish(None)


async def drive(flow: Flow[Outcome], site: AsyncSite, began: float, *, lookup: bool = True) -> Any:
    """Run a call's flow in a task of its own and return or raise what it came to."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(_fly(flow, site))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)

    def abandon() -> None:
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop is closed, and the task went with it

    site.flight.abandon = abandon
    try:
        outcome = await asyncio.shield(task)
    except asyncio.CancelledError:
        if site.flight.leave() and not task.done():
            task.cancel()
            # The function may have something to clean up; its caller goes on when it has, as without a cache.
            await asyncio.wait({task})
        raise
    if lookup:
        site.looked_up(outcome, perf_counter() - began)
    if outcome.error is not None:
        try:
            raise outcome.error
        finally:
            del outcome, task
    return outcome.value


async def _fly(flow: Flow[Outcome], site: AsyncSite) -> Outcome:
    outcome: Outcome | None = None
    try:
        outcome = await run(flow, site)
        return outcome
    finally:
        site.finish(outcome)


def shell(plan: Plan, lookup: Callable[..., Key]) -> Callable[..., Any]:
    """The cached call of an `async def` function; see `sync.shell`."""
    shared = plan.shared
    watch = plan.watch
    witness = plan.witness
    counters = plan.counters
    memory = shared.memory
    generation_name = plan.generation_name
    inline = shared.store.read
    store = shared.async_store
    read = None if store is None else store.read

    async def call(*args: Any, **kwargs: Any) -> Any:
        if watch.busy:
            return await general(plan, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        if memory is not None:
            value = memory.value(key.text, generation_name)
            if value is not MISSING:
                counters.hits += 1
                return value
        if witness.owed:
            return await general(plan, lookup, args, kwargs)
        began = perf_counter()
        try:
            tokens, raw, _ = inline(key) if read is None else await read(key)
        except StoreError as error:
            plan.store_failed(key, error)
            return await absent(plan, key, args, kwargs, error, None, began)
        header = None
        if raw is not None:
            try:
                header = read_header(raw, key.entry)
                if witness.trusts(key.names, tokens) and judge(header, key.names, tokens, wall()) is FRESH:
                    value = plan.decode(raw, header)
                    if plan.last_known is not None:
                        plan.know(key, Reading(tokens, raw, header))
                    counters.hits += 1
                    return value
            except DamagedEntry as error:
                header = None
                plan.damaged(key, error)
        return await absent(plan, key, args, kwargs, None, Reading(tokens, raw, header), began)

    return call


async def absent(
    plan: Plan,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: StoreError | None,
    reading: Reading | None,
    began: float,
) -> Any:
    """What follows a read that did not serve the call."""
    site = AsyncSite(plan, key, args, kwargs)
    if loading(plan, key.entry):
        return await bypass(plan, site)
    terms = plan.terms(key)
    if error is not None:
        return await drive(flows.storeless(terms, error, site.board()), site, began)
    return await drive(flows.miss(terms, reading), site, began)


async def bypass(plan: Plan, site: AsyncSite) -> Any:
    """Run the function itself for a call whose key is known, and count it."""
    began = perf_counter()
    error = None
    try:
        return await plan.function(*site.args, **site.kwargs)
    except BaseException as raised:
        error = raised
        raise
    finally:
        site.looked_up(Outcome(error=error, source=Source.BYPASSED), perf_counter() - began)


async def general(
    plan: Plan,
    lookup: Callable[..., Key],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    max_age: float | None = None,
) -> Any:
    """The call as one whole flow: observed, disabled, limited in age, or under an invalidation that is still owed."""
    if plan.watch.disabled():
        plan.disabled()
        return await plan.function(*args, **kwargs)
    began = perf_counter()
    key = lookup(*args, **kwargs)
    site = AsyncSite(plan, key, args, kwargs)
    if loading(plan, key.entry):
        return await bypass(plan, site)
    # As `flows.get`, but only what is not served at once is worth a task.
    terms = plan.terms(key, max_age)
    if terms.closed():
        return await drive(flows.alone(terms, site.board()), site, began)
    try:
        reading = await site.read()
    except StoreError as error:
        plan.store_failed(key, error)
        return await drive(flows.storeless(terms, error, site.board()), site, began)
    found = await run(flows.answer(terms, reading, Source.FRESH), site)
    if found is None:
        return await drive(flows.miss(terms, reading), site, began)
    site.looked_up(found, perf_counter() - began)
    return found.value
