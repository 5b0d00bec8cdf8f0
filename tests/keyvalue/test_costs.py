"""What each operation costs: commands counted at the server, bytes counted nowhere, time never."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import FaultyProxy, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover import Cache
    from tests.servers import RedisServer

COSTS: list[tuple[str, tuple[Any, ...], list[str]]] = [
    ("get", ("n",), ["MGET"]),
    ("get", ("absent",), ["MGET"]),
    ("has_key", ("n",), ["MGET"]),
    ("get_many", ([f"k{number}" for number in range(500)],), ["MGET"]),
    ("set", ("n", 1), ["EVALSHA"]),
    ("set_many", ({f"k{number}": number for number in range(500)},), ["EVALSHA"]),
    ("add", ("n", 1), ["EVALSHA"]),
    ("touch", ("n",), ["EVALSHA"]),
    ("incr", ("n",), ["EVALSHA"]),
    ("incr_version", ("n",), ["EVALSHA"]),
    ("delete", ("n",), ["MGET", "EVALSHA"]),
    ("delete_many", ([f"k{number}" for number in range(500)],), ["DEL"]),
    ("clear", (), ["EVALSHA"]),
    ("get_or_set", ("n", 1), ["MGET"]),
    ("get_or_set", ("absent", 1), ["MGET", "EVALSHA", "EVALSHA"]),
]


def acquaint(cache: Cache) -> None:
    """Have the server know every script, and the cache the generation, as after a moment's use."""
    cache.get_or_set("warm", 1)
    for use in (cache.incr, cache.touch, cache.incr_version):
        use("warm")
    cache.add("warm", 1)
    cache.delete("warm")
    cache.clear()
    cache.set_many({"n": 1, **{f"k{number}": number for number in range(500)}})


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    ("method", "args", "commands"), COSTS, ids=lambda value: value if isinstance(value, str) else None
)
def test_the_commands_of_each_method(
    method: str,
    args: tuple[Any, ...],
    commands: list[str],
    awaited: bool,
    make: Callable[..., Cache],
    redis_server: RedisServer,
) -> None:
    """One command each, on any number of keys; `delete` two that travel together; `get_or_set` three when it computes."""
    cache = make(redis_server.url)
    acquaint(cache)
    with redis_server.recording() as calls:
        if awaited:
            asyncio.run(getattr(cache, f"a{method}")(*args))
        else:
            getattr(cache, method)(*args)
    # Coroutines have a store of their own, which sends a script whole the first time.
    assert [name.replace("EVALSHA", "EVAL") for name in calls] == [name.replace("EVALSHA", "EVAL") for name in commands]


def test_the_first_write_of_a_process_is_one_command_too(make: Callable[..., Cache], redis_server: RedisServer) -> None:
    """A process that has not seen the generation yet leaves it to the server to stamp what it sends."""
    acquaint(make(redis_server.url))
    for method, args in (("set", ("n", 1)), ("add", ("new", 2)), ("incr", ("n",)), ("set_many", ({"n": 1, "m": 2},))):
        cache = make(redis_server.url)
        with redis_server.recording() as calls:
            getattr(cache, method)(*args)
        assert list(calls) == ["EVAL"], method
        assert cache.get("n") in (1, 2)


@pytest.mark.parametrize("method", ["set_many", "get_many", "delete", "delete_many", "incr"])
def test_one_round_trip(method: str, make: Callable[..., Cache], redis_server: RedisServer) -> None:
    """The server's answers held back: everything that is to be sent has been sent by then."""
    args: Any = {
        "set_many": ({f"k{number}": number for number in range(100)},),
        "get_many": ([f"k{number}" for number in range(100)],),
        "delete": ("n",),
        "delete_many": ([f"k{number}" for number in range(100)],),
        "incr": ("n",),
    }[method]
    wanted = 2 if method == "delete" else 1
    with FaultyProxy(redis_server) as proxy:
        cache = make(proxy.url)
        acquaint(cache)
        with redis_server.recording() as calls:
            proxy.half_open()
            worker = threading.Thread(target=lambda: getattr(cache, method)(*args))
            worker.start()

            def arrived() -> bool:
                calls.settle()
                return len(calls) >= wanted

            wait_until(arrived, "all commands, none of them answered")
            proxy.restore()
            worker.join()
        assert len(calls) == wanted
