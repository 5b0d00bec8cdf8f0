"""What an invalidation does to a near cache: at once in its own process, and in others as soon as they hear of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from memover import Cache, versioned_cache
from tests.near.actors import NAMESPACE, SILENT, Source, comes_near, is_near, near_function, open_cache, tier_of
from tests.servers import run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

WAYS = ["key", "namespace", "namespace by name", "tag", "set", "refresh"]


def invalidate(cache: Cache, f: Any, how: str, x: int = 1) -> None:
    if how == "key":
        f.invalidate(x)
    elif how == "namespace":
        f.invalidate_all()
    elif how == "namespace by name":
        cache.invalidate_namespace(NAMESPACE)
    elif how == "tag":
        cache.invalidate_tags(f"x:{x}")
    elif how == "refresh":
        f.refresh(x)
    else:
        f.set([x, 2], x)


def elsewhere(url: str, prefix: str, how: str) -> None:
    """An invalidation by another process; what it loads or sets is the value 2."""
    source = Source()
    source.value = 2
    with open_cache(url, prefix) as cache:
        invalidate(cache, near_function(cache, source, tags=("x:{x}",)), how)


@pytest.mark.parametrize("how", WAYS)
def test_the_process_s_own_invalidation_counts_at_once(
    how: str, start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """In all its threads, with no message from the server and a bound of a minute."""
    server = start_redis(**SILENT)
    cache, source = cache_of(server.url), Source()
    f = near_function(cache, source, near=60, tags=("x:{x}",))
    f(1)
    comes_near(f, 1)
    source.value = 2
    invalidate(cache, f, how)
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(f(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[1, 2]] * 8
    comes_near(f, 1)
    assert f(1) == [1, 2]


@pytest.mark.parametrize("how", ["key", "namespace", "tag", "set"])
def test_an_invalidation_through_another_cache_of_the_process_counts_at_once(
    how: str, start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    server = start_redis(**SILENT)
    source = Source()
    f = near_function(cache_of(server.url), source, near=60, tags=("x:{x}",))
    f(1)
    comes_near(f, 1)
    source.value = 2
    other = cache_of(server.url)
    same = versioned_cache(namespace=NAMESPACE, near=60, tags=("x:{x}",), cache=other)(f.__wrapped__)
    invalidate(other, same, how)
    assert f(1) == [1, 2]


@pytest.mark.parametrize("pushes", [True, False], ids=["pushes", "heartbeats alone"])
@pytest.mark.parametrize("how", WAYS)
def test_an_invalidation_of_another_process_is_heard(
    how: str, pushes: bool, start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache], prefix: str
) -> None:
    """By a push, or by the next heartbeat; and the entry comes near again."""
    server = start_redis() if pushes else start_redis(**SILENT)
    source = Source()
    f = near_function(cache_of(server.url), source, tags=("x:{x}",))
    f(1)
    comes_near(f, 1)
    source.value = 2
    run_python(elsewhere, server.url, prefix, how)
    wait_until(lambda: f(1) == [1, 2], "the invalidation to be heard of", interval=0.001)
    comes_near(f, 1)
    assert f(1) == [1, 2]


def test_a_call_s_neighbours_stay_near(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """An invalidation of one call costs the others of its token at most a look into the store."""
    source = Source()
    f = near_function(cache_of(redis_url), source)
    for x in range(20):
        f(x)
    for x in range(20):
        comes_near(f, x)
    f.invalidate(3)
    assert sum(is_near(f, x) for x in range(20) if x != 3) >= 17


def test_a_parent_goes_with_its_child(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """An entry near this process stands under the tokens of what its load used (P11)."""
    cache, source = cache_of(redis_url), Source()
    child = near_function(cache, source, near=60)

    @cache.versioned(namespace="parent", near=60)
    def parent(x: int) -> Any:
        return child(x)

    parent(1)
    comes_near(parent, 1)
    for invalidation in (lambda: child.invalidate(1), child.invalidate_all):
        source.value += 1
        invalidation()
        assert parent(1) == [1, source.value]
        comes_near(parent, 1)


def test_a_load_asks_the_store_for_what_it_uses(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """Inside a load the near cache is passed by: a result is not made of what may be stale."""
    cache, source = cache_of(redis_url), Source()
    child = near_function(cache, source)
    child(1)
    comes_near(child, 1)
    before = child.cache_info()

    @cache.versioned(namespace="parent")
    def parent(x: int) -> Any:
        return child(x)

    parent(1)
    assert child.cache_info().near_hits == before.near_hits
    assert child.cache_info().hits == before.hits + 1


def test_a_soft_invalidation_ends_near_hits(redis_url: str, cache_of: Callable[..., Cache]) -> None:
    """A stale entry is never served from the tier: the store's windows apply."""
    source = Source()
    f = near_function(cache_of(redis_url), source, stale_while_revalidate=60, near=60)
    f(1)
    comes_near(f, 1)
    source.value = 2
    f.invalidate_all(soft=True)
    assert not is_near(f, 1)
    wait_until(lambda: f(1) == [1, 2], "the refresh behind")
    comes_near(f, 1)


def test_a_read_that_an_invalidation_overtook_does_not_come_in(
    redis_url: str, cache_of: Callable[..., Cache], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fill race: the entry was read, the invalidation was heard of, and then the read's answer arrives."""
    cache, source = cache_of(redis_url), Source()
    f = near_function(cache, source, near=6)
    f(1)
    comes_near(f, 1)
    tier = tier_of(cache)
    tier.moved((f"{prefix}:gen:{NAMESPACE}".encode(),))  # so that the next call reads
    real = tier.fill
    between: list[Callable[[], None]] = []

    def late(*args: Any) -> bool:
        while between:
            between.pop()()
        return bool(real(*args))

    monkeypatch.setattr(tier, "fill", late)

    def invalidated() -> None:
        source.value = 2
        moves = tier.moves
        run_python(elsewhere, redis_url, prefix, "namespace")
        wait_until(lambda: tier.moves is not moves and tier.ready, "the invalidation to be heard of")

    between.append(invalidated)
    assert f(1) == [1, 1], "the call began before the invalidation"
    assert not between
    assert f(1) == [1, 2]


def test_what_was_near_before_an_invalidation_failed_is_not_served(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """Of another function too: calls that were answered near a moment ago ask whether anything is pending. And the tier is
    used again afterwards."""
    from memover import InvalidationFailed

    server = start_redis()
    cache = cache_of(server.url, socket_timeout=0.2, socket_connect_timeout=0.2)
    f = near_function(cache, lambda x: ("a", x), near=60)
    g = near_function(cache, Source(), near=60, namespace="other")
    f(1)
    comes_near(f, 1)
    assert all(is_near(f, 1) for _ in range(3))
    server.freeze()
    with pytest.raises(InvalidationFailed):
        g.invalidate(1)
    assert not is_near(f, 1)
    server.thaw()
    comes_near(f, 1)


def test_what_came_near_while_an_invalidation_was_failing_is_not_served(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers reads and refuses the invalidation; between its beginning and its failure a call is answered near."""
    from memover import InvalidationFailed, StoreUnavailable

    cache = cache_of(start_redis().url)
    f = near_function(cache, lambda x: ("a", x), near=60)
    f(1)
    tries: list[Any] = []

    def bump(*names: Any) -> Any:
        tries.append(names)
        if len(tries) == 1:
            comes_near(f, 1)
            assert all(is_near(f, 1) for _ in range(3))
        raise StoreUnavailable("refused: this is a test", store=cache.address)
        yield

    with monkeypatch.context() as refusing:
        refusing.setattr(cache._state.store, "bump", bump)
        with pytest.raises(InvalidationFailed):
            f.invalidate_all()
        assert not is_near(f, 1)
    comes_near(f, 1)


def test_a_message_counts_for_answers_during_an_outage(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache], prefix: str
) -> None:
    """`on_store_error="stale"`: the last answer is not given when this process has heard that it was invalidated."""
    server, source = start_redis(), Source()
    cache = cache_of(server.url, socket_timeout=0.2, socket_connect_timeout=0.2)
    f = near_function(cache, source, near=60, on_store_error="stale")
    f(1)
    comes_near(f, 1)
    source.value = 2
    run_python(elsewhere, server.url, prefix, "namespace")
    wait_until(lambda: not tier_of(cache).items[f.key(1)].stands(), "the message")
    server.freeze()
    assert f(1) == [1, 2]
    server.thaw()


def test_a_pending_invalidation_closes_the_tier(
    start_redis: Callable[..., RedisServer], cache_of: Callable[..., Cache]
) -> None:
    """An invalidation that the store did not acknowledge: nothing near is served in this process until it has."""
    from memover import InvalidationFailed

    server = start_redis()
    source = Source()
    f = near_function(cache_of(server.url, socket_timeout=0.2, socket_connect_timeout=0.2), source, near=60)
    f(1)
    comes_near(f, 1)
    source.value = 2
    server.freeze()
    with pytest.raises(InvalidationFailed):
        f.invalidate(1)
    assert f(1) == [1, 2]
    server.thaw()
    comes_near(f, 1)
    assert f(1) == [1, 2]
