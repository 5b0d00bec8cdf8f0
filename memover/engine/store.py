"""What a store does for the engine: bytes in, bytes out, each method one atomic step.

A store knows keys, tokens and leases; it sees no value, no schema version and no clock of freshness. Every method is a
generator of steps (`engine.steps`): memory's never yield, SQLite's yield `Run` where they may wait for a lock, Redis's
yield `Send`, or are one. A method raises `StoreUnavailable` or `StoreTimeout`; any other exception is not the store's and passes
through (P17). `fetch` and `afetch` are the read of a hit without a generator.

`Key.names` are the tokens to read with an entry, the first `Key.required` of them those it must carry.

**Lifetime of tokens.** Generations never expire. Tokens of tags and of single calls (`keys.names.transient`) are as many as
there are users, so they live as long as what needs them: `acquire`, `ensure` and `renew` keep them at least until
`TOKEN_MARGIN_MS` after the lease, `store` until `TOKEN_MARGIN_MS` after the entry it stores (for ever, where the entry has
no limit), never shortening (on Redis up to 5 s less, so that not every entry writes its tokens); `bump` gives the new token `TOKEN_MARGIN_MS`, because nothing carries it yet. A token that
expired is a lost token: its successor has a higher number, so whatever still carries it is a miss.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from memover.codec.envelope import payload_of
from memover.errors import DamagedEntry, raised_by_handler
from memover.model import MISSING

if TYPE_CHECKING:
    from memover.codec.envelope import Header
    from memover.engine.steps import Flow, Steps
    from memover.model import Key

__all__ = [
    "INTEGER", "INTEGER_LIMIT", "Again", "Change", "Direct", "Granted", "Kept", "KeyValueStore", "Parcel", "Replicated",
    "Renewal", "Request", "Rereads", "Seen", "SeenMany", "TOKEN_MARGIN_MS", "incremented", "names_of", "Stamp", "Store",
    "StoredEntry",
]  # fmt: skip


class Seen(NamedTuple):
    """Names and their tokens, the entry's bytes, and the lease's where it was asked for."""

    names: tuple[bytes, ...]
    tokens: Sequence[bytes | None]
    raw: bytes | None
    lease: bytes | None = None


class Again:
    """What makes the value of one more caller, of an entry that a store answers with the same object (`Kept`).

    By its reader: the form and the generation of the entry, until when it is fresh, what makes the value, and the places that it
    goes by. By the store, when it last found that a read would come to the same: `era`, `word`, `expires`, `row`
    (`Rereads`)."""

    __slots__ = ("era", "expires", "form", "fresh_until", "generation", "make", "places", "row", "word")

    value = MISSING
    """Nothing is handed out without `make`."""

    def __init__(
        self,
        form: tuple[bytes, bytes] | None,
        generation: bytes,
        fresh_until: float,
        make: Callable[[], Any] | None,
        places: tuple[Any, ...],
    ) -> None:
        self.form = form
        self.generation = generation
        self.fresh_until = fresh_until
        self.make = make
        self.places = places
        self.era: object = None
        self.word = self.expires = self.row = 0

    def end(self) -> None:
        """To be called when the store keeps the entry no more: its value goes, whoever refers to this."""
        self.make = None


class Kept(Seen):
    """What a read of a store came to that answers the next ones with the same object, as long as they would come to the same.

    `decoded` is what its readers keep beside it, None at first (see `runtime.again`); `grew(size)` counts the bytes of that."""

    decoded: Again | None = None
    grew: Callable[[int], None]


class Rereads(NamedTuple):
    """How calls ask a store whether the read that they would do would come to what they have read.

    `find(key)` returns what is kept of such a read, after the store has noted in its `decoded` how that can be asked again: by
    `stands`, the source of one expression over `{p}item`, with these names, which notes the use besides."""

    find: Callable[[Key], Kept | None]
    stands: str
    names: dict[str, Any]


class Granted(NamedTuple):
    """Whether the lease is ours, whose it is otherwise, and what was seen under it."""

    ours: bool
    holder: str
    seen: Seen


def names_of(keys: Sequence[Key]) -> tuple[bytes, ...]:
    """Every name of these keys once, those of the first key first."""
    first = keys[0].names
    for key in keys:
        if key.names != first:
            return tuple(dict.fromkeys(chain.from_iterable(key.names for key in keys)))
    return first


SeenMany = tuple[tuple[bytes, ...], Sequence["bytes | None"], Sequence["bytes | None"]]
"""Names, their tokens, and the entries' bytes in the order of the keys."""


class Request(NamedTuple):
    """A lease to be asked for; see `Store.acquire`."""

    key: Key
    token: str
    lease_ms: int
    ensured: Sequence[bytes]
    floors: Sequence[int]


class Renewal(NamedTuple):
    """A lease to be prolonged by `lease_ms` if `token` still holds it, and the transient tokens among `names` with it."""

    key: Key
    token: str
    lease_ms: int
    names: Sequence[bytes] = ()


class StoredEntry(NamedTuple):
    """An entry to be stored under the lease `token`: `expire_ms` is the hard limit in milliseconds (0: none).

    `header` is that of `raw` for a memory store, and may be None for any other; `value` is the object itself where a memory store may hand it out while its classes are where
    `places` says, else MISSING; `codec`, where there is one, makes the payload of `raw` of it again. `names` are the transient
    tokens that the entry carries."""

    key: Key
    token: str
    raw: bytes
    expire_ms: int
    header: Header | None
    value: Any = MISSING
    names: Sequence[bytes] = ()
    places: tuple[Any, ...] = ()
    codec: Any = None


class Replicated(bytes):
    """A token that `bump` answers where replicas were waited for; `replicas` is how many acknowledged it in time."""

    replicas: int


class Stamp(NamedTuple):
    """The generation a key-value write is made under: its key, as last seen (b"" if never), the least number it may have,
    and the nonce of a new one should it be missing."""

    name: bytes
    known: bytes
    floor: int
    nonce: str


class Parcel(NamedTuple):
    """A key-value entry to be written: `expire_ms` is the hard limit in milliseconds (0 none, -1: remove it instead).

    `value` is the object itself where a memory store may hand it out while its classes are where `places` says, else
    MISSING."""

    key: Key
    raw: bytes
    expire_ms: int
    value: Any
    places: tuple[Any, ...] = ()


class Change(NamedTuple):
    """What came of a key-value write: whether it was done, the current generation, and a detail (see the method)."""

    done: bool
    generation: bytes
    detail: Any = None


TOKEN_MARGIN_MS = 30_000
"""How long a transient token outlives what needs it, in milliseconds."""

INTEGER = "mv-int"
"""The codec of plain integers: decimal digits with an optional minus, which a script can count up."""
INTEGER_LIMIT = 1 << 53
"""Plain integers are smaller than this in magnitude: what a double, Lua's only number, counts exactly."""


def incremented(raw: bytes, header: Header, delta: int) -> int | None:
    """A stored plain integer with `delta` added. False: the entry holds none, or the sum is not one; None: it is damaged."""
    if header.codec != INTEGER:
        return False
    try:
        value = int(bytes(payload_of(raw, header))) + delta
    except (DamagedEntry, ValueError) as error:
        if raised_by_handler(error):
            raise
        return None
    return value if -INTEGER_LIMIT < value < INTEGER_LIMIT else False


class KeyValueStore(Protocol):
    """The key-value side of a store.

    Every write names the generation it is made under in a `Stamp` and answers the current one: an entry that carries
    another is stamped anew by the store, so nothing is stored under a generation that a `clear()` has ended. Whether an
    entry is alive (key, kind, checksum, generation, `now` before `fresh_until`) is decided as `engine.judge` does it.
    Methods marked "once" are never sent again on a lost connection; they may have been applied all the same."""

    def put(self, parcels: Sequence[Parcel], stamp: Stamp) -> Flow[bytes]:
        """Stores all and ends the leases on them; returns the generation they now carry."""
        ...

    def add(self, parcel: Parcel, stamp: Stamp, now: float) -> Flow[Change]:
        """Stores unless a live entry is there. Once."""
        ...

    def increment(self, key: Key, delta: int, stamp: Stamp, now: float) -> Flow[Change]:
        """Adds to a live plain integer, keeping its instants and limit; the detail is the new value.

        Not done: no live entry (detail None), or one that is no plain integer or would not stay one (False). Once."""
        ...

    def swap(self, key: Key, old: bytes, new: bytes) -> Flow[bool]:
        """Replaces the entry, if it still is `old`, keeping its limit. Once."""
        ...

    def touch(self, parcel: Parcel, fresh_until: float, stamp: Stamp, now: float) -> Flow[Change]:
        """Gives a live entry a new end; of the parcel, key and `expire_ms` count."""
        ...

    def move(self, key: Key, to: Key, stamp: Stamp, now: float) -> Flow[Change]:
        """Gives a live entry another key, with its instants and its remaining limit, and ends the leases on both. Once."""
        ...

    def remove(self, key: Key) -> Flow[tuple[bytes | None, bytes | None]]:
        """Removes entry and lease; returns the generation and at least the header of what was removed."""
        ...

    def remove_many(self, keys: Sequence[Key]) -> Flow[None]:
        """Removes entries and leases."""
        ...


class Direct(Protocol):
    """The two steps of a plain miss, performed in the calling thread without a generator. Methods raise `StoreError`."""

    most: int
    """The greatest number of tokens that an entry may be stored under."""

    def take(self, call: Any, token: str, seen: Seen) -> Granted | None:
        """As `Store.acquire` for a call that found no entry; None where it is to be asked for the whole way."""

    def put(self, call: Any, token: str, sealed: Any) -> bool | None:
        """As `CachedCall.storing`, and what that answers; None where it is to be stored the whole way."""

    def presumed(self, key: Key, token: bytes | None) -> Seen | None:
        """What a read under that generation would come to, where `take` asks it again and it is likely that there is no entry."""


class Store(KeyValueStore, Protocol):
    """A store. `close`, `aclose` and `after_fork` may be called at any time; a closed store opens again when it is used."""

    address: str
    """Where it is, without credentials."""
    local: bool
    """Whether it is this process's memory: it never waits, and keeps objects beside their bytes."""
    spread: bool
    """Whether keys live on different nodes, so that no step can be atomic over two of them."""
    generation_shards: int
    """In how many keys a generation stands that calls read, 1 unless keys live on different nodes; see `keys.shards`."""

    def fetch(self, key: Key) -> Seen:
        """As `read`, in the calling thread and without a generator: the read of every hit."""
        ...

    def afetch(self, key: Key) -> Awaitable[Seen]:
        """As `fetch`, on the running event loop."""
        ...

    def read(self, key: Key) -> Steps[Seen]:
        """The tokens of the key's names, and its entry. One round trip."""
        ...

    def look(self, key: Key) -> Flow[Seen]:
        """As `read`, with the lease."""
        ...

    def read_plain(self, keys: Sequence[Key]) -> Flow[SeenMany]:
        """As `read_many`, every name once (`names_of`), so that what is read of all is looked at once."""
        ...

    def read_many(self, keys: Sequence[Key]) -> Flow[list[Seen]]:
        """As `read` for each; one round trip together (Cluster: one per node, side by side)."""
        ...

    def acquire(self, request: Request, *, force: bool = False) -> Steps[Granted]:
        """Puts back the required tokens and the `ensured` ones where missing or below their floor (`floors` are in that
        order), then takes the lease unless it is held under the very required tokens now current; `force` takes it
        all the same. Seen are the required names, the ensured, and those the key has learned."""
        ...

    def acquire_many(self, requests: Sequence[Request]) -> Flow[list[Granted]]:
        """As `acquire` for each, none forced; one round trip together."""
        ...

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Flow[list[bytes]]:
        """The tokens of these names, put back where missing or below their floor; read in this order."""
        ...

    def store(self, entry: StoredEntry) -> Steps[bool]:
        """Stores the entry and gives the lease back if its token still holds it; whether it was stored."""
        ...

    def store_many(self, entries: Sequence[StoredEntry]) -> Flow[list[bool]]:
        """As `store` for each; one round trip together."""
        ...

    def release(self, key: Key, token: str, failed: bool) -> Flow[None]:
        """Gives the lease back if `token` still holds it, leaving a mark of failure for a moment if asked."""
        ...

    def release_many(self, held: Sequence[tuple[Key, str]]) -> Flow[None]:
        """As `release` for each key and token, without marks; one round trip together."""
        ...

    def renew(self, renewals: Sequence[Renewal]) -> Flow[list[bool]]:
        """Prolongs these leases, as far as they are still held; one round trip together."""
        ...

    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Flow[list[bytes]]:
        """Moves tokens to new ones beyond their floors, none numbered below the first; the same nonce moves them once.
        Those in `along` move if they exist."""
        ...

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Flow[None]:
        """Removes entry and lease together, and moves the tokens in `along` if they exist."""
        ...

    def direct(self) -> Direct | None:
        """The short way of plain misses; None where there is none."""
        ...

    def rereads(self) -> Rereads | None:
        """How to ask for reads that need not be done again; None in a store that has none."""
        ...

    def settle(self, seconds: float) -> None:
        """Reads the answers to what was posted (`Send.posted`), as far as they come within `seconds`."""
        ...

    def close(self) -> None:
        """Closes what this process's threads have open."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Closes what the running event loop has open."""
        ...

    def after_fork(self) -> None:
        """In a forked child: what is open belongs to the parent."""
        ...
