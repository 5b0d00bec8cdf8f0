"""The near cache answers without the store, and only what it was asked to keep."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, MemoverWarning, clocks
from memover import Source as From
from memover.errors import ConfigurationError
from memover.runtime import tiers
from tests.near.actors import UNTOLD, Source, comes_near, is_near, near_function, tier_of
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer


def test_a_near_hit_sends_nothing(redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str) -> None:
    """A thousand near hits: the heartbeat asks for one token at its own pace, and nobody asks for the entry."""
    f = near_function(cache_of(redis_server.url), Source())
    f(1)
    comes_near(f, 1)
    before = f.cache_info()
    with redis_server.recording() as calls:
        for _ in range(1000):
            assert f(1) == [1, 1]
    after = f.cache_info()
    assert after.near_hits - before.near_hits == after.hits - before.hits == 1000
    mine = [command for command in calls.commands if any(arg.startswith(prefix.encode()) for arg in command.args)]
    assert {command.args for command in mine} <= {(f"{prefix}:gen:@all".encode(),)}


def test_an_idle_process_sends_at_most_one_command_a_second(
    redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """Whatever is in use: 300 calls of 3 namespaces, and the heartbeat asks for one key."""
    cache = cache_of(redis_server.url)
    functions = [near_function(cache, Source(), namespace=f"idle{number}") for number in range(3)]
    for f in functions:
        for x in range(100):
            f(x)
    for f in functions:
        for x in range(100):
            comes_near(f, x)
    wait_until(lambda: not tier_of(cache).asked, "the heartbeat to see that nobody looks")
    time.sleep(1.0)  # its first idle second
    with redis_server.recording() as calls:
        time.sleep(3.0)
    mine = [command for command in calls.commands if any(arg.startswith(prefix.encode()) for arg in command.args)]
    assert 1 <= len(mine) <= 4
    assert {command.args for command in mine} == {(f"{prefix}:gen:@all".encode(),)}


@pytest.mark.slow
def test_ten_thousand_namespaces_cost_one_command_a_second(
    redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """Every namespace has an entry near, and an idle process still asks for one key."""
    number = 10_000
    cache = cache_of(redis_server.url, near_max_entries=2 * number)
    functions = [near_function(cache, Source(), namespace=f"idle{each}", near=3.0) for each in range(number)]
    missing = functions
    while missing:
        missing = [f for f in missing if not is_near(f, 1)]
    assert len(tier_of(cache).items) == number
    for _ in range(3):  # the first of them prolongs the call tokens in use, in batches
        fence = tier_of(cache).fence
        wait_until(lambda fence=fence: tier_of(cache).fence > fence, "a beat", timeout=60)
    with redis_server.recording() as calls:
        began = time.monotonic()
        time.sleep(5.0)
        seconds = time.monotonic() - began
    mine = [command for command in calls.commands if any(arg.startswith(prefix.encode()) for arg in command.args)]
    assert len(mine) <= seconds + 1
    assert {command.args for command in mine} <= {(f"{prefix}:gen:@all".encode(),)}
    assert all(is_near(f, 1) for f in functions[::100])


def test_a_function_without_near_pays_nothing(redis_server: RedisServer, cache_of: Callable[..., Cache]) -> None:
    """No thread, no connection, no command beside those of its own calls."""
    cache = cache_of(redis_server.url)
    f = near_function(cache, Source(), near=None)
    f(1)
    threads = threading.active_count()
    with redis_server.recording() as calls:
        for _ in range(10):
            f(1)
        time.sleep(0.3)
    assert calls == ["MGET"] * 10
    assert threading.active_count() == threads
    assert cache._state.heart is None
    assert f.cache_info().near_hits == 0


def test_a_caller_cannot_change_what_others_get(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """Each caller of a near hit has a value of its own, whether it was decoded or copied."""
    f = near_function(cache_of(redis_url), lambda x: {"x": [x]})
    f(1)
    comes_near(f, 1)
    for _ in range(5):
        value = f(1)
        assert value == {"x": [1]}
        value["x"].append(2)
        value["y"] = 3


def test_an_immutable_value_is_handed_out_as_it_is(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    f = near_function(cache_of(redis_url), lambda x: ("a", x))
    f(1)
    comes_near(f, 1)
    assert f(1) is f(1)


def test_async_functions_have_it_too(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """64 tasks at once, and another loop afterwards."""
    cache = cache_of(redis_url)
    source = Source()

    @cache.versioned(namespace="awaited", near=1.0)
    async def f(x: int) -> list[int]:
        return source(x)

    async def all_of_them() -> int:
        await f(1)
        while f.cache_info().near_hits == 0:
            await f(1)
        before = f.cache_info().near_hits
        assert await asyncio.gather(*(f(1) for _ in range(64))) == [[1, 1]] * 64
        await cache._state.store.aclose()
        return f.cache_info().near_hits - before

    assert asyncio.run(all_of_them()) == 64
    assert asyncio.run(all_of_them()) == 64


def test_observers_see_the_source(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """With observers, and inside `detect()`: the source is near."""
    cache = cache_of(redis_url)
    f = near_function(cache, Source())
    f(1)
    comes_near(f, 1)
    with cache.detect() as lookups:
        assert f(1) == [1, 1]
    assert [lookup.source for lookup in lookups] == [From.NEAR]
    seen: list[Any] = []
    g = near_function(cache_of(redis_url, observers=[seen.append]), Source(), namespace="observed")
    g(1)
    comes_near(g, 1)
    assert [event.source for event in seen if event.name == "lookup"][-1] is From.NEAR
    assert f.cache_info().hits >= f.cache_info().near_hits > 0


@pytest.mark.parametrize(("near", "seconds"), [(True, 1.0), (0.5, 0.5), ("250ms", 0.25), (timedelta(seconds=3), 3.0)])
def test_the_staleness_is_shown(near: Any, seconds: float, redis_url: str, cache_of: Callable[..., Cache]) -> None:
    f = near_function(cache_of(redis_url), Source(), near=near)
    assert f.cache_parameters()["max_staleness"] == seconds


@pytest.mark.parametrize("near", [0, 0.05, -1, "fast", float("inf"), float("nan"), [1]])
def test_what_is_no_staleness_is_refused(near: Any, cache_of: Callable[..., Cache]) -> None:
    with pytest.raises(ConfigurationError, match="near"):
        near_function(cache_of("memory://"), Source(), near=near)


def test_on_a_memory_store_it_changes_nothing(cache_of: Callable[..., Cache]) -> None:
    cache = cache_of("memory://")
    f = near_function(cache, Source())
    assert f(1) == f(1) == [1, 1]
    assert f.cache_info()[:2] == (1, 1)
    assert f.cache_info().near_hits == 0
    assert cache._state.heart is None


def test_the_tier_is_bounded_in_entries_and_in_bytes(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    cache = cache_of(redis_url, near_max_entries=20, near_max_bytes=100_000)
    f = near_function(cache, lambda x: "v" * 1000)
    for _ in range(3):
        for x in range(60):
            f(x)
    wait_until(lambda: [f(x) for x in range(60)] and len(tier_of(cache).items) == 20, "the tier to be full")
    big = near_function(cache, lambda x: "v" * 5000, namespace="big")
    wait_until(lambda: [big(x) for x in range(30)] and tier_of(cache).evicted > 60, "big entries to come near")
    tier = tier_of(cache)
    assert tier.bytes <= 100_000
    assert tier.bytes == sum(item.cost for item in tier.items.values())


def test_what_is_copied_is_counted_as_it_is_in_memory(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """A list of short strings takes ten times its bytes: from the second hit on, when it is copied and not decoded, that is what
    counts. What is too large for that goes on being decoded."""
    cache = cache_of(redis_url, near_max_bytes=1_000_000)

    def load(x: int) -> list[str]:
        return [f"{x}:{each}" for each in range(500 if x else 5000)]

    f = near_function(cache, load)
    tier = tier_of(cache)
    for x in (0, 1):
        f(x)
        comes_near(f, x)
        assert tier.items[f.key(x)].cost < 100_000
        wait_until(lambda x=x: is_near(f, x) and tier.items[f.key(x)].decodes >= 2, "the second hit")
    exactly = sys.getsizeof(load(1)) + sum(map(sys.getsizeof, load(1)))
    assert 0.8 * exactly < tier.items[f.key(1)].cost < 1.5 * exactly
    assert tier.items[f.key(0)].cost < 100_000
    for x in range(2, 60):
        f(x)
        comes_near(f, x)
        assert all(is_near(f, x) for _ in range(3))
        assert tier.bytes == sum(item.cost for item in tier.items.values()) <= 1_000_000
    assert tier.evicted > 10


def test_a_near_hit_is_judged_as_the_store_s_entry_would_be(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """An entry ends by its ttl in the tier too."""
    source = Source()
    f = near_function(cache_of(redis_url), source, ttl=0.6)
    f(1)
    comes_near(f, 1)
    source.value = 2
    wait_until(lambda: f(1) == [1, 2], "the entry to end")
    comes_near(f, 1)


def test_a_limited_age_is_held_near_too(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """A call with `max_age` is answered near by an entry that is young enough, and by no other."""
    source = Source()
    f = near_function(cache_of(redis_url), source, ttl=600)
    f(1)
    comes_near(f, 1)
    before = f.cache_info()
    assert f.max_age(60)(1) == [1, 1]
    assert f.cache_info().near_hits == before.near_hits + 1
    source.value = 2
    assert f.max_age(0)(1) == [1, 2]
    assert f.cache_info().near_hits == before.near_hits + 1
    assert f.cache_info().loads == before.loads + 1


def test_map_asks_the_store_for_what_is_not_near(
    redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """Near hits are served in their places, the rest is read in one command and comes near, and nothing is sent after that."""
    source = Source()
    f = near_function(cache_of(redis_server.url), source)
    for x in range(4):
        f(x)
    comes_near(f, 1)
    comes_near(f, 3)
    expected = [[x, 1] for x in range(6)]
    assert list(f.map(range(6))) == expected
    assert source.loads == 6

    def all_near() -> bool:
        before = f.cache_info().near_hits
        assert list(f.map(range(6))) == expected
        return bool(f.cache_info().near_hits == before + 6)

    wait_until(all_near, "all six to be near")
    before = f.cache_info()
    with redis_server.recording() as calls:
        assert list(f.map(range(6))) == expected
    assert f.cache_info().near_hits - before.near_hits == f.cache_info().hits - before.hits == 6
    mine = [command for command in calls.commands if any(arg.startswith(prefix.encode()) for arg in command.args)]
    assert {command.args for command in mine} <= {(f"{prefix}:gen:@all".encode(),)}


def test_warm_counts_what_is_near_as_fresh(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """Nothing was loaded for it."""
    source = Source()
    f = near_function(cache_of(redis_url), source, near=60)
    assert tuple(f.warm(range(3))) == (0, 3, 0)
    comes_near(f, 1)
    before = f.cache_info().near_hits
    assert tuple(f.warm(range(3))) == (3, 0, 0)
    assert f.cache_info().near_hits > before and source.loads == 3


def test_map_does_not_serve_what_was_invalidated(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    source = Source()
    f = near_function(cache_of(redis_url), source, near=60)
    assert list(f.map(range(3))) == [[x, 1] for x in range(3)]
    comes_near(f, 1)
    source.value = 2
    f.invalidate_all()
    assert list(f.map(range(3))) == [[x, 2] for x in range(3)]


def test_near_hits_are_audited(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """A share of the near hits is compared with the source, as of others."""
    source = Source()
    f = near_function(cache_of(redis_url), source, audit=1.0)
    f(1)
    comes_near(f, 1)
    wait_until(lambda: is_near(f, 1) and f.cache_info().audits > 2, "audits of near hits", interval=0.01)
    source.value = 2  # a change that nobody invalidates
    wait_until(lambda: f(1) and f.cache_info().disagreements, "a disagreement", interval=0.05)


def test_a_frozen_clock_is_followed(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """freezegun moves the end of an entry, and neither stops nor moves the fence."""
    freezegun = pytest.importorskip("freezegun")
    source = Source()
    f = near_function(cache_of(redis_url), source, ttl=60)
    f(1)
    comes_near(f, 1)
    with freezegun.freeze_time(tick=False) as frozen:
        comes_near(f, 1)
        source.value = 2
        frozen.tick(61)
        assert f(1) == [1, 2]


def test_a_clock_that_is_set_is_followed(
    redis_url: str, cache_of: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an entry goes by the wall clock. When somebody sets that, near hits follow within a beat, and the fence does
    not move."""
    ahead, real = 0.0, time.time

    def wall() -> float:
        return real() + ahead

    for module, name in ((time, "time"), (clocks, "real"), (tiers, "real")):
        monkeypatch.setattr(module, name, wall)
    source = Source()
    f = near_function(cache_of(redis_url), source, ttl=600, near=60)
    f(1)
    comes_near(f, 1)
    ahead = -100_000.0
    assert all(is_near(f, 1) for _ in range(3))
    source.value, ahead = 2, 601.0
    heart = f.cache._state.heart
    beats = tier_of(f.cache).round
    heart._runs[0].due = 0.0
    heart.wake()
    wait_until(lambda: tier_of(f.cache).round is not beats, "a beat")
    assert f(1) == [1, 2]


def test_a_clock_that_is_another_behind_its_name_is_followed_at_once(
    redis_url: str, cache_of: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """time-machine replaces what `time.time` does, and not the object: where it is there, every hit asks the wall clock."""
    ahead, real = 0.0, time.time

    def wall() -> float:
        return real() + ahead

    for module, name in ((time, "time"), (clocks, "real"), (tiers, "real")):
        monkeypatch.setattr(module, name, wall)
    monkeypatch.setitem(sys.modules, "time_machine", types.ModuleType("time_machine"))
    source = Source()
    f = near_function(cache_of(redis_url), source, ttl=600, near=60)
    f(1)
    comes_near(f, 1)
    wait_until(lambda: is_near(f, 1) and is_near(f, 1), "two near hits in a row")
    source.value, ahead = 2, 601.0
    assert f(1) == [1, 2]


def test_tagged_entries_are_served_without_a_look_at_each_token(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """In a round in which nothing moved, all tokens of an entry are one comparison."""
    f = near_function(
        cache_of(redis_url), lambda x: ("a", x), near=60, tags=tuple(f"t{each}:{{x}}" for each in range(8))
    )
    f(1)
    comes_near(f, 1)
    f(1)
    item = tier_of(f.cache).items[f.key(1)]
    assert len(item.more) == 8
    wait_until(lambda: is_near(f, 1) and item.round is tier_of(f.cache).round, "a call in this round")
    item.more = ()  # nobody asks for them
    assert is_near(f, 1)
    f.cache.invalidate_tags("t7:1")
    assert item.round is not tier_of(f.cache).round


def test_close_ends_the_thread_and_the_next_call_begins_anew(
    redis_server: RedisServer, cache_of: Callable[..., Cache]
) -> None:
    cache = cache_of(redis_server.url)
    f = near_function(cache, Source())
    f(1)
    comes_near(f, 1)
    cache.close()
    assert not tier_of(cache).items
    assert not is_near(f, 1)
    comes_near(f, 1)
    cache.close()
    assert tier_of(cache).fence < 0


def test_two_servers_of_resp(start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]) -> None:
    """Where the server refuses HELLO and tracking to the user, heartbeats alone keep the bound."""
    server = start_redis(username="app", password="secret", acl=f"~* &* +@all -hello {UNTOLD}")
    source = Source()
    f = near_function(cache_of(server.url), source)
    f(1)
    comes_near(f, 1)
    other = near_function(cache_of(server.url), source, namespace="other")
    source.value = 2
    with pytest.warns(MemoverWarning, match="No function of this process"):
        other.cache.invalidate_namespace("near")
    assert f(1) == [1, 2], "the same process"
