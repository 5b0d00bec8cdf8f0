"""A real redis-server of our own: on a free loopback port or a unix socket, in a directory of its own, unsaved."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .daemon import Daemon, redis_server_binary, redis_server_version
from .recording import Recording
from .waiting import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["NOT_YET", "RedisServer", "primary_with_replicas"]

# A server that is starting: refuses, resets, is loading its dump, or (between two processes) is frozen.
NOT_YET = (redis.exceptions.RedisError, OSError)
_STARTS = 5
_OPERATOR = "operator"


class RedisServer(Daemon):
    """A running redis-server; a context manager that ends it.

    `port` None takes a free one, `unix_socket` a socket in the directory instead of a port, `tls` a certificate that
    `authority` names the issuer of. `password` alone is `requirepass`; with `username` it is an ACL user whose rules
    are `acl`. `config` is anything else of redis.conf (underscores may stand for hyphens; a list repeats the directive).
    Nothing is written to disk unless `config` asks for it or `save()` is called.

    `url` is what an application is given, without any right to more; `client()` is the test's own way in, with all.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        unix_socket: bool = False,
        tls: bool = False,
        username: str | None = None,
        password: str | None = None,
        acl: str = "~* &* +@all",
        config: Mapping[str, object] | None = None,
        directory: Path | str | None = None,
    ) -> None:
        super().__init__(directory)
        self._wanted_port = port
        self.port = port or 0
        self.socket = self.directory / "redis.sock" if unix_socket else None
        self.tls = tls
        self.username = username
        self.password = password
        self.acl = acl
        self.authority: Path | None = None
        self._operator_password = secrets.token_hex(8)
        self._config: dict[str, object] = {
            "save": "",
            "appendonly": "no",
            "bind": "127.0.0.1",
            "protected-mode": "no",
            "unixsocketperm": "700",
            # A replica's first copy need not wait for others that might want it too.
            "repl-diskless-sync-delay": "0",
        }
        if redis_server_version() >= (7, 0):
            self._config["enable-debug-command"] = "local"  # before that it always is
        self._config.update((name.replace("_", "-"), value) for name, value in (config or {}).items())
        if redis_server_version() < (7, 0):
            self._config.pop("cluster-port", None)  # it is the port plus 10,000
        try:
            self._prepare_tls()
            self.start()
        except BaseException:
            self.close()
            raise

    # Addresses

    @property
    def host(self) -> str:
        return "127.0.0.1"

    def url_at(self, port: int, db: int = 0) -> str:
        """The URL of this server as seen through another port of this machine, a proxy's say."""
        credentials = ""
        if self.password is not None:
            credentials = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        if self.socket is not None:
            return f"unix://{credentials}{self.socket}?db={db}"
        if self.tls:
            return f"rediss://{credentials}{self.host}:{port}/{db}?ssl_ca_certs={self.authority}"
        return f"redis://{credentials}{self.host}:{port}/{db}"

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def client(self, *, timeout: float = 10.0, **options: Any) -> redis.Redis:
        """A plain `redis.Redis` with every right, answers as bytes and no retries; the caller closes it."""
        options = {
            "username": _OPERATOR,
            "password": self._operator_password,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **options,
        }
        if self.socket is not None:
            return redis.Redis(unix_socket_path=str(self.socket), **options)
        if self.tls:
            options |= {"ssl": True, "ssl_ca_certs": str(self.authority)}
        return redis.Redis(host=self.host, port=self.port, **options)

    def run(self, *command: Any, **options: Any) -> Any:
        """One command on a connection of its own: `server.run("SET", "k", "v")`."""
        with self.client() as client:
            return client.execute_command(*command, **options)

    def info(self, section: str = "everything") -> dict[str, Any]:
        """INFO, parsed."""
        with self.client() as client:
            answer: dict[str, Any] = client.info(section)
            return answer

    # Life

    def start(self) -> None:
        """Start it (again), with what its directory holds; returns when it answers PING, its dump loaded."""
        for attempt in range(1, _STARTS + 1):
            if self._wanted_port is None and self.socket is None and (attempt > 1 or not self.port):
                self.port = free_port()
            self._write_config()
            self._launch([redis_server_binary(), str(self.directory / "redis.conf")])
            if self._wait_ready():
                # The next start is on this port, where clients expect it.
                self._wanted_port = self.port
                return
            # Gone: most likely somebody else took the port between our look and its bind.
            self._wait_gone()
            if self._wanted_port is not None or "Address already in use" not in self.log or attempt == _STARTS:
                raise RuntimeError(f"redis-server did not start:\n{self.log}")

    def restart(self, *, empty: bool = True) -> None:
        """SIGKILL and start on the same address: empty, or with what the last `save()` wrote."""
        self.kill()
        if empty:
            (self.directory / "dump.rdb").unlink(missing_ok=True)
        self.start()

    def save(self) -> None:
        """SAVE: the dump that `restart(empty=False)` comes back with."""
        self.run("SAVE")

    # Looking

    def recording(self) -> Recording:
        """`with server.recording() as calls: ...; assert calls == ["MGET"]`; see `Recording`."""
        return Recording(self.client(timeout=30.0))

    # Replication

    def replicate(self, primary: RedisServer | None) -> None:
        """REPLICAOF: follow `primary` and return when in sync with it, or with None become a primary."""
        if primary is None:
            self.run("REPLICAOF", "NO", "ONE")
            return
        if primary.password is not None:
            self.run("CONFIG", "SET", "masterauth", primary.password)
            self.run("CONFIG", "SET", "masteruser", primary.username or "default")
        self.run("REPLICAOF", primary.host, primary.port)
        self.wait_in_sync()

    def wait_in_sync(self) -> None:
        """Return when this replica's link to its primary is up."""
        wait_until(
            lambda: self.info("replication").get("master_link_status") == "up",
            f"the replica on port {self.port} to be in sync",
            passing=NOT_YET,
        )

    # Inside

    def _prepare_tls(self) -> None:
        if not self.tls:
            return
        from .certificates import issue

        self.authority, certificate, key = issue(self.directory)
        self._config |= {
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": self.authority,
            "tls-auth-clients": "no",
        }

    def _write_config(self) -> None:
        config = {**self._config, "port": 0 if self.tls else self.port, "dir": self.directory}
        if self.tls:
            config["tls-port"] = self.port
        if self.socket is not None:
            config["unixsocket"] = self.socket
        users = [f"{_OPERATOR} on >{self._operator_password} ~* &* +@all"]
        if self.username is not None:
            users += [f"{self.username} on {_quoted(f'>{self.password}')} {self.acl}", "default off"]
        elif self.password is not None:
            config["requirepass"] = _quoted(self.password)
        if redis_server_version() < (6, 2):
            users = [user.replace(" &*", "") for user in users]  # it knows no rights to channels
        lines = [f"user {user}" for user in users]
        for name, value in config.items():
            values = value if isinstance(value, list) else [value]
            lines += [f"{name} {one if str(one) else _quoted('')}" for one in values]
        (self.directory / "redis.conf").write_text("\n".join(lines) + "\n")

    def _wait_ready(self) -> bool:
        """Whether it came up; False if its process ended instead."""

        def ready() -> bool:
            if not self.alive:
                return True
            # Its own process, and not another server that happens to hold the port.
            return bool(self.run("PING")) and self.info("server")["process_id"] == self.pid

        wait_until(ready, f"redis-server on {self.url} to answer", passing=NOT_YET)
        return self.alive


def _quoted(text: str) -> str:
    """One word of redis.conf, whatever is in it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def primary_with_replicas(
    replicas: int = 1, *, config: Mapping[str, object] | None = None
) -> Iterator[tuple[RedisServer, list[RedisServer]]]:
    """A primary and its replicas, all in sync; ended with the block."""
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(config=config))
        followers = [stack.enter_context(RedisServer(config=config)) for _ in range(replicas)]
        for follower in followers:
            follower.replicate(primary)
        yield primary, followers
