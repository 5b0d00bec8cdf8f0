"""What cannot be memoized is refused, with an error that says why and what to do instead."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover import ConfigurationError, UnencodableValue, UnkeyableArgument
from tests.ids import steady_repr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator


def decorate(function: Any) -> Any:
    return memover.versioned_cache(namespace="refused", cache=memover.Cache())(function)


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class GeneratorCallable:
    def __call__(self) -> Iterator[int]:
        yield 1


class AsyncGeneratorCallable:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


class Thing:
    @property
    def size(self) -> int:
        return 1

    def gen(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (generator, r"generator.*consumed only once.*list"),
        (async_generator, r"asynchronous generator.*consumed only once.*list"),
        (GeneratorCallable(), r"generator.*consumed only once"),
        (AsyncGeneratorCallable(), r"asynchronous generator.*consumed only once"),
        (classmethod(generator), r"generator"),
        (staticmethod(async_generator), r"asynchronous generator"),
        (Thing().gen, r"generator"),
        (Thing, r"Thing is a class.*function"),
        (Thing.__dict__["size"], r"property.*@property above"),
        (5, r"cannot be called"),
        (None, r"cannot be called"),
        ("name", r"cannot be called"),
    ],
    ids=steady_repr,
)
def test_what_cannot_be_memoized_is_refused_at_decoration(target: Any, message: str) -> None:
    """Generators, classes, properties and what is no function."""
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        decorate(target)


def test_a_function_that_hides_a_coroutine_is_refused_at_the_call() -> None:
    """A `def` that returns a coroutine: its promise would be cached, not its result. The coroutine is closed."""

    async def inner() -> int:
        raise AssertionError("it must not run")

    def outer() -> Coroutine[Any, Any, int]:
        return inner()

    cached = decorate(outer)
    for _ in range(2):
        with pytest.raises(UnencodableValue, match=r"(?s)outer returned a coroutine.*async def"):
            cached()
    assert cached.peek() is None
    with pytest.raises(UnencodableValue, match="coroutine"):
        cached.refresh()


def test_a_function_that_hides_a_generator_is_refused_at_the_call() -> None:
    """A `def` that returns a generator or an asynchronous one, and an `async def` that returns either."""

    def hides_generator() -> Iterator[int]:
        return generator()

    def hides_async_generator() -> AsyncIterator[int]:
        return async_generator()

    async def async_hides() -> Iterator[int]:
        return generator()

    for function in (hides_generator, hides_async_generator):
        with pytest.raises(UnencodableValue, match=r"(?s)returned a generator.*list"):
            decorate(function)()
    with pytest.raises(UnencodableValue, match=r"(?s)returned a generator.*list"):
        asyncio.run(decorate(async_hides)())


FLEETING: dict[str, Callable[[], Any]] = {
    "map": lambda: map(str, [1]),
    "filter": lambda: filter(None, [1]),
    "zip": lambda: zip([1]),
    "enumerate": lambda: enumerate([1]),
    "list_iterator": lambda: iter([1]),
    "list_reverseiterator": lambda: reversed([1]),
    "dict_keyiterator": lambda: iter({1: 2}),
    "chain": lambda: itertools.chain([1]),
    "generator": lambda: (each for each in [1]),
    "dict_keys": {1: 2}.keys,
    "dict_values": {1: 2}.values,
    "dict_items": {1: 2}.items,
}


@pytest.mark.parametrize("kind", FLEETING)
def test_what_can_be_read_only_once_or_changes_is_refused_with_the_way_out(kind: str) -> None:
    """As an argument and as part of a result; and the next caller is not given one that has been read."""

    @decorate
    def passed(each: Any) -> int:
        return 1

    @decorate
    def returned() -> list[Any]:
        return [FLEETING[kind]()]

    with pytest.raises(UnkeyableArgument, match=rf"argument each of type (itertools\.)?{kind} .*give a list"):
        passed(FLEETING[kind]())
    with pytest.raises(UnencodableValue, match=rf"at \$\[0\] there is an? .*{kind}.*return list\(it\)"):
        returned()
    assert returned.peek() is None


def test_a_result_that_cannot_be_kept_faithfully_is_refused() -> None:
    """UnencodableValue names the function and the path; on_unencodable="return" lets it through, unstored."""

    class Photo:
        pass

    def profile() -> Any:
        return {"friends": [1, {"photo": Photo()}]}

    with pytest.raises(UnencodableValue) as caught:
        decorate(profile)()
    assert "friends" in caught.value.path
    assert "photo" in caught.value.path
    assert caught.value.path.startswith("$")
    assert "Photo" in caught.value.kind
    assert caught.value.function.endswith("profile")

    lenient = memover.versioned_cache(namespace="lenient", cache=memover.Cache(on_unencodable="return"))(profile)
    assert isinstance(lenient()["friends"][1]["photo"], Photo)
    assert lenient.peek() is None
    assert lenient.cache_info().unencodable == 1
