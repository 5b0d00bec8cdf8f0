"""What a URL says.

A password is never in a message or an address: what a URL contains is named by its place, not quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.connection as sync_connection

from memover.errors import ConfigurationError

__all__ = ["Node", "Target", "parse_url"]

Node = tuple[str, int]
"""Host and port of a server."""

_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_PERCENT = (
    "write what is special in a user name or password percent-encoded (urllib.parse.quote(password, safe='')), "
    "for example %2F for / and %23 for #"
)


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


def parse_url(url: str) -> Target:
    """What a URL says. Raises `ConfigurationError` that says which part is wrong, without quoting it."""
    try:
        parts = urlsplit(url)
        scheme, netloc, path, query = parts.scheme.lower(), parts.netloc, parts.path, parts.query
    except ValueError:
        raise ConfigurationError(f"The store's URL cannot be read: {_PERCENT}.") from None
    family, _, topology = scheme.partition("+")
    family = _SCHEMES.get(family, family)
    if family not in ("redis", "rediss", "unix") or (topology and family == "unix"):
        raise ConfigurationError(
            "The store's URL has an unknown scheme: write redis://, rediss://, unix://, valkey://, valkeys://, "
            "redis+sentinel:// or redis+cluster://."
        )
    # A / ? or # in a password ends what is taken for the address, and the @ comes after it.
    behind = query + parts.fragment if family == "unix" else path + query + parts.fragment
    if parts.fragment or "#" in url or ("@" in behind and "@" not in netloc) or ("@" in path and family != "unix"):
        raise ConfigurationError(f"The store's URL cannot be read: {_PERCENT}.")
    if family == "unix" and netloc and not netloc.endswith("@"):
        raise ConfigurationError(
            f"A unix:// URL has the socket's path behind the third slash, unix:///run/redis.sock; {_PERCENT}."
        )
    if topology:
        if topology not in ("sentinel", "cluster"):
            raise ConfigurationError(
                "The store's URL has an unknown scheme: write redis+sentinel:// or redis+cluster://."
            )
        return _several(family, topology, netloc, path, query)
    # Not by urlunsplit, which writes unix:/path where there is no host.
    options = _plain_options(family, netloc, path, query)
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


def _plain_options(family: str, netloc: str, path: str, query: str) -> dict[str, Any]:
    if family != "unix" and path.strip("/") and not unquote(path).strip("/").isdecimal():
        raise ConfigurationError(
            f"The store's URL has a path that is not the number of a database, as in redis://host:6379/0; {_PERCENT}."
        )
    try:
        options = dict(sync_connection.parse_url(f"{family}://{netloc}{path}" + (f"?{query}" if query else "")))
    except ValueError:
        raise ConfigurationError(
            f"The store's URL cannot be read: its port and the numbers among its options must be numbers; {_PERCENT}."
        ) from None
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
    nodes = tuple(_node(host, at, default_port) for at, host in enumerate(hosts.split(","), 1) if host)
    if not nodes:
        raise ConfigurationError(f"A {family}+{topology}:// URL needs at least one host:port.")
    asked = dict(parse_qsl(query))
    sentinel_options = {
        name: asked.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in asked
    }
    rest = "&".join(part for part in query.split("&") if part and not part.startswith("sentinel_"))
    service = database = ""
    if topology == "sentinel":
        service, _, database = unquote(path.strip("/")).partition("/")
        service = service or asked.get("service", "")
        if not service:
            raise ConfigurationError("A redis+sentinel:// URL needs the service: redis+sentinel://host:26379/mymaster.")
    elif path.strip("/0"):
        raise ConfigurationError("Redis Cluster has one database only: leave the path out of the URL.")
    options = _plain_options(
        family, f"{credentials + '@' if credentials else ''}localhost", f"/{database}" if database else "", rest
    )
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


def _node(text: str, at: int, default_port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        raise ConfigurationError(
            f"Number {at} of the servers in the store's URL is not host:port; {_PERCENT}."
        ) from None
