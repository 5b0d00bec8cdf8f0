"""A function of the runtime as the auditor needs it: see `auditor.Auditable`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from memover.clocks import wall
from memover.engine.steps import Invoke
from memover.errors import DamagedEntry
from memover.runtime.audit.auditor import Auditor
from memover.runtime.bare import fresh_header
from memover.runtime.dependencies import INSIDE
from memover.runtime.results import evaluating

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memover.codec.envelope import Header
    from memover.engine.steps import Flow
    from memover.model import Event
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

    def load(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Flow[Any]:
        # Not a part of whatever load the audited call was in. Threads and tasks have a context of their own.
        INSIDE.set(None)
        result = yield from Invoke(self._function.function, args, kwargs)
        return (yield from evaluating(result, awaited=self.awaited))

    def current(self, hit: ServedEntry) -> Flow[Header | None]:
        function, key = self._function, self._lookup(*hit.args, **hit.kwargs)
        key = key.asking(tuple(name for name, _ in hit.header.marks if not name.startswith(b"@")))
        seen = yield from function.store.read(key)
        if seen.raw is None or not function.witness.trusts(seen.names, seen.tokens):
            return None
        try:
            return fresh_header(function, key, seen.names, seen.tokens, seen.raw, wall())
        except DamagedEntry:
            return None

    def emit(self, event: Event) -> None:
        if self._function.observers.busy:
            self._function.observers.emit(event)
