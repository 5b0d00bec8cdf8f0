"""The connections of event loops: shared by all tasks, answers in order, closed with their loop."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from memover.errors import StoreError, StoreTimeout, StoreUnavailable
from memover.runtime.run import arun, run
from memover.stores.redis.failures import Lost
from tests.redis_store.conftest import a_key, entry_for, filled, request_for
from tests.servers import FaultyProxy, RedisServer, await_until, run_python, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memover.model import Key
    from memover.stores.redis import RedisStore

PATIENT: dict[str, Any] = {"socket_timeout": 30.0, "socket_connect_timeout": 30.0}
"""For what is no subject of time limits: the machine may be busy."""


def sockets(proxy: FaultyProxy) -> int:
    """How many connections to a proxy this process has open: those of one test, whatever others have left behind."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as one:
                    count += one.family == socket.AF_INET and one.getpeername()[1] == proxy.port
        except OSError:
            pass  # closed meanwhile, or connected to nobody
    return count


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(redis_server) as proxy:
        yield proxy


def test_tasks_of_one_turn_share_one_write_and_one_connection(
    open_store: Any, redis_server: RedisServer, prefix: str
) -> None:
    """A thousand tasks need one connection; each gets the answer to what it asked."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=10.0)
        keys = filled(store, prefix, 50)
        store.close()
        before = proxy.connections

        async def one(key: Key) -> None:
            assert (await store.afetch(key)).raw == key.entry
            assert (await arun(store.read(key))).raw == key.entry

        async def whole() -> None:
            await asyncio.gather(*(one(key) for _ in range(20) for key in keys))

        asyncio.run(whole())
        assert proxy.connections == before + 1


class Counting:
    """A socket that notes what is written to it."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.writes = list[bytes]()

    def send(self, data: Any) -> int:
        self.writes.append(bytes(data))
        sent: int = self._sock.send(data)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_task_that_is_alone_does_not_wait_for_the_end_of_its_turn(
    open_store: Any, redis_server: RedisServer, prefix: str
) -> None:
    """One command after another leaves at once; those of many tasks leave in one write, of which the first may be ahead."""
    store = open_store(redis_server.url, socket_timeout=10.0)
    keys = filled(store, prefix, 50)

    async def whole() -> None:
        await store.afetch(keys[0])
        mux = store.link.homes.here().small[None].mux
        assert mux is not None
        mux.sock = counting = Counting(mux.sock)

        async def written(*tasks: Key) -> int:
            before = len(counting.writes)
            for key, seen in zip(tasks, await asyncio.gather(*(store.afetch(key) for key in tasks))):
                assert seen.raw == key.entry
            return len(counting.writes) - before

        assert await written(keys[0]) == 1
        alone = mux.submit(store.packed(keys[1]))
        assert len(counting.writes) == 2, "it has left already"
        behind = [mux.submit(store.packed(key)) for key in keys]
        assert len(counting.writes) == 2, "what is behind another waits for the end of the turn"
        assert (await alone)[-1] == keys[1].entry
        assert [answer[-1] for answer in await asyncio.gather(*behind)] == [key.entry for key in keys]
        assert len(counting.writes) == 3
        assert [await written(*keys) for _ in range(3)] == [1, 1, 1]
        assert await written(keys[0]) == 1
        assert await written(*keys) == 2

    asyncio.run(whole())


def test_a_command_that_leaves_at_once_on_a_dead_connection(
    open_store: Any, redis_server: RedisServer, prefix: str
) -> None:
    """A read is sent again on another connection; what may be applied once only is not, and its caller is told."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=10.0)
        (key,) = filled(store, prefix, 1)

        async def whole() -> None:
            for _ in range(3):
                assert (await store.afetch(key)).raw == key.entry
            mux = store.link.homes.here().small[None].mux
            assert mux is not None
            mux.sock.shutdown(socket.SHUT_RDWR)  # every write fails from here on
            before = proxy.connections
            assert (await store.afetch(key)).raw == key.entry
            assert proxy.connections == before + 1
            assert store.link.homes.here().small[None].mux is not mux

            broken = store.link.homes.here().small[None].mux
            assert broken is not None
            assert (await store.afetch(key)).raw == key.entry
            broken.sock.shutdown(socket.SHUT_RDWR)
            with pytest.raises(Lost):
                await broken.submit(store.packed(key))
            assert broken.sock is None
            assert (await store.afetch(key)).raw == key.entry

        asyncio.run(whole())


class Struck(deque[Any]):
    """What is in flight, on a connection that is interrupted when more is added to it."""

    def extend(self, futures: Any) -> None:
        raise KeyboardInterrupt

    append = extend


def test_an_interrupted_write_leaves_nobody_waiting(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """An exception from outside while a turn's commands become what is in flight: all of them fail, as not sent."""
    store = open_store(redis_server.url, **PATIENT)
    keys = filled(store, prefix, 3)

    async def whole() -> None:
        await store.afetch(keys[0])
        mux = store.link.homes.here().small[None].mux
        assert mux is not None
        asking = [mux.submit(store.packed(key)) for key in (keys[0], *keys)][1:]
        mux._flying = Struck(mux._flying)
        with pytest.raises(KeyboardInterrupt):
            mux._flush()
        assert mux.sock is None
        for future in asking:
            with pytest.raises(Lost) as caught:
                await asyncio.wait_for(future, 30)
            assert not caught.value.sent
        assert (await store.afetch(keys[0])).raw == keys[0].entry

    asyncio.run(whole())


def test_cancelled_callers_mix_no_answers(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """Thousands of callers, half of them cancelled at some moment: the others get their own answers, on one connection."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=10.0)
        keys = filled(store, prefix, 40)
        store.close()
        before = proxy.connections
        right = 0

        async def one(key: Key) -> None:
            nonlocal right
            seen = await store.afetch(key) if random.random() < 0.5 else await arun(store.read(key))
            assert seen.raw == key.entry
            right += 1

        async def whole() -> None:
            await store.afetch(keys[0])
            for _ in range(30):
                tasks = [asyncio.ensure_future(one(random.choice(keys))) for _ in range(100)]
                for task in tasks[::2]:
                    asyncio.get_running_loop().call_later(random.random() * 0.004, task.cancel)
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert result is None or isinstance(result, asyncio.CancelledError)

        asyncio.run(whole())
        assert right >= 1500
        assert proxy.connections == before + 1
        assert not store.breaker.tripped


def test_ten_thousand_tasks_are_all_stored(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """On a healthy server nothing is given up for being one of many: they queue."""
    store = open_store(redis_server.url)

    async def one(n: int) -> bool:
        key = a_key(prefix, f"k{n}")
        await store.afetch(key)
        request = request_for(key)
        assert (await arun(store.acquire(request))).ours
        return bool(await arun(store.store(entry_for(request))))

    async def whole() -> list[bool]:
        return await asyncio.gather(*(one(n) for n in range(10_000)))

    assert all(asyncio.run(whole()))
    assert not store.breaker.tripped


@pytest.mark.parametrize("held_up", [0.15, 0.3, 1.5])
def test_a_loop_that_was_held_up_blames_nobody(
    open_store: Any, redis_server: RedisServer, prefix: str, held_up: float
) -> None:
    """An answer that came in while the loop did something else counts, whether for half the budget or for many of them."""
    store = open_store(redis_server.url)
    key = a_key(prefix)

    async def whole() -> None:
        for connected in (False, True, True):
            task = asyncio.ensure_future(store.afetch(key))
            await asyncio.sleep(0)
            if connected:
                await asyncio.sleep(0)
            time.sleep(held_up)
            assert (await task).raw is None
        await store.aclose()
        task = asyncio.ensure_future(arun(store.read(key)))
        for _ in range(10):
            await asyncio.sleep(0)
        time.sleep(held_up)
        assert (await task).raw is None

    asyncio.run(whole())
    assert not store.breaker.tripped


def test_a_silent_server_fails_all_at_once(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """Hundreds in flight cost one budget together, and the circuit opens."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url)

        async def whole() -> None:
            await store.afetch(key)
            proxy.partition()
            began = time.monotonic()
            results = await asyncio.gather(*(store.afetch(key) for _ in range(500)), return_exceptions=True)
            assert time.monotonic() - began < 5
            assert all(isinstance(result, StoreTimeout) for result in results)
            assert len({id(result) for result in results}) == 500

        asyncio.run(whole())
        assert store.breaker.tripped


async def circuit_closed(store: Any, key: Key) -> None:
    """Read until a read is answered: the circuit lets one call through from time to time."""
    deadline = time.monotonic() + 30
    while True:
        try:
            await store.afetch(key)
        except StoreError:
            assert time.monotonic() < deadline, "the circuit stays open"
            await asyncio.sleep(0.01)
        else:
            return


def test_a_lost_connection_fails_or_repeats_what_is_in_flight(
    open_store: Any, redis_server: RedisServer, prefix: str
) -> None:
    """Reads are sent again on a new connection, once; what is to be applied once is not."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=5.0)
        keys = filled(store, prefix, 20)

        async def whole() -> None:
            for _ in range(5):
                await store.afetch(keys[0])
                proxy.partition()
                reads = [asyncio.ensure_future(store.afetch(key)) for key in keys]
                swap = asyncio.ensure_future(arun(store.swap(keys[0], b"no", b"never")))
                await asyncio.sleep(0.02)
                proxy.cut()
                proxy.restore()
                for key, read in zip(keys, reads):
                    assert (await read).raw == key.entry
                with pytest.raises(StoreUnavailable):
                    await swap
                await circuit_closed(store, keys[0])

        asyncio.run(whole())


def test_large_values_do_not_hold_up_small_ones(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """They have a connection of their own, from when their size is known; memory for what waits to be sent is bounded."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url, socket_timeout=20.0)
        small, large = filled(store, prefix, 2)
        raw = os.urandom(4_000_000)
        store.close()

        async def whole() -> None:
            before = proxy.connections
            for _ in range(3):
                request = request_for(large)
                await arun(store.acquire(request))
                assert await arun(store.store(entry_for(request, raw)))
            assert proxy.connections == before + 2
            assert (await store.afetch(large)).raw == raw
            results = await asyncio.gather(*(store.afetch(key) for _ in range(20) for key in (small, large)))
            assert all(seen.raw == (small.entry, raw)[n % 2] for n, seen in enumerate(results))
            assert proxy.connections == before + 2
            entries = []
            for n in range(20):
                request = request_for(a_key(prefix, f"l{n}"))
                assert (await arun(store.acquire(request))).ours
                entries.append(entry_for(request, raw))
            assert await asyncio.gather(*(arun(store.store(entry)) for entry in entries)) == [True] * 20

        asyncio.run(whole())


def test_waiting_for_replicas_holds_nobody_up(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """An invalidation that waits for a replica that is not there has a connection of its own; hits go on meanwhile."""
    store = open_store(redis_server.url, socket_timeout=1.0, wait_replicas=1)

    async def whole() -> None:
        await store.afetch(key)
        bumps = [asyncio.ensure_future(arun(store.bump([key.names[0]], f"{n:016x}", [0], ()))) for n in range(1, 6)]
        await await_until(lambda: redis_server.info("clients")["blocked_clients"] == 5, "each to wait for a replica")
        reads = 0
        while not any(bump.done() for bump in bumps):
            await store.afetch(key)
            reads += 1
        assert reads > 20
        for bump in bumps:
            (token,) = await bump
            assert token.replicas == 0

    asyncio.run(whole())


def test_a_server_with_one_place_left(open_store: Any, start_redis: Any, prefix: str) -> None:
    """Without a second connection large values share the first."""
    server = start_redis()
    store = open_store(server.url, socket_timeout=5.0)
    (key,) = filled(store, prefix, 1)
    raw = os.urandom(1_000_000)
    store.close()
    server.run("CONFIG", "SET", "maxclients", 1)

    async def whole() -> None:
        await circuit_closed(store, key)
        request = request_for(key)
        await arun(store.acquire(request))
        assert await arun(store.store(entry_for(request, raw)))
        for _ in range(3):
            assert (await store.afetch(key)).raw == raw

    asyncio.run(whole())


# -- life -----------------------------------------------------------------------------------------------------------------


def test_loops_that_are_just_closed_leave_nothing(open_store: Any, proxy: FaultyProxy, key: Key) -> None:
    """`run_until_complete` and `close`, a hundred times, without the collector: no socket, client or loop is left behind."""
    store = open_store(proxy.url, **PATIENT)
    store.fetch(key)
    before = sockets(proxy)
    assert before == 1
    loops = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(store.afetch(key))
            loop.close()
            loops.append(weakref.ref(loop))
            del loop
        assert sum(loop() is not None for loop in loops) <= 1
        assert sockets(proxy) <= before + 1
    finally:
        gc.enable()
    gc.collect()
    store.close()  # used by another thread or loop: whatever is still there goes
    # The thread that opened a connection may not have come to its end yet.
    wait_until(lambda: all(loop() is None for loop in loops), "every loop to be gone")
    assert sockets(proxy) <= before


def test_closed_loops_that_are_kept_are_swept(open_store: Any, proxy: FaultyProxy, key: Key) -> None:
    """A loop that is closed and kept in a variable costs a socket until another loop uses the store."""
    store = open_store(proxy.url, **PATIENT)
    loops = []
    for _ in range(20):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.afetch(key))
        loop.close()
        loops.append(loop)
    assert sockets(proxy) <= 1
    asyncio.run(closing(store, key))
    assert sockets(proxy) == 0


async def closing(store: RedisStore, key: Key) -> None:
    await store.afetch(key)


def test_a_loop_that_ends_in_order_closes_its_connections(open_store: Any, proxy: FaultyProxy, key: Key) -> None:
    """`asyncio.run`, again and again, and in many threads at once."""
    store = open_store(proxy.url, **PATIENT)
    for _ in range(20):
        asyncio.run(closing(store, key))
        assert sockets(proxy) == 0
    threads = [threading.Thread(target=lambda: asyncio.run(closing(store, key))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: sockets(proxy) == 0, "all sockets to be closed")
    assert not store.breaker.tripped


def test_a_loop_closed_while_connecting(open_store: Any, proxy: FaultyProxy, key: Key) -> None:
    """Whatever the loop was waiting for when it was closed, no socket is left."""
    store = open_store(proxy.url, **PATIENT)
    proxy.delay(0.1)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        task = loop.create_task(store.afetch(key))
        loop.run_until_complete(asyncio.sleep(0.01))
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}))
        loop.close()
    proxy.restore()
    del loop, task
    gc.collect()
    store.close()
    wait_until(lambda: proxy.open == 0 and sockets(proxy) == 0, "all sockets to be closed")


def test_aclose_and_use_again(open_store: Any, redis_server: RedisServer, key: Key) -> None:
    """What is in flight fails, what comes later opens a new connection."""
    with FaultyProxy(redis_server) as proxy:
        store = open_store(proxy.url)

        async def whole() -> None:
            await store.afetch(key)
            for _ in range(3):
                await store.aclose()
                assert (await store.afetch(key)).raw is None
            await store.aclose()
            await store.aclose()

        asyncio.run(whole())
        wait_until(lambda: proxy.open == 0, "its connections to be closed")


def test_a_store_that_is_dropped_closes_its_connections(proxy: FaultyProxy, prefix: str) -> None:
    """A loop that goes on keeps nothing of a store that nobody has any more, and hears what the next one is answered."""
    from memover.stores.redis import RedisStore
    from memover.stores.redis.url import parse_url
    from tests.redis_store.conftest import limits

    async def whole() -> None:
        for n in range(3):
            store = RedisStore(parse_url(proxy.url), limits(**PATIENT))
            # An answer that the loop does not hear is found in the end, when the time is over.
            await asyncio.wait_for(store.afetch(a_key(prefix, f"k{n}")), PATIENT["socket_timeout"] / 2)
            assert sockets(proxy) == 1
            del store
            await asyncio.wait_for(closed(), PATIENT["socket_timeout"] / 2)

    async def closed() -> None:
        # The thread that opened the connection may still be at its last lines, and have the store with them.
        await await_until(lambda: gc.collect() >= 0 and not sockets(proxy), "its sockets to be closed", interval=0.01)

    asyncio.run(whole())


_FORKED = """
import asyncio, os
from memover.model import Key
from memover.stores.redis import RedisStore
from memover.stores.redis.url import parse_url
from memover.stores.redis.limits import Limits
store = RedisStore(parse_url(args[0]), Limits(5.0, 5.0, 4, 0.25, 2.0))
key = Key("t:1:f:a", (b"t:gen:f",))

async def several():
    for seen in await asyncio.gather(*(store.afetch(key) for _ in range(50))):
        assert seen.raw is None

async def whole():
    wrong = 0
    for _ in range(5):
        await several()
        child = os.fork()
        if not child:
            store.after_fork()
            try:
                asyncio.set_event_loop(None)
                asyncio._set_running_loop(None)
                asyncio.run(several())
            except BaseException:
                os._exit(1)
            os._exit(0)
        await several()
        wrong += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return wrong

result = asyncio.run(whole())
"""


def test_a_forked_child_opens_connections_of_its_own(redis_server: RedisServer) -> None:
    """The parent's loop goes on, the child's new loop gets its own answers."""
    assert run_python(_FORKED, redis_server.url) == [0]


def test_uvloop(open_store: Any, redis_server: RedisServer, prefix: str) -> None:
    """The same on another implementation of loops."""
    uvloop = pytest.importorskip("uvloop")
    store = open_store(redis_server.url, socket_timeout=5.0)
    keys = filled(store, prefix, 20)
    raw = os.urandom(2_000_000)

    async def whole() -> None:
        for seen, key in zip(await asyncio.gather(*(store.afetch(key) for key in keys[1:])), keys[1:]):
            assert seen.raw == key.entry
        request = request_for(keys[0])
        await arun(store.acquire(request))
        assert await arun(store.store(entry_for(request, raw)))
        assert (await store.afetch(keys[0])).raw == raw
        await store.aclose()
        assert (await store.afetch(keys[1])).raw == keys[1].entry

    for _ in range(3):
        loop = uvloop.new_event_loop()
        loop.run_until_complete(whole())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_without_hiredis(redis_server: RedisServer) -> None:
    """The same answers from the reader and the packer that need nothing installed."""
    code = """
import sys
sys.modules["hiredis"] = None
import asyncio, os
from memover.model import Key
from memover.stores.redis import RedisStore, resp
from memover.stores.redis.url import parse_url
from memover.stores.redis.limits import Limits
assert resp.new_reader().__class__ is resp.PureReader
store = RedisStore(parse_url(args[0]), Limits(5.0, 5.0, 4, 0.25, 2.0))
key = Key("t:1:f:b", (b"t:gen:f",))
raw = os.urandom(1_000_000)
store.visit(None, [(b"SET", key.entry, raw)])
async def whole():
    for _ in range(3):
        assert (await store.afetch(key)).raw == raw
        for seen in await asyncio.gather(*(store.afetch(key) for _ in range(5))):
            assert seen.raw == raw
for _ in range(3):
    assert store.fetch(key).raw == raw
asyncio.run(whole())
store.visit(None, [(b"DEL", key.entry)])
assert store.visit(None, [(b"NOSUCH",), (b"PING",), (b"LRANGE", b"none", b"0", b"-1")])[1:] == [b"PONG", []]
"""
    subprocess.run([sys.executable, "-c", code.replace("args[0]", repr(redis_server.url))], check=True, timeout=60)


def test_over_tls(open_store: Any, prefix: str) -> None:
    """By threads and by loops, small values and large ones."""
    with RedisServer(tls=True) as server:
        store = open_store(server.url, socket_timeout=5.0, socket_connect_timeout=5.0)
        keys = filled(store, prefix, 10)
        raw = os.urandom(3_000_000)
        request = request_for(keys[0])
        run(store.acquire(request))
        assert run(store.store(entry_for(request, raw)))
        for _ in range(3):
            assert store.fetch(keys[0]).raw == raw

        async def whole() -> None:
            for _ in range(5):
                seens = await asyncio.gather(*(store.afetch(key) for key in keys))
                assert [seen.raw for seen in seens] == [raw, *(key.entry for key in keys[1:])]
            request = request_for(keys[1])
            await arun(store.acquire(request))
            assert await arun(store.store(entry_for(request, raw)))
            assert (await store.afetch(keys[1])).raw == raw

        asyncio.run(whole())
