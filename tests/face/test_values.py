"""What a caller gets is its own: no caller can change what another one gets, on a hit, a miss or a shared load."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from memover import UnencodableValue
from memover.engine.steps import Await
from memover.runtime import run as runners
from tests.face.ways import waiting_threads
from tests.servers import await_until, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.face.ways import Way


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


class Pair(NamedTuple):
    names: list[str]
    number: int


MUTABLE: list[tuple[Any, Callable[[Any], object]]] = [
    ([1, [2]], lambda value: value[1].append(9)),
    ({"a": {"b": 1}}, lambda value: value["a"].clear()),
    ({1, 2}, lambda value: value.add(9)),
    (bytearray(b"ab"), lambda value: value.append(9)),
    (Basket(["tea"]), lambda value: value.items.append("mug")),
    (([1], "x"), lambda value: value[0].append(9)),
    (Pair(["a"], 1), lambda value: value.names.append("b")),
    (deque([1]), lambda value: value.append(9)),
    (OrderedDict(a=[1]), lambda value: value["a"].append(9)),
    (defaultdict(list, a=[1]), lambda value: value["a"].append(9)),
]


@pytest.mark.parametrize(("value", "change"), MUTABLE, ids=lambda case: type(case).__name__)
def test_what_a_caller_changes_no_other_caller_sees(way: Way, value: Any, change: Callable[[Any], object]) -> None:
    """The loader's result, a hit's, a peek's and what was set: each is changed, and the next hit is as it was."""
    expected = repr(value)

    @way.cached()
    def f() -> Any:
        return value

    assert repr(way.run(f())) == expected
    for found in (way.run(f()), way.run(f()), way.run(f.peek()).value, way.run(f.max_age(60)())):
        assert type(found) is type(value)
        assert repr(found) == expected
        change(found)
    assert repr(way.run(f())) == expected
    mine = way.run(f())
    way.run(f.set(mine))
    change(mine)
    assert repr(way.run(f())) == expected


def test_the_loaders_own_result_is_not_the_stored_one(way: Way) -> None:
    """What the caller of a miss does to the result it was given is not in the entry."""

    @way.cached()
    def f() -> dict[str, list[int]]:
        return {"a": [1]}

    first = way.run(f())
    first["a"].append(2)
    assert way.run(f()) == {"a": [1]}


def test_an_argument_changed_after_the_call_changes_no_key(way: Way) -> None:
    """The key is made from what the argument was."""

    @way.cached()
    def f(values: list[int]) -> int:
        return sum(values)

    values = [1, 2]
    assert way.run(f(values)) == 3
    values.append(3)
    assert way.run(f(values)) == 6
    assert way.run(f([1, 2])) == 3


def test_followers_of_one_load_get_values_of_their_own(sync_way: Way) -> None:
    """Threads that waited for one load each get an equal value, and no two the same object."""
    callers = 6
    began, release = threading.Event(), threading.Event()
    found: list[list[int]] = []

    @sync_way.cached()
    def slow() -> list[int]:
        began.set()
        assert release.wait(30)
        return [1]

    threads = [threading.Thread(target=lambda: found.append(slow())) for _ in range(callers)]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(30)
    assert found == [[1]] * callers
    assert len({id(value) for value in found}) == callers
    assert slow.cache_info().loads == 1


def test_tasks_that_follow_one_load_get_values_of_their_own(async_way: Way) -> None:
    """asyncio.gather of one call: one run, and as many values."""
    runs = []

    @async_way.cached()
    def slow() -> Any:
        runs.append(1)

        async def later() -> list[int]:
            await asyncio.sleep(0)
            return [1]

        return later()

    async def whole() -> list[list[int]]:
        return await asyncio.gather(*(slow() for _ in range(10)))

    found = async_way.run(whole())
    assert found == [[1]] * 10
    assert len({id(value) for value in found}) == 10
    assert runs == [1]


def test_an_exception_is_shared_by_those_who_waited_for_it(sync_way: Way) -> None:
    """One failing load, every waiter told, none of them runs the function again; who comes later does."""
    began, release = threading.Event(), threading.Event()
    runs: list[int] = []
    caught: list[BaseException] = []

    @sync_way.cached()
    def failing() -> int:
        runs.append(1)
        began.set()
        assert release.wait(30)
        raise LookupError("nothing there")

    def caller() -> None:
        try:
            failing()
        except LookupError as error:
            caught.append(error)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: waiting_threads() == 3, "the others to wait")
    release.set()
    for thread in threads:
        thread.join(30)
    assert len(caught) == 4
    assert runs == [1]
    with pytest.raises(LookupError):
        failing()
    assert runs == [1, 1]


def test_tasks_share_an_exception_too(async_way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.gather of a failing call: one run, every caller told."""
    runs = []
    waiting: list[Any] = []
    really_await = runners._APERFORM[Await]

    async def counted(step: Await) -> Any:
        waiting.append(step)
        return await really_await(step)

    monkeypatch.setitem(runners._APERFORM, Await, counted)

    @async_way.cached()
    def failing() -> Any:
        runs.append(1)

        async def later() -> int:
            await await_until(lambda: len(waiting) == 4, "the others to wait for this call")
            raise LookupError("nothing there")

        return later()

    async def whole() -> list[Any]:
        return await asyncio.gather(*(failing() for _ in range(5)), return_exceptions=True)

    found = async_way.run(whole())
    assert [str(error) for error in found] == ["nothing there"] * 5
    assert runs == [1]


def test_exceptions_that_are_none_of_the_functions_are_not_shared(sync_way: Way) -> None:
    """KeyboardInterrupt or SystemExit in the leader is the leader's alone: a waiter runs the function itself."""
    began, release = threading.Event(), threading.Event()
    runs: list[int] = []
    found: list[Any] = []

    @sync_way.cached()
    def slow() -> int:
        runs.append(1)
        if len(runs) == 1:
            began.set()
            assert release.wait(30)
            raise SystemExit(3)
        return 5

    def leader() -> None:
        try:
            slow()
        except SystemExit as error:
            found.append(error.code)

    first = threading.Thread(target=leader)
    first.start()
    assert began.wait(30)
    second = threading.Thread(target=lambda: found.append(slow()))
    second.start()
    release.set()
    first.join(30)
    second.join(30)
    assert sorted(found) == [3, 5]


def test_a_codec_of_ones_own_is_used(way: Way) -> None:
    """codec= with encode and decode: its bytes are stored, and another codec's bytes are a miss."""
    encoded, decoded = [], []

    class Json:
        def encode(self, value: Any) -> bytes:
            encoded.append(value)
            return json.dumps(value).encode()

        def decode(self, data: bytes) -> Any:
            decoded.append(data)
            return json.loads(data)

    runs = []

    def greet(name: str) -> dict[str, str]:
        runs.append(name)
        return {"hello": name}

    f = way.cached("codec", codec=Json())(greet)
    assert way.run(f("tea")) == way.run(f("tea")) == {"hello": "tea"}
    assert encoded == [{"hello": "tea"}]
    assert decoded == [b'{"hello": "tea"}']
    g = way.cached("codec")(greet)
    assert way.run(g("tea")) == way.run(g("tea")) == {"hello": "tea"}
    assert runs == ["tea", "tea"]
    assert g.cache_info().damaged == 1
    assert len(decoded) == 1


def test_what_a_codec_cannot_encode_is_refused(way: Way) -> None:
    """Its error becomes an UnencodableValue that names the function and has the codec's error as its cause."""

    class Json:
        def encode(self, value: Any) -> bytes:
            return json.dumps(value).encode()

        def decode(self, data: bytes) -> Any:
            return json.loads(data)

    @way.cached(codec=Json())
    def f() -> Any:
        return {1, 2}

    with pytest.raises(UnencodableValue, match="codec") as caught:
        way.run(f())
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.kind == "builtins.set"
