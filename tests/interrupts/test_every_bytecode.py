"""P17: an exception from outside, raised at every bytecode of every operation in turn, reaches the caller as it is, and
leaves everything whole: `bench` says what that is.

The standing suite tries a few bytecodes of each, a fixed stride apart; the slow one tries more, and every one of a hit.
`MEMOVER_EVERY_BYTECODE=1` has it try every one of all operations, which takes hours.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.interrupts.bench import OPERATIONS, Bench, CtrlC, Limit, interrupted_at_every
from tests.interrupts.striking import places

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLED = 9
"""Bytecodes of each operation in the standing suite."""
SAMPLED_SLOW = 24
"""Bytecodes of each operation in the slow suite, but for those of `WHOLE`."""
WHOLE = OPERATIONS if os.environ.get("MEMOVER_EVERY_BYTECODE") else ("hit",)
"""Operations of which the slow suite tries every bytecode."""


def _proved(name: str, error: type[BaseException], make: Callable[..., Bench], most: int | None) -> None:
    tried, wrong = interrupted_at_every(OPERATIONS[name], error, make, most)
    assert tried, "the operation executed nothing of memover"
    assert not wrong, f"{len(wrong)} of {tried} interruptions of {name!r}:\n" + "\n".join(f"* {one}" for one in wrong)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_at_a_bytecode_reaches_the_caller_and_leaves_everything_whole(
    name: str, make: Callable[..., Bench]
) -> None:
    """Sampled, with a job's time limit (what catches `Exception` catches it), and some with Ctrl-C."""
    _proved(name, Limit, make, SAMPLED)
    _proved(name, CtrlC, make, SAMPLED // 3)


@pytest.mark.slow
@pytest.mark.parametrize("error", [Limit, CtrlC])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_at_any_bytecode_reaches_the_caller_and_leaves_everything_whole(
    name: str, error: type[BaseException], make: Callable[..., Bench]
) -> None:
    """Each of them in turn where the operation is one of `WHOLE`, else more of them."""
    _proved(name, error, make, None if name in WHOLE else SAMPLED_SLOW)


def test_the_tracer_sees_memover_and_what_it_calls_and_not_the_function(make: Callable[..., Bench]) -> None:
    """Without this the tests above could pass because they strike nowhere."""
    bench = make()
    bench.plain(1)
    hit = places(lambda: bench.plain(1))
    miss = places(lambda: bench.plain(2))
    assert len(hit) > 30
    assert len(miss) > len(hit)
    files = {place.file for place in miss}
    assert all(not file.startswith("interrupts/") for file in files), files
    assert any(file.startswith(("keys/", "<memover")) for file in files), files
    if bench.client is not None:
        assert any("redis/" in file or "stores/redis" in file for file in files), files


def test_a_cache_that_swallows_is_caught(make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof itself fails where a call catches whatever is raised in it."""
    bench = make()

    def swallowing(self: Any, *args: object, **kwargs: object) -> object:
        try:
            return self._self_definition.call(*args, **kwargs)
        except BaseException:
            return self.__wrapped__(*args, **kwargs)

    monkeypatch.setattr(type(bench.plain), "__call__", swallowing)  # before the slot of each object
    _, wrong = interrupted_at_every(OPERATIONS["hit"], Limit, make, 16)
    assert len(wrong) >= 4
    assert all("swallowed" in one for one in wrong), wrong
