"""Many calls at once: `map`, `warm` and the bulk loader."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from memover import ConfigurationError, NotCached
from tests.ids import steady_repr
from tests.servers import FaultyProxy, RedisServer, await_until, hear, run_python, say, start_python, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.face.ways import Way


class Squares:
    """A cached function over numbers, and a note of every load."""

    def __init__(self, way: Way, **options: Any) -> None:
        self.way = way
        self.loads: list[int] = []
        self.bad: set[int] = set()

        @way.cached(**options)
        def square(x: int) -> int:
            self.loads.append(x)
            if x in self.bad:
                raise LookupError(x)
            return x * x

        self.square = square

    def map(self, *items: Any, **options: Any) -> Any:
        return self.way.run(self.square.map(*items, **options))


def test_map_answers_in_order_and_loads_equal_calls_once(way: Way) -> None:
    """As the built-in map: one result per call, in the order of the calls."""
    squares = Squares(way)
    assert squares.map([3, 1, 3, 2, 1]) == [9, 1, 9, 4, 1]
    assert sorted(squares.loads) == [1, 2, 3]
    assert squares.map(range(5)) == [0, 1, 4, 9, 16]
    assert sorted(squares.loads) == [0, 1, 2, 3, 4]
    assert squares.map([]) == []


@pytest.mark.parametrize("near", [False, True])
def test_equal_calls_of_a_map_have_results_of_their_own(near: bool, way: Way) -> None:
    """As the built-in map: what is done to one result shows in no other. Those that nobody can change may be one object."""
    loads: list[int] = []

    @way.cached(near=near)
    def f(x: int) -> dict[str, list[int]]:
        loads.append(x)
        if x < 0:
            raise LookupError([x])
        return {"a": [x]}

    for _ in range(4):  # loaded, and hits of several kinds
        values = way.run(f.map([5, 6, 5, 5]))
        assert values == [{"a": [5]}, {"a": [6]}, {"a": [5]}, {"a": [5]}]
        values[0]["a"].append(1)
        values[2].clear()
        assert values[1:] == [{"a": [6]}, {}, {"a": [5]}]
    assert sorted(loads) == [5, 6]
    errors = way.run(f.map([-1, -1], return_exceptions=True))
    errors[0].args[0].append(2)
    assert errors[0] is not errors[1]
    assert loads.count(-1) == 1
    fixed = way.cached("fixed")(lambda x: (x, "text"))
    first, second = way.run(fixed.map([1, 1]))
    assert first is second


def test_map_takes_several_iterables(way: Way) -> None:
    """Side by side, and as long as the shortest."""
    add = way.cached()(lambda x, y: x + y)
    assert way.run(add.map([1, 2, 3], [10, 20])) == [11, 22]


def test_map_and_calls_share_their_entries(way: Way) -> None:
    """What a call has stored is a hit of map, and the other way round."""
    squares = Squares(way)
    way.run(squares.square(2))
    assert squares.map([1, 2]) == [1, 4]
    assert way.run(squares.square(1)) == 1
    assert sorted(squares.loads) == [1, 2]


@pytest.mark.parametrize("bulk", [False, True])
def test_an_error_does_not_spoil_its_siblings(way: Way, bulk: bool) -> None:
    """They are loaded and stored before the first error is raised; return_exceptions gives errors in place."""
    squares = Squares(way)
    squares.bad = {2, 4}
    if bulk:
        squares.square.batch_load(lambda calls: {1: 1, 3: 9})
    with pytest.raises(LookupError, match="2"):
        squares.map([1, 2, 3, 4])
    squares.loads.clear()
    one, two, three, four = squares.map([1, 2, 3, 4], return_exceptions=True)
    assert (one, three) == (1, 9)
    assert isinstance(two, LookupError) and isinstance(four, LookupError)
    assert sorted(squares.loads) == [2, 4]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_loads_run_a_bounded_number_at_a_time(way: Way, concurrency: int) -> None:
    """concurrency=1 loads one after the other, for `def` functions in the caller's own thread."""
    running, most, threads = [0], [0], set()
    lock = threading.Lock()

    @way.cached()
    def f(x: int) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            threads.add(threading.current_thread())
        if way.is_async:

            async def answer() -> int:
                await asyncio.sleep(0)
                running[0] -= 1
                return x

            return answer()
        with lock:
            running[0] -= 1
        return x

    assert way.run(f.map(range(10), concurrency=concurrency)) == list(range(10))
    assert most[0] <= concurrency
    if concurrency == 1:
        assert threads == {threading.current_thread()}


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, None])
def test_a_concurrency_that_cannot_be_meant_is_refused(way: Way, concurrency: Any) -> None:
    """It is a whole number of at least 1."""
    squares = Squares(way)
    with pytest.raises(ConfigurationError, match="concurrency"):
        squares.map([1], concurrency=concurrency)


@pytest.mark.parametrize("bulk", [False, True])
def test_progress_comes_to_the_number_of_calls(way: Way, bulk: bool) -> None:
    """Whatever they were: hits, loads, duplicates, errors, disabled; told in the caller's own thread."""
    squares = Squares(way)
    if bulk:
        squares.square.batch_load(lambda calls: [call.arguments["x"] ** 2 for call in calls])
    told: list[int] = []
    threads = set()

    def progress(number: int) -> None:
        told.append(number)
        threads.add(threading.current_thread())

    squares.map([1, 2])
    squares.bad = {5}
    squares.map([1, 2, 3, 3, 4, 5], progress=progress, return_exceptions=True)
    assert sum(told) == 6
    told.clear()
    way.run(squares.square.warm(range(20, 25), progress=progress))
    assert sum(told) == 5
    told.clear()
    with way.cache.disabled():
        squares.map([1, 1, 2], progress=progress)
    assert sum(told) == 3
    assert threads == {threading.current_thread()}


def test_map_of_hits_is_one_command(redis_way: Way, redis_server: RedisServer) -> None:
    """1,000 hits: one MGET, for a plain function and for one with tags and dependencies alike."""
    squares = Squares(redis_way)
    child = redis_way.cached("map/child")(lambda: 1)

    @redis_way.cached(tags=("a", "x:{x}"), stale_while_revalidate=60)
    def marked(x: int) -> Any:
        if not redis_way.is_async:
            return child() + x

        async def answer() -> int:
            return await child() + x  # type: ignore[no-any-return]

        return answer()

    numbers = list(range(1000))
    for f in (squares.square, marked):
        redis_way.run(f.warm(numbers))
        redis_way.run(f.map(numbers))
        with redis_server.recording() as calls:
            redis_way.run(f.map(numbers))
        assert calls == ["MGET"]
        assert f.cache_info().loads == 1000


def test_a_process_that_sees_marked_entries_first_reads_them_twice(redis_way: Way, redis_server: RedisServer) -> None:
    """Once to learn what they stand under, and once with that: all together, and not one by one."""

    def process() -> Any:
        cache = redis_way.new_cache()
        return redis_way.cached("map/late", cache=cache, tags=lambda call, result: [f"r:{result}"])(lambda x: x)

    first, second = process(), process()
    redis_way.run(first.map(range(50)))
    redis_way.run(first.map(range(50)))
    with redis_server.recording() as calls:
        assert redis_way.run(second.map(range(50))) == list(range(50))
    assert calls == ["MGET", "MGET"]
    assert second.cache_info().loads == 0


def test_a_bulk_loader_takes_three_commands(redis_way: Way, redis_server: RedisServer) -> None:
    """One read; then a lease and a store for each call, each kind in one round trip."""
    squares = Squares(redis_way)
    squares.square.batch_load(lambda calls: [call.arguments["x"] ** 2 for call in calls])
    squares.map([100])
    with redis_server.recording() as calls:
        assert squares.map(range(5)) == [0, 1, 4, 9, 16]
    assert calls == ["MGET", *["EVALSHA"] * 10]
    assert squares.loads == []


def test_map_works_in_a_cluster(cluster_way: Way) -> None:
    """Hits, misses, errors and bulk loads, whatever node their keys are on."""
    squares = Squares(cluster_way, tags="x:{x}")
    squares.bad = {7}
    found = squares.map(range(20), return_exceptions=True)
    assert [x for x in found if not isinstance(x, LookupError)] == [x * x for x in range(20) if x != 7]
    squares.loads.clear()
    squares.bad = set()
    assert squares.map(range(20)) == [x * x for x in range(20)]
    assert squares.loads == [7]
    squares.square.batch_load(lambda calls: dict.fromkeys(calls, -1))
    assert squares.map([19, 20, 21]) == [361, -1, -1]
    assert squares.map([19, 20, 21]) == [361, -1, -1]


# The bulk loader


def test_a_bulk_loader_gets_the_missing_calls_at_once(way: Way) -> None:
    """Only those that are missing, each once; a mapping by argument or by call, or a sequence."""
    squares = Squares(way)
    asked: list[list[int]] = []
    answers: list[Callable[[Any], Any]] = [
        lambda calls: {call.arguments["x"]: 10 for call in calls},
        lambda calls: dict.fromkeys(calls, 11),
        lambda calls: [12] * len(calls),
        lambda calls: tuple([13] * len(calls)),
    ]
    current: list[Any] = []

    @squares.square.batch_load
    def bulk(calls: Any) -> Any:
        asked.append([call.arguments["x"] for call in calls])
        return current[0](calls)

    for at, answer in enumerate(answers):
        current[:] = [answer]
        numbers = [3 * at, 3 * at + 1, 3 * at + 1, 0]
        found = squares.map(numbers)
        assert found == [10 + at, 10 + at, 10 + at, 10]
        assert asked[-1] == ([0, 1] if at == 0 else [3 * at, 3 * at + 1])
    assert squares.loads == []


def test_what_a_bulk_loader_leaves_out_is_loaded_singly(way: Way) -> None:
    """An answer with fewer values is a good one."""
    squares = Squares(way)
    squares.square.batch_load(lambda calls: {2: 4})
    assert squares.map([1, 2, 3]) == [1, 4, 9]
    assert sorted(squares.loads) == [1, 3]
    squares.loads.clear()
    assert squares.map([1, 2, 3]) == [1, 4, 9]
    assert squares.loads == []


@pytest.mark.parametrize("answer", [None, 5, "ab", b"ab", {1, 2}, [1], [1, 2, 3], iter([1, 2])], ids=steady_repr)
def test_a_bulk_loader_that_answers_something_else_is_told_so(way: Way, answer: Any) -> None:
    """Neither a mapping nor as many values as calls: a ConfigurationError, and nothing is stored."""
    squares = Squares(way)
    squares.square.batch_load(lambda calls: answer)
    with pytest.raises(ConfigurationError, match="mapping from the calls"):
        squares.map([1, 2])
    assert way.run(squares.square.peek(1)) is None


def test_a_bulk_loader_that_raises_fails_all_its_calls(way: Way) -> None:
    """Its error is theirs, hits are not touched, and the next map tries again."""
    squares = Squares(way)
    way.run(squares.square(1))
    tries: list[int] = []

    @squares.square.batch_load
    def bulk(calls: Any) -> Any:
        tries.append(len(calls))
        raise OSError("down")

    found = squares.map([1, 2, 3], return_exceptions=True)
    assert found[0] == 1
    assert all(isinstance(error, OSError) for error in found[1:])
    with pytest.raises(OSError, match="down"):
        squares.map([1, 2, 3])
    assert tries == [2, 2]


def test_a_bulk_loader_may_be_awaited(async_way: Way) -> None:
    """For an `async def` function."""
    squares = Squares(async_way)

    @squares.square.batch_load
    async def bulk(calls: Any) -> Any:
        await asyncio.sleep(0)
        return [0] * len(calls)

    assert squares.map([1, 2]) == [0, 0]


def test_a_def_function_refuses_an_async_bulk_loader(sync_way: Way) -> None:
    """Nobody would await it."""
    squares = Squares(sync_way)

    async def bulk(calls: Any) -> Any:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="def"):
        squares.square.batch_load(bulk)
    with pytest.raises(ConfigurationError):
        squares.square.batch_load(5)


def test_a_bulk_loaded_value_may_be_not_cached(way: Way) -> None:
    """NotCached from it concerns that one value."""
    squares = Squares(way)
    squares.square.batch_load(lambda calls: {1: NotCached(1), 2: 4})
    assert squares.map([1, 2]) == [1, 4]
    assert way.run(squares.square.peek(1)) is None
    assert way.run(squares.square.peek(2)).value == 4


def test_a_bulk_loader_that_takes_long_keeps_its_leases(redis_way: Way, redis_client: Any) -> None:
    """They are renewed while it runs, and what it brings is stored."""
    squares = Squares(redis_way, lease_ttl=2.0)

    def left() -> int:
        return min(redis_client.pttl(f"{{{squares.square.key(x)}}}:lease") for x in (1, 2))

    def worn() -> int:
        return found if (found := left()) < 1900 else 0

    @squares.square.batch_load
    def bulk(calls: Any) -> Any:
        for _ in range(3):
            before = wait_until(worn, "some time to go by")
            assert before > 0, "they have ended"
            wait_until(partial(lambda before: left() > before, before), "a renewal")
        assert left() > 0
        return [x for x, _ in enumerate(calls)]

    assert squares.map([1, 2]) == [0, 1]
    assert redis_way.run(squares.square.peek(2)).value == 1


def test_an_invalidation_during_a_bulk_load_is_not_lost(way: Way) -> None:
    """The namespace, a call or a tag: what was loaded before is not served afterwards."""
    for how in ("all", "call", "tag"):
        squares = Squares(way, tags="t")
        first = [True]

        @squares.square.batch_load
        def bulk(calls: Any, squares: Any = squares, how: str = how, first: Any = first) -> Any:
            async def later() -> Any:
                await change(squares.square)
                return [-1] * len(calls)

            async def change(f: Any) -> None:
                if how == "tag":
                    await way.cache.ainvalidate_tags("t")
                else:
                    await (f.invalidate_all() if how == "all" else f.invalidate(1))

            if not first[0]:
                return [1] * len(calls)
            first[0] = False
            if way.is_async:
                return later()
            if how == "tag":
                way.cache.invalidate_tags("t")
            else:
                squares.square.invalidate_all() if how == "all" else squares.square.invalidate(1)
            return [-1] * len(calls)

        assert squares.map([1]) == [-1]
        assert squares.map([1]) == [1], how


# Others at the same time


def test_two_batches_of_one_process_do_not_wait_for_each_others_end(way: Way, start: Callable[..., Any]) -> None:
    """Each waits for a call that the other has loaded: it has it as soon as that call is done, not the whole batch."""
    gates = {x: threading.Event() for x in (1, 2)}
    began = {x: threading.Event() for x in (1, 2)}
    runs: list[int] = []

    @way.cached(wait_timeout=25)
    def f(x: int) -> Any:
        runs.append(x)
        began[x].set()
        if not way.is_async:
            assert gates[x].wait(30)
            return x

        async def answer() -> int:
            await await_until(gates[x].is_set, "the gate to open")
            return x

        return answer()

    one = start(f.map, [1, 2], concurrency=2) if way.is_redis or not way.is_async else None
    if one is None:

        async def both() -> Any:
            first = asyncio.ensure_future(f.map([1, 2]))
            second = asyncio.ensure_future(f.map([2, 1]))
            await await_until(lambda: began[1].is_set() and began[2].is_set(), "both loads")
            gates[1].set()
            gates[2].set()
            return await asyncio.wait_for(asyncio.gather(first, second), 20)

        assert way.run(both()) == [[1, 2], [2, 1]]
    else:
        two = start(f.map, [2, 1], concurrency=2)
        assert began[1].wait(30) and began[2].wait(30)
        gates[1].set()
        gates[2].set()
        assert one.result(20) == [1, 2]
        assert two.result(20) == [2, 1]
    assert sorted(runs) == [1, 2]


def test_a_caller_of_one_call_does_not_wait_for_the_batch(sync_way: Way, start: Callable[..., Any]) -> None:
    """Its call is done, so it has its value, while the batch is still at another."""
    began, done, go_on = threading.Event(), threading.Event(), threading.Event()

    @sync_way.cached()
    def f(x: int) -> int:
        if x == 1:
            began.set()
            assert done.wait(30)
        else:
            assert go_on.wait(30)
        return x

    batch = start(f.map, [1, 2], concurrency=2)
    assert began.wait(30)
    caller = start(f, 1)
    done.set()
    assert caller.result(20) == 1
    assert not batch.done()
    go_on.set()
    assert batch.result(30) == [1, 2]


def overlapping(url: str, prefix: str, numbers: list[int], bulk: bool) -> list[int]:
    """In another process: map over numbers; what it loaded."""
    from memover import Cache, versioned_cache

    loads: list[int] = []
    cache = Cache(url, prefix=prefix)

    @versioned_cache(namespace="overlapping", cache=cache)
    def f(x: int) -> int:
        loads.append(x)
        return x

    if bulk:

        @f.batch_load
        def loader(calls: Any) -> Any:
            loads.extend(call.arguments["x"] for call in calls)
            say("loading")
            hear("go on")
            return [call.arguments["x"] for call in calls]

    assert f.map(numbers) == numbers
    cache.close()
    return loads


@pytest.mark.parametrize("bulk", [False, True])
def test_processes_that_map_over_the_same_calls_load_each_once(redis_url: str, prefix: str, bulk: bool) -> None:
    """Whoever has the lease loads, the others wait."""
    mine, yours = list(range(30)), list(range(20, 50))
    if bulk:
        with start_python(overlapping, redis_url, prefix, mine, True) as one:
            one.wait_for("loading")
            with start_python(overlapping, redis_url, prefix, yours, True) as two:
                two.wait_for("loading")
                two.tell("go on")
                one.tell("go on")
                loads = [*one.result(), *two.result()]
    else:
        yours = mine
        first, second = run_python(overlapping, redis_url, prefix, mine, False, n=2)
        loads = [*first, *second]
    assert sorted(loads) == sorted({*mine, *yours})


# Inside and around


@pytest.mark.parametrize("bulk", [False, True])
def test_map_inside_a_load_is_a_dependency(way: Way, bulk: bool) -> None:
    """Each of its calls, hit or loaded, singly or in bulk."""
    value = [1]
    child = way.cached()(lambda x: value[0] + x)
    if bulk:
        child.batch_load(lambda calls: [value[0] + call.arguments["x"] for call in calls])
    parent = way.cached()(lambda: child.map(range(4)))
    way.run(child(0))
    assert way.run(parent()) == [1, 2, 3, 4]
    value[0] = 11
    way.run(child.invalidate(2))
    assert way.run(parent()) == [1, 2, 13, 4]
    way.run(child.invalidate(0))
    assert way.run(parent()) == [11, 2, 13, 4]
    assert parent.cache_info().stores == 3


def test_what_a_bulk_loader_uses_is_a_dependency(way: Way) -> None:
    """Of all the values that it brought."""
    value = [1]
    child = way.cached()(lambda: value[0])
    squares = Squares(way)

    @squares.square.batch_load
    def bulk(calls: Any) -> Any:
        if not way.is_async:
            return [child()] * len(calls)

        async def answer() -> list[int]:
            return [await child()] * len(calls)

        return answer()

    assert squares.map([1, 2]) == [1, 1]
    value[0] = 2
    way.run(child.invalidate_all())
    assert way.run(squares.square.map([1, 2])) == [2, 2]


def test_a_function_may_map_over_itself(way: Way) -> None:
    """Over other calls; and over the very call that is being loaded, which runs the function."""
    depth: list[int] = []

    @way.cached()
    def tree(n: int) -> Any:
        depth.append(n)
        if n == 0 or depth.count(n) > 1:
            return 1

        if not way.is_async:
            return sum(tree.map([n - 1, n]))

        async def answer() -> int:
            return sum(await tree.map([n - 1, n]))

        return answer()

    assert way.run(tree(2)) == 3
    assert way.run(tree.peek(2)).value == 3
    assert way.run(tree.peek(1)).value == 2


class Shelf:
    def __init__(self, name: str) -> None:
        self.name = name

    def __memover_key__(self) -> str:
        return self.name


def test_bound_methods_map_and_warm(way: Way) -> None:
    """Arguments without `self`; the bulk loader finds it among call.args."""
    method = way.cached("shelf/book")(lambda self, x: f"{self.name}{x}")
    Shelf.book = method  # type: ignore[attr-defined]
    a, b = Shelf("a"), Shelf("b")
    try:
        assert way.run(a.book.map([1, 2])) == ["a1", "a2"]  # type: ignore[attr-defined]
        assert way.run(b.book.map([1, 2])) == ["b1", "b2"]  # type: ignore[attr-defined]
        method.batch_load(lambda calls: {call: f"bulk {call.args[0].name}{call.args[1]}" for call in calls})
        assert way.run(a.book.map([2, 3])) == ["a2", "bulk a3"]  # type: ignore[attr-defined]
        assert tuple(way.run(b.book.warm([2, 3, (4,)]))) == (1, 2, 0)  # type: ignore[attr-defined]
        assert way.run(b.book(4)) == "bulk b4"  # type: ignore[attr-defined]
    finally:
        del Shelf.book  # type: ignore[attr-defined]


def test_a_damaged_entry_among_hits_is_loaded_again(redis_way: Way, redis_client: Any) -> None:
    """Bytes cut off, turned over or of another key: a miss, counted once each, and the siblings are hits."""
    for tags in ((), ("t",)):
        squares = Squares(redis_way, tags=tags)
        squares.map(range(6))
        keys = [squares.square.key(x) for x in range(6)]
        raws = [redis_client.get(key) for key in keys]
        redis_client.set(keys[1], raws[1][:-1])
        redis_client.set(keys[2], raws[2][:-1] + bytes([raws[2][-1] ^ 1]))
        redis_client.set(keys[3], raws[4])
        redis_client.delete(keys[5])
        redis_client.lpush(keys[5], b"not ours")
        squares.loads.clear()
        assert squares.map(range(6)) == [0, 1, 4, 9, 16, 25]
        assert sorted(squares.loads) == [1, 2, 3, 5]
        assert squares.square.cache_info().damaged == 3
        squares.loads.clear()
        assert squares.map(range(6)) == [0, 1, 4, 9, 16, 25]
        assert squares.loads == []


def test_nothing_is_served_under_an_invalidation_that_is_owed(redis_way: Way) -> None:
    """While the store has not taken it, map loads as calls do; afterwards its entries are as good as any."""
    squares = Squares(redis_way)
    squares.map([1, 2])
    witness = redis_way.cache._state.witness
    name = f"{redis_way.prefix}:gen:{squares.square.namespace}".encode()
    witness.owed[name] = lambda: None
    squares.loads.clear()
    assert squares.map([1, 2]) == [1, 4]
    assert sorted(squares.loads) == [1, 2]
    squares.square.batch_load(lambda calls: [0] * len(calls))
    assert squares.map([1, 2]) == [1, 4]
    del witness.owed[name]
    squares.loads.clear()
    assert squares.map([1, 2]) == [1, 4]
    assert squares.loads == []


def test_a_batch_goes_on_without_the_store(way_of: Callable[[str], Way], redis_server: RedisServer) -> None:
    """Reads fail open: every call is loaded, in bulk or singly, and nothing is raised."""
    with FaultyProxy(redis_server) as proxy:
        way = way_of(proxy.url)
        squares = Squares(way)
        squares.map([1, 2])
        proxy.refuse()
        squares.loads.clear()
        told: list[int] = []
        assert squares.map([1, 2, 3, 3], progress=told.append) == [1, 4, 9, 9]
        assert sorted(squares.loads) == [1, 2, 3]
        assert sum(told) == 4
        proxy.restore()


def test_disabled_batches_run_the_function_for_every_call(way: Way) -> None:
    """Duplicates too, as calls would; nothing is read or stored."""
    squares = Squares(way)
    squares.map([1])
    squares.loads.clear()
    with way.cache.disabled():
        assert squares.map([1, 1, 2]) == [1, 1, 4]
    assert squares.loads == [1, 1, 2]
    assert way.run(squares.square.peek(2)) is None


# Cut short


class Interrupted(BaseException):
    """As KeyboardInterrupt, without a terminal."""


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("helper", ["map", "warm"])
def test_an_interruption_is_not_an_error_to_be_counted(sync_way: Way, bulk: bool, helper: str) -> None:
    """Ctrl-C inside a load ends the batch, whatever was asked of errors, and begins nothing more."""
    loads: list[int] = []

    @sync_way.cached()
    def f(x: int) -> int:
        loads.append(x)
        if x == 2:
            raise Interrupted
        return x

    if bulk:

        @f.batch_load
        def loader(calls: Any) -> Any:
            raise Interrupted

    call = (
        (lambda: f.warm(range(9), concurrency=1))
        if helper == "warm"
        else (lambda: f.map(range(9), concurrency=1, return_exceptions=True))
    )
    with pytest.raises(Interrupted):
        call()
    assert loads == ([] if bulk else [0, 1, 2])


@pytest.mark.parametrize("bulk", [False, True])
def test_a_cancelled_batch_is_cancelled(async_way: Way, bulk: bool) -> None:
    """Also with return_exceptions; its loads are cancelled, its leases given back, and others go on at once."""
    squares = Squares(async_way)
    cancelled: list[str] = []

    async def whole() -> None:
        began = asyncio.Event()
        blocking = True

        async def block() -> None:
            if not blocking:
                return
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("load")
                raise

        @async_way.cached("cancelled", wait_timeout=20)
        async def f(x: int) -> int:
            if not bulk:
                await block()
            return x

        if bulk:

            @f.batch_load
            async def loader(calls: Any) -> Any:
                await block()
                return [call.arguments["x"] for call in calls]

        task = asyncio.ensure_future(f.map(range(3), return_exceptions=True))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        blocking = False
        assert await asyncio.wait_for(f.map(range(3)), 8) == [0, 1, 2]

    async_way.run(whole())
    assert set(cancelled) == {"load"}
    assert squares.loads == []


# Warming


def test_warm_says_what_it_did(way: Way) -> None:
    """Fresh, loaded, failed; tuples are arguments, anything else is one argument."""
    squares = Squares(way)
    squares.bad = {4}
    assert tuple(way.run(squares.square.warm([1, 2, (3,)]))) == (0, 3, 0)
    counts = way.run(squares.square.warm(range(1, 6)))
    assert (counts.fresh, counts.loaded, counts.failed) == (3, 1, 1)
    assert way.run(squares.square(3)) == 9
    assert squares.loads == [1, 2, 3, 4, 5] or sorted(squares.loads) == [1, 2, 3, 4, 5]
    assert tuple(way.run(squares.square.warm([]))) == (0, 0, 0)


def test_warm_works_through_its_iterable_in_steps(way: Way) -> None:
    """A long iterable is consumed 1,000 calls at a time."""
    squares = Squares(way)
    taken: list[int] = []
    seen: list[int] = []

    def numbers() -> Any:
        for x in range(2500):
            taken.append(x)
            yield x

    squares.square.batch_load(lambda calls: seen.append(len(taken)) or [0] * len(calls))
    assert tuple(way.run(squares.square.warm(numbers()))) == (0, 2500, 0)
    assert seen == [1000, 2000, 2500]


def test_warm_takes_an_asynchronous_iterable(async_way: Way) -> None:
    """Consumed as it comes."""
    squares = Squares(async_way)

    async def numbers() -> AsyncIterator[int]:
        for x in range(1500):
            yield x

    assert tuple(async_way.run(squares.square.warm(numbers()))) == (0, 1500, 0)
    assert tuple(async_way.run(squares.square.warm(numbers()))) == (1500, 0, 0)


def test_stale_entries_of_a_batch_are_served_and_refreshed(way: Way, clock: Any, settle: Any) -> None:
    """map under stale_while_revalidate: as the calls would be."""
    squares = Squares(way, ttl=10, stale_while_revalidate=600)
    squares.map([1, 2])
    clock.forward(11)
    squares.loads.clear()
    assert squares.map([1, 2, 3]) == [1, 4, 9]
    settle(way)
    assert sorted(squares.loads) == [1, 2, 3]
    assert squares.square.cache_info().stale == 2
