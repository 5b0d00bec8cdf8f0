"""What a load used goes with what it made: invalidating the one invalidates the other (P11)."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover import Cache, NotCached, versioned_cache
from memover.engine import replace
from memover.engine.answers import Outcome
from memover.runtime import operations
from memover.runtime.invalidations import invalidate_call
from memover.runtime.renewal import Leases
from tests.face.ways import Way
from tests.servers import FaultyProxy, RedisServer, as_another_process, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Family:
    """A child that reads a number, and a parent that asks the child."""

    def __init__(self, way: Way, parent: dict[str, Any] | None = None, **child: Any) -> None:
        self.way = way
        self.value = 1
        self.loads = 0
        is_async = way.is_async

        @way.cached("family/child", **child)
        def child_of(x: int = 0) -> int:
            return self.value

        self.child = child_of

        @way.cached("family/parent", **(parent or {}))
        def parent_of(x: int = 0) -> Any:
            self.loads += 1
            if not is_async:
                return [self.child(x)]

            async def answer() -> list[int]:
                return [await self.child(x)]

            return answer()

        self.parent = parent_of

    def ask(self) -> int:
        return self.way.run(self.parent())[0]  # type: ignore[no-any-return]

    def held_parent(self, namespace: str, used: threading.Event, go_on: threading.Event) -> Any:
        """Another parent. Its first load sets `used` when it has the child's value, and ends when `go_on` is set."""

        def hold() -> None:
            if not used.is_set():
                used.set()
                assert go_on.wait(30)

        @self.way.cached(namespace)
        def parent() -> Any:
            if not self.way.is_async:
                value = self.child()
                hold()
                return value

            async def answer() -> int:
                value: int = await self.child()
                hold()
                return value

            return answer()

        return parent

    def change(self, how: str) -> None:
        """Change the number, and invalidate the child in some way."""
        self.value += 1
        way, cache = self.way, self.way.cache
        if how == "all":
            way.run(self.child.invalidate_all())
        elif how == "call":
            way.run(self.child.invalidate())
        elif how == "namespace":
            way.run(cache.ainvalidate_namespace("family/child")) if way.is_async else cache.invalidate_namespace(
                "family/child"
            )
        elif how == "tag":
            way.run(cache.ainvalidate_tags("t")) if way.is_async else cache.invalidate_tags("t")


HOWS = ["all", "call", "namespace", "tag"]


@pytest.mark.parametrize("how", HOWS)
def test_a_parent_goes_with_its_child(way: Way, how: str) -> None:
    """However the child is invalidated, the parent is a miss; untouched, it stays a hit."""
    family = Family(way, tags="t")
    assert [family.ask(), family.ask()] == [1, 1]
    assert family.loads == 1
    for value in (2, 3):
        family.change(how)
        assert [family.ask(), family.ask()] == [value, value]
    assert family.loads == 3


@pytest.mark.parametrize("how", HOWS)
def test_a_parent_goes_with_its_child_however_often_it_was_hit(way: Way, how: str) -> None:
    """A store may keep what makes later hits cheaper; that goes too."""
    family = Family(way, tags="t")
    for value in (1, 2):
        assert [family.ask() for _ in range(6)] == [value] * 6
        family.change(how)
    assert family.ask() == 3
    assert family.loads == 3


def test_a_tag_from_the_result_reaches_an_entry_however_often_it_was_hit(way: Way) -> None:
    """The same for tags that are known only from the result."""
    source = [1]
    f = way.cached("late", tags=(lambda call, result: ["t"],))(lambda: list(source))
    for value in (1, 2, 3):
        assert [way.run(f()) for _ in range(6)] == [[value]] * 6
        source[0] += 1
        if way.is_async:
            way.run(way.cache.ainvalidate_tags("t"))
        else:
            way.cache.invalidate_tags("t")


@pytest.mark.parametrize("how", HOWS)
def test_a_parent_goes_with_its_child_in_a_cluster(cluster_way: Way, how: str) -> None:
    """The same where no two keys are of one step."""
    family = Family(cluster_way, tags="t")
    assert [family.ask(), family.ask()] == [1, 1]
    assert family.loads == 1
    family.change(how)
    assert [family.ask(), family.ask()] == [2, 2]
    assert family.loads == 2


@pytest.mark.parametrize("how", HOWS)
def test_a_child_that_was_a_hit_counts_as_well(way: Way, how: str) -> None:
    """The child's entry was there before the parent's load began."""
    family = Family(way, tags="t")
    way.run(family.child())
    assert family.ask() == 1
    assert family.child.cache_info().hits == 1
    family.change(how)
    assert family.ask() == 2


def test_another_call_of_the_child_leaves_the_parent_alone(way: Way) -> None:
    """invalidate(*args) concerns that call (and whatever shares its stripe, one of 1,024)."""
    family = Family(way)
    family.ask()
    way.run(family.child.invalidate(1))
    assert family.ask() == 1
    assert family.loads == 1


def test_a_child_that_is_not_stored_counts_as_well(way: Way) -> None:
    """NotCached, or cache_if that declines: the parent still goes with the child's invalidation."""
    family = Family(way, cache_if=lambda result, call: False)
    family.ask()
    family.change("all")
    assert family.ask() == 2
    assert family.loads == 2

    value = [1]

    @way.cached("uncached/child")
    def child() -> int:
        return NotCached(value[0])

    parent = over(way, child)
    assert way.run(parent()) == [1]
    value[0] = 2
    assert way.run(parent()) == [1], "a hit until the child is invalidated"
    way.run(child.invalidate())
    assert way.run(parent()) == [2]


def over(way: Way, *children: Any, **options: Any) -> Any:
    """A cached function that returns what its children do, one after the other."""

    def together() -> Any:
        if not way.is_async:
            return [child() for child in children]

        async def answer() -> list[Any]:
            return [await child() for child in children]

        return answer()

    return way.cached(**options)(together)


def test_a_child_that_raises_counts_as_well(way: Way) -> None:
    """The parent made something of the error: when the child is invalidated, that is gone."""
    broken = [True]

    @way.cached()
    def child() -> int:
        if broken[0]:
            raise LookupError
        return 7

    @way.cached()
    def parent() -> Any:
        if not way.is_async:
            try:
                return child()
            except LookupError:
                return None

        async def answer() -> Any:
            try:
                return await child()
            except LookupError:
                return None

        return answer()

    assert way.run(parent()) is None
    broken[0] = False
    assert way.run(parent()) is None
    way.run(child.invalidate_all())
    assert way.run(parent()) == 7


def test_a_parent_of_something_stale_is_not_stored(way: Way, clock: Any, settle: Any) -> None:
    """What stands under old tokens would carry them into an entry that looks new."""
    family = Family(way, ttl=10, stale_while_revalidate=600)
    family.ask()
    way.run(family.parent.invalidate())
    family.value = 2
    clock.forward(11)
    assert family.ask() == 1, "made of the stale child"
    settle(way)
    assert family.ask() == 2, "and not kept"


def test_a_parent_goes_through_three_levels(way: Way) -> None:
    """Grandparents know their grandchildren, whether what is between was a hit or a miss."""
    value = [1]

    @way.cached("levels/bottom")
    def bottom() -> int:
        return value[0]

    middle = over(way, bottom)
    top = over(way, middle)
    assert way.run(top()) == [[1]]
    above = over(way, top)
    assert way.run(above()) == [[[1]]], "made of a hit"
    entry = way.run(above.peek())
    assert f"{way.prefix}:gen:levels/bottom" in entry.dependencies
    for change in (bottom.invalidate_all, bottom.invalidate):
        value[0] += 1
        way.run(change())
        assert way.run(above()) == [[[value[0]]]]
        assert way.run(top()) == [[value[0]]]


def test_what_runs_in_threads_of_a_load_counts(sync_way: Way) -> None:
    """A thread begun under a copy of the context belongs to the load."""
    value = [1]

    @sync_way.cached()
    def child(x: int) -> int:
        return value[0] + x

    @sync_way.cached()
    def parent() -> list[int]:
        found: list[int] = []
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(lambda x=x: found.append(child(x)),))
            for x in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return sorted(found)

    assert parent() == [1, 2, 3]
    value[0] = 11
    child.invalidate(1)
    assert parent() == [1, 3, 12]


def test_what_runs_in_tasks_and_threads_of_a_coroutine_counts(async_way: Way) -> None:
    """asyncio.gather, create_task and to_thread inherit the context, and so the load."""
    value = [1]

    @async_way.cached("tasks/awaited")
    async def awaited(x: int) -> int:
        return value[0] + x

    @versioned_cache(namespace="tasks/threaded", cache=async_way.cache)
    def threaded(x: int) -> int:
        return value[0] + x

    @async_way.cached()
    async def parent() -> list[int]:
        task = asyncio.create_task(awaited(0))
        return [*await asyncio.gather(awaited(1), awaited(2)), await task, await asyncio.to_thread(threaded, 3)]

    assert async_way.run(parent()) == [2, 3, 1, 4]
    for at, change in enumerate((awaited.invalidate, awaited.invalidate, awaited.invalidate)):
        value[0] += 10
        async_way.run(change(at))
        assert max(async_way.run(parent())) >= value[0], at
    value[0] += 10
    threaded.invalidate(3)
    assert async_way.run(parent())[3] == value[0] + 3


def test_a_version_of_the_child_is_part_of_the_parent(redis_url: str, prefix: str) -> None:
    """A process whose source has another version of the child takes no parent made with the former one."""

    def release(version: int) -> tuple[Any, Any]:
        as_another_process()
        cache = Cache(redis_url, prefix=prefix)
        child = versioned_cache(namespace="released/child", version=version, cache=cache)(lambda: version)
        parent = versioned_cache(namespace="released/parent", cache=cache)(lambda: [child()])
        return cache, parent

    old_cache, old = release(1)
    assert old() == [1]
    new_cache, new = release(2)
    assert new() == [2]
    assert new.cache_info().loads == 1
    assert new() == [2]
    assert new.cache_info().loads == 1
    assert old() == [1], "nor does the former release take the newer one's"
    old_cache.close()
    new_cache.close()


def test_a_version_counts_before_its_function_is_ever_called(redis_url: str, prefix: str) -> None:
    """On the default cache as well, where functions settle when first called: a parent that hits never calls the child."""
    code = """
import memover
from memover import versioned_cache
url, prefix, version = args
memover.configure(url, prefix=prefix)

@versioned_cache(namespace="default/child", version=version)
def child():
    return version

@versioned_cache(namespace="default/parent")
def parent():
    return [child()]

result = parent()
memover.default_cache().close()
"""
    assert run_python(code, redis_url, prefix, 1) == [[1]]
    assert run_python(code, redis_url, prefix, 2) == [[2]]


def test_recursion_is_tracked_through_all_its_levels(way: Way) -> None:
    """fib(6) goes when fib(0) does, and is loaded once per number."""
    runs: list[int] = []

    @way.cached()
    def fib(n: int) -> Any:
        runs.append(n)
        if n < 2:
            return n
        if not way.is_async:
            return fib(n - 1) + fib(n - 2)

        async def answer() -> int:
            return await fib(n - 1) + await fib(n - 2)  # type: ignore[no-any-return]

        return answer()

    assert way.run(fib(6)) == 8
    assert sorted(runs) == list(range(7))
    way.run(fib.invalidate(0))
    runs.clear()
    assert way.run(fib(6)) == 8
    assert sorted(runs) == [0, 2, 3, 4, 5, 6], "all that used fib(0), and not fib(1)"


def test_who_stands_inside_a_cycle_goes_with_it(way: Way) -> None:
    """A calls B calls A once more: the entry of B goes when A is invalidated."""
    value, depth = [1], [0]

    @way.cached("cycle/a")
    def a() -> Any:
        if depth[0]:
            return value[0]
        depth[0] = 1
        if not way.is_async:
            return [b()]

        async def answer() -> list[Any]:
            return [await b()]

        return answer()

    @way.cached("cycle/b")
    def b() -> Any:
        return a()

    assert way.run(a()) == [1]
    assert way.run(b()) == 1
    assert b.cache_info().loads == 1
    value[0] = 2
    way.run(a.invalidate_all())
    assert way.run(b()) == 2


@pytest.mark.parametrize("how", ["all", "call"])
def test_many_dependencies_become_one_coarse_token(way: Way, how: str) -> None:
    """More than 32: any invalidation then drops the parent, and that is counted."""
    value = [0]

    @way.cached("many/child")
    def child(x: int) -> int:
        return value[0]

    @way.cached("many/other")
    def other() -> int:
        return 0

    def parents(**options: Any) -> Any:
        def whole() -> Any:
            if not way.is_async:
                return sum(child(x) for x in range(60))

            async def answer() -> int:
                return sum([await child(x) for x in range(60)])

            return answer()

        return way.cached(**options)(whole)

    parent = parents()
    assert [way.run(parent()), way.run(parent())] == [0, 0]
    assert parent.cache_info().loads == 1
    assert parent.cache_info().coarse == 1
    assert len(way.run(parent.peek()).dependencies) <= 32
    value[0] = 1
    way.run(child.invalidate_all() if how == "all" else child.invalidate(37))
    assert way.run(parent()) == (60 if how == "all" else 1)
    way.run(other.invalidate_all())
    way.run(parent())
    assert parent.cache_info().loads == 3, "it stands for everything, so this one too"


def test_with_track_dependencies_off_the_parent_stays(way: Way) -> None:
    """track_dependencies=False: only what is declared by hand counts."""
    family = Family(way, parent={"track_dependencies": False})
    family.ask()
    family.change("all")
    assert family.ask() == 1
    assert way.run(family.parent.peek()).dependencies == ()

    runs: list[int] = []

    @way.cached(track_dependencies=False)
    def declared() -> int:
        runs.append(1)
        memover.depends_on("by-hand")
        return 1

    way.run(declared())
    way.run(declared())
    way.run(way.cache.ainvalidate_tags("by-hand")) if way.is_async else way.cache.invalidate_tags("by-hand")
    before = len(runs)
    way.run(declared())
    assert len(runs) == before + 1


def test_caches_with_other_prefixes_are_not_tracked(redis_way: Way) -> None:
    """Their tokens cannot be read in the same step; use depends_on and invalidate_tags for them."""
    value = [1]
    elsewhere = Cache(redis_way.url, prefix=f"{redis_way.prefix}-other")
    child = redis_way.cached("elsewhere/child", cache=elsewhere)(lambda: value[0])
    parent = over(redis_way, child)
    redis_way.run(parent())
    value[0] = 2
    redis_way.run(child.invalidate_all())
    assert redis_way.run(parent()) == [1]
    redis_way.run(elsewhere.aclose()) if redis_way.is_async else elsewhere.close()


def test_dependencies_can_be_seen(way: Way) -> None:
    """f.peek(...).dependencies: generations, call tokens, versions; tags are among tags."""
    family = Family(way, tags="t")
    family.ask()
    entry = way.run(family.parent.peek())
    assert f"{way.prefix}:gen:family/child" in entry.dependencies
    assert "@version:family/child" in entry.dependencies
    assert any(name.startswith(f"{way.prefix}:") and "family/child" in name for name in entry.dependencies[1:])
    assert entry.tags == ("t",)


def test_peek_and_refresh_inside_a_load_are_dependencies(way: Way) -> None:
    """What they gave was used; the first peek inside a load finds the entry as well as any other."""
    value = [1]

    @way.cached()
    def child() -> int:
        return value[0]

    def peeks() -> Any:
        if not way.is_async:
            return child.peek().value, child.refresh()

        async def answer() -> Any:
            return (await child.peek()).value, await child.refresh()

        return answer()

    way.run(child())
    for change in (child.invalidate_all, child.invalidate):
        parent = way.cached()(peeks)
        assert way.run(parent()) == (value[0], value[0])
        assert parent.cache_info().stores == 1
        value[0] += 1
        way.run(change())
        way.run(child())
        assert way.run(parent()) == (value[0], value[0])


class Refreshing(Family):
    """A parent that has its child run anew; the child is kept near."""

    def __init__(self, way: Way) -> None:
        super().__init__(way, near=1.0)
        child, refresh = self.child, self.child.refresh
        self.value = 1

        @way.cached("family/refreshing")
        def parent_of() -> Any:
            self.loads += 1
            return refresh(0)

        self.parent, self.child = parent_of, child

    def ask(self) -> int:
        return self.way.run(self.parent())  # type: ignore[no-any-return]

    def checked(self) -> None:
        for _ in range(3):
            assert self.ask() == 1
        assert self.loads == 1
        self.value = 2
        self.way.run(self.child.invalidate(0))
        assert self.ask() == self.ask() == 2
        assert self.loads == 2


def test_a_refresh_of_a_near_function_inside_a_load_can_be_a_hit(way: Way) -> None:
    """It moves the token that the parent stands under: the parent stands under what it is moved to."""
    Refreshing(way).checked()


def test_a_refresh_of_a_near_function_inside_a_load_can_be_a_hit_in_a_cluster(cluster_way: Way) -> None:
    """The same, where entry and token are on different nodes."""
    Refreshing(cluster_way).checked()


@pytest.mark.parametrize("how", ["invalidated", "replaced"])
def test_what_comes_between_a_refresh_and_its_notice_is_not_lost(
    how: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry that the parent was made of is gone before near caches hear of the refresh: the parent is not served."""
    family = Refreshing(way)
    real, first = operations.bumped, [True]

    def bumped(*args: Any) -> Any:
        if first:
            first.clear()
            family.value = 2
            call = family.child._self_call((0,), {})
            yield from invalidate_call(call) if how == "invalidated" else replace.put(call, Outcome(2))
        return (yield from real(*args))

    monkeypatch.setattr(operations, "bumped", bumped)
    assert family.ask() == (1 if way.is_shared else family.value)
    if way.is_shared:
        assert not first
        assert family.ask() == 2


def test_peek_inside_a_load_is_a_dependency_in_a_cluster(cluster_way: Way) -> None:
    """The same where the call's own token is on another node."""
    test_peek_and_refresh_inside_a_load_are_dependencies(cluster_way)


def test_a_hit_with_tags_and_dependencies_is_one_round_trip(redis_way: Way, redis_server: RedisServer) -> None:
    """One MGET in the steady state, and one more in a process that sees the entry for the first time."""

    def process() -> Any:
        as_another_process()
        cache = redis_way.new_cache()
        one = redis_way.cached("counted/one", cache=cache)(lambda: 1)
        two = redis_way.cached("counted/two", cache=cache)(lambda: 2)
        return over(redis_way, one, two, namespace="counted/parent", cache=cache, tags=("a", "b", "c"))

    first = process()
    redis_way.run(first())
    redis_way.run(first())
    with redis_server.recording() as calls:
        assert redis_way.run(first()) == [1, 2]
    assert calls == ["MGET"]
    second = process()
    with redis_server.recording() as calls:
        assert redis_way.run(second()) == [1, 2]
    assert calls == ["MGET", "MGET"]
    with redis_server.recording() as calls:
        redis_way.run(second())
    assert calls == ["MGET"]
    assert second.cache_info().loads == 0


# An invalidation during the load


@pytest.mark.parametrize("how", HOWS)
def test_an_invalidation_during_the_parents_load_is_not_lost(way: Way, start: Callable[..., Any], how: str) -> None:
    """The parent has the child's old value in hand: what it stores of it is never served afterwards."""
    used, go_on = threading.Event(), threading.Event()
    family = Family(way, tags="t")
    parent = family.held_parent("during/parent", used, go_on)

    loading = start(parent)
    assert used.wait(30)
    family.change(how)
    go_on.set()
    assert loading.result(30) == 1, "its call began before"
    assert way.run(parent()) == 2
    assert way.run(parent()) == 2


@pytest.mark.parametrize("how", HOWS)
def test_who_comes_after_the_invalidation_shares_no_load_that_used_what_was_before(
    way: Way, start: Callable[..., Any], how: str
) -> None:
    """The load under way holds its lease, but what it used is invalid: a later caller of this process loads anew."""
    used, go_on = threading.Event(), threading.Event()
    family = Family(way, tags="t")
    parent = family.held_parent("shared/parent", used, go_on)

    before = start(parent)
    assert used.wait(30)
    family.change(how)
    after = start(parent)
    go_on.set()
    assert before.result(30) == 1
    assert after.result(30) == 2


def test_a_grandparent_of_a_shared_load_is_not_kept_either(sync_way: Way, start: Callable[..., Any]) -> None:
    """Tags of its own that were read after the invalidation do not make the old value new."""
    used, go_on = threading.Event(), threading.Event()
    value, loads = [1], []
    bottom = sync_way.cached("kept/bottom", tags="t")(lambda: value[0])

    @sync_way.cached("kept/middle")
    def middle() -> int:
        found: int = bottom()
        loads.append(1)
        if len(loads) == 1:
            used.set()
            assert go_on.wait(30)
        return found

    top = sync_way.cached("kept/top", tags="t")(lambda: [middle()])
    first = start(middle)
    assert used.wait(30)
    value[0] = 2
    sync_way.cache.invalidate_tags("t")
    second = start(top)
    go_on.set()
    assert first.result(30) == 1
    assert second.result(30) == [2]
    assert top() == [2]


def test_the_last_answer_is_not_served_across_the_childs_invalidation(redis_server: RedisServer, prefix: str) -> None:
    """on_store_error="stale": not even then, if this process has invalidated what the answer was made of."""
    with FaultyProxy(redis_server) as proxy:
        for how in ("all", "call"):
            way = Way(proxy.url, is_async=False, prefix=f"{prefix}{how}")
            family = Family(way, parent={"on_store_error": "stale"})
            assert family.ask() == 1
            assert family.ask() == 1
            family.change(how)
            proxy.refuse()
            assert family.ask() == 2
            proxy.restore()
            way.close()


def test_what_was_learned_of_a_former_entry_costs_nothing_for_ever(
    redis_way: Way, redis_server: RedisServer, redis_client: Any
) -> None:
    """A token that an entry does not stand under any more may be lost: its entry is a hit all the same."""
    which = ["tags/one"]
    f = redis_way.cached(tags=lambda call, result: [result])(lambda: which[0])
    for _ in range(3):
        redis_way.run(f())
    which[0] = "tags/two"
    redis_way.run(f.invalidate())
    redis_client.delete(f"{redis_way.prefix}:tag:tags/one")
    for _ in range(3):
        redis_way.run(f())
    loads = f.cache_info().loads
    with redis_server.recording() as calls:
        assert redis_way.run(f()) == "tags/two"
    assert f.cache_info().loads == loads
    assert calls == ["MGET"]


def test_a_lost_token_of_a_dependency_can_only_cause_a_miss(redis_way: Way, redis_client: Any) -> None:
    """P4 for what a load used: the parent loads once more, and is a hit again."""
    family = Family(redis_way, tags="t")
    family.ask()
    family.ask()
    for name in redis_client.scan_iter(f"{redis_way.prefix}:*", count=1000):
        if b":gen:family/child" in name or b":tag:" in name:
            redis_client.delete(name)
    assert family.ask() == 1
    assert family.loads == 2
    assert family.ask() == 1
    assert family.loads == 2


@pytest.mark.parametrize("what", ["call", "tag"])
def test_a_load_that_outlives_its_interrupted_batch_loses_no_dependency(
    what: str, sync_way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends `map`, and a load of it goes on in its thread. What it uses only then counts, or nothing of it is stored:
    also where it still has its lease, because the thread that gives that back comes late."""
    late: list[tuple[Leases, str]] = []
    hand_over = Leases._hand_over
    monkeypatch.setattr(Leases, "_hand_over", lambda leases, token: late.append((leases, token)))
    cache, value, go_on = sync_way.cache, [1], threading.Event()
    threads: list[int] = []

    @cache.versioned(namespace="inner")
    def inner(x: int) -> int:
        return value[0]

    @cache.versioned(namespace="outer")
    def outer(x: int) -> int:
        if not go_on.is_set():
            threads.append(threading.get_ident())
            if len(threads) == 2:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            assert go_on.wait(30)
        if what == "tag":
            memover.depends_on("source")
            return value[0]
        return inner(x)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            outer.map([1, 2], concurrency=2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    go_on.set()
    wait_until(lambda: not {*threads} & sys._current_frames().keys(), "the loads to end")
    assert len(late) == 2
    for leases, token in late:
        hand_over(leases, token)
    monkeypatch.undo()
    value[0] = 2
    if what == "tag":
        cache.invalidate_tags("source")
    else:
        inner.invalidate_all()
    assert outer(1) == outer(2) == 2
