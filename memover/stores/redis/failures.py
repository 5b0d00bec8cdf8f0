"""What goes wrong with a server or on the way to it: which errors those are, and the `StoreError` that each becomes.

redis-py's errors and the socket's are known by these names; anything else that is raised comes from outside memover's
connections, an interrupt say, and goes on as it is (P17).
"""

from __future__ import annotations

from redis.exceptions import BusyLoadingError, InvalidResponse, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from memover.errors import StoreError, StoreTimeout, StoreUnavailable

__all__ = [
    "TRANSPORT_ERRORS", "Lost", "ValueFault", "exhausted", "last_word", "lost", "timely", "translated",
    "transport_error",
]  # fmt: skip

TRANSPORT_ERRORS = (RedisError, OSError)
"""What is the transport's fault, or the server's."""


class ValueFault(RedisError):
    """What was sent could not be taken although the server may be well: too large, or too slow to send (P16)."""


class Lost(RedisConnectionError):
    """A connection of an event loop was lost. `sent`: the commands may have been carried out; `used`: it had answered before."""

    sent = True
    used = True


def lost(error: BaseException) -> bool:
    """Whether the connection itself is gone, as opposed to a server that answered with an error."""
    return isinstance(error, (RedisConnectionError, OSError)) and not isinstance(
        error, (BusyLoadingError, TimeoutError)
    )


def translated(error: BaseException, address: str) -> StoreError:
    """The `StoreError` for an error of redis-py or of a socket: the one place where this is decided."""
    if isinstance(error, StoreError):
        return error
    failure: StoreError
    if isinstance(error, (RedisTimeoutError, TimeoutError)):
        failure = StoreTimeout(f"{address} gave no answer in time ({error}).", store=address)
    elif isinstance(error, ReadOnlyError):
        failure = StoreUnavailable(
            f"{address} is a read-only replica: point the URL at the primary, or use redis+sentinel://.", store=address
        )
    else:
        failure = StoreUnavailable(f"{address}: {str(error) or type(error).__name__}", store=address)
        if isinstance(error, ValueFault) or (
            isinstance(error, ResponseError) and not isinstance(error, InvalidResponse)
        ):
            failure.refused = True
    return failure


def timely(error: Exception) -> Exception:
    """The error, in words: where a socket's time limit is over, the kernel says only that it would block."""
    return TimeoutError("the time limit is over") if isinstance(error, BlockingIOError) else error


def transport_error(error: BaseException) -> Exception | None:
    """The error if it is the transport's or the server's; None if it comes from outside and has to go on (P17)."""
    return timely(error) if isinstance(error, TRANSPORT_ERRORS) else None


def last_word(answer: Exception) -> bool:
    """Whether this error is the server's last word on its connection."""
    return "Protocol error" in str(answer)


def exhausted(address: str, connections: int, seconds: float) -> StoreUnavailable:
    """The error for a call that found all connections in use."""
    return StoreUnavailable(
        f"{address}: all {connections} connections stayed in use for {seconds:.2g} s: raise max_connections.",
        store=address,
    )
