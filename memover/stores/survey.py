"""Looking through a running store from outside, without the application: for the command line, the page and reports.

A survey is blocking, is used by one thread at a time, and is not the path of a cached call. Three rules hold for every
implementation:

* Bounded steps. No method holds the store up for longer than one step takes, however much is stored: going through the
  keys is `keys`, a page at a time, and nothing here asks for all of them at once.
* Looking changes nothing: not what is stored, not when it expires and, where the store can do so, not what it would
  evict next; a survey that a URL was given for begins no file. Only `unlink`, `put` and `drop` write, and none of them
  makes room: how much a file may take is for the processes that store in it to say.
* A key that was there in one step may be gone in the next. That is an answer (`None`, `False`), never an error.

Keys are bytes as stored. Which keys are memover's is for the caller to say: by pattern, and by the first bytes of the value.
Every method raises `StoreError` when the store does not answer, `NotBegun` where there is no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from memover.errors import ConfigurationError, StoreUnavailable
from memover.stores import store_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "HEAD_LIMIT_BYTES", "LEAST_RECENTLY_USED", "Facts", "NotBegun", "Page", "Right", "Server", "Survey", "open_survey",
    "remove_prefix", "survey_of",
]  # fmt: skip

HEAD_LIMIT_BYTES = 1024
"""How much of a value `facts` reads unless asked for more: a header with the longest names is about this long."""

LEAST_RECENTLY_USED = "least recently used"
"""The policy of a file: whatever was not used for long makes room, whether it expires or not."""


@dataclass(frozen=True)
class Page:
    """One step through the keys: at most about `looked_at` keys were looked at, and `keys` fitted the pattern.

    A key may come in two pages where the store's scan says so (Redis SCAN does while its table grows)."""

    looked_at: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of one key without reading its whole value.

    `size` is what it takes in the store, in bytes, its name and bookkeeping included where the store can tell.
    `expires_ms` is the milliseconds until it expires, None for never. `head` is the first bytes of the value; b"" for
    a value that is no string of bytes (a foreign list under a key of ours, say).
    """

    key: bytes
    size: int
    expires_ms: int | None
    head: bytes


@dataclass(frozen=True)
class Right:
    """Whether the user that we are may do what memover needs; `detail` says what was refused."""

    name: str
    allowed: bool
    detail: str = ""


@dataclass(frozen=True)
class Server:
    """One server (a primary; the file, for SQLite) as it describes itself. None where it does not say.

    `memory_limit` 0 is no limit, in bytes; a file does not say how much it may take. `policy` is Redis's
    `maxmemory-policy`, or `LEAST_RECENTLY_USED`.
    `clock` is its wall clock, in seconds since the epoch. `replicas` counts those that are connected.
    """

    address: str
    product: str
    version: str
    role: str
    memory_used: int | None = None
    memory_limit: int | None = None
    policy: str | None = None
    evicted: int | None = None
    replicas: int | None = None
    clock: float | None = None
    notes: tuple[str, ...] = ()


class NotBegun(StoreUnavailable):
    """There is no file at the path that a URL names: nothing to look at."""


class Survey(Protocol):
    """A running store, looked at from outside. See the module for the rules that every method keeps."""

    address: str
    """Where it is, without credentials."""

    hashed: bool
    """Whether `keys` goes in the order of a hash, so that its first pages are as good a sample as any; False: all are counted
    where an estimate was asked for."""

    def total(self) -> int:
        """How many keys there are, foreign ones included: for progress bars and estimates. It may be out of date."""
        ...

    def keys(self, pattern: bytes, step: int = 1000) -> Iterator[Page]:
        """The keys that fit a pattern, page by page, server by server.

        `pattern` is Redis's glob: `*`, `?`, `[...]`, and `\\` before a character that stands for itself. `step` is
        about how many keys one page looks at, so pages may be empty. A key that is there from the first page to the
        last is in one of them; one that comes or goes meanwhile may be. The caller may stop at any page, and may call
        other methods between two pages.
        """
        ...

    def facts(self, keys: Sequence[bytes], head: int = HEAD_LIMIT_BYTES) -> list[Facts | None]:
        """Size, expiry and the first `head` bytes of each key, None for one that is gone. One round trip a server."""
        ...

    def value(self, key: bytes) -> bytes | None:
        """The whole value; None for a key that is gone or holds no string of bytes."""
        ...

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of token keys (generations, tags, leases, reports), read as in a cached call. One round trip a server."""
        ...

    def servers(self) -> list[Server]:
        """Each server as it describes itself."""
        ...

    def rights(self, prefix: str) -> list[Right]:
        """What memover does to keys of this prefix, and whether this user may. Changes nothing."""
        ...

    def latency(self, count: int) -> list[float]:
        """Seconds that each of `count` reads of one absent key took, one after another (of each server in turn)."""
        ...

    def unlink(self, keys: Sequence[bytes]) -> list[bool]:
        """Removes keys in bounded time; whether each was there. One round trip a server."""
        ...

    def put(self, key: bytes, value: bytes, expire_ms: int) -> None:
        """Stores a value under a key that is neither an entry nor a token (a report), for so many milliseconds. One command."""
        ...

    def drop(self, entry: bytes, lease: bytes, along: Sequence[bytes], nonce: str) -> None:
        """Removes an entry with its lease and moves the tokens in `along` that exist, as an invalidation of one call does.

        It is the store's own operation of that name (`Store.drop`), in the same order and as atomic. `nonce` is 16 hex
        digits, new for each invalidation.
        """
        ...

    def close(self) -> None:
        """Lets go of connections; the survey may be used again afterwards."""
        ...


_SURVEYS = {
    "redis": ("memover.stores.redis.scan", "RedisSurvey"),
    "sqlite": ("memover.stores.sqlite.survey", "SqliteSurvey"),
}
"""By the store's package, a class that is called with a store; its `at` takes a URL and the seconds an answer may take."""
ANSWER_SECONDS = 10.0


def open_survey(url: str) -> Survey:
    """The survey of the store that a URL names, as in `Cache(url)`. Nothing is connected to yet.

    Raises `ConfigurationError` for a URL that cannot be read, and for a store that other processes cannot look into.
    """
    kind = store_kind(url)
    if kind == "memory":
        raise ConfigurationError(
            "memory:// is a store inside one process, and nothing outside it can look there. Give the URL of a shared store: "
            "redis://host:6379/0, redis+cluster://, redis+sentinel:// or sqlite:///path."
        )
    survey: Survey = _class_of(kind).at(url, ANSWER_SECONDS)
    return survey


def survey_of(store: Any) -> Survey:
    """The survey of a shared store there is, on its connections and with its time limits. Raises `ConfigurationError` for one without."""
    for kind in _SURVEYS:
        if type(store).__module__.startswith(f"memover.stores.{kind}."):
            survey: Survey = _class_of(kind)(store)
            return survey
    raise ConfigurationError(f"{store.address} is a store that nothing outside this process can look into.")


def remove_prefix(survey: Survey, prefix: str) -> None:
    """Removes every key of a prefix, leases and generations too: for tests, which own theirs. Raises `StoreError`."""
    try:
        for pattern in (f"{prefix}:*", f"{{{prefix}:*"):
            for page in survey.keys(pattern.encode()):
                if page.keys:
                    survey.unlink(page.keys)
    except NotBegun:
        pass


def _class_of(kind: str) -> Any:
    module, name = _SURVEYS[kind]
    return getattr(import_module(module), name)
