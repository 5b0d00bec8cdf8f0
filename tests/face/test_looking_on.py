"""Looking on: observers, detect, disabled, and the standard logging observer."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, ConfigurationError, Event, InvalidationFailed, Source
from memover.observe import LoggingObserver
from memover.observe import logging as observe_logging
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


@pytest.fixture
def events() -> list[Event]:
    return []


def observed(way: Way, *observers: Any, **options: Any) -> Any:
    @way.cached("observed", cache=way.new_cache(observers=observers), **options)
    def f(x: int) -> list[int]:
        if x < 0:
            raise LookupError(x)
        return [x]

    return f


def test_every_lookup_is_an_event(way: Way, events: list[Event]) -> None:
    """With namespace, key, source, times in seconds and stored bytes; loads and stores are events too."""
    f = observed(way, events.append)
    way.run(f(1))
    way.run(f(1))
    lookups = [event for event in events if event.name == "lookup"]
    assert [event.source for event in lookups] == [Source.LOADED, Source.FRESH]
    assert all((event.namespace, event.key) == ("observed", f.key(1)) for event in events)
    loaded, fresh = lookups
    assert 0 < loaded.load_time <= loaded.elapsed
    assert fresh.load_time == 0
    assert fresh.elapsed > 0
    assert loaded.size == fresh.size == way.run(f.peek(1)).size
    assert [event.name for event in events] == ["load", "store", "lookup", "lookup"]
    assert events[0].load_time == loaded.load_time
    assert events[1].size == loaded.size
    assert all(event.error is None for event in events)
    assert f.cache_info()[:2] == (1, 1), "an observed call counts as any other"


def test_what_goes_wrong_is_an_event_with_its_error(way: Way, events: list[Event]) -> None:
    """An error of the function is on its load and its lookup."""
    f = observed(way, events.append)
    with pytest.raises(LookupError) as caught:
        way.run(f(-1))
    assert [event.name for event in events] == ["load", "lookup"]
    assert all(event.error is caught.value for event in events)


def test_invalidations_are_events(way: Way, events: list[Event]) -> None:
    """One of a call has its key, one of the namespace has none."""
    f = observed(way, events.append)
    way.run(f.invalidate(1))
    way.run(f.invalidate_all())
    assert [(event.name, event.key) for event in events] == [("invalidate", f.key(1)), ("invalidate", "")]


def test_a_damaged_entry_is_a_miss_and_an_event(redis_way: Way, redis_client: Any, events: list[Event]) -> None:
    """Foreign bytes under the key, a cut entry, another call's bytes: the function runs, nobody sees an exception."""
    way = redis_way
    f = observed(way, events.append)
    way.run(f(1))
    way.run(f(2))
    other = redis_client.get(f.key(2))
    whole = redis_client.get(f.key(1))
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damage in (b"", b"garbage", whole[:10], whole[:-1], flipped, whole + b"x", other, b"\x80\x04N."):
        del events[:]
        redis_client.set(f.key(1), damage)
        assert way.run(f.peek(1)) is None
        assert way.run(f(1)) == [1]
        damaged = [event for event in events if event.name == "damaged"]
        assert len(damaged) == 1  # however often these bytes were read
        assert damaged[0].key == f.key(1)
        assert damaged[0].detail
        assert [event.source for event in events if event.name == "lookup"] == [Source.LOADED]
    assert f.cache_info().damaged == 8


def test_an_observer_that_raises_breaks_nothing_and_is_logged_once(
    way: Way, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """Other observers are told all the same; the log has it once, with its traceback."""

    def broken(event: Event) -> None:
        raise RuntimeError("an observer's own")

    f = observed(way, broken, events.append)
    for x in range(3):
        assert way.run(f(x)) == way.run(f(x)) == [x]
    assert len([event for event in events if event.name == "lookup"]) == 6
    complaints = [record for record in caplog.records if "observer" in record.message]
    assert len(complaints) == 1
    assert complaints[0].name == "memover"
    assert "an observer's own" in (complaints[0].exc_text or "")


def test_an_observer_may_call_cached_functions(sync_way: Way) -> None:
    """It is told outside of all locks."""
    told = []

    def asks(event: Event) -> None:
        if event.name == "load" and not told:
            told.append(1)
            told.append(f(5))

    f = observed(sync_way, asks)
    assert f(1) == [1]
    assert told == [1, [5]]


def test_an_observer_must_be_callable() -> None:
    """Refused when the cache is made."""
    with pytest.raises(ConfigurationError, match="observer"):
        Cache(observers=["log"])  # type: ignore[list-item]


def test_followers_and_failures_are_told_apart(sync_way: Way, events: list[Event]) -> None:
    """Who waited for another's load has the source "waited"."""
    began, release = threading.Event(), threading.Event()

    @sync_way.cached("waited", cache=sync_way.new_cache(observers=[events.append]))
    def slow() -> list[int]:
        began.set()
        assert release.wait(30)
        return [1]

    leader = threading.Thread(target=slow)
    leader.start()
    assert began.wait(30)
    follower = threading.Thread(target=slow)
    follower.start()
    wait_until(lambda: _waits(follower), "the follower to wait")
    release.set()
    leader.join(30)
    follower.join(30)
    assert sorted(str(event.source) for event in events if event.name == "lookup") == ["loaded", "waited"]
    info = slow.cache_info()
    assert (info.loads, info.waits, info.misses) == (1, 1, 2)


def _waits(thread: threading.Thread) -> bool:
    """Whether a thread waits for another's load."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "await_flight":
            return True
        frame = frame.f_back
    return False


# detect


def test_detect_lists_the_lookups_made_inside(way: Way) -> None:
    """Each with namespace, key and source; nested blocks each have theirs, and outside nothing is collected."""

    @way.cached("detected")
    def f(x: int) -> int:
        return x

    way.run(f(1))
    with way.cache.detect() as outer:
        way.run(f(1))
        with way.cache.detect() as inner:
            way.run(f(2))
    way.run(f(3))
    assert [(one.namespace, one.key, one.source) for one in outer] == [
        ("detected", f.key(1), "fresh"),
        ("detected", f.key(2), "loaded"),
    ]
    assert [one.key for one in inner] == [f.key(2)]
    assert f"{inner[0].source}" == "loaded"


def test_detect_sees_only_its_own_context(sync_way: Way) -> None:
    """Other threads' lookups are theirs; a thread that runs in a copy of the context belongs to it."""

    @sync_way.cached()
    def f(x: int) -> int:
        return x

    with sync_way.cache.detect() as lookups:
        other = threading.Thread(target=f, args=(1,))
        other.start()
        other.join(30)
        assert lookups == []
        context = contextvars.copy_context()
        mine = threading.Thread(target=context.run, args=(f, 2))
        mine.start()
        mine.join(30)
    assert [one.key for one in lookups] == [f.key(2)]


def test_detect_sees_tasks_begun_inside(async_way: Way) -> None:
    """And not those of others, however they interleave."""

    @async_way.cached()
    def f(x: int) -> int:
        return x

    async def one(x: int) -> list[str]:
        with async_way.cache.detect() as lookups:
            await asyncio.gather(f(x), f(x + 100))
        return sorted(event.key for event in lookups)

    async def whole() -> list[list[str]]:
        return await asyncio.gather(one(1), one(2))

    first, second = async_way.run(whole())
    assert first == sorted([f.key(1), f.key(101)])
    assert second == sorted([f.key(2), f.key(102)])


# disabled


def test_disabled_runs_the_function_and_touches_nothing(way: Way, redis_client: Any) -> None:
    """Inside cache.disabled() every call runs; afterwards the old entries are there still."""
    runs = []

    @way.cached()
    def f(x: int) -> list[int]:
        runs.append(x)
        return [x, len(runs)]

    assert way.run(f(1)) == [1, 1]
    with way.cache.disabled():
        assert way.run(f(1)) == [1, 2]
        assert way.run(f(1)) == [1, 3]
        assert way.run(f.refresh(1)) == [1, 4]
        assert way.run(f.max_age(60)(1)) == [1, 5]
        assert way.run(f.peek(1)) is None
        way.run(f.set([0], 1))
        with way.cache.disabled():
            assert way.run(f(2)) == [2, 6]
        assert way.run(f(2)) == [2, 7]
    assert way.run(f(1)) == [1, 1]
    assert way.run(f.peek(2)) is None
    assert f.cache_info().bypasses >= 5


def test_disabled_ends_with_its_block_whatever_happens(way: Way) -> None:
    """An exception inside ends it too."""

    @way.cached()
    def f() -> int:
        return 1

    way.run(f())
    with pytest.raises(LookupError), way.cache.disabled():
        raise LookupError
    way.run(f())
    assert f.cache_info().hits == 1


def test_disabled_calls_take_what_has_no_key(way: Way) -> None:
    """Nothing is looked up, so nothing need be keyable or storable."""

    @way.cached()
    def f(x: object) -> object:
        return x

    thing = object()
    with way.cache.disabled():
        assert way.run(f(thing)) is thing
        assert way.run(f.refresh(thing)) is thing


def test_invalidations_reach_the_store_while_disabled(way: Way) -> None:
    """Other processes have caching on: what is invalidated here must be gone there."""

    @way.cached()
    def f(x: int) -> int:
        return x

    for x in (1, 2):
        way.run(f(x))
    with way.cache.disabled():
        way.run(f.invalidate(1))
    assert way.run(f.peek(1)) is None
    assert way.run(f.peek(2)) is not None
    with way.cache.disabled():
        way.run(f.invalidate_all())
    assert way.run(f.peek(2)) is None


def test_disabled_is_told_to_observers(way: Way, events: list[Event]) -> None:
    """A bypassed lookup is a lookup."""
    cache = way.new_cache(observers=[events.append])

    @way.cached("bypassed", cache=cache)
    def f() -> int:
        return 1

    with cache.disabled(), cache.detect() as lookups:
        way.run(f())
    assert [event.source for event in events] == [Source.BYPASSED]
    assert [event.namespace for event in lookups] == ["bypassed"]


# The standard logging observer


def test_lookups_are_logged_for_debugging_only(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """Level DEBUG, one line, the facts as attributes of the record."""
    f = observed(way, LoggingObserver())
    with caplog.at_level(logging.INFO, "memover.events"):
        way.run(f(1))
        assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "memover.events"):
        way.run(f(1))
        way.run(f(2))
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert {record.name for record in caplog.records} == {"memover.events"}
    lookups = [record for record in caplog.records if record.memover_event == "lookup"]
    assert [record.memover_source for record in lookups] == ["fresh", "loaded"]
    record = lookups[1]
    assert record.memover_namespace == "observed"
    assert record.memover_key == f.key(2)
    assert record.memover_elapsed >= record.memover_load_time > 0
    assert record.memover_size > 0
    assert f.key(2) in record.getMessage()
    assert "loaded" in record.getMessage()
    facts = {name: value for name, value in vars(record).items() if name.startswith("memover_")}
    assert json.loads(json.dumps(facts)) == facts, "for formatters that write JSON"


def test_a_function_that_fails_is_no_warning(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """What the function raises is its caller's to log."""
    f = observed(way, LoggingObserver())
    with caplog.at_level(logging.DEBUG, "memover.events"), pytest.raises(LookupError):
        way.run(f(-1))
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert any(isinstance(record.memover_error, LookupError) for record in caplog.records)


def test_invalidations_are_logged_as_news_and_failed_ones_as_errors(
    way_of: Callable[[str], Way], caplog: pytest.LogCaptureFixture, start_redis: Any
) -> None:
    """INFO, and ERROR for one that the store did not acknowledge."""
    server = start_redis()
    way = way_of(server.url)
    cache = way.new_cache(observers=[LoggingObserver("app.cache")])

    @way.cached("failing", cache=cache)
    def f() -> int:
        return 1

    with caplog.at_level(logging.INFO, "app.cache"):
        way.run(f.invalidate_all())
        assert [(r.levelno, r.memover_event) for r in caplog.records if r.name == "app.cache"] == [
            (logging.INFO, "invalidate")
        ]
        caplog.clear()
        server.kill()
        with pytest.raises(InvalidationFailed):
            way.run(f.invalidate_all())
        levels = {r.memover_event: r.levelno for r in caplog.records if r.name == "app.cache"}
        assert levels == {"store-error": logging.WARNING, "invalidate": logging.ERROR}
        server.start()
        way.run(f.invalidate_all())


def test_repeated_warnings_are_counted_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first at once, then one per interval, event and namespace, which says how many were left out."""
    clock = [1000.0]
    monkeypatch.setattr(observe_logging, "monotonic", lambda: clock[0])
    observer = LoggingObserver(logging.getLogger("limited"), repeat_after=60)
    failure = Event("store-error", "one", "k", error=LookupError("gone"))
    with caplog.at_level(logging.WARNING, "limited"):
        for _ in range(5):
            observer(failure)
        observer(failure._replace(namespace="two"))
        observer(failure._replace(name="damaged", detail="checksum"))
        assert len(caplog.records) == 3
        clock[0] += 59.9
        observer(failure)
        assert len(caplog.records) == 3
        clock[0] += 0.1
        observer(failure)
        observer(failure)
        last = caplog.records[-1]
        assert len(caplog.records) == 4
        assert last.memover_left_out == 5
        assert "5 more were not logged" in last.getMessage()
        assert "LookupError('gone')" in last.getMessage()
    every = LoggingObserver("limited", repeat_after=0)
    with caplog.at_level(logging.WARNING, "limited"):
        caplog.clear()
        for _ in range(3):
            every(failure)
        assert len(caplog.records) == 3


def test_an_event_that_is_not_known_yet_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A later memover may have more of them."""
    LoggingObserver("unknown")(Event("something-new", "n", "k"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_nothing_in_memover_imports_the_observers() -> None:
    """They are an edge: who does not use them does not load them."""
    code = (
        "import sys, memover; memover.Cache(observers=[print]); memover.versioned_cache(namespace='n')(len);"
        "print([name for name in sys.modules if name.startswith('memover.observe')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
