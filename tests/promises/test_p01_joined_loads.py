"""P1, P2 and P7 for tasks that miss together: a load is joined by key only before it has asked for its lease, and on its own loop."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/joined.db"


EAGER = pytest.param(
    True,
    id="eager",
    marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"),
)


@pytest.mark.parametrize("eager", [pytest.param(False, id="plain"), EAGER])
@pytest.mark.parametrize("one", [False, True], ids=["invalidate_all", "invalidate"])
def test_a_load_that_has_begun_is_not_joined_after_an_invalidation(
    one: bool, eager: bool, url: str, prefix: str
) -> None:
    """A call after an invalidation does not get its value. With an eager task factory it begins as its task is made."""

    async def play() -> tuple[int, int]:
        if eager:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        cache = Cache(url, prefix=prefix)
        source, loading, go_on = [1], asyncio.Event(), asyncio.Event()

        @cache.versioned(namespace="eager")
        async def f(x: int) -> int:
            value = source[0]
            loading.set()
            if value == 1:
                await go_on.wait()
            return value

        first = asyncio.ensure_future(f(1))
        await loading.wait()
        source[0] = 2
        await (f.invalidate(1) if one else f.invalidate_all())
        second = asyncio.ensure_future(f(1))
        done, _ = await asyncio.wait({second}, timeout=20)
        go_on.set()
        assert done, "it waits for the load that the invalidation overtook"
        values = await first, await second
        await cache.aclose()
        return values

    assert asyncio.run(play()) == (1, 2)


def test_a_load_whose_loop_was_stopped_before_it_began_is_not_waited_for(prefix: str) -> None:
    """A loop that is left with a call about to load: a call on another loop loads at once."""
    cache = Cache("memory://", prefix=prefix, wait_timeout=3600)
    loads: list[int] = []

    @cache.versioned(namespace="stopped")
    async def f(x: int) -> int:
        loads.append(x)
        return x

    async def leave() -> asyncio.Task[Any]:
        return asyncio.ensure_future(f(1))

    async def beside() -> int:
        return await asyncio.wait_for(f(1), 20)

    loop = asyncio.new_event_loop()
    try:
        left = loop.run_until_complete(leave())
        assert loads == [], "the loop was to stop before the load began"
        assert asyncio.run(beside()) == 1
        assert loads == [1]
        assert loop.run_until_complete(left) == 1
        assert loads == [1]
    finally:
        loop.close()
        cache.close()
