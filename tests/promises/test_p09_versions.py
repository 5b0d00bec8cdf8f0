"""P9: versions never read each other's entries; a bump needs no command and both versions live side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.servers import hear, run_python, say, start_python

if TYPE_CHECKING:
    from tests.face.ways import Way
    from tests.servers import RedisServer


def deployed(way: Way, version: int, loads: list[int]) -> Any:
    """The function as a deployment with this version has it, on a cache of its own."""
    way.cache = way.new_cache() if way.is_redis else way.cache

    source = {"version": version}

    def load(x: int) -> str:
        loads.append(source["version"])
        return f"of version {source['version']}"

    return way.cached(namespace="rolling", version=version)(load)


def test_two_deployments_live_side_by_side(redis_way: Way) -> None:
    """During a rolling deploy old and new processes hit their own entries, and never each other's."""
    loads: list[int] = []
    old, new = deployed(redis_way, 1, loads), deployed(redis_way, 2, loads)
    for _ in range(3):
        assert redis_way.run(old(1)) == "of version 1"
        assert redis_way.run(new(1)) == "of version 2"
    assert loads == [1, 2]
    assert old.key(1) != new.key(1)
    assert old.at(2).key(1) == new.key(1)
    assert redis_way.run(old.at(2).peek(1)).value == "of version 2"


def test_a_bump_sends_nothing(redis_server: RedisServer, redis_way: Way) -> None:
    """Decorating with a higher version is no command; its first call is an ordinary miss of three."""
    loads: list[int] = []
    old = deployed(redis_way, 1, loads)
    redis_way.run(old(1))
    with redis_server.recording() as calls:
        new = deployed(redis_way, 2, loads)
        calls.settle()
        assert calls == []
        redis_way.run(new(1))
    assert len(calls) == 3


def test_an_invalidation_concerns_every_version(redis_way: Way) -> None:
    """When the data behind a namespace changes every version of it is stale: one generation for all."""
    loads: list[int] = []
    old, new = deployed(redis_way, 1, loads), deployed(redis_way, 2, loads)
    redis_way.run(old(1))
    redis_way.run(new(1))
    redis_way.run(new.invalidate_all())
    redis_way.run(old(1))
    redis_way.run(new(1))
    assert loads == [1, 2, 1, 2]
    redis_way.run(new.at(1).invalidate(1))
    redis_way.run(old(1))
    redis_way.run(new(1))
    assert loads == [1, 2, 1, 2, 1]


def process_of_version(url: str, prefix: str, version: int) -> list[str]:
    """A process of one deployment: calls whenever it is told to."""
    from memover import Cache

    with Cache(url, prefix=prefix) as cache:

        @cache.versioned(namespace="processes", version=version)
        def f(x: int) -> str:
            return f"{version} loaded"

        values = []
        for _ in range(3):
            say("ready")
            hear("call")
            values.append(f(1))
        return [*values, str(f.cache_info().loads)]


def test_processes_of_two_versions_take_turns(redis_url: str, prefix: str) -> None:
    """Old and new processes calling in turns, each with one load of its own."""
    with (
        start_python(process_of_version, redis_url, prefix, 1) as old,
        start_python(process_of_version, redis_url, prefix, 2) as new,
    ):
        for _ in range(3):
            for process in (old, new):
                process.wait_for("ready")
                process.tell("call")
        assert old.result() == ["1 loaded"] * 3 + ["1"]
        assert new.result() == ["2 loaded"] * 3 + ["1"]


def test_the_version_alone_decides_where_an_entry_lives(redis_url: str, prefix: str, redis_client: Any) -> None:
    """The same call of the same version has the same key in every process, and another in another version."""
    code = """
from memover import Cache
url, prefix, version = args
f = Cache(url, prefix=prefix).versioned(namespace="keys", version=version)(lambda x, y="z": x)
result = [f.key(1), f.key(x=1), f.key(1, y="z")]
"""
    (one, again) = (run_python(code, redis_url, prefix, 1)[0], run_python(code, redis_url, prefix, 1)[0])
    (two,) = run_python(code, redis_url, prefix, 2)
    assert len({*one, *again}) == 1
    assert one[0].replace(f"{prefix}:1:", f"{prefix}:2:") == two[0]
    assert two[0] != one[0]
