"""What holds for the whole cache holds for keys and values: disabling, watching, forking, codecs, event loops."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from memover import Event, Source, UnencodableValue
from memover.codec.pickle import PickleCodec
from tests.servers import run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Cache


class Spelled:
    """A codec of the user's own, which can only keep what `repr` can."""

    name = "spelled"

    def encode(self, value: Any) -> bytes:
        return repr(value).encode()

    def decode(self, data: bytes | memoryview) -> Any:
        return eval(bytes(data), {})


def test_a_computed_value_that_cannot_be_stored_is_told_once(
    url: str, make: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    """With on_unencodable="return" get_or_set hands it on, and warns of the first, as a decorated function does."""
    cache, thing = make(url, on_unencodable="return"), object()
    assert cache.get_or_set("k", lambda: thing) is thing
    assert cache.get_or_set("k", lambda: thing) is thing
    assert [record.message.partition(":")[0] for record in caplog.records] == ["get_or_set"]


def test_nothing_is_read_or_stored_inside_disabled(url: str, make: Callable[..., Cache]) -> None:
    """As with Django's dummy cache: all is absent and every write is forgotten, but removals are carried out."""
    cache = make(url)
    cache.set_many({"k": 1, "gone": 1})
    with cache.disabled():
        assert cache.get("k") is None and "k" not in cache and cache.get_many(["k"]) == {}
        cache.set("k", 2)
        assert cache.add("k", 2) is True
        assert cache.touch("k") is False
        assert cache.get_or_set("k", lambda: 3) == 3
        assert asyncio.run(cache.aget_or_set("k", lambda: 4)) == 4
        for count in (cache.incr, cache.incr_version):
            with pytest.raises(ValueError, match="set"):
                count("k")
        cache.delete("gone")
    assert cache.get_many(["k", "gone"]) == {"k": 1}


def test_lookups_are_seen(url: str, make: Callable[..., Cache]) -> None:
    """`detect` lists them with key and source, None for what was absent; observers hear of stores and removals."""
    heard: list[Event] = []
    cache = make(url, observers=[heard.append])
    with cache.detect() as lookups:
        cache.set("k", 1)
        cache.get("k")
        cache.get("absent")
        cache.get_or_set("l", lambda: 1)
        cache.delete("k")
    stored = f"{cache.prefix}:1:"
    assert [(event.key, event.source) for event in lookups] == [
        (stored + "k", Source.FRESH),
        (stored + "absent", None),
        (stored + "l", Source.LOADED),
    ]
    assert [event.name for event in heard] == ["store", "lookup", "lookup", "load", "store", "lookup", "invalidate"]


def test_a_codec_of_ones_own_sees_every_value(url: str, make: Callable[..., Cache]) -> None:
    """Integers too, since it may be there to hide them; they are counted all the same."""
    cache = make(url, codec=Spelled())
    cache.set("n", 41)
    assert cache.incr("n") == 42 and cache.get("n") == 42
    cache.set("t", (1, 2))
    assert cache.get("t") == (1, 2)
    plain = make(url)
    if url != "memory://":
        assert plain.get("n") is None
        plain.set("n", 1)
        assert cache.get("n") is None
        with pytest.raises(ValueError, match="set"):
            cache.incr("n", 0.5)


def test_pickles_are_signed_and_refusals_are_pickling_errors(url: str, make: Callable[..., Cache]) -> None:
    """With `PickleCodec`: what pickle refuses raises both errors; another secret reads nothing; integers are digits."""
    cache = make(url, codec=PickleCodec(keys=["new", "old"]))
    cache.set("k", {1, 2})
    cache.set("n", 1)
    assert cache.get("k") == {1, 2} and cache.incr("n") == 2
    for error in (UnencodableValue, pickle.PicklingError):
        with pytest.raises(error):
            cache.set("f", lambda: None)
    if url != "memory://":
        assert make(url, codec=PickleCodec(keys=["other"])).get("k") is None
        make(url, codec=PickleCodec(keys=["old"])).set("k", "from before")
        assert cache.get("k") == "from before"


def test_any_event_loop_may_come(shared_url: str, make: Callable[..., Cache]) -> None:
    """Loops that come and go, and threads beside them, see one another's values."""
    cache = make(shared_url)

    async def count() -> int:
        value: int = sum([await cache.aincr("n"), 0])
        return value

    cache.set("n", 0)
    assert [asyncio.run(count()) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert cache.incr("n") == 6


def test_one_task_computes_for_all(url: str, make: Callable[..., Cache]) -> None:
    """`aget_or_set` under a hundred tasks computes once, awaits what the default returns, and survives a cancelled first."""
    cache = make(url)
    computed: list[int] = []

    async def compute() -> list[int]:
        computed.append(1)
        await asyncio.sleep(0.01)
        return [7]

    async def whole() -> None:
        tasks = [asyncio.create_task(cache.aget_or_set("k", compute)) for _ in range(100)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert [value for value in got if not isinstance(value, asyncio.CancelledError)] == [[7]] * 99
        assert computed == [1]
        assert await cache.aget("k") == [7]
        await cache.aclose()

    asyncio.run(whole())


def test_a_get_or_set_may_call_itself(url: str, make: Callable[..., Cache]) -> None:
    """Computing a key by way of the same key is let through instead of waited for."""
    cache = make(url)
    assert cache.get_or_set("k", lambda: [cache.get_or_set("k", lambda: 1)]) == [1]


def test_memory_is_bounded(make: Callable[..., Cache]) -> None:
    """`max_entries` counts keys and values; the least recently used leave first."""
    cache = make("memory://", max_entries=3)
    for number in range(5):
        cache.set(f"k{number}", number)
        cache.get("k0")
    assert cache.get_many([f"k{number}" for number in range(5)]) == {"k0": 0, "k3": 3, "k4": 4}


def test_children_after_fork_use_the_same_cache(shared_url: str, prefix: str) -> None:
    """A parent's cache in its children: each has connections of its own, and the count is everybody's."""
    code = """
import os
from memover import Cache
cache = Cache(args[0], prefix=args[1], socket_timeout=30.0, socket_connect_timeout=30.0)
cache.set("n", 0)
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(20):
                cache.incr("n")
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
for _ in range(20):
    cache.incr("n")
codes = [os.waitpid(pid, 0)[1] for pid in children]
result = [codes, cache.get("n")]
"""
    assert run_python(code, shared_url, prefix) == [[[0, 0, 0], 80]]
