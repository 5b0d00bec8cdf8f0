"""The two writes of a plain miss, performed where they are called: for calls that may wait in their own thread.

They are what `acquire` and `store` of the store come to for a call that has no token but its generation and found no entry.
Whatever else turns out is answered with False, and the caller goes the whole way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memover.engine.store import Granted, Seen
from memover.errors import raised_beneath
from memover.stores.sqlite import statements as sql
from memover.stores.sqlite.connections import changed
from memover.stores.sqlite.failures import ERRORS
from memover.stores.sqlite.moments import time_ms
from memover.stores.sqlite.schema import FOREVER, INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memover.engine.answers import Sealed
    from memover.engine.call import CachedCall
    from memover.model import Key
    from memover.stores.breaker import Breaker
    from memover.stores.sqlite.file import File
    from memover.stores.sqlite.tidy import Tidier

__all__ = ["Direct"]

_ABSENCES = 8

_granted: Callable[[type[Granted], tuple[object, ...]], Granted] = tuple.__new__
"""A named tuple without the function that makes one, which is written in Python."""
_seen: Callable[[type[Seen], tuple[object, ...]], Seen] = tuple.__new__


class Direct:
    """The direct writes of one store. `whole_way(work)` performs `work(deadline)` as the store's other writes are performed: it waits for the
    lock, and counts failures against `breaker`; `absences` are the reads in a row that found no entry, by generation. Methods raise `StoreError`."""

    most = 1

    def __init__(
        self,
        file: File,
        tidier: Tidier,
        breaker: Breaker,
        whole_way: Callable[[Callable[[float], int]], int],
        absences: Mapping[bytes, int],
    ) -> None:
        self._file = file
        self._absences = absences
        self._tidier = tidier
        self._breaker = breaker
        self._whole_way = whole_way

    def take(self, call: CachedCall, token: str, seen: Seen) -> Granted | None:
        """Takes the lease on a key, if its generation still is that which was seen, no entry is there, and nobody has it under
        that generation. None: nothing was changed."""
        function, key, (generation,) = call.function, call.key, seen.tokens
        call.token = token
        function.share(call, token)
        function.hold(call, token)
        now = time_ms()
        asked = (key.text, token, generation, now + function.lease_ms, key.names[0].decode(), now)
        return _granted(Granted, (True, "", seen)) if self._write(sql.TAKE, asked, now) == 1 else None

    def presumed(self, key: Key, token: bytes | None) -> Seen | None:
        """Where the last reads of the function's entries found none, and nothing is kept of this one: no entry."""
        page, text = self._file.page, key.text
        if self._absences.get(key.names[0], 0) < _ABSENCES or token is None or len(key.names) > 1 or page is None:
            return None
        if text in page.rows or text in page.older:
            return None
        return _seen(Seen, (key.names, [token], None, None))

    def put(self, call: CachedCall, token: str, sealed: Sealed) -> bool | None:
        """Stores an entry if `token` has the lease, and gives the lease back. None for one that takes more than one row."""
        now, raw = time_ms(), sealed.raw
        if len(raw) > INLINE_BYTES:
            return None
        expires = now + sealed.expire_ms if sealed.expire_ms else FOREVER
        stored = self._write(sql.STORE, (call.key.text, token, now, raw, len(raw), None, expires), now) == 1
        self._tidier.wrote(len(raw), 2)
        return stored

    def _write(self, statement: str, parameters: Sequence[object], moment: int) -> int:
        # As `File.count`, but for what has to be waited for, opened, or mended: that is left to it.
        file = self._file
        if moment != file.moment:
            file.look(moment)
        idle = file.idle
        if not self._breaker.tripped:
            try:
                connection = idle.pop()
            except IndexError as error:
                if raised_beneath(error):
                    raise
            else:
                count = None
                try:
                    count = changed(connection, statement, parameters)
                except ERRORS:
                    pass
                file.give_back(idle, connection)
                if count is not None:
                    return count
        return self._whole_way(lambda deadline: file.count(statement, parameters, deadline))
