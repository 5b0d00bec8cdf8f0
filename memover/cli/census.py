"""Counting what a prefix holds: which keys are entries, of which namespace and version.

A key is an entry when it has the form of one and its value begins as an envelope does; whether it is a call's or one of
the key-value API's is in its header, because the keys may look alike. Everything else under the prefix is foreign, and
left out.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.codec.envelope import KIND_AT, KIND_KEY_VALUE, MAGIC, read_header
from memover.engine.tokens import parse
from memover.errors import DamagedEntry
from memover.keys.keyvalue import NAMESPACE as KEY_VALUES
from memover.keys.names import generation_key
from memover.stores.survey import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memover.cli.running import StoreContext
    from memover.stores.survey import Facts, Survey

__all__ = [
    "KEY_VALUES",
    "FoundEntry",
    "Row",
    "Version",
    "complete",
    "count",
    "entries",
    "estimate",
    "lock_states",
    "marks_of",
    "namespaces",
    "number_of",
    "order",
    "prefixes",
    "tally",
]

_NAMESPACE = re.compile(rb"[A-Za-z0-9_.\-/]{1,200}\Z")
_PREFIX_KEYS_LIMIT = 20_000
"""In how many keys prefixes are looked for."""
_SEEN_LIMIT = 2_000_000
"""A scan may show a key twice while the table shrinks. So many are remembered, by hash; further ones count as shown."""

Version = int | str
"""A version as in the key: a number, or text `3~0f1e2d3c` for a function with `follow_code`."""


class FoundEntry(NamedTuple):
    """One entry, known by its key and the beginning of its value."""

    namespace: str
    version: Version
    facts: Facts


@dataclass
class Row:
    """What there is of one version of a namespace. `bytes` as the store counts them."""

    namespace: str
    version: Version
    entries: int = 0
    bytes: int = 0
    generation: str | None = None
    moved_at: float | None = None
    no_ttl: int = 0
    locked: str = "unknown"
    estimated: bool = False

    def facts(self) -> dict[str, Any]:
        """As `memover ls --format json` has it."""
        facts = asdict(self)
        if not self.estimated:
            del facts["estimated"]
        return facts

    def scale(self, factor: float) -> None:
        """Makes the counts of a sample those of the whole."""
        self.entries, self.bytes = round(self.entries * factor), round(self.bytes * factor)
        self.no_ttl, self.estimated = round(self.no_ttl * factor), factor > 1


def number_of(version: Version) -> int:
    """The number that the source says."""
    return int(str(version).partition("~")[0])


def order(row: Row) -> tuple[str, int, str]:
    """Rows by namespace, then by number of the version."""
    return row.namespace, number_of(row.version), str(row.version)


class EntryReader:
    """Tells the entries of a prefix from everything else."""

    def __init__(self, prefix: str) -> None:
        self.pattern = f"{prefix}:[1-9]*:*".encode()
        self._key = re.compile(
            rb"%b:([1-9][0-9]{0,18}(?:~[0-9a-f]{8})?):(.*)\Z" % re.escape(prefix).encode(), re.DOTALL
        )

    def fits(self, key: bytes) -> bool:
        """Whether a key has the form of an entry's."""
        return self._key.match(key) is not None

    def entry(self, facts: Facts) -> FoundEntry | None:
        """The entry that a key holds; None for a foreign value."""
        found = self._key.match(facts.key)
        head = facts.head
        if found is None or len(head) <= KIND_AT or not head.startswith(MAGIC):
            return None
        text = found[1].decode()
        version = int(text) if text.isdigit() else text
        if head[KIND_AT] == KIND_KEY_VALUE:
            return FoundEntry(KEY_VALUES, version, facts)
        namespace, colon, _ = found[2].partition(b":")
        if not colon or not _NAMESPACE.match(namespace):
            return None
        return FoundEntry(namespace.decode(), version, facts)


def entries(
    survey: Survey, prefix: str, *, on_step: Callable[[int], None], step: int = 1000, head: int = KIND_AT + 1
) -> Iterator[list[FoundEntry]]:
    """Every entry of a prefix, step by step, each once. `head` is how much of each value is read, in bytes;
    `on_step` is told how many keys a step has looked at."""
    reader = EntryReader(prefix)
    seen: set[int] = set()
    for page in survey.keys(reader.pattern, step):
        keys = []
        for key in page.keys:
            mark = hash(key)
            if mark in seen or not reader.fits(key):
                continue
            if len(seen) < _SEEN_LIMIT:
                seen.add(mark)
            keys.append(key)
        found = [reader.entry(each) for each in survey.facts(keys, head) if each is not None] if keys else []
        on_step(page.looked_at)
        yield [each for each in found if each is not None]


def marks_of(survey: Survey, entry: FoundEntry) -> set[bytes]:
    """The names of the tokens in an entry's header, of which `HEAD_LIMIT_BYTES` were read; none for one that is damaged.

    A header that is longer is read again. Raises `StoreError`."""
    head = entry.facts.head
    for _ in range(2):
        try:
            header = read_header(head, entry.facts.key, whole=False)
        except DamagedEntry as error:
            if error.reason != "truncated" or len(head) < HEAD_LIMIT_BYTES:
                return set()
            head = survey.value(entry.facts.key) or b""
        else:
            return {name for name, _ in header.marks}
    return set()


def tally(rows: dict[tuple[str, Version], Row], entry: FoundEntry) -> None:
    """Counts an entry into its row."""
    place = entry.namespace, entry.version
    row = rows.get(place)
    if row is None:
        row = rows[place] = Row(*place)
    row.entries += 1
    row.bytes += entry.facts.size
    row.no_ttl += entry.facts.expires_ms is None


def count(context: StoreContext, *, on_step: Callable[[int], None], step: int = 1000) -> dict[tuple[str, Version], Row]:
    """Every entry of the prefix, counted by namespace and version. A scan of all keys; raises `StoreError`."""
    rows: dict[tuple[str, Version], Row] = {}
    for found in entries(context.survey, context.prefix, step=step, on_step=on_step):
        for each in found:
            tally(rows, each)
    complete(context, rows)
    return rows


def estimate(context: StoreContext, sample: int, *, on_step: Callable[[int], None]) -> dict[tuple[str, Version], Row]:
    """As `count`, from about `sample` keys of all; exact where the store has no fair sample to give (`Survey.hashed`)."""
    if not context.survey.hashed:
        return count(context, on_step=on_step)
    reader, survey = EntryReader(context.prefix), context.survey
    total, looked_at = survey.total(), 0
    rows: dict[tuple[str, Version], Row] = {}
    for page in survey.keys(b"*", min(1000, sample)):
        looked_at += len(page.keys)
        on_step(len(page.keys))
        facts = survey.facts([key for key in page.keys if reader.fits(key)], KIND_AT + 1)
        for each in facts:
            entry = None if each is None else reader.entry(each)
            if entry is not None:
                tally(rows, entry)
        if looked_at >= sample:
            break
    for row in rows.values():
        row.scale(total / looked_at)
    complete(context, rows)
    return rows


def complete(context: StoreContext, rows: dict[tuple[str, Version], Row]) -> None:
    """Adds what generations and the lock say to rows that were counted. One round trip a server; raises `StoreError`."""
    names = sorted({row.namespace for row in rows.values()})
    tokens = context.survey.tokens([generation_key(context.prefix, name).encode() for name in names])
    locked = lock_states(context)
    for row in rows.values():
        token = tokens[names.index(row.namespace)]
        generation = parse(token)
        if token is not None and generation is not None:
            row.generation, row.moved_at = str(generation), generation.number / 1e6
        row.locked = locked(row.namespace, row.version)


def lock_states(context: StoreContext) -> Callable[[str, Version], str]:
    """What the lock says of a version of a namespace: "current", "old" (lower, or of a function that is gone) or "unknown"."""
    current, removed = context.named_in_lock(), context.removed_in_lock()

    def state(namespace: str, version: Version) -> str:
        number, wanted = number_of(version), current.get(namespace)
        if wanted is None:
            return "old" if number <= removed.get(namespace, 0) else "unknown"
        return "current" if number == wanted else "old" if number < wanted else "unknown"

    return state


def namespaces(context: StoreContext) -> set[str]:
    """The namespaces that have, or had, a generation in the store. A scan of all keys; raises `StoreError`."""
    start = generation_key(context.prefix, "").encode()
    names = (key[len(start) :] for page in context.survey.keys(start + b"*") for key in page.keys)
    return {name.decode() for name in names if _NAMESPACE.match(name)}


def prefixes(survey: Survey) -> list[str]:
    """Prefixes that the first keys of a store show to be memover's: for a message that says which there are."""
    found: set[str] = set()
    looked_at = 0
    for page in survey.keys(b"*:gen:*", 1000):
        looked_at += page.looked_at
        found.update(key.partition(b":gen:")[0].decode("utf-8", "backslashreplace") for key in page.keys)
        if looked_at >= _PREFIX_KEYS_LIMIT:
            break
    return sorted(found)
