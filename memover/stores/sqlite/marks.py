"""The marks file beside a store, `<path>-marks`: what tells a process that rows it has kept may have changed.

`SqliteStore.fetch` keeps the rows that it has read, and answers from them while nobody can have changed what the same read
would answer now. The marks are words of 64 bits in a file that all processes map into memory; a token and an entry each
have one by their name, which they share with others, and one is of all that may be kept. Whoever changes a row that may be
kept (`changing`)

    writes a new odd word        before the statement
    writes a new even word       after its COMMIT, before the call returns

each into the words of the row and into that of all,

and whoever keeps a row has read its words *before* the statement that read the row, and serves it only while they are even
and the same. No word is ever written twice (it is drawn at random), which is why no lock is needed: a row that was read
before a COMMIT was kept under words from before it, and at least one of them is another one when the change is
acknowledged, whatever several writers of one word do in between. The odd word is for a writer that is killed between the
two: nothing kept is served until somebody writes an even word. Readers do that (`MarkPage.settle`) for a word that has been odd
for `_LEFT_SECONDS`; it never makes what was kept earlier valid again.

**The word of all** tells with one comparison that nothing has been changed. What was found to be served while it was even, the
words of the row having been read after it, may be served while it is the same (`SqliteStore.rereads`).

What need not be marked: rows that are written where none was, or an expired one (nobody serves a row past its end); rows that
leave because they have expired or to make room (they were valid, and still are); leases, which nobody keeps.

**Another file in its place.** Processes compare the path's inode with what they have mapped, each millisecond, as they do with the
database (`File.look`), and each writer does before it returns. A page serves nobody before it is `_NOTICED_MS` old: by then
every call that begins anywhere has looked, and has left the page that was there before.

Files of format 1 are written by versions of memover that know nothing of marks. In these nothing is kept: see `opening`.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from typing import TYPE_CHECKING
from zlib import crc32

from memover.clocks import monotonic
from memover.errors import raised_by_handler
from memover.stores.sqlite.moments import time_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memover.engine.store import Kept

__all__ = ["ALL", "MarkPage", "Row", "beside", "entry_place", "open_page", "token_place"]

_MAGIC = int.from_bytes(b"mvrmark1", "little")
_HEAD_WORDS = 8
ALL = 2
"""Where the word of all is, in the head."""
_TOKENS, _ENTRIES = 1024, 3064
"""Words for tokens and for entries. Those of tokens stand for many rows, so they are apart: entries change more often."""
_BYTES = 8 * (_HEAD_WORDS + _TOKENS + _ENTRIES)
_NOTICED_MS = 3
_LEFT_SECONDS = 2.0
_KEPT_ROWS, _KEPT_BYTES = 10_000, 16 << 20
"""When so much has come in, what has not been asked for since the last time goes."""
_ROW_BYTES = 700
"""What a row takes besides its bytes, about."""

Row = tuple["Kept", int, int, int, int, int, int, tuple[tuple[int, int], ...]]
"""What was read, the row's number, when it expires, then the place and the word of the generation, of the entry, and of all
other tokens."""


def beside(path: str) -> str:
    """The marks file of the database at this path."""
    return path + "-marks"


def token_place(name: bytes) -> int:
    """Where the word of a token is."""
    return _HEAD_WORDS + crc32(name) % _TOKENS


def entry_place(entry: bytes) -> int:
    """Where the word of an entry is, by its key."""
    return _HEAD_WORDS + _TOKENS + crc32(entry) % _ENTRIES


class MarkPage:
    """A marks file that is mapped into memory, and the rows that this process has kept under it. Any thread may call anything."""

    def __init__(self, words: memoryview, identity: tuple[int, int]) -> None:
        self.words = words
        self.identity = identity
        """Device and inode of the file."""
        self.rows: dict[str, Row] = {}
        """Rows by the key of their entry, and below those that were there before the last time that there were too many."""
        self.older: dict[str, Row] = {}
        self._bytes = 0
        self._left: dict[int, tuple[int, float]] = {}

    # -- changing -----------------------------------------------------------------------------------------------------------

    def begin(self, places: Iterable[int]) -> int:
        """To be called before what changes these: nothing that was kept under them is served. Returns the word."""
        words, word = self.words, _new_word() | 1
        for place in (*places, ALL):
            words[place] = word
        return word

    def end(self, places: Iterable[int], begun: int = 0) -> None:
        """To be called after the change: what is read from now on may be kept. `begun` is what `begin` returned."""
        words, word = self.words, _new_word() & ~1
        for place in (*places, ALL):
            # Another writer's odd word stays: it may be in the middle of its change, and its own even word comes after ours.
            if words[place] == begun or not words[place] & 1:
                words[place] = word

    # -- keeping ------------------------------------------------------------------------------------------------------------

    def marks(self, names: Sequence[bytes], entry: bytes) -> list[tuple[int, int]] | None:
        """Places and words for these tokens and this entry, to be read before the row is; None where one is odd."""
        words = self.words
        at = entry_place(entry)
        marks = [(at, words[at])]
        for name in names:
            at = token_place(name)
            marks.append((at, words[at]))
        for at, word in marks:
            if word & 1:
                self.settle(at, word)
                return None
        return marks

    def keep(self, text: str, kept: Kept, number: int, expires: int, marks: list[tuple[int, int]], size: int) -> None:
        """Keeps a row that was read after its marks."""
        entry, generation, *more = marks
        kept.grew = self._grew
        size += _ROW_BYTES
        self._bytes += size
        if len(self.rows) >= _KEPT_ROWS or self._bytes > _KEPT_BYTES:
            oldest, self.older, self.rows, self._bytes = self.older, self.rows, {}, size
            _drop(list(oldest.values()))
        before = self.rows.get(text)
        if before is not None:
            _drop([before])
        self.rows[text] = kept, number, expires, *generation, *entry, tuple(more)

    def find(self, text: str) -> Row | None:
        """A row of those that were not asked for lately."""
        row = self.older.pop(text, None)
        if row is not None:
            _drop([row])  # it was counted with the others: it is made, and counted, again
            self.rows[text] = row
            self._bytes += len(row[0].raw or b"") + _ROW_BYTES
        return row

    def forget(self) -> None:
        """Drops all rows. They refer to the page, which would keep its file open until the collector comes by."""
        rows, self.rows, older, self.older = self.rows, {}, self.older, {}
        _drop([*rows.values(), *older.values()])

    def _grew(self, size: int) -> None:
        self._bytes += size

    def settle(self, place: int, word: int) -> None:
        """A reader has found this odd word: if it has been there for long, its writer was killed, and an even one takes its place."""
        known, since = self._left.get(place, (0, 0.0))
        if known != word:
            if len(self._left) > _TOKENS:
                self._left = {}
            self._left[place] = word, monotonic()
        elif monotonic() - since > _LEFT_SECONDS:
            self._left.pop(place, None)
            self.end((place,), word)


def _drop(rows: list[Row]) -> None:
    """Lets go of what readers keep beside these rows."""
    for row in rows:
        kept = row[0]
        item, kept.decoded = kept.decoded, None
        if item is not None:
            item.end()


def _new_word() -> int:
    # From the system: a generator of random numbers would go on alike in a process and in its forked child.
    return int.from_bytes(os.urandom(8), "little")


def open_page(path: str) -> MarkPage | None:
    """The marks of the database at this path, made where there are none. To be called under the lock of `opening`. None where
    they cannot be had: nothing is kept then."""
    try:
        page = _mapped(beside(path))
        if page is None:
            _make(path)
            page = _mapped(beside(path))
    except (OSError, ValueError) as error:  # the latter: it has been cut off since it was looked at
        if raised_by_handler(error):
            raise
        return None
    if page is not None and 0 <= (age_ms := time_ms() - page.words[1]) <= _NOTICED_MS:
        time.sleep((_NOTICED_MS + 1 - age_ms) / 1000)  # whoever made it: that one may have been interrupted here
    return page


def _mapped(name: str) -> MarkPage | None:
    """None for a file that is not there, or is none of ours."""
    try:
        descriptor = os.open(name, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size != _BYTES:
            return None
        words = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
    finally:
        os.close(descriptor)
    return MarkPage(words, (state.st_dev, state.st_ino)) if words[0] == _MAGIC else None


def _make(path: str) -> None:
    name = beside(path)
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass
    owner = os.stat(path)
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if hasattr(os, "fchmod"):
            # As SQLite does with its log: who may write the database may mark what they change.
            os.fchmod(descriptor, stat.S_IMODE(owner.st_mode))
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        head = b"".join(word.to_bytes(8, "little") for word in (_MAGIC, time_ms(), _new_word() & ~1))
        os.write(descriptor, head + bytes(_BYTES - len(head)))
    finally:
        os.close(descriptor)
