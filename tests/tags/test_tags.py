"""Tags: from the arguments, from the result, by hand; and their invalidation across functions and processes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import memover
from memover import Cache, ConfigurationError, InvalidationFailed, UnkeyableArgument, versioned_cache
from tests.ids import steady_repr
from tests.servers import FaultyProxy, RedisServer, hear, say, start_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


def invalidate(way: Way, *tags: str) -> None:
    way.run(way.cache.ainvalidate_tags(*tags)) if way.is_async else way.cache.invalidate_tags(*tags)


class User:
    def __init__(self, id: int, team: int) -> None:
        self.id = id
        self.team = team

    def __memover_key__(self) -> int:
        return self.id


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("user:{x}", ("user:7",)),
        (("user:{x}", "all"), ("user:7", "all")),
        (lambda call: [f"user:{call.arguments['x']}"], ("user:7",)),
        (lambda call: "one", ("one",)),
        (lambda call: None, ()),
        (lambda call, result: [f"result:{result}"], ("result:14",)),
        (("user:{x}", lambda call: ["early"], lambda call, result: ["late"]), ("user:7", "early", "late")),
        (("same", "same", lambda call: ["same"], lambda call, result: ["same"]), ("same",)),
        ("Größe {x!r:>3} ✓", ("Gr%C3%B6%C3%9Fe%20%20%207%20%E2%9C%93",)),
    ],
    ids=range(9),
)
def test_tags_come_from_templates_and_callables(way: Way, tags: Any, expected: tuple[str, ...]) -> None:
    """And are in the entry; whichever of them is invalidated, the entry is gone."""
    f = way.cached(tags=tags)(lambda x: x * 2)
    way.run(f(7))
    if way.run(f.peek(7)) is None:
        way.run(f(7))
    assert set(way.run(f.peek(7)).tags) == set(expected) or len(way.run(f.peek(7)).tags) == len(expected)
    for tag in expected:
        if "%" in tag:
            continue
        way.run(f(7))
        loads = f.cache_info().loads
        invalidate(way, tag)
        assert way.run(f.peek(7)) is None
        way.run(f(7))
        assert f.cache_info().loads == loads + 1


def test_a_template_may_take_attributes_of_what_is_ignored(way: Way) -> None:
    """Tags follow the arguments of each call, whatever the key is made of."""
    f = way.cached(tags="team:{user.team}")(lambda user: user.team)
    user = User(1, team=3)
    assert way.run(f(user)) == 3
    user.team = 4
    assert way.run(f(user)) == 4, "other tags than the entry's: not the same"
    invalidate(way, "team:3")
    assert way.run(f(user)) == 4
    loads = f.cache_info().loads
    invalidate(way, "team:4")
    way.run(f(user))
    assert f.cache_info().loads == loads + 1


def test_a_tag_is_never_an_address(way: Way) -> None:
    """What has no text of its own is refused, at whatever depth the template finds it."""

    class Plain:
        def __memover_key__(self) -> int:
            return 1

    holder = User(1, team=Plain())  # type: ignore[arg-type]
    for template, argument in (
        ("t:{x}", Plain()),
        ("t:{x.team}", holder),
        ("t:{x!r}", Plain()),
        ("t:{x!s:>9}", Plain()),
    ):
        f = way.cached(tags=template)(lambda x: 1)
        with pytest.raises(UnkeyableArgument, match="address"):
            way.run(f(argument))
    g = way.cached(tags="t:{x.team.__class__.__name__}")(lambda x: 1)
    assert way.run(g(holder)) == 1


@pytest.mark.parametrize("tags", ["{y}", "{", "", "{}", "{0}", 5, [5], [None], ["a{b}"], ["x"] * 17], ids=steady_repr)
def test_tags_that_cannot_be_meant_are_refused_at_decoration(tags: Any) -> None:
    """With the names that there are."""
    with pytest.raises((ConfigurationError, TypeError)):

        @versioned_cache(namespace="wrong", cache=Cache(), tags=tags)
        def f(x: int) -> int:
            return x


def test_too_many_tags_of_the_arguments_are_refused_with_advice(way: Way) -> None:
    """At most 16 on one result; the error says so, and the function has not run."""
    f = way.cached(tags=lambda call: [f"t{n}" for n in range(17)])(lambda: 1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="common tag"):
            way.run(f())
    assert f.cache_info().loads == 0


@pytest.mark.parametrize("by_hand", [False, True], ids=["callable", "depends_on"])
def test_too_many_tags_of_a_result_leave_it_unstored(way: Way, by_hand: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A call that has its result returns it; it is counted, warned of once, and nobody waits behind its lease."""
    many = [f"t{n}" for n in range(17)]

    @way.cached(wait_timeout=20, tags=() if by_hand else (lambda call, result: many))
    def f() -> int:
        if by_hand:
            memover.depends_on(*many)
        return 1

    for _ in range(3):
        assert way.run(f()) == 1
    assert f.cache_info().loads == 3
    assert f.cache_info().refused_stores == 3
    assert f.cache_info().waits == 0
    assert sum("common tag" in record.message for record in caplog.records) == 1


def test_a_callable_that_raises_is_the_callers_error(way: Way) -> None:
    """Early or late, nothing is stored and the next call runs again."""

    def broken(call: Any) -> Any:
        raise LookupError("tags")

    early = way.cached(tags=broken)(lambda: 1)
    late = way.cached(tags=lambda call, result: broken(call))(lambda: 1)
    wrong = way.cached(tags=lambda call, result: [5])(lambda: 1)
    for f, error in ((early, LookupError), (late, LookupError), (wrong, ConfigurationError)):
        for _ in range(2):
            with pytest.raises(error):
                way.run(f())


def test_one_invalidation_goes_through_functions_versions_and_caches(redis_way: Way) -> None:
    """invalidate_tags concerns whoever carries the tag."""
    value = [1]
    other_cache = redis_way.new_cache()
    one = redis_way.cached("across/one", tags="t:{x}")(lambda x: value[0])
    two = redis_way.cached("across/two", tags=("u", "t:{x}"), cache=other_cache)(lambda x: value[0])
    older = redis_way.cached("across/one", version=2, tags="t:{x}", cache=redis_way.new_cache())(lambda x: value[0])
    everyone = (one, two, older)
    for f in everyone:
        redis_way.run(f(1))
        redis_way.run(f(2))
    value[0] = 2
    invalidate(redis_way, "t:1")
    assert [redis_way.run(f(1)) for f in everyone] == [2, 2, 2]
    assert [redis_way.run(f(2)) for f in everyone] == [1, 1, 1]


def test_tags_are_invalidated_in_one_command(redis_way: Way, redis_server: RedisServer) -> None:
    """Any number of tags, any number of entries."""
    f = redis_way.cached(tags=("a", "b", "x:{x}"))(lambda x: x)
    for x in range(20):
        redis_way.run(f(x))
    invalidate(redis_way, "warm-up")
    with redis_server.recording() as calls:
        invalidate(redis_way, "a", "x:3", "never seen", "a")
    assert calls == ["EVALSHA"]
    with redis_server.recording() as calls:
        invalidate(redis_way)
    assert calls == []
    assert redis_way.run(f.peek(1)) is None


def test_wrong_tags_are_refused_by_name(way: Way) -> None:
    """What is no text, or empty, is no tag."""
    for tag in (5, None, b"t", ""):
        with pytest.raises(ConfigurationError, match="tag"):
            invalidate(way, tag)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="tags"):
            memover.depends_on(tag)  # type: ignore[arg-type]


def test_depends_on_declares_a_tag_by_hand(way: Way) -> None:
    """Inside the function or whatever it calls; from the second load at the latest the entry is stored."""
    runs: list[int] = []

    def helper() -> None:
        memover.depends_on("by:hand", "too")

    @way.cached()
    def f() -> int:
        runs.append(1)
        helper()
        return len(runs)

    way.run(f())
    before = way.run(f())
    assert way.run(f()) == before
    assert set(way.run(f.peek()).tags) == {"by:hand", "too"}
    invalidate(way, "too")
    assert way.run(f()) == before + 1
    memover.depends_on("outside")


@pytest.mark.parametrize("kind", ["static", "callable", "late", "by-hand"])
def test_an_invalidation_during_the_load_is_not_lost(way: Way, start: Callable[..., Any], kind: str) -> None:
    """Wherever the tag came from: the value of before is never served afterwards."""
    tags: Any = {"static": "t", "callable": lambda call: ["t"], "late": lambda call, result: ["t"]}.get(kind, ())
    began, go_on = threading.Event(), threading.Event()
    value, first = [1], [False]

    @way.cached(tags=tags)
    def f() -> int:
        if kind == "by-hand":
            memover.depends_on("t")
        found = value[0]
        if first[0]:
            first[0] = False
            began.set()
            assert go_on.wait(30)
        return found

    for settled in (False, True):  # the first load of all, and one that knows the tags already
        began.clear()
        go_on.clear()
        value[0], first[0] = 1, True
        loading = start(f)
        assert began.wait(30)
        value[0] = 2
        invalidate(way, "t")
        after = start(f)
        go_on.set()
        assert loading.result(30) == 1
        if kind in ("static", "callable"):
            assert after.result(30) == 2, "it shares no load of before"
        after.result(30)
        assert way.run(f()) == 2, settled
        assert way.run(f()) == 2
        way.run(f())
        way.run(f.invalidate())


@pytest.mark.parametrize("kind", ["static", "late"])
def test_who_comes_after_an_invalidation_has_no_part_in_the_load_of_before(
    way: Way, start: Callable[..., Any], kind: str
) -> None:
    """Not even where the tag is known only when that load is done."""
    tags: Any = "t" if kind == "static" else (lambda call, result: ["t"])
    began, go_on = threading.Event(), threading.Event()
    value: list[int] = [1]

    @way.cached(tags=tags)
    def f() -> int:
        found = value[0]
        if found == 1:
            began.set()
            assert go_on.wait(30)
        return found

    before = start(f)
    assert began.wait(30)
    value[0] = 2
    invalidate(way, "t")
    after = start(f)
    go_on.set()
    assert before.result(30) == 1
    assert after.result(30) == 2


def loading(url: str, prefix: str) -> int:
    """In another process: a load that is held up."""
    cache = Cache(url, prefix=prefix, socket_timeout=10)

    @versioned_cache(namespace="elsewhere", cache=cache, tags=("t", lambda call, result: [f"r:{result}"]))
    def f() -> int:
        say("loading")
        hear("go on")
        return 1

    result: int = f()
    cache.close()
    return result


@pytest.mark.parametrize("tag", ["t", "r:1"])
def test_another_processes_load_is_overtaken_as_well(redis_way: Way, tag: str) -> None:
    """Two processes: the one loads, the other invalidates; what the first stores is not served by anybody."""
    f = redis_way.cached("elsewhere", tags=("t", lambda call, result: [f"r:{result}"]))(lambda: 2)
    with start_python(loading, redis_way.url, redis_way.prefix) as worker:
        worker.wait_for("loading")
        invalidate(redis_way, tag)
        worker.tell("go on")
        assert worker.result() == 1
    assert redis_way.run(f()) == 2


@pytest.mark.parametrize("kind", ["static", "late", "by-hand"])
def test_tags_work_in_a_cluster(cluster_way: Way, kind: str) -> None:
    """Stored from the second load on where the tags are known late; invalidated as anywhere."""
    tags: Any = {"static": ("t", "u:{x}"), "late": lambda call, result: ["t", f"u:{call.arguments['x']}"]}.get(kind, ())

    @cluster_way.cached(tags=tags)
    def f(x: int) -> int:
        if kind == "by-hand":
            memover.depends_on("t", f"u:{x}")
        return x

    for x in (1, 2):
        cluster_way.run(f(x))
        cluster_way.run(f(x))
    loads = f.cache_info().loads
    assert loads == (2 if kind == "static" else 4)
    assert [cluster_way.run(f(1)), cluster_way.run(f(2))] == [1, 2]
    assert f.cache_info().loads == loads
    invalidate(cluster_way, "u:1", "nobody's")
    cluster_way.run(f(1))
    cluster_way.run(f(2))
    assert f.cache_info().loads == loads + 1
    invalidate(cluster_way, "t")
    cluster_way.run(f(1))
    cluster_way.run(f(2))
    assert f.cache_info().loads == loads + 3


@pytest.mark.parametrize("on", ["redis", "cluster"])
def test_a_value_that_was_set_carries_its_late_tags(request: pytest.FixtureRequest, on: str, prefix: str) -> None:
    """f.set stores at once, in a Cluster too where its tags are new."""
    from tests.face.ways import Way

    url = request.getfixturevalue("redis_url") if on == "redis" else request.getfixturevalue("redis_cluster").url
    way = Way(url, is_async=False, prefix=prefix)
    f = way.cached(tags=lambda call, result: [f"r:{result}"])(lambda: 1)
    f.set(5)
    assert f() == 5
    invalidate(way, "r:5")
    assert f() == 1
    way.close()


def test_an_invalidation_of_tags_that_fails_says_so_and_is_repeated(
    way_of: Callable[[str], Way], redis_server: RedisServer
) -> None:
    """P8: it raises, this process serves nothing under the tag, and it is made good when the store is back."""
    with FaultyProxy(redis_server) as proxy:
        way = way_of(proxy.url)
        value = [1]
        static = way.cached(tags="t")(lambda: value[0])
        late = way.cached(tags=lambda call, result: ["t"])(lambda: value[0])
        for f in (static, late):
            way.run(f())
            way.run(f())
        value[0] = 2
        proxy.refuse()
        with pytest.raises(InvalidationFailed) as caught:
            invalidate(way, "t")
        assert any(name.endswith(":tag:t") for name in caught.value.what)
        proxy.restore()
        assert [way.run(static()), way.run(late())] == [2, 2]
        wait_until(lambda: not way.cache._state.witness.owed, "the repeat to be acknowledged")
        for f in (static, late):

            def stored(f: Any = f) -> Any:
                way.run(f())
                return way.run(f.peek())

            assert wait_until(stored, "the store to be asked again").value == 2


def test_losing_a_tags_token_can_only_cause_misses(redis_way: Way, redis_client: Any) -> None:
    """P4: deleted by whatever, the entry under it is a miss and then stored again, for static and late tags."""
    for tags in ("t", lambda call, result: ["t"]):
        f = redis_way.cached(tags=tags)(lambda: 1)
        for _ in range(3):
            redis_way.run(f())
        loads = f.cache_info().loads
        redis_client.delete(f"{redis_way.prefix}:tag:t")
        for _ in range(4):
            redis_way.run(f())
        assert loads < f.cache_info().loads <= loads + 2
        assert redis_way.run(f.peek()) is not None
