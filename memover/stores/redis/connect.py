"""What a URL says, and connections of memover's own kind to the servers it names.

The connections are redis-py's, made one by one and never through its clients: those repeat commands up to ten times
(3 s on a refused connection, 58 s on a silent one), decode answers when the application asked for it elsewhere, and
accept pushes. Ours answer within the budget or fail, hand out bytes, and speak RESP2.
"""

from __future__ import annotations

# What resolving a host name imports: a child forked meanwhile would wait for that import for ever.
import encodings.idna  # noqa: F401  # pyright: ignore[reportUnusedImport]
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis.asyncio.connection as aio_connection
import redis.asyncio.sentinel as aio_sentinel
import redis.connection as sync_connection
import redis.sentinel as sync_sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from memover.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable

__all__ = ["Node", "Target", "check_role", "lost", "parse_url", "translated"]

Node = tuple[str, int]
"""Host and port of a server."""

_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


@dataclass(frozen=True)
class Target:
    """Where the servers are and how to speak to them; `options` are redis-py's connection arguments.

    `kind` is "single", "sentinel" or "cluster"; `nodes` are the seeds of the latter two.
    """

    kind: str
    address: str
    options: Mapping[str, Any]
    tls: bool = False
    unix: bool = False
    nodes: tuple[Node, ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)

    def connection(self, node: Node | None, timeout: float, connect_timeout: float) -> Any:
        """A connection for threads, not yet opened; `node` overrides the URL's host and port."""
        kind: Any = sync_connection.Connection
        if self.unix:
            kind = sync_connection.UnixDomainSocketConnection
        elif self.tls:
            kind = sync_connection.SSLConnection
        return kind(**_arguments(kind, self._options(node), timeout, connect_timeout))

    def async_connection(self, node: Node | None) -> Any:
        """A connection for the running event loop, not yet opened; whoever opens and uses it sets the time limits."""
        kind: Any = aio_connection.Connection
        if self.unix:
            kind = aio_connection.UnixDomainSocketConnection
        elif self.tls:
            kind = aio_connection.SSLConnection
        return kind(**_arguments(kind, self._options(node), None, None))

    def _options(self, node: Node | None) -> dict[str, Any]:
        options = dict(self.options)
        if node is not None:
            options["host"], options["port"] = node
        return options

    def primary(self, timeout: float) -> Node:
        """Ask the sentinels, one after another, where the primary is."""
        sentinel = sync_sentinel.Sentinel(list(self.nodes), sentinel_kwargs=self._sentinel_arguments(timeout))
        try:
            host, port = sentinel.discover_master(self.service)
            return host, int(port)
        finally:
            for client in sentinel.sentinels:
                client.close()

    async def async_primary(self, timeout: float) -> Node:
        """As `primary`."""
        sentinel = aio_sentinel.Sentinel(list(self.nodes), sentinel_kwargs=self._sentinel_arguments(timeout))
        try:
            host, port = await sentinel.discover_master(self.service)
            return host, int(port)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()

    def _sentinel_arguments(self, timeout: float) -> dict[str, Any]:
        return {
            **self.sentinel_options,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }


def _arguments(
    kind: Any, options: Mapping[str, Any], timeout: float | None, connect_timeout: float | None
) -> dict[str, Any]:
    arguments = {
        **options,
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "decode_responses": False,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    # Telling the server our library's name is one more round trip per connection, or two; each release of redis-py
    # has another way to leave it.
    known = inspect.signature(sync_connection.AbstractConnection.__init__).parameters
    if "driver_info" in known:
        arguments["driver_info"] = None
    elif "lib_name" in known:
        arguments["lib_name"] = arguments["lib_version"] = None
    return arguments


def parse_url(url: str) -> Target:
    """What a URL says. Raises `ConfigurationError` that names the part which is wrong, never the password."""
    try:
        parts = urlsplit(url)
        scheme, netloc, path, query = parts.scheme.lower(), parts.netloc, parts.path, parts.query
    except ValueError as error:
        raise ConfigurationError(f"The store's URL cannot be read: {error}.") from None
    family, _, topology = scheme.partition("+")
    family = _SCHEMES.get(family, family)
    if topology:
        if family not in ("redis", "rediss") or topology not in ("sentinel", "cluster"):
            raise ConfigurationError(
                f"The store's URL has the unknown scheme {scheme!r}: write redis+sentinel:// or redis+cluster://."
            )
        return _several(family, topology, netloc, path, query)
    # Not by urlunsplit, which writes unix:/path where there is no host.
    options = _plain_options(f"{family}://{netloc}{path}" + (f"?{query}" if query else ""))
    if family == "unix":
        where = options.get("path")
        if not where:
            raise ConfigurationError("A unix:// URL needs the socket's path: unix:///run/redis.sock?db=0.")
        address = f"unix://{where}?db={options.get('db', 0)}"
    else:
        options.setdefault("host", "localhost")
        options.setdefault("port", _DEFAULT_PORT)
        address = f"{family}://{options['host']}:{options['port']}/{options.get('db', 0)}"
    return Target("single", address, options, tls=family == "rediss", unix=family == "unix")


def _plain_options(url: str) -> dict[str, Any]:
    try:
        options = dict(sync_connection.parse_url(url))
    except ValueError as error:
        raise ConfigurationError(f"The store's URL cannot be read: {error}.") from None
    options.pop("connection_class", None)
    # These are memover's to decide; an application's habit (decode_responses=True) must not corrupt the bytes.
    for ours in ("decode_responses", "max_connections", "retry_on_timeout", "health_check_interval", "protocol"):
        options.pop(ours, None)
    for limit in ("socket_timeout", "socket_connect_timeout"):
        if limit in options:
            raise ConfigurationError(f"Give {limit}= to Cache(...), in seconds, and not in the URL.")
    return options


def _several(family: str, topology: str, netloc: str, path: str, query: str) -> Target:
    credentials, _, hosts = netloc.rpartition("@")
    default_port = _DEFAULT_SENTINEL_PORT if topology == "sentinel" else _DEFAULT_PORT
    nodes = tuple(_node(host, default_port) for host in hosts.split(",") if host)
    if not nodes:
        raise ConfigurationError(f"A {family}+{topology}:// URL needs at least one host:port.")
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    sentinel_options = {
        name: asked.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in asked
    }
    rest = "&".join(part for part in query.split("&") if part and not part.startswith("sentinel_"))
    service = ""
    if topology == "sentinel":
        service, _, database = unquote(path.strip("/")).partition("/")
        service = service or asked.get("service", "")
        if not service:
            raise ConfigurationError("A redis+sentinel:// URL needs the service: redis+sentinel://host:26379/mymaster.")
        plain = f"{family}://{credentials + '@' if credentials else ''}{nodes[0][0]}"
        plain += f"/{database}" if database else ""
    else:
        if path.strip("/0"):
            raise ConfigurationError("Redis Cluster has one database only: leave the path out of the URL.")
        plain = f"{family}://{credentials + '@' if credentials else ''}{nodes[0][0]}"
    options = _plain_options(plain + (f"?{rest}" if rest else ""))
    options.pop("service", None)
    if topology == "cluster" and options.get("db"):
        raise ConfigurationError("Redis Cluster has one database only: leave db= out of the URL.")
    options["host"], options["port"] = nodes[0]
    where = ",".join(f"{host}:{port}" for host, port in nodes)
    tail = f"/{service}?db={options.get('db', 0)}" if service else ""
    return Target(
        topology,
        f"{family}+{topology}://{where}{tail}",
        options,
        tls=family == "rediss",
        nodes=nodes,
        service=service,
        sentinel_options=sentinel_options,
    )


def _node(text: str, default_port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        raise ConfigurationError(f"The store's URL names {text!r}, which is not host:port.") from None


def lost(error: BaseException) -> bool:
    """Whether the connection itself is gone, as opposed to a server that answered with an error."""
    return isinstance(error, (RedisConnectionError, OSError)) and not isinstance(
        error, (BusyLoadingError, TimeoutError)
    )


def check_role(answer: Any, node: Node) -> None:
    """Raise redis-py's `ConnectionError` unless ROLE was answered by a primary."""
    if not isinstance(answer, list) or answer[0] != b"master":
        raise RedisConnectionError(f"{node[0]}:{node[1]}, which Sentinel names as the primary, is none")


def translated(error: BaseException, address: str) -> StoreError:
    """redis-py's error as memover's: the one place where this is decided."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, (RedisTimeoutError, TimeoutError)):
        return StoreTimeout(f"{address} gave no answer in time ({error}).", store=address)
    if isinstance(error, ReadOnlyError):
        return StoreUnavailable(
            f"{address} is a read-only replica: point the URL at the primary, or use redis+sentinel://.", store=address
        )
    if isinstance(error, (RedisError, OSError)):
        return StoreUnavailable(f"{address}: {str(error) or type(error).__name__}", store=address)
    return StoreUnavailable(f"{address}: {error!r}", store=address)
