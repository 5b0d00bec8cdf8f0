"""Replies of a type that nobody expects: a read is a miss, and what was not acknowledged as it should be is not acknowledged."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from memover import InvalidationFailed, StoreError
from tests.face.ways import Way
from tests.servers import StubServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLIES = {
    "status": b"+WHATEVER\r\n",
    "integer": b":-7\r\n",
    "bulk": b"$3\r\nabc\r\n",
    "nil": b"$-1\r\n",
    "nil array": b"*-1\r\n",
    "empty array": b"*0\r\n",
    "integers": b"*2\r\n:1\r\n:2\r\n",
    "nested": b"*1\r\n*1\r\n*0\r\n",
    "too many": b"*9\r\n" + b"$1\r\nx\r\n" * 9,
    "mixed": b"*3\r\n:1\r\n$-1\r\n*1\r\n+OK\r\n",
    "token of another kind": b"$5\r\n12-ab\r\n",
}


@pytest.fixture(params=REPLIES)
def stub(request: pytest.FixtureRequest) -> Iterator[StubServer]:
    with StubServer(REPLIES[request.param]) as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest, stub: StubServer, prefix: str) -> Iterator[Way]:
    way = Way(stub.url, is_async=request.param == "async", prefix=prefix)
    # The circuit is to let every call through: each is to see the reply.
    way.cache = way.new_cache(breaker_first=0.001, breaker_last=0.001, wait_timeout=0.2, socket_timeout=5)
    yield way
    # What was not acknowledged is owed for good here, and closing says so.
    for close in (way.cache.close, way.close):
        with suppress(InvalidationFailed):
            close()
    if way.loop is not None and not way.loop.is_closed():
        with suppress(InvalidationFailed):
            way.loop.run_until_complete(way.cache.aclose())
        way.loop.close()


def test_a_call_is_answered_by_its_function(way: Way, stub: StubServer) -> None:
    """Whatever the store says: calls, batches, refreshes and looks."""
    f = way.cached(tags=("x:{x}",))(lambda x: [x])
    for _ in range(2):
        assert way.run(f(1)) == [1]
        assert way.run(f.map([1, 2])) == [[1], [2]]
        assert way.run(f.refresh(1)) == [1]
        assert way.run(f.peek(1)) is None
    assert stub.commands > 0


def test_an_invalidation_that_was_not_acknowledged_as_it_should_be_raises(way: Way) -> None:
    """Not everything that is no error is an acknowledgement."""
    f = way.cached("named")(lambda x: [x])
    invalidate_tags = way.cache.ainvalidate_tags if way.is_async else way.cache.invalidate_tags
    by_name = way.cache.ainvalidate_namespace if way.is_async else way.cache.invalidate_namespace
    calls: list[tuple[str, Any]] = [
        ("invalidate_all", f.invalidate_all),
        ("invalidate_tags", lambda: invalidate_tags("t")),
        ("invalidate_namespace", lambda: by_name("named")),
        ("invalidate", lambda: f.invalidate(1)),
    ]
    acknowledged = []
    for name, call in calls:
        try:
            way.run(call())
        except InvalidationFailed:
            continue
        acknowledged.append(name)
    assert acknowledged == []


def test_key_value_calls_say_nothing_or_raise_a_store_error(way: Way) -> None:
    """`get` has its default; what changes something is acknowledged or raises a `StoreError`."""
    prefix = "a" if way.is_async else ""
    call = lambda name, *args: way.run(getattr(way.cache, prefix + name)(*args))  # noqa: E731
    assert call("get", "k", "default") == "default"
    assert call("get_many", ["k", "l"]) == {}
    for name, arguments in (("set", ("k", 1)), ("set_many", ({"k": 1},)), ("delete", ("k",)), ("clear", ())):
        try:
            call(name, *arguments)
        except (StoreError, InvalidationFailed):
            continue
        # `set` of a store whose SET answers with some status cannot be told from one that stored; all else can.
        assert name in ("set", "set_many", "delete")
