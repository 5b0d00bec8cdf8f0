"""One decorated function before it meets a cache, and its plans on the caches it has met.

The faces (`cached`) are thin: they bind arguments and hand the flows made here to a driver. A flow that a helper needs
is written once here, for `def` and `async def` functions alike.
"""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from memover import default as config
from memover.codec import resolve_codec
from memover.drivers import aio, sync
from memover.drivers.plan import Plan, new_nonce
from memover.drivers.upgrades import older_keys
from memover.engine import flows
from memover.engine.invalidate import invalidate, move
from memover.engine.judge import VERSION
from memover.engine.ops import Outcome
from memover.engine.tokens import parse
from memover.errors import ConfigurationError, StoreError, failed_invalidation
from memover.keys.names import check_version, generation_key
from memover.keys.ownership import Claimed, claim
from memover.model import CacheInfo, Entry, Generation, Key
from memover.policy import Duration, Policy, seconds_of

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.drivers.site import BaseSite
    from memover.engine.ops import Flow
    from memover.keys.binding import Binding
    from memover.keys.identity import Identity
    from memover.keys.tags import Tags

__all__ = ["Core", "Resident"]


_moving = threading.RLock()
_declared: weakref.WeakSet[Cache] = weakref.WeakSet()
"""The caches that know of the versions of all functions on the default cache."""


def _after_fork_in_child() -> None:
    global _moving  # noqa: PLW0603  # whoever held it in the parent is not here
    _moving = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


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
        tags: Tags,
        cache: Cache | str | None,
        codec: Any,
        declared: Mapping[str, Any],
        is_async: bool,
        kind: str = "plain",
        identity: Identity,
    ) -> None:
        self.function = function
        self.name = name
        self.policy = policy
        self.binding = binding
        self.tags = tags
        self.is_async = is_async
        self.declared = declared
        self.upgrades: dict[int, Callable[[Any], Any]] = {}
        self.identity = identity
        self._codec = codec
        self._cache = cache
        self._residents: weakref.WeakKeyDictionary[Cache, Resident] = weakref.WeakKeyDictionary()
        self._resident: Resident | None = None
        self.takes_class = kind == "plain" and next(iter(binding.parameters), "") == "cls"
        self.loader: Callable[..., Any] | None = None
        self.call: Callable[..., Any] = self._first_call
        self.alias = cache if isinstance(cache, str) else None
        if cache is None or self.alias is not None:
            claimed = claim(
                identity,
                function,
                self,
                store="the default cache" if cache is None else f"the alias {cache}",
                prefix="",
                namespace=policy.namespace,
                version=policy.version,
                kind="later",
            )
            config.follow(self)
            for known in list(_declared):
                known._shared.witness.versions.pop(VERSION + policy.namespace.encode(), None)
                self._declare(known)
            if claimed.replaced and cache is None and config.settled():
                self.now()  # so that what is to be said of the entries of the earlier one is said here
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
            with _moving:
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

    def replaced(self) -> None:
        """Another function has taken its namespace: it claims again before its next call."""
        with _moving:
            self._residents.clear()
            self.let_go()

    def _first_call(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.now().call(*args, **kwargs)

    def _move_in(self, cache: Cache) -> Resident:
        memory = cache._shared.memory
        claimed = claim(
            self.identity,
            self.function,
            self,
            store=cache.address,
            prefix=cache.prefix,
            namespace=self.policy.namespace,
            version=self.policy.version,
            kind="shared" if memory is None else "memory",
            memory=memory,
            forget=None if memory is None else _forgetting(memory, cache.prefix, self.policy.namespace),
        )
        codec = resolve_codec(
            self._codec if self._codec is not None else cache.codec, self.function, types=self.policy.cache_errors
        )
        plan = Plan(self.function, self.name, self.policy, self.binding, codec, self.tags, cache._shared, claimed)
        plan.upgrades = self.upgrades
        if self._cache is None and cache not in _declared:
            # Those that have not been called too: an entry made of an older version of theirs is not to be served.
            _declared.add(cache)
            for other in config.followers():
                other._declare(cache)
        lookup = plan.lookup()
        shell = aio.shell if self.is_async else sync.shell
        return Resident(plan, lookup, shell(plan, lookup))

    def add_upgrade(self, version: int, upgrade: Any) -> None:
        """Take a function that turns an entry of an older version into this one's. Raises `ConfigurationError`."""
        if not callable(upgrade):
            raise ConfigurationError(
                f"{self.name}: upgrade(from_version={version!r}) decorates a function, not {upgrade!r}."
            )
        if check_version(version) >= self.policy.version:
            raise ConfigurationError(
                f"{self.name} has version {self.policy.version}: upgrade(from_version={version}) must name an older one."
            )
        if self.upgrades.get(version, upgrade) is not upgrade and not same_function(self.upgrades[version], upgrade):
            raise ConfigurationError(f"{self.name} has an upgrade from version {version} already: there can be one.")
        if inspect.iscoroutinefunction(upgrade) and not self.is_async:
            raise ConfigurationError(
                f"{self.name} is no coroutine function, so its upgrade cannot be one: make it a def."
            )
        self.upgrades[version] = upgrade

    def _declare(self, cache: Cache) -> None:
        mark = VERSION + self.policy.namespace.encode()
        cache._shared.witness.versions.setdefault(mark, Claimed(self.identity).token(self.policy.version))

    # -- what the helpers do, as flows --------------------------------------------------------------------------------------

    def peeking(self, site: BaseSite, version: int | None = None) -> Flow[Entry | None]:
        """The entry a call would be answered from, or None."""
        plan, key = site.plan, site.key
        if plan.watch.disabled():
            return None
        try:
            terms = site.on_terms()
            found = yield from flows.peek(terms)
        except StoreError:
            if plan.policy.on_store_error == "raise":
                raise
            return None
        if found is None:
            return None
        reading, outcome = found
        if terms.call_name:
            site.hand_on(outcome)
        header = reading.header
        assert header is not None, "an answer was decoded from it"
        generation = parse(header.generation)
        assert generation is not None, "it was trusted"
        tag = f"{plan.shared.prefix}:tag:"
        names = [name.decode() for name, _ in header.marks]
        return Entry(
            outcome.value if outcome.error is None else outcome.error,
            key.text,
            plan.policy.namespace,
            plan.policy.version if version is None else version,
            generation,
            header.created_at,
            header.fresh_until,
            header.usable_until,
            tuple(name[len(tag) :] for name in names if name.startswith(tag)),
            header.size,
            tuple(name for name in names if not name.startswith(tag) and name.encode() != plan.soft_name),
        )

    def putting(self, site: BaseSite, value: Any) -> Flow[None]:
        """Store a value known from elsewhere."""
        if site.plan.watch.disabled():
            return
        outcome = Outcome(value)
        yield from flows.put(site.on_terms(), outcome)
        if outcome.error is not None:
            raise outcome.error

    def invalidating(self, site: BaseSite) -> Flow[None]:
        """Remove one call's entry everywhere, or raise `InvalidationFailed` and go on trying."""
        plan, key, nonce = site.plan, site.key, new_nonce()
        plan.forget(key.entry)
        # Under the call's own token too, which closes what used its result.
        owed = (key.entry, plan.call_name(key))
        before = plan.shared.owing(owed)
        try:
            yield from invalidate(nonce, older=bool(plan.upgrades))
        except StoreError as error:
            shared, along = plan.shared, plan.along(key)
            older = older_keys(plan, key)

            def drop_again() -> None:
                for each in older:
                    shared.store.drop(each.entry, each.lease, nonce, ())
                shared.store.drop(key.entry, key.lease, nonce, along)

            for name in owed:
                shared.owe(name, drop_again)
            failure = failed_invalidation(f"one call of {self.name}", (key.entry,), shared.store.address)
            plan.emit("invalidate", key, error=failure)
            raise failure from error
        plan.witness.doubt(*plan.along(key))
        plan.shared.settled(before)
        plan.counters.invalidations += 1
        plan.emit("invalidate", key)

    def moving(self, site: BaseSite, soft: bool) -> Flow[Generation]:
        """Move the namespace to a new generation (softly: its soft mark), or raise `InvalidationFailed` and go on trying."""
        plan, nonce = site.plan, new_nonce()
        shared = plan.shared
        softly = soft and plan.soft_name is not None
        name = plan.soft_name if softly and plan.soft_name is not None else plan.generation_name
        if not softly:
            plan.forget()
        before = shared.owing((name,))
        try:
            (token,) = yield from move((name,), nonce)
        except StoreError as error:
            shared.owe(name, lambda: shared.bump((name,), nonce))
            failure = failed_invalidation(f"the namespace {plan.policy.namespace!r}", (name,), shared.store.address)
            plan.emit("invalidate", None, error=failure)
            raise failure from error
        shared.witness.trusts((name,), (token,))
        shared.witness.doubt(shared.coarse_name)
        shared.settled(before)
        plan.counters.invalidations += 1
        plan.emit("invalidate", None, detail="soft" if softly else "")
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
            other_shape=counters.other_shape,
            upgrades=counters.upgrades,
            upgrade_errors=counters.upgrade_errors,
            coarse=counters.coarse,
        )

    def parameters(self) -> dict[str, Any]:
        cache = self.cache
        settled = {"ttl": cache.ttl, "wait_timeout": cache.wait_timeout, "lease_ttl": cache.lease_ttl}
        return {**{name: settled.get(name) if value is ... else value for name, value in self.declared.items()}}

    def key_at(self, version: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
        """The names of a call under another version."""
        return self.now().plan.lookup(check_version(version))(*args, **kwargs)


def _forgetting(memory: Any, prefix: str, namespace: str) -> Callable[[], object]:
    """What makes a memory store forget a namespace; it does not keep the store alive."""
    reference, name = weakref.ref(memory), generation_key(prefix, namespace).encode()

    def forget() -> None:
        store = reference()
        if store is not None:
            store.tokens.pop(name, None)

    return forget


def age_of(seconds: Duration) -> float:
    """The checked limit of `max_age`."""
    return seconds_of(seconds, "max_age", zero=True)


def same_function(one: Any, other: Any) -> bool:
    """Whether two functions are one source, decorated again by a reload."""
    names = ("__module__", "__qualname__")
    return all(getattr(one, name, one) == getattr(other, name, other) for name in names)
