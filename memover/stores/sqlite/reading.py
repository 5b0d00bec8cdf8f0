"""Reading tokens, entries and leases from the file.

Each method takes a deadline, on `clocks.monotonic`; without one it never waits and raises `file.Busy` instead. An entry that
was read is noted as used (`File.recent`). All raise `StoreError`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memover.engine import lease as leases
from memover.engine.store import Seen, names_of
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.file import Busy
from memover.stores.sqlite.moments import time_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.engine.store import SeenMany
    from memover.model import Key
    from memover.stores.sqlite.file import File

__all__ = ["ATTEMPTS", "Looked", "Reader", "packed", "texts_of"]

_LONG_BYTES = 1 << 20
ATTEMPTS = 8
"""How often something is tried again that another has changed meanwhile."""


class Looked(NamedTuple):
    """Tokens, entry, the lease's bytes, its holder, and the tokens it was taken under."""

    tokens: list[bytes | None]
    raw: bytes | None
    lease: bytes | None
    holder: str | None
    under: bytes | None


class Reader:
    """One per store."""

    def __init__(self, file: File) -> None:
        self._file = file

    def read(self, key: Key, deadline: float | None) -> Seen:
        """Tokens and entry, of one moment."""
        statement, names = key.packed or packed(key)
        ((*tokens, row, raw, size, parts, _),) = self._file.rows(statement, (*names, time_ms()), deadline)
        if raw is not None:
            self._file.recent[row] = None
            if parts is not None:
                raw = self.whole(key, raw, size, parts, deadline)
        return Seen(key.names, tokens, raw)

    def look(self, key: Key, names: Sequence[bytes], deadline: float | None) -> Looked:
        """These tokens, entry and lease, of one moment."""
        texts = texts_of(tuple(names))
        ((*tokens, _, raw, size, parts, holder, under),) = self._file.rows(
            sql.look(len(texts)), (*texts, time_ms(), key.text), deadline
        )
        if parts is not None:
            raw = self.whole(key, raw, size, parts, deadline)
        lease = None if holder is None else leases.failed(holder) if under is None else leases.held(holder, under)
        return Looked(tokens, raw, lease, holder, under)

    def whole(self, key: Key, raw: bytes, size: int, parts: int, deadline: float | None) -> bytes | None:
        """A long entry. Its pieces go when another has taken its place, so that is then read."""
        if deadline is None and size > _LONG_BYTES:
            raise Busy
        for _ in range(ATTEMPTS):
            pieces = self._file.rows(sql.READ_PIECES, (parts,), deadline)
            whole = b"".join((raw, *(piece for (piece,) in pieces)))
            if len(whole) == size:
                return whole
            rows = self._file.rows(sql.READ_ROW, (key.text, time_ms()), deadline)
            if not rows or not rows[0][3] or rows[0][2] == parts:
                return None
            raw, size, again, _ = rows[0]
            if again is None:
                return raw
            parts = again
        return None

    def read_plain(self, keys: Sequence[Key], deadline: float | None) -> SeenMany:
        """The tokens of all keys, each once, and the entries."""
        names = names_of(keys)
        tokens = self.tokens(names, deadline)
        raws = self._raws(keys, deadline)
        return names, [tokens.get(name) for name in names], [raws.get(key.text) for key in keys]

    def read_many(self, keys: Sequence[Key], names: Sequence[tuple[bytes, ...]], deadline: float | None) -> list[Seen]:
        """For each key the tokens of its names, and the entry."""
        # Tokens before entries: what is then read of an entry may be newer than its tokens, which is a miss, but never older.
        tokens = self.tokens(list(dict.fromkeys(name for some in names for name in some)), deadline)
        raws = self._raws(keys, deadline)
        return [Seen(some, [tokens.get(name) for name in some], raws.get(key.text)) for key, some in zip(keys, names)]

    def tokens(self, names: Sequence[bytes], deadline: float | None) -> dict[bytes, bytes]:
        """The tokens there are, by name."""
        found: dict[bytes, bytes] = {}
        for texts in _batches([name.decode() for name in names]):
            for text, token in self._file.rows(sql.READ_TOKENS, texts, deadline):
                found[text.encode()] = token
        return found

    def _raws(self, keys: Sequence[Key], deadline: float | None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        long: list[tuple[str, bytes, int, int]] = []
        recent = self._file.recent
        now = time_ms()
        for texts in _batches([key.text for key in keys]):
            for text, row, raw, size, parts in self._file.rows(sql.READ_ENTRIES, (now, *texts), deadline):
                recent[row] = None
                if parts is None:
                    found[text] = raw
                else:
                    long.append((text, raw, size, parts))
        if long:
            by_text = {key.text: key for key in keys}
            for text, raw, size, parts in long:
                whole = self.whole(by_text[text], raw, size, parts, deadline)
                if whole is not None:
                    found[text] = whole
        return found


def packed(key: Key) -> tuple[str, tuple[str, ...]]:
    """The statement that reads a key, and its parameters but for the moment; kept in the key."""
    made = sql.read(len(key.names)), (*texts_of(key.names), key.text)
    key.packed = made
    return made


@lru_cache(maxsize=4096)
def texts_of(names: tuple[bytes, ...]) -> tuple[str, ...]:
    """Names as the file has them."""
    return tuple(name.decode() for name in names)


def _batches(texts: Sequence[str]) -> list[tuple[Any, ...]]:
    """Texts as parameters of a batch's statement, filled up with NULLs."""
    return [
        (*texts[at : at + sql.BATCH], *(None,) * (sql.BATCH - len(texts[at : at + sql.BATCH])))
        for at in range(0, len(texts), sql.BATCH)
    ]
