"""The servers that other tests rely on do what they say: each promise and each fault of theirs, on the real thing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.servers import (
    INDEX,
    FaultyProxy,
    RedisCluster,
    RedisServer,
    SentinelGroup,
    WorkerFailed,
    hear,
    primary_with_replicas,
    run_python,
    say,
    start_python,
    wait_until,
)
from tests.servers.recording import own_prefix, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def user_of(url: str, timeout: float = 5.0) -> Iterator[redis.Redis]:
    """A client as an application makes one, without retries."""
    with redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    ) as client:
        yield client


# RedisServer


def test_the_shared_server_answers_at_its_url(redis_url: str, prefix: str) -> None:
    with user_of(redis_url) as client:
        client.set(f"{prefix}:k", b"\x00\xff")
        assert client.get(f"{prefix}:k") == b"\x00\xff"


@pytest.mark.parametrize(
    "options",
    [
        {"unix_socket": True},
        {"tls": True},
        {"password": "p/w:@ #"},
        {"username": "app", "password": "secret", "acl": "~app:* +@all"},
        {"unix_socket": True, "password": "secret"},
        {"tls": True, "username": "app", "password": "secret"},
    ],
    ids="+".join,
)
def test_every_kind_of_address_is_reached_by_its_url(
    options: dict[str, Any], start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis(**options)
    with user_of(server.url) as client:
        client.set("app:k", "v")
        assert client.get("app:k") == b"v"
    assert server.run("GET", "app:k") == b"v"


@pytest.mark.parametrize("options", [{"password": "secret"}, {"username": "app", "password": "secret"}])
def test_a_server_with_a_password_lets_nobody_in_without_it(
    options: dict[str, Any], start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis(**options)
    with (
        user_of(f"redis://{server.host}:{server.port}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.get("k")


def test_an_acl_holds_for_the_url_and_not_for_the_test(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(username="app", password="secret", acl="~app:* +get")
    with user_of(server.url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.set("app:k", "v")
    server.run("SET", "other:k", "v")


def test_tls_is_verified_against_the_servers_own_authority(start_redis: Callable[..., RedisServer]) -> None:
    server, other = start_redis(tls=True), start_redis(tls=True)
    url = server.url.replace(str(server.authority), str(other.authority))
    with user_of(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_config_reaches_the_server(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(config={"maxmemory": "4mb", "maxmemory_policy": "allkeys-lru"})
    assert server.run("CONFIG", "GET", "maxmemory-policy") == [b"maxmemory-policy", b"allkeys-lru"]


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="Bad directive"):
        RedisServer(config={"no-such-setting": 1})


def test_a_killed_server_refuses_and_a_restarted_one_is_empty_on_the_same_address(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    server.run("SET", "k", "v")
    url = server.url
    server.kill()
    assert not server.alive
    with user_of(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    server.restart()
    assert server.url == url
    assert server.run("GET", "k") is None


def test_a_restart_from_the_dump_goes_back_to_the_last_save(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    server.run("SET", "k", "old")
    server.save()
    server.run("SET", "k", "new")
    server.restart(empty=False)
    assert server.run("GET", "k") == b"old"
    server.restart(empty=True)
    assert server.run("GET", "k") is None


def test_terminate_ends_a_server_even_if_frozen(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    server.freeze()
    server.terminate()
    assert not server.alive


def test_a_frozen_server_accepts_and_says_nothing_until_it_is_thawed(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    server.freeze()
    with user_of(server.url, timeout=0.1) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    server.thaw()
    assert server.run("PING") is True


def test_closing_leaves_neither_process_nor_directory() -> None:
    with RedisServer() as server:
        pid, directory = server.pid, server.directory
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not directory.exists()


def running(pid: int) -> bool:
    """Whether a process runs; a zombie, whom nobody has waited for, does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_a_server_dies_with_the_process_that_started_it_even_when_both_are_beyond_help() -> None:
    code = (
        "import os, signal; from tests.servers import RedisServer; s = RedisServer(); s.freeze();"
        "print(s.pid, s.directory, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    pid, directory = ended.stdout.split()
    wait_until(lambda: not running(int(pid)), "the reaper to kill the server")
    wait_until(lambda: not Path(directory).exists(), "the reaper to remove its directory")


def test_a_server_outlives_the_thread_that_started_it(start_redis: Callable[..., RedisServer]) -> None:
    started: list[RedisServer] = []
    thread = threading.Thread(target=lambda: started.append(start_redis()))
    thread.start()
    thread.join()
    assert started[0].run("PING") is True


# Recording


def test_a_recording_lists_exactly_the_commands_in_between(redis_server: RedisServer, prefix: str) -> None:
    with user_of(redis_server.url) as client:
        client.get("before")
        with redis_server.recording() as calls:
            client.mget(f"{prefix}:a", f"{prefix}:b")
        client.get("after")
    assert calls == ["MGET"]
    assert calls.commands[0].args == (f"{prefix}:a".encode(), f"{prefix}:b".encode())
    assert calls.handshake == []


def test_a_recording_is_exact_at_its_edges_however_often_it_is_made(redis_server: RedisServer) -> None:
    with user_of(redis_server.url) as client:
        for n in range(50):
            client.get("outside")
            with redis_server.recording() as calls:
                for _ in range(n % 5):
                    client.get("inside")
            client.get("outside")
            assert calls == ["GET"] * (n % 5)


def test_a_recording_keeps_handshakes_apart(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(password="secret")
    with server.recording() as calls, user_of(server.url_at(server.port, db=3)) as client:
        client.get("k")
    assert calls == ["GET"]
    assert calls.commands[0].db == 3
    assert "SELECT" in [command.name for command in calls.handshake]


def test_a_recording_keeps_what_scripts_call_apart(redis_server: RedisServer, prefix: str) -> None:
    with user_of(redis_server.url) as client, redis_server.recording() as calls:
        digest = client.script_load("return redis.call('INCR', KEYS[1])")
        client.evalsha(digest, 1, f"{prefix}:n")
    assert calls == ["SCRIPT LOAD", "EVALSHA"]
    assert [command.name for command in calls.inner] == ["INCR"]


def test_a_recording_sees_pipelines_command_by_command(redis_server: RedisServer, prefix: str) -> None:
    with user_of(redis_server.url) as client, redis_server.recording() as calls:
        for transaction in (False, True):
            with client.pipeline(transaction=transaction) as pipeline:
                pipeline.get(f"{prefix}:a")
                pipeline.delete(f"{prefix}:b")
                pipeline.execute()
    assert calls == ["GET", "DEL", "MULTI", "GET", "DEL", "EXEC"]


def test_a_recording_leaves_out_what_is_about_the_keys_of_a_test_that_is_over(
    redis_server: RedisServer, prefix: str
) -> None:
    """A cache which that test did not close may go on behind it; the prefix of a test that runs is never left out."""
    with own_prefix() as former:
        keys = [f"{former}:1:f:x", f"{{{former}a:1:f:x}}:lease"]
        with user_of(redis_server.url) as client, redis_server.recording() as calls:
            client.mget(keys)
        assert calls == ["MGET"]
    with user_of(redis_server.url) as client, redis_server.recording() as calls:
        client.mget(keys)
        client.eval("return redis.call('GET', KEYS[1])", 1, keys[1])
        client.get(f"{prefix}:1:f:x")
        client.ping()
    assert (calls, calls.inner) == (["GET", "PING"], [])


def test_a_recording_can_be_read_while_it_runs(redis_server: RedisServer) -> None:
    with user_of(redis_server.url) as client, redis_server.recording() as calls:
        client.get("k")
        calls.settle()
        assert calls == ["GET"]
        client.exists("k")
    assert calls == ["GET", "EXISTS"]


@pytest.mark.parametrize("options", [{"unix_socket": True}, {"tls": True}], ids=["unix", "tls"])
def test_a_recording_works_on_every_kind_of_address(
    options: dict[str, Any], start_redis: Callable[..., RedisServer]
) -> None:
    server = start_redis(**options)
    with user_of(server.url) as client, server.recording() as calls:
        client.get("k")
    assert calls == ["GET"]


def test_a_recorded_argument_comes_back_byte_for_byte(redis_server: RedisServer, prefix: str) -> None:
    every_byte = bytes(range(256)) * 2
    with user_of(redis_server.url) as client, redis_server.recording() as calls:
        client.set(f'{prefix}:"\\x41] "quoted"', every_byte)
    assert calls.commands[0].args == (f'{prefix}:"\\x41] "quoted"'.encode(), every_byte)


def test_a_line_of_monitor_is_parsed_by_its_grammar() -> None:
    command = parse(b'1700000000.000001 [5 [::1]:5000] "get" "a\\"b\\\\n\\n"')
    assert command == ("GET", (b'a"b\\n\n',), "[::1]:5000", 5)


# Replicas, Sentinel, Cluster


def test_replicas_are_in_sync_and_read_only() -> None:
    with primary_with_replicas(2) as (primary, replicas):
        primary.run("SET", "k", "v")
        assert primary.run("WAIT", 2, 5000) == 2
        assert [replica.run("GET", "k") for replica in replicas] == [b"v", b"v"]
        with pytest.raises(redis.ReadOnlyError):
            replicas[0].run("SET", "k", "w")


def test_a_switch_to_a_frozen_out_replica_loses_the_tail() -> None:
    with primary_with_replicas(1) as (primary, (replica,)):
        primary.run("SET", "k", "old")
        primary.run("WAIT", 1, 5000)
        replica.freeze()
        primary.run("SET", "k", "new")
        primary.kill()
        replica.thaw()
        replica.replicate(None)
        # Either may be: the last write was in flight. What matters is that the replica is a primary now.
        assert replica.run("GET", "k") in (b"old", b"new")
        replica.run("SET", "k", "newest")
        primary.start()
        primary.replicate(replica)
        assert primary.run("GET", "k") == b"newest"


@pytest.mark.slow
def test_sentinels_name_a_new_primary_on_request_and_when_it_dies() -> None:
    with SentinelGroup() as group:
        assert group.url.startswith("redis+sentinel://127.0.0.1:")
        assert group.url.endswith("/main?db=0")
        first = group.primary
        first.run("SET", "k", "v")
        first.run("WAIT", 2, 5000)

        second = group.failover()
        assert second is not first
        assert second.run("GET", "k") == b"v"

        group.wait_settled()
        dead = group.kill_primary()
        assert dead is second
        third = group.wait_primary(other_than=dead)
        assert third.run("SET", "k", "w")

        dead.start()
        group.wait_settled()
        assert dead in group.replicas


@pytest.mark.slow
def test_a_failover_waits_for_replicas_that_were_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentinel refuses it while it has not heard of them for some pings, as on a loaded machine."""
    with SentinelGroup(replicas=1) as group:
        primary, (replica,) = group.primary, group.replicas
        replica.freeze()

        def refused() -> bool:
            with group.sentinels[0].client() as client:
                (seen,) = client.sentinel_slaves(group.service)
            return bool(seen["is_sdown"])

        wait_until(refused, "the sentinel to notice")
        monkeypatch.setattr(group, "wait_settled", replica.thaw)
        assert group.failover() is not primary


@pytest.mark.slow
def test_a_sentinel_group_may_have_a_password() -> None:
    with SentinelGroup(replicas=1, sentinels=1, password="secret") as group:
        assert ":secret@" in group.url
        assert group.failover() is group.nodes[1]


@pytest.mark.slow
def test_a_cluster_moves_slots_and_answers_ask_meanwhile() -> None:
    with RedisCluster() as cluster, cluster.client() as client:
        client.set("k", "v")
        slot = key_slot(b"k")
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes if node is not source)
        with cluster.migrating(slot, target):
            with pytest.raises(redis.exceptions.AskError):
                source.run("GET", "{k}:absent")
            assert client.get("k") == b"v"
        assert cluster.owner_of("k") is target
        with pytest.raises(redis.exceptions.MovedError):
            source.run("GET", "k")
        assert client.get("k") == b"v"
        cluster.migrate_slot(slot, source)
        assert source.run("GET", "k") == b"v"


@pytest.mark.slow
def test_a_replica_takes_the_place_of_a_killed_cluster_node() -> None:
    with RedisCluster(3, 1) as cluster, cluster.client() as client:
        client.set("k", "v")
        node = cluster.owner_of("k")
        node.run("WAIT", 1, 5000)
        cluster.kill_node(node)
        cluster.wait_ok()
        assert cluster.owner_of("k") in cluster.nodes[3:]
        assert client.get("k") == b"v"
        assert len(cluster.primaries()) == 3


# FaultyProxy


@pytest.fixture
def proxied(redis_server: RedisServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(redis_server) as proxy:
        yield proxy


def test_a_proxy_hands_everything_on_and_counts(proxied: FaultyProxy, prefix: str) -> None:
    value = os.urandom(1_000_000)
    with user_of(proxied.url) as client:
        client.set(f"{prefix}:k", value)
        assert client.get(f"{prefix}:k") == value
        assert proxied.open == 1
    assert proxied.connections == 1
    assert proxied.bytes_up > len(value)
    assert proxied.bytes_down > len(value)
    wait_until(lambda: proxied.open == 0, "the proxy to see the client go")


def test_a_proxy_delays_answers(proxied: FaultyProxy) -> None:
    with user_of(proxied.url) as client:
        client.ping()
        proxied.delay(0.2)
        begun = time.monotonic()
        client.ping()
        assert time.monotonic() - begun >= 0.2
    proxied.delay(5)
    with user_of(proxied.url, timeout=0.05) as client, pytest.raises(redis.TimeoutError):
        client.ping()


def test_a_blackhole_swallows_requests_until_restored(
    proxied: FaultyProxy, redis_server: RedisServer, prefix: str
) -> None:
    proxied.blackhole()
    with user_of(proxied.url, timeout=0.1) as client, pytest.raises(redis.TimeoutError):
        client.set(f"{prefix}:k", "v")
    proxied.restore()
    assert redis_server.run("GET", f"{prefix}:k") is None
    with user_of(proxied.url) as client:
        assert client.ping()


def raw(proxy: FaultyProxy) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", proxy.port))
    sock.settimeout(10)
    return sock


def test_a_connection_that_lost_bytes_is_reset_when_the_network_is_back(proxied: FaultyProxy) -> None:
    with raw(proxied) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        proxied.blackhole()
        sock.sendall(b"PING\r\n")
        wait_until(lambda: any(c.lost_bytes for c in tuple(proxied._open)), "the request to be swallowed")
        proxied.restore()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_a_half_open_connection_carries_requests_and_no_answers_and_then_late_ones(
    proxied: FaultyProxy, redis_server: RedisServer, prefix: str
) -> None:
    with raw(proxied) as sock:
        proxied.half_open()
        sock.sendall(f"SET {prefix}:k v\r\n".encode())
        wait_until(lambda: redis_server.run("GET", f"{prefix}:k") == b"v", "the request to be carried out")
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(100)
        sock.settimeout(10)
        proxied.restore()
        assert sock.recv(100) == b"+OK\r\n"


def test_a_partition_holds_both_directions_and_delivers_late(
    proxied: FaultyProxy, redis_server: RedisServer, prefix: str
) -> None:
    with raw(proxied) as sock:
        proxied.partition()
        sock.sendall(f"SET {prefix}:k v\r\n".encode())
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(100)
        assert redis_server.run("GET", f"{prefix}:k") is None
        sock.settimeout(10)
        proxied.restore()
        assert sock.recv(100) == b"+OK\r\n"


def test_cut_resets_open_connections_and_serves_new_ones(proxied: FaultyProxy) -> None:
    with raw(proxied) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        proxied.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    with user_of(proxied.url) as client:
        assert client.ping()


@pytest.mark.parametrize("after_bytes", [0, 1, 5, 100_000])
def test_a_reply_is_cut_after_so_many_bytes_and_its_request_has_been_carried_out(
    proxied: FaultyProxy, redis_server: RedisServer, prefix: str, after_bytes: int
) -> None:
    redis_server.run("SET", f"{prefix}:k", b"x" * 300_000)
    with raw(proxied) as sock:
        proxied.cut_mid_reply(after_bytes)
        sock.sendall(f"GETDEL {prefix}:k\r\n".encode())
        received = b""
        while piece := sock.recv(65536):
            received += piece
    assert len(received) == after_bytes
    assert redis_server.run("EXISTS", f"{prefix}:k") == 0
    with user_of(proxied.url) as client:
        assert client.ping()


def test_a_refusing_proxy_keeps_its_port_and_takes_it_up_again(proxied: FaultyProxy) -> None:
    port = proxied.port
    with user_of(proxied.url) as client:
        client.ping()
        proxied.refuse()
        with pytest.raises(redis.ConnectionError):
            client.ping()
    with pytest.raises(ConnectionRefusedError):
        raw(proxied)
    proxied.restore()
    assert proxied.port == port
    with user_of(proxied.url) as client:
        assert client.ping()


def test_a_proxy_that_is_closed_while_clients_connect_leaves_nothing_open(redis_server: RedisServer) -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(20):
            _close_among_clients(FaultyProxy(redis_server))
        gc.collect()
    assert [str(warning.message) for warning in unclosed] == []


def _close_among_clients(proxy: FaultyProxy) -> None:
    crowd = [threading.Thread(target=_connect_until_refused, args=(proxy.port,)) for _ in range(2)]
    for one in crowd:
        one.start()
    wait_until(lambda: proxy.connections >= 4, "clients that connect")
    proxy.close()
    for one in crowd:
        one.join(10)


def _connect_until_refused(port: int) -> None:
    with contextlib.ExitStack() as held, contextlib.suppress(OSError):
        while True:
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))


def test_a_proxy_carries_tls_and_credentials(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(tls=True, password="secret")
    with FaultyProxy(server) as proxy, user_of(proxy.url) as client:
        assert client.ping()


def test_a_proxy_outlives_its_server_and_finds_it_again(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with FaultyProxy(server) as proxy:
        server.kill()
        with user_of(proxy.url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.restart()
        with user_of(proxy.url) as client:
            assert client.ping()


# Processes


def twice(number: int, index: int) -> list[int]:
    return [number * 2, index]


async def a_coroutine(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def failing() -> None:
    raise LookupError("of the child's own")


def dying() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def conversing(name: str) -> str:
    say("begun", {"by": name})
    return f"{name} heard {hear('go on')}"


def counting_in(url: str, key: str) -> tuple[int, float]:
    begun = time.monotonic()
    with redis.Redis.from_url(url) as client:
        client.incr(key)
    return os.getpid(), begun


def test_processes_run_a_function_and_know_their_number() -> None:
    assert run_python(twice, 21, INDEX, n=3) == [[42, 0], [42, 1], [42, 2]]


def test_a_process_runs_a_coroutine_function() -> None:
    assert run_python(a_coroutine, 41) == [42]


def test_a_process_runs_code() -> None:
    assert run_python("import sys; result = [args, sys.version_info[0]]", "a", 1) == [[["a", 1], 3]]


def test_processes_share_a_server(redis_url: str, redis_client: redis.Redis, prefix: str) -> None:
    answers = run_python(counting_in, redis_url, f"{prefix}:n", n=4)
    assert redis_client.get(f"{prefix}:n") == b"4"
    assert len({pid for pid, _ in answers} | {os.getpid()}) == 5


def test_nobody_starts_before_everybody_is_there() -> None:
    before = time.monotonic()
    begun = run_python("import time; result = time.monotonic()", n=4)
    # The last child's imports take far longer than the distance between the first start and the last.
    assert max(begun) - min(begun) < min(begun) - before


def test_an_error_in_a_process_comes_back_with_its_traceback() -> None:
    with pytest.raises(WorkerFailed, match=r"(?s)in failing.*LookupError: of the child's own"):
        run_python(failing, n=2)


def test_the_death_of_a_process_is_told() -> None:
    with pytest.raises(WorkerFailed, match=f"died, status -{int(signal.SIGKILL)}"):
        run_python(dying)


def test_a_process_that_takes_too_long_is_ended() -> None:
    with pytest.raises(WorkerFailed, match="no 'result' within"):
        run_python("import time; time.sleep(600)", timeout=2)


def test_parent_and_child_agree_on_a_schedule_in_words() -> None:
    with start_python(conversing, "it") as worker:
        assert worker.wait_for("begun") == {"by": "it"}
        worker.tell("go on", "the parent")
        assert worker.result() == "it heard the parent"


def test_a_process_can_be_killed_at_a_chosen_point() -> None:
    with start_python(conversing, "it") as worker:
        worker.wait_for("begun")
        worker.kill()
        with pytest.raises(WorkerFailed, match="died"):
            worker.result()


def test_waiting_gives_up_and_says_for_what() -> None:
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for Godot"):
        wait_until(lambda: False, "Godot", timeout=0.01)
