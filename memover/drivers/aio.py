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
from memover.drivers.plan import new_nonce
from memover.drivers.site import BaseSite, enter, leave, loading
from memover.drivers.tracking import INSIDE
from memover.drivers.upgrades import Upgrading, older_key, older_keys
from memover.engine import flows
from memover.engine.judge import FRESH, judge
from memover.engine.ops import Flow, Grant, Outcome, Reading, Sealed
from memover.errors import DamagedEntry, StoreError
from memover.model import MISSING, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.drivers.flights import Flight
    from memover.drivers.plan import Plan
    from memover.drivers.shared import Shared
    from memover.model import Key
    from memover.engine.store import Seen

__all__ = ["AsyncSite", "conclude", "drain", "drive", "run", "shell"]

T = TypeVar("T")

_tasks: dict[asyncio.Task[Any], Shared] = {}
"""The loop keeps only weak references to tasks, and a load may outlive the caller who began it."""


def keep(task: asyncio.Task[Any], shared: Shared) -> None:
    """Hold on to a task until it is done."""
    _tasks[task] = shared
    task.add_done_callback(lambda done: _tasks.pop(done, None))


async def drain(shared: Shared) -> None:
    """Wait for what the running loop still does for a cache."""
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    mine = [task for task, owner in list(_tasks.items()) if owner is shared and task.get_loop() is loop]
    if waiting := [task for task in mine if task is not current]:
        await asyncio.wait(waiting)


class AsyncSite(BaseSite):
    """A site whose answers are awaited. On a memory store nothing is there to wait for, so nothing is awaited."""

    __slots__ = ()

    async def read(self) -> Reading:
        shared = self.plan.shared
        store, key = shared.async_store, self.asked()
        return self.reading(shared.store.read(key) if store is None else await store.read(key))

    async def look(self) -> Reading:
        shared = self.plan.shared
        store, key = shared.async_store, self.asked()
        return self.reading(shared.store.look(key) if store is None else await store.look(key))

    async def acquire(self, token: str, force: bool) -> Grant:
        self.open(token)
        key, plan, ensured = self.key, self.plan, self.ensured()
        floors = self.floors((*key.names[: key.required], *ensured))
        store = plan.shared.async_store
        if store is None:
            return self.granted(plan.shared.store.acquire(key, token, plan.lease_ms, ensured, floors, force))
        return self.granted(await store.acquire(key, token, plan.lease_ms, ensured, floors, force))

    async def ensure(self, names: Sequence[bytes]) -> list[bytes]:
        shared, floors, nonce = self.plan.shared, self.floors(names), new_nonce()
        if shared.async_store is None:
            return shared.store.ensure(names, floors, nonce)
        return await shared.async_store.ensure(names, floors, nonce)

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

    async def bump(self, names: Sequence[bytes], nonce: str) -> list[bytes]:
        shared, floors, along = self.plan.shared, self.floors(names), self.plan.along()
        if shared.async_store is None:
            return shared.store.bump(names, nonce, floors, along)
        return await shared.async_store.bump(names, nonce, floors, along)

    async def drop(self, nonce: str) -> None:
        shared, key, along = self.plan.shared, self.key, self.plan.along(self.key)
        if shared.async_store is None:
            shared.store.drop(key.entry, key.lease, nonce, along)
        else:
            await shared.async_store.drop(key.entry, key.lease, nonce, along)

    async def drop_older(self, nonce: str) -> None:
        shared = self.plan.shared
        for key in older_keys(self.plan, self.key):
            if shared.async_store is None:
                shared.store.drop(key.entry, key.lease, nonce, ())
            else:
                await shared.async_store.drop(key.entry, key.lease, nonce, ())

    async def read_older(self, version: int) -> Reading:
        shared, key = self.plan.shared, older_key(self.plan, self.key, version)
        store = shared.async_store
        return self.plan.reading(key, shared.store.read(key) if store is None else await store.read(key))

    async def upgrade(self, token: str, version: int, reading: Reading) -> Outcome | None:
        work = Upgrading(self, token, version, reading)
        try:
            with work:
                value = work.old()
                for step in work.steps():
                    value = step.function(step.plain(value))
                    if hasattr(value, "__await__"):
                        value = await value
        except BaseException as error:
            return work.failed(error)
        return work.done(value)

    async def load(self, token: str | None) -> Outcome:
        plan = self.plan
        if token is not None:
            plan.hold(self, self.key, token)
        mark = enter((self,))
        value, error = None, None
        began = perf_counter()
        try:
            value = await plan.function(*self.args, **self.kwargs)
        except BaseException as raised:
            error = raised
        finally:
            seconds = perf_counter() - began
            leave(mark)
            if token is not None:
                plan.let_go(self)
        return self.loaded(value, error, seconds, mark[0].collector)

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

    async def behind(self, seconds: float, since: float) -> Outcome | bool:
        background = self.plan.shared.background
        if self.rest():
            return True
        if not background.enter():
            self.rested(None)
            return False
        site = AsyncSite(self.plan, self.key, self.args, self.kwargs)
        site.collector = None

        outcome: Outcome | None = None

        async def work() -> Outcome | None:
            nonlocal outcome
            INSIDE.set(None)
            try:
                outcome = await run(flows.renew(site.on_terms(), since), site)
            except StoreError:
                pass  # counted by `run`; the stale entry stays in use
            return outcome

        def over(done: asyncio.Task[Outcome | None]) -> None:
            # Not in `work`: a task that is cancelled before its first step never comes to its `finally`.
            if done.cancelled():
                relinquish(site)
            site.finish(outcome)
            self.rested(outcome)
            background.leave()

        task = asyncio.get_running_loop().create_task(work())
        keep(task, self.plan.shared)
        task.add_done_callback(over)
        if seconds:
            await asyncio.wait({task}, timeout=seconds)
            if task.done() and not task.cancelled():
                return self.shared_outcome(task.result()) or True
        return True

    async def _await(self, flight: Flight, seconds: float) -> Outcome | None:
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not landed.done():
                landed.set_result(None)

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(wake)
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
    keep(task, site.plan.shared)

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
    return settle(outcome, site, began, lookup=lookup)


def settle(outcome: Outcome, site: AsyncSite, began: float, *, lookup: bool = True) -> Any:
    """Count the lookup, and return or raise what it came to."""
    if lookup:
        site.looked_up(outcome, perf_counter() - began)
    else:
        site.hand_on(outcome)
    if outcome.error is not None:
        try:
            raise outcome.error
        finally:
            del outcome
    return outcome.value


async def _fly(flow: Flow[Outcome], site: AsyncSite) -> Outcome:
    outcome: Outcome | None = None
    try:
        outcome = await run(flow, site)
        return outcome
    except asyncio.CancelledError:
        relinquish(site)
        raise
    finally:
        site.finish(outcome)


def relinquish(site: AsyncSite) -> None:
    """Give back, from the keeper's thread, the lease that a cancelled call has or may have been given unheard.

    Else everybody would wait for a load that nobody runs, until the lease ends."""
    shared, key = site.plan.shared, site.key
    if shared.async_store is None or not site.opened:
        return
    token = site.opened[0]  # its own; behind it are those it waited for

    def give_back() -> None:
        try:
            shared.store.release(key, token, False)
        except StoreError:
            pass  # the lease ends by itself

    shared.keeper.later(0.0, give_back)


def shell(plan: Plan, lookup: Callable[..., Key]) -> Callable[..., Any]:
    """The cached call of an `async def` function; see `sync.shell`."""
    shared = plan.shared
    watch = plan.watch
    witness = plan.witness
    counters = plan.counters
    memory = shared.memory if plan.simple else None
    inside = INSIDE.get
    generation_name = plan.generation_name
    soft = plan.soft_name
    versions = witness.versions
    inline = shared.store.read
    store = shared.async_store
    read = None if store is None else store.read

    async def call(*args: Any, **kwargs: Any) -> Any:
        if watch.busy or inside() is not None:
            return await general(plan, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        if memory is not None:
            value = memory.value(key.text, generation_name, plan.fingerprint)
            if value is not MISSING:
                counters.hits += 1
                return value
        if witness.owed or plan.policy.beta:
            return await general(plan, lookup, args, kwargs)
        if plan.learned:
            key = plan.known_key(key)
        began = perf_counter()
        try:
            seen = inline(key) if read is None else await read(key)
        except StoreError as error:
            plan.store_failed(key, error)
            return await absent(plan, key, args, kwargs, error, None, began)
        names, tokens, raw, _ = seen
        if raw is not None and witness.trusts(names, tokens):
            try:
                header = read_header(raw, key.entry)
                if not header.kind and FRESH is judge(
                    header, names, tokens, wall(), required=key.required, soft=soft, versions=versions
                ):
                    value = plan.decode(raw, header)
                    if plan.last_known is not None:
                        plan.know(key, Reading(names, tokens, raw, header))
                    counters.hits += 1
                    return value
            except DamagedEntry:
                pass  # `absent` reads the header once more, and counts it there
        return await absent(plan, key, args, kwargs, None, seen, began)

    return call


async def absent(
    plan: Plan,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: StoreError | None,
    seen: Seen | None,
    began: float,
) -> Any:
    """What follows a read that did not serve the call."""
    site = AsyncSite(plan, key, args, kwargs)
    if loading(plan, key.entry):
        return await bypass(plan, site)
    terms = site.on_terms()
    if error is not None or seen is None:
        assert error is not None, "there is an answer or an error"
        return await drive(flows.storeless(terms, error, site.board()), site, began)
    return await drive(flows.resolve(terms, site.reading(seen)), site, began)


async def bypass(plan: Plan, site: AsyncSite) -> Any:
    """Run the function itself for a call whose key is known, and count it."""
    if names := site.within():
        try:
            site.bypassed(names, await site.ensure(names))
        except StoreError:
            site.bypassed(names, None)
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
    terms = site.on_terms(max_age)
    if terms.closed():
        return await drive(flows.alone(terms, site.board()), site, began)
    try:
        found = await run(flows.served(terms), site)
    except StoreError as error:
        return await drive(flows.storeless(terms, error, site.board()), site, began)
    if found is None:
        return await drive(flows.miss(terms), site, began)
    return settle(found, site, began)
