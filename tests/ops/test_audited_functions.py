"""`audit=`: a real function on a real store finds the change that nobody invalidated."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, Event
from memover.runtime.audit import auditor
from tests.servers import await_until, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest, redis_url: str) -> str:
    return "memory://" if request.param == "memory" else redis_url


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference is looked at again soon."""
    monkeypatch.setattr(auditor, "GRACE_SECONDS", 0.05)


class Source:
    """A source of truth, read by a cached function, and what was seen of its audits."""

    def __init__(self) -> None:
        self.value = 1
        self.loads = 0
        self.threads: set[str] = set()
        self.events: list[Event] = []

    def read(self) -> dict[str, int]:
        self.loads += 1
        self.threads.add(threading.current_thread().name)
        return {"value": self.value}

    def observe(self, event: Event) -> None:
        if event.name == "audit":
            self.events.append(event)


def decorated(cache: Cache, source: Source, way: str, **options: Any) -> tuple[Any, Callable[[], Any]]:
    """A function on the source, and a call of it that returns what it gave."""
    if way == "sync":
        plain: Any = cache.versioned(namespace="things", audit=1.0, **options)(lambda n: source.read())
        return plain, lambda: plain(1)

    async def load(n: int) -> dict[str, int]:
        return source.read()

    awaited: Any = cache.versioned(namespace="things", audit=1.0, **options)(load)
    return awaited, lambda: awaited(1)


def test_a_change_without_an_invalidation_is_found(url: str, prefix: str) -> None:
    """Counted, told with shapes, and the caller gets what the cache has, at once."""
    source = Source()
    with Cache(url, prefix=prefix, observers=[source.observe]) as cache:
        function, call = decorated(cache, source, "sync")
        call()
        assert call() == {"value": 1}
        wait_until(lambda: function.cache_info().audits == 1, "the first audit")
        assert function.cache_info().disagreements == 0
        source.value = 2
        assert call() == {"value": 1}
        wait_until(lambda: function.cache_info().disagreements == 1, "the difference")
        assert call() == {"value": 1}, "what is served does not change"
        assert function.cache_info().audits >= 2
        differ = next(event for event in source.events if event.detail.startswith("differ"))
        assert "dict of 1 (str → int)" in differ.detail
        assert differ.key == function.key(1)
        assert len(source.threads) >= 2, "audits run in threads of their own"


def test_of_coroutine_functions_too(url: str, prefix: str) -> None:
    """In tasks of the loop that the call was made on."""
    source = Source()

    async def main() -> None:
        async with Cache(url, prefix=prefix) as cache:
            function, call = decorated(cache, source, "async")
            await call()
            source.value = 2
            assert await call() == {"value": 1}
            await await_until(lambda: function.cache_info().disagreements, "the audit")
            info = function.cache_info()
            assert (info.audits, info.disagreements) == (1, 1)

    asyncio.run(main())


def test_an_invalidated_change_is_no_disagreement(url: str, prefix: str) -> None:
    """Though the audit ran between the change and its invalidation."""
    source = Source()
    with Cache(url, prefix=prefix) as cache:
        function, call = decorated(cache, source, "sync", tags=("thing",))
        call()
        source.value = 2
        loads = source.loads
        call()
        wait_until(lambda: source.loads > loads, "the audit's load")
        cache.invalidate_tags("thing")
        wait_until(lambda: len(cache._state.audits) == 0, "the audit to be over")
        assert call() == {"value": 2}
        assert function.cache_info().disagreements == 0


def test_without_audit_nothing_runs(url: str, prefix: str) -> None:
    """Off by default."""
    source = Source()
    with Cache(url, prefix=prefix) as cache:
        plain: Any = cache.versioned(namespace="things")(lambda n: source.read())
        for _ in range(20):
            plain(1)
        assert source.loads == 1
        assert plain.cache_parameters()["audit"] == 0


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "often"])
def test_a_share_is_from_0_to_1(share: Any) -> None:
    """Anything else is refused at decoration."""
    with Cache("memory://") as cache, pytest.raises(ConfigurationError, match="audit"):
        cache.versioned(namespace="things", audit=share)(lambda: 1)


def test_a_closed_cache_is_asked_nothing_more(redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that waited to be looked at again has no verdict, and opens no connection."""
    monkeypatch.setattr(auditor, "GRACE_SECONDS", 0.3)
    source = Source()
    with Cache(redis_url, prefix=prefix) as cache:
        function, call = decorated(cache, source, "sync")
        call()
        source.value = 2
        loads = source.loads
        call()
        wait_until(lambda: source.loads > loads, "the audit's load")
    wait_until(lambda: len(cache._state.audits) == 0, "the audit to be given up")
    assert function.cache_info().audits == 0
