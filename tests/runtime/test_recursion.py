"""A cached function that calls itself: how little of the stack it takes, and that its end leaves everything whole."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import re
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, versioned_cache
from memover.codec.envelope import NO_FINGERPRINT
from memover.runtime.dependencies import UNDER_WAY, enter
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

FRAMES_A_LEVEL = 2
"""The cached call and the function itself."""


def height() -> int:
    """How many frames there are below the caller."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1  # type: ignore[assignment]
    return count


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest, prefix: str) -> Iterator[Cache]:
    server: RedisServer | None = request.getfixturevalue("redis_server") if request.param == "redis" else None
    with Cache("memory://" if server is None else server.url, prefix=prefix) as cache:
        yield cache


@pytest.mark.parametrize("warm", [False, True])
def test_a_level_of_recursion_takes_few_frames(cache: Cache, warm: bool) -> None:
    """The user's function is called by the cached call, with no flow around it on the stack; after a first hit too."""
    heights: list[int] = []

    @versioned_cache(namespace="down", version=1, cache=cache)
    def down(number: int) -> int:
        heights.append(height())
        return 0 if number == 0 else 1 + down(number - 1)

    if warm:
        down(0), down(0)
        down.invalidate(0)
        heights.clear()
    assert down(9) == 9
    levels = [deeper - higher for higher, deeper in pairwise(heights[1:])]
    assert len(levels) == 8
    assert max(levels) <= FRAMES_A_LEVEL


def test_a_coroutine_function_calls_itself_on_a_stack_of_one_height(cache: Cache) -> None:
    """Each load is a task, so the recursion limit does not bound how deep they go."""
    heights = []

    @versioned_cache(namespace="adown", version=1, cache=cache)
    async def adown(number: int) -> int:
        heights.append(height())
        return 0 if number == 0 else 1 + await adown(number - 1)

    async def whole() -> int:
        try:
            return await adown(50)
        finally:
            await cache.aclose()

    assert asyncio.run(whole()) == 50
    assert len(set(heights[1:])) == 1


def test_the_end_of_the_stack_leaves_everything_whole(cache: Cache) -> None:
    """A RecursionError reaches the caller; no lease, flight or load of those calls is left, and the next calls load."""
    endless, state = True, cache._state

    @versioned_cache(namespace="endless", version=1, cache=cache, lease_ttl=30)
    def deep(number: int) -> int:
        return 1 + deep(number + 1) if endless or number < 3 else number

    for _ in range(3):
        with pytest.raises(RecursionError):
            deep(0)
        wait_until(lambda: not (len(state.leases) + len(state.flights) + len(state.unleased)), "nothing under way")
    endless = False
    assert deep(0) == 6
    assert deep.cache_info().waits == 0
    loads = deep.cache_info().loads
    assert deep(0) == 6
    assert deep.cache_info().loads == loads


@dataclasses.dataclass
class Part:
    """With the annotations of what is made of it, and a key of its own."""

    parts: dict[str, list[Part]]
    word: str

    def __memover_key__(self) -> tuple[str, int]:
        return self.word, len(self.parts)


def nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value, "\u0104"]
    return value


RESULTS = {
    "fields": (Part({"a": [Part({}, "b")]}, "c"), Part),
    "nested": (nested(60, 1), list),
    "buffer": (nested(60, bytearray(b"\xc4")), list),
    "pattern": (re.compile("((a)|(b))*"), re.Pattern),
}


def down(levels: int, function: Callable[[Any], Any], argument: Any) -> Any:
    return function(argument) if levels == 0 else down(levels - 1, function, argument)


@pytest.mark.parametrize("warm", [False, True], ids=["miss", "hit"])
@pytest.mark.parametrize("name", RESULTS)
def test_near_the_end_of_the_stack_a_call_has_its_value_or_a_recursion_error(
    cache: Cache, name: str, warm: bool
) -> None:
    """No argument is refused for it, no result is taken for one that cannot be stored, no entry for damaged; and the next
    call finds everything as it would have been."""
    value, kind = RESULTS[name]
    deepest = sys.getrecursionlimit() - height() - 2
    outcomes, fingerprints = set(), set()
    for levels in range(deepest - 140, deepest, 4):

        def function(part: Part) -> Any:
            return value

        function.__annotations__["return"] = kind
        function.__qualname__ = f"{name}{warm}{levels}"
        cached: Any = versioned_cache(namespace=f"end/{name}/{warm}/{levels}", cache=cache)(function)
        argument = Part({}, "x")
        if warm:
            cached(argument)
        try:
            outcomes.add(repr(down(levels, cached, argument)))
        except RecursionError:
            outcomes.add("")
        info = cached.cache_info()
        assert (info.damaged, info.unencodable, info.other_shape, info.store_errors) == (0, 0, 0, 0)
        assert repr(cached(argument)) == repr(value)
        fingerprints.add(cached._self_definition.now().function.fingerprint)
    assert outcomes == {repr(value), ""}
    assert len(fingerprints) == 1
    assert NO_FINGERPRINT not in fingerprints


def test_a_load_that_was_left_is_forgotten_without_code_of_python() -> None:
    """A signal handler may raise wherever code of Python runs, and what it raises while an object goes is reported and lost."""
    call: Any = SimpleNamespace(function=None, key=SimpleNamespace(entry=b"x"), flight=None, presence=None)
    before = set(UNDER_WAY)
    entered = contextvars.Context().run(enter, (call,), None, False)
    (mark,) = UNDER_WAY - before
    ran: list[str] = []
    sys.setprofile(lambda frame, event, _: ran.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del entered
    finally:
        sys.setprofile(None)
    assert mark not in UNDER_WAY
    assert ran == []
