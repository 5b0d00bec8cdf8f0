"""The operations that flows yield, and what a site answers them with.

An operation is data with one line of behaviour: which method of the site answers it. A site method may raise
`StoreError`, which the driver throws into the flow; what a user's function raises travels as data in `Outcome`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from memover.model import Source

if TYPE_CHECKING:
    from memover.codec.envelope import Header

__all__ = [
    "Acquire",
    "Behind",
    "Board",
    "Bump",
    "Decode",
    "Drop",
    "DropOlder",
    "Ensure",
    "Flow",
    "Grant",
    "LastKnown",
    "LateTags",
    "Learn",
    "Load",
    "Marks",
    "Look",
    "Op",
    "Outcome",
    "Read",
    "ReadOlder",
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

Marks = tuple[tuple[bytes, bytes], ...]
"""Names with the tokens they had when something was read or loaded."""


class Reading:
    """One look at the store: names and their tokens, the entry, and the lease where asked for.

    `header` is None when there is no entry or it is damaged; `lease` is None or the bytes in the lease's slot.
    """

    __slots__ = ("header", "lease", "names", "raw", "tokens")

    def __init__(
        self,
        names: Sequence[bytes],
        tokens: Sequence[bytes | None],
        raw: bytes | None,
        header: Header | None,
        lease: bytes | None = None,
    ) -> None:
        self.names = names
        self.tokens = tokens
        self.raw = raw
        self.header = header
        self.lease = lease

    def token(self, name: bytes) -> bytes | None:
        """The token read under a name, None when there was none or it was not asked for."""
        for known, token in zip(self.names, self.tokens):
            if known == name:
                return token
        return None


class Grant:
    """The answer to a request for the lease, with what was seen under it.

    `holder` is the token of the load that has the lease ("" when it is ours). The required tokens are all
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
    this outcome takes a copy of its own. `marks` are the tokens it stands under, those of everything its load used
    included; None when they are not known, so that whatever is made of it must not be stored. `keep` is False when
    the function asked not to be cached this once; `declared` are the tags its load named by hand.
    """

    __slots__ = ("declared", "error", "keep", "load_time", "marks", "sealed", "source", "value")

    def __init__(
        self,
        value: Any = None,
        error: BaseException | None = None,
        source: Source = Source.LOADED,
        load_time: float = 0.0,
        sealed: Sealed | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.value = value
        self.error = error
        self.marks = marks
        self.keep = True
        self.declared: tuple[str, ...] = ()
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
    def seal(self, outcome: Outcome, marks: Marks) -> Any: ...
    def decode(self, reading: Reading, source: Source) -> Any: ...
    def store(self, token: str, sealed: Sealed) -> Any: ...
    def release(self, token: str, failed: bool) -> Any: ...
    def bump(self, names: Sequence[bytes], nonce: str) -> Any: ...
    def drop(self, nonce: str) -> Any: ...
    def drop_older(self, nonce: str) -> Any: ...
    def read_older(self, version: int) -> Any: ...
    def upgrade(self, token: str, version: int, reading: Reading) -> Any: ...
    def learn(self, names: Sequence[bytes]) -> Any: ...
    def ensure(self, names: Sequence[bytes]) -> Any: ...
    def late_tags(self, outcome: Outcome) -> Any: ...
    def behind(self, seconds: float, since: float) -> Any: ...
    def board(self) -> Any: ...
    def ride(self, ticket: int, seconds: float) -> Any: ...
    def last_known(self) -> Any: ...


class Read:
    """Answer: `Reading`, in one round trip."""

    __slots__ = ()

    def on(self, site: Site) -> Any:
        return site.read()


class Look:
    """Answer: `Reading` with the lease, in one round trip."""

    __slots__ = ()

    def on(self, site: Site) -> Any:
        return site.look()


class Acquire:
    """Take the lease unless another holds it under the current tokens; `force` takes it from anybody. Answer: `Grant`."""

    __slots__ = ("force", "token")

    def __init__(self, token: str, force: bool = False) -> None:
        self.token = token
        self.force = force

    def on(self, site: Site) -> Any:
        return site.acquire(self.token, self.force)


class Wait:
    """Wait for another's load: told when it is in this process, else for one poll. Answer: `Outcome` or None."""

    __slots__ = ("holder", "poll", "seconds")

    def __init__(self, holder: str, seconds: float, poll: float) -> None:
        self.holder = holder
        self.seconds = seconds
        self.poll = poll

    def on(self, site: Site) -> Any:
        return site.wait(self.holder, self.seconds, self.poll)


class Load:
    """Run the function, keeping the lease `token` alive meanwhile (None: there is no lease). Answer: `Outcome`."""

    __slots__ = ("token",)

    def __init__(self, token: str | None) -> None:
        self.token = token

    def on(self, site: Site) -> Any:
        return site.load(self.token)


class Seal:
    """Turn a result into an entry stamped with `marks`, the generation first.

    Answer: `Sealed`, None when it is not to be stored."""

    __slots__ = ("marks", "outcome")

    def __init__(self, outcome: Outcome, marks: Marks) -> None:
        self.outcome = outcome
        self.marks = marks

    def on(self, site: Site) -> Any:
        return site.seal(self.outcome, self.marks)


class Decode:
    """Answer: the `Outcome` of a stored entry, None when its payload is damaged."""

    __slots__ = ("reading", "source")

    def __init__(self, reading: Reading, source: Source) -> None:
        self.reading = reading
        self.source = source

    def on(self, site: Site) -> Any:
        return site.decode(self.reading, self.source)


class Store:
    """Store the entry and give the lease back, if `token` still holds it. Answer: whether it was stored."""

    __slots__ = ("sealed", "token")

    def __init__(self, token: str, sealed: Sealed) -> None:
        self.token = token
        self.sealed = sealed

    def on(self, site: Site) -> Any:
        return site.store(self.token, self.sealed)


class Release:
    """Give the lease back, if `token` still holds it; `failed` leaves a mark for those who waited on it."""

    __slots__ = ("failed", "token")

    def __init__(self, token: str, failed: bool = False) -> None:
        self.token = token
        self.failed = failed

    def on(self, site: Site) -> Any:
        return site.release(self.token, self.failed)


class Bump:
    """Move these names to new tokens, once however often this nonce is sent. Answer: the tokens."""

    __slots__ = ("names", "nonce")

    def __init__(self, names: Sequence[bytes], nonce: str) -> None:
        self.names = names
        self.nonce = nonce

    def on(self, site: Site) -> Any:
        return site.bump(self.names, self.nonce)


class Drop:
    """Remove the entry and its lease, and move the call's token so that what used its result goes too."""

    __slots__ = ("nonce",)

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce

    def on(self, site: Site) -> Any:
        return site.drop(self.nonce)


class DropOlder:
    """Remove this call's entries of the versions it is upgraded from, with their leases."""

    __slots__ = ("nonce",)

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce

    def on(self, site: Site) -> Any:
        return site.drop_older(self.nonce)


class ReadOlder:
    """Answer: the `Reading` of this call's entry under an older version, in one round trip."""

    __slots__ = ("version",)

    def __init__(self, version: int) -> None:
        self.version = version

    def on(self, site: Site) -> Any:
        return site.read_older(self.version)


class Upgrade:
    """Make this version's entry out of an older one, keeping the lease `token` alive meanwhile.

    Answer: its `Outcome`, sealed; None when it cannot be done."""

    __slots__ = ("reading", "token", "version")

    def __init__(self, token: str, version: int, reading: Reading) -> None:
        self.token = token
        self.version = version
        self.reading = reading

    def on(self, site: Site) -> Any:
        return site.upgrade(self.token, self.version, self.reading)


class Learn:
    """From now on, read these tokens together with this key: its entries depend on them."""

    __slots__ = ("names",)

    def __init__(self, names: Sequence[bytes]) -> None:
        self.names = names

    def on(self, site: Site) -> Any:
        return site.learn(self.names)


class Ensure:
    """Answer: the tokens of these names, read in this order, put back where they are missing or behind."""

    __slots__ = ("names",)

    def __init__(self, names: Sequence[bytes]) -> None:
        self.names = names

    def on(self, site: Site) -> Any:
        return site.ensure(self.names)


class LateTags:
    """Answer: the names of the tags that were not known before the load, or the `Outcome` of asking for them."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def on(self, site: Site) -> Any:
        return site.late_tags(self.outcome)


class Behind:
    """Refresh the entry made at `since` behind the caller, who waits `seconds` for it at most.

    Answer: its `Outcome`, True when it goes on without the caller, False when there is no room for it."""

    __slots__ = ("seconds", "since")

    def __init__(self, seconds: float, since: float) -> None:
        self.seconds = seconds
        self.since = since

    def on(self, site: Site) -> Any:
        return site.behind(self.seconds, self.since)


class Board:
    """Answer: a ticket that says which storeless loads of this process begin after now."""

    __slots__ = ()

    def on(self, site: Site) -> Any:
        return site.board()


class Ride:
    """Share a storeless load of this process that began after the ticket.

    Answer: True to drive one, its `Outcome`, or None when `seconds` ran out."""

    __slots__ = ("seconds", "ticket")

    def __init__(self, ticket: int, seconds: float) -> None:
        self.ticket = ticket
        self.seconds = seconds

    def on(self, site: Site) -> Any:
        return site.ride(self.ticket, self.seconds)


class LastKnown:
    """Answer: the `Outcome` this process last had for the key, for `on_store_error="stale"`; or None."""

    __slots__ = ()

    def on(self, site: Site) -> Any:
        return site.last_known()


Op = (
    Read
    | Look
    | Acquire
    | Wait
    | Load
    | Seal
    | Decode
    | Store
    | Release
    | Bump
    | Drop
    | Board
    | Ride
    | LastKnown
    | Learn
    | Ensure
    | LateTags
    | Behind
    | DropOlder
    | ReadOlder
    | Upgrade
)
Flow = Generator[Op, Any, T]
