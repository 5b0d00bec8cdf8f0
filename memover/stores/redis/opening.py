"""Opens connections within a time limit: redis-py resolves, connects, secures and authenticates in a thread of its own.

redis-py limits each step by itself (an address, a read), so that a name with many silent addresses, a slow resolver or
an answer that comes byte by byte takes many times the limit. Whoever asks for a connection here waits for its thread
as long as there is time, and then gives it up; threads and event loops alike. What is handed out is a connected
socket: the exchange of commands is memover's own (`pool`, `mux`). This is the only module that knows redis-py's
connections from inside.
"""

from __future__ import annotations

# What resolving a host name imports: a child forked meanwhile would wait for that import for ever.
import encodings.idna  # noqa: F401  # pyright: ignore[reportUnusedImport]
import inspect
import socket
from _thread import start_new_thread
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import redis.connection as sync_connection
import redis.sentinel as sync_sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from memover.clocks import monotonic
from memover.errors import ConfigurationError, raised_by_handler
from memover.stores.redis.endings import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from memover.stores.redis.url import Node, Target

__all__ = ["Crowded", "Line", "Opening", "Opener", "check_options"]

_CROWDED = "max number of clients reached"

_RESOLVED_SECONDS = 30.0
"""For how long addresses count as new. Older ones are used as well, while they are looked up again behind the caller."""


class Line(NamedTuple):
    """A connected socket, after authentication. `identity` is what the server says of itself: its run and the database,
    None where it does not tell."""

    socket: Any
    identity: str | None


class Crowded(RedisConnectionError):
    """The server takes no more connections (maxclients)."""


# -- addresses -----------------------------------------------------------------------------------------------------------------

_Addresses = list[Any]
_resolved: dict[tuple[str, int], tuple[_Addresses, float]] = {}
_resolving: dict[tuple[str, int], float] = {}


def _addresses(host: str, port: int, family: int) -> _Addresses:
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    found = _resolved.get((host, port))
    if found is None:
        return _look_up(host, port, family)
    addresses, at = found
    now = monotonic()
    if now - at > _RESOLVED_SECONDS and now - _resolving.get((host, port), 0.0) > _RESOLVED_SECONDS:
        _resolving[host, port] = now
        with suppress(RuntimeError):  # no thread can be started: the old addresses stay in use
            start_new_thread(_look_up_again, (host, port, family))
    return addresses


def _look_up(host: str, port: int, family: int) -> _Addresses:
    addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    _resolved[host, port] = (addresses, monotonic())
    return addresses


def _look_up_again(host: str, port: int, family: int) -> None:
    try:
        _look_up(host, port, family)
    except OSError:
        pass  # tried again in half a minute
    finally:
        _resolving.pop((host, port), None)


# -- redis-py's connections, within a time limit --------------------------------------------------------------------------------


class _Limited:
    """What is added to redis-py's connections: the end of the time limit, the socket while it connects, and what the server said
    before it closed the connection."""

    memover_end = 0.0
    memover_socket: Any = None
    memover_last_words = b""

    def memover_left(self) -> float:
        left = self.memover_end - monotonic()
        if left <= 0:
            raise TimeoutError("the time to connect is over")
        return left

    def disconnect(self, *args: Any) -> None:
        # A server that takes no more connections says so and hangs up, before it has read anything. On a unix socket our first
        # words then fail to be sent, and redis-py tells of that alone.
        sock = getattr(self, "_sock", None)
        if sock is not None:
            with suppress(OSError, ValueError):
                sock.settimeout(0)
                self.memover_last_words = sock.recv(256)
        super().disconnect(*args)  # type: ignore[misc]


class _Tcp(_Limited, sync_connection.Connection):
    def _connect(self) -> Any:
        addresses = _addresses(self.host, self.port, getattr(self, "socket_type", 0))
        failure: OSError | None = None
        for at, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            self.memover_socket = sock
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.socket_keepalive:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    options: Any = self.socket_keepalive_options or {}
                    for name, value in options.items():
                        sock.setsockopt(socket.IPPROTO_TCP, name, value)
                sock.settimeout(self.memover_left() / (len(addresses) - at))
                sock.connect(address)
                sock.settimeout(self.memover_left())
                return sock
            except OSError as error:
                failure = error
                sock.close()
            except BaseException:
                sock.close()
                raise
        _resolved.pop((self.host, self.port), None)  # it may have moved
        raise failure or OSError(f"{self.host} has no address")


class _Tls(sync_connection.SSLConnection, _Tcp):
    pass


class _Unix(_Limited, sync_connection.UnixDomainSocketConnection):
    pass


_ARGUMENTS: dict[str, Any] = {"decode_responses": False, "health_check_interval": 0, "protocol": 2}
# Telling the server our library's name is one more round trip per connection, or two; each release of redis-py
# has another way to leave it.
_known = inspect.signature(sync_connection.AbstractConnection.__init__).parameters
if "driver_info" in _known:
    _ARGUMENTS["driver_info"] = None
elif "lib_name" in _known:
    _ARGUMENTS["lib_name"] = _ARGUMENTS["lib_version"] = None


def _connection(target: Target, node: Node | None, seconds: float) -> Any:
    options = dict(target.options)
    if node is not None:
        options["host"], options["port"] = node
    kind: Any = _Unix if target.unix else _Tls if target.tls else _Tcp
    arguments = {**options, **_ARGUMENTS, "socket_timeout": seconds, "socket_connect_timeout": seconds}
    return kind(**arguments, retry=Retry(NoBackoff(), 0))


def check_options(target: Target) -> None:
    """Raises `ConfigurationError` for options that redis-py does not know."""
    try:
        _connection(target, None, 1.0)
    except (TypeError, ValueError, RedisError):
        known = set(inspect.signature(sync_connection.AbstractConnection.__init__).parameters)
        known.update(inspect.signature(sync_connection.Connection.__init__).parameters)
        known.update(inspect.signature(sync_connection.SSLConnection.__init__).parameters)
        unknown = sorted(set(target.options) - known - {"path"})
        raise ConfigurationError(
            f"The store's URL has options that its connections do not take: {', '.join(unknown) or 'see the values'}. "
            f"Those of redis-py's {'SSLConnection' if target.tls else 'Connection'} are known."
        ) from None


class Opener:
    """Opens connections to one store's servers. Called in the threads of openings."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.primary: Node | None = None
        """Where the primary is, as the sentinels said; None: ask them."""

    def open(self, node: Node | None, seconds: float, opening: Opening | None = None) -> Line:
        """A connection to `node` (None: the one server, or the sentinels' primary) within about `seconds`.

        Raises redis-py's errors and OSError."""
        target = self.target
        end = monotonic() + seconds
        sentinel = target.kind == "sentinel"
        if sentinel:
            node = self.primary
            if node is None:
                node = self.primary = self.discover(seconds / len(target.nodes))
        connection = _connection(target, node, seconds)
        connection.memover_end = end
        if opening is not None:
            opening.connection = connection
        try:
            connection.connect()
            if sentinel:
                # Sentinels may not have heard yet, and a replica would answer reads (Redis docs, "Guidelines for
                # Sentinel clients", step 3).
                _check_role(_asked(connection, "ROLE"), node)
            identity = self._identity(connection)
            # From here on the socket is ours: redis-py's connection would close it when it is collected.
            sock, connection._sock = connection._sock, None
            return Line(sock, identity)
        except BaseException as error:
            if sentinel:
                self.primary = None
            connection.disconnect()
            if _CROWDED in str(error) or _CROWDED.encode() in connection.memover_last_words:
                raise Crowded(str(error)) from None
            raise

    def discover(self, seconds: float) -> Node:
        """Asks the sentinels, one after another, where the primary is."""
        arguments = {
            **self.target.sentinel_options,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        sentinel = sync_sentinel.Sentinel(list(self.target.nodes), sentinel_kwargs=arguments)
        try:
            host, port = sentinel.discover_master(self.target.service)
            return host, int(port)
        finally:
            for client in sentinel.sentinels:
                client.close()

    def _identity(self, connection: Any) -> str | None:
        # One question at least has to be answered here: a server with too many clients takes the connection and says so
        # when it is asked something.
        try:
            said = _asked(connection, "INFO", "server")
        except RedisConnectionError:
            raise
        except ResponseError:
            return None  # not allowed to this user
        found = said.partition(b"\nrun_id:")[2][:40] if isinstance(said, bytes) else b""
        return f"{found.decode('latin-1')}/{self.target.options.get('db', 0)}" if len(found) == 40 else None


def _asked(connection: Any, *command: str) -> Any:
    connection.send_command(*command)
    return connection.read_response(True)


def _check_role(answer: Any, node: Node | None) -> None:
    if not isinstance(answer, list) or not answer or answer[0] != b"master":
        where = "the server" if node is None else f"{node[0]}:{node[1]}"
        raise RedisConnectionError(f"{where}, which Sentinel names as the primary, is none")


class Opening:
    """One connection being opened in a thread. `ended` is called there when there is a connection to `take` or an `error`.

    Once it is `abandoned`, a connection that is made after all is closed at once."""

    def __init__(self, work: Callable[[Opening], Line], ended: Callable[[Opening], None]) -> None:
        self._line: Line | None = None
        self._ending: Ending | None = None
        self.connection: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.abandoned = False
        self._work = work
        self._ended = ended

    def start(self) -> None:
        """Starts the thread. Where the system gives none, the caller's does the work."""
        try:
            start_new_thread(self._run, ())
        except RuntimeError as error:
            if raised_by_handler(error):
                raise
            self._run()

    def _run(self) -> None:
        try:
            line = self._work(self)
            self._ending = Ending(self, line.socket)  # for a loop that is closed before it can be handed over
            self._line = line
        except BaseException as error:
            self.error = error
        finally:
            self.connection = None
            self.done = True
            if self.abandoned:
                self.close()
            self._ended(self)

    def abandon(self) -> None:
        """Gives up waiting: what waits for the server in the thread is woken up."""
        self.abandoned = True
        if self.done:
            self.close()
        connection = self.connection
        sock = getattr(connection, "_sock", None) or getattr(connection, "memover_socket", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def take(self) -> Line | None:
        """The connection, if there is one, which is the caller's from now on."""
        line, self._line = self._line, None
        if self._ending is not None:
            self._ending.detach()
        return line

    def close(self) -> None:
        """Closes the connection if there is one and nobody has taken it."""
        line = self.take()
        if line is not None:
            line.socket.close()
