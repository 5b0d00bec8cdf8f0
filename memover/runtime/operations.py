"""What a decorated function's `peek`, `set` and `refresh` do, as flows: written once, for `def` and `async def` functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from memover.engine import reading, replace
from memover.engine.answers import Outcome
from memover.engine.invalidate import bumped
from memover.engine.tokens import parse
from memover.errors import StoreError
from memover.keys.names import tag_of
from memover.keys.shards import unsharded
from memover.model import Entry, etag_of
from memover.runtime.invalidations import invalidate_call
from memover.runtime.nonce import new_nonce
from memover.runtime.results import evaluating
from memover.stores.near import moved

if TYPE_CHECKING:
    from memover.engine.answers import Sealed
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow

__all__ = ["peek", "put", "refresh"]

T = TypeVar("T")


def peek(call: CachedCall, version: int | None = None) -> Flow[Entry | None]:
    """The entry a call would be answered from, or None. `version` is that of the call's key, if it is not the function's."""
    function: Any = call.function
    if function.observers.disabled():
        return None
    try:
        found = yield from reading.peek(call)
    except StoreError as error:
        function.store_failed(call.key, error)
        if function.policy.on_store_error == "raise":
            raise
        return None
    if found is None:
        return None
    entry, outcome = found
    call.hand_on(outcome)
    header = entry.header
    assert header is not None, "an answer was decoded from it"
    generation = parse(header.generation)
    assert generation is not None, "it was trusted"
    names = [name.decode() for name, _ in header.marks]
    tags = {name: tag_of(function.state.prefix, name) for name in names}
    return Entry(
        outcome.value if outcome.error is None else outcome.error,
        call.key.text,
        function.policy.namespace,
        function.policy.version if version is None else version,
        generation,
        header.created_at,
        header.fresh_until,
        header.usable_until,
        tuple(tag for tag in tags.values() if tag is not None),
        header.size,
        tuple(name for name in names if tags[name] is None and unsharded(name.encode()) != function.soft_name),
        etag_of(
            header.key,
            header.payload_check,
            header.size - header.payload_at,
            f"{header.kind} {header.codec} {header.compression}",
        ),
    )


def put(call: CachedCall, value: Any) -> Flow[None]:
    """Stores a value known from elsewhere. If it is not to be stored, the entry is removed, because it is no longer the result."""
    function: Any = call.function
    if function.observers.disabled():
        return
    outcome = Outcome((yield from evaluating(value, awaited=function.is_async)))
    try:
        stored = yield from _replacing(call, replace.put(call, outcome))
    except StoreError as error:
        function.store_failed(call.key, error)
        raise
    if outcome.error is not None:
        raise outcome.error
    if not stored:
        yield from invalidate_call(call)


def refresh(call: CachedCall) -> Flow[Outcome]:
    """Runs the function now and stores what it returns."""
    outcome = yield from _replacing(call, replace.refresh(call))
    if call.function.near is not None and call.call_name and outcome.sealed is not None:  # type: ignore[attr-defined]
        yield from _as_stored(call, outcome.sealed)
    return outcome


def _as_stored(call: CachedCall, sealed: Sealed) -> Flow[None]:
    """Has the load that asked for this refresh depend on the entry as it stands now.

    The call's own token has moved since its lease was taken, with the entry before it: what carries the older token is never served.
    The newer one may be of an invalidation that came between. So it counts only where the entry is found with it, as for a hit."""
    captured = call.call_token
    try:
        reading = yield from call.read()
    except StoreError as error:
        call.call_token = captured
        call.function.store_failed(call.key, error)
        return
    if not call.spread:
        call.call_token = reading.token(call.call_name)
    if reading.raw != sealed.raw:
        call.call_token = captured


def _replacing(call: CachedCall, flow: Flow[T]) -> Flow[T]:
    """Replaces an entry that may be fresh. Near caches hold the entry before it under the call's own token, which moves
    with it: one more round trip, for functions with `near=` alone. What is not acknowledged is repeated."""
    function: Any = call.function
    if function.near is None:
        return (yield from flow)
    name, nonce = function.call_name(call.key), new_nonce()

    def bump() -> Flow[object]:
        return bumped(function.state, (name,), nonce, (function.coarse_name,))

    moved((name,))
    try:
        answer = yield from flow
        try:
            yield from bump()
        except StoreError as error:
            function.store_failed(call.key, error)
            function.state.owe(name, bump)
    finally:
        moved((name,))
    return answer
