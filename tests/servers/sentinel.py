"""A primary, its replicas and the sentinels that watch them, tuned to fail over in a second or two."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .daemon import Daemon, redis_server_binary, redis_server_version
from .redis import NOT_YET, RedisServer
from .waiting import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

__all__ = ["Sentinel", "SentinelGroup"]

# Milliseconds; the defaults are 10,000, 2,000, 1,000 and 1,000. While a primary is down its replicas are asked for
# their state once a second, a constant, so: four publish periods must be well above that, or the other sentinels
# undo a promotion that its leader has not yet seen; five ping periods too, or no replica's state counts as recent.
_PACE = {"info-period": 100, "publish-period": 500, "ping-period": 300, "ask-period": 100}


class Sentinel(Daemon):
    """One sentinel process."""

    def __init__(self, service: str, primary: RedisServer, *, quorum: int, down_after: float) -> None:
        super().__init__()
        self.port = free_port()
        self._service = service
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            "protected-mode no",
            f"dir {self.directory}",
            f"sentinel monitor {service} {primary.host} {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {service} {int(down_after * 1000)}",
            f"sentinel failover-timeout {service} 3000",
            f"sentinel parallel-syncs {service} 9",
        ]
        if primary.password is not None:
            lines += [f"sentinel auth-pass {service} {primary.password}"]
            lines += [f"sentinel auth-user {service} {primary.username}"] if primary.username else []
        (self.directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it (again) with what it knew; returns when it answers PING."""
        self._launch([redis_server_binary(), str(self.directory / "sentinel.conf"), "--sentinel"])

        def ready() -> bool:
            assert self.alive, self.log
            with self.client() as client:
                return bool(client.ping())

        wait_until(ready, f"the sentinel on port {self.port} to answer", passing=NOT_YET)
        with self.client() as client:  # its own pace before Redis 7
            for name, milliseconds in _PACE.items() if redis_server_version() >= (7, 0) else ():
                client.execute_command("SENTINEL", "DEBUG", name, milliseconds)

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def knows(self, replicas: set[int]) -> bool:
        """Whether it is in touch with the replicas on these ports and with enough sentinels for a failover."""
        with self.client() as client:
            client.execute_command("SENTINEL", "CKQUORUM", self._service)  # an error if not
            seen = client.sentinel_slaves(self._service)
        well = {one["port"] for one in seen if one["flags"] == "slave" and one["master-link-status"] == "ok"}
        return replicas <= well


class SentinelGroup:
    """A primary, `replicas` replicas and `sentinels` sentinels; a context manager that ends them all.

    `down_after` is in seconds: how long the primary must be silent before a sentinel takes it for dead.
    """

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        service: str = "main",
        down_after: float = 0.5,
        password: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self.service = service
        self.nodes: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []
        self._stack = ExitStack()
        settings: dict[str, object] = {**(config or {})}
        if password is not None:
            settings["masterauth"] = password
        try:
            for _ in range(1 + replicas):
                self.nodes.append(self._stack.enter_context(RedisServer(password=password, config=settings)))
            for follower in self.nodes[1:]:
                follower.replicate(self.nodes[0])
            quorum = sentinels // 2 + 1
            for _ in range(sentinels):
                sentinel = Sentinel(service, self.nodes[0], quorum=quorum, down_after=down_after)
                self.sentinels.append(self._stack.enter_context(sentinel))
            self.wait_settled()
        except BaseException:
            self.close()
            raise

    def url_for(self, db: int = 0) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        password = self.nodes[0].password
        credentials = f":{password}@" if password is not None else ""
        return f"redis+sentinel://{credentials}{hosts}/{self.service}?db={db}"

    @property
    def url(self) -> str:
        return self.url_for()

    @property
    def primary(self) -> RedisServer:
        """The node that every living sentinel takes for the primary; raises `LookupError` while they differ."""
        ports = set()
        for sentinel in self.sentinels:
            if sentinel.alive:
                with sentinel.client() as client:
                    _, port = client.sentinel_get_master_addr_by_name(self.service)
                    ports.add(int(port))
        if len(ports) != 1:
            raise LookupError(f"the sentinels name several primaries: {sorted(ports)}")
        (port,) = ports
        return next(node for node in self.nodes if node.port == port)

    @property
    def replicas(self) -> list[RedisServer]:
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def failover(self) -> RedisServer:
        """SENTINEL FAILOVER, all nodes being well; returns the new primary when it is agreed on and writable.

        A sentinel refuses while it has not heard of a replica for some pings (on a loaded machine), and is asked again."""
        self.wait_settled()
        before = wait_until(lambda: self.primary, "one primary", passing=(LookupError, *NOT_YET))

        def begun() -> bool:
            with self.sentinels[0].client() as client:
                try:
                    client.execute_command("SENTINEL", "FAILOVER", self.service)
                except redis.ResponseError as error:
                    return "INPROG" in str(error)  # one has begun
            return True

        wait_until(begun, "a sentinel to begin a failover", timeout=60, passing=NOT_YET)
        return self.wait_primary(other_than=before)

    def kill_primary(self) -> RedisServer:
        """SIGKILL the primary and return it at once; `wait_primary(other_than=it)` is the next step."""
        before = self.primary
        before.kill()
        return before

    def wait_primary(self, *, other_than: RedisServer | None = None, timeout: float = 60.0) -> RedisServer:
        """The primary, when the living sentinels agree, it is not `other_than` and it takes a write."""

        def agreed() -> RedisServer | None:
            primary = self.primary
            if primary is other_than or primary.info("replication")["role"] != "master":
                return None
            primary.run("SET", "sentinel-group:probe", "1", "PX", "1")
            return primary

        found = wait_until(agreed, "a new primary", timeout=timeout, passing=(LookupError, *NOT_YET))
        assert found is not None
        return found

    def wait_settled(self, timeout: float = 60.0) -> None:
        """Return when all living nodes follow one primary and every sentinel knows them and one another."""

        def settled() -> bool:
            primary = self.wait_primary()
            followers = [node for node in self.nodes if node.alive and node is not primary]
            if primary.info("replication")["connected_slaves"] != len(followers):
                return False
            for node in followers:
                told = node.info("replication")
                if told.get("master_link_status") != "up" or told["master_port"] != primary.port:
                    return False
            ports = {node.port for node in followers}
            return all(sentinel.knows(ports) for sentinel in self.sentinels if sentinel.alive)

        wait_until(settled, "the sentinels to have seen everybody", timeout=timeout, passing=NOT_YET)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
