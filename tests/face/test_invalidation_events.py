"""Every invalidation is an event, whoever makes it: a function, a cache by name or by tag, a key-value call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from memover import InvalidationFailed
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Event
    from tests.face.ways import Way

BY_CACHE = {
    "invalidate_namespace": ("named",),
    "invalidate_tags": ("t:1", "t:2"),
    "clear": (),
}


def _call(way: Way, cache: Any, name: str, *arguments: Any) -> Any:
    return way.run(getattr(cache, f"a{name}" if way.is_async else name)(*arguments))


@pytest.mark.parametrize("name", BY_CACHE)
def test_an_invalidation_by_the_cache_is_an_event(name: str, way: Way) -> None:
    """With the namespace, or the tags, that it is about."""
    events: list[Event] = []
    cache = way.new_cache(observers=[events.append])
    _call(way, cache, name, *BY_CACHE[name])
    found = [event for event in events if event.name == "invalidate"]
    assert len(found) >= 1
    assert all(event.error is None for event in found)
    if name == "invalidate_namespace":
        assert [event.namespace for event in found] == ["named"]
    if name == "invalidate_tags":
        said = " ".join(f"{event.namespace} {event.key} {event.detail}" for event in found)
        assert "t:1" in said
        assert "t:2" in said


def test_a_functions_counters_know_what_the_cache_has_invalidated(way: Way) -> None:
    """`cache_info().invalidations` of the function whose namespace it is."""
    f = way.cached("named", cache=way.cache)(lambda x: x)
    way.run(f(1))
    before = f.cache_info().invalidations
    _call(way, way.cache, "invalidate_namespace", "named")
    assert f.cache_info().invalidations == before + 1


@pytest.mark.parametrize("name", BY_CACHE)
def test_a_failed_invalidation_by_the_cache_is_an_event_and_an_error_in_the_log(
    name: str, start_redis: Any, way_of: Callable[[str], Way], caplog: pytest.LogCaptureFixture
) -> None:
    """It is as loud as that of a function."""
    server = start_redis()
    way = way_of(server.url)
    events: list[Event] = []
    cache = way.new_cache(observers=[events.append])
    server.kill()
    try:
        with caplog.at_level(logging.INFO), pytest.raises(InvalidationFailed):
            _call(way, cache, name, *BY_CACHE[name])
        failed = [event for event in events if event.name == "invalidate"]
        assert failed, [event.name for event in events]
        assert all(isinstance(event.error, Exception) for event in failed)
        assert [record for record in caplog.records if record.name.startswith("memover")], "nothing was logged"
    finally:
        server.start()
    wait_until(lambda: _call(way, cache, name, *BY_CACHE[name]) or True, "the store", passing=(InvalidationFailed,))


def test_deleting_a_key_is_an_event(way: Way) -> None:
    """`delete` and `delete_many` invalidate, one event a key."""
    events: list[Event] = []
    cache = way.new_cache(observers=[events.append])
    _call(way, cache, "set", "a", 1)
    _call(way, cache, "set", "b", 1)
    events.clear()
    _call(way, cache, "delete", "a")
    assert [event.key.rpartition(":")[2] for event in events if event.name == "invalidate"] == ["a"]
    events.clear()
    _call(way, cache, "delete_many", ["a", "b"])
    assert {event.key.rpartition(":")[2] for event in events if event.name == "invalidate"} >= {"b"}
