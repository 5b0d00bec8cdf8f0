"""The decorated function as its users meet it: the function itself, with helpers beside it.

`CachedFunction` and `AsyncCachedFunction` stand side by side and differ in how they wait. What both do without a store is in
`proxy`, and what the helpers do with one is written once, in `runtime.operations` and `runtime.invalidations`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from memover.batches import Warmed, async_chunks, batch_values, chunks
from memover.durations import seconds_of
from memover.proxy import BoundFunctionProxy, FunctionProxy, bind
from memover.runtime import invalidations, operations
from memover.runtime.batch import aanswer_many, answer_many
from memover.runtime.hit import adrive, ageneral, arun_helper, drive, general, run_helper
from memover.runtime.progress import Progress, progress_of
from memover.runtime.results import aevaluated, evaluated, unwrapped
from memover.runtime.run import arun, run
from memover.versions import AsyncVersionView, VersionView

if TYPE_CHECKING:
    from memover.durations import Duration
    from memover.model import Entry, Generation

__all__ = ["AsyncCachedFunction", "AsyncVersionView", "CachedFunction", "VersionView", "Warmed"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
U = TypeVar("U")


class CachedFunction(FunctionProxy, Generic[P, R]):
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
        return run(operations.peek(self._self_call(args, kwargs)))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function now, stores what it returns, and returns it. Two round trips.

        A load under way elsewhere loses its lease, so that its older result cannot replace this one. A result that is not
        to be stored (`cache_if`, `NotCached`, ...) and an exception leave the entry before it in place. When the store
        cannot be reached the value is returned unstored, unless `on_store_error="raise"`."""
        if self._self_definition.now().function.observers.disabled():
            return self.bypass(*args, **kwargs)
        call = self._self_call(args, kwargs)
        result: R = drive(operations.refresh(call), call, perf_counter(), lookup=False)
        return result

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:  # type: ignore[misc]  # R is covariant
        """Stores a value known from elsewhere as this call's result. Two round trips.

        A value that is not to be stored (`cache_if`, a ttl of 0, `max_entry_bytes`) invalidates the call instead: the old
        entry is not its result any more. Raises `UnencodableValue`, `StoreError` when the store did not take it, and
        `InvalidationFailed`: the old entry may live on then."""
        call = self._self_call(args, kwargs)
        run_helper(operations.put(call, value), call)

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """This call's entry is gone everywhere when it returns, and no load under way can bring it back. One round trip.

        Raises `InvalidationFailed` when the store does not acknowledge it; it is then repeated until it does."""
        run(invalidations.invalidate_call(self._self_call(args, kwargs)))

    def invalidate_all(self, *, soft: bool = False) -> Generation:
        """Every entry of the namespace, all versions, is invalid everywhere when it returns. One round trip at any size.

        With `soft=True` entries become stale and not invalid: a function with stale windows may go on serving them
        while they are refreshed. A function without such windows is invalidated as ever.

        Returns the new `Generation`. Raises `InvalidationFailed` when the store does not acknowledge it; it is
        then repeated until it does."""
        return run(invalidations.invalidate_all(self._self_definition.now().function, soft))

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
        self, *iterables: Iterable[Any], concurrency: int = 8, progress: Progress = None, return_exceptions: bool
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
        calls = self._self_calls(zip(*iterables))
        with progress_of(progress, self._self_definition.policy.namespace, calls) as advance:
            outcomes = answer_many(self._self_batch(calls, concurrency, advance, True))
        return batch_values(outcomes, return_exceptions)

    def warm(self, iterable: Iterable[Any], *, concurrency: int = 8, progress: Progress = None) -> Warmed:
        """Fills ahead: loads what is not fresh, and returns counts. Each item is an argument, or a tuple of arguments.

        Works through the iterable in steps of 1,000 calls, each as `map`; errors of the function are counted, and reported
        as events. `progress` as for `map`."""
        counts = Warmed(0, 0, 0)
        with progress_of(progress, self._self_definition.policy.namespace, iterable) as advance:
            for chunk in chunks(iterable):
                calls = self._self_calls(chunk)
                counts = counts.plus(answer_many(self._self_batch(calls, concurrency, advance, False)))
        return counts

    def max_age(self, seconds: Duration) -> Callable[P, R]:
        """The call, accepting only an entry at most that old (seconds, `timedelta` or text); it loads otherwise."""
        definition, prefix, limit = self._self_definition, self._self_prefix, seconds_of(seconds, "max_age", zero=True)

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
        result: R = unwrapped(evaluated(self._self_definition.function(*self._self_prefix, *args, **kwargs)))
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


class BoundCachedFunction(BoundFunctionProxy, CachedFunction[P, R]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A decorated function on its instance or class."""


class AsyncCachedFunction(FunctionProxy, Generic[P, R]):
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
        return await arun(operations.peek(self._self_call(args, kwargs)))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `CachedFunction.refresh`."""
        if self._self_definition.now().function.observers.disabled():
            return await self.bypass(*args, **kwargs)
        call = self._self_call(args, kwargs)
        result: R = await adrive(operations.refresh(call), call, perf_counter(), lookup=False)
        return result

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:  # type: ignore[misc]  # R is covariant
        """As `CachedFunction.set`."""
        call = self._self_call(args, kwargs)
        await arun_helper(operations.put(call, value), call)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """As `CachedFunction.invalidate`."""
        await arun(invalidations.invalidate_call(self._self_call(args, kwargs)))

    async def invalidate_all(self, *, soft: bool = False) -> Generation:
        """As `CachedFunction.invalidate_all`."""
        return await arun(invalidations.invalidate_all(self._self_definition.now().function, soft))

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
        self, *iterables: Iterable[Any], concurrency: int = 64, progress: Progress = None, return_exceptions: bool
    ) -> list[R | BaseException]: ...
    async def map(
        self,
        *iterables: Iterable[Any],
        concurrency: int = 64,
        progress: Progress = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """As `CachedFunction.map`; misses are loaded in `concurrency` tasks at a time."""
        calls = self._self_calls(zip(*iterables))
        with progress_of(progress, self._self_definition.policy.namespace, calls) as advance:
            outcomes = await aanswer_many(self._self_batch(calls, concurrency, advance, True))
        return batch_values(outcomes, return_exceptions)

    async def warm(
        self, iterable: Iterable[Any] | AsyncIterable[Any], *, concurrency: int = 64, progress: Progress = None
    ) -> Warmed:
        """As `CachedFunction.warm`; the iterable may be asynchronous, and is consumed step by step."""
        counts = Warmed(0, 0, 0)
        with progress_of(progress, self._self_definition.policy.namespace, iterable) as advance:
            async for chunk in async_chunks(iterable):
                calls = self._self_calls(chunk)
                counts = counts.plus(await aanswer_many(self._self_batch(calls, concurrency, advance, False)))
        return counts

    def max_age(self, seconds: Duration) -> Callable[P, Coroutine[Any, Any, R]]:
        """As `CachedFunction.max_age`; what it returns is awaited."""
        definition, prefix, limit = self._self_definition, self._self_prefix, seconds_of(seconds, "max_age", zero=True)

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
        result: R = unwrapped(await aevaluated(awaited))
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


class BoundAsyncCachedFunction(BoundFunctionProxy, AsyncCachedFunction[P, R]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A decorated `async def` function on its instance or class."""
