"""A function of the runtime as the auditor needs it: see `auditor.Auditable`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.codec.envelope import read_header
from memover.engine.judge import FRESH, judge
from memover.errors import DamagedEntry
from memover.runtime.audit.auditor import Auditor
from memover.runtime.dependencies import INSIDE
from memover.runtime.results import aevaluated, evaluated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from memover.codec.envelope import Header
    from memover.engine.store import Seen
    from memover.model import Event, Key
    from memover.runtime.audit.auditor import ServedEntry
    from memover.runtime.function import Function

__all__ = ["auditor_of"]


def auditor_of(function: Function) -> Auditor:
    """The auditor of a function whose policy asks for one, on its cache's background."""
    state = function.state
    return Auditor(
        _Subject(function),
        function.policy.audit,
        slots=state.audits,
        submit=state.refreshes.submit,
        later=state.background.later,
    )


async def _evaluated(result: Awaitable[Any]) -> Any:
    return await aevaluated(await result)


class _Subject:
    def __init__(self, function: Function) -> None:
        self._function = function
        self._lookup = function.lookup()
        self.namespace = function.policy.namespace
        self.counters = function.counters
        plain = function.function
        self.awaited = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(
            getattr(type(plain), "__call__", None)  # noqa: B004  # an object with an async __call__
        )

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        text: str = self._lookup(*args, **kwargs).text
        return text

    def payload(self, raw: bytes, header: Header) -> bytes | memoryview:
        return self._function.payload(raw, header)

    def encode(self, value: Any) -> bytes:
        return self._function.encode(value)

    def decode(self, payload: bytes | memoryview) -> Any:
        return self._function.codec.decode(payload)

    def load(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        # Not a part of whatever load the audited call was in. Threads and tasks have a context of their own.
        INSIDE.set(None)
        result = self._function.function(*args, **kwargs)
        return _evaluated(result) if self.awaited else evaluated(result)

    def current(self, hit: ServedEntry) -> Header | None:
        key = self._key(hit)
        return self._judged(key, self._function.store.fetch(key))

    async def acurrent(self, hit: ServedEntry) -> Header | None:
        key = self._key(hit)
        return self._judged(key, await self._function.store.afetch(key))

    def _key(self, hit: ServedEntry) -> Key:
        key: Key = self._lookup(*hit.args, **hit.kwargs)
        return key.asking(tuple(name for name, _ in hit.header.marks if not name.startswith(b"@")))

    def _judged(self, key: Key, seen: Seen) -> Header | None:
        function = self._function
        if seen.raw is None or not function.witness.trusts(seen.names, seen.tokens):
            return None
        try:
            header = read_header(seen.raw, key.entry)
        except DamagedEntry:
            return None
        versions, soft = function.witness.versions, function.soft_name
        fresh = judge(header, seen.names, seen.tokens, wall(), required=key.required, soft=soft, versions=versions)
        return header if fresh is FRESH else None

    def emit(self, event: Event) -> None:
        if self._function.observers.busy:
            self._function.observers.emit(event)
