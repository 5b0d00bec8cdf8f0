"""Stored bytes that are stable for good: entries as the first release wrote them are read, counted, moved and touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from freezegun import freeze_time

from memover import Cache
from memover.codec.envelope import read_header, rewritten

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

GENERATION = b"1700000000000000-00112233445566ff"
NOW = "2024-01-01T00:00:00Z"

# Written at NOW with a ttl of 100 seconds under the prefix "golden" and GENERATION.
GOLDEN: dict[str, tuple[Any, str]] = {
    "golden:1:n": (
        41,
        "6d767201ed1d0ed032e12dab02000000000000208064d9410000000000000000000000398064d941000000398064d9410000000000000000020006210a0000006d762d696e74313730303030303030303030303030302d30303131323233333434353536366666676f6c64656e3a313a6e3431",
    ),
    "golden:1:k": (
        {"a": [1, None, "ü"]},
        "6d76720172bc55299ef122f409000000000000208064d9410000000000000000000000398064d941000000398064d9410000000000000000020003210a0000006d7631313730303030303030303030303030302d30303131323233333434353536366666676f6c64656e3a313a6b81a1619301c0a2c3bc",
    ),
}


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    server = start_redis()
    server.run("SET", "golden:gen:~kv", GENERATION)
    for name, (_, stored) in GOLDEN.items():
        server.run("SET", name, bytes.fromhex(stored))
    return server


def test_golden_entries_are_read_and_written(server: RedisServer) -> None:
    """What is written today is what was written then, byte for byte."""
    with freeze_time(NOW), Cache(server.url, prefix="golden", socket_timeout=10) as cache:
        assert cache.get("k") == {"a": [1, None, "ü"]}
        assert cache.get("n") == 41
        for name, (value, stored) in GOLDEN.items():
            cache.set(name.rpartition(":")[2], value, 100)
            assert server.run("GET", name).hex() == stored


def test_the_scripts_rewrite_entries_as_python_does(server: RedisServer) -> None:
    """Counting, touching and moving a golden entry in Lua gives the bytes that the envelope's own module gives."""
    name = "golden:1:n"
    raw = bytes.fromhex(GOLDEN[name][1])
    with freeze_time(NOW) as clock, Cache(server.url, prefix="golden", socket_timeout=10) as cache:
        for delta in (1, -50, 10**15, -(10**15) + 8):
            value = cache.incr("n", delta)
            raw = rewritten(raw, read_header(raw, name.encode()), payload=b"%d" % value)
            assert server.run("GET", name) == raw
        assert value == 0
        clock.tick(1.25)
        assert cache.touch("n", 1000)
        raw = rewritten(raw, read_header(raw, name.encode()), fresh_until=clock().timestamp() + 1000)
        assert server.run("GET", name) == raw
        assert cache.incr_version("n", 10**12) == 10**12 + 1
        moved = f"golden:{10**12 + 1}:n"
        raw = rewritten(raw, read_header(raw, name.encode()), key=moved.encode())
        assert server.run("GET", moved) == raw
        # Sent by a process that had not seen the generation: stamped by the script.
        with Cache(server.url, prefix="golden", socket_timeout=10) as fresh:
            fresh.set("k" * 3000, "v" * 3000)
            stored = server.run("GET", "golden:1:" + "k" * 3000)
            header = read_header(stored, b"golden:1:" + b"k" * 3000)
            assert header.generation == GENERATION
            assert rewritten(stored, header) == stored
