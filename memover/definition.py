"""One decorated function before it meets a cache, and the functions it has become on the caches it has met.

The default cache may be configured after the function is decorated, and changed again: a `Definition` finds out on the first
call which cache it is on, and makes (or finds again) the `runtime.function.Function` there.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from memover import default
from memover.codec.base import resolve_codec
from memover.engine.judge import VERSION
from memover.errors import ConfigurationError
from memover.keys.names import check_version, generation_key
from memover.keys.ownership import Claimed, claim
from memover.latch import Latch
from memover.living import Living
from memover.runtime.bare import acached_call, cached_call
from memover.runtime.function import Function
from memover.runtime.state import VERSIONS_LIMIT

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.keys.binding import Binding
    from memover.keys.identity import Identity
    from memover.keys.tags import Tags
    from memover.model import CacheInfo, Key
    from memover.policy import Policy

__all__ = ["Definition", "Resident"]

_moving = Latch()
_declared: Living[Any] = Living()
"""The caches that know of the versions of all functions on the default cache."""


class Resident:
    """A function on one cache: its state there, its arguments' way to keys, and the cached call as it is now."""

    __slots__ = ("call", "function", "lookup")

    call: Callable[..., Any]
    """Set before it is shown to anybody."""

    def __init__(self, function: Function, lookup: Callable[..., Key]) -> None:
        self.function = function
        self.lookup = lookup


class Definition:
    """The function, its policy and its binding; `call` is the cached call, resolved on first use.

    What `show_with` was given is called with each new `call`: the decorated object has it in a slot of its own."""

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
        self._residents: weakref.WeakKeyDictionary[Any, Resident] = weakref.WeakKeyDictionary()
        self._resident: Resident | None = None
        self.takes_class = kind == "plain" and next(iter(binding.parameters), "") == "cls"
        self.loader: Callable[..., Any] | None = None
        self.call: Callable[..., Any] = self._first_call
        self._show: Callable[[Callable[..., Any]], object] | None = None
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
            default.follow(self)
            for known in list(_declared):
                known._state.witness.versions.pop(VERSION + policy.namespace.encode(), None)
                self.declare_version(known)
            if claimed.replaced and cache is None and default.made():
                self.now()  # so that what is to be said of the entries of the earlier one is said here
        else:
            self.now()

    @property
    def cache(self) -> Cache:
        """The cache this function uses now."""
        cache: Cache
        if isinstance(self._cache, str):
            cache = default.named(self._cache)
        else:
            cache = default.current() if self._cache is None else self._cache
        return cache

    def has_cache(self) -> bool:
        """Whether the cache that this function uses is there, without making a default cache or an alias's."""
        return default.made() if self._cache is None else self.alias is None

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
                self._use(resident.call)
            if (self._cache is None or self.alias is not None) and self.cache is not cache:
                self.let_go()  # it has changed in the meantime, and the news of that may have come before
        return resident

    def let_go(self) -> None:
        """The default cache has changed."""
        self._resident = None
        self._use(self._first_call)

    def show_with(self, show: Callable[[Callable[..., Any]], object]) -> None:
        """Has `show(call)` called now, and whenever there is another `call`."""
        self._show = show
        show(self.call)

    def _use(self, call: Callable[..., Any]) -> None:
        self.call = call
        if self._show is not None:
            self._show(call)

    def _install(self, resident: Resident, call: Callable[..., Any]) -> None:
        """A quicker call has been made for a resident."""
        resident.call = call
        with _moving:
            if self._resident is resident:
                self._use(call)
            if self._resident is not resident:  # let go in between, by what does not wait for the lock
                self._use(self._first_call)

    def replaced(self) -> None:
        """Another function has taken its namespace: it claims again before its next call."""
        with _moving:
            self._residents.clear()
            self.let_go()

    def _first_call(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.now().call(*args, **kwargs)

    def _move_in(self, cache: Cache) -> Resident:
        memory = cache._state.memory
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
        codec = self._codec
        if codec is None and self.alias is not None:
            codec = default.codec_of(self.alias)  # also where `using` has put another cache in its place
        if codec is None:
            codec = cache.codec
        codec = resolve_codec(codec, self.function, types=self.policy.cache_errors)
        function = Function(
            self.function, self.name, self.policy, self.binding, codec, self.tags, cache._state, claimed
        )
        function.upgrades = self.upgrades
        function.is_async = self.is_async
        _forget_versions(cache)
        if self._cache is None and cache not in _declared:
            # Those that have not been called too: an entry made of an older version of theirs is not to be served.
            _declared.add(cache)
            for other in default.followers():
                other.declare_version(cache)
        resident = Resident(function, function.lookup())
        make = acached_call if self.is_async else cached_call
        resident.call = make(function, resident.lookup, partial(self._install, resident))
        return resident

    def add_upgrade(self, version: int, upgrade: Any) -> None:
        """Takes a function that turns an entry of an older version into this one's. Raises `ConfigurationError`."""
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
                f"{self.name} is not a coroutine function, so its upgrade cannot be one: make it a def."
            )
        self.upgrades[version] = upgrade

    def declare_version(self, cache: Cache) -> None:
        """Tells a cache of this function's version, unless it knows one of the namespace."""
        mark = VERSION + self.policy.namespace.encode()
        cache._state.witness.versions.setdefault(mark, Claimed(self.identity).token(self.policy.version))

    def info(self) -> CacheInfo:
        """The counters of this function on the cache it uses now."""
        return self.now().function.info()

    def parameters(self) -> dict[str, Any]:
        """The settings as declared, with the cache's defaults filled in."""
        cache = self.cache
        settled = {"ttl": cache.ttl, "wait_timeout": cache.wait_timeout, "lease_ttl": cache.lease_ttl}
        return {name: settled.get(name) if value is ... else value for name, value in self.declared.items()}

    def key_at(self, version: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
        """The names of a call under another version."""
        return self.now().function.lookup(check_version(version))(*args, **kwargs)


def _forgetting(memory: Any, prefix: str, namespace: str) -> Callable[[], object]:
    """What makes a memory store forget a namespace; it does not keep the store alive."""
    reference, name = weakref.ref(memory), generation_key(prefix, namespace).encode()

    def forget() -> None:
        store = reference()
        if store is not None:
            store.tokens.pop(name, None)

    return forget


def _forget_versions(cache: Cache) -> None:
    """Drops the versions of namespaces whose functions are gone, each time as many more have come. `_moving` is held."""
    state = cache._state
    versions = state.witness.versions
    if len(versions) < state.versions_limit:
        return
    live = {function.version_name for function in list(state.functions)}
    if cache in _declared:
        live |= {VERSION + each.policy.namespace.encode() for each in default.followers()}
    for name in list(versions):
        if name not in live:
            versions.pop(name, None)
    state.versions_limit = 2 * len(versions) + VERSIONS_LIMIT


def same_function(one: Any, other: Any) -> bool:
    """Whether two functions are one source, decorated again by a reload."""
    names = ("__module__", "__qualname__")
    return all(getattr(one, name, one) == getattr(other, name, other) for name in names)
