"""The invalidations that decorated functions and caches offer: of a call, of a namespace, of tags.

Each is a flow of `engine.invalidate`, with what this process drops, counts and reports beside it. Those of the key-value
API are in `keyvalue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.engine.invalidate import drop, move
from memover.engine.tokens import parse
from memover.keys.names import check_namespace, generation_key, tag_clock_key, tag_key
from memover.keys.shards import with_shards
from memover.model import Event, Generation
from memover.runtime.nonce import new_nonce
from memover.stores.near import moved

if TYPE_CHECKING:
    from memover.engine.call import CachedCall
    from memover.engine.steps import Flow
    from memover.model import Key
    from memover.runtime.function import Function
    from memover.runtime.state import CacheState

__all__ = ["invalidate_all", "invalidate_call", "invalidate_namespace", "invalidate_tags"]


def invalidate_call(call: CachedCall) -> Flow[None]:
    """Removes one call's entry everywhere, or raises `InvalidationFailed` and goes on trying."""
    function: Any = call.function
    subject = FunctionSubject(function, f"one call of {function.name}", call.key)
    older = [key for _, key in function.older_keys(call.key)]
    yield from drop(function.state, subject, call, new_nonce(), older, function.generation_name)


def invalidate_all(function: Function, soft: bool) -> Flow[Generation]:
    """Moves the namespace to a new generation (softly: its soft mark), or raises `InvalidationFailed` and goes on trying."""
    name, softly = function.generation_name, False
    if soft and function.soft_name is not None:
        name, softly = function.soft_name, True
    what = f"the namespace {function.policy.namespace!r}"
    subject = FunctionSubject(function, what, None, name=name, soft=softly)
    token, *_ = yield from move(function.state, subject, (name,), new_nonce(), along=(function.coarse_name,))
    generation = parse(token)
    assert generation is not None, "the script writes no other"
    return generation


def invalidate_namespace(state: CacheState, name: str) -> Flow[Generation]:
    """Moves a namespace to a new generation, whatever decorates with it."""
    key = generation_key(state.prefix, check_namespace(name)).encode()
    subject = CacheSubject(state, f"the namespace {name!r}", name, (key,))
    tokens = yield from move(state, subject, (key,), new_nonce(), along=(state.coarse_name,))
    generation = parse(tokens[0])
    return generation if generation is not None else Generation(0, tokens[0].decode("latin-1"))


def invalidate_tags(state: CacheState, tags: tuple[str, ...]) -> Flow[None]:
    """Moves tags to new tokens."""
    names = tuple(dict.fromkeys(tag_key(state.prefix, tag).encode() for tag in tags))
    if not names:
        return
    if not state.store.spread:
        # The clock moves first, so that no tag is numbered below it; on Cluster it would be on another node.
        names = (tag_clock_key(state.prefix).encode(), *names)
    subject = CacheSubject(state, f"the tags {', '.join(tags)}", "", names, detail=", ".join(tags))
    yield from move(state, subject, names, new_nonce(), along=(state.coarse_name,))


class FunctionSubject:
    """One call (`key`) or the whole namespace, as an `engine.invalidate.Subject`."""

    def __init__(
        self, function: Function, what: str, key: Key | None, *, name: bytes = b"", soft: bool = False
    ) -> None:
        self.what = what
        self.names: tuple[bytes, ...] = (name,) if key is None else (key.entry,)
        moving = name if key is None else function.call_name(key)
        self._near = (*with_shards((moving,), function.store.generation_shards), function.coarse_name)
        self._function = function
        self._key = key
        self._soft = soft

    def begin(self) -> None:
        """Drops what is near of it, and the last answers that this concerns; a soft invalidation leaves those usable."""
        moved(self._near)
        if not self._soft:
            self._function.forget(None if self._key is None else self._key.entry)

    def failed(self, error: Exception, failure: Exception) -> None:
        """Counts and reports that the store did not acknowledge it."""
        self._function.store_failed(self._key, error)
        self._function.emit("invalidate", self._key, error=failure)

    def done(self) -> None:
        """Counts and reports it."""
        self._function.counters.invalidations += 1
        self._function.emit("invalidate", self._key, detail="soft" if self._soft else "")


class CacheSubject:
    """A namespace or tags, invalidated on the cache: an `engine.invalidate.Subject`."""

    def __init__(
        self, state: CacheState, what: str, namespace: str, names: tuple[bytes, ...], *, detail: str = ""
    ) -> None:
        self.what = what
        self._state = state
        self._namespace = namespace
        self.names = names
        self._detail = detail
        self._near = (*with_shards(names, state.store.generation_shards), state.coarse_name)
        self._functions = [each for each in list(state.functions) if each.policy.namespace == namespace]

    def begin(self) -> None:
        """Drops what is near of it, and the last answers that this concerns."""
        moved(self._near)
        for function in list(self._state.functions):
            if function.generation_name in self.names or function.tags.early or function.late:
                function.forget()

    def failed(self, error: Exception, failure: Exception) -> None:
        """Counts and reports that the store did not acknowledge it."""
        for function in self._functions:
            function.counters.store_errors += 1
        self._state.observers.emit(Event("store-error", self._namespace, "", error=error))
        self._state.observers.emit(Event("invalidate", self._namespace, "", error=failure, detail=self._detail))

    def done(self) -> None:
        """Counts and reports it."""
        for function in self._functions:
            function.counters.invalidations += 1
        self._state.observers.emit(Event("invalidate", self._namespace, "", detail=self._detail))
