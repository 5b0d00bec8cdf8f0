"""What a store does for the engine: bytes in, bytes out, each method one atomic step and one round trip.

A store knows keys, tokens and leases; it never sees a value, a version or a clock of freshness. Every method may
raise `StoreUnavailable` or `StoreTimeout` and nothing else. `AsyncStore` is the same with awaitables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from memover.model import Key

__all__ = ["AsyncStore", "Granted", "Replicated", "Request", "Seen", "SeenMany", "Store", "StoreFacts"]


class Seen(NamedTuple):
    """Names and their tokens, the entry's bytes, and the lease's where it was asked for."""

    names: tuple[bytes, ...]
    tokens: Sequence[bytes | None]
    raw: bytes | None
    lease: bytes | None = None


class Granted(NamedTuple):
    """Whether the lease is ours, whose it is otherwise, and what was seen under it."""

    ours: bool
    holder: str
    seen: Seen


SeenMany = tuple[tuple[bytes, ...], Sequence["bytes | None"], Sequence["bytes | None"]]
"""Names, their tokens, and the entries' bytes in the order of the keys."""

Request = tuple["Key", str, int, Sequence[bytes], Sequence[int]]
"""A lease to be asked for: key, token, milliseconds, names to put back, floors; see `Store.acquire`."""


class Replicated(bytes):
    """A token that `bump` answers where replicas were waited for; `replicas` is how many acknowledged it in time."""

    replicas: int


class StoreFacts(Protocol):
    """What is true of a store without asking it."""

    address: str
    """Where it is, without credentials; equal for two stores that share their entries."""
    shared: bool
    """Whether other processes see it."""
    spread: bool
    """Whether keys live on different nodes, so that no step can be atomic over two of them."""


class Store(StoreFacts, Protocol):
    """A store as synchronous callers see it."""

    def read(self, key: Key) -> Seen: ...

    def read_plain(self, keys: Sequence[Key]) -> SeenMany:
        """As `read_many`, for keys that all have one and the same name."""
        ...

    def read_many(self, keys: Sequence[Key]) -> list[Seen]:
        """As `read` for each; one round trip together (Cluster: one per node, side by side)."""
        ...

    def acquire_many(self, requests: Sequence[Request]) -> list[Granted]:
        """As `acquire` for each, none forced; one round trip together."""
        ...

    def store_many(self, entries: Sequence[tuple[Key, str, bytes, int]]) -> list[bool]:
        """As `store` for each; one round trip together."""
        ...

    def look(self, key: Key) -> Seen:
        """As `read`, with the lease."""
        ...

    def acquire(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Granted:
        """Put back the required tokens and the `ensured` ones where missing or below their floor (`floors` are in that
        order), then take the lease unless it is held under the very required tokens now current; `force` takes it
        all the same. Seen are the required names, the ensured, and those the key has learned."""
        ...

    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> list[bytes]:
        """The tokens of these names, put back where missing or below their floor; read in this order."""
        ...

    def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> bool:
        """Store the entry and give the lease back if `token` still holds it; 0 ms never expires."""
        ...

    def release(self, key: Key, token: str, failed: bool) -> None:
        """Give the lease back if `token` still holds it, leaving a mark of failure for a moment if asked."""
        ...

    def renew(self, key: Key, token: str, lease_ms: int) -> bool:
        """Prolong the lease if `token` still holds it."""
        ...

    def bump(self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]) -> list[bytes]:
        """Move tokens to new ones beyond their floors, none numbered below the first; the same nonce moves them once.
        Those in `along` move if they exist."""
        ...

    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> None:
        """Remove entry and lease together, and move the tokens in `along` if they exist."""
        ...

    def close(self) -> None: ...


class AsyncStore(StoreFacts, Protocol):
    """A store as coroutines see it; see `Store`."""

    def read(self, key: Key) -> Awaitable[Seen]: ...
    def look(self, key: Key) -> Awaitable[Seen]: ...
    def read_plain(self, keys: Sequence[Key]) -> Awaitable[SeenMany]: ...
    def read_many(self, keys: Sequence[Key]) -> Awaitable[list[Seen]]: ...
    def acquire_many(self, requests: Sequence[Request]) -> Awaitable[list[Granted]]: ...
    def store_many(self, entries: Sequence[tuple[Key, str, bytes, int]]) -> Awaitable[list[bool]]: ...
    def acquire(
        self, key: Key, token: str, lease_ms: int, ensured: Sequence[bytes], floors: Sequence[int], force: bool
    ) -> Awaitable[Granted]: ...
    def ensure(self, names: Sequence[bytes], floors: Sequence[int], nonce: str) -> Awaitable[list[bytes]]: ...
    def store(self, key: Key, token: str, raw: bytes, expire_ms: int) -> Awaitable[bool]: ...
    def release(self, key: Key, token: str, failed: bool) -> Awaitable[None]: ...
    def renew(self, key: Key, token: str, lease_ms: int) -> Awaitable[bool]: ...
    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes]
    ) -> Awaitable[list[bytes]]: ...
    def drop(self, entry: bytes, lease: bytes, nonce: str, along: Sequence[bytes]) -> Awaitable[None]: ...
    def close(self) -> Awaitable[None]: ...
