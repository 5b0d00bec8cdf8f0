"""`Cache`: a store with a prefix, its limits and its observers, which decorated functions share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from memover import default
from memover.durations import Duration, duration_in, seconds_of
from memover.errors import ConfigurationError, InvalidationFailed, MemoverWarning
from memover.keys.keyvalue import NAMESPACE
from memover.keys.names import check_namespace, check_prefix, check_version
from memover.keyvalue import KeyValueFace
from memover.later import later
from memover.options import at_least, checked, flag, several
from memover.runtime import invalidations
from memover.runtime.observers import Observers
from memover.runtime.run import arun, run
from memover.runtime.state import CacheState
from memover.runtime.tasks import drain
from memover.stores import open_store

if TYPE_CHECKING:
    from types import TracebackType

    from memover.codec.base import Codec
    from memover.decorator import versioned_cache
    from memover.model import CacheInfo, Event, Generation
    from memover.runtime import report as reporting
    from memover.runtime.counters import Counters
else:
    reporting = later(__name__, "memover.runtime.report", "reporting")

__all__ = ["Cache", "FunctionSummary"]


class FunctionSummary(NamedTuple):
    """A decorated function on a cache, as `Cache.functions` lists it."""

    name: str
    namespace: str
    version: int
    cache_info: Callable[[], CacheInfo]
    counters: Counters


class Cache(KeyValueFace):
    """A place where decorated functions keep their results: a store, a prefix, and what they share.

    Constructing one opens no connection. Threads, event loops and forked children may use one object at the same time.

    * `url`: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://host:port/db`, `rediss://…`, `unix:///path/redis.sock?db=0`,
      `redis+cluster://h1:7000,h2:7001`, `redis+sentinel://h1:26379,h2:26379/service?db=0`; `valkey…` spellings are
      synonyms. Credentials as in redis-py's URLs (`redis://user:password@host`); for Sentinel itself
      `?sentinel_username=…&sentinel_password=…`.
    * `prefix` keeps environments and projects apart in one Redis: letters, digits, `_ . -`.
    * `version`: the default version of the key-value API; decorated functions state their own.
    * `ttl` (5 minutes): for functions that state none: seconds, `timedelta`, `"1h30m"`, None for never.
    * `codec`: for functions that state none: None for memover's own, or an object with `encode` and `decode`.
    * `observers`: callables that take an `Event`; one that raises is logged once and breaks nothing.

    Options, all keyword-only:

    * `max_entries` (10,000): entries in a memory store; what is not asked for again leaves first (SIEVE).
    * `max_bytes` (1 GiB): the size of a SQLite file in bytes; expired entries leave first, then the least recently used. An entry
      of more than half of it is returned and not stored.
    * `max_entry_bytes` (64 MiB): a longer entry is returned to its callers and not stored: counted (`too_large`), with one
      warning per function.
    * `socket_timeout` (0.25 s): the longest any answer of the store is waited for; a call adds no more than this to
      its function when the store is silent, and far less while the circuit is open.
    * `socket_connect_timeout` (0.25 s): the longest a connection may take to be made.
    * `max_connections` (64): connections per server and process, and per event loop.
    * `breaker_first` (0.25 s): how long a silent store is left alone at first; longer each time it fails again.
    * `breaker_last` (2 s): how long a silent store is left alone at most.
    * `wait_replicas` (0): how many replicas each invalidation waits for (Redis `WAIT`), within three fifths of
      `socket_timeout`. `Generation.replicas` says how many had it; fewer than asked for is no error and is logged once.
      It narrows the window in which a failover loses an invalidation, and does not close it.
    * `generation_shards` (1): on a Cluster, in how many keys each namespace's generation stands that calls read: they spread
      over the nodes, so that no single one is read by every hit of a large fleet. An invalidation moves all of them before
      it returns. From 1 to 1,024; about as many as there are primaries. Other stores have one place, and it changes nothing.
    * `wait_timeout` (30 s): how long a call waits for another's load; can be set per function.
    * `lease_ttl` (10 s): how long a dead loader holds others up; can be set per function.
    * `compress_from` (4,096 bytes): encoded results from this size on are compressed; None: never.
    * `expanded_limit` (512 MiB): the greatest size in bytes that an entry may come to when it is read; a result that would come to
      more is returned and not stored, as with `max_entry_bytes`. Nor may a compressed one come to more than 256 MiB or 64
      times its stored size, whichever is more: what compresses further is stored without compression.
    * `on_unencodable` ("raise"): what happens to a result that cannot be kept faithfully: raise `UnencodableValue`,
      or "return" it unstored, counted and warned of once per function.
    * `background_workers` (4): refreshes that run behind their callers at a time; as many again wait for their turn.
    * `near_max_entries` (10,000): how many entries this process's near cache holds, for all functions with `near=`. What is not
      asked for again leaves first (SIEVE), so a scan does not empty it.
    * `near_max_bytes` (64 MiB): how many bytes the entries of the near cache may take together, as estimated; the limit
      that is reached first counts.
    * `report` (None: never, unless `MEMOVER_REPORT` says otherwise): how often this process publishes its functions' totals
      for `memover top` and `memover serve`; a duration, one small command each time. Nothing on a memory store.
    * `enabled` (True, unless `MEMOVER_DISABLED=1`): False makes every call run its function; invalidations still reach
      the store, because other processes may have caching on.
    * `key_function` (None): for the key-value API, a callable `(key, prefix, version) -> str` that makes the stored key
      instead of `prefix:version:key`, as Django's KEY_FUNCTION.
    * `on_set_error` ("raise"): what `set` and `set_many` do when the store has not acknowledged them: raise `StoreError`,
      or "forget" the value: this process then serves nothing under the key, and what was stored before is removed as
      soon as the store is back. Right for pages and fragments, wrong for sessions.

    Raises `ConfigurationError` if an option has no meaning or options contradict each other.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        prefix: str = "memover",
        version: int = 1,
        ttl: Duration = 300,
        codec: Codec | None = None,
        observers: Iterable[Callable[[Event], object]] = (),
        max_entries: int = 10_000,
        max_entry_bytes: int = 64 * 1024 * 1024,
        max_bytes: int | None = None,
        socket_timeout: float = 0.25,
        socket_connect_timeout: float = 0.25,
        max_connections: int = 64,
        breaker_first: Duration = 0.25,
        breaker_last: Duration = 2.0,
        wait_replicas: int = 0,
        generation_shards: int = 1,
        wait_timeout: Duration = 30.0,
        lease_ttl: Duration = 10.0,
        compress_from: int | None = 4096,
        expanded_limit: int = 512 * 1024 * 1024,
        on_unencodable: Literal["raise", "return"] = "raise",
        background_workers: int = 4,
        near_max_entries: int = 10_000,
        near_max_bytes: int = 64 * 1024 * 1024,
        report: Duration = None,
        enabled: bool | None = None,
        key_function: Callable[[str, str, int], str] | None = None,
        on_set_error: Literal["raise", "forget"] = "raise",
    ) -> None:
        self.prefix = self._check_prefix(prefix)
        self.version = check_version(version)
        self.ttl = seconds_of(ttl, "ttl")
        if codec is not None:
            from memover.codec.base import resolve_codec

            resolve_codec(codec)  # so that a wrong one is refused here, and not at the first decoration
        self.codec = codec
        self.wait_timeout = seconds_of(wait_timeout, "wait_timeout", zero=True, never=False)
        self.lease_ttl = seconds_of(lease_ttl, "lease_ttl", never=False)
        if on_unencodable not in ("raise", "return"):
            raise ConfigurationError(f'on_unencodable={on_unencodable!r}: give "raise" or "return".')
        observers = several(observers, "observers", "(print,)")
        for observer in observers:
            if not callable(observer):
                raise ConfigurationError(
                    f"The observer {observer!r} is not callable: give callables that take an Event."
                )
        if not isinstance(url, str):
            meant = f"sqlite:///{url}" if isinstance(url, os.PathLike) else "redis://localhost:6379/0"
            raise ConfigurationError(f"The store's URL must be text such as {meant!r}, not {url!r}.")
        store = open_store(
            url,
            max_entries=at_least(1, max_entries, "max_entries"),
            socket_timeout=seconds_of(socket_timeout, "socket_timeout", never=False),
            socket_connect_timeout=seconds_of(socket_connect_timeout, "socket_connect_timeout", never=False),
            max_connections=at_least(1, max_connections, "max_connections"),
            breaker_first_seconds=seconds_of(breaker_first, "breaker_first", never=False),
            breaker_last_seconds=seconds_of(breaker_last, "breaker_last", never=False),
            wait_replicas=wait_replicas,
            generation_shards=generation_shards,
            max_bytes=None if max_bytes is None else at_least(1, max_bytes, "max_bytes"),
        )
        if enabled is None:
            enabled = os.environ.get("MEMOVER_DISABLED", "").lower() not in ("1", "true", "yes", "on")
        self._state = CacheState(
            prefix=self.prefix,
            default_ttl=self.ttl,
            wait_timeout=self.wait_timeout,
            lease_ttl=self.lease_ttl,
            observers=Observers(observers, enabled=flag(enabled, "enabled")),
            store=store,
            max_entries=at_least(1, max_entries, "max_entries"),
            max_entry_bytes=at_least(1, max_entry_bytes, "max_entry_bytes"),
            compress_from_bytes=1 << 62 if compress_from is None else at_least(1, compress_from, "compress_from"),
            expanded_bytes_limit=at_least(1, expanded_limit, "expanded_limit"),
            on_unencodable=on_unencodable,
            background_workers=at_least(1, background_workers, "background_workers"),
            near_max_entries=at_least(1, near_max_entries, "near_max_entries"),
            near_max_bytes=at_least(1, near_max_bytes, "near_max_bytes"),
        )
        if report is None and (text := os.environ.get("MEMOVER_REPORT")):
            report = duration_in(text)
        if report is not None:
            interval = seconds_of(report, "report", never=False)
            if not store.local:
                self._state.reporter = reporting.Reporter(self._state, interval)
                self._state.reporter.start()
        if key_function is not None and not callable(key_function):
            raise ConfigurationError("key_function= takes a callable (key, prefix, version) -> str.")
        self._key_function = key_function
        if on_set_error not in ("raise", "forget"):
            raise ConfigurationError(f'on_set_error={on_set_error!r}: give "raise" or "forget".')
        self._forget_failed_sets = on_set_error == "forget"

    if not TYPE_CHECKING:
        __init__ = checked("Cache", 'Cache("redis://localhost:6379/0", prefix="shop")')(__init__)

    _check_prefix = staticmethod(check_prefix)

    @property
    def address(self) -> str:
        """Where the store is, without credentials."""
        return self._state.store.address

    def __repr__(self) -> str:
        return f"<Cache {self.address} prefix={self.prefix!r}>"

    # -- decorating -----------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:
        versioned = staticmethod(versioned_cache)  # typed exactly as it
    else:

        def versioned(self, *args: Any, **options: Any) -> Any:
            """`versioned_cache(..., cache=self)`."""
            from memover.decorator import versioned_cache

            return versioned_cache(*args, cache=self, **options)

    # -- invalidating ---------------------------------------------------------------------------------------------------

    def invalidate_namespace(self, name: str) -> Generation:
        """Moves a namespace to a new generation, whatever decorates with it: every entry, all versions. One round trip.

        Raises `InvalidationFailed` when the store does not acknowledge it; it is then repeated until it does. Warns
        (`MemoverWarning`) of a name that no function of this process has, where it has functions: it may be misspelt."""
        self._check_known(name)
        return run(invalidations.invalidate_namespace(self._state, name))

    async def ainvalidate_namespace(self, name: str) -> Generation:
        """`invalidate_namespace`, awaited."""
        self._check_known(name)
        return await arun(invalidations.invalidate_namespace(self._state, name))

    def invalidate_tags(self, *tags: str) -> None:
        """Invalidates every result that carries one of these tags, across functions, versions and processes.

        One round trip (Cluster: two, side by side on the nodes). Raises `InvalidationFailed` when the store does not
        acknowledge it, and repeats it until it does; `ConfigurationError` for a tag that is not text."""
        run(invalidations.invalidate_tags(self._state, tags))

    async def ainvalidate_tags(self, *tags: str) -> None:
        """`invalidate_tags`, awaited."""
        await arun(invalidations.invalidate_tags(self._state, tags))

    def _check_known(self, name: str) -> None:
        check_namespace(name)
        known = {each.policy.namespace for each in list(self._state.functions)} - {NAMESPACE}
        if not known or name in known:
            return
        known.update(each.policy.namespace for each in default.followers())
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "it is invalidated all the same, for other processes."
            warnings.warn(
                f"No function of this process has the namespace {name!r}: {hint}", MemoverWarning, stacklevel=3
            )

    # -- observing ------------------------------------------------------------------------------------------------------

    def functions(self) -> list[FunctionSummary]:
        """The decorated functions on this cache in this process, by namespace. No round trip."""
        found = [
            FunctionSummary(each.name, each.policy.namespace, each.policy.version, each.info, each.counters)
            for each in list(self._state.functions)
            if each.policy.namespace != NAMESPACE
        ]
        return sorted(found, key=lambda each: (each.namespace, each.version))

    @contextmanager
    def disabled(self) -> Generator[None, None, None]:
        """Inside, every call of this context runs its function; nothing is read or written.

        It holds for the current context (`contextvars`): the tasks and `asyncio.run` begun inside, not other threads."""
        with self._state.observers.disabling():
            yield

    @contextmanager
    def detect(self) -> Generator[list[Event], None, None]:
        """Collects the lookups made inside: `Event`s with `namespace`, `key`, `source` and times, in order of completion.

        It holds for the current context (`contextvars`), like `disabled`."""
        lookups: list[Event] = []
        with self._state.observers.recording(lookups):
            yield lookups

    # -- ending ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for refreshes under way, repeats unacknowledged invalidations, then closes the connections of this process's threads.

        The cache may be used again afterwards; it opens what it needs. Raises `InvalidationFailed` if the store still
        does not acknowledge one: other processes may go on reading what it invalidates."""
        state = self._state
        if state.reporter is not None:
            state.reporter.stop()
        state.audits.closed += 1
        state.refreshes.drain()
        try:
            if not state.settle():
                names = tuple(name.decode() for name in state.witness.owed)
                raise InvalidationFailed(
                    f"{self.address} has not acknowledged the invalidation of {', '.join(names)} by the time of close(): "
                    f"other processes may serve old entries. Invalidate again when the store is back.",
                    what=names,
                    store=self.address,
                )
        finally:
            if state.heart is not None:
                state.heart.close()
            state.store.close()

    async def aclose(self) -> None:
        """`close`, and the connections of the running event loop too."""
        await drain(self._state)
        try:
            self.close()
        finally:
            await self._state.store.aclose()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Cache:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
