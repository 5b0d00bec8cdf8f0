"""The driver for `def` functions: flows are run in the caller's thread, which waits where it must.

`shell` makes the cached call itself. A hit there is a read, a judgement and a decode, with no generator, lock or
event; `drive` is reached only by what was not served at once. `engine.flows.get` says the same as the shell,
and a test holds the two together.
"""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
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
    from memover.model import Key
    from memover.engine.store import Seen

__all__ = ["SyncSite", "conclude", "drive", "run", "shell"]

T = TypeVar("T")


class SyncSite(BaseSite):
    """A site whose answers are waited for by blocking the thread."""

    __slots__ = ()

    def read(self) -> Reading:
        return self.reading(self.plan.shared.store.read(self.asked()))

    def look(self) -> Reading:
        return self.reading(self.plan.shared.store.look(self.asked()))

    def acquire(self, token: str, force: bool) -> Grant:
        self.open(token)
        key, plan, ensured = self.key, self.plan, self.ensured()
        floors = self.floors((*key.names[: key.required], *ensured))
        return self.granted(plan.shared.store.acquire(key, token, plan.lease_ms, ensured, floors, force))

    def ensure(self, names: Sequence[bytes]) -> list[bytes]:
        return self.plan.shared.store.ensure(names, self.floors(names), new_nonce())

    def store(self, token: str, sealed: Sealed) -> bool:
        memory = self.plan.shared.memory
        if memory is not None:
            assert sealed.header is not None
            kept = memory.keep(self.key, token, sealed.raw, sealed.header, self.shareable(sealed.value))
        else:
            kept = self.plan.shared.store.store(self.key, token, sealed.raw, sealed.expire_ms)
        return self.stored(kept, sealed)

    def release(self, token: str, failed: bool) -> None:
        self.plan.shared.store.release(self.key, token, failed)

    def bump(self, names: Sequence[bytes], nonce: str) -> list[bytes]:
        return self.plan.shared.store.bump(names, nonce, self.floors(names), self.plan.along())

    def drop(self, nonce: str) -> None:
        self.plan.shared.store.drop(self.key.entry, self.key.lease, nonce, self.plan.along(self.key))

    def drop_older(self, nonce: str) -> None:
        for key in older_keys(self.plan, self.key):
            self.plan.shared.store.drop(key.entry, key.lease, nonce, ())

    def read_older(self, version: int) -> Reading:
        key = older_key(self.plan, self.key, version)
        return self.plan.reading(key, self.plan.shared.store.read(key))

    def upgrade(self, token: str, version: int, reading: Reading) -> Outcome | None:
        work = Upgrading(self, token, version, reading)
        try:
            with work:
                value = work.old()
                for step in work.steps():
                    value = step.function(step.plain(value))
        except BaseException as error:
            return work.failed(error)
        return work.done(value)

    def load(self, token: str | None) -> Outcome:
        plan = self.plan
        if token is not None:
            plan.hold(self, self.key, token)
        mark = enter((self,))
        value, error = None, None
        began = perf_counter()
        try:
            value = plan.function(*self.args, **self.kwargs)
        except BaseException as raised:
            error = raised
        finally:
            seconds = perf_counter() - began
            leave(mark)
            if token is not None:
                plan.let_go(self)
        return self.loaded(value, error, seconds, mark[0].collector)

    def wait(self, holder: str, seconds: float, poll: float) -> Outcome | None:
        flight = self.open(holder)
        if flight is self.flight:
            # Nobody in this process has that lease: look again after a while, and stand in for others who wait for it.
            time.sleep(self.pause(poll))
            return None
        return self.shared_outcome(self._await(flight, seconds))

    def ride(self, ticket: int, seconds: float) -> Outcome | bool | None:
        trains = self.plan.shared.trains
        until = monotonic() + seconds
        while True:
            flight = trains.depart(self.key.entry, self.flight)
            if flight is self.flight:
                self._train = True
                return True
            outcome = self._await(flight, until - monotonic())
            if flight.number > ticket:
                shared = self.shared_outcome(outcome)
                if shared is not None:
                    return shared
            if monotonic() >= until:
                return None

    def behind(self, seconds: float, since: float) -> Outcome | bool:
        if self.rest():
            return True
        site = SyncSite(self.plan, self.key, self.args, self.kwargs)
        site.collector = None
        landed = threading.Event()
        outcome: Outcome | None = None

        def work() -> None:
            nonlocal outcome
            INSIDE.set(None)
            try:
                outcome = run(flows.renew(site.on_terms(), since), site)
            except StoreError:
                pass  # counted by `run`; the stale entry stays in use
            finally:
                site.finish(outcome)
                self.rested(outcome)
                landed.set()

        context = copy_context()
        if not self.plan.shared.background.submit(lambda: context.run(work)):
            self.rested(None)
            return False
        if seconds and landed.wait(seconds):
            return self.shared_outcome(outcome) or True
        return True

    def _await(self, flight: Flight, seconds: float) -> Outcome | None:
        landed = threading.Event()
        if flight.board(landed.set):
            try:
                landed.wait(min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            finally:
                flight.leave(landed.set)
        return flight.outcome if flight.landed else None


def run(flow: Flow[T], site: SyncSite) -> T:
    """Run a flow to its end. Store errors are thrown into it; what it does not catch comes out."""
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
        except StoreError as error:
            site.plan.store_failed(site.key, error)
            failure = error


def conclude(flow: Flow[T], site: SyncSite) -> T:
    """Run a helper's flow, and let go of who may have waited for it."""
    try:
        return run(flow, site)
    finally:
        site.finish(None)


def drive(flow: Flow[Outcome], site: SyncSite, began: float, *, lookup: bool = True) -> Any:
    """Run a call's flow, tell those who wait for it, and return or raise what it came to."""
    done: Outcome | None = None
    try:
        outcome = done = run(flow, site)
    finally:
        site.finish(done)
    if lookup:
        site.looked_up(outcome, perf_counter() - began)
    else:
        site.hand_on(outcome)
    if outcome.error is not None:
        try:
            raise outcome.error
        finally:
            del outcome, done
    return outcome.value


def shell(plan: Plan, lookup: Callable[..., Key]) -> Callable[..., Any]:
    """The cached call of a `def` function."""
    shared = plan.shared
    watch = plan.watch
    witness = plan.witness
    counters = plan.counters
    memory = shared.memory if plan.simple else None
    inside = INSIDE.get
    generation_name = plan.generation_name
    soft = plan.soft_name
    versions = witness.versions
    read = shared.store.read

    def call(*args: Any, **kwargs: Any) -> Any:
        if watch.busy or inside() is not None:
            return general(plan, lookup, args, kwargs)
        key = lookup(*args, **kwargs)
        if memory is not None:
            value = memory.value(key.text, generation_name, plan.fingerprint)
            if value is not MISSING:
                counters.hits += 1
                return value
        if witness.owed or plan.policy.beta:
            return general(plan, lookup, args, kwargs)
        if plan.learned:
            key = plan.known_key(key)
        began = perf_counter()
        try:
            seen = read(key)
        except StoreError as error:
            plan.store_failed(key, error)
            return absent(plan, key, args, kwargs, error, None, began)
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
        return absent(plan, key, args, kwargs, None, seen, began)

    return call


def absent(
    plan: Plan,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: StoreError | None,
    seen: Seen | None,
    began: float,
) -> Any:
    """What follows a read that did not serve the call."""
    site = SyncSite(plan, key, args, kwargs)
    if loading(plan, key.entry):
        return bypass(plan, site)
    terms = site.on_terms()
    if error is not None or seen is None:
        assert error is not None, "there is an answer or an error"
        return drive(flows.storeless(terms, error, site.board()), site, began)
    return drive(flows.resolve(terms, site.reading(seen)), site, began)


def bypass(plan: Plan, site: SyncSite) -> Any:
    """Run the function itself for a call whose key is known, and count it."""
    if names := site.within():
        try:
            site.bypassed(names, site.ensure(names))
        except StoreError:
            site.bypassed(names, None)
    began = perf_counter()
    error = None
    try:
        return plan.function(*site.args, **site.kwargs)
    except BaseException as raised:
        error = raised
        raise
    finally:
        site.looked_up(Outcome(error=error, source=Source.BYPASSED), perf_counter() - began)


def general(
    plan: Plan,
    lookup: Callable[..., Key],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    max_age: float | None = None,
) -> Any:
    """The call as one whole flow: observed, disabled, limited in age, or under an invalidation that is still owed."""
    if plan.watch.disabled():
        plan.disabled()
        return plan.function(*args, **kwargs)
    began = perf_counter()
    key = lookup(*args, **kwargs)
    site = SyncSite(plan, key, args, kwargs)
    if loading(plan, key.entry):
        return bypass(plan, site)
    return drive(flows.get(site.on_terms(max_age)), site, began)
