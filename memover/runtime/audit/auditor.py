"""The auditor: a share of the hits is compared with the source, behind the caller's back.

It answers the question that a hit ratio cannot: is everything invalidated that should be? Meta asks it of its caches with a
service of its own, Polaris, which reads what a cache answers as a client does, compares, and reports how many nines of the
answers agree with the source (Engineering at Meta, "Cache made consistent: Meta's cache invalidation solution", 8 June 2022).
Here the process that was served asks: it has the function at hand.

    a hit ──chance──▶ the function runs, in the bounded background ──▶ same bytes, or equal ─────────────▶ agree
                                │                                                │
                        raised, NotCached,                                    different
                        cannot be stored: no verdict                             │ after `grace` seconds
                                                                                 ▼
                             no verdict ◀── no longer the entry that a call would be answered from ── read again ──▶ differ

A difference counts only if the entry is still what a call would be answered from a moment later: a change of the source and its
invalidation are two steps, and between them every hit differs. (Polaris waits too, and reports agreement within so many
minutes.) A function whose results differ by themselves (the time of day, a random order) disagrees with itself: do not audit it.

What was served is taken from the entry's bytes, not from the object that the caller got and may have changed; arguments are
checked against the key before the function runs, because the caller may have changed those too. Nothing that is found changes
what is served. Values are in no event: shapes, sizes and ages are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from memover.clocks import monotonic, wall
from memover.later import later
from memover.model import Event, NotCached
from memover.runtime.audit.differences import difference, equal, outline_of
from memover.runtime.audit.slots import Slot
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from memover.codec.envelope import Header
    from memover.engine.answers import Outcome
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.runtime.audit.slots import Slots
    from memover.runtime.counters import Counters
else:
    asyncio = later(__name__, "asyncio")

__all__ = ["GRACE_SECONDS", "Auditable", "Auditor", "Comparison", "ServedEntry"]

GRACE_SECONDS = 1.0
"""For how long a difference may be an invalidation that is under way."""

_NOT_CACHED: Any = NotCached  # a class, whatever it is to a type checker


class ServedEntry(NamedTuple):
    """An entry that a call was answered from: its key, whole bytes and header, and the call as it was written."""

    key: str
    raw: bytes
    header: Header
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Auditable(Protocol):
    """What the auditor needs of a function.

    `key` is the key of a call. `payload` is an entry's payload as the codec wrote it; `encode` and `decode` are the codec's.
    `load` runs the function. `current` reads entry and tokens again and gives the header of what a call would be answered from
    now (fresh, its tokens unmoved), None where it would not be; it may raise `StoreError`.
    """

    namespace: str
    counters: Counters
    awaited: bool
    """Whether it is an `async def` function."""

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str: ...
    def payload(self, raw: bytes, header: Header) -> bytes | memoryview: ...
    def encode(self, value: Any) -> bytes: ...
    def decode(self, payload: bytes | memoryview) -> Any: ...
    def load(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flow[Any]: ...
    def current(self, hit: ServedEntry) -> Flow[Header | None]: ...
    def emit(self, event: Event) -> object: ...


class Comparison(NamedTuple):
    """What one audit saw. `load_time` is seconds; `where` the first place that differs, without keys or values."""

    agrees: bool
    served: str
    source: str
    load_time: float
    where: str = ""


class Auditor:
    """Audits the hits of one function.

    * `share`: of the hits, 0 to 1.
    * `slots`: shared by the functions of a cache. `submit(run)` has `run` called in a thread of the background, and says
      whether there was room. `later(seconds, run)` has it called after so long, in a thread that must not be held up.
    * `chance`: a random number from 0 to below 1, for tests.
    """

    def __init__(
        self,
        function: Auditable,
        share: float,
        *,
        slots: Slots,
        submit: Callable[[Callable[[], None]], bool],
        later: Callable[[float, Callable[[], float | None]], object],
        grace_seconds: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.function = function
        self.share = share
        self._slots = slots
        self._submit = submit
        self._later = later
        self._grace = GRACE_SECONDS if grace_seconds is None else grace_seconds
        self._chance = chance

    def chosen(self) -> bool:
        """Whether this hit is one of the share. All that a hit of an audited function costs but for those."""
        return self._chance() < self.share

    def consider(self, call: CachedCall, outcome: Outcome) -> None:
        """Audits the hit that a call was answered from, if it is one of the share. A cached error is not audited."""
        sealed = outcome.sealed
        if self.chosen() and outcome.error is None and sealed is not None and sealed.header is not None:
            hit = ServedEntry(call.key.text, sealed.raw, sealed.header, call.args, call.kwargs)
            if self.function.awaited:
                self.audit_in_task(hit)
            else:
                self.audit_in_thread(hit)

    def audit_in_thread(self, hit: ServedEntry) -> bool:
        """Audits a hit of a plain function in the background; whether there was room. Returns at once, and raises nothing."""
        slot, begun = Slot(), False
        try:
            begun = self._slots.take(slot) and self._submit(lambda: self._run(hit, slot))
        finally:
            if not begun:
                self._slots.leave(slot)
        return begun

    def _run(self, hit: ServedEntry, slot: Slot) -> None:
        waits = False
        try:
            comparison = run(self._differing(hit))
            if comparison is not None:
                closed = self._slots.closed
                self._later(self._grace, lambda: self._wake(hit, comparison, closed, slot))
                waits = True
        finally:
            if not waits:
                self._slots.leave(slot)

    def _wake(self, hit: ServedEntry, comparison: Comparison, closed: int, slot: Slot) -> None:
        # Reading is for the background: the thread that calls this has other things to do in time.
        if closed != self._slots.closed or not self._submit(lambda: self._confirm(hit, comparison, slot)):
            self._slots.leave(slot)

    def _confirm(self, hit: ServedEntry, comparison: Comparison, slot: Slot) -> None:
        try:
            run(self._confirmed(hit, comparison))
        finally:
            self._slots.leave(slot)

    def audit_in_task(self, hit: ServedEntry) -> bool:
        """Audits a hit of a coroutine function in a task of the running loop; whether there was room. Returns at once."""
        slot, begun = Slot(), False
        try:
            if self._slots.take(slot):
                self._slots.occupy(slot, asyncio.get_running_loop().create_task(self._arun(hit)))
                begun = True
        finally:
            if not begun:
                self._slots.leave(slot)
        return begun

    async def _arun(self, hit: ServedEntry) -> None:
        comparison = await arun(self._differing(hit))
        if comparison is not None:
            closed = self._slots.closed
            await asyncio.sleep(self._grace)
            if closed == self._slots.closed:
                await arun(self._confirmed(hit, comparison))

    def _differing(self, hit: ServedEntry) -> Flow[Comparison | None]:
        """Runs the function and compares, where the call still is the one that was answered. None unless they differ."""
        function, began, load_time = self.function, monotonic(), None
        try:
            if function.key(hit.args, hit.kwargs) != hit.key:
                return None
        except Exception:
            return None  # the caller has changed an argument into one that has no key
        try:
            result = yield from function.load(hit.args, hit.kwargs)
            load_time = monotonic() - began
            if isinstance(result, _NOT_CACHED):
                return None
            served_bytes = bytes(function.payload(hit.raw, hit.header))
            same = function.encode(result) == served_bytes
            served = result if same else function.decode(served_bytes)
        except Exception as error:
            self._emit(hit, monotonic() - began if load_time is None else load_time, "no verdict", error)
            return None
        agrees = same or equal(served, result)
        where = "" if agrees else difference(served, result)
        comparison = Comparison(agrees, outline_of(served), outline_of(result), load_time, where)
        if not agrees:
            return comparison
        self._conclude(hit, comparison)
        return None

    def _confirmed(self, hit: ServedEntry, comparison: Comparison) -> Flow[None]:
        """The hit differs, if a call would be answered from the same entry still."""
        try:
            header = yield from self.function.current(hit)
        except Exception as error:
            # A store that does not answer now cannot tell whether the entry was invalidated.
            self._emit(hit, comparison.load_time, "no verdict", error)
            return
        if header is not None and _same(header, hit.header):
            self._conclude(hit, comparison)

    def _conclude(self, hit: ServedEntry, comparison: Comparison) -> None:
        counters = self.function.counters
        counters.audits += 1
        if not comparison.agrees:
            counters.disagreements += 1
        age = max(0.0, wall() - hit.header.created_at)
        words = [f"{'agree' if comparison.agrees else 'differ'}: served {comparison.served}, {age:.3g} s old"]
        if not comparison.agrees:
            words.append(f"source {comparison.source}, 0 s old")
            words.append(f"first difference at {comparison.where}" if comparison.where else "")
        self._emit(hit, comparison.load_time, "; ".join(word for word in words if word))

    def _emit(self, hit: ServedEntry, load_time: float, detail: str, error: Exception | None = None) -> None:
        self.function.emit(
            Event(
                "audit",
                self.function.namespace,
                hit.key,
                load_time=load_time,
                size=len(hit.raw),
                error=error,
                detail=detail,
            )
        )


def _same(header: Header, served: Header) -> bool:
    return (
        header.created_at == served.created_at
        and header.payload_check == served.payload_check
        and header.generation == served.generation
        and header.marks == served.marks
    )
