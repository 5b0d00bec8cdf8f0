"""Many calls of one function answered together: what the batches of both drivers share, and both drivers.

The hits of a plain function take a path of their own, without a site or a flow for each; all else is
`engine.many.gather` over the ordinary sites.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.envelope import read_plain
from memover.drivers import aio, sync
from memover.drivers.plan import new_nonce
from memover.drivers.site import BaseSite, enter, leave, loading
from memover.drivers.tracking import INSIDE
from memover.engine.judge import FRESH
from memover.engine.many import gather
from memover.engine.ops import Ensure, Load, Outcome
from memover.errors import ConfigurationError, StoreError
from memover.model import Call, Source
from memover.engine.store import Seen

if TYPE_CHECKING:
    from memover.drivers.plan import Plan
    from memover.engine.ops import Flow, Grant, Reading, Sealed
    from memover.model import Key
    from memover.engine.store import Request, SeenMany

__all__ = ["CallArguments", "Hit", "answer_many", "answer_many_async"]

CallArguments = tuple[tuple[Any, ...], Mapping[str, Any]]


class Hit:
    """An outcome with nothing to say but its value."""

    __slots__ = ("value",)

    error = None
    source = Source.FRESH

    def __init__(self, value: Any) -> None:
        self.value = value


class Told:
    """Who wants to know of the calls that are done, and of how many it has been told. Called by the batch's caller alone."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self._progress = progress
        self._number = 0

    def __call__(self, number: int) -> None:
        self._number += number
        self._progress(number)

    def end(self, whole: int) -> None:
        """What has not been told of: calls that were the same as others, or that ended in some other way."""
        if whole > self._number:
            self(whole - self._number)


class Batch:
    """The calls of one batch, equal ones once; `outcomes` has one place for each of those."""

    def __init__(self, plan: Plan, lookup: Callable[..., Key], calls: Sequence[CallArguments]) -> None:
        self.plan = plan
        self.keys: list[Key] = []
        self.calls: list[CallArguments] = []
        self._places: list[int] = []
        known: dict[str, int] = {}
        for call in calls:
            args, kwargs = call
            key = lookup(*args, **kwargs) if kwargs else lookup(*args)
            text = key.text
            place = known.get(text)
            if place is None:
                place = known[text] = len(known)
                self.keys.append(plan.known_key(key) if plan.learned else key)
                self.calls.append(call)
            self._places.append(place)
        self.outcomes: list[Outcome | Hit | None] = [None] * len(self.keys)
        self.readings: list[Reading] | None = None

    def plain(self) -> bool:
        """Whether hits may be served without anybody being told of each."""
        plan = self.plan
        return bool(
            self.keys
            and plan.simple
            and not plan.watch.busy
            and not plan.learned
            and not plan.witness.owed
            and plan.last_known is None
            and INSIDE.get() is None
        )

    def serve(self, seens: SeenMany, wanted: bool) -> int:
        """Answer the hits among plain calls, and keep what was read for the others; the number of hits.

        An entry without marks is fresh as `judge` has it: its generation is current and its instant is not reached."""
        plan, outcomes, now, keys = self.plan, self.outcomes, wall(), self.keys
        names, tokens, raws = seens
        trusted, current = plan.witness.trusts(names, tokens), tokens[0]
        decode, codec, fingerprint = plan.codec.decode, plan.codec_name, plan.fingerprint
        readings: list[Reading] = []
        for at, raw in enumerate(raws):
            if raw is not None and trusted:
                plain = read_plain(raw, keys[at].entry)
                if (
                    plain is not None
                    and plain[0] == current
                    and now < plain[1]
                    and plain[2] == codec
                    and plain[4] == fingerprint
                ):
                    try:
                        outcomes[at] = Hit(decode(plain[3]) if wanted else None)
                        continue
                    except Exception:
                        pass  # the ordinary way finds out once more, and counts it
            readings.append(plan.reading(keys[at], Seen(names, tokens, raw)))
        hits = len(keys) - len(readings)
        plan.counters.hits += hits
        self.readings = readings
        return hits

    def results(self) -> list[Outcome | Hit]:
        """The outcomes in the order of the calls."""
        outcomes = self.outcomes
        return [outcome for place in self._places if (outcome := outcomes[place]) is not None]

    def rest(self) -> list[int]:
        return [at for at, outcome in enumerate(self.outcomes) if outcome is None]

    def settle(self, rest: Sequence[int], items: Sequence[BaseSite], began: float) -> None:
        """Count what the ordinary sites came to, and take it in."""
        elapsed = perf_counter() - began
        for at, item in zip(rest, items):
            assert item.outcome is not None, "the flow fills in every item"
            item.looked_up(item.outcome, elapsed)
            self.outcomes[at] = item.outcome
        for item in items:
            error = item.outcome.error if item.outcome is not None else None
            if error is not None and not isinstance(error, Exception):
                raise error  # cancelled or interrupted: nothing that a caller of `warm` may count and go on from


def at_once(item: BaseSite, seen: Seen) -> Outcome | Reading:
    """The outcome of a call that what was read serves as it is, else the reading, for a flow to look at."""
    reading, terms = item.reading(seen), item.terms
    assert terms is not None, "the batch has set them"
    if reading.header is None or terms.call_name or terms.beta or terms.owing(reading.names):
        return reading
    if not terms.witness.trusts(reading.names, reading.tokens) or terms.judge(reading) is not FRESH:
        return reading
    outcome = item.decode(reading, Source.FRESH)
    if outcome is None:
        reading.header = None  # counted as damaged, and absent from here on
    return outcome or reading


def requests(items: Sequence[BaseSite]) -> list[Request]:
    """The leases to be asked for; each call can be found under its token from here on."""
    asked: list[Request] = []
    for item in items:
        item.token = new_nonce()
        item.open(item.token)
        key, ensured = item.key, item.ensured()
        floors = item.floors((*key.names[: key.required], *ensured))
        asked.append((key, item.token, item.plan.lease_ms, ensured, floors))
    return asked


def entries(stored: Sequence[tuple[BaseSite, Sealed]]) -> list[tuple[Key, str, bytes, int]]:
    return [(item.key, item.token, sealed.raw, sealed.expire_ms) for item, sealed in stored]


def bulk_calls(items: Sequence[BaseSite]) -> list[Call]:
    """The calls as the bulk loader gets them; their leases are kept alive until `loaded`."""
    for item in items:
        item.plan.hold(item, item.key, item.token)
    return [item.plan.call(item.key, item.args, item.kwargs) for item in items]


def loaded(
    items: Sequence[BaseSite],
    calls: Sequence[Call],
    answered: Any,
    error: BaseException | None,
    began: float,
    mark: Any,
) -> list[Outcome | None]:
    """What the bulk loader came to, for each item."""
    seconds = perf_counter() - began
    for item in items:
        item.plan.let_go(item)
    if error is None:
        try:
            return [
                item.loaded(value[0], None, seconds, mark[0].collector) if value else None
                for item, value in zip(items, matched(calls, answered))
            ]
        except Exception as mistake:
            error = mistake
    return [item.loaded(None, error, seconds, mark[0].collector) for item in items]


def matched(calls: Sequence[Call], answered: Any) -> list[tuple[Any, ...]]:
    """The bulk loader's values in the order of the calls, each in a tuple; an empty tuple where it had none."""
    if isinstance(answered, Mapping):
        values: list[tuple[Any, ...]] = []
        for call in calls:
            if call in answered:
                values.append((answered[call],))
                continue
            arguments = call.arguments
            alone = next(iter(arguments.values())) if len(arguments) == 1 else call
            try:
                values.append((answered[alone],) if alone in answered else ())
            except TypeError:  # an argument that cannot be a key of a dict cannot have been one
                values.append(())
        return values
    if isinstance(answered, Sequence) and not isinstance(answered, (str, bytes)) and len(answered) == len(calls):
        return [(value,) for value in answered]
    raise ConfigurationError(
        f"The bulk loader of {calls[0].namespace!r} answered {len(calls)} calls with {type(answered).__name__}: return a "
        f"mapping from the calls (or, for a function of one argument, from that argument) to their values, which may leave "
        f"some out, or a sequence of as many values as there are calls."
    )


def limit(concurrency: int) -> int:
    """The checked number of loads at a time."""
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(f"concurrency={concurrency!r} must be a whole number of at least 1.")
    return concurrency


# -- for threads ------------------------------------------------------------------------------------------------------------


class SyncBatchSite:
    """Where the operations of a batch are answered by blocking the thread."""

    key = None

    def __init__(
        self, plan: Plan, loader: Callable[..., Any] | None, concurrency: int, progress: Callable[[int], object] | None
    ) -> None:
        self.plan = plan
        self._loader = loader
        self._concurrency = concurrency
        self._progress = progress

    def read_many(self, items: Sequence[sync.SyncSite]) -> list[Outcome | Reading]:
        seens = self.plan.shared.store.read_many([item.asked() for item in items])
        return [at_once(item, seen) for item, seen in zip(items, seens)]

    def acquire_many(self, items: Sequence[sync.SyncSite]) -> list[Grant]:
        granted = self.plan.shared.store.acquire_many(requests(items))
        return [item.granted(grant) for item, grant in zip(items, granted)]

    def load_many(self, items: Sequence[sync.SyncSite]) -> list[Outcome | None]:
        if not items or self._loader is None:
            return [None] * len(items)
        calls, mark = bulk_calls(items), enter(items)
        answered, error, began = None, None, perf_counter()
        try:
            answered = self._loader(calls)
        except BaseException as raised:
            error = raised
        finally:
            leave(mark)
        return loaded(items, calls, answered, error, began, mark)

    def store_many(self, stored: Sequence[tuple[sync.SyncSite, Sealed]]) -> None:
        shared = self.plan.shared
        if shared.memory is not None:
            for item, sealed in stored:
                item.store(item.token, sealed)
        else:
            kept = shared.store.store_many(entries(stored))
            for (item, sealed), was_kept in zip(stored, kept):
                item.stored(was_kept, sealed)
        self._tell(len(stored))

    def each(self, flows: Sequence[tuple[sync.SyncSite, Flow[Outcome]]]) -> None:
        if self._concurrency == 1 or len(flows) < 2:
            for item, flow in flows:
                self._one(item, flow)
                self._tell(1)
            return
        pool = ThreadPoolExecutor(min(self._concurrency, len(flows)), thread_name_prefix="memover-map")
        try:
            running = [pool.submit(copy_context().run, self._one, item, flow) for item, flow in flows]
            for future in as_completed(running):
                future.result()
                self._tell(1)
        finally:
            pool.shutdown(cancel_futures=True)  # interrupted, it begins no more

    def attempt(self, flows: Sequence[tuple[sync.SyncSite, Flow[Outcome | None]]]) -> list[Outcome | None]:
        if self._concurrency == 1 or len(flows) < 2:
            return [sync.run(flow, item) for item, flow in flows]
        with ThreadPoolExecutor(min(self._concurrency, len(flows)), thread_name_prefix="memover-map") as pool:
            running = [pool.submit(copy_context().run, sync.run, flow, item) for item, flow in flows]
            return [future.result() for future in running]

    def _one(self, item: sync.SyncSite, flow: Flow[Outcome]) -> None:
        if loading(item.plan, item.key.entry):
            flow = itself(item, flow)
        try:
            item.outcome = outcome = sync.run(flow, item)
        finally:
            item.finish(
                item.outcome
            )  # now, and not with the batch: others may wait for it, of whom the batch needs one
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            raise outcome.error

    def _tell(self, number: int) -> None:
        if self._progress is not None and number:
            self._progress(number)


def itself(item: BaseSite, flow: Flow[Outcome]) -> Flow[Outcome]:
    """The function alone, in place of a flow that would wait for the load it is in."""
    flow.close()
    if names := item.within():
        try:
            tokens = yield Ensure(names)
        except StoreError:
            tokens = None
        item.bypassed(names, tokens)
    outcome: Outcome = yield Load(None)
    outcome.source, outcome.marks = Source.BYPASSED, ()
    return outcome


def answer_many(
    plan: Plan,
    lookup: Callable[..., Key],
    calls: Sequence[CallArguments],
    *,
    loader: Callable[..., Any] | None,
    concurrency: int,
    progress: Callable[[int], object] | None,
    wanted: bool = True,
) -> list[Outcome | Hit]:
    """Answer calls together, in their order. One round trip for all the hits; see `CachedFunction.map`."""
    progress = told = None if progress is None else Told(progress)
    if plan.watch.disabled():
        return [_disabled(plan, args, kwargs, progress) for args, kwargs in calls]
    batch, began = Batch(plan, lookup, calls), perf_counter()
    if batch.plain():
        try:
            hits = batch.serve(plan.shared.store.read_plain(batch.keys), wanted)
        except StoreError as error:
            plan.store_failed(None, error)
        else:
            if progress is not None and hits:
                progress(hits)
    if rest := batch.rest():
        items = [sync.SyncSite(plan, batch.keys[at], *batch.calls[at]) for at in rest]
        for item in items:
            item.on_terms()
        try:
            sync.run(
                gather(items, batch.readings, loader is not None),  # type: ignore[arg-type]  # its operations are these
                SyncBatchSite(plan, loader, concurrency, progress),  # type: ignore[arg-type]
            )
        finally:
            for item in items:
                item.finish(item.outcome)
        batch.settle(rest, items, began)
    if told is not None:
        told.end(len(calls))
    return batch.results()


def _disabled(plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any], progress: Told | None) -> Outcome:
    plan.disabled()
    try:
        outcome = Outcome(plan.function(*args, **kwargs), source=Source.BYPASSED)
    except Exception as error:
        outcome = Outcome(error=error, source=Source.BYPASSED)
    if progress is not None:
        progress(1)
    return outcome


# -- for coroutines ---------------------------------------------------------------------------------------------------------


class AsyncBatchSite:
    """Where the operations of a batch are awaited."""

    key = None

    def __init__(
        self, plan: Plan, loader: Callable[..., Any] | None, concurrency: int, progress: Callable[[int], object] | None
    ) -> None:
        self.plan = plan
        self._loader = loader
        self._concurrency = concurrency
        self._progress = progress

    async def read_many(self, items: Sequence[aio.AsyncSite]) -> list[Outcome | Reading]:
        shared, keys = self.plan.shared, [item.asked() for item in items]
        store = shared.async_store
        seens = shared.store.read_many(keys) if store is None else await store.read_many(keys)
        return [at_once(item, seen) for item, seen in zip(items, seens)]

    async def acquire_many(self, items: Sequence[aio.AsyncSite]) -> list[Grant]:
        shared, asked = self.plan.shared, requests(items)
        store = shared.async_store
        granted = shared.store.acquire_many(asked) if store is None else await store.acquire_many(asked)
        return [item.granted(grant) for item, grant in zip(items, granted)]

    async def load_many(self, items: Sequence[aio.AsyncSite]) -> list[Outcome | None]:
        if not items or self._loader is None:
            return [None] * len(items)
        calls, mark = bulk_calls(items), enter(items)
        answered, error, began = None, None, perf_counter()
        try:
            answered = self._loader(calls)
            if hasattr(answered, "__await__"):
                answered = await answered
        except BaseException as raised:
            error = raised
        finally:
            leave(mark)
        return loaded(items, calls, answered, error, began, mark)

    async def store_many(self, stored: Sequence[tuple[aio.AsyncSite, Sealed]]) -> None:
        shared = self.plan.shared
        if shared.async_store is None:
            for item, sealed in stored:
                await item.store(item.token, sealed)
        else:
            kept = await shared.async_store.store_many(entries(stored))
            for (item, sealed), was_kept in zip(stored, kept):
                item.stored(was_kept, sealed)
        self._tell(len(stored))

    async def attempt(self, flows: Sequence[tuple[aio.AsyncSite, Flow[Outcome | None]]]) -> list[Outcome | None]:
        room = asyncio.Semaphore(self._concurrency)

        async def one(item: aio.AsyncSite, flow: Flow[Outcome | None]) -> Outcome | None:
            async with room:
                try:
                    return await aio.run(flow, item)
                except asyncio.CancelledError:
                    aio.relinquish(item)
                    raise

        return await asyncio.gather(*(one(item, flow) for item, flow in flows))

    async def each(self, flows: Sequence[tuple[aio.AsyncSite, Flow[Outcome]]]) -> None:
        room = asyncio.Semaphore(self._concurrency)

        async def one(item: aio.AsyncSite, flow: Flow[Outcome]) -> None:
            async with room:
                if loading(item.plan, item.key.entry):
                    flow = itself(item, flow)
                try:
                    item.outcome = outcome = await aio.run(flow, item)
                except asyncio.CancelledError:
                    aio.relinquish(item)
                    raise
                finally:
                    item.finish(item.outcome)  # as in `SyncBatchSite._one`
            if outcome.error is not None and not isinstance(outcome.error, Exception):
                raise outcome.error
            self._tell(1)

        tasks = [asyncio.ensure_future(one(item, flow)) for item, flow in flows]
        try:
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, number: int) -> None:
        if self._progress is not None and number:
            self._progress(number)


async def answer_many_async(
    plan: Plan,
    lookup: Callable[..., Key],
    calls: Sequence[CallArguments],
    *,
    loader: Callable[..., Any] | None,
    concurrency: int,
    progress: Callable[[int], object] | None,
    wanted: bool = True,
) -> list[Outcome | Hit]:
    """As `answer_many`, awaited."""
    progress = told = None if progress is None else Told(progress)
    if plan.watch.disabled():
        return [await _disabled_async(plan, args, kwargs, progress) for args, kwargs in calls]
    batch, began, shared = Batch(plan, lookup, calls), perf_counter(), plan.shared
    if batch.plain():
        store = shared.async_store
        try:
            keys = batch.keys
            seens = shared.store.read_plain(keys) if store is None else await store.read_plain(keys)
        except StoreError as error:
            plan.store_failed(None, error)
        else:
            hits = batch.serve(seens, wanted)
            if progress is not None and hits:
                progress(hits)
    if rest := batch.rest():
        items = [aio.AsyncSite(plan, batch.keys[at], *batch.calls[at]) for at in rest]
        for item in items:
            item.on_terms()
        try:
            await aio.run(
                gather(items, batch.readings, loader is not None),  # type: ignore[arg-type]  # its operations are these
                AsyncBatchSite(plan, loader, concurrency, progress),  # type: ignore[arg-type]
            )
        except asyncio.CancelledError:
            for item in items:
                if item.outcome is None:
                    aio.relinquish(item)
            raise
        finally:
            for item in items:
                item.finish(item.outcome)
        batch.settle(rest, items, began)
    if told is not None:
        told.end(len(calls))
    return batch.results()


async def _disabled_async(
    plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any], progress: Told | None
) -> Outcome:
    plan.disabled()
    try:
        outcome = Outcome(await plan.function(*args, **kwargs), source=Source.BYPASSED)
    except Exception as error:
        outcome = Outcome(error=error, source=Source.BYPASSED)
    if progress is not None:
        progress(1)
    return outcome
