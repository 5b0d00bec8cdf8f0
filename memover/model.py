"""The words of memover as data: no behaviour beyond what a value needs to be read.

Instants are float seconds since the epoch on this process's clock; durations are float seconds; sizes are
bytes. Nothing here imports more than `clocks` and `later`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from memover.clocks import wall
from memover.later import later

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Mapping
else:
    hashlib = later(__name__, "hashlib")

T = TypeVar("T")

__all__ = ["MISSING", "CacheInfo", "Call", "Entry", "Event", "Generation", "Key", "Missing", "NotCached", "Source"]


class Missing(Enum):
    """The absence of a value where None is one."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = Missing.MISSING


if TYPE_CHECKING:

    def NotCached(value: T) -> T:  # noqa: N802  # to a type checker it is what it carries
        """What a cached function returns, as `memover.NotCached(value)`, to have this one result returned and not stored."""
        raise AssertionError

else:

    class NotCached:
        """What a cached function returns, as `memover.NotCached(value)`, to have this one result returned and not stored."""

        __slots__ = ("value",)

        def __init__(self, value):
            self.value = value


class Source(str, Enum):
    """Where the answer to a lookup came from."""

    NEAR = "near"
    FRESH = "fresh"
    STALE = "stale"
    STALE_IF_ERROR = "stale-if-error"
    WAITED = "waited"
    LOADED = "loaded"
    UPGRADED = "upgraded"
    BYPASSED = "bypassed"

    def __str__(self) -> str:
        return self.value


class Key:
    """The names one call has in the store, made once and remembered with the call's arguments.

    `text` is the entry's key; `names` are the keys whose tokens are read with it, the generation first. The first
    `required` of them (generation, soft mark, tags known from the arguments) are stamped into every entry; the rest
    were learned from the entry last seen (what its load depended on). `packed` is the store's own: the read command
    for this key, ready to send.
    """

    __slots__ = ("_lease", "entry", "names", "packed", "required", "text")

    def __init__(self, text: str, names: tuple[bytes, ...], required: int | None = None) -> None:
        self.text = text
        self.entry = text.encode()
        self._lease: bytes | None = None
        self.names = names
        self.required = len(names) if required is None else required
        self.packed: Any = None

    @property
    def lease(self) -> bytes:
        """The key of its lease, made when it is asked for: hits do not ask."""
        return b"{%b}:lease" % self.entry if self._lease is None else self._lease

    @lease.setter
    def lease(self, name: bytes) -> None:
        self._lease = name

    def asking(self, names: tuple[bytes, ...]) -> Key:
        """The same key, read together with these tokens besides the required ones."""
        first = self.names[: self.required]
        return Key(self.text, (*first, *(name for name in names if name not in first)), self.required)

    def __repr__(self) -> str:
        return f"<Key {self.text}>"


class Call:
    """One call of a decorated function, as handed to `ttl=`, `cache_if=` and the like.

    `arguments` maps parameter names to bound values with defaults applied, without what `ignore=` left out;
    `args` and `kwargs` are the call as it was written (with `self` first for methods). `key` is the entry's key,
    `namespace` and `version` are the function's.
    """

    __slots__ = ("_bind", "args", "key", "kwargs", "namespace", "version")

    def __init__(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, key: str, namespace: str, version: int, bind: Any
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.key = key
        self.namespace = namespace
        self.version = version
        self._bind = bind

    @property
    def arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = self._bind(self.args, self.kwargs)
        return arguments

    def __repr__(self) -> str:
        return f"<Call {self.key}>"


class Generation(NamedTuple):
    """The stored mark of a namespace: an entry is valid only under the generation it was loaded in.

    `number` only grows (microseconds of the store's clock, or one more than the last); `nonce` tells two
    bumps with one number apart. `replicas` is how many replicas had acknowledged this bump when it returned, None
    where nobody asked (`wait_replicas=`).
    """

    number: int
    nonce: str
    replicas: int | None = None

    def __str__(self) -> str:
        return f"{self.number}-{self.nonce}"


class Entry(NamedTuple):
    """A stored result with what its header says of it: `value`, `key`, `namespace`, `version`, `generation`, `tags`, and what follows.

    `value` is the exception itself where an error was cached. `created_at`, `fresh_until` and `usable_until` (the end of the longer
    stale window) are seconds since the epoch, infinity for never. `size` is the whole entry as stored, in bytes. `dependencies` are the names of the tokens of what its
    load used: generations and call tokens of other namespaces, tags not among its own, and their versions. `etag` is
    an entity tag (RFC 9110, section 8.8.3), quotes included: equal for equal stored bytes, another when they change.
    """

    value: Any
    key: str
    namespace: str
    version: int
    generation: Generation
    created_at: float
    fresh_until: float
    usable_until: float
    tags: tuple[str, ...]
    size: int
    dependencies: tuple[str, ...] = ()
    etag: str = ""

    @property
    def age(self) -> float:
        """Seconds since the load that made it, on this process's clock; the value of an `Age` header when rounded down."""
        return max(wall() - self.created_at, 0.0)

    @property
    def max_age(self) -> float:
        """Seconds for which it is still fresh, on this process's clock: 0 for a stale entry, infinity for one that
        never ends (an HTTP header needs an end: `min(entry.max_age, 86400)`)."""
        return max(self.fresh_until - wall(), 0.0)


def etag_of(key: bytes, payload_check: int, payload_bytes: int, form: str) -> str:
    """The entity tag of an entry: of its key, its payload's check and length, and how the payload is written."""
    text = b"%b %d %d %b" % (key, payload_check, payload_bytes, form.encode())
    return f'"{hashlib.blake2b(text, digest_size=12).hexdigest()}"'


class Event(NamedTuple):
    """One lookup, or one thing an observer should know of; handed to every observer.

    `name` is "lookup", "load", "store", "invalidate", "store-error", "damaged", ... `source` is set on lookups.
    `elapsed` is the whole call and `load_time` the function alone (seconds); `size` is the stored bytes
    read or written; `error` is what went wrong, if anything did.
    """

    name: str
    namespace: str
    key: str
    source: Source | None = None
    elapsed: float = 0.0
    load_time: float = 0.0
    size: int = 0
    error: BaseException | None = None
    detail: str = ""


class CacheInfo(NamedTuple):
    """The counters of one decorated function in this process since it was decorated."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int | None
    loads: int
    waits: int
    stale: int
    bypasses: int
    load_errors: int
    stores: int
    refused_stores: int
    store_errors: int
    damaged: int
    unencodable: int
    invalidations: int
    coarse: int = 0
    other_shape: int = 0
    upgrades: int = 0
    upgrade_errors: int = 0
    too_large: int = 0
    near_hits: int = 0
    audits: int = 0
    disagreements: int = 0
