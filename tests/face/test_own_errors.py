"""Everybody who waits for a load that fails has an error of its own, as everybody has a value of its own."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from memover.codec.sharing import own_error

if TYPE_CHECKING:
    from tests.face.ways import Way

WAITERS = 20


class Broken(Exception):
    """A user's own error, with state."""

    def __init__(self, message: str, facts: list[int]) -> None:
        super().__init__(message)
        self.facts = facts

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.facts)


def _raised_together(way: Way, f: Any) -> list[BaseException]:
    """The errors of twenty callers of one load; each marks its own, as middleware does."""
    seen: list[BaseException] = []

    def note(error: BaseException, number: int) -> None:
        notes: list[str] = error.__dict__.setdefault("__notes__", [])
        notes.append(f"while serving request {number}")
        seen.append(error)

    if way.is_async:

        async def request(number: int) -> None:
            try:
                await f(1)
            except Exception as error:
                note(error, number)

        async def together() -> None:
            await asyncio.gather(*(request(number) for number in range(WAITERS)))

        way.run(together())
        return seen

    def call(number: int) -> None:
        try:
            f(1)
        except Exception as error:
            note(error, number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(WAITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return seen


def _failing(way: Way, error: Any, **options: Any) -> Any:
    def load(x: int) -> Any:
        if way.is_async:

            async def later() -> Any:
                await asyncio.sleep(0.1)
                raise error

            return later()
        threading.Event().wait(0.1)
        raise error

    return way.cached(**options)(load)


@pytest.mark.parametrize("kind", [ValueError("broken"), Broken("broken", [1, 2])], ids=["builtin", "own class"])
def test_each_waiter_of_a_load_that_fails_has_an_error_of_its_own(way: Way, kind: Exception) -> None:
    """Of the same type and arguments, with its own notes and its own traceback."""
    kind = own_error(kind)  # a fresh one: other runs of this test have marked theirs
    f = _failing(way, kind)
    seen = _raised_together(way, f)
    assert len(seen) == WAITERS
    assert f.cache_info().loads < WAITERS, "nobody waited: this test proves nothing"
    assert {type(error) for error in seen} == {type(kind)}
    assert {str(error) for error in seen} == {"broken"}
    loaders = f.cache_info().loads
    assert len({id(error) for error in seen}) >= WAITERS - loaders + 1
    notes = sorted(len(error.__dict__["__notes__"]) for error in seen)
    assert notes == [1] * WAITERS or loaders > 1, f"{notes[-1]} requests' notes are on one error"
    frames = [len(traceback.extract_tb(error.__traceback__)) for error in seen]
    assert max(frames) < 40, f"{max(frames)} frames: the tracebacks of other requests are on this one's error"
    if isinstance(kind, Broken):
        assert [error.facts for error in seen] == [[1, 2]] * WAITERS  # type: ignore[attr-defined]


def test_a_cached_error_is_a_new_one_for_each_caller(way: Way) -> None:
    """Its traceback does not grow from call to call."""
    f = _failing(way, ValueError("broken"), cache_errors=(ValueError,), error_ttl=60)
    errors = []
    for _ in range(30):
        with pytest.raises(ValueError, match="broken") as caught:
            way.run(f(1))
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 30
    frames = [len(traceback.extract_tb(error.__traceback__)) for error in errors]
    assert max(frames[1:]) == min(frames[1:])


def test_an_error_that_cannot_be_made_again_is_still_the_waiters(way: Way) -> None:
    """Pickle and copy refuse it: its waiters have it anyway, or one that says what it was."""

    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__("odd")
            self.lock = threading.Lock()

    f = _failing(way, Odd(1, 2))
    seen = _raised_together(way, f)
    assert len(seen) == WAITERS
    assert {type(error).__name__ for error in seen} == {"Odd"}


class Speechless(Exception):
    """It cannot be shown."""

    def __str__(self) -> str:
        return self.missing  # type: ignore[no-any-return, attr-defined]


def test_an_error_that_cannot_be_shown_reaches_every_caller(way: Way) -> None:
    """As it was raised, and those who wait for the load hear of its end."""
    f = way.cached()(_raising_later)
    seen = _raised_together(way, f)
    assert [type(error) for error in seen] == [Speechless] * WAITERS


def _raising_later(x: int) -> None:
    threading.Event().wait(0.05)
    raise Speechless
