"""The operations that flows yield, and what a site answers them with.

An operation is data with one line of behaviour: which method of the site answers it. A site method may raise
`StoreError`, which the driver throws into the flow; what a user's function raises travels as data in `Outcome`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union

from memover.model import Source

if TYPE_CHECKING:
    from memover.codec.envelope import Header

__all__ = [
    "Acquire",
    "Board",
    "Bump",
    "Decode",
    "Drop",
    "DropOlder",
    "Flow",
    "Grant",
    "LastKnown",
    "Load",
    "Look",
    "Op",
    "Outcome",
    "Read",
    "Reading",
    "Release",
    "Ride",
    "Seal",
    "Sealed",
    "Site",
    "Store",
    "Upgrade",
    "Wait",
]

T = TypeVar("T")


class Reading:
    """One look at the store: the tokens in the order of the key's names, the entry, and the lease where asked for.

    `header` is None when there is no entry or it is damaged; `lease` is None or the bytes in the lease's slot.
    """

    __slots__ = ("header", "lease", "raw", "tokens")

    def __init__(
        self, tokens: Sequence[bytes | None], raw: bytes | None, header: Header | None, lease: bytes | None = None
    ) -> None:
        self.tokens = tokens
        self.raw = raw
        self.header = header
        self.lease = lease


class Grant:
    """The answer to a request for the lease, with what was seen under it.

    `holder` is the token of the load that has the lease ("" when it is ours). The reading's tokens are all
    present: what was missing or behind has been put back first.
    """

    __slots__ = ("holder", "ours", "reading")

    def __init__(self, ours: bool, holder: str, reading: Reading) -> None:
        self.ours = ours
        self.holder = holder
        self.reading = reading


class Outcome:
    """What a call comes to: a value or an error, never both, and where it came from.

    `load_time` is the function's own seconds. `sealed` is the stored form, from which a caller that shares
    this outcome takes a copy of its own.
    """

    __slots__ = ("error", "load_time", "sealed", "source", "value")

    def __init__(
        self,
        value: Any = None,
        error: BaseException | None = None,
        source: Source = Source.LOADED,
        load_time: float = 0.0,
        sealed: Sealed | None = None,
    ) -> None:
        self.value = value
        self.error = error
        self.source = source
        self.load_time = load_time
        self.sealed = sealed


class Sealed:
    """A result ready to be stored: the entry's bytes, the hard limit in milliseconds (0: none), and its header."""

    __slots__ = ("error", "expire_ms", "header", "raw", "value")

    def __init__(
        self,
        raw: bytes = b"",
        expire_ms: int = 0,
        header: Header | None = None,
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self.raw = raw
        self.expire_ms = expire_ms
        self.header = header
        self.value = value
        self.error = error


class Site(Protocol):
    """Where operations are answered, for one call. The async site's methods that wait answer awaitables."""

    def read(self) -> Any: ...
    def look(self) -> Any: ...
    def acquire(self, token: str, force: bool) -> Any: ...
    def wait(self, holder: str, seconds: float, poll: float) -> Any: ...
    def load(self, token: str | None) -> Any: ...
    def seal(self, outcome: Outcome, tokens: Sequence[bytes | None]) -> Any: ...
    def decode(self, reading: Reading, source: Source) -> Any: ...
    def store(self, token: str, sealed: Sealed) -> Any: ...
    def release(self, token: str, failed: bool) -> Any: ...
    def bump(self, nonce: str) -> Any: ...
    def drop(self) -> Any: ...
    def drop_older(self) -> Any: ...
    def upgrade(self, token: str, tokens: Sequence[bytes | None], max_age: float | None) -> Any: ...
    def board(self) -> Any: ...
    def ride(self, ticket: int, seconds: float) -> Any: ...
    def last_known(self) -> Any: ...


@dataclass(slots=True)
class Read:
    """Answer: `Reading`, in one round trip."""

    def on(self, site: Site) -> Any:
        return site.read()


@dataclass(slots=True)
class Look:
    """Answer: `Reading` with the lease, in one round trip."""

    def on(self, site: Site) -> Any:
        return site.look()


@dataclass(slots=True)
class Acquire:
    """Take the lease unless another holds it under the current tokens; `force` takes it from anybody. Answer: `Grant`."""

    token: str
    force: bool = False

    def on(self, site: Site) -> Any:
        return site.acquire(self.token, self.force)


@dataclass(slots=True)
class Wait:
    """Wait for another's load: told when it is in this process, else for one poll. Answer: `Outcome` or None."""

    holder: str
    seconds: float
    poll: float

    def on(self, site: Site) -> Any:
        return site.wait(self.holder, self.seconds, self.poll)


@dataclass(slots=True)
class Load:
    """Run the function, keeping the lease `token` alive meanwhile (None: there is no lease). Answer: `Outcome`."""

    token: str | None

    def on(self, site: Site) -> Any:
        return site.load(self.token)


@dataclass(slots=True)
class Seal:
    """Turn a result into an entry stamped with `tokens`. Answer: `Sealed`, None when it is not to be stored."""

    outcome: Outcome
    tokens: Sequence[bytes | None]

    def on(self, site: Site) -> Any:
        return site.seal(self.outcome, self.tokens)


@dataclass(slots=True)
class Decode:
    """Answer: the `Outcome` of a stored entry, None when its payload is damaged."""

    reading: Reading
    source: Source

    def on(self, site: Site) -> Any:
        return site.decode(self.reading, self.source)


@dataclass(slots=True)
class Store:
    """Store the entry and give the lease back, if `token` still holds it. Answer: whether it was stored."""

    token: str
    sealed: Sealed

    def on(self, site: Site) -> Any:
        return site.store(self.token, self.sealed)


@dataclass(slots=True)
class Release:
    """Give the lease back, if `token` still holds it; `failed` leaves a mark for those who waited on it."""

    token: str
    failed: bool = False

    def on(self, site: Site) -> Any:
        return site.release(self.token, self.failed)


@dataclass(slots=True)
class Bump:
    """Move the namespace to a new generation, once however often this nonce is sent. Answer: its token."""

    nonce: str

    def on(self, site: Site) -> Any:
        return site.bump(self.nonce)


@dataclass(slots=True)
class Drop:
    """Remove the entry and its lease in one step."""

    def on(self, site: Site) -> Any:
        return site.drop()


@dataclass(slots=True)
class DropOlder:
    """Remove this call's entries of the versions it is upgraded from, with their leases."""

    def on(self, site: Site) -> Any:
        return site.drop_older()


@dataclass(slots=True)
class Upgrade:
    """Make an entry out of an older version's, if one is valid under `tokens`, keeping the lease alive meanwhile.

    Answer: an `Outcome` with its `sealed` form, None when there is nothing to upgrade."""

    token: str
    tokens: Sequence[bytes | None]
    max_age: float | None

    def on(self, site: Site) -> Any:
        return site.upgrade(self.token, self.tokens, self.max_age)


@dataclass(slots=True)
class Board:
    """Answer: a ticket that says which storeless loads of this process begin after now."""

    def on(self, site: Site) -> Any:
        return site.board()


@dataclass(slots=True)
class Ride:
    """Share a storeless load of this process that began after the ticket.

    Answer: True to drive one, its `Outcome`, or None when `seconds` ran out."""

    ticket: int
    seconds: float

    def on(self, site: Site) -> Any:
        return site.ride(self.ticket, self.seconds)


@dataclass(slots=True)
class LastKnown:
    """Answer: the `Outcome` this process last had for the key, for `on_store_error="stale"`; or None."""

    def on(self, site: Site) -> Any:
        return site.last_known()


Op = Union[
    Read, Look, Acquire, Wait, Load, Seal, Decode, Store, Release, Bump, Drop, DropOlder, Upgrade, Board, Ride, LastKnown
]
Flow = Generator[Op, Any, T]
