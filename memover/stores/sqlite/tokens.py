"""Tokens in the file: put back where missing, kept as long as what needs them, and moved by invalidations.

All methods wait for the lock until their deadline, on `clocks.monotonic`, and raise `StoreError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.store import TOKEN_MARGIN_MS
from memover.errors import StoreUnavailable
from memover.keys.names import transient
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.changing import change, changing
from memover.stores.sqlite.marks import entry_place, token_place
from memover.stores.sqlite.moments import time_us
from memover.stores.sqlite.reading import ATTEMPTS
from memover.stores.sqlite.schema import DROPPED_NAMES, FOREVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.reading import Reader

__all__ = ["Tokens", "is_behind"]

_KEEP_SLACK_MS = 30_000
"""Tokens are kept for longer than needed by this, so that not every miss has to prolong them."""
_NAMES_AT_ONCE = 200


class Tokens:
    """One per store."""

    def __init__(self, file: File, reader: Reader) -> None:
        self._file = file
        self._reader = reader

    def ensured(
        self, names: Sequence[bytes], floors: Sequence[int], nonce: str, until: int, deadline: float
    ) -> list[bytes]:
        """The tokens of these names, put back where missing or behind, and kept until then."""
        for _ in range(ATTEMPTS):
            found = self._reader.tokens(names, deadline)
            behind = [at for at, name in enumerate(names) if is_behind(found.get(name), floors[at])]
            if not behind:
                self.keep(names, until, deadline)
                return [found[name] for name in names]
            self.put_back([names[at] for at in behind], [floors[at] for at in behind], nonce, until, deadline)
        raise StoreUnavailable(f"{self._file.address}: tokens go as soon as they are made.", store=self._file.address)

    def put_back(self, names: Sequence[bytes], floors: Sequence[int], nonce: str, until: int, deadline: float) -> None:
        """Has those that are missing or behind their floors made anew."""
        for at in range(0, len(names), _NAMES_AT_ONCE):
            some = list(zip(names[at : at + _NAMES_AT_ONCE], floors[at : at + _NAMES_AT_ONCE]))
            asked = [
                word for name, floor in some for word in (name.decode(), floor, until if transient(name) else FOREVER)
            ]
            places = [token_place(name) for name, floor in some if floor]  # without a floor, one that is there stays
            change(self._file, places, sql.ensure(len(some)), (*asked, time_us(), nonce), deadline)

    def keep(self, names: Sequence[bytes], until: int, deadline: float) -> None:
        """Has the short-lived ones among these tokens live until then, at least."""
        texts = [name.decode() for name in names if transient(name)]
        for at in range(0, len(texts), _NAMES_AT_ONCE):
            some = texts[at : at + _NAMES_AT_ONCE]
            if self._file.rows(sql.among(sql.SHORT_LIVED, len(some)), (until, *some), deadline):
                self._file.count(
                    sql.among(sql.PROLONG, len(some)), (min(until + _KEEP_SLACK_MS, FOREVER), *some), deadline
                )

    def bump(
        self, names: Sequence[bytes], nonce: str, floors: Sequence[int], along: Sequence[bytes], deadline: float
    ) -> list[bytes]:
        """Moves tokens; the new ones of `names`. See `engine.store.Store.bump`."""
        now_us = time_us()
        until = now_us // 1000 + TOKEN_MARGIN_MS
        asked = [
            (name.decode(), floor, until if transient(name) else FOREVER, must)
            for part, levels, must in ((names, floors, True), (along, [0] * len(along), False))
            for name, floor in zip(part, levels)
        ]
        first = (asked[0][0], max(now_us, asked[0][1] + 1))
        moved: dict[bytes, bytes] = {}

        def work() -> None:
            for at in range(0, len(asked), _NAMES_AT_ONCE):
                some = asked[at : at + _NAMES_AT_ONCE]
                parameters = [word for each in some for word in each]
                for text, token in self._file.rows(sql.bump(len(some)), (*parameters, *first, nonce), deadline):
                    moved[text.encode()] = token

        changing(self._file, [token_place(name) for name in (*names, *along)], work, deadline)
        return [moved[name] for name in names]

    def drop(self, entry: bytes, nonce: str, along: Sequence[bytes], deadline: float) -> None:
        """Removes an entry and its lease, and moves tokens that exist. See `engine.store.Store.drop`."""
        now_us = time_us()
        until = now_us // 1000 + TOKEN_MARGIN_MS
        texts = [name.decode() for name in along]
        some: list[str | None] = [*texts[:DROPPED_NAMES], *[None] * (DROPPED_NAMES - len(texts))]

        def work() -> None:
            self._file.count(sql.DROP, (entry.decode(), nonce, now_us, until, *some), deadline)
            for text in texts[DROPPED_NAMES:]:
                self._file.count(sql.DROP, (None, nonce, now_us, until, text, *some[1:]), deadline)

        changing(self._file, [entry_place(entry), *map(token_place, along)], work, deadline)


def is_behind(token: bytes | None, floor: int) -> bool:
    """Whether a token is missing, is none of ours, or has a number less than that."""
    digits = b"" if token is None else token.partition(b"-")[0]
    return not digits.isdigit() or int(digits) < floor
