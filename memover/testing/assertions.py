"""Assertions on what is cached, for tests of applications. With pytest they are fixtures too (`pytest_plugin`)."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from memover.cached import AsyncCachedFunction
from memover.proxy import FunctionProxy
from memover.runtime.state import all_states

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from memover.runtime.function import Function

__all__ = ["assert_cached", "assert_loads"]


def assert_cached(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Fails unless this call would be answered from the cache now; the function is not run. Returns the `Entry`.

    For an `async def` function the answer is awaited, in a coroutine: without a running event loop this fails, because
    nothing would be asserted. One round trip."""
    __tracebackhide__ = True  # pytest shows the line of the test
    _decorated(function)
    if isinstance(function, AsyncCachedFunction):
        if not _inside_a_loop():
            raise AssertionError(
                f"{function.__qualname__} is an `async def` function, so nothing is asserted here: "
                f"write `await assert_cached({function.__qualname__}, ...)` in a coroutine, and run it with asyncio.run()."
            )

        async def later() -> Any:
            __tracebackhide__ = True
            return _found(function, await function.peek(*args, **kwargs), args, kwargs)

        return later()
    return _found(function, function.peek(*args, **kwargs), args, kwargs)


@contextmanager
def assert_loads(expected: int, /, *functions: Any) -> Generator[None, None, None]:
    """Fails unless exactly so many loads are done inside the `with`, in any thread: of these functions, or of all.

    A load is one run of a cached function; a call that caching is turned off for counts as none. Without a running event
    loop, a call of an `async def` function that nobody awaited inside fails the assertion, whatever was expected."""
    __tracebackhide__ = True
    for function in functions:
        _decorated(function)
    only = None if not functions else {id(function._self_definition.function) for function in functions}
    before = _loads(only)
    watch: AbstractContextManager[list[str]] = nullcontext([]) if _inside_a_loop() else _watched()
    with watch as forgotten:
        yield
    if forgotten:
        raise AssertionError(
            f"{', '.join(sorted(set(forgotten)))}: an `async def` function runs when it is awaited, and that was not "
            f"done here: await it in a coroutine, and run that with asyncio.run()."
        )
    done = {function: count - before.get(function, 0) for function, count in _loads(only).items()}
    total = sum(done.values())
    if total != expected:
        named = (
            ", ".join(sorted(f"{function.name} {count} times" for function, count in done.items() if count))
            or "nothing"
        )
        raise AssertionError(f"{expected} load{'' if expected == 1 else 's'} expected, but {total} done: {named}")


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _watched() -> Generator[list[str], None, None]:
    """The names of `async def` functions that were called inside and not awaited; filled when the block ends."""
    pending: dict[int, tuple[str, Any, Any]] = {}
    forgotten: list[str] = []

    def called(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if around is not None:
            answer = around(function, *args, **kwargs)
        else:
            answer = function._self_definition.call(*function._self_prefix, *args, **kwargs)

        async def awaited() -> Any:
            del pending[number]
            return await answer

        made = awaited()
        number = id(made)
        pending[number] = (function.__qualname__, made, answer)
        return made

    kind: Any = AsyncCachedFunction
    around = kind.__dict__.get("__call__")  # of a block around this one
    kind.__call__ = called  # before the slot that each decorated object has
    try:
        yield forgotten
    finally:
        if around is not None:
            kind.__call__ = around
        else:
            del kind.__call__
        for name, *coroutines in list(pending.values()):
            forgotten.append(name)
            for each in coroutines:
                each.close()  # without a word of its own about what was not awaited


def _found(function: Any, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    if entry is None:
        written = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
        raise AssertionError(
            f"{function.__qualname__}({written}) is not cached, under {function.key(*args, **kwargs)!r}"
        )
    return entry


def _loads(only: set[int] | None) -> dict[Function, int]:
    functions = [function for state in all_states() for function in list(state.functions)]
    return {each: each.counters.loads for each in functions if only is None or id(each.function) in only}


def _decorated(function: Any) -> None:
    if not isinstance(function, FunctionProxy):
        raise TypeError(f"{function!r} is not decorated with versioned_cache: give the decorated function.")
