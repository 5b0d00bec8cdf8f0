"""What the key-value API does. Keys come as stored texts: `keys.keyvalue` makes them.

When the store cannot be asked:

* reads (`get`, `get_many`, `has_key`) find nothing, and `get_or_set` computes: they fail open;
* `set`, `add`, `touch`, `incr`, `incr_version` and their kin raise `StoreError`, because they promise what others will
  read. What timed out may have been applied. With `on_set_error="forget"`, `set` and `set_many` return instead, and what
  was there before is removed as by a `delete` that failed;
* `delete`, `delete_many` and `clear` raise `InvalidationFailed`, and are repeated until the store has taken them;
  meanwhile this process serves nothing under those names.
"""

from __future__ import annotations

from numbers import Number
from typing import TYPE_CHECKING, Any, Protocol

from memover.engine.invalidate import acknowledged, bumped
from memover.engine.store import INTEGER_LIMIT, Change, Parcel, Stamp
from memover.errors import StoreError, StoreTimeout
from memover.model import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from memover.codec.envelope import Header
    from memover.engine.invalidate import Ledger, Subject
    from memover.engine.steps import Flow
    from memover.model import Key

__all__ = [
    "KeyValues", "add", "clear", "delete", "delete_many", "get", "get_many", "has_key", "incr", "move", "set_many",
    "touch",
]  # fmt: skip


class KeyValues(Protocol):
    """The key-value entries of one cache, as their flows see them; see `runtime.keyvalue`. Nothing here waits."""

    @property
    def ledger(self) -> Ledger: ...

    generation_name: bytes
    wait_seconds: float
    forget_failed_sets: bool

    def is_disabled(self) -> bool: ...
    def named(self, text: str) -> Key: ...
    def parcel(self, key: Key, value: Any, fresh_for: float, stamp: Stamp) -> Parcel: ...
    def header(self, key: Key, generation: bytes | None, raw: bytes | None, *, whole: bool = True) -> Header | None: ...
    def value(self, key: Key, raw: bytes, header: Header) -> Any: ...
    def replaced(self, raw: bytes, header: Header, value: Any) -> bytes: ...
    def limit_ms(self, seconds: float) -> int: ...
    def note_lookup(self, key: Key, value: Any) -> None: ...
    def note_stored(self, parcels: Sequence[Parcel]) -> None: ...
    def store_failed(self, key: Key | None, error: BaseException) -> None: ...
    def invalidation(self, what: str, keys: Sequence[Key]) -> Subject: ...
    def new_token(self) -> str: ...
    def now(self) -> float: ...
    def monotonic(self) -> float: ...


# -- reading: a store that fails is a store that has nothing ------------------------------------------------------------------


def get(entries: KeyValues, text: str, default: Any) -> Flow[Any]:
    """The value under a key, or `default`. One round trip."""
    key = entries.named(text)
    if entries.is_disabled():
        return default
    value: Any = MISSING
    try:
        seen = yield from entries.ledger.store.read(key)
        value = opened(entries, key, seen.tokens[0], seen.raw)
    except StoreError as error:
        entries.store_failed(key, error)
    entries.note_lookup(key, value)
    return default if value is MISSING else value


def get_many(entries: KeyValues, texts: Mapping[Any, str]) -> Flow[dict[Any, Any]]:
    """The values that are there, by the keys of `texts`. One round trip."""
    keys = {name: entries.named(text) for name, text in texts.items()}
    found: dict[Any, Any] = {}
    if not keys or entries.is_disabled():
        return found
    try:
        _, tokens, raws = yield from entries.ledger.store.read_plain(tuple(keys.values()))
    except StoreError as error:
        entries.store_failed(None, error)
        return found
    for (name, key), raw in zip(keys.items(), raws):
        value = opened(entries, key, tokens[0], raw)
        entries.note_lookup(key, value)
        if value is not MISSING:
            found[name] = value
    return found


def has_key(entries: KeyValues, text: str) -> Flow[bool]:
    """Whether `get` would find a value."""
    return (yield from get(entries, text, MISSING)) is not MISSING


def opened(entries: KeyValues, key: Key, generation: bytes | None, raw: bytes | None) -> Any:
    """The value of an entry that was read, MISSING where it may not be served."""
    header = entries.header(key, generation, raw)
    return MISSING if header is None or raw is None else entries.value(key, raw, header)


# -- writing ------------------------------------------------------------------------------------------------------------------


def stamp_of(entries: KeyValues) -> Flow[Stamp]:
    """The generation to write under. A `clear` that has not been acknowledged goes first, or it would end what is stored."""
    ledger, name = entries.ledger, entries.generation_name
    if name in ledger.witness.owed:
        before = ledger.owing((name,))
        yield from bumped(ledger, (name,), entries.new_token(), ())
        ledger.settled(before)
    return Stamp(name, ledger.witness.last(name) or b"", ledger.witness.floor(name), entries.new_token())


def changed(entries: KeyValues, change: Change, before: Mapping[bytes, Any]) -> Change:
    """Notes the generation that a write was answered; `before` are the removals owed of entries that it has replaced."""
    entries.ledger.witness.trusts((entries.generation_name,), (change.generation,))
    if change.done:
        entries.ledger.settled(dict(before))
    return change


def owing(entries: KeyValues, *keys: Key) -> dict[bytes, Any]:
    """The removals owed of these keys."""
    return entries.ledger.owing([key.entry for key in keys])


def set_many(entries: KeyValues, values: Mapping[str, Any], fresh_for: float) -> Flow[None]:
    """Stores values by text, all in one step (Cluster: one per entry, sent together)."""
    keys = {text: entries.named(text) for text in values}
    if not keys or entries.is_disabled():
        return
    ledger = entries.ledger
    try:
        stamp = yield from stamp_of(entries)
        parcels = [entries.parcel(keys[text], value, fresh_for, stamp) for text, value in values.items()]
        before = owing(entries, *keys.values())
        generation = yield from ledger.store.put(parcels, stamp)
    except StoreError as error:
        entries.store_failed(None, error)
        if not entries.forget_failed_sets:
            raise
        for key in keys.values():
            ledger.owe(key.entry, removal(entries, [key]))
        return
    changed(entries, Change(True, generation), before)
    entries.note_stored(parcels)


def add(entries: KeyValues, text: str, value: Any, fresh_for: float) -> Flow[bool]:
    """Stores a value unless there is one; whether it was stored."""
    key = entries.named(text)
    if entries.is_disabled():
        return True
    stamp = yield from stamp_of(entries)
    parcel = entries.parcel(key, value, fresh_for, stamp)
    if before := owing(entries, key):
        # Its removal is owed, so what is there counts as absent.
        generation = yield from entries.ledger.store.put([parcel], stamp)
        changed(entries, Change(True, generation), before)
        return True
    change = yield from entries.ledger.store.add(parcel, stamp, entries.now())
    return changed(entries, change, {}).done


def touch(entries: KeyValues, text: str, fresh_for: float) -> Flow[bool]:
    """Gives a value a new time to live; whether there was one."""
    key = entries.named(text)
    if entries.is_disabled() or key.entry in entries.ledger.witness.owed:
        return False
    stamp = yield from stamp_of(entries)
    now = entries.now()
    parcel = Parcel(key, b"", -1 if fresh_for <= 0 else entries.limit_ms(fresh_for), MISSING)
    change = yield from entries.ledger.store.touch(parcel, now + fresh_for, stamp, now)
    return changed(entries, change, {}).done


def incr(entries: KeyValues, text: str, delta: Any) -> Flow[Any]:
    """Adds to a number and returns the new value; MISSING when there is none."""
    key = entries.named(text)
    if entries.is_disabled() or key.entry in entries.ledger.witness.owed:
        return MISSING
    if type(delta) is int and -INTEGER_LIMIT < delta < INTEGER_LIMIT:
        stamp = yield from stamp_of(entries)
        change = yield from entries.ledger.store.increment(key, delta, stamp, entries.now())
        changed(entries, change, {})
        if change.detail is not False:
            return change.detail if change.done else MISSING
    return (yield from add_up(entries, key, delta))


def add_up(entries: KeyValues, key: Key, delta: Any) -> Flow[Any]:
    """Adds to what is no plain integer: reads, adds here, and puts it in place of exactly what was read, until that succeeds."""
    store = entries.ledger.store
    deadline = entries.monotonic() + entries.wait_seconds
    while True:
        seen = yield from store.read(key)
        raw = seen.raw
        header = entries.header(key, seen.tokens[0], raw)
        if header is None or raw is None:
            return MISSING
        value = entries.value(key, raw, header)
        if value is MISSING:
            return MISSING
        if not isinstance(value, Number):
            raise TypeError(
                f"The value under {key.text!r} is a {type(value).__name__}; only a number can be incremented."
            )
        value = value + delta
        if (yield from store.swap(key, raw, entries.replaced(raw, header, value))):
            return value
        if entries.monotonic() >= deadline:
            raise StoreTimeout(
                f"{key.text!r} was changed by others throughout {entries.wait_seconds:g} s: count in a plain int.",
                store=store.address,
            )


def move(entries: KeyValues, text: str, to: str) -> Flow[bool]:
    """Gives an entry another key, for `incr_version`; whether there was one."""
    key, other = entries.named(text), entries.named(to)
    if entries.is_disabled() or key.entry in entries.ledger.witness.owed:
        return False
    stamp = yield from stamp_of(entries)
    if key.entry == other.entry:
        seen = yield from entries.ledger.store.read(key)
        return entries.header(key, seen.tokens[0], seen.raw) is not None
    before = owing(entries, other)
    change = yield from entries.ledger.store.move(key, other, stamp, entries.now())
    return changed(entries, change, before).done


# -- removing -----------------------------------------------------------------------------------------------------------------


def removal(entries: KeyValues, keys: Sequence[Key]) -> Callable[[], Flow[object]]:
    """What repeats the removal of these keys."""
    return lambda: entries.ledger.store.remove_many(keys)


def clearing(entries: KeyValues) -> tuple[bytes, Callable[[], Flow[object]]]:
    """The name and the repeat of a `clear`, which covers every removal."""
    name, nonce = entries.generation_name, entries.new_token()
    return name, lambda: bumped(entries.ledger, (name,), nonce, ())


def delete(entries: KeyValues, text: str) -> Flow[bool]:
    """Removes a value; whether there was one."""
    key = entries.named(text)
    subject = entries.invalidation(f"the key {text!r}", [key])
    was_owed = key.entry in entries.ledger.witness.owed
    generation, head = yield from acknowledged(
        entries.ledger, subject, (key.entry,), lambda: entries.ledger.store.remove(key), clearing(entries)
    )
    return not was_owed and entries.header(key, generation, head, whole=False) is not None


def delete_many(entries: KeyValues, texts: Iterable[str]) -> Flow[None]:
    """Removes several values."""
    keys = [entries.named(text) for text in texts]
    if keys:
        subject = entries.invalidation(f"{len(keys)} keys", keys)
        names = tuple(key.entry for key in keys)
        step = lambda: entries.ledger.store.remove_many(keys)  # noqa: E731
        yield from acknowledged(entries.ledger, subject, names, step, clearing(entries))


def clear(entries: KeyValues) -> Flow[None]:
    """Moves the key-value entries, all versions, to a new generation."""
    name, step = clearing(entries)
    yield from acknowledged(entries.ledger, entries.invalidation("the key-value entries", ()), (name,), step)
