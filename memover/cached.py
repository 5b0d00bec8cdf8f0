"""The decorated function as its users meet it: the function itself, with helpers beside it.

A face is a transparent proxy (wrapt) of the function: name, doc, signature, annotations and `iscoroutinefunction` are the
function's own. On an instance or a class it becomes a bound face, whose helpers take the arguments without `self`.
The two faces differ in how they wait; what the helpers do is written once, in `definition`.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from inspect import iscoroutinefunction
from itertools import islice
from time import perf_counter
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, NamedTuple, ParamSpec, TypeVar, overload

from memover.definition import Definition, age_of
from memover.errors import ConfigurationError, UnkeyableArgument
from memover.keys.names import check_version
from memover.model import CacheInfo, Entry, Generation, Source
from memover.runtime.batch import aanswer_many, answer_many, check_concurrency
from memover.runtime.hit import aconclude, adrive, ageneral, conclude, drive, general
from memover.runtime.progress import Progress, progress_of
from memover.runtime.results import aevaluated, evaluated, opened
from memover.runtime.run import arun, run

if TYPE_CHECKING:
    from memover.cache import Cache
    from memover.durations import Duration
    from memover.engine.answers import Outcome
    from memover.engine.call import CachedCall
    from memover.runtime.batch import CallArguments, Hit

    class Proxy:
        """What type checkers are told of a transparent proxy."""

        __wrapped__: Callable[..., Any]
        __name__: str
        __qualname__: str
        __module__: str

        def __init__(self, wrapped: Any) -> None: ...

else:
    from wrapt import BaseObjectProxy as Proxy

__all__ = ["AsyncCachedFunction", "AsyncVersionView", "CachedFunction", "VersionView", "Warmed"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
U = TypeVar("U")
T = TypeVar("T")
L = TypeVar("L", bound=Callable[..., Any])


class Face(Proxy):
    """What both faces share: everything that needs no store.

    `__call__` is a slot: each decorated object has a callable of its own there, which CPython calls without a frame of this
    class in between. It is the definition's `call` as it is now; in a bound face, a method of the face that was bound."""

    if not TYPE_CHECKING:
        __slots__ = ("__call__", "_self_binds")

    def __init__(self, wrapped: Any, definition: Definition, kind: str = "plain") -> None:
        super().__init__(wrapped)
        # Annotated here and not in the class, whose own annotations would hide the function's.
        self._self_definition: Definition = definition
        self._self_prefix: tuple[Any, ...] = ()
        self._self_kind: str = kind
        # The function, where an attribute of an instance is a method of it.
        self._self_binds: Any = wrapped if kind == "plain" and hasattr(type(wrapped), "__get__") else None
        # Weakly: a definition outlives its face only where a call is under way.
        reference = weakref.ref(self)

        def show(call: Callable[..., Any]) -> None:
            face = reference()
            if face is not None:
                put_call(face, call)

        definition.show_with(show)

    @property
    def namespace(self) -> str:
        """The namespace as declared."""
        return self._self_definition.policy.namespace

    @property
    def version(self) -> int:
        """The version as declared."""
        return self._self_definition.policy.version

    @property
    def cache(self) -> Cache:
        """The `Cache` that the function uses now."""
        return self._self_definition.cache

    def cache_info(self) -> CacheInfo:
        """The counters of this function in this process, on the cache it uses now; see `CacheInfo`. No round trip."""
        return self._self_definition.info()

    def cache_parameters(self) -> dict[str, Any]:
        """The settings as declared, with the cache's defaults filled in. No round trip."""
        return self._self_definition.parameters()

    def upgrade(self, from_version: int) -> Callable[[L], L]:
        """Decorate what turns an entry of an older version into this one's: it is called on a miss, instead of a load.

        It takes the older result as plain builtins (instances as dicts of their fields, enum members as their names;
        with a codec of your own, what that decodes) and returns what the function returns. From several versions the
        steps are taken one after another, each to the next one that has an upgrade. What comes of it is stored with the
        time that was left and under the generation captured before; an exception in it is counted
        (`cache_info().upgrade_errors`), and the function runs. An `async def` function may have an `async def` upgrade.

        An older entry is taken over only if it carries every tag that the result has in this version: a tag that is new may
        have been invalidated since that entry was loaded, so the function runs.

        A miss costs one more round trip for each such version; `invalidate`, `set` and `refresh` remove the older
        versions' entries too. Raises `ConfigurationError` for a version that is not older, or has an upgrade already."""

        def decorate(function: L) -> L:
            self._self_definition.add_upgrade(from_version, function)
            return function

        return decorate

    def batch_load(self, loader: L) -> L:
        """Decorator: `loader(calls)` loads many calls at once, for `map` and `warm`; it is returned as it is.

        It gets the `Call`s whose leases were taken (`call.arguments`; methods: `self` is among `call.args`) and returns a
        mapping from calls to values, or, for a function of one argument, from that argument. It may leave some
        out: those are loaded one by one. A sequence of as many values as there are calls will do too. What it raises
        is the error of all its calls. For an `async def` function it may be `async def`."""
        if not callable(loader):
            raise ConfigurationError("batch_load decorates the function that loads many calls at once.")
        if iscoroutinefunction(loader) and not self._self_definition.is_async:
            raise ConfigurationError(
                f"{self._self_definition.name} is a `def` function, so its bulk loader must be one too."
            )
        self._self_definition.loader = loader
        return loader

    def _self_calls(self, items: Iterable[Any]) -> Iterator[CallArguments]:
        for item in items:
            yield self._self_whole(item if type(item) is tuple else (item,)), {}

    def _self_whole(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # The arguments as the function takes them. From Python 3.13 on, a classmethod around a face makes a plain method of
        # it, which hands on the helpers without the class; to guess the class would be to guess wrong for subclasses.
        args = (*self._self_prefix, *args)
        if self._self_definition.takes_class and not (args and isinstance(args[0], type)):
            name = self._self_definition.name
            raise UnkeyableArgument(
                f"{name}: this helper was not given the class. From Python 3.13 on, @classmethod hides it from what it "
                f"wraps: put @versioned_cache(...) above @classmethod.",
                function=name,
                parameter="cls",
                path="cls",
            )
        return args

    def _self_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedCall:
        # The call of a helper: the key it is about, and the arguments should it have to load.
        args = self._self_whole(args)
        resident = self._self_definition.now()
        return resident.function.call(resident.lookup(*args, **kwargs), args, kwargs)

    def _self_bound(self, kind: Any, instance: Any, owner: Any) -> Any:
        # What an attribute of a class or an instance gives: a bound face, or this one.
        function, receiver = binds(self), instance
        if function is None or instance is None:
            if self._self_kind != "class":
                return self
            function, receiver = self.__wrapped__, owner if owner is not None else type(instance)
        own: Any = self
        bound = kind(MethodType(function, receiver))
        put_call(bound, MethodType(own, receiver))
        return bound

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As `functools.lru_cache`: by reference, so that the other process finds its own decorated function.
        if self._self_prefix:
            return getattr, (self._self_prefix[0], self.__name__)
        return self.__qualname__

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __repr__(self) -> str:
        # Where its entries are, unless asking would make the default cache.
        definition = self._self_definition
        if definition.has_cache():
            place = f"in {definition.cache!r}"
        else:
            place = "in the default cache" if definition.alias is None else f"in the alias {definition.alias!r}"
        return f"<cached {self.__module__}.{self.__qualname__} namespace={self.namespace!r} version={self.version} {place}>"


# The slots themselves: quicker than through the proxy, and a test may have put something before `__call__`.
put_call: Callable[[Face, Callable[..., Any]], None] = Face.__dict__["__call__"].__set__
get_call: Callable[[Face], Any] = Face.__dict__["__call__"].__get__
binds: Callable[[Face], Any] = Face.__dict__["_self_binds"].__get__


bind: Callable[[Any, Any, Any, Any], Any] = Face.__dict__["_self_bound"]


class Bound(Face):
    """A face on its instance or class. One is made whenever the attribute is asked for, so it keeps nothing of its own: its
    `__call__` is a method of the face that was bound, and leads to the rest."""

    _self_kind = "bound"

    __init__ = Proxy.__init__  # pyright: ignore[reportAssignmentType]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    @property
    def _self_definition(self) -> Definition:  # type: ignore[override]
        definition: Definition = get_call(self).__func__._self_definition
        return definition

    @property
    def _self_prefix(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (get_call(self).__self__,)


class CachedFunction(Face, Generic[P, R]):
    """A decorated `def` function. Any thread may call anything here."""

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """The cached call: one round trip when it is a hit, three when it loads. Raises what the function raises."""
            raise AssertionError

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The entry's full key as stored. No round trip. Raises `UnkeyableArgument`."""
        return self._self_definition.now().lookup(*self._self_whole(args), **kwargs).text

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The entry that a call would be answered from now, or None; the function is never run. One round trip.

        A store failure reads as None, unless the function was declared with `on_store_error="raise"`."""
        return run(self._self_definition.peeking(self._self_call(args, kwargs)))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function now, store what it returns, and return it. Two round trips.

        A load under way elsewhere loses its lease, so that its older result cannot replace this one. When the store
        cannot be reached the value is returned unstored, unless `on_store_error="raise"`."""
        call = self._self_call(args, kwargs)
        if self._self_definition.now().function.observers.disabled():
            bypassed: R = opened(evaluated(self._self_definition.function(*call.args, **call.kwargs)))
            return bypassed
        result: R = drive(self._self_definition.refreshing(call), call, perf_counter(), lookup=False)
        return result

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:  # type: ignore[misc]  # R is covariant
        """Store a value known from elsewhere as this call's result. Two round trips.

        Raises `UnencodableValue`, and `StoreError` when the store did not take it: the old entry would live on."""
        call = self._self_call(args, kwargs)
        conclude(self._self_definition.putting(call, value), call)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """This call's entry is gone everywhere when it returns, and no load under way can bring it back. One round trip.

        Raises `InvalidationFailed` when the store does not acknowledge it; it is then repeated until it does."""
        run(self._self_definition.invalidating(self._self_call(args, kwargs)))

    def invalidate_all(self, *, soft: bool = False) -> Generation:
        """Every entry of the namespace, all versions, is invalid everywhere when it returns. One round trip at any size.

        With `soft=True` entries become stale and not invalid: a function with stale windows may go on serving them
        while they are refreshed. A function without such windows is invalidated as ever.

        Returns the new `Generation`. Raises `InvalidationFailed` when the store does not acknowledge it; it is
        then repeated until it does."""
        return run(self._self_definition.moving(self._self_definition.now().function, soft))

    def cache_clear(self) -> None:
        """`invalidate_all()`, by the name that `lru_cache` gives it."""
        self.invalidate_all()

    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 8,
        progress: Progress = None,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 8,
        progress: Progress = None,
        return_exceptions: bool,
    ) -> list[R | BaseException]: ...
    def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 8,
        progress: Progress = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """The calls over the iterables side by side, as `map` makes them, answered together, in order.

        One round trip for all the hits (one per node in Cluster); leases and loads only for the misses, by the bulk loader
        if there is one (`batch_load`), else `concurrency` at a time in threads (1: in this one). Equal calls are loaded
        once. `progress(n)` is called with each n calls that are done, as `tqdm.update` is; `progress=True` shows a bar, in
        a terminal and in a notebook, with tqdm or rich (one of them must be installed). Every call is answered and stored
        before the first error, in the order of the calls, is raised; `return_exceptions=True` returns errors in place
        instead. A batch is not a snapshot: entries are read together, but each was loaded when it was."""
        calls: list[CallArguments] = [(self._self_whole(args), {}) for args in zip(*iterables)]
        with progress_of(progress, self._self_definition.policy.namespace, calls) as advance:
            outcomes = self._self_answered(calls, concurrency, advance, True)
        return batch_values(outcomes, return_exceptions)

    def warm(self, iterable: Iterable[Any], *, concurrency: int = 8, progress: Progress = None) -> Warmed:
        """Fill ahead: load what is not fresh, and return counts. Each item is an argument, or a tuple of arguments.

        Works through the iterable in steps of 1,000 calls, each as `map`; errors of the function are counted, and reported
        as events. `progress` as for `map`."""
        counts = Warmed(0, 0, 0)
        with progress_of(progress, self._self_definition.policy.namespace, iterable) as advance:
            for chunk in chunks(self._self_calls(iterable)):
                counts = counts.plus(self._self_answered(chunk, concurrency, advance, False))
        return counts

    def _self_answered(
        self, calls: Sequence[CallArguments], concurrency: int, progress: Any, wanted: bool
    ) -> list[Outcome | Hit]:
        resident = self._self_definition.now()
        return answer_many(
            resident.function,
            resident.lookup,
            calls,
            loader=self._self_definition.loader,
            concurrency=check_concurrency(concurrency),
            progress=progress,
            wanted=wanted,
        )

    def max_age(self, seconds: Duration) -> Callable[P, R]:
        """The call, accepting only an entry at most that old (seconds, `timedelta` or text); it loads otherwise."""
        definition, prefix, limit = self._self_definition, self._self_prefix, age_of(seconds)

        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            resident = definition.now()
            result: R = general(resident.function, resident.lookup, (*prefix, *args), kwargs, limit)
            return result

        return limited

    def at(self, version: int) -> VersionView[P]:
        """A view of another schema version of this function: `.key`, `.peek` and `.invalidate`."""
        return VersionView(self._self_definition, self._self_prefix, version)

    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself: nothing is read or stored."""
        result: R = opened(evaluated(self._self_definition.function(*self._self_prefix, *args, **kwargs)))
        return result

    # A classmethod, a function on its class, a method, a staticmethod on an instance. `self` is a Callable because mypy tells
    # the overloads apart by that, and not by its own parameters.
    @overload
    def __get__(self: Callable[Concatenate[S, Q], U], instance: Any, owner: S) -> CachedFunction[Q, U]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> CachedFunction[P, R]: ...
    @overload
    def __get__(self: Callable[Concatenate[S, Q], U], instance: S, owner: Any) -> CachedFunction[Q, U]: ...
    @overload
    def __get__(self, instance: Any, owner: Any) -> CachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return bind(self, BoundCachedFunction, instance, owner)


class BoundCachedFunction(Bound, CachedFunction[P, R]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A decorated function on its instance or class."""


class AsyncCachedFunction(Face, Generic[P, R]):
    """A decorated `async def` function: as `CachedFunction`, awaited. Any event loop may call anything here."""

    if TYPE_CHECKING:

        async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """The cached call: one round trip when it is a hit, three when it loads. Raises what the function raises."""
            raise AssertionError

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """As `CachedFunction.key`; not awaited."""
        return self._self_definition.now().lookup(*self._self_whole(args), **kwargs).text

    async def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """As `CachedFunction.peek`."""
        return await arun(self._self_definition.peeking(self._self_call(args, kwargs)))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `CachedFunction.refresh`."""
        call = self._self_call(args, kwargs)
        if self._self_definition.now().function.observers.disabled():
            bypassed: R = opened(await aevaluated(await self._self_definition.function(*call.args, **call.kwargs)))
            return bypassed
        result: R = await adrive(self._self_definition.refreshing(call), call, perf_counter(), lookup=False)
        return result

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:  # type: ignore[misc]  # R is covariant
        """As `CachedFunction.set`."""
        call = self._self_call(args, kwargs)
        await aconclude(self._self_definition.putting(call, value), call)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """As `CachedFunction.invalidate`."""
        await arun(self._self_definition.invalidating(self._self_call(args, kwargs)))

    async def invalidate_all(self, *, soft: bool = False) -> Generation:
        """As `CachedFunction.invalidate_all`."""
        return await arun(self._self_definition.moving(self._self_definition.now().function, soft))

    async def cache_clear(self) -> None:
        """`invalidate_all()`, by the name that `lru_cache` gives it."""
        await self.invalidate_all()

    @overload
    async def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 64,
        progress: Progress = None,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    async def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 64,
        progress: Progress = None,
        return_exceptions: bool,
    ) -> list[R | BaseException]: ...
    async def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 64,
        progress: Progress = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """As `CachedFunction.map`; misses are loaded in `concurrency` tasks at a time."""
        calls: list[CallArguments] = [(self._self_whole(args), {}) for args in zip(*iterables)]
        with progress_of(progress, self._self_definition.policy.namespace, calls) as advance:
            outcomes = await self._self_answered(calls, concurrency, advance, True)
        return batch_values(outcomes, return_exceptions)

    async def warm(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 64,
        progress: Progress = None,
    ) -> Warmed:
        """As `CachedFunction.warm`; the iterable may be asynchronous, and is consumed step by step."""
        counts = Warmed(0, 0, 0)
        with progress_of(progress, self._self_definition.policy.namespace, iterable) as advance:
            async for chunk in async_chunks(iterable):
                calls = list(self._self_calls(chunk))
                counts = counts.plus(await self._self_answered(calls, concurrency, advance, False))
        return counts

    async def _self_answered(
        self, calls: Sequence[CallArguments], concurrency: int, progress: Any, wanted: bool
    ) -> list[Outcome | Hit]:
        resident = self._self_definition.now()
        return await aanswer_many(
            resident.function,
            resident.lookup,
            calls,
            loader=self._self_definition.loader,
            concurrency=check_concurrency(concurrency),
            progress=progress,
            wanted=wanted,
        )

    def max_age(self, seconds: Duration) -> Callable[P, Coroutine[Any, Any, R]]:
        """As `CachedFunction.max_age`; what it returns is awaited."""
        definition, prefix, limit = self._self_definition, self._self_prefix, age_of(seconds)

        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            resident = definition.now()
            result: R = await ageneral(resident.function, resident.lookup, (*prefix, *args), kwargs, limit)
            return result

        return limited

    def at(self, version: int) -> AsyncVersionView[P]:
        """As `CachedFunction.at`; its `.peek` and `.invalidate` are awaited."""
        return AsyncVersionView(self._self_definition, self._self_prefix, version)

    async def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself: nothing is read or stored."""
        awaited = await self._self_definition.function(*self._self_prefix, *args, **kwargs)
        result: R = opened(await aevaluated(awaited))
        return result

    # A classmethod, a function on its class, a method, a staticmethod on an instance. `self` is a Callable because mypy tells
    # the overloads apart by that, and not by its own parameters.
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], Coroutine[Any, Any, U]], instance: Any, owner: S
    ) -> AsyncCachedFunction[Q, U]: ...
    @overload
    def __get__(self, instance: None, owner: Any) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __get__(
        self: Callable[Concatenate[S, Q], Coroutine[Any, Any, U]], instance: S, owner: Any
    ) -> AsyncCachedFunction[Q, U]: ...
    @overload
    def __get__(self, instance: Any, owner: Any) -> AsyncCachedFunction[P, R]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return bind(self, BoundAsyncCachedFunction, instance, owner)


class BoundAsyncCachedFunction(Bound, AsyncCachedFunction[P, R]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A decorated `async def` function on its instance or class."""


class Warmed(NamedTuple):
    """What `warm` did: calls that were fresh already, that were loaded (or waited for), and that failed."""

    fresh: int
    loaded: int
    failed: int

    def plus(self, outcomes: Iterable[Outcome | Hit]) -> Warmed:
        fresh, loaded, failed = self
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
            elif outcome.source in (Source.FRESH, Source.NEAR):
                fresh += 1
            else:
                loaded += 1
        return Warmed(fresh, loaded, failed)


def batch_values(outcomes: list[Outcome | Hit], return_exceptions: bool) -> list[Any]:
    """The values of a batch, or its first error."""
    if return_exceptions:
        return [outcome.value if outcome.error is None else outcome.error for outcome in outcomes]
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def chunks(items: Iterable[T], size: int = 1000) -> Iterator[list[T]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


async def async_chunks(items: Iterable[T] | AsyncIterable[T], size: int = 1000) -> AsyncIterator[list[T]]:
    if not isinstance(items, AsyncIterable):
        for chunk in chunks(items, size):
            yield chunk
        return
    gathered: list[T] = []
    async for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


class BaseView(Generic[P]):
    """A function's entries under another schema version."""

    def __init__(self, definition: Definition, prefix: tuple[Any, ...], version: int) -> None:
        self._definition = definition
        self._prefix = prefix
        self.version = check_version(version)

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The entry's full key under that version. No round trip."""
        return self._definition.key_at(self.version, (*self._prefix, *args), kwargs).text

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedCall:
        args = (*self._prefix, *args)
        key = self._definition.key_at(self.version, args, kwargs)
        return self._definition.now().function.call(key, args, kwargs)


class VersionView(BaseView[P]):
    """What `f.at(version)` returns."""

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The fresh entry of that version, or None. One round trip. Its value is decoded as this version's would be."""
        return run(self._definition.peeking(self._call(args, kwargs), self.version))

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """That version's entry is gone everywhere when it returns. One round trip. Raises `InvalidationFailed`."""
        run(self._definition.invalidating(self._call(args, kwargs)))


class AsyncVersionView(BaseView[P]):
    """What `f.at(version)` returns for an `async def` function."""

    async def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """As `VersionView.peek`."""
        return await arun(self._definition.peeking(self._call(args, kwargs), self.version))

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """As `VersionView.invalidate`."""
        await arun(self._definition.invalidating(self._call(args, kwargs)))
