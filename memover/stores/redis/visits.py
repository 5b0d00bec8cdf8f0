"""Exchanges with nodes in the calling thread: all are sent before the first answer is read.

What goes wrong on a visit is the answer to each of its commands, as a `StoreError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.errors import StoreError
from memover.stores.redis.failures import TRANSPORT_ERRORS
from memover.stores.redis.resp import pack_all

if TYPE_CHECKING:
    from memover.stores.redis.cluster import Exchanges
    from memover.stores.redis.connection import Connection
    from memover.stores.redis.servers import Servers
    from memover.stores.redis.url import Node

__all__ = ["Visit", "visit_all"]


def visit_all(servers: Servers, exchanges: Exchanges, urgent: bool, once: bool) -> list[list[Any]]:
    """The answers of each node, in the order of the exchanges; see `engine.steps.Send` for `urgent` and `once`."""
    # In one order for all threads, for each holds a connection while it takes the next, and small pools could lock.
    visits = [Visit(node, batch) for node, batch in exchanges]
    try:
        for visit in sorted(visits, key=lambda visit: visit.node or ("", 0)):
            _begin(servers, visit, urgent, once)
        return [_finish(servers, visit, urgent, once) for visit in visits]
    except BaseException:
        for visit in visits:  # cut short: nobody will read those answers
            if visit.connection is not None:
                servers.pool(visit.node).discard(visit.connection)
        raise


class Visit:
    """A batch of commands for one node, packed, with the time `end` at which it is given up.

    `connection` is what the commands were sent on, None before and from when another thread may use it: whoever cuts the
    exchange short closes it. `error` says why they were not sent."""

    __slots__ = ("connection", "count", "end", "error", "node", "packed")

    def __init__(self, node: Node | None, batch: list[tuple[bytes, ...]]) -> None:
        self.node = node
        self.packed = pack_all(batch)
        self.count = len(batch)
        self.connection: Connection | None = None
        self.error: StoreError | None = None
        self.end = 0.0


def _begin(servers: Servers, visit: Visit, urgent: bool, once: bool) -> None:
    pool, limits = servers.pool(visit.node), servers.limits
    seconds = limits.seconds_for(len(visit.packed), visit.count)
    if not pool.idle:
        seconds = max(seconds, limits.socket_connect_timeout)
    visit.end = monotonic() + seconds
    try:
        if pool.breaker.tripped and not urgent:
            pool.breaker.check()
        pool.begin(visit, urgent, once)
    except StoreError as error:
        visit.connection, visit.error = None, error
    except TRANSPORT_ERRORS as error:
        visit.connection, visit.error = None, servers.failed(visit.node, error)


def _finish(servers: Servers, visit: Visit, urgent: bool, once: bool) -> list[Any]:
    if visit.connection is None:
        return [visit.error] * visit.count
    pool = servers.pool(visit.node)
    try:
        answers = pool.finish(visit, urgent, once)
    except StoreError as error:
        visit.connection = None
        return [error] * visit.count
    except TRANSPORT_ERRORS as error:
        visit.connection = None
        return [servers.failed(visit.node, error)] * visit.count
    servers.answered(pool.breaker, visit.node, answers)
    return answers
