"""One decorated function before it meets a cache, and its plans on the caches it has met.

The faces (`cached`) are thin: they bind arguments and hand the flows made here to a driver. A flow that a helper needs
is written once here, for `def` and `async def` functions alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from memover import config
from memover.cache import failed_invalidation
from memover.codec import resolve_codec
from memover.drivers import aio, sync
from memover.drivers.plan import Plan, new_nonce
from memover.engine import flows
from memover.engine.generations import parse
from memover.engine.ops import Outcome
from memover.errors import StoreError
from memover.keys.naming import check_version
from memover.model import CacheInfo, Entry, Generation, Key
from memover.policy import Duration, Policy, seconds_of
from memover.registry import claim

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.engine.ops import Flow
    from memover.keys.binding import Binding

__all__ = ["Core", "Resident"]


class Resident(NamedTuple):
    """A function at home on one cache: its plan, its arguments' way to keys, and the cached call."""

    plan: Plan
    lookup: Callable[..., Key]
    call: Callable[..., Any]


class Core:
    """The function, its policy and its binding; `call` is the cached call, resolved on first use."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        policy: Policy,
        binding: Binding,
        *,
        cache: Cache | str | None,
        codec: Any,
        declared: Mapping[str, Any],
        is_async: bool,
    ) -> None:
        self.function = function
        self.name = name
        self.policy = policy
        self.binding = binding
        self.is_async = is_async
        self.declared = declared
        self._codec = codec
        self._cache = cache
        self._residents: weakref.WeakKeyDictionary[Cache, Resident] = weakref.WeakKeyDictionary()
        self._resident: Resident | None = None
        self.call: Callable[..., Any] = self._first_call
        self.alias = cache if isinstance(cache, str) else None
        if cache is None or self.alias is not None:
            claim("the default cache" if cache is None else f"the alias {cache}", "", policy.namespace, function, self)
            config.follow(self)
        else:
            self.now()

    @property
    def cache(self) -> Cache:
        """The cache this function uses now."""
        if isinstance(self._cache, str):
            return config.named(self._cache)
        return config.default_cache() if self._cache is None else self._cache

    def now(self) -> Resident:
        """The function on the cache it uses now. Raises `ConfigurationError` when its namespace is taken there."""
        resident = self._resident
        if resident is None:
            cache = self.cache
            resident = self._residents.get(cache)
            if resident is None:
                resident = self._residents[cache] = self._move_in(cache)
            self._resident = resident
            self.call = resident.call
        return resident

    def let_go(self) -> None:
        """The default cache has changed."""
        self._resident = None
        self.call = self._first_call

    def _first_call(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.now().call(*args, **kwargs)

    def _move_in(self, cache: Cache) -> Resident:
        claim(cache.address, cache.prefix, self.policy.namespace, self.function, self)
        codec = resolve_codec(self._codec if self._codec is not None else cache.codec, self.function)
        plan = Plan(self.function, self.name, self.policy, self.binding, codec, cache._shared)
        lookup = self.binding.compile(plan.key)
        shell = aio.shell if self.is_async else sync.shell
        return Resident(plan, lookup, shell(plan, lookup))

    # -- what the helpers do, as flows --------------------------------------------------------------------------------------

    def peeking(self, plan: Plan, key: Key, version: int | None = None) -> Flow[Entry | None]:
        """The entry a call would be answered from, or None."""
        if plan.watch.disabled():
            return None
        try:
            found = yield from flows.peek(plan.terms(key))
        except StoreError:
            if plan.policy.on_store_error == "raise":
                raise
            return None
        if found is None:
            return None
        reading, outcome = found
        header = reading.header
        assert header is not None, "an answer was decoded from it"
        generation = parse(header.generation)
        assert generation is not None, "it was trusted"
        prefix = len(plan.shared.prefix) + len(":tag:")
        return Entry(
            outcome.value,
            key.text,
            plan.policy.namespace,
            plan.policy.version if version is None else version,
            generation,
            header.created_at,
            header.fresh_until,
            header.usable_until,
            tuple(name.decode()[prefix:] for name, _ in header.marks),
            header.size,
        )

    def putting(self, plan: Plan, key: Key, value: Any) -> Flow[None]:
        """Store a value known from elsewhere."""
        if plan.watch.disabled():
            return
        outcome = Outcome(value)
        yield from flows.put(plan.terms(key), outcome)
        if outcome.error is not None:
            raise outcome.error

    def invalidating(self, plan: Plan, key: Key) -> Flow[None]:
        """Remove one call's entry everywhere, or raise `InvalidationFailed` and go on trying."""
        plan.forget(key.entry)
        try:
            yield from flows.invalidate()
        except StoreError as error:
            shared = plan.shared
            shared.owe(key.entry, lambda: shared.store.drop(key.entry, key.lease))
            failure = failed_invalidation(f"one call of {self.name}", key.entry, shared.store.address)
            plan.emit("invalidate", key, error=failure)
            raise failure from error
        plan.shared.settled(key.entry)
        plan.counters.invalidations += 1
        plan.emit("invalidate", key)

    def moving(self, plan: Plan) -> Flow[Generation]:
        """Move the namespace to a new generation, or raise `InvalidationFailed` and go on trying."""
        plan.forget()
        shared, name, nonce = plan.shared, plan.generation_name, new_nonce()

        def bump_again() -> None:
            shared.witness.trusts((name,), (shared.store.bump(name, nonce, shared.witness.floor(name)),))

        try:
            token = yield from flows.invalidate_all(nonce)
        except StoreError as error:
            shared.owe(name, bump_again)
            failure = failed_invalidation(f"the namespace {plan.policy.namespace!r}", name, shared.store.address)
            plan.emit("invalidate", None, error=failure)
            raise failure from error
        shared.witness.trusts((name,), (token,))
        shared.settled(name)
        plan.counters.invalidations += 1
        plan.emit("invalidate", None)
        generation = parse(token)
        assert generation is not None, "the script writes no other"
        return generation

    # -- what needs no store --------------------------------------------------------------------------------------------

    def info(self) -> CacheInfo:
        plan = self.now().plan
        counters, memory = plan.counters, plan.shared.memory
        return CacheInfo(
            counters.hits,
            counters.misses,
            None if memory is None else memory.max_entries,
            None if memory is None else len(memory.items),
            loads=counters.loads,
            waits=counters.waits,
            stale=counters.stale,
            bypasses=counters.bypasses,
            load_errors=counters.load_errors,
            stores=counters.stores,
            refused_stores=counters.refused_stores,
            store_errors=counters.store_errors,
            damaged=counters.damaged,
            unencodable=counters.unencodable,
            invalidations=counters.invalidations,
        )

    def parameters(self) -> dict[str, Any]:
        cache = self.cache
        settled = {"ttl": cache.ttl, "wait_timeout": cache.wait_timeout, "lease_ttl": cache.lease_ttl}
        return {**{name: settled.get(name) if value is ... else value for name, value in self.declared.items()}}

    def key_at(self, version: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
        """The names of a call under another version."""
        return self.now().plan.key(self.binding.text(*args, **kwargs), check_version(version))


def age_of(seconds: Duration) -> float:
    """The checked limit of `max_age`."""
    return seconds_of(seconds, "max_age", zero=True)
