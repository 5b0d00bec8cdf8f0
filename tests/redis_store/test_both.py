"""What holds for the transport of threads and of event loops alike: time limits, refusals, odd answers, lifetimes."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from memover.engine.store import Renewal
from memover.errors import StoreError, StoreTimeout, StoreUnavailable
from memover.runtime.run import arun, run
from tests.redis_store.conftest import BUDGET, OddServer, a_key, entry_for, lasted, request_for
from tests.servers import FaultyProxy, RedisServer, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memover.model import Key
    from memover.stores.redis import RedisStore

T = TypeVar("T")

Open = "Callable[..., RedisStore]"
LIMIT = BUDGET * 8
"""What a call of one budget may take on a machine with other work to do."""


class Way:
    """Flows and hits of a store, by threads or by an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.stores: list[RedisStore] = []

    def do(self, flow: Any) -> Any:
        return run(flow) if self.loop is None else self.loop.run_until_complete(arun(flow))

    def fetch(self, store: RedisStore, key: Key) -> Any:
        if store not in self.stores:
            self.stores.append(store)
        return store.fetch(key) if self.loop is None else self.loop.run_until_complete(store.afetch(key))


@pytest.fixture(params=["threads", "loop"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    if request.param == "threads":
        yield Way(None)
        return
    loop = asyncio.new_event_loop()
    way = Way(loop)
    yield way
    for store in way.stores:
        loop.run_until_complete(store.aclose())
    loop.close()


# -- time -----------------------------------------------------------------------------------------------------------------


def test_a_silent_server_costs_one_budget(way: Way, open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """Connecting to a server that takes connections and says nothing ends in time, and so does a hit on one that fell silent."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url)
        way.fetch(store, key)
        proxy.blackhole()
        began = time.monotonic()
        with pytest.raises(StoreTimeout):
            way.fetch(store, key)
        assert lasted(began) < LIMIT
        assert store.breaker.tripped
        fresh = open_store(proxy.url)
        began = time.monotonic()
        with pytest.raises(StoreTimeout):
            way.fetch(fresh, key)
        assert lasted(began) < LIMIT
        with pytest.raises(StoreUnavailable, match="left alone"):
            way.fetch(fresh, key)


def test_an_answer_that_drips_ends_in_time(way: Way, open_store: Any, key: Key) -> None:
    """An answer that comes byte by byte, each well within the budget, is given up after one budget (P7)."""
    with OddServer(lambda words: b"*2\r\n$-1\r\n$40\r\n" + b"x" * 40 + b"\r\n", pause=0.1) as server:
        store = open_store(server.url)
        began = time.monotonic()
        with pytest.raises(StoreTimeout):
            way.fetch(store, key)
        assert lasted(began) < LIMIT


def test_a_handshake_that_drips_ends_in_time(way: Way, open_store: Any, key: Key) -> None:
    """The time limit holds for connecting and authenticating too."""
    with OddServer(lambda words: b"+OK\r\n", pause=0.2) as server:
        store = open_store(server.url.replace("redis://", "redis://:secret@"))
        began = time.monotonic()
        with pytest.raises(StoreError):
            way.fetch(store, key)
        assert lasted(began) < LIMIT


def test_a_slow_resolver_and_silent_addresses_end_in_time(
    way: Way, open_store: Any, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that takes long to resolve, or has many addresses that do not answer, costs one budget."""
    real = socket.getaddrinfo
    resolved, ended = threading.Event(), threading.Event()

    def slow(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host == "slow.invalid" and args[-1:] != (socket.AI_NUMERICHOST,):
            resolved.wait(30)
            ended.set()
            raise socket.gaierror("no")
        if host == "many.invalid" and args[-1:] != (socket.AI_NUMERICHOST,):
            return [found for _ in range(20) for found in real("240.0.0.1", port, 0, socket.SOCK_STREAM)]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    for name in ("slow.invalid", "many.invalid"):
        store = open_store(f"redis://{name}:6379/0")
        began = time.monotonic()
        with pytest.raises(StoreError):
            way.fetch(store, key)
        assert lasted(began) < LIMIT
    resolved.set()
    assert ended.wait(30), "the resolver's thread ends while its function is replaced"


def test_refused_connections_open_the_circuit(way: Way, open_store: Any, key: Key) -> None:
    """Nobody listens: an error at once, and the next call is held back."""
    store = open_store(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable):
        way.fetch(store, key)
    with pytest.raises(StoreUnavailable, match="left alone"):
        way.fetch(store, key)


def test_one_call_finds_out_that_the_server_is_back(way: Way, open_store: Any, start_redis: Any, key: Key) -> None:
    """The circuit closes with the first answer."""
    server = start_redis()
    store = open_store(server.url)
    way.fetch(store, key)
    server.kill()
    with pytest.raises(StoreUnavailable):
        way.fetch(store, key)
    server.start()
    wait_until(lambda: way.fetch(store, key), "the circuit to close", passing=(StoreError,))
    assert not store.breaker.tripped


def test_a_connection_that_died_while_idle_is_replaced(
    way: Way, open_store: Any, redis_server: RedisServer, key: Key
) -> None:
    """What is sent on it is sent once more on another; what must be applied once looks at it first."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url)
        way.fetch(store, key)
        for _ in range(3):
            proxy.cut()
            assert way.fetch(store, key).raw is None
            proxy.cut()
            assert way.do(store.swap(key, b"old", b"new")) is False
        assert not store.breaker.tripped


def test_what_is_to_be_applied_once_is_not_sent_again(
    way: Way, open_store: Any, redis_server: RedisServer, key: Key
) -> None:
    """The answer to a swap is lost: an error, and the swap was made."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url)
        way.fetch(store, key)
        redis_server.run("SET", key.text, "old")
        proxy.cut_mid_reply()
        with pytest.raises(StoreUnavailable):
            way.do(store.swap(key, b"old", b"new"))
        assert redis_server.run("GET", key.text) == b"new"


# -- a value's own fault ------------------------------------------------------------------------------------------------------


def test_a_value_that_the_server_refuses_is_its_own_fault(
    way: Way, open_store: Any, start_redis: Any, prefix: str
) -> None:
    """P16: too large for the server, every time: the circuit stays closed, small ones are stored, the lease can be given back."""
    server = start_redis(config={"proto-max-bulk-len": "1mb"})
    store = open_store(server.url)
    small = a_key(prefix, "small")
    big = a_key(prefix, "big")
    for size in (1_100_000, 3_000_000, 20_000_000) * 2:
        request = request_for(big)
        assert way.do(store.acquire(request)).ours
        with pytest.raises(StoreUnavailable) as caught:
            way.do(store.store(entry_for(request, os.urandom(size))))
        assert caught.value.refused
        assert not store.breaker.tripped
        way.do(store.release(big, request.token, False))
        other = request_for(small)
        assert way.do(store.acquire(other)).ours
        assert way.do(store.store(entry_for(other)))
        assert way.fetch(store, small).raw == b"raw"


def test_a_full_server_refuses_and_is_no_outage(way: Way, open_store: Any, start_redis: Any, key: Key) -> None:
    """OOM is an answer: `refused`, and reads go on."""
    server = start_redis(config={"maxmemory": "1", "maxmemory-policy": "noeviction"})
    store = open_store(server.url)
    with pytest.raises(StoreUnavailable) as caught:
        way.do(store.acquire(request_for(key)))
    assert caught.value.refused
    assert not store.breaker.tripped
    assert way.fetch(store, key).raw is None


def test_a_large_value_has_time_by_its_size(way: Way, open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """Several megabytes are stored and read within a budget that a slow link would exceed for them."""
    raw = os.urandom(8_000_000)
    store = open_store(redis_server.url, socket_timeout=0.1)
    request = request_for(key)
    way.do(store.acquire(request))
    assert way.do(store.store(entry_for(request, raw)))
    assert way.fetch(store, key).raw == raw
    assert way.fetch(store, key).raw == raw


# -- odd answers --------------------------------------------------------------------------------------------------------------

ODD = {
    "an integer": b":7\r\n",
    "a word": b"+OK\r\n",
    "text": b"$2\r\nhi\r\n",
    "nothing": b"$-1\r\n",
    "no array": b"*-1\r\n",
    "an empty array": b"*0\r\n",
    "integers": b"*2\r\n:1\r\n:2\r\n",
    "a nested array": b"*2\r\n*1\r\n:1\r\n$-1\r\n",
    "too long an array": b"*5\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "RESP3": b"_\r\n",
    "a negative integer": b":-1\r\n",
    "an error": b"-ERR what\r\n",
    "an odd MOVED": b"-MOVED\r\n",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_odd_answers_are_the_stores_errors(way: Way, open_store: Any, prefix: str, answer: bytes) -> None:
    """No answer raises anything but `StoreError`, and none is taken for the acknowledgement of an invalidation."""
    key = a_key(prefix)
    nonce = "0123456789abcdef"
    with OddServer(lambda words: answer) as server:

        def store() -> RedisStore:
            return open_store(server.url)  # type: ignore[no-any-return]

        with pytest.raises(StoreError):
            way.fetch(store(), key)
        for flow in (
            lambda s: s.read(key),
            lambda s: s.look(key),
            lambda s: s.read_many([key, a_key(prefix, "b")]),
            lambda s: s.acquire(request_for(key)),
            lambda s: s.ensure([b"t:gen:f", b"t:gen:g"], [0, 0], nonce),
            lambda s: s.bump([b"t:gen:f"], nonce, [0], ()),
            lambda s: s.bump([b"t:gen:f", b"t:gen:g"], nonce, [0, 0], (b"t:gen:h",)),
        ):
            with pytest.raises(StoreError):
                way.do(flow(store()))
        if answer != b":7\r\n":
            with pytest.raises(StoreError):
                way.do(store().drop(key.entry, key.lease, nonce, ()))
            with pytest.raises(StoreError):
                way.do(store().remove_many([key]))


# -- who is there -------------------------------------------------------------------------------------------------------------


def test_two_addresses_of_one_server_have_one_identity(
    way: Way, open_store: Any, start_redis: Any, redis_server: RedisServer, key: Key
) -> None:
    """localhost and 127.0.0.1 are one store, another database and another server are not; no round trip asks for it."""
    stores = [
        open_store(f"redis://{host}:{redis_server.port}/{db}")
        for host, db in (("127.0.0.1", 0), ("localhost", 0), ("localhost", 1))
    ]
    stores.append(open_store(start_redis().url))
    assert [store.identity() for store in stores] == [None] * 4
    for store in stores:
        way.fetch(store, key)
    first, same, database, server = [store.identity() for store in stores]
    assert first is not None
    assert first == same
    assert len({first, database, server}) == 3
    with redis_server.recording() as calls:
        way.fetch(stores[0], key)
        assert stores[0].identity() == first
    assert calls == ["MGET"]


def test_a_server_that_does_not_say_who_it_is(way: Way, open_store: Any, start_redis: Any, key: Key) -> None:
    """A user without the right to INFO works, without an identity."""
    server = start_redis(username="app", password="p", acl="~* +mget +eval +evalsha")
    store = open_store(server.url)
    assert way.fetch(store, key).raw is None
    assert store.identity() is None


# -- lifetimes of tokens ------------------------------------------------------------------------------------------------------


def test_transient_tokens_live_as_long_as_what_needs_them(
    way: Way, open_store: Any, redis_server: RedisServer, prefix: str
) -> None:
    """P15: a tag's token outlives lease and entry by half a minute, is never shortened, and stays for an entry without limit;
    generations have no limit at all."""
    store = open_store(redis_server.url)
    generation, tag, call = (f"{prefix}:{name}".encode() for name in ("gen:f", "tag:x", "gen:f@call7"))

    def left(name: bytes) -> int:
        return int(redis_server.run("PTTL", name))

    key = a_key(prefix)
    key.names, key.required = (generation, tag), 2
    request = request_for(key)
    way.do(store.acquire(request))
    assert 45_000 < left(tag) <= 50_000
    assert left(generation) == -1
    way.do(store.ensure([call], [0], "0123456789abcdef"))
    assert 25_000 < left(call) <= 30_000
    way.do(store.renew([Renewal(key, request.token, 40_000, (generation, tag, call))]))
    assert 65_000 < left(tag) <= 70_000
    assert 65_000 < left(call) <= 70_000
    assert left(generation) == -1
    way.do(store.store(entry_for(request, names=(tag, call))._replace(expire_ms=600_000)))
    assert 625_000 < left(tag) <= 630_000
    again = request_for(key)
    way.do(store.acquire(again))
    assert left(tag) > 600_000  # not shortened
    way.do(store.store(entry_for(again, names=(tag,))._replace(expire_ms=0)))
    assert left(tag) == -1
    way.do(store.acquire(request_for(key)))
    assert left(tag) == -1
    way.do(store.bump([tag], "1123456789abcdef", [0], (call, generation)))
    assert 25_000 < left(tag) <= 30_000
    assert 25_000 < left(call) <= 30_000
    assert left(generation) == -1
    redis_server.run("PEXPIRE", tag, 500_000)
    way.do(store.bump([tag], "1123456789abcdef", [0], ()))  # repeated: what was captured meanwhile is not shortened
    assert left(tag) > 490_000
    way.do(store.drop(key.entry, key.lease, "2123456789abcdef", (tag,)))
    assert left(tag) <= 30_000


def test_transient_tokens_in_a_cluster(way: Way, open_store: Any, redis_cluster: Any, prefix: str) -> None:
    """The same where tokens and entries are on different nodes."""
    store = open_store(redis_cluster.url, socket_timeout=2.0)
    tag = f"{prefix}:tag:x".encode()

    def left() -> int:
        with redis_cluster.client() as client:
            return int(client.pttl(tag))

    key = a_key(prefix)
    key.names, key.required = (*key.names, tag), 2
    request = request_for(key)
    way.do(store.acquire(request))
    assert 45_000 < left() <= 50_000
    way.do(store.renew([Renewal(key, request.token, 40_000, (tag,))]))
    assert 65_000 < left() <= 70_000
    way.do(store.store(entry_for(request, names=(tag,))._replace(expire_ms=600_000)))
    assert 625_000 < left() <= 630_000
    way.do(store.bump([tag], "1123456789abcdef", [0], ()))
    assert 25_000 < left() <= 30_000
    assert store.identity() is not None


def test_a_full_server_is_not_written_behind_a_tags_limit(
    way: Way, open_store: Any, start_redis: Any, prefix: str
) -> None:
    """To prolong a token is never refused, so it must not be what makes the server take the write behind it."""
    server = start_redis()
    store = open_store(server.url)
    key = a_key(prefix)
    key.names, key.required = (*key.names, f"{prefix}:tag:x".encode()), 2
    request = request_for(key)
    way.do(store.acquire(request))
    server.run("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable) as caught:
        way.do(store.store(entry_for(request, names=key.names[1:])))
    assert caught.value.refused
    with pytest.raises(StoreUnavailable):
        way.do(store.acquire(request_for(a_key(prefix, "other"))))


@pytest.mark.parametrize("where", ["server", "cluster"])
def test_a_server_that_has_lost_its_scripts_is_sent_each_once_more(
    way: Way, open_store: Any, start_redis: Any, prefix: str, where: str, request: pytest.FixtureRequest
) -> None:
    """Whichever is asked for first, and however often in one pipeline, or on several nodes."""
    if where == "server":
        server: RedisServer = start_redis()
        url, servers = server.url, [server]
    else:
        cluster = request.getfixturevalue("redis_cluster")
        url, servers = cluster.url, cluster.primaries()
    store: RedisStore = open_store(url, socket_timeout=10.0)
    for number in range(3):
        requests = [request_for(a_key(prefix, f"{number}-{each}")) for each in range(8)]
        assert all(granted.ours for granted in way.do(store.acquire_many(requests)))
        assert way.do(store.store_many([entry_for(each, b"x") for each in requests])) == [True] * 8
        for each in servers:
            each.run("SCRIPT", "FLUSH")
