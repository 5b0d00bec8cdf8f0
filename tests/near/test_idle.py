"""What a process sends whose near cache nobody looks into: one command a second at most, whatever other processes do."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from memover.runtime.heart import IDLE_SECONDS
from memover.stores.redis import scripts
from tests.near.actors import Source, comes_near, is_near, near_function, open_cache, tier_of
from tests.servers import hear, say, start_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Cache
    from tests.servers import RedisCluster, RedisServer, SentinelGroup
    from tests.servers.recording import Command, Recording

FUNCTIONS = 20
BUSY = ["stores", "invalidates calls", "invalidates tags"]


def idle(url: str, prefix: str) -> None:
    """A process with many entries near, which is then left alone."""
    with open_cache(url, prefix) as cache:
        functions = [
            near_function(cache, Source(), namespace=f"n{each}", near=3.0, tags=("x:{x}", "all"))
            for each in range(FUNCTIONS)
        ]
        for f in functions:
            f(1)
            comes_near(f, 1)
        wait_until(lambda: not cache._state.heart._runs[0].active, "the heartbeat to see that nobody looks", timeout=60)
        heart = cache._state.heart
        due = heart._runs[0].due
        wait_until(lambda: heart._runs[0].due > due, "its first beat in peace", timeout=60)
        say("idle", heart._runs[0].feed._socket.getsockname()[1])
        hear("call")
        say("near", is_near(functions[0], 1))


def busy(cache: Cache, how: str, until: float) -> int:
    """Another process at work under the same tags; how often it did something."""
    source = Source()
    functions = [
        near_function(cache, source, namespace=f"n{each}", near=None, tags=("x:{x}", "all"))
        for each in range(FUNCTIONS)
    ]
    times = 0
    while time.monotonic() < until:
        times += 1
        if how == "stores":
            functions[times % FUNCTIONS](1000 + times)
        elif how == "invalidates calls":
            functions[times % FUNCTIONS].invalidate(times)
        else:
            cache.invalidate_tags(f"y:{times}")
    return times


def sent(
    url: str, prefix: str, how: str, recordings: Callable[[ExitStack], list[Recording]]
) -> tuple[list[Command], float]:
    """What an idle process sent while another one was at work, and for how many seconds."""
    with start_python(idle, url, prefix) as worker, open_cache(url, prefix) as cache:
        port = worker.wait_for("idle")
        with ExitStack() as stack:
            recorded = recordings(stack)
            began = time.monotonic()
            assert busy(cache, how, began + 3.0) > 50
            seconds = time.monotonic() - began
        mine = [each for calls in recorded for each in calls.commands if each.client.endswith(f":{port}")]
        worker.tell("call")
        worker.wait_for("near")
    return mine, seconds


@pytest.mark.parametrize("how", BUSY)
def test_an_idle_process_sends_one_command_a_second_whatever_others_do(
    how: str, redis_server: RedisServer, prefix: str
) -> None:
    """No token is looked at because it was prolonged or moved, in a process that does not ask for it."""
    mine, seconds = sent(redis_server.url, prefix, how, lambda stack: [stack.enter_context(redis_server.recording())])
    assert 1 <= len(mine) <= seconds / IDLE_SECONDS + 1
    assert {each.args for each in mine} == {(f"{prefix}:gen:@all".encode(),)}


@pytest.mark.parametrize("how", BUSY)
def test_the_same_in_a_cluster(how: str, redis_cluster: RedisCluster, prefix: str) -> None:
    """Where every token would be a command of its own."""
    mine, seconds = sent(
        redis_cluster.url,
        prefix,
        how,
        lambda stack: [stack.enter_context(node.recording()) for node in redis_cluster.primaries()],
    )
    assert 1 <= len(mine) <= seconds / IDLE_SECONDS + 1
    assert {each.args for each in mine} == {(f"{prefix}:gen:@all".encode(),)}


def test_the_same_under_sentinel(sentinel_group: SentinelGroup, prefix: str) -> None:
    """A beat is two commands there, for it asks for the server's role as well, and comes half as often."""
    primary = sentinel_group.primary
    mine, seconds = sent(sentinel_group.url, prefix, BUSY[-1], lambda stack: [stack.enter_context(primary.recording())])
    assert {each.name for each in mine} == {"MGET", "ROLE"}
    assert len(mine) <= seconds / IDLE_SECONDS + 2


def test_hits_alone_are_looks(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """A process whose calls are all answered near does not rest: its fence is kept, and no call goes to the store."""
    f = near_function(cache_of(redis_url), Source(), near=0.5)
    f(1)
    comes_near(f, 1)
    run = f.cache._state.heart._runs[0]
    wait_until(lambda: not run.active, "the heartbeat to see that nobody looks")
    comes_near(f, 1)
    wait_until(lambda: f(1) and run.active, "the heartbeat to see that somebody does")
    due = run.due
    wait_until(lambda: is_near(f, 1) and run.due > due, "a beat")
    assert run.active


def test_a_token_in_use_is_not_written_with_every_entry(
    redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """Each write of it would be replicated, and pushed to every process with a near cache."""
    f = near_function(cache_of(redis_server.url), Source(), near=None, tags=("all",), ttl=3600)
    f(0)
    with redis_server.recording() as calls:
        for x in range(1, 30):
            f(x)
    tag = f"{prefix}:tag:all".encode()
    written = [each for each in calls.inner if each.name == "PEXPIRE" and each.args[0] == tag]
    assert len(written) <= 1
    assert redis_server.run("PTTL", tag) > 3600_000


def test_a_token_is_still_prolonged_in_time(redis_server: RedisServer, prefix: str) -> None:
    """Once it would end five seconds too early; and for ever where an entry has no end."""
    name = f"{prefix}:tag:x"
    keep: Any = scripts.KEEP.text.decode()
    with redis_server.client() as client:
        client.set(name, "x", px=30_000)
        client.eval(keep, 1, name, 34_000)
        assert client.pttl(name) <= 30_000
        client.eval(keep, 1, name, 36_000)
        assert 30_000 < client.pttl(name) <= 36_000
        client.eval(keep, 1, name, -1)
        assert client.pttl(name) == -1


def test_the_first_call_after_a_rest_finds_what_has_moved(
    redis_server: RedisServer, cache_of: Callable[..., Cache], prefix: str
) -> None:
    """What an idle process has not looked at is read before anything is served beyond the bound, and it comes near again."""
    source = Source()
    f = near_function(cache_of(redis_server.url), source, near=3.0)
    f(1)
    comes_near(f, 1)
    heart = f.cache._state.heart
    wait_until(lambda: not heart._runs[0].active, "the heartbeat to see that nobody looks")
    source.value = 2
    with start_python(invalidates, redis_server.url, prefix) as worker:
        worker.result()
    wait_until(lambda: not tier_of(f.cache).items[f.key(1)].stands(), "the push")
    assert f(1) == [1, 2]
    comes_near(f, 1)


def invalidates(url: str, prefix: str) -> None:
    with open_cache(url, prefix) as cache:
        near_function(cache, Source()).invalidate_all()
