"""Looking through a store's file in bounded steps: `memover.stores.survey.Survey` for SQLite.

A key is that of an entry, the name of a token, or `{entry key}:lease`. A page of entries is read by row number, one of
tokens and leases by name, so no step reads more than `step` rows. Nothing that is looked at counts as used.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from memover.clocks import monotonic
from memover.engine import lease as leases
from memover.errors import StoreError
from memover.model import Key
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.changing import change
from memover.stores.sqlite.limits import Limits
from memover.stores.sqlite.marks import entry_place, token_place
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.schema import FOREVER, USER_VERSION
from memover.stores.sqlite.store import SqliteStore
from memover.stores.sqlite.url import parse_url
from memover.stores.survey import HEAD_LIMIT_BYTES, LEAST_RECENTLY_USED, Facts, NotBegun, Page, Right, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SqliteSurvey"]

_ROW_BYTES = 40
"""About what a row takes besides its key and value, with its place in the indexes."""
_UNBOUNDED_BYTES = 1 << 62
_LEASE = re.compile(rb"\{.*\}:lease(?::.*)?\Z", re.DOTALL)


class SqliteSurvey:
    """A survey of the file that a URL names; see `memover.stores.survey.Survey`."""

    hashed = False

    def __init__(self, store: SqliteStore, *, begins: bool = True) -> None:
        self._store = store
        self._begins = begins
        self.address = store.address

    @classmethod
    def at(cls, url: str, answer_seconds: float) -> SqliteSurvey:
        """A survey with a connection of its own, which begins no file and makes no room in it."""
        limits = Limits(max_bytes=_UNBOUNDED_BYTES, lock_timeout=answer_seconds)
        return cls(SqliteStore(parse_url(url), limits), begins=False)

    def close(self) -> None:
        self._store.close()

    def total(self) -> int:
        # The last row's number is at least the number of rows, and needs no counting.
        ((entries,),) = self._rows("SELECT coalesce(max(id), 0) FROM entries")
        ((tokens,),) = self._rows("SELECT count(*) FROM tokens")
        ((held,),) = self._rows("SELECT count(*) FROM leases")
        return int(entries + tokens + held)

    def keys(self, pattern: bytes, step: int = 1000) -> Iterator[Page]:
        fits = _glob(pattern)
        now = time_ms()
        last: Any = 0
        while rows := self._rows("SELECT id, key, expires FROM entries WHERE id > ? ORDER BY id LIMIT ?", last, step):
            last = rows[-1][0]
            yield _page(fits, len(rows), [key.encode() for _, key, expires in rows if expires > now])
        for query, form in (
            ("SELECT name FROM tokens WHERE name > ? ORDER BY name LIMIT ?", b"%b"),
            ("SELECT key FROM leases WHERE key > ? ORDER BY key LIMIT ?", b"{%b}:lease"),
        ):
            last = ""
            while rows := self._rows(query, last, step):
                last = rows[-1][0]
                yield _page(fits, len(rows), [form % key.encode() for (key,) in rows])

    def facts(self, keys: Sequence[bytes], head: int = HEAD_LIMIT_BYTES) -> list[Facts | None]:
        return [self._facts(key, head) for key in keys]

    def _facts(self, key: bytes, head: int) -> Facts | None:
        now = time_ms()
        text = _text(key)
        found = self._rows(
            "SELECT size, expires, substr(raw, 1, ?) FROM entries WHERE key = ? AND expires > ?", head, text, now
        )
        if not found:
            found = self._rows(
                "SELECT length(token), expires, substr(token, 1, ?) FROM tokens WHERE name = ?", head, text
            )
        if not found and (lease := self._lease(key)) is not None:
            found = [(len(lease[0]), lease[1], lease[0][:head])]
        if not found:
            return None
        size, expires, first = found[0]
        return Facts(key, size + len(key) + _ROW_BYTES, None if expires >= FOREVER else max(0, expires - now), first)

    def value(self, key: bytes) -> bytes | None:
        rows = self._rows(sql.READ_ROW, _text(key), time_ms())
        if rows:
            raw, size, parts, alive = rows[0]
            if alive:
                whole: bytes | None = raw
                if parts is not None:
                    whole = self._there()._reader.whole(Key(_text(key), ()), raw, size, parts, self._deadline())
                return whole
        (token,) = self.tokens([key])
        return token

    def tokens(self, names: Sequence[bytes]) -> list[bytes | None]:
        found = self._there()._reader.tokens(names, self._deadline())
        return [found[name] if name in found else self._other(name) for name in names]

    def _other(self, key: bytes) -> bytes | None:
        rows = self._rows(sql.READ_HEAD, _text(key), time_ms())
        if rows:
            head: bytes = rows[0][0]
            return head
        lease = self._lease(key)
        return None if lease is None else lease[0]

    def _lease(self, name: bytes) -> tuple[bytes, int] | None:
        """The bytes of a lease, and when it ends."""
        if not _LEASE.match(name):
            return None
        text = _text(name)
        key = text[text.index("}:lease:") + 8 :] if "}:lease:" in text else text[1 : -len("}:lease")]
        rows = self._rows("SELECT holder, under, ends FROM leases WHERE key = ? AND ends > ?", key, time_ms())
        if not rows:
            return None
        holder, under, ends = rows[0]
        return (leases.failed(holder) if under is None else leases.held(holder, under)), ends

    def servers(self) -> list[Server]:
        numbers = {name: self._rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")}
        taken = (numbers["page_count"] - numbers["freelist_count"]) * numbers["page_size"]
        notes = (
            f"file {numbers['page_count'] * numbers['page_size']:,} bytes, log {self._store._file.log_bytes():,} bytes",
            f"format {USER_VERSION}",
        )
        limit = self._store.limits.max_bytes
        return [
            Server(
                address=self.address,
                product="SQLite",
                version=sqlite3.sqlite_version,
                role="file",
                memory_used=int(taken),
                memory_limit=limit if limit < _UNBOUNDED_BYTES else None,
                policy=LEAST_RECENTLY_USED,
                clock=time.time(),
                notes=notes,
            )
        ]

    def rights(self, prefix: str) -> list[Right]:
        path = self._store.path
        try:
            self._rows("SELECT 1 FROM tokens LIMIT 1")
            read = Right("read", True)
        except StoreError as error:
            read = Right("read", False, str(error))
        may = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)
        write = Right("write", may, "" if may else f"{path} or its directory may not be written by this user")
        return [read, write]

    def latency(self, count: int) -> list[float]:
        found = []
        for _ in range(count):
            began = monotonic()
            self._rows(sql.read(1), "", "", 0)
            found.append(monotonic() - began)
        return found

    def unlink(self, keys: Sequence[bytes]) -> list[bool]:
        return [self._unlink(_text(key)) for key in keys]

    def _unlink(self, text: str) -> bool:
        for statement in (
            "DELETE FROM entries WHERE key = ?",
            "DELETE FROM tokens WHERE name = ?",
            "DELETE FROM leases WHERE '{' || key || '}:lease' = ?",
        ):
            if statement.startswith("DELETE FROM leases") and not text.startswith("{"):
                continue
            name = text.encode()
            if change(
                self._there()._file, (entry_place(name), token_place(name)), statement, (text,), self._deadline()
            ):
                self._store._tidier.wrote()
                return True
        return False

    def put(self, key: bytes, value: bytes, expire_ms: int) -> None:
        now = time_ms()
        text = _text(key)
        asked = (text, now + expire_ms, now, len(value), value)
        change(self._there()._file, (entry_place(text.encode()),), _PUT, asked, self._deadline())
        self._store._tidier.wrote(len(value))

    def drop(self, entry: bytes, lease: bytes, along: Sequence[bytes], nonce: str) -> None:
        self._there().drop_now(entry, nonce, along)

    def _there(self) -> SqliteStore:
        """The store. Raises `NotBegun`."""
        if not self._begins and not os.path.exists(self._store.path):
            raise NotBegun(
                f"{self.address}: there is no such file, or none that this user may see. The first process that uses a cache in "
                f"it begins it; after three slashes a path is relative to the current directory, after four it is absolute.",
                store=self.address,
            )
        return self._store

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._there()._file.rows(statement, parameters, self._deadline())

    def _deadline(self) -> float:
        return monotonic() + self._store.limits.lock_timeout


_PUT = """INSERT INTO entries (key, expires, used, size, raw) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET expires = excluded.expires, used = excluded.used, size = excluded.size, parts = NULL,
  raw = excluded.raw"""


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _page(fits: re.Pattern[bytes], looked_at: int, keys: list[bytes]) -> Page:
    return Page(looked_at, tuple(key for key in keys if fits.match(key)))


def _glob(pattern: bytes) -> re.Pattern[bytes]:
    """Redis's glob as a regular expression."""
    parts: list[bytes] = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            parts.append(b".*")
        elif char == b"?":
            parts.append(b".")
        elif char == b"[" and (end := pattern.find(b"]", at + 1)) > 0:
            inside = pattern[at:end].replace(b"\\", b"\\\\")
            parts.append(b"[" + inside + b"]")
            at = end + 1
        elif char == b"\\" and at < len(pattern):
            parts.append(re.escape(pattern[at : at + 1]))
            at += 1
        else:
            parts.append(re.escape(char))
    return re.compile(b"".join(parts) + rb"\Z", re.DOTALL)
