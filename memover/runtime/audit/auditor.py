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

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from memover.codec.envelope import Header
    from memover.engine.answers import Outcome
    from memover.engine.call import CachedCall
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
    `current` reads entry and tokens again and gives the header of what a call would be answered from now (fresh, its tokens
    unmoved), None where it would not be; it may raise `StoreError`, as `acurrent`, its awaited twin.
    """

    namespace: str
    counters: Counters
    awaited: bool
    """Whether it is an `async def` function, whose `load` is awaited."""

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str: ...
    def payload(self, raw: bytes, header: Header) -> bytes | memoryview: ...
    def encode(self, value: Any) -> bytes: ...
    def decode(self, payload: bytes | memoryview) -> Any: ...
    def load(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any: ...
    def current(self, hit: ServedEntry) -> Header | None: ...
    def acurrent(self, hit: ServedEntry) -> Awaitable[Header | None]: ...
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

    # -- threads -------------------------------------------------------------------------------------------------------

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
            if not self._same_call(hit):
                return
            began = monotonic()
            try:
                result = self.function.load(hit.args, hit.kwargs)
            except Exception as error:
                self._failed(hit, error, monotonic() - began)
                return
            comparison = self._compared(hit, result, monotonic() - began)
            if comparison is None:
                return
            if comparison.agrees:
                self._conclude(hit, comparison)
                return
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
            if self._still(hit, self.function.current(hit)):
                self._conclude(hit, comparison)
        except Exception as error:
            # A store that does not answer now cannot tell whether the entry was invalidated: no verdict.
            self._failed(hit, error, comparison.load_time)
        finally:
            self._slots.leave(slot)

    # -- asyncio -------------------------------------------------------------------------------------------------------

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
        if not self._same_call(hit):
            return
        began = monotonic()
        try:
            result = await self.function.load(hit.args, hit.kwargs)
        except Exception as error:
            self._failed(hit, error, monotonic() - began)
            return
        comparison = self._compared(hit, result, monotonic() - began)
        if comparison is None:
            return
        if not comparison.agrees:
            closed = self._slots.closed
            await asyncio.sleep(self._grace)
            if closed != self._slots.closed:
                return
            try:
                if not self._still(hit, await self.function.acurrent(hit)):
                    return
            except Exception as error:
                self._failed(hit, error, comparison.load_time)
                return
        self._conclude(hit, comparison)

    # -- what both decide by --------------------------------------------------------------------------------------------

    def _same_call(self, hit: ServedEntry) -> bool:
        try:
            return self.function.key(hit.args, hit.kwargs) == hit.key
        except Exception:
            return False  # the caller has changed an argument into one that has no key

    def _compared(self, hit: ServedEntry, result: Any, load_time: float) -> Comparison | None:
        """What comparing shows; None where there is nothing to compare."""
        function = self.function
        if isinstance(result, _NOT_CACHED):
            return None
        try:
            served_bytes = bytes(function.payload(hit.raw, hit.header))
            same = function.encode(result) == served_bytes
            served = None if same else function.decode(served_bytes)
        except Exception as error:
            self._failed(hit, error, load_time)
            return None
        if same:
            shape = outline_of(result)
            return Comparison(True, shape, shape, load_time)
        agrees = equal(served, result)
        where = "" if agrees else difference(served, result)
        return Comparison(agrees, outline_of(served), outline_of(result), load_time, where)

    @staticmethod
    def _still(hit: ServedEntry, header: Header | None) -> bool:
        """Whether the entry is the one that was served, and a call would be answered from it still."""
        return (
            header is not None
            and header.created_at == hit.header.created_at
            and header.payload_check == hit.header.payload_check
            and header.generation == hit.header.generation
            and header.marks == hit.header.marks
            and wall() < hit.header.fresh_until
        )

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

    def _failed(self, hit: ServedEntry, error: Exception, load_time: float) -> None:
        self._emit(hit, load_time, "no verdict", error)

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
