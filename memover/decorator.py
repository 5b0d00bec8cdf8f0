"""`versioned_cache`: from a function and its options to a decorated function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, final, overload

from memover.durations import seconds_of
from memover.errors import ConfigurationError
from memover.keys.names import check_namespace, check_version
from memover.later import later
from memover.options import checked, flag, several

if TYPE_CHECKING:
    from types import EllipsisType

    from memover import policy as policies
    from memover import wrapping
    from memover.cache import Cache
    from memover.cached import AsyncCachedFunction, CachedFunction, VersionView
    from memover.codec.base import Codec
    from memover.durations import Duration
    from memover.model import Call, Entry
    from memover.policy import OnStoreError
else:
    wrapping = later(__name__, "memover.wrapping")
    policies = later(__name__, "memover.policy", "policies")

__all__ = ["Decorator", "versioned_cache"]

P = ParamSpec("P")
T = TypeVar("T")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
U = TypeVar("U")
I = TypeVar("I", contravariant=True)  # noqa: E741  # an instance

MYPY = False
"""mypy takes this name for true. It asks descriptors where others do not, and cannot take a generic function's parameters
apart, so what is written for the others is not for it."""


@final
class Nothing:
    """What no function returns: only a function whose result is a type variable, or Any, passes for one that does."""

    def __init__(self) -> None:
        raise TypeError


F = TypeVar("F", bound="Callable[..., Nothing]")
H = TypeVar("H", bound="Callable[..., Any]", covariant=True)


class Method(Protocol[I, Q, R]):
    """To type checkers, a function whose first parameter is called `self`: names of parameters count between protocols."""

    def __call__(
        _,  # noqa: N805  # pyright: ignore[reportSelfClsParameterName]  # `self` is the function's own
        self: I,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...


if TYPE_CHECKING:

    class OpenCachedFunction(CachedFunction[..., Any], Generic[H]):
        """To type checkers, a decorated `def` function whose result is a type variable or Any: calls keep its types."""

        @property
        def __call__(self) -> H: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        @property
        def refresh(self) -> H: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        @property
        def bypass(self) -> H: ...  # pyright: ignore[reportIncompatibleMethodOverride]

        def max_age(self, seconds: Duration) -> H: ...

        if MYPY:

            @overload
            def __get__(self, instance: None, owner: Any) -> OpenCachedFunction[H]: ...
            @overload
            def __get__(self, instance: Any, owner: Any) -> CachedFunction[..., Any]: ...
            def __get__(self, instance: Any, owner: Any = None) -> Any: ...  # pyright: ignore[reportRedeclaration]

        else:

            def key(self: OpenCachedFunction[Callable[Q, Any]], /, *args: Q.args, **kwargs: Q.kwargs) -> str: ...
            def peek(
                self: OpenCachedFunction[Callable[Q, Any]], /, *args: Q.args, **kwargs: Q.kwargs
            ) -> Entry | None: ...
            def set(
                self: OpenCachedFunction[Callable[Q, Any]], value: Any, /, *args: Q.args, **kwargs: Q.kwargs
            ) -> None: ...
            def invalidate(
                self: OpenCachedFunction[Callable[Q, Any]], /, *args: Q.args, **kwargs: Q.kwargs
            ) -> None: ...
            def at(self: OpenCachedFunction[Callable[Q, Any]], version: int) -> VersionView[Q]: ...
            @overload
            def __get__(self, instance: None, owner: Any) -> OpenCachedFunction[H]: ...
            @overload
            def __get__(
                self: OpenCachedFunction[Callable[Concatenate[S, Q], U]], instance: Any, owner: Any
            ) -> OpenCachedFunction[Callable[Q, U]]: ...
            def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    # As they stand in a class, before `__get__` is asked. pyright compares these with a protocol's method and with the method
    # of a base class, so they do not name the class that they stand in. Their `__call__` serves as a method's, which has no
    # `self`, and as what `property` wraps, which has: overloads would say so, but pyright's `property` takes none.

    class CachedMethod(CachedFunction[Q, R]):
        """To type checkers, a decorated method as it stands in its class."""

        def __call__(self, /, *args: Any, **kwargs: Any) -> R: ...
        @overload
        def __get__(self, instance: None, owner: type[S]) -> CachedFunction[Concatenate[S, Q], R]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> CachedFunction[Q, R]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    class AsyncCachedMethod(AsyncCachedFunction[Q, R]):
        """To type checkers, a decorated `async def` method as it stands in its class."""

        async def __call__(self, /, *args: Any, **kwargs: Any) -> R: ...
        @overload
        def __get__(self, instance: None, owner: type[S]) -> AsyncCachedFunction[Concatenate[S, Q], R]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> AsyncCachedFunction[Q, R]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...  # pyright: ignore[reportIncompatibleMethodOverride]


class Decorator(Protocol):
    """What `versioned_cache(...)` returns: it keeps the function's types, awaited ones included."""

    # A generic function could return a coroutine as well as anything else, and so could one that returns Any: they are
    # caught first. Methods come before other functions, and coroutine functions, which are functions too, before the rest:
    # the first that fits is meant.
    if not MYPY:

        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, function: Method[Any, Q, Nothing], /
        ) -> CachedMethod[Q, Any]: ...

    @overload
    def __call__(self, function: F, /) -> OpenCachedFunction[F]: ...

    if not MYPY:

        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, function: Method[Any, Q, Coroutine[Any, Any, T]], /
        ) -> AsyncCachedMethod[Q, T]: ...
        @overload
        def __call__(self, function: Method[Any, Q, T], /) -> CachedMethod[Q, T]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncCachedFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...


def versioned_cache(
    *,
    namespace: str,
    version: int = 1,
    ttl: Duration | EllipsisType | Callable[[Any, Call], Duration] = ...,
    cache: Cache | str | None = None,
    key: str | Callable[..., Any] | None = None,
    ignore: Iterable[str] = (),
    tags: str | Callable[..., Iterable[str]] | Iterable[str | Callable[..., Iterable[str]]] = (),
    cache_if: Callable[[Any, Call], bool] | None = None,
    cache_errors: type[Exception] | Iterable[type[Exception]] = (),
    error_ttl: Duration = 10.0,
    jitter: float = 0.0,
    stale_while_revalidate: Duration = 0,
    stale_if_error: Duration = 0,
    early_refresh: bool | float = False,
    soft_timeout: Duration = None,
    on_store_error: OnStoreError = "load",
    wait_timeout: Duration | EllipsisType = ...,
    lease_ttl: Duration | EllipsisType = ...,
    codec: Codec | str | None = None,
    near: bool | Duration = None,
    track_dependencies: bool = True,
    audit: float = 0.0,
    follow_code: bool = False,
) -> Decorator:
    """Decorates a function so that equal calls share one result, in every process, until it is invalidated.

    Arguments become a key under `prefix:version:namespace`; results live in the cache's store. `def` and `async def`
    functions, methods, classmethods, staticmethods (in either order of decorators) and callables are decorated
    alike; generators are refused. The decorated function keeps its types and gains the helpers of
    `CachedFunction` or `AsyncCachedFunction`.

    * `namespace`: letters, digits, `_ . - /`; one function per prefix and namespace.
    * `version`: a positive int, raised when the meaning or the shape of the result changes.
    * `ttl`: how long a result stays fresh: seconds, `timedelta`, `"1h30m"`, None for never, or a callable
      `(result, call) -> ttl` that is asked after each load; 0 or less from it means "do not store". Default: the cache's, which is 5 minutes.
    * `cache`: the `Cache` to use; default: the one `configure` sets, now or later. In a Django project also the name of
      an alias of `CACHES` whose backend is `memover.django.MemoverCache`.
    * `key`: what identifies a call instead of all its arguments: a template over parameter names
      (`"{user_id}:{region}"`) or a callable that takes the function's own arguments.
      Without `key`, every argument counts by its value: all fields of a dataclass, those with `compare=False` and
      `init=False` too, because the function sees them. A parameter whose default is a bare `object()` may be left out.
    * `ignore`: names of parameters left out of the key.
    * `tags`: what else invalidates a result: templates over parameter names (`"user:{user_id}"`), callables
      `(call) -> Iterable[str]`, or callables `(call, result) -> Iterable[str]` for tags known only from the result. At most 16
      on one result. On Redis Cluster, a result whose late tags are new to this process is stored from its second load on.
    * `cache_if`: a callable `(result, call) -> bool`: a result is stored only where it answers true. Without it None is a result
      like any other.
    * `cache_errors`: classes of exceptions that are results too: cached for `error_ttl` and raised again, in kind.
    * `error_ttl` (10 s): how long a cached error is raised again.
    * `stale_while_revalidate`: how long after its ttl an entry is still served while one caller's refresh runs behind.
    * `stale_if_error`: how long after its ttl an entry is still served when the function raises.
    * `early_refresh`: True, or a beta: some reader refreshes a hot entry behind the others before it ends, the earlier the
      longer the load takes (XFetch), so that nobody waits when it ends.
    * `soft_timeout`: how long a call waits for a load while it has a stale entry (within `stale_if_error`) to serve instead;
      the load goes on and is stored. None: as long as it takes.
    * `track_dependencies`: whether cached results used by a load invalidate its result too when they are invalidated.
    * `audit`: the share of the hits, 0 to 1, that is compared with the source behind the caller's back: `cache_info()` counts
      `audits` and `disagreements`, and an `audit` event says what differed.
    * `follow_code`: for notebooks and scripts: what the function does counts as a part of the version, which is
      `{version}~{8 hex digits}` in keys. Its own code counts, and that of the functions and classes of its own top-level package
      (its own module, for a program or notebook) that it calls, found by name when it is first called. Comments, docstrings,
      annotations, decorators and the values of globals do not count.
    * `jitter`: the greatest share of the ttl, from 0 to below 1, by which it is shortened at random.
    * `on_store_error`: when the store cannot be asked: "load" runs the function, "raise" raises `StoreError`, "stale" gives
      this process's last answer of the current generation if it has one, and else runs the function.
    * `wait_timeout`: how long to wait for another's load of the same call before running it oneself; default 30 s.
    * `lease_ttl`: how long a loader that died holds others up; a long load renews its lease. Default 10 s.
    * `near`: True (1 s), or the greatest staleness (seconds, `timedelta` or text; at least 0.1 s): hits are answered by a tier
      in this process while it knows that no invalidation older than that is missing from it, and by the store
      otherwise. An invalidation made by this process counts at once. One background thread and connection per `Cache`;
      sizes are the options `near_max_entries` and `near_max_bytes` of `Cache`. No effect on a memory store.
    * `codec`: an object with `encode` and `decode`; default: the cache's, and else memover's own, which keeps types.

    Raises `ConfigurationError` at decoration if an option is wrong, if options contradict each other, or if another function has the
    namespace. Calls raise what the function raises, `UnkeyableArgument` and `UnencodableValue`; they raise `StoreError` only
    with `on_store_error="raise"`.
    """
    if not (isinstance(tags, str) or callable(tags)):
        tags = several(tags, "tags", '("user:{user_id}",)')
    declared: dict[str, Any] = {
        "namespace": check_namespace(namespace),
        "version": check_version(version),
        "ttl": ttl,
        "key": key,
        "ignore": (ignore,) if isinstance(ignore, str) else several(ignore, "ignore", '("session",)'),
        "tags": tags,
        "cache_if": cache_if,
        "cache_errors": cache_errors,
        "error_ttl": error_ttl,
        "jitter": jitter,
        "stale_while_revalidate": stale_while_revalidate,
        "stale_if_error": stale_if_error,
        "early_refresh": early_refresh,
        "soft_timeout": soft_timeout,
        "track_dependencies": track_dependencies,
        "audit": audit,
        "follow_code": flag(follow_code, "follow_code"),
        "on_store_error": on_store_error,
        "wait_timeout": wait_timeout,
        "lease_ttl": lease_ttl,
        "max_staleness": policies.staleness_of(near),
    }
    policy = policies.Policy(
        namespace=namespace,
        version=version,
        ttl=None if ttl is ... else ttl if callable(ttl) else seconds_of(ttl, "ttl"),
        cache_if=cache_if,
        jitter=jitter,
        on_store_error=on_store_error,
        wait_timeout=None if wait_timeout is ... else seconds_of(wait_timeout, "wait_timeout", zero=True, never=False),
        lease_ttl=None if lease_ttl is ... else seconds_of(lease_ttl, "lease_ttl", never=False),
        stale_while_revalidate=seconds_of(stale_while_revalidate, "stale_while_revalidate", zero=True),
        stale_if_error=seconds_of(stale_if_error, "stale_if_error", zero=True),
        beta=_beta(early_refresh),
        soft_timeout=None if soft_timeout is None else seconds_of(soft_timeout, "soft_timeout", never=False),
        cache_errors=(
            (cache_errors,)
            if isinstance(cache_errors, (type, str))
            else several(cache_errors, "cache_errors", "(KeyError,)")
        ),
        error_ttl=seconds_of(error_ttl, "error_ttl"),
        track_dependencies=flag(track_dependencies, "track_dependencies"),
        near=declared["max_staleness"],
        audit=audit,
    )

    def decorate(target: Any) -> Any:
        return wrapping.decorated(target, policy, declared, cache=cache, codec=codec)

    return decorate


if not TYPE_CHECKING:  # which report all this themselves
    versioned_cache = checked("versioned_cache", '@versioned_cache(namespace="profiles", ttl="5m")')(versioned_cache)


def _beta(early_refresh: Any) -> float:
    if isinstance(early_refresh, bool):
        return 1.0 if early_refresh else 0.0
    if not isinstance(early_refresh, (int, float)) or not 0 < early_refresh < 100:
        from memover.spelling import number, switch, write

        meant = switch(early_refresh)
        hint = write("early_refresh", number(early_refresh) if meant is None else meant, least=0, most=99)
        raise ConfigurationError(
            f"early_refresh={early_refresh!r}: give True, or a beta above 0; 1 is the usual{hint}."
        )
    return float(early_refresh)
